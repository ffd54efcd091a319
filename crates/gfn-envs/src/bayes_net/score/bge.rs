//! The BGe score of continuous data: a Gaussian network with a normal-Wishart prior.

use std::cell::RefCell;
use std::f64::consts::PI;

use gfn_core::KeyError;
use gfn_core::special::ln_gamma;

use super::{LocalScore, cholesky, gram, wrong_kind};
use crate::bayes_net::data::{Columns, Table};
use crate::bayes_net::graph::nodes_of;

/// Geiger and Heckerman (2002) in the form of Kuipers, Moffa and Heckerman (2014): prior mean 0,
/// T = t I with t = `alpha_mu` (`alpha_w` - d - 1) / (`alpha_mu` + 1). Equal for all DAGs of a
/// Markov class where no node was intervened on.
pub struct Bge {
    d: usize,
    alpha_w: f64,
    t: f64,
    /// One per node if there are interventions, else one for all.
    statistics: Vec<Statistics>,
}

/// What the score needs of the rows that tell about a node.
struct Statistics {
    n: f64,
    /// The posterior's R = T + S_N + N `alpha_mu` / (N + `alpha_mu`) x x^T, x the mean.
    r: Vec<f64>,
    /// The terms that depend on the number of parents only.
    by_size: Vec<f64>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

impl Bge {
    /// The score of `table` for prior sample sizes `alpha_mu` of the mean and `alpha_w` of the
    /// covariance (default: d + 2).
    ///
    /// # Errors
    /// When the table is discrete, `alpha_mu` is not above 0, or `alpha_w` not above d + 1.
    pub fn new(table: &Table, alpha_mu: f64, alpha_w: Option<f64>) -> Result<Self, KeyError> {
        let Columns::Continuous(columns) = &table.columns else {
            return Err(wrong_kind("bge", "continuous"));
        };
        let d = table.n_nodes();
        let alpha_w = alpha_w.unwrap_or(d as f64 + 2.0);
        if !(alpha_mu > 0.0 && alpha_mu.is_finite()) {
            return Err(KeyError::new("alpha_mu", "alpha_mu must be above 0").help("default: 1"));
        }
        if !(alpha_w > d as f64 + 1.0 && alpha_w.is_finite()) {
            let message = format!("alpha_w must be above d + 1 = {}", d + 1);
            let help = format!("leave it out for the default, {}", d + 2);
            return Err(KeyError::new("alpha_w", message).help(help));
        }
        let t = alpha_mu * (alpha_w - d as f64 - 1.0) / (alpha_mu + 1.0);
        let all = if table.intervened_nodes() == 0 { 1 } else { d };
        let statistics =
            (0..all).map(|i| Statistics::new(columns, &table.rows_for(i), alpha_mu, alpha_w, t));
        Ok(Self { d, alpha_w, t, statistics: statistics.collect() })
    }

    /// The scale t of the prior matrix.
    pub fn prior_scale(&self) -> f64 {
        self.t
    }
}

impl Statistics {
    fn new(columns: &[Vec<f64>], rows: &[usize], alpha_mu: f64, alpha_w: f64, t: f64) -> Self {
        let (d, n) = (columns.len(), rows.len() as f64);
        let mean = |column: &Vec<f64>| match rows.is_empty() {
            true => 0.0,
            false => rows.iter().map(|&row| column[row]).sum::<f64>() / n,
        };
        let means: Vec<f64> = columns.iter().map(mean).collect();
        // Centred first: far from 0 the difference of two large sums would lose its digits.
        let centred: Vec<Vec<f64>> = columns
            .iter()
            .zip(&means)
            .map(|(column, mean)| column.iter().map(|value| value - mean).collect())
            .collect();
        let mut r = gram(&centred, rows);
        for i in 0..d {
            r[i * d + i] += t;
            for j in 0..d {
                r[i * d + j] += n * alpha_mu / (n + alpha_mu) * means[i] * means[j];
            }
        }
        let by_size = |l: usize| {
            let l = l as f64;
            let dof = alpha_w - d as f64 + l + 1.0;
            0.5 * (alpha_mu / (n + alpha_mu)).ln() + ln_gamma(0.5 * (n + dof))
                - ln_gamma(0.5 * dof)
                - 0.5 * n * PI.ln()
                + 0.5 * (dof + l) * t.ln()
        };
        Self { n, r, by_size: (0..d).map(by_size).collect() }
    }
}

impl LocalScore for Bge {
    fn n_nodes(&self) -> usize {
        self.d
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        let statistics = self.statistics.get(node).unwrap_or(&self.statistics[0]);
        let mut order = [node; 64];
        let mut l = 0;
        for parent in nodes_of(parents) {
            order[l] = parent;
            l += 1;
        }
        order[l] = node;
        let m = l + 1;
        // The node comes last, so that one factor holds both determinants.
        let (log_parents, log_pivot) = SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            for &i in &order[..m] {
                scratch.extend(order[..m].iter().map(|&j| statistics.r[i * self.d + j]));
            }
            cholesky(scratch, m, self.t);
            let log = |i: usize| 2.0 * scratch[i * m + i].ln();
            ((0..l).map(log).sum::<f64>(), log(l))
        });
        let dof = statistics.n + self.alpha_w - self.d as f64 + l as f64;
        // (dof / 2) log|R_Pa| - ((dof + 1) / 2) (log|R_Pa| + log of the last pivot).
        statistics.by_size[l] - 0.5 * log_parents - 0.5 * (dof + 1.0) * log_pivot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bayes_net::data::DataKind;

