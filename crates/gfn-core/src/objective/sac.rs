//! Discrete soft actor-critic (Haarnoja et al. 2018, arXiv:1801.01290; Christodoulou 2019,
//! arXiv:1910.07207) on the Markov decision process of a GFlowNet (arXiv:2310.12934).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, check_residual};
use crate::learn::batch::End;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::priority::Priority;
use crate::learn::update::{Follows, Rate, Update, ValueCopy};
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;
use crate::{Direction, KeyError};

/// Two critics and an actor. Critics: the mean of the penalties of Q_i(s, a) − (log P_B(s|s') + V̄(s')), with
/// V̄(s') = Σ_a π(a|s') (min_i Q̄_i(s', a) − τ log π(a|s')) of target copies, or log R(s') instead of both
/// where s' is terminal. Actor: the mean of Σ_a π(a|s) (τ log π(a|s) − min_i Q_i(s, a)).
///
/// At τ = 1 the optimal π is the P_F that samples P ∝ R, and Q_i = log F(s → s'). Other values of τ, and
/// `maximise_reward`, make it a baseline that samples another distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sac {
    /// Entropy coefficient τ, above 0; only 1 samples P ∝ R.
    pub entropy: f64,
    /// A baseline: steps give no log P_B, only log R at the end counts. At τ = 1 it samples objects in
    /// proportion to R times their number of trajectories.
    pub maximise_reward: bool,
    /// Learning rate of the critics; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critic_lr: Option<f64>,
    /// Penalty of the critics' residuals.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// Step κ of the target copy: target ← (1 − κ) target + κ online, at every iteration.
    pub target_tau: f64,
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

impl Default for Sac {
    fn default() -> Self {
        Self {
            entropy: 1.0,
            maximise_reward: false,
            critic_lr: None,
            penalty: Penalty::Huber(1.0),
            log_reward_min: None,
            target_tau: 0.25,
            replay_capacity: 100_000,
            replay_batch: 256,
            replay_priority: Priority::Uniform,
            updates: 1,
            start: 16,
        }
    }
}

impl Kind<ObjectiveAxis> for Sac {
    const NAME: &'static str = "sac";
    const ALIASES: &'static [&'static str] = &["soft_actor_critic"];
    const SUMMARY: &'static str = "discrete soft actor-critic with two critics and replay";
    const PAPER: Option<&'static str> = Some("arXiv:1801.01290");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        if !(self.entropy > 0.0 && self.entropy.is_finite()) {
            let message = format!("must be above 0, not {}", self.entropy);
            return Err(KeyError::new("entropy", message).help("1 samples P ∝ R"));
        }
        if self.critic_lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
            return Err(KeyError::new("critic_lr", "a learning rate must be above 0")
                .help("leave the key out to use train.lr"));
        }
        super::check_target_tau(self.target_tau)?;
        super::check_replay(
            self.replay_batch,
            self.replay_capacity,
            self.updates,
            self.replay_priority,
        )?;
        Ok(Box::new(self.clone()))
    }
}

const CRITICS: [Head; 2] =
    [Head::actions("critic_1", Direction::Forward), Head::actions("critic_2", Direction::Forward)];
const TARGET: &str = "target";

/// The smaller of two numbers, entry by entry, without derivatives.
fn smaller<'t>(batch: &BatchView<'_, 't>, [a, b]: [Var<'t>; 2]) -> Var<'t> {
    let (a, b) = (a.value(), b.value());
    batch.constant(a.iter().zip(b.iter()).map(|(a, b)| a.min(*b)).collect())
}

impl Loss for Sac {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let target = batch.copy(TARGET);
        let log_pi = batch.log_pf_of_all(End::To).detach();
        let next_q = smaller(batch, CRITICS.map(|critic| target.all(End::To, critic)));
        let value = batch.sum_by_choice(End::To, log_pi.exp() * (next_q - self.entropy * log_pi));
        let next = batch.unless_at_end(value, batch.log_reward_at_ends(self.log_reward_min));
        let goal = if self.maximise_reward { next } else { batch.log_pb() + next };

        let log_pi = batch.log_pf_of_all(End::From);
        let q = smaller(batch, CRITICS.map(|critic| batch.all(End::From, critic)));
        let actor =
            batch.sum_by_choice(End::From, log_pi.exp() * (self.entropy * log_pi - q)).mean();
        let [first, second] = CRITICS.map(|critic| self.penalty.of(batch.taken(critic) - goal));
        actor + batch.mean(first + second)
    }
}

impl Objective for Sac {
    fn updates(&self) -> Vec<Update> {
        let data =
            super::transitions(self.replay_batch, self.replay_capacity, self.replay_priority);
        let follows = Follows::Slowly(self.target_tau);
        let update = Update::new(OBJECTIVE, self.clone())
            .on(data)
            .keeping(Some(ValueCopy { name: TARGET, follows }));
        let rate = Rate::of(self.critic_lr);
        let update =
            CRITICS.into_iter().fold(update, |update, critic| update.rate_of(critic, rate));
        let start = if self.replay_capacity > 0 { self.start } else { 0 };
        vec![Update { repeat: self.updates, start, ..update }]
    }

    fn log_z(&self) -> LogZ {
        // Otherwise the soft value of s0 is that of another distribution.
        let learned = self.entropy == 1.0 && !self.maximise_reward;
        if learned { LogZ::SoftValue(CRITICS[0], 1.0) } else { LogZ::None }
    }
}
