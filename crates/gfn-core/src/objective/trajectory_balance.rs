//! Trajectory balance (Malkin et al. 2022, arXiv:2201.13259).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Needs, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::registry::Kind;
use crate::scored::{HostLoss, HostScored, Scored};

/// Mean over trajectories of (log Z + Σ log P_F − log R(x) − Σ log P_B)².
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrajectoryBalance {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Kind<ObjectiveAxis> for TrajectoryBalance {
    const NAME: &'static str = "tb";
    const ALIASES: &'static [&'static str] = &["trajectory_balance"];
    const SUMMARY: &'static str = "trajectory balance, with a learned log Z";
    const PAPER: Option<&'static str> = Some("arXiv:2201.13259");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_log_reward_min(self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Objective for TrajectoryBalance {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let log_z = scored.log_z();
        let residual = log_z - scored.log_weight(self.log_reward_min);
        self.penalty.of(residual).mean()
    }

    fn by_hand(&self, scored: &HostScored<'_>) -> Option<HostLoss> {
        let (b, log_z) = (scored.batch.len() as f64, scored.log_z());
        let (mut loss, mut of_log_z) = (0.0, 0.0);
        let mut of_ratios = vec![0.0; scored.log_pf.len()];
        for (range, log_reward) in scored.trajectories(self.log_reward_min) {
            let residual = log_z + scored.ratio(&range) - log_reward;
            let (penalty, derivative) = self.penalty.at(residual);
            loss += penalty / b;
            of_log_z += derivative / b;
            of_ratios[range].fill((derivative / b) as f32);
        }
        let loss = HostLoss::of_ratios(loss, of_ratios);
        Some(HostLoss { log_z: of_log_z as f32, ..loss })
    }

    fn needs(&self) -> Needs {
        Needs { backward_policy: true, log_flow: false, parents: false, min_batch: 1 }
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter
    }
}
