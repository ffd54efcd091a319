//! Layer normalisation by hand.

use pulp::{Arch, Simd, WithSimd};

use super::EPSILON;

/// Each row of `out` becomes gain · x̂ + bias with x̂ = (x − mean) / √(variance + ε). Keeps x̂ in
/// `normal` and 1 / √(variance + ε) in `scale`.
pub(super) fn forward(
    out: &mut [f32],
    normal: &mut [f32],
    scale: &mut [f32],
    x: &[f32],
    gain: &[f32],
    bias: &[f32],
) {
    Arch::new().dispatch(Forward { out, normal, scale, x, gain, bias });
}

/// Replaces `gradient`, that of the output, by that of the input, and adds those of gain and
/// bias.
pub(super) fn backward(
    gradient: &mut [f32],
    normal: &[f32],
    scale: &[f32],
    gain: &[f32],
    of_gain: &mut [f32],
    of_bias: &mut [f32],
) {
    Arch::new().dispatch(Backward { gradient, normal, scale, gain, of_gain, of_bias });
}

/// Σ over `n` registers of what `of` adds for each, in two sums that do not wait for each other.
#[inline(always)]
fn sum<S: Simd>(simd: S, n: usize, of: impl Fn(usize, S::f32s) -> S::f32s) -> f32 {
    let mut sums = [simd.splat_f32s(0.0); 2];
    for pair in 0..n / 2 {
        sums = [of(2 * pair, sums[0]), of(2 * pair + 1, sums[1])];
    }
    if !n.is_multiple_of(2) {
        sums[0] = of(n - 1, sums[0]);
    }
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
}

struct Forward<'a> {
    out: &'a mut [f32],
    normal: &'a mut [f32],
    scale: &'a mut [f32],
    x: &'a [f32],
    gain: &'a [f32],
    bias: &'a [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, normal, scale, x, gain, bias } = self;
        let width = gain.len();
        let ((gains, gain), (biases, bias)) = (S::as_simd_f32s(gain), S::as_simd_f32s(bias));
        let n = gains.len();
        let rows = out.chunks_exact_mut(width).zip(normal.chunks_exact_mut(width));
        for (((out, normal), x), scale) in rows.zip(x.chunks_exact(width)).zip(scale) {
            let (xs, x) = S::as_simd_f32s(x);
            let xs = &xs[..n];
            let mean = sum(simd, n, |i, sum| simd.add_f32s(xs[i], sum)) + x.iter().sum::<f32>();
            let mean = mean / width as f32;
            let means = simd.splat_f32s(mean);
            let squares = sum(simd, n, |i, sum| {
                let apart = simd.sub_f32s(xs[i], means);
                simd.mul_add_e_f32s(apart, apart, sum)
            });
            let squares = squares + x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
            *scale = 1.0 / (squares / width as f32 + EPSILON).sqrt();
            let scales = simd.splat_f32s(*scale);
            let ((outs, out), (normals, normal)) =
                (S::as_mut_simd_f32s(out), S::as_mut_simd_f32s(normal));
            let (outs, normals) = (&mut outs[..n], &mut normals[..n]);
            for i in 0..n {
                normals[i] = simd.mul_f32s(simd.sub_f32s(xs[i], means), scales);
                outs[i] = simd.mul_add_e_f32s(normals[i], gains[i], biases[i]);
            }
            for i in 0..x.len() {
                normal[i] = (x[i] - mean) * *scale;
                out[i] = normal[i] * gain[i] + bias[i];
            }
        }
    }
}

struct Backward<'a> {
    gradient: &'a mut [f32],
    normal: &'a [f32],
    scale: &'a [f32],
    gain: &'a [f32],
    of_gain: &'a mut [f32],
    of_bias: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { gradient, normal, scale, gain, of_gain, of_bias } = self;
        let width = gain.len();
        let (gains, gain) = S::as_simd_f32s(gain);
        let n = gains.len();
        let (of_gains, of_gain) = S::as_mut_simd_f32s(of_gain);
        let (of_biases, of_bias) = S::as_mut_simd_f32s(of_bias);
        let (of_gains, of_biases) = (&mut of_gains[..n], &mut of_biases[..n]);
        let rows = gradient.chunks_exact_mut(width).zip(normal.chunks_exact(width));
        for ((dy, normal), &scale) in rows.zip(scale) {
            let ((dys, dy), (normals, normal)) = (S::as_mut_simd_f32s(dy), S::as_simd_f32s(normal));
            let (dys, normals) = (&mut dys[..n], &normals[..n]);
            for i in 0..n {
                of_gains[i] = simd.mul_add_e_f32s(dys[i], normals[i], of_gains[i]);
                of_biases[i] = simd.add_f32s(of_biases[i], dys[i]);
                dys[i] = simd.mul_f32s(dys[i], gains[i]);
            }
            for i in 0..dy.len() {
                of_gain[i] += dy[i] * normal[i];
                of_bias[i] += dy[i];
                dy[i] *= gain[i];
            }
            let mean = sum(simd, n, |i, sum| simd.add_f32s(dys[i], sum)) + dy.iter().sum::<f32>();
            let along = sum(simd, n, |i, sum| simd.mul_add_e_f32s(dys[i], normals[i], sum));
            let along = along + dy.iter().zip(normal).map(|(dy, x)| dy * x).sum::<f32>();
            let (mean, along) = (mean / width as f32, along / width as f32);
            let (means, alongs) = (simd.splat_f32s(-mean), simd.splat_f32s(-along));
            let scales = simd.splat_f32s(scale);
            for i in 0..n {
                let apart = simd.mul_add_e_f32s(normals[i], alongs, simd.add_f32s(dys[i], means));
                dys[i] = simd.mul_f32s(scales, apart);
            }
            for i in 0..dy.len() {
                dy[i] = scale * (dy[i] - mean - normal[i] * along);
            }
        }
    }
}
