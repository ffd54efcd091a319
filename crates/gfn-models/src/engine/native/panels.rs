//! Matrices packed for products with rows from the left, as the layers of a network compute them.
//!
//! A rollout multiplies a few rows at a time with the same weights, step after step. A general
//! matrix product copies its operands into an order of its own at every call, which for a few rows
//! takes longer than the product. Here weights are packed once per update, and a product of one to
//! a thousand rows runs at the rate of a large one.

use std::ops::Range;

use gfn_core::vector::{load, store};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::kernels::Mat;
use super::largest_first::PER_THREAD;
use super::transpose::transpose;

/// Vector registers per row of a panel.
const VECTORS: usize = 2;
/// Rows that are multiplied with one panel after the other before the next rows: they stay in the
/// cache.
const BLOCK: usize = 96;

/// A `k` × `n` matrix cut into panels of as many columns as two registers hold; each panel
/// is stored row after row, the last one padded with zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
}

/// What happens to a product on its way into the output.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a> {
    /// A bias, `[n]`, is added.
    Bias(&'a [f32]),
    /// A bias is added, and what is negative becomes 0.
    BiasRelu(&'a [f32]),
    /// The gradient of that: 0 where the activation, laid out as the output, is not positive.
    Gate(&'a [f32]),
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

impl Panels {
    /// Packs a row-major matrix of `n` columns, in place of what was there.
    pub fn pack(&mut self, matrix: &[f32], n: usize) {
        self.pack_with(matrix.len() / n, n, |columns, panel, width| {
            for (packed, row) in panel.chunks_exact_mut(width).zip(matrix.chunks_exact(n)) {
                // By lengths that are known in advance: else every row would be a call.
                let (whole, rest) = row[columns.clone()].as_chunks::<8>();
                let (packed, of_rest) = packed.split_at_mut(8 * whole.len());
                for (packed, whole) in packed.as_chunks_mut::<8>().0.iter_mut().zip(whole) {
                    *packed = *whole;
                }
                for (packed, &value) in of_rest.iter_mut().zip(rest) {
                    *packed = value;
                }
            }
        });
    }

    /// Packs the transpose of a row-major matrix of `k` columns, in place of what was there.
    pub fn pack_transposed(&mut self, matrix: &[f32], k: usize) {
        self.pack_with(k, matrix.len() / k, |columns, panel, width| {
            transpose(panel, width, columns.len(), k, |c| &matrix[(columns.start + c) * k..]);
        });
    }

    /// Lets `fill` write the given columns into each panel, row after row `width` apart.
    fn pack_with(
        &mut self,
        k: usize,
        n: usize,
        fill: impl Fn(Range<usize>, &mut [f32], usize) + Sync,
    ) {
        let width = VECTORS * Arch::new().dispatch(Lanes);
        if (self.k, self.n) != (k, n) {
            // The padding of the last panel is not written again.
            *self = Self { data: vec![0.0; n.div_ceil(width) * k * width], k, n };
        }
        let per_thread = PER_THREAD.div_ceil(k * width);
        let panels = self.data.par_chunks_mut(k * width).with_min_len(per_thread).enumerate();
        panels.for_each(|(p, panel)| fill(p * width..n.min((p + 1) * width), panel, width));
    }

    /// The product of `rows`, `m` × `k` by rows, with the matrix, finished, into `m` rows of `out`
    /// that start `stride` numbers apart.
    ///
    /// Every sum is taken in the order of the rows of the matrix, whatever `m` is.
    ///
    /// # Panics
    /// When shapes do not match.
    pub fn product(&self, out: &mut [f32], stride: usize, rows: Mat<'_>, finish: Finish<'_>) {
        assert_eq!(rows.cols(), self.k, "shapes agree");
        if let Finish::Bias(bias) | Finish::BiasRelu(bias) = finish {
            assert_eq!(bias.len(), self.n, "shapes agree");
        }
        Arch::new().dispatch(Product { out, stride, rows, panels: self, finish });
    }
}

struct Product<'a> {
    out: &'a mut [f32],
    stride: usize,
    rows: Mat<'a>,
    panels: &'a Panels,
    finish: Finish<'a>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let m = self.rows.rows();
        for start in (0..m).step_by(BLOCK) {
            self.block(simd, start, m.min(start + BLOCK));
        }
    }
}

impl Product<'_> {
    /// Rows `start..end`: panel by panel, in tiles of as many rows as registers hold sums of.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, start: usize, end: usize) {
        let n_panels = self.panels.n.div_ceil(VECTORS * S::F32_LANES);
        let most = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let tiles = (end - start).div_ceil(most);
        // One or two rows have too few sums to keep the multipliers busy: several panels at once.
        let group = match (end - start).div_ceil(tiles) {
            1 => 4,
            2 => 2,
            _ => 1,
        };
        let mut panel = 0;
        while panel < n_panels {
            let at_once = if panel + group <= n_panels { group } else { 1 };
            for tile in 0..tiles {
                let first = start + (end - start) * tile / tiles;
                let rows = start + (end - start) * (tile + 1) / tiles - first;
                match (rows, at_once) {
                    (1, 4) => self.tile::<S, 1, 4>(simd, first, panel),
                    (1, 2) => self.tile::<S, 1, 2>(simd, first, panel),
                    (2, 2) => self.tile::<S, 2, 2>(simd, first, panel),
                    (1, _) => self.tile::<S, 1, 1>(simd, first, panel),
                    (2, _) => self.tile::<S, 2, 1>(simd, first, panel),
                    (3, _) => self.tile::<S, 3, 1>(simd, first, panel),
                    (4, _) => self.tile::<S, 4, 1>(simd, first, panel),
                    (5, _) => self.tile::<S, 5, 1>(simd, first, panel),
                    (6, _) => self.tile::<S, 6, 1>(simd, first, panel),
                    (7, _) => self.tile::<S, 7, 1>(simd, first, panel),
                    (8, _) => self.tile::<S, 8, 1>(simd, first, panel),
                    (9, _) => self.tile::<S, 9, 1>(simd, first, panel),
                    (10, _) => self.tile::<S, 10, 1>(simd, first, panel),
                    (11, _) => self.tile::<S, 11, 1>(simd, first, panel),
                    _ => self.tile::<S, 12, 1>(simd, first, panel),
                }
            }
            panel += at_once;
        }
    }

    /// `R` rows times `G` panels, all sums in registers.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const G: usize>(
        &mut self,
        simd: S,
        first: usize,
        panel: usize,
    ) {
        let Panels { data, k, n } = self.panels;
        let (k, n, lanes) = (*k, *n, S::F32_LANES);
        let width = VECTORS * lanes;
        // All of one length that is known to be `k`: nothing is checked in the loop.
        let (mut rows, mut panels): ([&[f32]; R], [&[_]; G]) = ([&[]; R], [&[]; G]);
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &self.rows.row(first + r)[..k];
        }
        for (g, of_group) in panels.iter_mut().enumerate() {
            let panel = &data[(panel + g) * k * width..][..k * width];
            *of_group = &S::as_simd_f32s(panel).0.as_chunks::<VECTORS>().0[..k];
        }
        let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; R]; G];
        for l in 0..k {
            for (panel, sums) in panels.iter().zip(&mut sums) {
                for (row, sums) in rows.iter().zip(sums) {
                    let x = simd.splat_f32s(row[l]);
                    for (sum, &vector) in sums.iter_mut().zip(&panel[l]) {
                        *sum = simd.mul_add_e_f32s(x, vector, *sum);
                    }
                }
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            let columns = (panel + g) * width..n.min((panel + g + 1) * width);
            // What is added to, or decides about, the columns of every row.
            let mut bias = [simd.splat_f32s(0.0); VECTORS];
            if let Finish::Bias(values) | Finish::BiasRelu(values) = self.finish {
                bias = read(simd, &values[columns.clone()]);
            }
            for (r, sums) in sums.iter().enumerate() {
                let start = (first + r) * self.stride;
                let place = start + columns.start..start + columns.end;
                self.finish_row(simd, place, *sums, bias);
            }
        }
    }

    /// Finishes the sums of a row's columns and writes them.
    #[inline(always)]
    fn finish_row<S: Simd>(
        &mut self,
        simd: S,
        place: Range<usize>,
        mut sums: [S::f32s; VECTORS],
        bias: [S::f32s; VECTORS],
    ) {
        let zero = simd.splat_f32s(0.0);
        let out = &mut self.out[place.clone()];
        match self.finish {
            Finish::Bias(_) => {
                for (sum, bias) in sums.iter_mut().zip(bias) {
                    *sum = simd.add_f32s(*sum, bias);
                }
            }
            Finish::BiasRelu(_) => {
                for (sum, bias) in sums.iter_mut().zip(bias) {
                    *sum = simd.max_f32s(simd.add_f32s(*sum, bias), zero);
                }
            }
            Finish::Gate(activation) => {
                for (sum, activation) in sums.iter_mut().zip(read(simd, &activation[place])) {
                    let open = simd.less_than_f32s(zero, activation);
                    *sum = simd.select_f32s(open, *sum, zero);
                }
            }
        }
        match S::as_mut_simd_f32s(out).0.as_chunks_mut::<VECTORS>().0 {
            [whole] => *whole = sums,
            _ => {
                for (out, sum) in out.chunks_mut(S::F32_LANES).zip(sums) {
                    store(simd, out, sum);
                }
            }
        }
    }
}

