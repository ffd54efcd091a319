//! Graphs by the linear-Gaussian score of continuous data.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::observations::Given;
use super::parts::Parts;
use super::{EXACT_LIMIT, GenerateSpec, NetworkReward, PriorSpec, graphs};
use crate::bayes_net::data::DataKind;
use crate::bayes_net::score::linear_gaussian::LinearGaussian;
use crate::reward::modes::is_empty;

/// Settings of the reward `linear_gaussian`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinearGaussianSpec {
    /// Observations: a CSV file with a header, whose columns are matched with nodes by name. Default:
    /// the file of the environment, else generated ones.
    #[serde(skip_serializing_if = "is_empty")]
    pub data: PathBuf,
    /// The column of `data` that says which node was intervened on in each row: by its name, or by its
    /// number counting from 1; 0 or nothing for none. Such rows do not count for that node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interventions: String,
    /// Whether columns are shifted and scaled to mean 0 and variance 1 (with n - 1).
    pub standardise: bool,
    /// Prior mean of the weights of edges.
    pub prior_mean: f64,
    /// Prior standard deviation of the weights.
    pub prior_scale: f64,
    /// Standard deviation of the noise.
    pub obs_scale: f64,
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
    /// Observations that are generated where there is no file.
    pub generate: GenerateSpec,
}

impl Default for LinearGaussianSpec {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            interventions: String::new(),
            standardise: false,
            prior_mean: 0.0,
            prior_scale: 1.0,
            // A variance of 0.1.
            obs_scale: 0.316_227_766_016_837_94,
            prior: PriorSpec::Uniform,
            edge_probabilities: PathBuf::new(),
            beta: 1.0,
            truth: PathBuf::new(),
            true_edges: Vec::new(),
            exact_limit: EXACT_LIMIT,
            generate: GenerateSpec::default(),
        }
    }
}

impl Kind<RewardAxis> for LinearGaussianSpec {
    const NAME: &'static str = "linear_gaussian";
    const SUMMARY: &'static str =
        "linear-Gaussian score with known noise: posterior of DAGs given numbers";
    const NEUTRAL_KEYS: &'static [&'static str] = &["data", "edge_probabilities", "truth"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let dag = graphs(&context, Self::NAME)?;
        let given = Given {
            data: &self.data,
            interventions: &self.interventions,
            kind: DataKind::Continuous,
            says_generate: self.generate != GenerateSpec::default(),
        };
        let (mut table, generated) = match given.read(context, dag)? {
            Some(table) => (table, None),
            None => {
                let (graph, table) = self.generate.generate(dag.n_nodes())?;
                (table, Some(graph))
            }
        };
        if self.standardise {
            table.standardise(1);
        }
        let parts = Parts {
            prior: self.prior,
            edge_probabilities: &self.edge_probabilities,
            beta: self.beta,
            truth: &self.truth,
            true_edges: &self.true_edges,
            exact_limit: self.exact_limit,
        };
        let score = LinearGaussian::new(&table, self.prior_mean, self.prior_scale, self.obs_scale)?;
        Ok(Box::new(NetworkReward::new(context, dag, score, generated, &parts)?))
    }
}
