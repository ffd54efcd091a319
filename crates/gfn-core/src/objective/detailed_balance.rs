//! Detailed balance (Bengio et al. 2023, arXiv:2111.09266).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, Replay, check_residual};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Mean over all transitions of (log F(s) + log P_F(s'|s) − log F(s') − log P_B(s|s'))², with
/// F = R at terminal states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetailedBalance {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// Replayed trajectories beside those of the iteration; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Kind<ObjectiveAxis> for DetailedBalance {
    const NAME: &'static str = "db";
    const ALIASES: &'static [&'static str] = &["detailed_balance"];
    const SUMMARY: &'static str = "detailed balance on every transition";
    const PAPER: Option<&'static str> = Some("arXiv:2111.09266");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        Replay::check(self.replay.as_ref())?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for DetailedBalance {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let log_reward = batch.log_reward_at_ends(self.log_reward_min);
        let forward = batch.from(Head::FLOW) + batch.log_pf();
        let backward = batch.unless_at_end(batch.to(Head::FLOW), log_reward) + batch.log_pb();
        batch.mean(self.penalty.of(forward - backward))
    }
}

impl Objective for DetailedBalance {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone()).on(Replay::data(self.replay.as_ref()))]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Initial(Head::FLOW)
    }
}
