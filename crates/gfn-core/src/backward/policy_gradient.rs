//! P_B by policy gradients on backward trajectories, coupled with P_F or with a guide: RL-B and RL-G (Niu et al.
//! 2024, arXiv:2408.05885).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::guide::Guide;
use super::{
    BACKWARD, BackwardAxis, BackwardContext, BackwardStrategy, Order, PbSource, Rate, Update,
    check_rates, check_target_tau, frozen, target_copy,
};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Data;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

/// What P_B descends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The policy gradient of KL(P_B(τ|x) ‖ P_F(τ)), with a critic.
    #[default]
    PolicyGradient,
    /// The mean square of Σ log P_F − Σ log P_B − log R about its mean, with P_F fixed.
    Squared,
}

/// From the objects of an iteration, trajectories are drawn back by P_B. A step back costs log P_B − log P_F,
/// or log P_B − log P_G with a guide, and P_B follows Σ A ∇log P_B with advantages as those of P_F
/// (`objective.kind = "pg"`), but towards s0, and a critic of its own. P_F is fixed in that, and P_B in the
/// objective: no strategy changes what the objective samples at its optimum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyGradient {
    /// Learning rate of P_B's optimiser; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
    /// What P_B descends.
    pub form: Form,
    /// λ of the advantages in [0, 1].
    pub lambda: f64,
    /// Learning rate of the critic; default: that of P_B.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Whether the mean over all steps of the batch is subtracted from advantages.
    pub centred: bool,
    /// A policy that P_B comes close to instead of P_F.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guide: Option<Guide>,
    /// Step κ of the target copy that the objective reads; 1 means no target copy.
    pub target_tau: f64,
    /// Which of the two updates comes first.
    pub order: Order,
}

impl Default for PolicyGradient {
    fn default() -> Self {
        Self {
            lr: None,
            lr_decay: 1.0,
            form: Form::PolicyGradient,
            lambda: 1.0,
            value_lr: None,
            centred: true,
            guide: None,
            target_tau: 1.0,
            order: Order::ForwardFirst,
        }
    }
}

impl Kind<BackwardAxis> for PolicyGradient {
    const NAME: &'static str = "pg";
    const ALIASES: &'static [&'static str] = &["policy_gradient"];
    const SUMMARY: &'static str = "learned, by policy gradients on backward trajectories";
    const PAPER: Option<&'static str> = Some("arXiv:2408.05885");

    fn build(&self, context: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        check_target_tau(self.target_tau)?;
        if !(0.0..=1.0).contains(&self.lambda) {
            let message = format!("must lie in [0, 1], not {}", self.lambda);
            return Err(KeyError::new("lambda", message).help("the paper's code uses 1"));
        }
        if self.value_lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
            return Err(KeyError::new("value_lr", "a learning rate must be above 0")
                .help("leave the key out for the rate of P_B"));
        }
        self.guide.as_ref().map_or(Ok(()), |guide| guide.check(&*context.env))?;
        Ok(Box::new(self.clone()))
    }
}

/// The expected cost of the way back to s0.
const VALUE: Head = Head::scalar("backward_value");

impl PolicyGradient {
    /// log P_F, or log P_G, of every transition.
    fn towards(&self, batch: &BatchView<'_, '_>) -> Vec<f64> {
        let fixed = batch.fixed();
        match &self.guide {
            Some(guide) => guide.log_probs(&fixed),
            None => fixed.log_pf().value().to_vec(),
        }
    }

