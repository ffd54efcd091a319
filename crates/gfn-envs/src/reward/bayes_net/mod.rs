//! Rewards of graphs by decomposable scores: the posterior of the structure of a Bayesian network.
//!
//! log R(G) = beta (score(G) + log prior(G)) relative to the graph with the required edges only, which
//! has log R = 0. Kinds differ in their local score; data, prior, constraints (those of the
//! environment) and what is exactly known are the same for all.

pub mod bde;
pub mod bge;
mod known;
pub mod linear_gaussian;
pub mod local_scores;
mod observations;
mod parts;

use std::any::Any;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use gfn_core::registry::RewardContext;
use gfn_core::{Environment, ExactTarget, KeyError, Reward, RewardError, States, TargetEstimate};
use rayon::prelude::*;

pub use known::{BlanketMarginals, Known};
pub use parts::{DiscreteSpec, GenerateSpec, GraphKind, PriorSpec};

use crate::bayes_net::score::LocalScore;
use crate::bayes_net::score::cache::Cached;
use crate::bayes_net::score::modular::Modular;
use crate::dag::Dag;
use parts::Parts;

/// Up to how many nodes the exact posterior is computed, unless a spec says otherwise: about a second.
const EXACT_LIMIT: usize = 14;
/// Bytes that the exact posterior may take; enough for the most nodes that it is written for.
const EXACT_MEMORY: u64 = 4 << 30;
/// Rows per thread.
const CHUNK: usize = 512;
/// Exact samples, of which the distinct ones make the test set.
const TEST_SAMPLES: usize = 1000;

/// A [`Modular`] score as a reward.
pub struct NetworkReward {
    dag: Dag,
    modular: Modular,
    truth: Option<Vec<u64>>,
    exact_limit: usize,
    known: OnceLock<Option<Known>>,
}

/// The environment's graphs.
fn graphs<'a>(context: &RewardContext<'a>, kind: &str) -> Result<&'a Dag, KeyError> {
    context.env_as::<Dag>().ok_or_else(|| {
        KeyError::new("kind", format!("the reward `{kind}` is defined on graphs"))
            .help("choose env.kind = \"dag\", or another reward")
    })
}

impl NetworkReward {
    /// The reward of a local score on the nodes of `dag`, in their order.
    fn new(
        context: RewardContext<'_>,
        dag: &Dag,
        score: impl LocalScore + 'static,
        generated: Option<Vec<u64>>,
        parts: &Parts<'_>,
    ) -> Result<Self, KeyError> {
        parts.check()?;
        let score = Arc::new(Cached::new(score));
        let modular = parts.modular(context, dag, score)?;
        let truth = parts.truth(context, dag)?.or(generated);
        let known = OnceLock::new();
        Ok(Self { dag: dag.clone(), modular, truth, exact_limit: parts.exact_limit, known })
    }

    /// The environment's graphs.
    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// log R as a sum over nodes.
    pub fn modular(&self) -> &Modular {
        &self.modular
    }

    /// Masks of parents of the true graph, where it is known.
    pub fn truth(&self) -> Option<&[u64]> {
        self.truth.as_deref()
    }

    /// The exact posterior; none if there are more nodes than the limit, or no graph has a reward.
    pub fn known(&self) -> Option<&Known> {
        let within = self.dag.n_nodes() <= self.exact_limit;
        let compute = || within.then(|| Known::new(&self.modular, EXACT_MEMORY).ok()).flatten();
        self.known.get_or_init(compute).as_ref()
    }

    /// Where the exact posterior is at hand, that some graph has a reward: files may list sets that
    /// make none.
    fn check_exists(&self, path: &Path) -> Result<(), KeyError> {
        if self.dag.n_nodes() > self.exact_limit || self.known().is_some() {
            return Ok(());
        }
        let message = format!("`{}` lists no sets of parents that make a graph", path.display());
        Err(KeyError::data("path", message).help("list more sets, or relax the constraints of env"))
    }

    /// Graphs as terminal rows; those that the environment does not have are left out.
    fn rows(&self, graphs: impl IntoIterator<Item = Vec<u64>>) -> States {
        let mut rows = States::new(self.dag.space().width);
        graphs.into_iter().filter_map(|graph| self.dag.row_of(&graph, true)).for_each(|row| {
            rows.push(&row);
        });
        rows
    }

    fn log_reward_of(&self, row: &[i32]) -> f64 {
        let parents = self.dag.parents_of(row).enumerate();
        parents.map(|(node, parents)| self.modular.relative(node, parents)).sum()
    }

    /// log R of rows that mostly differ from the row before by the parents of one node: only that
    /// node's part is looked up. Their sum is taken anew, so that results are those of
    /// [`Self::log_reward_of`] to the bit.
    fn log_rewards_along<'a>(&self, rows: impl Iterator<Item = &'a [i32]>, out: &mut [f64]) {
        // No set of parents has all bits: no node is its own parent.
        let mut before = vec![(u64::MAX, 0.0); self.dag.n_nodes()];
        for (row, out) in rows.zip(out) {
            *out = 0.0;
            for (before, (node, parents)) in
                before.iter_mut().zip(self.dag.parents_of(row).enumerate())
            {
                if before.0 != parents {
                    *before = (parents, self.modular.relative(node, parents));
                }
                *out += before.1;
            }
        }
    }
}

impl Reward for NetworkReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        let of_chunk = |(chunk, out): (usize, &mut [f64])| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = self.log_reward_of(xs.row(chunk * CHUNK + i));
            }
        };
        match out.len() {
            ..=CHUNK => of_chunk((0, out)),
            _ => out.par_chunks_mut(CHUNK).enumerate().for_each(of_chunk),
        }
        Ok(())
    }

    fn log_reward_along(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            self.log_rewards_along((chunk * CHUNK..xs.len()).map(|i| xs.row(i)), out);
        });
        Ok(())
    }

    fn log_partition(&self) -> Option<f64> {
        self.known().map(|known| known.posterior().log_z())
    }

    fn target_estimate(&self) -> Option<TargetEstimate> {
        let known = self.known()?;
        let mean_log_reward = known.marginals().expected_log_reward;
        let log_z = known.posterior().log_z();
        Some(TargetEstimate { log_z, log_z_error: 0.0, mean_log_reward, mean_error: 0.0 })
    }

    fn exact_target(&self) -> Option<ExactTarget> {
        Some(self.known()?.target(&self.modular, self.dag.names(), EXACT_MEMORY))
    }

    fn exact_samples(&self, n: usize, seed: u64) -> Option<States> {
        Some(self.rows(self.known()?.posterior().sample(n, seed)))
    }

    /// Distinct samples of the exact posterior.
    fn test_objects(&self) -> Option<States> {
        let mut seen = HashSet::new();
        let samples = self.known()?.posterior().sample(TEST_SAMPLES, 0);
        Some(self.rows(samples.into_iter().filter(|graph| seen.insert(graph.clone()))))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
