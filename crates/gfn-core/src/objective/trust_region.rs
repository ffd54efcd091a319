//! Trust-region policy optimisation for GFlowNets, RL-T (Niu et al. 2024, arXiv:2408.05885; Schulman et al. 2015,
//! arXiv:1502.05477).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{Advantages, Critic, VALUE, costs};
use super::policy_gradient::{divergence, gradient_of};
use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::trust_region::TrustRegion;
use crate::learn::update::{OLD, Rate, Update};
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// P_F takes natural gradient steps: along x with (H + damping) x = g, as far as the mean divergence
/// KL(P_old(·|s) ‖ P_F(·|s)) over states allows, g being the policy gradient (`objective.kind = "pg"`) and H the
/// second derivatives of that divergence. A step is halved until the divergence does not exceed `delta` and
/// the surrogate Σ (P_F / P_old) A has fallen, or not made at all.
///
/// Steps are of one length to the end, so that the policy stays about sqrt(delta/2) from the target: they
/// shrink as `train.lr_schedule` lets learning rates do.
///
/// Critic, log Z and P_B are stepped before by the optimiser, and leave parameters that P_F shares with them
/// alone: a critic that can only read off what P_F looks at follows badly, so give the model `shared = false`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrustRegionPolicy {
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
    /// Bound on the mean divergence of a step, in nats; multiplied by the square of the part of `train.lr` that its
    /// schedule has left.
    pub delta: f64,
    /// Multiple of the identity that is added to H.
    pub damping: f64,
    /// Steps of the conjugate gradient method.
    pub iterations: usize,
    /// How often a step may be halved.
    pub backtracks: usize,
}

impl Default for TrustRegionPolicy {
    fn default() -> Self {
        Self {
            lambda: 0.99,
            critic: Critic::MonteCarlo,
            value_lr: None,
            centred: true,
            leave_one_out: false,
            delta: 0.01,
            damping: 1e-3,
            iterations: 10,
            backtracks: 20,
        }
    }
}

impl Kind<ObjectiveAxis> for TrustRegionPolicy {
    const NAME: &'static str = "trpo";
    const ALIASES: &'static [&'static str] = &["trust_region"];
    const SUMMARY: &'static str = "policy gradient with natural steps in a trust region";
    const PAPER: Option<&'static str> = Some("arXiv:2408.05885");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        self.advantages().check(self.value_lr)?;
        if !(self.delta > 0.0 && self.delta.is_finite()) {
            return Err(KeyError::new("delta", format!("must be above 0, not {}", self.delta))
                .help("the paper uses 0.01"));
        }
        if !(self.damping >= 0.0 && self.damping.is_finite()) {
            return Err(KeyError::new("damping", "must be finite and not below 0"));
        }
        for (key, value) in [("iterations", self.iterations), ("backtracks", self.backtracks)] {
            if !(1..=100).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in 1 to 100, not {value}"))
                    .help("the paper's code uses 10 and 20"));
            }
        }
        Ok(Box::new(self.clone()))
    }
}

impl TrustRegionPolicy {
    fn advantages(&self) -> Advantages {
        let Self { lambda, critic, centred, leave_one_out, .. } = *self;
        Advantages { lambda, critic, centred, leave_one_out }
    }
}

/// What is stepped by the optimiser: critic, log Z, P_B.
struct Others(Advantages);

impl Loss for Others {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let costs = costs(batch, batch.fixed().log_pf());
        let loss = divergence(batch, &costs);
        match self.0.critic_loss(batch, batch, &costs) {
            Some(critic) => loss + gradient_of(critic),
            None => loss,
        }
    }
}

impl Loss for TrustRegionPolicy {
    /// The mean total cost, and how the surrogate differs from that of the old policy.
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let old = batch.copy(OLD.name);
        let (log_pf, log_old) = (batch.log_pf(), old.log_pf());
        let costs = costs(batch, log_old);
        let advantage = batch.constant(self.advantages().of(&old, &costs));
        let b = 1.0 / batch.batch.log_reward.len() as f64;
        let surrogate = (((log_pf - log_old).exp() - 1.0) * advantage).sum() * b;
        surrogate + costs.iter().sum::<f64>() * b
    }
}

impl Objective for TrustRegionPolicy {
    fn updates(&self) -> Vec<Update> {
        let others = Update::new("value", Others(self.advantages()));
        let others = Update { heads_only: true, ..others };
        let Self { delta, damping, iterations, backtracks, .. } = *self;
        let region = TrustRegion { delta, damping, iterations, backtracks };
        let policy = Update::new(OBJECTIVE, self.clone()).keeping(Some(OLD));
        let policy = Update { trust_region: Some(region), ..policy };
        vec![others.rate_of(VALUE, Rate::of(self.value_lr)), policy]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter(Head::LOG_Z)
    }
}
