//! Soft Q-learning (Tiapkin et al. 2024, arXiv:2310.12934): a GFlowNet as the soft-optimal policy of
//! a Markov decision process whose rewards are log P_B, and log R at the end.

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

/// Mean of the penalty of Q(s, a) − (log P_B(s|s') + V̄(s')), with V̄(s') = τ log Σ exp(Q̄(s', ·)/τ)
/// of a target copy, or log R(s') instead of both where s' is terminal.
///
/// With `double`, V̄(s') is the mean of Q̄ − τ log π under the current policy π instead. With `dueling`, a
/// head V(s) is learned and Q = V + τ log π, so that τ log Σ exp(Q/τ) is V itself.
///
/// With `alpha`, Munchausen's term α max(τ log π̄(a|s), l0) is added to the right, and
/// τ = 1/(1 − α), so that the fixed point stays the same. Q is τ times the logits of P_F: behaviour,
/// evaluation and loss have one temperature. At the optimum V = log F(s) and
/// Q = log F(s) + τ log P_F(s'|s), which without `alpha` is log F(s → s').
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoftDqn {
    /// Munchausen's α in [0, 1); 0 is plain soft Q-learning, the papers use 0.15.
    pub alpha: f64,
    /// Lower clip of τ log π̄ in Munchausen's term.
    pub l0: f64,
    /// Whether V̄(s') weighs the target's Q by the current policy: Double Q-learning.
    pub double: bool,
    /// Whether V(s) has a head of its own and Q = V + τ log π.
    pub dueling: bool,
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
    /// Factor on the penalty of transitions into terminal states.
    pub leaf_coefficient: f64,
    /// Step κ of the target copy: target ← (1 − κ) target + κ online, at every iteration.
    pub target_tau: f64,
    /// Instead of that, the target is set to the online values every so many iterations; 0 is off.
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

impl Default for SoftDqn {
    fn default() -> Self {
        Self {
            alpha: 0.0,
            l0: -100.0,
            double: false,
            dueling: false,
            penalty: Penalty::Huber(1.0),
            log_reward_min: None,
            leaf_coefficient: 1.0,
            target_tau: 0.25,
            target_every: 0,
            replay_capacity: 100_000,
            replay_batch: 256,
            replay_priority: Priority::Uniform,
            updates: 1,
            start: 16,
        }
    }
}

impl Kind<ObjectiveAxis> for SoftDqn {
    const NAME: &'static str = "soft_dqn";
    const SUMMARY: &'static str = "soft Q-learning with a target copy and replayed transitions";
    const PAPER: Option<&'static str> = Some("arXiv:2310.12934");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_residual(self.penalty, self.log_reward_min)?;
        if !(0.0..1.0).contains(&self.alpha) {
            let message = format!("must lie in [0, 1), not {}", self.alpha);
            return Err(KeyError::new("alpha", message).help("the papers use 0.15"));
        }
        super::check_target_tau(self.target_tau)?;
        for (key, value) in [("l0", -self.l0), ("leaf_coefficient", self.leaf_coefficient)] {
            if !(value > 0.0 && value.is_finite()) {
                let sign = if key == "l0" { "below" } else { "above" };
                return Err(KeyError::new(key, format!("must be finite and {sign} 0")));
            }
        }
        super::check_replay(
            self.replay_batch,
            self.replay_capacity,
            self.updates,
            self.replay_priority,
        )?;
        Ok(Box::new(self.clone()))
    }
}

const TARGET: &str = "target";

impl SoftDqn {
    fn tau(&self) -> f64 {
        1.0 / (1.0 - self.alpha)
    }

    /// Q(s, a) of every transition.
    fn q<'t>(&self, values: &BatchView<'_, 't>) -> Var<'t> {
        match self.dueling {
            true => values.from(Head::FLOW) + self.tau() * values.log_pf(),
            false => self.tau() * values.taken(Head::FORWARD),
        }
    }

    /// V̄(s') of every transition, any number where s' is terminal.
    fn next_value<'t>(&self, batch: &BatchView<'_, 't>, target: &BatchView<'_, 't>) -> Var<'t> {
        let tau = self.tau();
        let soft = || match self.dueling {
            true => target.to(Head::FLOW),
            false => tau * target.next_log_sum_exp(Head::FORWARD),
        };
        if !self.double {
            return soft();
        }
        let log_pi = batch.log_pf_of_all(End::To).detach();
        let q = match self.dueling {
            true => target.for_all(End::To, soft()) + tau * target.log_pf_of_all(End::To),
            false => tau * target.all(End::To, Head::FORWARD),
        };
        batch.sum_by_choice(End::To, log_pi.exp() * (q - tau * log_pi))
    }
}

impl Loss for SoftDqn {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let (tau, target) = (self.tau(), batch.copy(TARGET));
        let next = self.next_value(batch, &target);
        let end = batch.log_reward_at_ends(self.log_reward_min);
        // Also where objects end by themselves, with several parents.
        let mut goal = batch.log_pb() + batch.unless_at_end(next, end);
        if self.alpha > 0.0 {
            goal = goal + self.alpha * (tau * target.log_pf()).clamp(self.l0, 0.0);
        }
        let penalty = self.penalty.of(self.q(batch) - goal);
        let weight = |&terminal: &bool| if terminal { self.leaf_coefficient } else { 1.0 };
        let weights = batch.batch.terminal.iter().map(weight).collect();
        batch.mean(penalty * batch.constant(weights))
    }
}

impl Objective for SoftDqn {
    fn updates(&self) -> Vec<Update> {
        let data =
            super::transitions(self.replay_batch, self.replay_capacity, self.replay_priority);
        let follows = match self.target_every {
            0 => Follows::Slowly(self.target_tau),
            n => Follows::Every(n),
        };
        let update = Update::new(OBJECTIVE, self.clone())
            .on(data)
            .keeping(Some(ValueCopy { name: TARGET, follows }));
        let start = if self.replay_capacity > 0 { self.start } else { 0 };
        vec![Update { repeat: self.updates, start, ..update }]
    }

    fn log_z(&self) -> LogZ {
        match self.dueling {
            true => LogZ::Initial(Head::FLOW),
            false => LogZ::SoftValue(Head::FORWARD, self.tau()),
        }
    }
}
