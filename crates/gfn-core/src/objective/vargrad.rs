//! VarGrad, also called log-partition variance (Zhang et al. 2023, arXiv:2302.05446;
//! Richter et al. 2020, arXiv:2010.10436).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Needs, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::registry::Kind;
use crate::scored::{HostLoss, HostScored, Scored};

/// Mean over trajectories of (w − w̄)² with w = log R + Σ log P_B − Σ log P_F and w̄ its mean over
/// the batch: trajectory balance with log Z estimated by the batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VarGrad {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Kind<ObjectiveAxis> for VarGrad {
    const NAME: &'static str = "vargrad";
    const ALIASES: &'static [&'static str] = &["log_partition_variance", "lpv"];
    const SUMMARY: &'static str = "variance of the log weights in a batch; no log Z to learn";
    const PAPER: Option<&'static str> = Some("arXiv:2302.05446");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_log_reward_min(self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Objective for VarGrad {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let weight = scored.log_weight(self.log_reward_min);
        let mean = weight.clone().mean();
        self.penalty.of(weight - mean).mean()
    }

    fn by_hand(&self, scored: &HostScored<'_>) -> Option<HostLoss> {
        let b = scored.batch.len() as f64;
        let weights: Vec<_> = scored
            .trajectories(self.log_reward_min)
            .map(|(range, log_reward)| (log_reward - scored.ratio(&range), range))
            .collect();
        let mean = weights.iter().map(|(weight, _)| weight).sum::<f64>() / b;
        let penalties: Vec<_> = weights
            .into_iter()
            .map(|(weight, range)| (range, self.penalty.at(weight - mean)))
            .collect();
        let loss = penalties.iter().map(|(_, (penalty, _))| penalty).sum::<f64>() / b;
        // Every weight moves the mean as well.
        let of_mean = penalties.iter().map(|(_, (_, derivative))| derivative).sum::<f64>() / b;
        let mut of_ratios = vec![0.0; scored.log_pf.len()];
        for (range, (_, derivative)) in penalties {
            of_ratios[range].fill(((of_mean - derivative) / b) as f32);
        }
        Some(HostLoss::of_ratios(loss, of_ratios))
    }

    fn needs(&self) -> Needs {
        Needs { backward_policy: true, log_flow: false, parents: false, min_batch: 2 }
    }

    fn log_z(&self) -> LogZ {
        LogZ::None
    }
}
