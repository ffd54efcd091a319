//! Priors over structures: sums over nodes of terms that depend on the set of parents only.

use gfn_core::KeyError;
use gfn_core::special::ln_gamma;

use crate::bayes_net::graph::nodes_of;

/// A prior by the number l of parents of each node, up to a constant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Prior {
    /// All DAGs alike.
    #[default]
    Uniform,
    /// Every edge with this probability: l ln(p / (1 - p)).
    ErdosRenyi {
        /// p, in (0, 1).
        p: f64,
    },
    /// l ln `beta`, so fewer edges for `beta` below 1.
    EdgePenalty {
        /// The factor of every edge, above 0.
        beta: f64,
    },
    /// All numbers of parents alike, and all sets of one number: -ln C(d - 1, l).
    Fair,
}

impl Prior {
    /// Erdős-Rényi with this mean number of edges before cycles are excluded: p = `edges` / C(d, 2),
    /// as published with `edges` = d k.
    pub fn erdos_renyi(d: usize, edges: f64) -> Self {
        Self::ErdosRenyi { p: edges / (d * d.saturating_sub(1) / 2) as f64 }
    }

    /// The term of a node with 0, 1, …, d - 1 parents.
    ///
    /// # Errors
    /// When a parameter is out of range.
    pub fn by_size(&self, d: usize) -> Result<Vec<f64>, KeyError> {
        let linear = |slope: f64| (0..d).map(|l| l as f64 * slope).collect();
        match *self {
            Self::Uniform => Ok(linear(0.0)),
            Self::ErdosRenyi { p } if p > 0.0 && p < 1.0 => Ok(linear((p / (1.0 - p)).ln())),
            Self::ErdosRenyi { p } => {
                let message =
                    format!("the probability of an edge must lie between 0 and 1, not {p}");
                Err(KeyError::new("p", message))
            }
            Self::EdgePenalty { beta } if beta > 0.0 && beta.is_finite() => Ok(linear(beta.ln())),
            Self::EdgePenalty { beta } => {
                let message = format!("the factor of an edge must be above 0, not {beta}");
                Err(KeyError::new("beta", message).help("below 1 for fewer edges"))
            }
            Self::Fair => {
                let log_factorial = |n: usize| ln_gamma(n as f64 + 1.0);
                let term = |l| log_factorial(l) + log_factorial(d - 1 - l) - log_factorial(d - 1);
                Ok((0..d).map(term).collect())
            }
        }
    }
}

/// Prior probabilities of single edges: sum over the edges of a graph of ln(p / (1 - p)).
#[derive(Clone, Debug, PartialEq)]
pub struct EdgePrior {
    d: usize,
    log_odds: Vec<f64>,
}

impl EdgePrior {
    /// From the d x d matrix whose row i has the probabilities of i -> j. One half says nothing, 0
    /// forbids the edge; the diagonal is not looked at.
    ///
    /// # Errors
    /// When the matrix is not square, or a probability not in [0, 1).
    pub fn new(probabilities: &[Vec<f64>]) -> Result<Self, KeyError> {
        let d = probabilities.len();
        let mut log_odds = vec![0.0; d * d];
        for (from, row) in probabilities.iter().enumerate() {
            if row.len() != d {
                let message = format!("row {} has {} entries; expected {d}", from + 1, row.len());
                return Err(KeyError::new("edge_probabilities", message));
            }
            for (to, &p) in row.iter().enumerate().filter(|&(to, _)| to != from) {
                if !(0.0..1.0).contains(&p) {
                    let (row, column) = (from + 1, to + 1);
                    let message = format!(
                        "row {row}, column {column} has {p}, which is not from 0 to below 1"
                    );
                    let help = "require an edge that is certain";
                    return Err(KeyError::new("edge_probabilities", message).help(help));
                }
                log_odds[to * d + from] = (p / (1.0 - p)).ln();
            }
        }
        Ok(Self { d, log_odds })
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.d
    }

    /// The term of `node` with these parents.
    pub fn log(&self, node: usize, parents: u64) -> f64 {
        let row = &self.log_odds[node * self.d..][..self.d];
        nodes_of(parents).map(|parent| row[parent]).sum()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "terms without rounding")]
mod tests {
    use super::*;

    #[test]
    fn terms_by_number_of_parents() {
        let terms = |prior: Prior| prior.by_size(4).unwrap();
        assert_eq!(terms(Prior::Uniform), [0.0; 4]);
        let penalty = terms(Prior::EdgePenalty { beta: 0.5 });
        assert!((penalty[3] - 3.0 * 0.5f64.ln()).abs() < 1e-15);
        let sparse = terms(Prior::ErdosRenyi { p: 0.2 });
        assert!((sparse[2] - 2.0 * 0.25f64.ln()).abs() < 1e-15);
        assert_eq!(Prior::erdos_renyi(5, 5.0), Prior::ErdosRenyi { p: 0.5 });
        let fair = terms(Prior::Fair);
        for (term, sets) in fair.iter().zip([1.0, 3.0, 3.0, 1.0f64]) {
            assert!((term + sets.ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn single_edges_have_their_odds() {
        let prior =
            EdgePrior::new(&[vec![9.0, 0.8, 0.5], vec![0.0, 0.0, 0.25], vec![0.5; 3]]).unwrap();
        assert!((prior.log(1, 0b101) - 4f64.ln()).abs() < 1e-15);
        assert!((prior.log(2, 0b011) + 3f64.ln()).abs() < 1e-15);
        assert_eq!(prior.log(0, 0b010), f64::NEG_INFINITY);
        assert_eq!(prior.log(0, 0), 0.0);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for p in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(Prior::ErdosRenyi { p }.by_size(3).is_err());
        }
        assert!(Prior::EdgePenalty { beta: 0.0 }.by_size(3).is_err());
        for matrix in [vec![vec![0.0, 1.0], vec![0.5, 0.0]], vec![vec![0.5], vec![0.5, 0.5]]] {
            let error = EdgePrior::new(&matrix).unwrap_err();
            assert!(error.message.starts_with("row 1"), "{error}");
        }
    }
}
