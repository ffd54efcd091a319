//! Multi-head self-attention over short sequences by hand.
//!
//! Sequences have tens of tokens and heads have few features, so each head of each sequence is a
//! handful of small products: loops over keys (padded to [`LANES`]) or features, without a call to
//! a matrix product.

use gfn_core::kernels::{exp, vectorised};

/// Keys are padded to a multiple of this.
const LANES: usize = 16;

/// Sizes of an attention layer.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    /// Tokens per sequence.
    pub(super) t: usize,
    /// Number of heads.
    pub(super) heads: usize,
    /// Features per head.
    pub(super) size: usize,
}

impl Attention {
    fn width(self) -> usize {
        self.heads * self.size
    }

    fn padded(self) -> usize {
        self.t.next_multiple_of(LANES)
    }

    /// Numbers that the weights of one sequence take.
    pub(super) fn weights_len(self) -> usize {
        self.heads * self.t * self.padded()
    }

    /// Numbers of scratch that both passes need.
    pub(super) fn scratch_len(self) -> usize {
        3 * self.size * self.padded() + self.padded()
    }

    /// Mixes the values of all sequences in `qkv`, `[n, t, 3 width]`, into `out`, `[n, t, width]`,
    /// and keeps the attention weights.
    pub(super) fn forward(
        self,
        out: &mut [f32],
        weights: &mut [f32],
        qkv: &[f32],
        scratch: &mut Vec<f32>,
    ) {
        match (self.size, self.padded()) {
            (8, 16) => self.forward_of::<8, 16>(out, weights, qkv, scratch),
            (8, _) => self.forward_of::<8, 0>(out, weights, qkv, scratch),
            (16, _) => self.forward_of::<16, 0>(out, weights, qkv, scratch),
            _ => self.forward_of::<0, 0>(out, weights, qkv, scratch),
        }
    }

    /// [`forward`](Self::forward) for features per head and padded keys that are known when
    /// compiling; 0 stands for any.
    fn forward_of<const SIZE: usize, const PADDED: usize>(
        self,
        out: &mut [f32],
        weights: &mut [f32],
        qkv: &[f32],
        scratch: &mut Vec<f32>,
    ) {
        let Self { t, heads, .. } = self;
        let width = self.width();
        let size = if SIZE == 0 { self.size } else { SIZE };
        let padded = if PADDED == 0 { self.padded() } else { PADDED };
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize(self.scratch_len(), 0.0);
        let keys = &mut scratch[..size * padded];
        vectorised(
            #[inline(always)]
            || {
                let sequences =
                    out.chunks_exact_mut(t * width).zip(qkv.chunks_exact(3 * t * width));
                let weights = weights.chunks_exact_mut(heads * t * padded);
                for ((out, qkv), weights) in sequences.zip(weights) {
                    for head in 0..heads {
                        transpose(keys, qkv, t, 3 * width, width + head * size, size, padded);
                        for i in 0..t {
                            let q = &qkv[i * 3 * width + head * size..][..size];
                            let row = &mut weights[(head * t + i) * padded..][..padded];
                            let keys = keys.chunks_exact(padded);
                            accumulate::<PADDED>(row, q.iter().map(|&q| q * scale).zip(keys));
                            soften(row, t);
                            let out = &mut out[i * width + head * size..][..size];
                            let values = |j: usize| &qkv[(j * 3 + 2) * width + head * size..];
                            let values = (0..t).map(|j| &values(j)[..size]);
                            accumulate::<SIZE>(out, row.iter().copied().zip(values));
                        }
                    }
                }
            },
        );
    }

    /// The gradient of `qkv`, from that of the output and the weights that were kept.
    pub(super) fn backward(
        self,
        qkv_gradient: &mut [f32],
        gradient: &[f32],
        weights: &[f32],
        qkv: &[f32],
        scratch: &mut Vec<f32>,
    ) {
        match (self.size, self.padded()) {
            (8, 16) => self.backward_of::<8, 16>(qkv_gradient, gradient, weights, qkv, scratch),
            (8, _) => self.backward_of::<8, 0>(qkv_gradient, gradient, weights, qkv, scratch),
            (16, _) => self.backward_of::<16, 0>(qkv_gradient, gradient, weights, qkv, scratch),
            _ => self.backward_of::<0, 0>(qkv_gradient, gradient, weights, qkv, scratch),
        }
    }

