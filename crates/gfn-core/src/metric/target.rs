//! What the target itself looks like: the values that a perfect sampler would show.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};
use crate::KeyError;
use crate::TargetEstimate;

pub(super) struct TargetMoments {
    known: Option<TargetEstimate>,
}

impl MetricKind for TargetMoments {
    const NAME: &'static str = "target";
    const SUMMARY: &'static str =
        "log Z and mean log reward of the target, exact or estimated with standard errors";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self { known: None })
    }
}

impl Metric for TargetMoments {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let how = "by enumeration where that is possible, else estimated by the reward itself \
                   (importance sampling); empty if it cannot";
        let column = |name, definition: &str| {
            Column::new(name, "nats", Better::Neither, format!("{definition}, {how}"))
        };
        vec![
            column("target_log_z", "log of the sum of R over all objects"),
            column("target_log_z_error", "standard error of target_log_z, 0 if exact"),
            column(
                "target_mean_log_reward",
                "E over P* of log R(x), the optimum of mean_log_reward",
            ),
            column("target_mean_error", "standard error of target_mean_log_reward, 0 if exact"),
        ]
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        if self.known.is_none() {
            self.known = match eval.target()? {
                Some((log_reward, log_z)) => {
                    let terms = log_reward.iter().map(|r| ((r - log_z).exp(), r));
                    Some(TargetEstimate {
                        log_z,
                        log_z_error: 0.0,
                        // A reward of 0 weighs nothing.
                        mean_log_reward: terms.filter(|(p, _)| *p > 0.0).map(|(p, r)| p * r).sum(),
                        mean_error: 0.0,
                    })
                }
                None => eval.fixed.reward.target_estimate(),
            };
        }
        let Some(known) = self.known else { return Ok(vec![None; 4]) };
        let values = [known.log_z, known.log_z_error, known.mean_log_reward, known.mean_error];
        Ok(values.map(Some).to_vec())
    }
}
