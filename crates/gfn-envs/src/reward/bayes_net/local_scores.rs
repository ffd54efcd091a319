//! Graphs by a file of local scores, as other programs write them.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::observations::check_names;
use super::parts::Parts;
use super::{EXACT_LIMIT, NetworkReward, PriorSpec, graphs};
use crate::bayes_net::score::LocalScore;
use crate::bayes_net::score::local_scores::LocalScores;
use crate::dag::lists_scores;
use crate::reward::modes::is_empty;
use crate::reward::objects::plain_lines;

/// Settings of the reward `local_scores`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocalScoresSpec {
    /// A file of local scores (`.jkl`, as of GOBNILP), whose nodes are matched by name. Sets of parents
    /// that it does not list have no reward. Default: the file of the environment.
    #[serde(skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// Prior over structures: `"uniform"`, `"fair"`, `{ erdos_renyi = expected edges }` or
    /// `{ edge_penalty = factor per edge }`.
    pub prior: PriorSpec,
    /// Prior probabilities of single edges: a CSV matrix whose row i has those of i -> j, with names in
    /// the header. Between 0 and 1: one half says nothing, and what cannot or must be is a matter of
    /// `env.forbidden` and `env.required`.
    #[serde(skip_serializing_if = "is_empty")]
    pub edge_probabilities: PathBuf,
    /// Inverse temperature of the posterior.
    pub beta: f64,
    /// The true graph, for metrics: a CSV file with columns `from` and `to`, or a matrix of 0 and 1.
    #[serde(skip_serializing_if = "is_empty")]
    pub truth: PathBuf,
    /// The true graph as a list of `"A -> B"` instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub true_edges: Vec<String>,
    /// Up to how many nodes (20 at most) the exact posterior is computed.
    pub exact_limit: usize,
}

impl Default for LocalScoresSpec {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            prior: PriorSpec::Uniform,
            edge_probabilities: PathBuf::new(),
            beta: 1.0,
            truth: PathBuf::new(),
            true_edges: Vec::new(),
            exact_limit: EXACT_LIMIT,
        }
    }
}

impl Kind<RewardAxis> for LocalScoresSpec {
    const NAME: &'static str = "local_scores";
    const SUMMARY: &'static str = "local scores of sets of parents from a file (.jkl)";
    const NEUTRAL_KEYS: &'static [&'static str] = &["path", "edge_probabilities", "truth"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let dag = graphs(&context, Self::NAME)?;
        let of_env = dag.source().map(|source| &source.path).filter(|path| lists_scores(path));
        let path = match (is_empty(&self.path), of_env) {
            (false, _) => &self.path,
            (true, Some(path)) => path,
            (true, None) => {
                return Err(KeyError::data("path", "no local scores are given")
                    .help("name a file, best as env.data, so that its nodes are the graph's"));
            }
        };
        let text = plain_lines(context.files.read_for("path", path)?);
        let text = String::from_utf8(text).map_err(|_| {
            let message = format!("`{}` is not UTF-8 text", path.display());
            KeyError::data("path", message).help("save it as plain text")
        })?;
        let scores = LocalScores::parse(&text).map_err(|error| error.for_key("path", path))?;
        check_names("path", path, "node", scores.names(), dag.names())?;
        let scores = scores.in_order(dag.names());
        let shown = path.display();
        let most = dag.parent_sets().iter().map(|set| set.most).max().unwrap_or(0);
        if let Some(limit) = scores.max_parents().filter(|&limit| limit < most) {
            context.files.note(&format!(
                "`{shown}` lists no more than {limit} parents; set env.max_parents = {limit}, so \
                 that no graph without a reward is built"
            ));
        }
        let without = scores.without_empty_set();
        if !without.is_empty() {
            context.files.note(&format!(
                "`{shown}` does not list the empty set of {}, so graphs without edges have no reward",
                without.join(", ")
            ));
        }
        let parts = Parts {
            prior: self.prior,
            edge_probabilities: &self.edge_probabilities,
            beta: self.beta,
            truth: &self.truth,
            true_edges: &self.true_edges,
            exact_limit: self.exact_limit,
        };
        let reward = NetworkReward::new(context, dag, scores, None, &parts)?;
        reward.check_exists(path)?;
        Ok(Box::new(reward))
    }
}
