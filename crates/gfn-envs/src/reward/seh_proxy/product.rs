//! Products of many rows with one matrix, in registers.

use gfn_core::vector::{load, store};
use pulp::{Arch, Simd, WithSimd};

/// Registers of columns that are computed at once.
const VECTORS: usize = 2;
/// The number of columns is a multiple of this: of what [`VECTORS`] registers of any machine hold.
const COLUMNS: usize = 32;
/// Lanes of the widest registers.
const MOST_LANES: usize = COLUMNS / VECTORS;

/// A `k` × `n` matrix, packed: panels of as many columns as [`VECTORS`] registers hold, each row after row.
pub(super) struct Matrix {
    panels: Vec<f32>,
    k: usize,
    n: usize,
}

/// What products are added to.
#[derive(Clone, Copy)]
pub(super) enum Onto<'a> {
    /// Numbers of the columns, `[n]`, the same in every row; `out` is overwritten.
    Bias(&'a [f32]),
    /// What `out` holds: row `r` is added to its row `places[r]`.
    Rows(&'a [u32]),
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES.min(MOST_LANES)
    }
}

impl Matrix {
    /// From its numbers by row and column; `n` is a multiple of 32.
    pub(super) fn new(k: usize, n: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        assert!(n.is_multiple_of(COLUMNS), "whole panels");
        let width = VECTORS * Arch::new().dispatch(Lanes);
        let of_panel = |panel: usize| {
            let row =
                move |row| (panel * width..(panel + 1) * width).map(move |column| (row, column));
            (0..k).flat_map(row)
        };
        let panels =
            (0..n / width).flat_map(of_panel).map(|(row, column)| at(row, column)).collect();
        Self { panels, k, n }
    }

    /// `rows`, `[m, k]`, times the matrix, onto `out`, rows of `n` numbers. Sums are taken in the order
    /// of the rows of the matrix, whatever `m` is.
    pub(super) fn product(&self, rows: &[f32], onto: Onto<'_>, out: &mut [f32]) {
        Arch::new().dispatch(Product { matrix: self, rows, onto, out });
    }
}

struct Product<'a> {
    matrix: &'a Matrix,
    rows: &'a [f32],
    onto: Onto<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let m = self.rows.len() / self.matrix.k;
        // As many rows at once as there are registers for their sums, of about equal number.
        let most = if S::REGISTER_COUNT >= 32 { 12 } else { 6 };
        let tiles = m.div_ceil(most);
        for panel in 0..self.matrix.n / (VECTORS * S::F32_LANES) {
            for tile in 0..tiles {
                let first = m * tile / tiles;
                match m * (tile + 1) / tiles - first {
                    1 => self.tile::<S, 1>(simd, first, panel),
                    2 => self.tile::<S, 2>(simd, first, panel),
                    3 => self.tile::<S, 3>(simd, first, panel),
                    4 => self.tile::<S, 4>(simd, first, panel),
                    5 => self.tile::<S, 5>(simd, first, panel),
                    6 => self.tile::<S, 6>(simd, first, panel),
                    7 => self.tile::<S, 7>(simd, first, panel),
                    8 => self.tile::<S, 8>(simd, first, panel),
                    9 => self.tile::<S, 9>(simd, first, panel),
                    10 => self.tile::<S, 10>(simd, first, panel),
                    11 => self.tile::<S, 11>(simd, first, panel),
                    _ => self.tile::<S, 12>(simd, first, panel),
                }
            }
        }
    }
}

impl Product<'_> {
    /// `R` rows from `first` on, and the columns of a panel.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(&mut self, simd: S, first: usize, panel: usize) {
        let &Matrix { ref panels, k, n } = self.matrix;
        let width = VECTORS * S::F32_LANES;
        // All of one length that is known to be `k`: nothing is checked in the loop.
        let mut rows: [&[f32]; R] = [&[]; R];
        let mut places = [0; R];
        for (r, (row, place)) in rows.iter_mut().zip(&mut places).enumerate() {
            *row = &self.rows[(first + r) * k..][..k];
            let at = match self.onto {
                Onto::Bias(_) => first + r,
                Onto::Rows(places) => places[first + r] as usize,
            };
            *place = at * n + panel * width;
        }
        let packed = &panels[panel * k * width..][..k * width];
        let packed = &S::as_simd_f32s(packed).0.as_chunks::<VECTORS>().0[..k];
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; R];
        for (sums, &place) in sums.iter_mut().zip(&places) {
            let from = match self.onto {
                Onto::Bias(bias) => &bias[panel * width..][..width],
                Onto::Rows(_) => &self.out[place..][..width],
            };
            for (sum, from) in sums.iter_mut().zip(from.chunks_exact(S::F32_LANES)) {
                *sum = load(simd, from);
            }
        }
        for l in 0..k {
            for (row, sums) in rows.iter().zip(&mut sums) {
                let x = simd.splat_f32s(row[l]);
                for (sum, &vector) in sums.iter_mut().zip(&packed[l]) {
                    *sum = simd.mul_add_e_f32s(x, vector, *sum);
                }
            }
        }
        for (sums, &place) in sums.iter().zip(&places) {
            let to = &mut self.out[place..][..width];
            for (&sum, to) in sums.iter().zip(to.chunks_exact_mut(S::F32_LANES)) {
                store(simd, to, sum);
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

    /// Every height of a tile, against sums in double precision; and a row gives the same in any company.
    #[test]
    fn products_equal_their_sums() {
        let (k, n) = (24, 96);
        let (weights, bias) = (filled(k * n, 0.5), filled(n, 0.9));
        let matrix = Matrix::new(k, n, |row, column| weights[row * n + column]);
        for m in (0..=14).chain([23, 97]) {
            let rows = filled(m * k, 0.1);
            let expected = |r: usize, c: usize| {
                let term = |l: usize| f64::from(rows[r * k + l]) * f64::from(weights[l * n + c]);
                (0..k).map(term).sum::<f64>()
            };
            let mut dense = vec![7.0; m * n];
            matrix.product(&rows, Onto::Bias(&bias), &mut dense);
            // From the last row up, leaving every second one out.
            let places: Vec<u32> = (0..m as u32).rev().map(|r| 2 * r).collect();
            let mut spread = vec![7.0; 2 * m * n];
            matrix.product(&rows, Onto::Rows(&places), &mut spread);
            for (r, dense) in dense.chunks_exact(n).enumerate() {
                for (c, &number) in dense.iter().enumerate() {
                    let sum = expected(r, c);
                    assert!((f64::from(number - bias[c]) - sum).abs() < 1e-5, "{m} {r} {c}");
                    let number = spread[2 * (m - 1 - r) * n + c];
                    assert!((f64::from(number - 7.0) - sum).abs() < 1e-5, "{m} {r} {c}");
                    let between = spread[(2 * (m - 1 - r) + 1) * n + c];
                    assert_eq!(between.to_bits(), 7.0_f32.to_bits());
                }
                let mut alone = vec![0.0; n];
                matrix.product(&rows[r * k..][..k], Onto::Bias(&bias), &mut alone);
                assert_eq!(alone, dense, "{m} {r}");
            }
        }
    }
}
