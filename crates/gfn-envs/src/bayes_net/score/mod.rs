//! Local scores: log marginal likelihoods of a node given a set of parents, one file each.

pub mod bde;
pub mod bge;
pub mod cache;
pub mod linear_gaussian;
pub mod local_scores;
pub mod modular;
pub mod prior;

use std::sync::Arc;

/// A decomposable score: that of a graph is the sum over nodes of a term that depends on the
/// node and its parents only.
pub trait LocalScore: Send + Sync {
    /// Number of nodes d.
    fn n_nodes(&self) -> usize;

    /// The term of `node` for the mask `parents`, which does not have `node`; -infinity where
    /// the score rules the set out.
    fn score(&self, node: usize, parents: u64) -> f64;

    /// Larger sets are all ruled out; none if there is no such limit.
    fn max_parents(&self) -> Option<usize> {
        None
    }
}

impl<S: LocalScore + ?Sized> LocalScore for Arc<S> {
    fn n_nodes(&self) -> usize {
        (**self).n_nodes()
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        (**self).score(node, parents)
    }

    fn max_parents(&self) -> Option<usize> {
        (**self).max_parents()
    }
}

/// A continuous score was asked for discrete data or the reverse.
fn wrong_kind(score: &str, expected: &str) -> gfn_core::KeyError {
    gfn_core::KeyError::part(format!("the score `{score}` needs {expected} data"))
        .help("choose `bge` or `linear_gaussian` for numbers, `bde` for states")
}

/// In place: the lower triangle of a symmetric n x n matrix becomes its Cholesky factor.
///
/// The matrix is `least` I plus a positive semidefinite one, so no pivot lies below `least`, unless
/// rounding puts it there: columns that all but repeat each other are no failure.
fn cholesky(matrix: &mut [f64], n: usize, least: f64) {
    for i in 0..n {
        for j in 0..=i {
            let mut sum = matrix[i * n + j];
            for k in 0..j {
                sum -= matrix[i * n + k] * matrix[j * n + k];
            }
            matrix[i * n + j] =
                if i == j { sum.max(least).sqrt() } else { sum / matrix[j * n + j] };
        }
    }
}

/// X^T X, row by row, of some rows of the columns.
fn gram(columns: &[Vec<f64>], rows: &[usize]) -> Vec<f64> {
    let d = columns.len();
    let picked: Vec<Vec<f64>> =
        columns.iter().map(|column| rows.iter().map(|&row| column[row]).collect()).collect();
    let mut gram = vec![0.0; d * d];
    for i in 0..d {
        for j in 0..=i {
            let products = picked[i].iter().zip(&picked[j]).map(|(a, b)| a * b);
            gram[i * d + j] = products.sum();
            gram[j * d + i] = gram[i * d + j];
        }
    }
    gram
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "roots of squares")]
mod tests {
    use super::*;

    #[test]
    fn pivots_stay_above_their_bound() {
        let mut matrix = [4.0, 0.0, 2.0, 5.0];
        cholesky(&mut matrix, 2, 1.0);
        assert_eq!([matrix[0], matrix[2], matrix[3]], [2.0, 1.0, 2.0]);
        // As rounding can make of large numbers: the second pivot comes out as -1.
        let mut singular = [4.0, 0.0, 4.0, 3.0];
        cholesky(&mut singular, 2, 1.0);
        assert_eq!(singular[3], 1.0);
    }
}
