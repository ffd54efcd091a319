//! Forward-looking detailed balance (Pan et al. 2023, arXiv:2302.01687): states are credited with the
//! reward that they would have if they were finished at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, check_residual};
use crate::KeyError;
use crate::learn::batch::End;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Detailed balance with log F(s) = log F̃(s) + log R(s), of which F̃ is learned: mean over all
/// transitions of (log F̃(s) + log R(s) + log P_F(s'|s) − log F̃(s') − log R(s') − log P_B(s|s'))², with
/// F̃ = 1 at terminal states.
///
/// Every state must be one that can be finished by an action of its own: its reward is that of the
/// object then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardLooking {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Kind<ObjectiveAxis> for ForwardLooking {
    const NAME: &'static str = "fl_db";
    const ALIASES: &'static [&'static str] = &["forward_looking"];
    const SUMMARY: &'static str = "detailed balance that credits states with their own rewards";
    const PAPER: Option<&'static str> = Some("arXiv:2302.01687");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for ForwardLooking {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let along = |end| batch.log_reward_along(end, self.log_reward_min);
        let [reward, next] = [End::From, End::To].map(along);
        let zero = batch.constant(vec![0.0; batch.batch.len()]);
        let forward = batch.from(Head::FLOW) + reward + batch.log_pf();
        let backward = batch.unless_at_end(batch.to(Head::FLOW), zero) + next + batch.log_pb();
        self.penalty.of(forward - backward).mean()
    }
}

impl Objective for ForwardLooking {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::ForwardLooking(Head::FLOW, self.log_reward_min)
    }

    fn stops_anywhere(&self) -> bool {
        true
    }
}
