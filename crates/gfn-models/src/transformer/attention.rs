//! Multi-head self-attention over short sequences by hand.
//!
//! Sequences have tens of tokens and heads have few features, so each head of each sequence is a
//! handful of products too small for a matrix product: sums are held in registers, for several
//! tokens at a time.

use gfn_core::vector::{exp_of, load, store};
use pulp::{Arch, Simd, WithSimd};

/// Keys are padded to a multiple of this, the widest register.
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

    /// Queries, keys and values of a head, in the rows of one sequence.
    #[inline(always)]
    fn parts(self, data: &[f32], head: usize) -> [Features<'_>; 3] {
        let (width, size) = (self.width(), self.size);
        let part = |part: usize| {
            let first = part * width + head * size;
            Features { data, stride: 3 * width, first, size }
        };
        [part(0), part(1), part(2)]
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
        Arch::new().dispatch(Forward { sizes: self, out, weights, qkv, scratch });
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
        let sizes = self;
        Arch::new().dispatch(Backward { sizes, qkv_gradient, gradient, weights, qkv, scratch });
    }
}

/// One head's features of all tokens of a sequence, inside wider rows.
#[derive(Clone, Copy)]
struct Features<'a> {
    data: &'a [f32],
    /// Numbers from one token to the next.
    stride: usize,
    first: usize,
    size: usize,
}

impl<'a> Features<'a> {
    #[inline(always)]
    fn of(self, token: usize) -> &'a [f32] {
        &self.data[token * self.stride + self.first..][..self.size]
    }

    /// Copies them by features, `[size, padded]`, times a factor. The padding stays as it is.
    #[inline(always)]
    fn transpose(self, out: &mut [f32], t: usize, padded: usize, factor: f32) {
        for (c, out) in out.chunks_exact_mut(padded).enumerate() {
            let from = self.data[self.first + c..].iter().step_by(self.stride);
            for (out, &value) in out[..t].iter_mut().zip(from) {
                *out = value * factor;
            }
        }
    }
}

/// Calls a method for rows 0.., `$many` at a time as long as there are so many.
macro_rules! in_tiles {
    ($n:expr, $i:ident, $rows:ident => $call:expr) => {{
        let mut $i = 0;
        while $n - $i >= 8 {
            const $rows: usize = 8;
            $call;
            $i += 8;
        }
        while $n - $i >= 4 {
            const $rows: usize = 4;
            $call;
            $i += 4;
        }
        while $n - $i >= 1 {
            const $rows: usize = 1;
            $call;
            $i += 1;
        }
    }};
}

/// `out[i][j] = Σ_c rows[i][c] · columns[c][j]` for `R` tokens from `first` on and all padded j.
#[inline(always)]
fn products<S: Simd, const R: usize>(
    simd: S,
    out: &mut [f32],
    rows: Features<'_>,
    columns: &[f32],
    padded: usize,
    first: usize,
) {
    let lanes = S::F32_LANES;
    let mut of_row: [&[f32]; R] = [&[]; R];
    for (r, row) in of_row.iter_mut().enumerate() {
        *row = rows.of(first + r);
    }
    for j in (0..padded).step_by(lanes) {
        let mut sums = [simd.splat_f32s(0.0); R];
        for (c, column) in columns.chunks_exact(padded).enumerate() {
            let column = load(simd, &column[j..j + lanes]);
            for (sum, row) in sums.iter_mut().zip(of_row) {
                *sum = simd.mul_add_e_f32s(simd.splat_f32s(row[c]), column, *sum);
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            store(simd, &mut out[(first + r) * padded + j..][..lanes], sum);
        }
    }
}

/// Where a mix of rows goes: `size` numbers of every token, `stride` apart, from `first` on.
struct Target<'a> {
    out: &'a mut [f32],
    stride: usize,
    first: usize,
    size: usize,
}

/// `out[i] = Σ_j weight(i, j) · values[j]` for `R` tokens from `start` on.
#[inline(always)]
fn mix<S: Simd, const R: usize>(
    simd: S,
    to: &mut Target<'_>,
    values: Features<'_>,
    (t, padded): (usize, usize),
    start: usize,
    weights: Weights<'_>,
) {
    let lanes = S::F32_LANES;
    let (weights, step) = weights.of::<R>(start, padded);
    for c in (0..to.size).step_by(lanes) {
        let width = lanes.min(to.size - c);
        let mut sums = [simd.splat_f32s(0.0); R];
        for j in 0..t {
            let value = load(simd, &values.of(j)[c..c + width]);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                let weight = simd.splat_f32s(weights[j * step]);
                *sum = simd.mul_add_e_f32s(weight, value, *sum);
            }
        }
        for (r, sum) in sums.into_iter().enumerate() {
            let out = (start + r) * to.stride + to.first + c;
            store(simd, &mut to.out[out..][..width], sum);
        }
    }
}

