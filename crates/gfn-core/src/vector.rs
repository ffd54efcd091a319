//! Loops compiled for several instruction sets (up to AVX-512), of which the widest that the machine
//! has is chosen at run time.

use pulp::{Arch, Simd, WithSimd};

/// Runs a loop compiled for the widest instruction set of this machine. The closure must be
/// `#[inline(always)]`: only what is inlined here is compiled for it.
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Body<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Body(body))
}

/// Adding it rounds to an integer, which the lowest bits of the sum then hold.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, the first of which small integers multiply exactly.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// (e^r − 1 − r) / r² as a polynomial, from the highest power down.
const EXP: [f32; 6] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e^x to two units in the last place, in operations that loops over slices are vectorised with.
/// Beyond ±87 it stays at the value there.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let poly = EXP[1..].iter().fold(EXP[0], |poly, c| poly * r + c);
    let mantissa = poly * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    mantissa * f32::from_bits(power)
}

/// [`exp`] of a register, with fused operations where there are any.
#[inline(always)]
pub fn exp_of<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let all = |value: f32| simd.splat_f32s(value);
    let x = simd.max_f32s(simd.min_f32s(x, all(87.0)), all(-87.0));
    let shifted = simd.mul_add_e_f32s(x, all(std::f32::consts::LOG2_E), all(ROUND));
    let n = simd.sub_f32s(shifted, all(ROUND));
    let r = simd.mul_add_e_f32s(n, all(-LN_2[0]), x);
    let r = simd.mul_add_e_f32s(n, all(-LN_2[1]), r);
    let mut poly = all(EXP[0]);
    for &c in &EXP[1..] {
        poly = simd.mul_add_e_f32s(poly, r, all(c));
    }
    let mantissa = simd.mul_add_e_f32s(poly, simd.mul_f32s(r, r), simd.add_f32s(r, all(1.0)));
    let bias = simd.splat_u32s(127u32.wrapping_sub(ROUND.to_bits()));
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), bias);
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(mantissa, simd.transmute_f32s_u32s(power))
}

/// A slice of at most one register. Whole ones are usual, and faster.
#[inline(always)]
pub fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0 {
        [whole] => *whole,
        _ => simd.partial_load_f32s(from),
    }
}

/// Writes as many of the values as the slice holds, at most one register.
#[inline(always)]
pub fn store<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    match S::as_mut_simd_f32s(to).0 {
        [whole] => *whole = values,
        _ => simd.partial_store_f32s(to, values),
    }
}

/// Writes e^((x − max) · inverse temperature) of every legal logit x to `weights`, 0 where illegal;
/// the largest legal logit and the sum of the weights. All slices have one length.
pub fn softmax_weights(
    logits: &[f32],
    legal: &[bool],
    inverse_temperature: f32,
    weights: &mut [f32],
) -> (f32, f32) {
    Arch::new().dispatch(SoftmaxWeights { logits, legal, inverse_temperature, weights })
}

struct SoftmaxWeights<'a> {
    logits: &'a [f32],
    legal: &'a [bool],
    inverse_temperature: f32,
    weights: &'a mut [f32],
}

impl WithSimd for SoftmaxWeights<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let Self { logits, legal, inverse_temperature, weights } = self;
        let lanes = S::F32_LANES;
        for ((weight, &logit), &legal) in weights.iter_mut().zip(logits).zip(legal) {
            *weight = if legal { logit } else { f32::NEG_INFINITY };
        }
        let (registers, rest) = S::as_mut_simd_f32s(weights);
        // What is left over, in a register of its own.
        let mut last = [f32::NEG_INFINITY; MOST_LANES];
        for (last, &x) in last.iter_mut().zip(&*rest) {
            *last = x;
        }
        let mut last_register = S::as_simd_f32s(&last).0[0];
        let max = registers.iter().fold(last_register, |max, &x| simd.max_f32s(x, max));
        let max = simd.reduce_max_f32s(max);
        let (zero, scale) = (simd.splat_f32s(0.0), simd.splat_f32s(inverse_temperature));
        let (mut sum, all_max) = (zero, simd.splat_f32s(max));
        // Illegal actions often come in long stretches, such as all symbols of a filled slot.
        let blocks = registers.chunks_mut(BLOCK).zip(legal.chunks(BLOCK * lanes));
        for (block, legal) in blocks {
            if !any(legal) {
                block.fill(zero);
                continue;
            }
            for x in block {
                *x = legal_power(simd, *x, all_max, scale);
                sum = simd.add_f32s(sum, *x);
            }
        }
        last_register = legal_power(simd, last_register, all_max, scale);
        sum = simd.add_f32s(sum, last_register);
        S::as_mut_simd_f32s(&mut last).0[0] = last_register;
        for (x, &last) in rest.iter_mut().zip(&last) {
            *x = last;
        }
        (max, simd.reduce_sum_f32s(sum))
    }
}

