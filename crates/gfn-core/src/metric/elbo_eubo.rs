//! Evidence bounds on log Z.

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricEntry};
use crate::RewardError;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "elbo_eubo",
    summary: "lower and upper evidence bounds on log Z",
    build: |_: &MetricContext| Box::new(ElboEubo),
};

struct ElboEubo;

impl Metric for ElboEubo {
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new(
                "elbo",
                "nats",
                Better::Higher,
                "E over trajectories of P_F of log R(x) + log P_B(tau|x) - log P_F(tau): exact on \
                 enumerable environments, else the mean over eval.samples fresh trajectories",
            )
            .headline(1),
            Column::new(
                "eubo",
                "nats",
                Better::Lower,
                "the same expectation over x ~ P*, tau ~ P_B(.|x): exact on enumerable \
                 environments, else empty",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        if let Some(exact) = &eval.fixed.exact {
            let (log_pf, log_pb) = (eval.log_pf(exact), eval.log_pb(exact));
            let (elbo, eubo) = exact.graph.bounds(&exact.target, log_pf, log_pb);
            return Ok(vec![Some(elbo), Some(eubo)]);
        }
        let samples = eval.samples()?;
        let (log_pf, log_pb) = eval.log_probs_of(samples);
        let n = samples.len() as f64;
        let sum: f64 =
            (0..samples.len()).map(|i| samples.log_reward[i] + log_pb[i] - log_pf[i]).sum();
        Ok(vec![(n > 0.0).then(|| sum / n), None])
    }
}
