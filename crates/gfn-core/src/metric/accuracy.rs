//! Accuracy: the expected reward of the policy relative to that of the target: the accuracy of
//! arXiv:2408.05885.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};

use crate::KeyError;

pub(super) struct Accuracy;

impl MetricKind for Accuracy {
    const NAME: &'static str = "accuracy";
    const SUMMARY: &'static str =
        "expected reward relative to that under the target, also clipped at 1";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }
}

impl Metric for Accuracy {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new(
                "reward_ratio",
                "1",
                Better::Neither,
                "E over P_T of R(x), divided by E over P* of R(x), both exact; 1 at the optimum and \
                 above it for a policy that samples high rewards too often; empty if the \
                 environment cannot be enumerated",
            ),
            Column::new(
                "accuracy",
                "1",
                Better::Higher,
                "reward_ratio clipped to [0, 1], as arXiv:2408.05885 reports it",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 2]) };
        // Relative to the largest reward: R itself may overflow.
        let max = objects.log_reward.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let rewards = || objects.log_reward.iter().map(|log_reward| (log_reward - max).exp());
        let ours: f64 = objects.prob.iter().zip(rewards()).map(|(p, reward)| p * reward).sum();
        let best: f64 = objects.target().zip(rewards()).map(|(p, reward)| p * reward).sum();
        let ratio = ours / best;
        Ok(vec![Some(ratio), Some(ratio.clamp(0.0, 1.0))])
    }
}