    fn squared<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let ratio = batch.constant(self.towards(batch)) - batch.trained_log_pb();
        let residual = batch.sum_by_trajectory(ratio) - batch.log_reward_of_trajectories(None);
        let centred = residual - residual.mean().detach();
        (centred * centred).mean()
    }

    /// The mean cost of ways back; derivatives are those of the policy gradient, and of the critic's loss.
    fn gradient<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let (log_pb, value) = (batch.trained_log_pb(), batch.to(VALUE));
        let terminal = batch.batch.terminal.iter();
        // From an object that an action of its own has finished there is one way back; what that costs
        // is the object's.
        let cost = |((towards, log_pb), &end): ((f64, &f64), &bool)| {
            if end && *log_pb == 0.0 { 0.0 } else { log_pb - towards }
        };
        let costs: Vec<f64> =
            self.towards(batch).into_iter().zip(&*log_pb.value()).zip(terminal).map(cost).collect();
        let choice: Vec<bool> = batch.batch.backward_of.iter().map(Option::is_some).collect();
        let Returns { mut advantages, to_go } =
            returns(&costs, &value.value(), &choice, batch.offsets(), self.lambda);
        let n = choice.iter().filter(|&&choice| choice).count().max(1) as f64;
        if self.centred {
            let mean = advantages.iter().sum::<f64>() / n;
            let of_choices = advantages.iter_mut().zip(&choice).filter(|(_, choice)| **choice);
            of_choices.for_each(|(advantage, _)| *advantage -= mean);
        }
        let b = 1.0 / batch.batch.log_reward.len() as f64;
        let total = batch.constant(vec![costs.iter().sum::<f64>() * b]);
        let policy = (log_pb * batch.constant(advantages)).sum() * b;
        let error = batch.constant(to_go) - value;
        let known = choice.iter().map(|&choice| f64::from(u8::from(choice))).collect();
        let critic = (error * error * batch.constant(known)).sum() * b;
        let loss = policy + critic;
        total + loss - loss.detach()
    }
}

/// What the choices on ways back have led to. Entries without a choice are 0.
struct Returns {
    advantages: Vec<f64>,
    /// The cost of the rest of the way.
    to_go: Vec<f64>,
}

/// A_t = δ_t + λ A_{t−1} of δ_t = c_t + V(s_t) − V(s_{t+1}), for the choice of s_t at s_{t+1}; V(s0) = 0. Where
/// there is no choice, V is the cost of the step and V before it.
fn returns(
    costs: &[f64],
    values: &[f64],
    choice: &[bool],
    offsets: &[u32],
    lambda: f64,
) -> Returns {
    let (mut advantages, mut to_go) = (vec![0.0; costs.len()], vec![0.0; costs.len()]);
    for ends in offsets.windows(2) {
        let (mut before, mut trace, mut total) = (0.0, 0.0, 0.0);
        for t in ends[0] as usize..ends[1] as usize {
            total += costs[t];
            let here = if choice[t] { values[t] } else { costs[t] + before };
            trace = costs[t] + before - here + lambda * trace;
            if choice[t] {
                (advantages[t], to_go[t]) = (trace, total);
            }
            before = here;
        }
    }
    Returns { advantages, to_go }
}

impl Loss for PolicyGradient {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        match self.form {
            Form::PolicyGradient => self.gradient(batch),
            Form::Squared => self.squared(batch),
        }
    }
}

impl BackwardStrategy for PolicyGradient {
    fn source(&self) -> PbSource {
        frozen(self.target_tau)
    }

    fn updates(&self) -> Vec<Update> {
        let update = Update::new(BACKWARD, self.clone()).on(Data::Backward).rate(self.rate());
        let value_rate = Rate { start: self.value_lr.or(self.lr), decay: self.lr_decay };
        let mut update = update.rate_of(VALUE, value_rate);
        update.guide = self.guide.as_ref().and_then(Guide::remembers);
        vec![update.keeping(target_copy(self.target_tau))]
    }

    fn order(&self) -> Order {
        self.order
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }

    fn stops_anywhere(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::stops_anywhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_lead_towards_the_start() {
        // Two ways: three steps with choices at the last two, and one step without.
        let (costs, values) = ([1.0, 2.0, 4.0, 9.0], [7.0, 0.5, 0.25, 7.0]);
        let choice = [false, true, true, false];
        let Returns { advantages, to_go } = returns(&costs, &values, &choice, &[0, 3, 4], 1.0);
        assert_eq!(to_go, [0.0, 3.0, 7.0, 0.0]);
        // At λ = 1: the cost to go less V.
        assert_eq!(advantages, [0.0, 2.5, 6.75, 0.0]);
        let Returns { advantages, .. } = returns(&costs, &values, &choice, &[0, 3, 4], 0.5);
        // δ = 2 + 1 − 0.5, then 4 + 0.5 − 0.25.
        assert_eq!(advantages, [0.0, 2.5, 4.25 + 0.5 * 2.5, 0.0]);
    }
}
