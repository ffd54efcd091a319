//! Graphs by the BDeu score of discrete data.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::observations::Given;
use super::parts::Parts;
use super::{DiscreteSpec, EXACT_LIMIT, NetworkReward, PriorSpec, graphs};
use crate::bayes_net::data::{Columns, DataKind, Table};
use crate::bayes_net::score::bde::Bde;
use crate::reward::modes::is_empty;

/// Settings of the reward `bde`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BdeSpec {
    /// Observations: a CSV file with a header, whose columns are matched with nodes by name. Default:
    /// the file of the environment, else generated ones.
    #[serde(skip_serializing_if = "is_empty")]
    pub data: PathBuf,
    /// The column of `data` that says which node was intervened on in each row: by its name, or by its
    /// number counting from 1; 0 or nothing for none. Such rows do not count for that node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interventions: String,
    /// Equivalent sample size of the prior.
    pub ess: f64,
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
    pub generate: DiscreteSpec,
}

impl Default for BdeSpec {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            interventions: String::new(),
            ess: 1.0,
            prior: PriorSpec::Uniform,
            edge_probabilities: PathBuf::new(),
            beta: 1.0,
            truth: PathBuf::new(),
            true_edges: Vec::new(),
            exact_limit: EXACT_LIMIT,
            generate: DiscreteSpec::default(),
        }
    }
}

impl Kind<RewardAxis> for BdeSpec {
    const NAME: &'static str = "bde";
    const SUMMARY: &'static str =
        "BDeu score of a discrete network: posterior of DAGs given states";
    const PAPER: Option<&'static str> = Some("arXiv:2202.13903");
    const NEUTRAL_KEYS: &'static [&'static str] = &["data", "edge_probabilities", "truth"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let dag = graphs(&context, Self::NAME)?;
        let given = Given {
            data: &self.data,
            interventions: &self.interventions,
            kind: DataKind::Discrete,
            says_generate: self.generate != DiscreteSpec::default(),
        };
        let (table, generated) = match given.read(context, dag)? {
            Some(table) => (table, None),
            None => {
                let (graph, table) = self.generate.generate(dag.n_nodes())?;
                (table, Some(graph))
            }
        };
        check_states(&table)?;
        let parts = Parts {
            prior: self.prior,
            edge_probabilities: &self.edge_probabilities,
            beta: self.beta,
            truth: &self.truth,
            true_edges: &self.true_edges,
            exact_limit: self.exact_limit,
        };
        let score = Bde::new(&table, self.ess)?;
        Ok(Box::new(NetworkReward::new(context, dag, score, generated, &parts)?))
    }
}

/// Refuses columns of measurements: where nearly every row has a state of its own there is nothing to
/// count.
fn check_states(table: &Table) -> Result<(), KeyError> {
    let Columns::Discrete(columns) = &table.columns else { return Ok(()) };
    let n = table.n_rows();
    match columns.iter().position(|column| column.states.len() > 20.max(n / 2)) {
        None => Ok(()),
        Some(node) => {
            let (name, states) = (&table.names[node], columns[node].states.len());
            let message = format!("the column `{name}` has {states} different values in {n} rows");
            Err(KeyError::new("kind", message)
                .help("choose reward.kind = \"bge\" for numbers, or cut them into a few levels"))
        }
    }
}