/// e^((x − max) · scale), 0 for the −∞ of an illegal action.
#[inline(always)]
fn legal_power<S: Simd>(simd: S, x: S::f32s, max: S::f32s, scale: S::f32s) -> S::f32s {
    let power = exp_of(simd, simd.mul_f32s(simd.sub_f32s(x, max), scale));
    let none = simd.splat_f32s(f32::NEG_INFINITY);
    simd.select_f32s(simd.less_than_f32s(none, x), power, simd.splat_f32s(0.0))
}

#[inline(always)]
fn any(flags: &[bool]) -> bool {
    let mut any = false;
    for &flag in flags {
        any |= flag;
    }
    any
}

/// Registers of weights that are skipped together if none of their actions is legal.
const BLOCK: usize = 8;
/// Lanes of the widest registers.
const MOST_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine has is used: loops on the baseline instruction set take several times longer.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn wide_instructions_are_used_where_there_are_any() {
        let wide = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        assert_eq!(wide, !matches!(Arch::new(), Arch::Scalar));
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for i in -8700..=8700 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.4e-7, "{x}");
        }
        let mut powers: Vec<f32> = (-8700..=8700).map(|i| i as f32 * 0.01).collect();
        Arch::new().dispatch(ExpOf(&mut powers));
        for (i, power) in (-8700..=8700).zip(powers) {
            let exact = f64::from(i as f32 * 0.01).exp();
            assert!((f64::from(power) / exact - 1.0).abs() < 2.4e-7, "{i}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) < 2e-38);
    }

    struct ExpOf<'a>(&'a mut [f32]);

    impl WithSimd for ExpOf<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (registers, rest) = S::as_mut_simd_f32s(self.0);
            registers.iter_mut().for_each(|x| *x = exp_of(simd, *x));
            rest.iter_mut().for_each(|x| *x = exp(*x));
        }
    }

    /// Of every length around a register, against double precision.
    #[test]
    fn softmax_weights_are_those_of_the_legal() {
        for n in [1, 2, 7, 31, 32, 33, 40, 100, 128] {
            for density in [1, 2, 5] {
                let logits: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin() * 4.0).collect();
                let legal: Vec<bool> = (0..n).map(|i| i * 7 % density == 0).collect();
                let mut weights = vec![7.0; n];
                let (max, sum) = softmax_weights(&logits, &legal, 0.5, &mut weights);
                let among = || logits.iter().zip(&legal).filter(|(_, legal)| **legal);
                assert_eq!(max, among().map(|(x, _)| *x).fold(f32::NEG_INFINITY, f32::max));
                let power = |x: f32| (f64::from(x - max) * 0.5).exp();
                let expected: f64 = among().map(|(x, _)| power(*x)).sum();
                assert!((f64::from(sum) / expected - 1.0).abs() < 1e-6, "{n} {density}");
                for ((weight, &x), &legal) in weights.iter().zip(&logits).zip(&legal) {
                    let expected = if legal { power(x) } else { 0.0 };
                    assert!((f64::from(*weight) - expected).abs() < 1e-6, "{n} {density}");
                    assert!(legal || *weight == 0.0);
                }
            }
        }
    }
}
