//! Policy gradients of the divergence between trajectories (Niu et al. 2024, arXiv:2408.05885).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{Advantages, Critic, VALUE, costs};
use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::{Rate, Update};
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// REINFORCE for KL(P_F(τ) ‖ R(x) P_B(τ|x)/Z), with a critic.
///
/// A step costs c = log P_F − log P_B, the last one log Z − log R besides. The policy follows
/// Σ A ∇log P_F with advantages A_t = δ_t + λ A_{t+1} of δ_t = c_t + V(s_{t+1}) − V(s_t), V being 0
/// at the end; log Z follows the mean total cost, the critic V the costs that are still to come.
/// The reported loss is the mean total cost. P_B is trained through the objective by the gradient of
/// the same divergence, which is that of its likelihood.
///
/// The gradient is right for trajectories of P_F itself: `train.epsilon` biases it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyGradient {
    /// λ of the advantages in [0, 1].
    pub lambda: f64,
    /// How the critic is learned: "monte_carlo", { lambda = 0.9 }, { sub_eb = 0.9 } or "none".
    pub critic: Critic,
    /// Learning rate of the critic; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Whether the mean over all steps of the batch is subtracted from advantages.
    pub centred: bool,
    /// Whether that mean leaves out the trajectory itself, so that the gradient has no bias.
    pub leave_one_out: bool,
}

impl Default for PolicyGradient {
    fn default() -> Self {
        let critic = Critic::MonteCarlo;
        Self { lambda: 0.99, critic, value_lr: None, centred: true, leave_one_out: false }
    }
}

impl Kind<ObjectiveAxis> for PolicyGradient {
    const NAME: &'static str = "pg";
    const ALIASES: &'static [&'static str] = &["policy_gradient", "reinforce"];
    const SUMMARY: &'static str = "policy gradient of the trajectory divergence, with a critic";
    const PAPER: Option<&'static str> = Some("arXiv:2408.05885");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        self.advantages().check(self.value_lr)?;
        Ok(Box::new(self.clone()))
    }
}

impl PolicyGradient {
    fn advantages(&self) -> Advantages {
        let Self { lambda, critic, centred, leave_one_out, .. } = *self;
        Advantages { lambda, critic, centred, leave_one_out }
    }
}

impl Loss for PolicyGradient {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let (log_pf, advantages) = (batch.log_pf(), self.advantages());
        let costs = costs(batch, log_pf);
        let advantage = batch.constant(advantages.of(batch, &costs));
        let b = 1.0 / batch.batch.log_reward.len() as f64;
        let mut loss = divergence(batch, &costs) + gradient_of((log_pf * advantage).sum() * b);
        if let Some(critic) = advantages.critic_loss(batch, batch, &costs) {
            loss = loss + gradient_of(critic);
        }
        loss
    }
}

/// Derivatives without a value.
pub(super) fn gradient_of(x: Var<'_>) -> Var<'_> {
    x - x.detach()
}

/// The mean total cost, with its derivatives by log Z and P_B alone.
pub(super) fn divergence<'t>(batch: &BatchView<'_, 't>, costs: &[f64]) -> Var<'t> {
    let b = 1.0 / batch.batch.log_reward.len() as f64;
    let total = batch.constant(vec![costs.iter().sum::<f64>() * b]);
    let log_pb = gradient_of(batch.log_pb().sum() * b);
    total + gradient_of(batch.log_z()) * total - log_pb
}

impl Objective for PolicyGradient {
    fn updates(&self) -> Vec<Update> {
        let update = Update::new(OBJECTIVE, self.clone());
        vec![update.rate_of(VALUE, Rate::of(self.value_lr))]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter(Head::LOG_Z)
    }
}
