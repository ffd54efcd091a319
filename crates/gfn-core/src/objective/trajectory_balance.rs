//! Trajectory balance (Malkin et al. 2022, arXiv:2201.13259).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, Replay, check_residual};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Mean over trajectories of (log Z + Σ log P_F − log R(x) − Σ log P_B)².
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrajectoryBalance {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// Replayed trajectories beside those of the iteration; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Kind<ObjectiveAxis> for TrajectoryBalance {
    const NAME: &'static str = "tb";
    const ALIASES: &'static [&'static str] = &["trajectory_balance"];
    const SUMMARY: &'static str = "trajectory balance, with a learned log Z";
    const PAPER: Option<&'static str> = Some("arXiv:2201.13259");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        Replay::check(self.replay.as_ref())?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for TrajectoryBalance {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let ratio = batch.sum_by_trajectory(batch.log_pf() - batch.log_pb());
        let log_reward = batch.log_reward_of_trajectories(self.log_reward_min);
        batch.mean(self.penalty.of(batch.log_z() + ratio - log_reward))
    }
}

impl Objective for TrajectoryBalance {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone()).on(Replay::data(self.replay.as_ref()))]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter(Head::LOG_Z)
    }
}
