//! Modified detailed balance (Deleu et al. 2022, arXiv:2202.13903): where every state can be finished,
//! flows follow from rewards and the probability of stopping, and are not learned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, check_residual};
use crate::KeyError;
use crate::learn::batch::End;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::priority::Priority;
use crate::learn::update::{Follows, Update, ValueCopy};
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Mean over all transitions but those that finish an object of (log R(s) − log P_F(stop|s) +
/// log P_F(s'|s) − log R(s') + log P_F(stop|s') − log P_B(s|s'))²: detailed balance with
/// F(s) = R(s) / P_F(stop|s).
///
/// With a target copy, P_F(stop|s') is that of the copy and has no derivatives. DAG-GFlowNet trains with
/// Huber's penalty, a target that is set every 1000 iterations, and 100,000 replayed transitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModifiedDb {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// The target copy is set to the online values every so many iterations; 0: there is none.
    pub target_every: u64,
    /// Transitions that the replay buffer keeps, 72 bytes each and 8 for every cell of a state's row (112 on the
    /// 20^4 hypergrid); 0 trains on the current trajectories alone.
    pub replay_capacity: usize,
    /// Transitions drawn from it for an update.
    pub replay_batch: usize,
    /// Which transitions are drawn: "uniform", or by their last loss.
    pub replay_priority: Priority,
    /// Updates per iteration.
    pub updates: usize,
    /// Iterations that only fill the buffer before.
    pub start: u64,
}

impl Default for ModifiedDb {
    fn default() -> Self {
        Self {
            penalty: Penalty::Squared,
            log_reward_min: None,
            target_every: 0,
            replay_capacity: 0,
            replay_batch: 256,
            replay_priority: Priority::Uniform,
            updates: 1,
            start: 0,
        }
    }
}

const TARGET: &str = "target";

impl Kind<ObjectiveAxis> for ModifiedDb {
    const NAME: &'static str = "mdb";
    const ALIASES: &'static [&'static str] = &["modified_db"];
    const SUMMARY: &'static str = "detailed balance by rewards and P_F(stop), without flows";
    const PAPER: Option<&'static str> = Some("arXiv:2202.13903");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        super::check_replay(
            self.replay_batch,
            self.replay_capacity,
            self.updates,
            self.replay_priority,
        )?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for ModifiedDb {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let along = |end| batch.log_reward_along(end, self.log_reward_min);
        let [reward, next] = [End::From, End::To].map(along);
        let stop_next = match self.target_every {
            0 => batch.next_log_pf_of_stop(),
            _ => batch.copy(TARGET).next_log_pf_of_stop(),
        };
        let forward = reward - batch.log_pf_of_stop() + batch.log_pf();
        let backward = next - stop_next + batch.log_pb();
        batch.mean_inner(self.penalty.of(forward - backward))
    }
}

impl Objective for ModifiedDb {
    fn updates(&self) -> Vec<Update> {
        let data =
            super::transitions(self.replay_batch, self.replay_capacity, self.replay_priority);
        let follows = Follows::Every(self.target_every);
        let copy = (self.target_every > 0).then_some(ValueCopy { name: TARGET, follows });
        let start = if self.replay_capacity > 0 { self.start } else { 0 };
        let update = Update::new(OBJECTIVE, self.clone()).on(data).keeping(copy);
        vec![Update { repeat: self.updates, start, ..update }]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Stopping(Head::FORWARD, self.log_reward_min)
    }

    fn stops_anywhere(&self) -> bool {
        true
    }
}
