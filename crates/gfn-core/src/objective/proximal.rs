//! Proximal policy optimisation for GFlowNets, Ent-PPO (Zykova-Myzina et al. 2026, arXiv:2606.15793).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{Advantages, Critic, VALUE, costs};
use super::policy_gradient::{divergence, gradient_of};
use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis};
use crate::KeyError;
use crate::learn::batch::End;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::{Data, OLD, Rate, Update};
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// Several epochs of minibatches on the trajectories of an iteration. The policy descends the mean over
/// trajectories of Σ_t max(ρ A, clip(ρ) A) + β KL(P_F(·|s_t) ‖ P_old(·|s_t)), with ρ = P_F / P_old of the action
/// taken, and the divergence over all actions. Costs and advantages A are those of policy gradients
/// (`objective.kind = "pg"`) under the policy P_old and the critic that the iteration began with.
///
/// The costs hold log P_old; only with the divergence, β = 1, is that the entropy of P_F itself once it
/// has moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProximalPolicy {
    /// λ of the advantages in [0, 1].
    pub lambda: f64,
    /// How the critic is learned: "monte_carlo", { lambda = 0.7 }, { sub_eb = 0.9 } or "none".
    pub critic: Critic,
    /// Learning rate of the critic; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Whether the mean over all steps of a minibatch is subtracted from advantages.
    pub centred: bool,
    /// Whether that mean leaves out the trajectory itself.
    pub leave_one_out: bool,
    /// ρ is clipped to 1 ± this, above 0.
    pub clip: f64,
    /// Coefficient β of the divergence; default: 1, or 0 with `maximise_reward`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// How often an iteration goes through its trajectories.
    pub epochs: usize,
    /// Minibatches per epoch, each with its part of the trajectories.
    pub minibatches: usize,
    /// A baseline: only −log R at the end is a cost. It samples the objects of the greatest reward, not
    /// P ∝ R.
    pub maximise_reward: bool,
}

impl Default for ProximalPolicy {
    fn default() -> Self {
        Self {
            lambda: 0.7,
            critic: Critic::Lambda(0.7),
            value_lr: None,
            centred: false,
            leave_one_out: false,
            clip: 0.2,
            kl: None,
            epochs: 4,
            minibatches: 2,
            maximise_reward: false,
        }
    }
}

impl Kind<ObjectiveAxis> for ProximalPolicy {
    const NAME: &'static str = "ppo";
    const ALIASES: &'static [&'static str] = &["ent_ppo", "proximal_policy"];
    const SUMMARY: &'static str = "proximal policy optimisation with an entropy that is exact";
    const PAPER: Option<&'static str> = Some("arXiv:2606.15793");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        self.advantages().check(self.value_lr)?;
        if !(self.clip > 0.0 && self.clip.is_finite()) {
            return Err(KeyError::new("clip", format!("must be above 0, not {}", self.clip))
                .help("the paper uses 0.2"));
        }
        if self.kl.is_some_and(|kl| !(kl >= 0.0 && kl.is_finite())) {
            return Err(KeyError::new("kl", "must be finite and not below 0")
                .help("leave the key out for 1: other values do not sample P ∝ R"));
        }
        for (key, value) in [("epochs", self.epochs), ("minibatches", self.minibatches)] {
            if !(1..=1000).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in 1 to 1000, not {value}")));
            }
        }
        Ok(Box::new(self.clone()))
    }
}

impl ProximalPolicy {
    fn advantages(&self) -> Advantages {
        let Self { lambda, critic, centred, leave_one_out, .. } = *self;
        Advantages { lambda, critic, centred, leave_one_out }
    }

    fn kl(&self) -> f64 {
        self.kl.unwrap_or(if self.maximise_reward { 0.0 } else { 1.0 })
    }
}

impl Loss for ProximalPolicy {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let (old, advantages) = (batch.copy(OLD.name), self.advantages());
        let (log_pf, log_old) = (batch.log_pf(), old.log_pf());
        let b = 1.0 / batch.batch.log_reward.len() as f64;
        let (costs, mean) = if self.maximise_reward {
            let costs: Vec<f64> =
                batch.log_reward_at_ends(None).value().iter().map(|r| -r).collect();
            let mean = batch.constant(vec![costs.iter().sum::<f64>() * b]);
            (costs, mean)
        } else {
            let costs = costs(batch, log_old);
            let mean = divergence(batch, &costs);
            (costs, mean)
        };
        let advantage = batch.constant(advantages.of(&old, &costs));
        let ratio = (log_pf - log_old).exp();
        let (free, clipped) =
            (ratio * advantage, ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * advantage);
        let larger: Vec<bool> =
            free.value().iter().zip(&*clipped.value()).map(|(a, b)| a >= b).collect();
        let mut loss = mean + gradient_of(free.or_where_not(larger, clipped).sum() * b);
        let kl = self.kl();
        if kl > 0.0 {
            let log_pi = batch.log_pf_of_all(End::From);
            let log_old = old.log_pf_of_all(End::From);
            loss = loss + gradient_of((log_pi.exp() * (log_pi - log_old)).sum() * (b * kl));
        }
        if let Some(critic) = advantages.critic_loss(batch, &old, &costs) {
            loss = loss + gradient_of(critic);
        }
        loss
    }
}

impl Objective for ProximalPolicy {
    fn updates(&self) -> Vec<Update> {
        let data = match self.minibatches {
            1 => Data::Current,
            n => Data::Minibatches { n },
        };
        let update = Update::new(OBJECTIVE, self.clone()).on(data).keeping(Some(OLD));
        let update = update.rate_of(VALUE, Rate::of(self.value_lr));
        vec![Update { repeat: self.epochs * self.minibatches, ..update }]
    }

    fn log_z(&self) -> LogZ {
        if self.maximise_reward { LogZ::None } else { LogZ::Parameter(Head::LOG_Z) }
    }

    fn min_batch(&self) -> usize {
        self.minibatches
    }
}