    /// [`backward`](Self::backward) for sizes that are known when compiling.
    fn backward_of<const SIZE: usize, const PADDED: usize>(
        self,
        qkv_gradient: &mut [f32],
        gradient: &[f32],
        weights: &[f32],
        qkv: &[f32],
        scratch: &mut Vec<f32>,
    ) {
        let Self { t, heads, .. } = self;
        let width = self.width();
        let size = if SIZE == 0 { self.size } else { SIZE };
        let padded = if PADDED == 0 { self.padded() } else { PADDED };
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize(self.scratch_len(), 0.0);
        let (values, rest) = scratch.split_at_mut(size * padded);
        let (of_keys, rest) = rest.split_at_mut(size * padded);
        let (of_values, of_scores) = rest.split_at_mut(size * padded);
        qkv_gradient.fill(0.0);
        vectorised(
            #[inline(always)]
            || {
                let sequences =
                    gradient.chunks_exact(t * width).zip(qkv.chunks_exact(3 * t * width));
                let out = qkv_gradient.chunks_exact_mut(3 * t * width);
                let weights = weights.chunks_exact(heads * t * padded);
                for (((gradient, qkv), out), weights) in sequences.zip(out).zip(weights) {
                    for head in 0..heads {
                        let [q0, k0, v0] = [0, 1, 2].map(|part| part * width + head * size);
                        transpose(values, qkv, t, 3 * width, v0, size, padded);
                        of_keys.fill(0.0);
                        of_values.fill(0.0);
                        for i in 0..t {
                            let upstream = &gradient[i * width + head * size..][..size];
                            let row = &weights[(head * t + i) * padded..][..padded];
                            // Through the softmax: w (d − Σ w d), with d the gradient of w.
                            let values = values.chunks_exact(padded);
                            let terms = upstream.iter().copied().zip(values);
                            accumulate::<PADDED>(of_scores, terms);
                            let mean = dot(row, of_scores);
                            for (score, &weight) in of_scores.iter_mut().zip(row) {
                                *score = weight * (*score - mean) * scale;
                            }
                            let q = &qkv[i * 3 * width + q0..][..size];
                            let keys = (0..t).map(|j| &qkv[j * 3 * width + k0..][..size]);
                            let of_q = &mut out[i * 3 * width + q0..][..size];
                            accumulate::<SIZE>(of_q, of_scores.iter().copied().zip(keys));
                            for (c, (&q, &upstream)) in q.iter().zip(upstream).enumerate() {
                                let feature = c * padded..(c + 1) * padded;
                                add_scaled(&mut of_keys[feature.clone()], of_scores, q);
                                add_scaled(&mut of_values[feature], row, upstream);
                            }
                        }
                        for j in 0..t {
                            let of_token = &mut out[j * 3 * width..][..3 * width];
                            for c in 0..size {
                                of_token[k0 + c] = of_keys[c * padded + j];
                                of_token[v0 + c] = of_values[c * padded + j];
                            }
                        }
                    }
                }
            },
        );
    }
}

/// `size` features of `t` tokens, from `column` of rows of `stride`, as rows of `padded`.
#[inline(always)]
fn transpose(
    out: &mut [f32],
    rows: &[f32],
    t: usize,
    stride: usize,
    column: usize,
    size: usize,
    padded: usize,
) {
    for j in 0..t {
        for (c, &value) in rows[j * stride + column..][..size].iter().enumerate() {
            out[c * padded + j] = value;
        }
    }
}

/// `out` = Σ factor · x, in registers if the length is known when compiling.
#[inline(always)]
fn accumulate<'a, const N: usize>(out: &mut [f32], terms: impl Iterator<Item = (f32, &'a [f32])>) {
    if N == 0 {
        out.fill(0.0);
        terms.for_each(|(factor, x)| add_scaled(out, x, factor));
        return;
    }
    let mut sum = [0.0f32; N];
    for (factor, x) in terms {
        for (sum, &x) in sum.iter_mut().zip(&x[..N]) {
            *sum += x * factor;
        }
    }
    out[..N].copy_from_slice(&sum);
}

#[inline(always)]
fn add_scaled(out: &mut [f32], x: &[f32], factor: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out += x * factor;
    }
}

/// Reduces lanes in halves, which is a few shuffles where one after the other is a long chain.
#[inline(always)]
fn reduce(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The dot product of two padded rows.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    reduce(lanes, |a, b| a + b)
}

/// The softmax of the first `t` entries; the padding becomes 0.
#[inline(always)]
fn soften(row: &mut [f32], t: usize) {
    row[t..].fill(f32::MIN);
    let mut lanes = [f32::MIN; LANES];
    for chunk in row.chunks_exact(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = reduce(lanes, |a, b| if a > b { a } else { b });
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    row[t..].fill(0.0);
    let mut lanes = [0.0f32; LANES];
    for chunk in row.chunks_exact(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let factor = 1.0 / reduce(lanes, |a, b| a + b);
    for x in row.iter_mut() {
        *x *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.73 + seed).sin()).collect()
    }

    /// The loops compiled for usual sizes against the general ones, which are tested against Burn.
    #[test]
    fn specialised_loops_agree_with_general_ones() {
        for (t, size) in [(5, 8), (16, 8), (20, 8), (9, 16), (33, 16)] {
            let attention = Attention { t, heads: 3, size };
            let (n, width) = (2, 3 * size);
            let (qkv, gradient) = (filled(n * t * 3 * width, 0.1), filled(n * t * width, 0.5));
            let empty = |len: usize| vec![0.0f32; n * len];
            let (mut scratch, len) = (Vec::new(), attention.weights_len());
            let (mut out, mut weights) = (empty(t * width), empty(len));
            attention.forward(&mut out, &mut weights, &qkv, &mut scratch);
            let (mut out2, mut weights2) = (empty(t * width), empty(len));
            attention.forward_of::<0, 0>(&mut out2, &mut weights2, &qkv, &mut scratch);
            let mut back = empty(3 * t * width);
            attention.backward(&mut back, &gradient, &weights, &qkv, &mut scratch);
            let mut back2 = empty(3 * t * width);
            attention.backward_of::<0, 0>(&mut back2, &gradient, &weights, &qkv, &mut scratch);
            for (a, b) in [(&out, &out2), (&weights, &weights2), (&back, &back2)] {
                for (a, b) in a.iter().zip(b) {
                    assert!((a - b).abs() < 1e-5, "t {t}, size {size}: {a} {b}");
                }
            }
            assert!(out.iter().all(|x| x.is_finite()) && out.iter().any(|&x| x != 0.0));
        }
    }
}
