//! What the kinds of scores share: priors, generated data, the true graph, limits.

use std::path::Path;
use std::sync::Arc;

use gfn_core::KeyError;
use gfn_core::registry::RewardContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bayes_net::data::Table;
use crate::bayes_net::graph::{all_nodes, nodes_of};
use crate::bayes_net::posterior::MAX_EXACT_NODES;
use crate::bayes_net::score::LocalScore;
use crate::bayes_net::score::modular::{Constraints, Modular};
use crate::bayes_net::score::prior::{EdgePrior, Prior};
use crate::bayes_net::{generate, named};
use crate::dag::{Dag, edge};
use crate::reward::modes::is_empty;
use crate::reward::objects::plain_lines;

/// A prior over structures, by the number l of parents of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PriorSpec {
    /// All graphs alike.
    #[default]
    Uniform,
    /// All numbers of parents alike, and all sets of one number: 1 / C(d - 1, l).
    Fair,
    /// `{ erdos_renyi = n }`: every edge with one probability, such that n are expected before cycles
    /// are excluded.
    ErdosRenyi(f64),
    /// `{ edge_penalty = b }`: a factor of b per edge, so fewer of them for b below 1.
    EdgePenalty(f64),
}

/// Random graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraphKind {
    /// A random order of the nodes; every pair is joined along it with one probability.
    #[default]
    ErdosRenyi,
    /// Nodes arrive one by one, each with the same number of parents, which are the likelier the more
    /// edges they have.
    ScaleFree,
}

/// Observations of a random linear-Gaussian network: weights from N(0, 1), and noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSpec {
    /// How the graph is drawn: `erdos_renyi` or `scale_free`.
    pub graph: GraphKind,
    /// Expected number of edges. Default: as many as nodes. Scale-free graphs have the nearest whole
    /// number of parents per node, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edges: Option<f64>,
    /// Number of observations.
    pub rows: usize,
    /// Standard deviation of the noise of every node.
    pub noise: f64,
    /// Seed of graph, weights and rows; not that of the run, so that runs share their task.
    pub seed: u64,
}

impl Default for GenerateSpec {
    fn default() -> Self {
        Self { graph: GraphKind::ErdosRenyi, edges: None, rows: 100, noise: 0.1, seed: 0 }
    }
}

/// Observations of a random discrete network: for every configuration of its parents a node has
/// probabilities from the uniform Dirichlet distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscreteSpec {
    /// How the graph is drawn: `erdos_renyi` or `scale_free`.
    pub graph: GraphKind,
    /// Expected number of edges. Default: as many as nodes. Scale-free graphs have the nearest whole
    /// number of parents per node, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edges: Option<f64>,
    /// Number of observations.
    pub rows: usize,
    /// Number of states of every node.
    pub states: usize,
    /// Seed of graph, probabilities and rows; not that of the run, so that runs share their task.
    pub seed: u64,
}

impl Default for DiscreteSpec {
    fn default() -> Self {
        Self { graph: GraphKind::ErdosRenyi, edges: None, rows: 100, states: 3, seed: 0 }
    }
}

/// A random graph on d nodes.
fn graph(d: usize, kind: GraphKind, edges: Option<f64>, seed: u64) -> Result<Vec<u64>, KeyError> {
    let pairs = (d * (d - 1) / 2) as f64;
    let edges = edges.unwrap_or((d as f64).min(pairs));
    match kind {
        GraphKind::ErdosRenyi => generate::erdos_renyi(d, edges, seed),
        GraphKind::ScaleFree if (0.0..=pairs).contains(&edges) => {
            generate::scale_free(d, (edges / d as f64).round().max(1.0) as usize, seed)
        }
        GraphKind::ScaleFree => {
            let message = format!("{edges} expected edges; {d} nodes have 0 to {pairs}");
            Err(KeyError::new("generate", message))
        }
    }
}

/// An error of what generates, as one of its key in a spec.
fn of_generate(error: KeyError) -> KeyError {
    let help = error.help.unwrap_or_else(|| "change it in reward.generate".to_owned());
    KeyError { key: Some("generate".to_owned()), help: Some(help), ..error }
}

impl GenerateSpec {
    /// The graph and its observations.
    pub(super) fn generate(&self, d: usize) -> Result<(Vec<u64>, Table), KeyError> {
        let draw = || {
            let graph = graph(d, self.graph, self.edges, self.seed)?;
            let data = generate::linear_gaussian(&graph, self.rows, self.noise, self.seed)?;
            Ok((graph, data.table))
        };
        draw().map_err(of_generate)
    }
}

impl DiscreteSpec {
    /// The graph and its observations.
    pub(super) fn generate(&self, d: usize) -> Result<(Vec<u64>, Table), KeyError> {
        let draw = || {
            let graph = graph(d, self.graph, self.edges, self.seed)?;
            let table = generate::discrete(&graph, self.states, self.rows, self.seed)?;
            Ok((graph, table))
        };
        draw().map_err(of_generate)
    }
}

