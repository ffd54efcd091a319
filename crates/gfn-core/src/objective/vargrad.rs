//! VarGrad, also called log-partition variance (Zhang et al. 2023, arXiv:2302.05446;
//! Richter et al. 2020, arXiv:2010.10436), and DevGrad, the same with other penalties
//! (Hu et al. 2025, arXiv:2410.02596).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, check_residual};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Trajectory balance with the log Z for which the batch has the smallest loss: with the squared
/// penalty the variance over trajectories of log R + Σ log P_B − Σ log P_F.
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
    const ALIASES: &'static [&'static str] = &["log_partition_variance", "lpv", "devgrad"];
    const SUMMARY: &'static str = "variance of the log weights in a batch; no log Z to learn";
    const PAPER: Option<&'static str> = Some("arXiv:2302.05446");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for VarGrad {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let ratio = batch.sum_by_trajectory(batch.log_pf() - batch.log_pb());
        let residual = ratio - batch.log_reward_of_trajectories(self.log_reward_min);
        // Where it is best, the loss does not change with it: no gradient passes through it.
        let log_z = self.penalty.best_shift(&residual.value());
        self.penalty.of(residual + log_z).mean()
    }
}

impl Objective for VarGrad {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::None
    }

    fn min_batch(&self) -> usize {
        2
    }
}
