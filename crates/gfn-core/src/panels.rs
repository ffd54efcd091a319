//! Matrices packed for products with rows from the left, as the layers of a network compute them.
//!
//! A rollout multiplies a few rows at a time with the same weights, step after step. A general
//! matrix product copies its operands into an order of its own at every call, which for a few rows
//! takes longer than the product. Here weights are packed once per update, and a product of one to
//! a thousand rows runs at the rate of a large one.

use pulp::{Arch, Simd, WithSimd};

use crate::kernels::Mat;
use crate::vector::{load, store};

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
        let width = VECTORS * Arch::new().dispatch(Lanes);
        let k = matrix.len() / n;
        (self.k, self.n) = (k, n);
        self.data.resize(n.div_ceil(width) * k * width, 0.0);
        for (p, panel) in self.data.chunks_exact_mut(k * width).enumerate() {
            let columns = p * width..n.min((p + 1) * width);
            for (packed, row) in panel.chunks_exact_mut(width).zip(matrix.chunks_exact(n)) {
                let (packed, padding) = packed.split_at_mut(columns.len());
                packed.copy_from_slice(&row[columns.clone()]);
                padding.fill(0.0);
            }
        }
    }

    /// The product of `rows`, `m` × `k` by rows, with the matrix, finished, into `m` rows of `out`
    /// that start `stride` numbers apart.
    ///
    /// Every sum is taken in the order of the rows of the matrix, whatever `m` is.
    ///
    /// # Panics
    /// When shapes do not match.
    pub fn product(&self, out: &mut [f32], stride: usize, rows: Mat<'_>, finish: Finish<'_>) {
        let (Finish::Bias(bias) | Finish::BiasRelu(bias)) = finish;
        assert_eq!((rows.cols(), bias.len()), (self.k, self.n), "shapes agree");
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
        let (mut rows, mut panels): ([&[f32]; R], [&[f32]; G]) = ([&[]; R], [&[]; G]);
        for (r, row) in rows.iter_mut().enumerate() {
            *row = self.rows.row(first + r);
        }
        for (g, of_group) in panels.iter_mut().enumerate() {
            *of_group = &data[(panel + g) * k * width..][..k * width];
        }
        let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; R]; G];
        for l in 0..k {
            for (panel, sums) in panels.iter().zip(&mut sums) {
                let (vectors, _) = S::as_simd_f32s(&panel[l * width..][..width]);
                for (row, sums) in rows.iter().zip(sums) {
                    let x = simd.splat_f32s(row[l]);
                    for (sum, &vector) in sums.iter_mut().zip(vectors) {
                        *sum = simd.mul_add_e_f32s(x, vector, *sum);
                    }
                }
            }
        }
        let (Finish::Bias(bias) | Finish::BiasRelu(bias)) = self.finish;
        let least = match self.finish {
            Finish::Bias(_) => f32::NEG_INFINITY,
            Finish::BiasRelu(_) => 0.0,
        };
        let least = simd.splat_f32s(least);
        for (g, sums) in sums.iter().enumerate() {
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let column = (panel + g) * width + v * lanes;
                    if column >= n {
                        continue;
                    }
                    let columns = column..n.min(column + lanes);
                    let start = (first + r) * self.stride;
                    let out = &mut self.out[start + columns.start..start + columns.end];
                    let sum = simd.add_f32s(sum, load(simd, &bias[columns]));
                    store(simd, out, simd.max_f32s(sum, least));
                }
            }
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
            for relu in [false, true] {
                let mut out = vec![7.0; m * stride];
                let finish = if relu { Finish::BiasRelu(&bias) } else { Finish::Bias(&bias) };
                panels.product(&mut out, stride, rows, finish);
                for (i, out) in out.chunks_exact(stride).enumerate() {
                    for j in 0..n {
                        let term = |l: usize| f64::from(a[i * (k + 2) + l] * b[l * n + j]);
                        let sum = f64::from(bias[j]) + (0..k).map(term).sum::<f64>();
                        let expected = if relu { sum.max(0.0) } else { sum };
                        assert!((f64::from(out[j]) - expected).abs() < 1e-5, "{m} {n} {i} {j}");
                    }
                    assert_eq!(out[n..], [7.0; 3], "nothing is written between rows");
                }
            }
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
