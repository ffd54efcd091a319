//! Layer normalisation by hand.

use gfn_core::vector::vectorised;

use super::EPSILON;

/// Sums in 16 lanes, in a fixed order.
#[inline(always)]
fn sum(terms: impl Fn(usize) -> f32, n: usize) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = n - n % 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += terms(start + lane);
        }
    }
    for i in whole..n {
        lanes[i - whole] += terms(i);
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

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
    let width = gain.len();
    vectorised(
        #[inline(always)]
        || {
            let rows = out.chunks_exact_mut(width).zip(normal.chunks_exact_mut(width));
            for (((out, normal), x), scale) in rows.zip(x.chunks_exact(width)).zip(scale) {
                let (gain, bias) = (&gain[..width], &bias[..width]);
                let mean = sum(|i| x[i], width) / width as f32;
                let square = |i: usize| (x[i] - mean) * (x[i] - mean);
                *scale = 1.0 / (sum(square, width) / width as f32 + EPSILON).sqrt();
                for i in 0..width {
                    normal[i] = (x[i] - mean) * *scale;
                    out[i] = normal[i] * gain[i] + bias[i];
                }
            }
        },
    );
}

/// Replaces `gradient`, that of the output, by that of the input, and adds those of gain and
/// bias.
pub(super) fn backward(
    gradient: &mut [f32],
    normal: &[f32],
    scale: &[f32],
    gain: &[f32],
    gain_gradient: &mut [f32],
    bias_gradient: &mut [f32],
) {
    let width = gain.len();
    vectorised(
        #[inline(always)]
        || {
            let rows = gradient.chunks_exact_mut(width).zip(normal.chunks_exact(width));
            for ((dy, normal), &scale) in rows.zip(scale) {
                let (of_gain, of_bias) = (&mut gain_gradient[..width], &mut bias_gradient[..width]);
                let gain = &gain[..width];
                for i in 0..width {
                    of_gain[i] += dy[i] * normal[i];
                    of_bias[i] += dy[i];
                    dy[i] *= gain[i];
                }
                let mean = sum(|i| dy[i], width) / width as f32;
                let along = sum(|i| dy[i] * normal[i], width) / width as f32;
                for i in 0..width {
                    dy[i] = scale * (dy[i] - mean - normal[i] * along);
                }
            }
        },
    );
}
