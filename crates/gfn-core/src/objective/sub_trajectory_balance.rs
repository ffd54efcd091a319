//! Sub-trajectory balance, SubTB(λ) (Madan et al. 2023, arXiv:2209.12782).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sub_trajectories::{SubTrajectories, Weighting};
use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, Replay, check_residual};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Weighted mean over sub-trajectories s_i → s_j of
/// (log F(s_i) + Σ log P_F − log F(s_j) − Σ log P_B)², with F = R at terminal states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubTrajectoryBalance {
    /// λ in [0, 2]: 0 gives detailed balance, large values weigh whole trajectories.
    pub lambda: f64,
    /// How sub-trajectories are weighted.
    pub weighting: Weighting,
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// Replayed trajectories beside those of the iteration; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Default for SubTrajectoryBalance {
    fn default() -> Self {
        Self {
            lambda: 0.9,
            weighting: Weighting::GeometricWithin,
            penalty: Penalty::Squared,
            log_reward_min: None,
            replay: None,
        }
    }
}

impl Kind<ObjectiveAxis> for SubTrajectoryBalance {
    const NAME: &'static str = "subtb";
    const ALIASES: &'static [&'static str] = &["sub_trajectory_balance"];
    const SUMMARY: &'static str = "sub-trajectory balance SubTB(lambda), with four weightings";
    const PAPER: Option<&'static str> = Some("arXiv:2209.12782");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if !(0.0..=2.0).contains(&self.lambda) {
            return Err(KeyError::new(
                "lambda",
                format!("must lie in [0, 2], not {}", self.lambda),
            )
            .help("the papers use 0.9, 0.99 or 1.9"));
        }
        check_residual(self.penalty, self.log_reward_min)?;
        Replay::check(self.replay.as_ref())?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for SubTrajectoryBalance {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let ratio = batch.log_pf() - batch.log_pb();
        let log_reward = batch.log_reward_at_ends(self.log_reward_min);
        let flow = batch.unless_at_end(batch.to(Head::FLOW), log_reward);
        let initial = batch.first_of_trajectories(batch.from(Head::FLOW));
        let Self { lambda, weighting, penalty, .. } = *self;
        SubTrajectories { lambda, weighting, penalty }.loss(batch, ratio, flow, initial)
    }
}

impl Objective for SubTrajectoryBalance {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone()).on(Replay::data(self.replay.as_ref()))]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Initial(Head::FLOW)
    }
}
