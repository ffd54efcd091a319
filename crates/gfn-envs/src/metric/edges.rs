//! Edges of sampled graphs against the exact posterior and the true graph.

use std::any::Any;
use std::collections::BTreeMap;

use gfn_core::metric::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};
use gfn_core::{Environment, KeyError};

use super::sampled_graphs::SampledGraphs;
use crate::dag::Dag;
use crate::reward::bayes_net::{Known, NetworkReward};

pub(super) struct Edges {
    context: MetricContext,
}

/// The environment, if it builds graphs.
fn graphs(env: &dyn Environment) -> Option<&Dag> {
    (env as &dyn Any).downcast_ref()
}

impl Edges {
    fn reward(&self) -> Option<&NetworkReward> {
        self.context.reward.as_any()?.downcast_ref()
    }
}

/// Name, unit, direction and definition.
type Definition = (&'static str, &'static str, Better, String);

fn definitions(n: usize, dag: &Dag) -> Vec<Definition> {
    use Better::{Higher, Lower, Neither};
    let (d, names) = (dag.n_nodes(), dag.names().join(", "));
    let exact = "empty where that is unknown (more nodes than reward.exact_limit, or a reward that \
                 is no score of networks)";
    let truth = "empty where the true graph is unknown";
    let pairs = "over all ordered pairs of two different nodes";
    let frequency = format!("frequency among {n} fresh samples");
    let blankets = match Known::blanket_samples(d) {
        None => "known by enumeration".to_owned(),
        Some(n) => format!("known from {n} exact samples, so to 0.002"),
    };
    let distance = "unordered pairs of nodes between which two graphs differ, so that a reversed edge \
                    counts once";
    let ranking = "of edges i -> j ranked by their frequency among the fresh samples, against the true \
                   graph";
    let area = "sum over thresholds of (recall gained) x precision";
    vec![
        (
            "edge_rmse",
            "1",
            Lower,
            format!(
                "root of the mean {pairs} of (f - p)^2: f the {frequency} of the edge i -> j, p its \
                 probability under the exact posterior; {exact}. Nodes: {names}"
            ),
        ),
        (
            "edge_rmse_floor",
            "1",
            Neither,
            format!(
                "what edge_rmse is expected to be for {n} samples of the exact posterior itself: root \
                 of the mean {pairs} of p (1 - p) / {n}"
            ),
        ),
        ("edge_max_error", "1", Lower, format!("largest |f - p| {pairs}, f and p as in edge_rmse")),
        (
            "path_rmse",
            "1",
            Lower,
            "as edge_rmse, for a directed path from i to j instead of an edge".to_owned(),
        ),
        (
            "blanket_rmse",
            "1",
            Lower,
            format!(
                "as edge_rmse, for j in the Markov blanket of i, whose probability is {blankets}"
            ),
        ),
        (
            "edge_jsd",
            "nats",
            Lower,
            format!(
                "mean {pairs} of the Jensen-Shannon divergence between edge with probability f and \
                 edge with probability p, as in edge_rmse"
            ),
        ),
        (
            "expected_shd",
            "edges",
            Lower,
            format!(
                "mean structural Hamming distance of {n} fresh samples from the true graph: {distance}; \
                 {truth}. Nodes: {names}"
            ),
        ),
        (
            "expected_shd_exact",
            "edges",
            Neither,
            "expected_shd of the exact posterior itself".to_owned(),
        ),
        (
            "expected_cpdag_shd",
            "edges",
            Lower,
            format!(
                "as expected_shd, between essential graphs (CPDAGs) of Markov classes: within a class \
                 no observations tell graphs apart; {truth}"
            ),
        ),
        ("expected_edges", "edges", Neither, format!("mean number of edges of {n} fresh samples")),
        (
            "expected_edges_exact",
            "edges",
            Neither,
            "expected number of edges of the exact posterior".to_owned(),
        ),
        (
            "auroc",
            "1",
            Higher,
            format!("area under the ROC curve {ranking}, {pairs}; {truth}, or has no edge or all"),
        ),
        (
            "auroc_exact",
            "1",
            Neither,
            "auroc of the exact posterior's edge probabilities".to_owned(),
        ),
        ("auprc", "1", Higher, format!("average precision {ranking}, {pairs}: {area}; {truth}")),
        (
            "auprc_exact",
            "1",
            Neither,
            "auprc of the exact posterior's edge probabilities".to_owned(),
        ),
        (
            "auroc_with_diagonal",
            "1",
            Higher,
            "auroc over the whole matrix, with the loops i -> i that no graph has: easier, and as \
             some papers report it"
                .to_owned(),
        ),
        (
            "auprc_with_diagonal",
            "1",
            Higher,
            "auprc over the whole matrix, with the loops i -> i that no graph has".to_owned(),
        ),
        ("n_dags", "objects", Neither, format!("distinct graphs among {n} fresh samples")),
        (
            "n_cpdags",
            "classes",
            Neither,
            format!("distinct Markov equivalence classes among {n} fresh samples"),
        ),
    ]
}

/// The names of the columns, whatever the world.
pub(super) fn names() -> Vec<&'static str> {
    let spec = crate::dag::DagSpec::default();
    let dag = Dag::new(&spec).expect("defaults are legal");
    definitions(0, &dag).into_iter().map(|definition| definition.0).collect()
}

impl MetricKind for Edges {
    const NAME: &'static str = "edges";
    const SUMMARY: &'static str = "edges, paths and Markov blankets of sampled graphs against the exact posterior; \
              distances from the true graph";
    type Settings = NoSettings;

    fn build(context: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self { context: context.clone() })
    }
}

impl Metric for Edges {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        match graphs(&*self.context.env) {
            Some(dag) => definitions(self.context.samples, dag)
                .into_iter()
                .map(|(name, unit, better, text)| Column::new(name, unit, better, text))
                .collect(),
            None => {
                let empty = "empty: objects of this environment are no graphs of named nodes";
                let column = |name| Column::new(name, "1", Better::Neither, empty);
                names().into_iter().map(column).collect()
            }
        }
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(dag) = graphs(&*self.context.env) else { return Ok(vec![None; names().len()]) };
        let samples = eval.samples()?;
        if samples.is_empty() {
            return Ok(vec![None; names().len()]);
        }
        let mut counts = BTreeMap::new();
        for i in 0..samples.len() {
            let graph: Vec<u64> = dag.parents_of(samples.terminal(i)).collect();
            *counts.entry(graph).or_insert(0) += 1;
        }
        let sampled = SampledGraphs::of(&counts, dag.n_nodes());
        Ok(sampled.measure(self.reward()))
    }
}
