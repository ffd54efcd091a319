//! The linear-Gaussian score of continuous data: known noise, a normal prior on the weights.

use std::cell::RefCell;
use std::f64::consts::PI;

use gfn_core::KeyError;

use super::{LocalScore, cholesky, gram, wrong_kind};
use crate::bayes_net::data::{Columns, Table};
use crate::bayes_net::graph::nodes_of;

/// log N(y; X m, s^2 I + p^2 X X^T), where y is the node's column, X those of its parents, m the
/// mean of all weights, p their standard deviation and s that of the noise.
///
/// By Woodbury's identity from X^T X alone: O(l^3) for l parents, whatever the number of rows.
pub struct LinearGaussian {
    d: usize,
    prior_mean: f64,
    prior_scale: f64,
    obs_scale: f64,
    /// Number of rows and X^T X over all columns; one per node if there are interventions.
    grams: Vec<(f64, Vec<f64>)>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl LinearGaussian {
    /// The score of `table`; gfnx has `prior_mean` 0, `prior_scale` 1 and `obs_scale` sqrt(0.1).
    ///
    /// # Errors
    /// When the table is discrete, or a setting is out of range.
    pub fn new(
        table: &Table,
        prior_mean: f64,
        prior_scale: f64,
        obs_scale: f64,
    ) -> Result<Self, KeyError> {
        let Columns::Continuous(columns) = &table.columns else {
            return Err(wrong_kind("linear_gaussian", "continuous"));
        };
        if !prior_mean.is_finite() {
            return Err(KeyError::new("prior_mean", "prior_mean must be a number"));
        }
        for (key, scale) in [("prior_scale", prior_scale), ("obs_scale", obs_scale)] {
            if !(scale > 0.0 && scale.is_finite()) {
                let message = format!("{key} must be above 0");
                return Err(KeyError::new(key, message).help("it is a standard deviation"));
            }
        }
        let d = table.n_nodes();
        let all = if table.intervened_nodes() == 0 { 1 } else { d };
        let grams = (0..all).map(|i| {
            let rows = table.rows_for(i);
            (rows.len() as f64, gram(columns, &rows))
        });
        Ok(Self { d, prior_mean, prior_scale, obs_scale, grams: grams.collect() })
    }
}

impl LocalScore for LinearGaussian {
    fn n_nodes(&self) -> usize {
        self.d
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        let (n, gram) = self.grams.get(node).unwrap_or(&self.grams[0]);
        let mut order = [node; 64];
        let mut l = 0;
        for parent in nodes_of(parents) {
            order[l] = parent;
            l += 1;
        }
        let pa = &order[..l];
        let g = |i: usize, j: usize| gram[i * self.d + j];
        let (m, p2, s2) = (self.prior_mean, self.prior_scale.powi(2), self.obs_scale.powi(2));
        // X^T z and z^T z for the residual z = y - X m.
        let xz = |i: usize| g(i, node) - m * pa.iter().map(|&j| g(i, j)).sum::<f64>();
        let zz = g(node, node) - m * pa.iter().map(|&i| g(i, node) + xz(i)).sum::<f64>();
        // With A = I + (p/s)^2 X^T X: log |A| and (X^T z)^T A^-1 X^T z.
        let (log_det, explained) = SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            for &i in pa {
                scratch.extend(pa.iter().map(|&j| p2 / s2 * g(i, j)));
            }
            (0..l).for_each(|i| scratch[i * l + i] += 1.0);
            cholesky(scratch, l, 1.0);
            let mut solved = [0.0; 64];
            for i in 0..l {
                let known: f64 = (0..i).map(|k| scratch[i * l + k] * solved[k]).sum();
                solved[i] = (xz(pa[i]) - known) / scratch[i * l + i];
            }
            let log_det: f64 = (0..l).map(|i| 2.0 * scratch[i * l + i].ln()).sum();
            (log_det, solved[..l].iter().map(|v| v * v).sum::<f64>())
        });
        let quadratic = (zz - p2 / s2 * explained) / s2;
        -0.5 * (quadratic + log_det + n * (2.0 * PI * s2).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bayes_net::data::DataKind;

    const ROWS: &str = "A,B,C,INT\n1,2,0,0\n0.5,-1,2,0\n3,1,1,2\n-2,0.3,1.5,0\n0,4,-1,2\n";

    fn table() -> Table {
        Table::parse(ROWS.as_bytes(), DataKind::Continuous, Some("INT")).unwrap()
    }

    /// The density itself, with its covariance of rows by rows.
    fn dense(columns: &[Vec<f64>], rows: &[usize], node: usize, parents: u64) -> f64 {
        let (m, p, s) = (0.7f64, 1.3f64, 0.4f64);
        let n = rows.len();
        let mut covariance = vec![0.0; n * n];
        for (a, &row) in rows.iter().enumerate() {
            for (b, &other) in rows.iter().enumerate() {
                let inner: f64 =
                    nodes_of(parents).map(|j| columns[j][row] * columns[j][other]).sum();
                covariance[a * n + b] = p * p * inner + if a == b { s * s } else { 0.0 };
            }
        }
        cholesky(&mut covariance, n, 0.0);
        let mut total = -0.5 * n as f64 * (2.0 * PI).ln();
        let mut solved = vec![0.0; n];
        for (a, &row) in rows.iter().enumerate() {
            let mean: f64 = nodes_of(parents).map(|j| m * columns[j][row]).sum();
            let known: f64 = (0..a).map(|b| covariance[a * n + b] * solved[b]).sum();
            solved[a] = (columns[node][row] - mean - known) / covariance[a * n + a];
            total -= 0.5 * solved[a] * solved[a] + covariance[a * n + a].ln();
        }
        total
    }

    #[test]
    fn woodbury_equals_the_dense_density() {
        let table = table();
        let Columns::Continuous(columns) = &table.columns else { panic!("continuous") };
        let score = LinearGaussian::new(&table, 0.7, 1.3, 0.4).unwrap();
        for node in 0..3 {
            for parents in (0..8).filter(|mask| mask >> node & 1 == 0) {
                let expected = dense(columns, &table.rows_for(node), node, parents);
                let got = score.score(node, parents);
                assert!((got - expected).abs() < 1e-11, "{node} {parents}: {got} {expected}");
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let key = |m, p, s| LinearGaussian::new(&table(), m, p, s).err().unwrap().key.unwrap();
        assert_eq!(key(f64::NAN, 1.0, 1.0), "prior_mean");
        assert_eq!(key(0.0, 0.0, 1.0), "prior_scale");
        assert_eq!(key(0.0, 1.0, -0.1), "obs_scale");
    }
}