/// The numbers of a panel's columns: as many as its registers hold, or less.
#[inline(always)]
fn read<S: Simd>(simd: S, from: &[f32]) -> [S::f32s; VECTORS] {
    match S::as_simd_f32s(from).0.as_chunks::<VECTORS>().0 {
        [whole] => *whole,
        _ => {
            let mut values = [simd.splat_f32s(0.0); VECTORS];
            for (value, from) in values.iter_mut().zip(from.chunks(S::F32_LANES)) {
                *value = load(simd, from);
            }
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37 + seed).sin()).collect()
    }

    /// Every height of a tile, panels that are full, padded and grouped, blocks of rows.
    #[test]
    fn products_equal_their_sums() {
        let heights = (0..=14).chain([23, 95, 96, 97, 200]);
        let mut panels = Panels::default();
        for (m, n) in heights.flat_map(|m| [1, 10, 16, 33, 64, 130].map(|n| (m, n))) {
            let k = 7;
            let (a, b, bias) = (filled(m * (k + 2), 0.1), filled(k * n, 0.5), filled(n, 0.9));
            panels.pack(&b, n);
            let stride = n + 3;
            let rows = Mat::with_stride(&a, m, k, k + 2);
            let activation = filled(m * stride, 0.6);
            let gate = Finish::Gate(&activation);
            for finish in [Finish::Bias(&bias), Finish::BiasRelu(&bias), gate] {
                let mut out = vec![7.0; m * stride];
                panels.product(&mut out, stride, rows, finish);
                for (i, out) in out.chunks_exact(stride).enumerate() {
                    for j in 0..n {
                        let term = |l: usize| f64::from(a[i * (k + 2) + l] * b[l * n + j]);
                        let sum = (0..k).map(term).sum::<f64>();
                        let expected = match finish {
                            Finish::Bias(bias) => sum + f64::from(bias[j]),
                            Finish::BiasRelu(bias) => (sum + f64::from(bias[j])).max(0.0),
                            Finish::Gate(gate) if gate[i * stride + j] <= 0.0 => 0.0,
                            Finish::Gate(_) => sum,
                        };
                        assert!((f64::from(out[j]) - expected).abs() < 1e-5, "{m} {n} {i} {j}");
                    }
                    assert_eq!(out[n..], [7.0; 3], "nothing is written between rows");
                }
            }
        }
    }

    #[test]
    fn transposes_are_packed_alike() {
        for (k, n) in [(3, 5), (7, 16), (20, 40), (8, 29)] {
            let matrix = filled(k * n, 0.3);
            let turned: Vec<f32> = (0..n * k).map(|i| matrix[i % k * n + i / k]).collect();
            let mut panels = [Panels::default(), Panels::default()];
            panels[0].pack(&matrix, n);
            panels[1].pack_transposed(&turned, k);
            assert_eq!(panels[0].data, panels[1].data);
        }
    }

    /// What a row gives does not depend on the rows beside it.
    #[test]
    fn rows_are_independent() {
        let (k, n, m) = (40, 50, 17);
        let (a, b, bias) = (filled(m * k, 0.2), filled(k * n, 0.4), filled(n, 0.6));
        let mut panels = Panels::default();
        panels.pack(&b, n);
        let mut together = vec![0.0; m * n];
        panels.product(&mut together, n, Mat::new(&a, m, k), Finish::Bias(&bias));
        for (row, together) in a.chunks(k).zip(together.chunks(n)) {
            let mut alone = vec![0.0; n];
            panels.product(&mut alone, n, Mat::new(row, 1, k), Finish::Bias(&bias));
            assert_eq!(alone, together);
        }
    }
}
