//! What is exactly known of the posterior over structures.

use std::sync::OnceLock;

use gfn_core::{ExactTarget, KeyError, Marginals as NamedMarginals};

use crate::bayes_net::graph::{for_each_dag, markov_blankets, nodes_of};
use crate::bayes_net::posterior::{Marginals, Posterior};
use crate::bayes_net::score::modular::Modular;

/// Up to this many nodes all graphs are enumerated where the recursion has no answer: 29,281.
const MAX_ENUMERATED: usize = 5;
/// Exact samples that stand for the posterior beyond: a probability is off by 0.002 at most, as a
/// standard error.
const SAMPLES: usize = 50_000;

/// The exact posterior of a [`Modular`] score, with what follows from it.
pub struct Known {
    posterior: Posterior,
    marginals: Marginals,
    blankets: OnceLock<BlanketMarginals>,
}

/// P(j is in the Markov blanket of i), and how it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct BlanketMarginals {
    /// Row i, column j; symmetric.
    pub values: Vec<Vec<f64>>,
    /// From how many exact samples; none if by enumeration.
    pub samples: Option<usize>,
}

impl Known {
    pub(super) fn new(modular: &Modular, memory_limit: u64) -> Result<Self, KeyError> {
        let posterior = Posterior::new(modular, memory_limit)?;
        let marginals = posterior.marginals();
        Ok(Self { posterior, marginals, blankets: OnceLock::new() })
    }

    /// The posterior.
    pub fn posterior(&self) -> &Posterior {
        &self.posterior
    }

    /// Its marginals of edges and paths.
    pub fn marginals(&self) -> &Marginals {
        &self.marginals
    }

    /// How [`blankets`](Self::blankets) are known for d nodes: from how many exact samples; none if by
    /// enumeration.
    pub fn blanket_samples(d: usize) -> Option<usize> {
        (d > MAX_ENUMERATED).then_some(SAMPLES)
    }

    /// Its marginals of Markov blankets.
    pub fn blankets(&self, modular: &Modular) -> &BlanketMarginals {
        self.blankets.get_or_init(|| {
            let d = modular.n_nodes();
            let mut values = vec![vec![0.0; d]; d];
            let mut add = |graph: &[u64], p: f64| {
                for (row, mask) in values.iter_mut().zip(markov_blankets(graph)) {
                    nodes_of(mask).for_each(|j| row[j] += p);
                }
            };
            let samples = Self::blanket_samples(d);
            match samples {
                None => for_each_dag(d, |graph| {
                    let p = (modular.log_reward(graph) - self.posterior.log_z()).exp();
                    add(graph, p);
                }),
                Some(n) => {
                    let graphs = self.posterior.sample(n, 1);
                    graphs.iter().for_each(|graph| add(graph, 1.0 / n as f64));
                }
            }
            BlanketMarginals { values, samples }
        })
    }

    pub(super) fn target(
        &self,
        modular: &Modular,
        names: &[String],
        memory_limit: u64,
    ) -> ExactTarget {
        let Marginals { edges, expected_edges, expected_log_reward, entropy, .. } = &self.marginals;
        let log_n_objects = Posterior::log_n_allowed(modular, memory_limit);
        ExactTarget {
            method: "the recursion over sets of nodes",
            log_n_objects: log_n_objects.expect("as large as the posterior, and not empty"),
            log_z: self.posterior.log_z(),
            mean_log_reward: *expected_log_reward,
            entropy: *entropy,
            expectations: vec![("number of edges", *expected_edges)],
            marginals: vec![NamedMarginals {
                title: "P(row -> column)",
                names: names.to_vec(),
                values: edges.clone(),
            }],
        }
    }
}