    fn table(text: &str) -> Table {
        Table::parse(text.as_bytes(), DataKind::Continuous, Some("INT")).unwrap()
    }

    const ROWS: &str = "A,B,C,INT\n1,2,0,0\n0.5,-1,2,0\n3,1,1,2\n-2,0.3,1.5,0\n0,4,-1,2\n";

    /// log p(rows of the columns `nodes`) as a product of multivariate t predictives: the
    /// definition of the score, without its closed form.
    fn sequential(columns: &[Vec<f64>], rows: &[usize], nodes: &[usize]) -> f64 {
        let (d, l) = (columns.len(), nodes.len());
        let (mut a, mut w) = (1.5, d as f64 + 3.0);
        let t = a * (w - d as f64 - 1.0) / (a + 1.0);
        let mut scale = vec![0.0; d * d];
        (0..d).for_each(|i| scale[i * d + i] = t);
        let (mut mean, mut total) = (vec![0.0; d], 0.0);
        for &row in rows {
            let x: Vec<f64> = (0..d).map(|i| columns[i][row] - mean[i]).collect();
            let nu = w - d as f64 + 1.0;
            let factor = (a + 1.0) / (a * nu);
            // Factor of the scale bordered by the deviation: its last pivot is z' S^-1 z.
            let m = l + 1;
            let mut bordered = vec![0.0; m * m];
            for (i, &p) in nodes.iter().enumerate() {
                for (j, &q) in nodes.iter().enumerate() {
                    bordered[i * m + j] = scale[p * d + q] * factor;
                }
                bordered[l * m + i] = x[p];
            }
            bordered[l * m + l] = 1e300;
            cholesky(&mut bordered, m, 0.0);
            let log_det: f64 = (0..l).map(|i| 2.0 * bordered[i * m + i].ln()).sum();
            let distance: f64 = bordered[l * m..l * m + l].iter().map(|v| v * v).sum();
            let l = l as f64;
            total += ln_gamma(0.5 * (nu + l))
                - ln_gamma(0.5 * nu)
                - 0.5 * l * (nu * PI).ln()
                - 0.5 * log_det
                - 0.5 * (nu + l) * (distance / nu).ln_1p();
            for i in 0..d {
                for j in 0..d {
                    scale[i * d + j] += a / (a + 1.0) * x[i] * x[j];
                }
            }
            for i in 0..d {
                mean[i] += x[i] / (a + 1.0);
            }
            a += 1.0;
            w += 1.0;
        }
        total
    }

    #[test]
    fn local_scores_are_ratios_of_sequential_predictives() {
        let table = table(ROWS);
        let Columns::Continuous(columns) = &table.columns else { panic!("continuous") };
        let bge = Bge::new(&table, 1.5, Some(6.0)).unwrap();
        for node in 0..3 {
            // B was intervened on in two rows, which do not count for it.
            let rows = table.rows_for(node);
            assert_eq!(rows.len(), if node == 1 { 3 } else { 5 });
            for parents in (0..8).filter(|mask| mask >> node & 1 == 0) {
                let pa: Vec<usize> = nodes_of(parents).collect();
                let both: Vec<usize> = pa.iter().copied().chain([node]).collect();
                let expected = sequential(columns, &rows, &both) - sequential(columns, &rows, &pa);
                let got = bge.score(node, parents);
                assert!((got - expected).abs() < 1e-12, "{node} {parents}: {got} {expected}");
            }
        }
    }

    #[test]
    fn a_node_that_was_always_set_scores_zero() {
        let table = table("A,B,INT\n1,2,1\n3,4,1\n5,1,1\n");
        let bge = Bge::new(&table, 1.0, None).unwrap();
        assert!(bge.score(0, 0).abs() < 1e-12 && bge.score(0, 0b10).abs() < 1e-12);
        assert!(bge.score(1, 0).abs() > 1.0);
    }

    #[test]
    fn data_far_from_zero_keep_their_digits() {
        let near = table(ROWS);
        let mut far = near.clone();
        let Columns::Continuous(columns) = &mut far.columns else { panic!("continuous") };
        columns.iter_mut().flatten().for_each(|value| *value += 1e6);
        // With hardly any weight on the prior mean the score does not see a shift.
        let [near, far] = [near, far].map(|table| Bge::new(&table, 1e-24, None).unwrap());
        for (node, parents) in [(0, 0), (0, 0b110), (1, 0b001), (2, 0b011)] {
            let difference = near.score(node, parents) - far.score(node, parents);
            assert!(difference.abs() < 1e-8, "{difference}");
        }
    }

    #[test]
    fn repeated_columns_are_no_failure() {
        let text = "A,B\n1e9,1e9\n-3e9,-3e9\n2e9,2e9\n";
        let table = Table::parse(text.as_bytes(), DataKind::Continuous, None).unwrap();
        let bge = Bge::new(&table, 1.0, None).unwrap();
        assert!(bge.score(0, 0b10).is_finite() && bge.score(0, 0b10) > bge.score(0, 0));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let table = table(ROWS);
        for alpha_mu in [0.0, -1.0, f64::NAN] {
            assert_eq!(Bge::new(&table, alpha_mu, None).err().unwrap().key.unwrap(), "alpha_mu");
        }
        assert_eq!(Bge::new(&table, 1.0, Some(4.0)).err().unwrap().key.unwrap(), "alpha_w");
        let states = Table::parse(b"A,B\nx,y\nz,w\n", DataKind::Discrete, None).unwrap();
        assert!(Bge::new(&states, 1.0, None).err().unwrap().message.contains("continuous"));
    }
}