/// Factors that mix rows: for token `i`, those of j are along its row or, transposed, down a column.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Along(&'a [f32]),
    Down(&'a [f32]),
}

impl<'a> Weights<'a> {
    /// The factors of `R` tokens, those of j at j times the second number.
    #[inline(always)]
    fn of<const R: usize>(self, i: usize, padded: usize) -> ([&'a [f32]; R], usize) {
        let mut rows: [&[f32]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = match self {
                Weights::Along(weights) => &weights[(i + r) * padded..][..padded],
                Weights::Down(weights) => &weights[i + r..],
            };
        }
        (rows, if matches!(self, Weights::Along(_)) { 1 } else { padded })
    }
}

/// The softmax of the first `t` entries of every row; the padding becomes 0.
#[inline(always)]
fn soften<S: Simd>(simd: S, rows: &mut [f32], t: usize, padded: usize) {
    for row in rows.chunks_exact_mut(padded) {
        pad(row, t, f32::MIN);
        let (registers, _) = S::as_mut_simd_f32s(row);
        let mut max = registers[0];
        for &x in &registers[1..] {
            max = simd.max_f32s(max, x);
        }
        let max = simd.splat_f32s(simd.reduce_max_f32s(max));
        for x in registers {
            *x = simd.sub_f32s(*x, max);
        }
    }
    // Across rows: exponentials of a single row would wait for each other.
    let (registers, _) = S::as_mut_simd_f32s(rows);
    for x in registers {
        *x = exp_of(simd, *x);
    }
    for row in rows.chunks_exact_mut(padded) {
        pad(row, t, 0.0);
        let (registers, _) = S::as_mut_simd_f32s(row);
        let mut sum = registers[0];
        for &x in &registers[1..] {
            sum = simd.add_f32s(sum, x);
        }
        let factor = simd.splat_f32s(1.0 / simd.reduce_sum_f32s(sum));
        for x in registers {
            *x = simd.mul_f32s(*x, factor);
        }
    }
}

/// Fills the padding, where there is any: filling nothing would be a call all the same.
#[inline(always)]
fn pad(row: &mut [f32], t: usize, value: f32) {
    if t < row.len() {
        row[t..].fill(value);
    }
}

struct Forward<'a> {
    sizes: Attention,
    out: &'a mut [f32],
    weights: &'a mut [f32],
    qkv: &'a [f32],
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, out, weights, qkv, scratch } = self;
        let Attention { t, size, .. } = sizes;
        let (width, padded) = (sizes.width(), sizes.padded());
        scratch.clear();
        scratch.resize(size * padded, 0.0);
        let sequences = out.chunks_exact_mut(t * width).zip(qkv.chunks_exact(3 * t * width));
        for ((out, data), weights) in sequences.zip(weights.chunks_exact_mut(sizes.weights_len())) {
            for (head, weights) in weights.chunks_exact_mut(t * padded).enumerate() {
                let [q, k, v] = sizes.parts(data, head);
                k.transpose(scratch, t, padded, 1.0 / (size as f32).sqrt());
                in_tiles!(t, i, R => products::<S, R>(simd, weights, q, scratch, padded, i));
                soften(simd, weights, t, padded);
                let mut to = Target { out: &mut *out, stride: width, first: q.first, size };
                in_tiles!(t, i, R => {
                    mix::<S, R>(simd, &mut to, v, (t, padded), i, Weights::Along(weights))
                });
            }
        }
    }
}

