//! P_B by sub-trajectory evaluation balance (Niu et al. 2026, arXiv:2603.01047).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BACKWARD, BackwardAxis, BackwardContext, BackwardStrategy, Order, PbSource, Rate, Update,
    check_rates, check_target_tau, frozen, target_copy,
};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::view::{BatchView, Loss};
use crate::objective::Penalty;
use crate::objective::sub_trajectories::{SubTrajectories, Weighting};
use crate::registry::Kind;

/// P_B and an evaluation function V minimise the squares of V(s_i) + Σ log P_F − V(s_j) − Σ log P_B over all
/// sub-trajectories of those just sampled, with V(x) = log R(x) and P_F fixed: P_B comes close to what P_F and R
/// leave it, without trajectories of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubEb {
    /// Learning rate of P_B's optimiser; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
    /// λ in [0, 2]: sub-trajectories of l transitions have weight λ^(l−1).
    pub lambda: f64,
    /// Learning rate of V; default: that of P_B.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Step κ of the target copy that the objective reads; 1 means no target copy.
    pub target_tau: f64,
    /// Which of the two updates comes first.
    pub order: Order,
}

impl Default for SubEb {
    fn default() -> Self {
        Self {
            lr: None,
            lr_decay: 1.0,
            lambda: 0.9,
            value_lr: None,
            target_tau: 1.0,
            order: Order::BackwardFirst,
        }
    }
}

impl Kind<BackwardAxis> for SubEb {
    const NAME: &'static str = "sub_eb";
    const SUMMARY: &'static str = "learned, by sub-trajectory evaluation balance";
    const PAPER: Option<&'static str> = Some("arXiv:2603.01047");

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        check_target_tau(self.target_tau)?;
        if !(0.0..=2.0).contains(&self.lambda) {
            let message = format!("must lie in [0, 2], not {}", self.lambda);
            return Err(KeyError::new("lambda", message).help("the paper uses 0.9"));
        }
        if self.value_lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
            return Err(KeyError::new("value_lr", "a learning rate must be above 0")
                .help("leave the key out for the rate of P_B"));
        }
        Ok(Box::new(self.clone()))
    }
}

/// V(s), which is log F(s) where P_F and P_B balance.
const VALUE: Head = Head::scalar("evaluation");

impl Loss for SubEb {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let ratio = batch.fixed().log_pf() - batch.trained_log_pb();
        let ends = batch.unless_at_end(batch.to(VALUE), batch.log_reward_at_ends(None));
        let initial = batch.first_of_trajectories(batch.from(VALUE));
        let (weighting, penalty) = (Weighting::GeometricWithin, Penalty::Squared);
        let loss = SubTrajectories { lambda: self.lambda, weighting, penalty };
        loss.loss(batch, ratio, ends, initial)
    }
}

impl BackwardStrategy for SubEb {
    fn source(&self) -> PbSource {
        frozen(self.target_tau)
    }

    fn updates(&self) -> Vec<Update> {
        let update = Update::new(BACKWARD, self.clone()).rate(self.rate());
        let value_rate = Rate { start: self.value_lr.or(self.lr), decay: self.lr_decay };
        let update = update.rate_of(VALUE, value_rate);
        vec![update.keeping(target_copy(self.target_tau))]
    }

    fn order(&self) -> Order {
        self.order
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }
}