/// The keys that all kinds have.
pub(super) struct Parts<'a> {
    pub(super) prior: PriorSpec,
    pub(super) edge_probabilities: &'a Path,
    pub(super) beta: f64,
    pub(super) truth: &'a Path,
    pub(super) true_edges: &'a [String],
    pub(super) exact_limit: usize,
}

impl Parts<'_> {
    pub(super) fn check(&self) -> Result<(), KeyError> {
        if self.exact_limit > MAX_EXACT_NODES {
            let message = format!("must be at most {MAX_EXACT_NODES}, not {}", self.exact_limit);
            return Err(KeyError::new("exact_limit", message)
                .help("every node more takes three times the work"));
        }
        if !is_empty(self.truth) && !self.true_edges.is_empty() {
            let message = "the true graph is given twice, by reward.truth and reward.true_edges";
            return Err(KeyError::new("true_edges", message).help("keep one of the two"));
        }
        Ok(())
    }

    /// The score with prior, temperature and the constraints of the environment.
    pub(super) fn modular(
        &self,
        context: RewardContext<'_>,
        dag: &Dag,
        score: Arc<dyn LocalScore>,
    ) -> Result<Modular, KeyError> {
        let d = dag.n_nodes();
        let prior = match self.prior {
            PriorSpec::Uniform => Prior::Uniform,
            PriorSpec::Fair => Prior::Fair,
            PriorSpec::ErdosRenyi(edges) => Prior::erdos_renyi(d, edges),
            PriorSpec::EdgePenalty(beta) => Prior::EdgePenalty { beta },
        };
        prior.by_size(d).map_err(|error| match self.prior {
            PriorSpec::ErdosRenyi(edges) => {
                let pairs = d * (d - 1) / 2;
                let message = format!("{edges} edges are expected, of {pairs} pairs of nodes");
                KeyError::new("prior", message)
                    .help(format!("give a number above 0 and below {pairs}"))
            }
            _ => KeyError { key: Some("prior".to_owned()), ..error },
        })?;
        let path = self.edge_probabilities;
        let edges = match is_empty(path) {
            true => None,
            false => {
                let key = "edge_probabilities";
                let bytes = plain_lines(context.files.read_for(key, path)?);
                let matrix = named::matrix(&bytes, dag.names());
                let matrix = matrix.map_err(|error| error.for_key(key, path))?;
                self.check_probabilities(&matrix, dag)?;
                Some(EdgePrior::new(&matrix)?)
            }
        };
        let sets = dag.parent_sets();
        let limited = sets.iter().any(|set| set.most < d - 1);
        let constraints = Constraints {
            required: sets.iter().map(|set| set.required).collect(),
            forbidden: (0..d).map(|j| all_nodes(d) & !(1 << j) & !sets[j].allowed).collect(),
            max_parents: sets.iter().map(|set| set.most).max().filter(|_| limited),
        };
        Modular::new(score, prior, edges, self.beta, constraints)
    }

    /// Probabilities of the edges that the environment adds must be above 0, and below 1.
    fn check_probabilities(&self, matrix: &[Vec<f64>], dag: &Dag) -> Result<(), KeyError> {
        for (j, set) in dag.parent_sets().iter().enumerate() {
            for i in nodes_of(set.allowed) {
                let p = matrix[i][j];
                if p > 0.0 && p < 1.0 {
                    continue;
                }
                let edge = format!("{} -> {}", dag.names()[i], dag.names()[j]);
                let path = self.edge_probabilities.display();
                let message = format!("`{path}` has {p} for {edge}, which is not between 0 and 1");
                let help = format!(
                    "write 0.5 for an edge that cannot or must be, and add \"{edge}\" to \
                     env.forbidden or env.required"
                );
                return Err(KeyError::data("edge_probabilities", message).help(help));
            }
        }
        Ok(())
    }

    /// The true graph, as far as the spec says it.
    pub(super) fn truth(
        &self,
        context: RewardContext<'_>,
        dag: &Dag,
    ) -> Result<Option<Vec<u64>>, KeyError> {
        if !is_empty(self.truth) {
            let bytes = plain_lines(context.files.read_for("truth", self.truth)?);
            let graph = named::dag(&bytes, dag.names());
            return Ok(Some(graph.map_err(|error| error.for_key("truth", self.truth))?));
        }
        if self.true_edges.is_empty() {
            return Ok(None);
        }
        let mut parents = vec![0; dag.n_nodes()];
        for text in self.true_edges {
            let (i, j) = edge(dag.names(), "true_edges", text)?;
            parents[j] |= 1 << i;
        }
        if !crate::bayes_net::graph::is_acyclic(&parents) {
            return Err(KeyError::new("true_edges", "the edges form a cycle")
                .help("a Bayesian network is acyclic: drop or reverse one of them"));
        }
        Ok(Some(parents))
    }
}