struct Backward<'a> {
    sizes: Attention,
    qkv_gradient: &'a mut [f32],
    gradient: &'a [f32],
    weights: &'a [f32],
    qkv: &'a [f32],
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sizes, qkv_gradient, gradient, weights, qkv, scratch } = self;
        let Attention { t, size, .. } = sizes;
        let (width, padded) = (sizes.width(), sizes.padded());
        let scale = 1.0 / (size as f32).sqrt();
        scratch.clear();
        scratch.resize((size + t) * padded, 0.0);
        let (columns, of_scores) = scratch.split_at_mut(size * padded);
        let of_weights = weights.chunks_exact(sizes.weights_len());
        let outputs = qkv_gradient.chunks_exact_mut(3 * t * width).zip(of_weights);
        let inputs = gradient.chunks_exact(t * width).zip(qkv.chunks_exact(3 * t * width));
        for ((out, weights), (gradient, data)) in outputs.zip(inputs) {
            for (head, weights) in weights.chunks_exact(t * padded).enumerate() {
                let [q, k, v] = sizes.parts(data, head);
                let dy = Features { data: gradient, stride: width, ..q };
                v.transpose(columns, t, padded, 1.0);
                // Through the softmax: w (d − Σ w d), with d the gradient of w.
                in_tiles!(t, i, R => products::<S, R>(simd, of_scores, dy, columns, padded, i));
                let rows = of_scores.chunks_exact_mut(padded).zip(weights.chunks_exact(padded));
                for (of_scores, weights) in rows {
                    let (of_scores, _) = S::as_mut_simd_f32s(of_scores);
                    let (weights, _) = S::as_simd_f32s(weights);
                    let mut mean = simd.splat_f32s(0.0);
                    for (&of_score, &weight) in of_scores.iter().zip(weights) {
                        mean = simd.mul_add_e_f32s(of_score, weight, mean);
                    }
                    let mean = simd.splat_f32s(simd.reduce_sum_f32s(mean));
                    let scale = simd.splat_f32s(scale);
                    for (of_score, &weight) in of_scores.iter_mut().zip(weights) {
                        let apart = simd.sub_f32s(*of_score, mean);
                        *of_score = simd.mul_f32s(simd.mul_f32s(weight, scale), apart);
                    }
                }
                let mut to = Target { out: &mut *out, stride: 3 * width, first: q.first, size };
                in_tiles!(t, i, R => {
                    mix::<S, R>(simd, &mut to, k, (t, padded), i, Weights::Along(of_scores))
                });
                to.first += width;
                in_tiles!(t, i, R => {
                    mix::<S, R>(simd, &mut to, q, (t, padded), i, Weights::Down(of_scores))
                });
                to.first += width;
                in_tiles!(t, i, R => {
                    mix::<S, R>(simd, &mut to, dy, (t, padded), i, Weights::Down(weights))
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.73 + seed).sin()).collect()
    }

    /// Σ over outputs of upstream · output, in double precision, by the definition.
    fn by_definition(sizes: Attention, qkv: &[f64], upstream: &[f32]) -> f64 {
        let Attention { t, heads, size } = sizes;
        let width = sizes.width();
        let mut total = 0.0;
        for (sequence, qkv) in qkv.chunks(3 * t * width).enumerate() {
            let at = |token: usize, part: usize, c: usize| qkv[(token * 3 + part) * width + c];
            for (head, i) in (0..heads).flat_map(|head| (0..t).map(move |i| (head, i))) {
                let features = head * size..(head + 1) * size;
                let score = |j| features.clone().map(|c| at(i, 0, c) * at(j, 1, c)).sum::<f64>();
                let power: Vec<f64> =
                    (0..t).map(|j| (score(j) / (size as f64).sqrt()).exp()).collect();
                let sum: f64 = power.iter().sum();
                for c in features.clone() {
                    let mixed: f64 = (0..t).map(|j| power[j] / sum * at(j, 2, c)).sum();
                    total += f64::from(upstream[(sequence * t + i) * width + c]) * mixed;
                }
            }
        }
        total
    }

    /// Every way of cutting tokens into tiles and of padding tokens and features.
    #[test]
    fn passes_agree_with_the_definition() {
        for (t, heads, size) in
            [(1, 1, 1), (5, 3, 8), (16, 2, 8), (20, 1, 3), (9, 2, 16), (33, 1, 20)]
        {
            let sizes = Attention { t, heads, size };
            let (n, width) = (2, sizes.width());
            let (qkv, upstream) = (filled(n * t * 3 * width, 0.1), filled(n * t * width, 0.5));
            let mut scratch = vec![9.0; 5];
            let mut out = vec![7.0; n * t * width];
            let mut weights = vec![7.0; n * sizes.weights_len()];
            sizes.forward(&mut out, &mut weights, &qkv, &mut scratch);
            let wide: Vec<f64> = qkv.iter().map(|&x| f64::from(x)).collect();
            let total: f64 = out.iter().zip(&upstream).map(|(x, up)| f64::from(x * up)).sum();
            let expected = by_definition(sizes, &wide, &upstream);
            assert!((total - expected).abs() < 1e-4, "{t} {heads} {size}: {total} {expected}");
            let mut back = vec![7.0; n * t * 3 * width];
            sizes.backward(&mut back, &upstream, &weights, &qkv, &mut scratch);
            // Every 7th input, by differences.
            for i in (0..qkv.len()).step_by(7) {
                let h = 1e-5;
                let at = |sign: f64| {
                    let mut moved = wide.clone();
                    moved[i] += sign * h;
                    by_definition(sizes, &moved, &upstream)
                };
                let slope = (at(1.0) - at(-1.0)) / (2.0 * h);
                assert!((f64::from(back[i]) - slope).abs() < 1e-5, "{t} {heads} {size} {i}");
            }
        }
    }
}
