//! Rewards of fresh samples.

use rustc_hash::FxHashSet;

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricEntry};
use crate::RewardError;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "samples",
    summary: "mean reward, mean log reward and top-k reward of fresh samples",
    build: |context: &MetricContext| Box::new(Samples { context: context.clone() }),
};

struct Samples {
    context: MetricContext,
}

impl Metric for Samples {
    fn columns(&self) -> Vec<Column> {
        let (n, k) = (self.context.samples, self.context.top_k);
        vec![
            Column::new(
                "mean_reward",
                "reward",
                Better::Neither,
                format!("mean R(x) of {n} fresh samples; the target's own mean is its optimum"),
            ),
            Column::new(
                "mean_log_reward",
                "nats",
                Better::Neither,
                format!("mean log R(x) of {n} fresh samples"),
            ),
            Column::new(
                "top_k_reward",
                "reward",
                Better::Higher,
                format!("mean R(x) of the {k} best distinct objects among {n} fresh samples"),
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        let samples = eval.samples()?;
        let n = samples.len() as f64;
        if samples.is_empty() {
            return Ok(vec![None; 3]);
        }
        let mut seen = FxHashSet::default();
        let mut distinct = Vec::new();
        for (i, log_r) in samples.log_reward.iter().enumerate() {
            if seen.insert(samples.terminal(i)) {
                distinct.push(log_r.exp());
            }
        }
        distinct.sort_unstable_by(|a, b| b.total_cmp(a));
        distinct.truncate(self.context.top_k.max(1));
        let mean = samples.log_reward.iter().map(|log_r| log_r.exp()).sum::<f64>() / n;
        let mean_log = samples.log_reward.iter().sum::<f64>() / n;
        let top = distinct.iter().sum::<f64>() / distinct.len() as f64;
        Ok(vec![Some(mean), Some(mean_log), Some(top)])
    }
}
