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
        2 * self.size * self.padded() + self.padded()
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
        let Self { t, heads, size } = self;
        let (width, padded) = (self.width(), self.padded());
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
                            row.fill(0.0);
                            for (c, &q) in q.iter().enumerate() {
                                let q = q * scale;
                                add_scaled(row, &keys[c * padded..][..padded], q);
                            }
                            soften(row, t);
                            let out = &mut out[i * width + head * size..][..size];
                            out.fill(0.0);
                            for (j, &weight) in row[..t].iter().enumerate() {
                                let start = j * 3 * width + 2 * width + head * size;
                                add_scaled(out, &qkv[start..][..size], weight);
                            }
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
        let Self { t, heads, size } = self;
        let (width, padded) = (self.width(), self.padded());
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize(self.scratch_len(), 0.0);
        let (values, rest) = scratch.split_at_mut(size * padded);
        let of_scores = &mut rest[..padded];
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
                        for i in 0..t {
                            let upstream = &gradient[i * width + head * size..][..size];
                            let row = &weights[(head * t + i) * padded..][..padded];
                            // Through the softmax: w (d − Σ w d), with d the gradient of w.
                            of_scores.fill(0.0);
                            for (c, &g) in upstream.iter().enumerate() {
                                add_scaled(of_scores, &values[c * padded..][..padded], g);
                            }
                            let mean = dot(row, of_scores);
                            for (score, &weight) in of_scores.iter_mut().zip(row) {
                                *score = weight * (*score - mean) * scale;
                            }
                            let q = &qkv[i * 3 * width + q0..][..size];
                            for j in 0..t {
                                let (score, start) = (of_scores[j], j * 3 * width);
                                let of_q = &mut out[i * 3 * width + q0..][..size];
                                add_scaled(of_q, &qkv[start + k0..][..size], score);
                                add_scaled(&mut out[start + k0..][..size], q, score);
                                add_scaled(&mut out[start + v0..][..size], upstream, row[j]);
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

#[inline(always)]
fn add_scaled(out: &mut [f32], x: &[f32], factor: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out += x * factor;
    }
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
    lanes.iter().sum()
}

/// The softmax of the first `t` entries; the padding becomes 0.
#[inline(always)]
fn soften(row: &mut [f32], t: usize) {
    let max = row[..t].iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
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
    let factor = 1.0 / lanes.iter().sum::<f32>();
    for x in row.iter_mut() {
        *x *= factor;
    }
}
