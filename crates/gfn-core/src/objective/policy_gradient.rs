//! Policy gradients of the divergence between trajectories (Niu et al. 2024, arXiv:2408.05885).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyGradient {
    /// λ of the advantages in [0, 1].
    pub lambda: f64,
    /// Learning rate of the critic; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_lr: Option<f64>,
    /// Whether the mean over all steps of the batch is subtracted from advantages.
    pub centred: bool,
}

impl Default for PolicyGradient {
    fn default() -> Self {
        Self { lambda: 0.99, value_lr: None, centred: true }
    }
}

impl Kind<ObjectiveAxis> for PolicyGradient {
    const NAME: &'static str = "pg";
    const ALIASES: &'static [&'static str] = &["policy_gradient", "reinforce"];
    const SUMMARY: &'static str = "policy gradient of the trajectory divergence, with a critic";
    const PAPER: Option<&'static str> = Some("arXiv:2408.05885");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if !(0.0..=1.0).contains(&self.lambda) {
            let message = format!("must lie in [0, 1], not {}", self.lambda);
            return Err(KeyError::new("lambda", message).help("the paper uses 0.99"));
        }
        if self.value_lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
            return Err(KeyError::new("value_lr", "a learning rate must be above 0")
                .help("leave the key out to use train.lr"));
        }
        Ok(Box::new(self.clone()))
    }
}

/// V(s): the expected cost from s on.
const VALUE: Head = Head::scalar("value");

impl Loss for PolicyGradient {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let (log_pf, log_pb, log_z) = (batch.log_pf(), batch.log_pb(), batch.log_z());
        let value = batch.from(VALUE);
        let zeros = || batch.constant(vec![0.0; batch.batch.len()]);
        let at_end = log_z.detach() - batch.log_reward_at_ends(None);
        let at_end = batch.unless_at_end(zeros(), at_end);
        let cost = (log_pf - log_pb).detach() + at_end;

        let error = (cost + batch.unless_at_end(batch.to(VALUE), zeros()) - value).detach();
        let mut advantage = traces(&error.value(), &batch.batch.terminal, self.lambda);
        if self.centred {
            let mean = advantage.iter().sum::<f64>() / advantage.len() as f64;
            advantage.iter_mut().for_each(|advantage| *advantage -= mean);
        }
        let to_come = batch.constant(traces(&cost.value(), &batch.batch.terminal, 1.0));
        let b = 1.0 / batch.batch.log_reward.len() as f64;
        let total = cost.sum() * b;
        // What follows adds derivatives, and nothing to the value.
        let gradient_of = |x: Var<'t>| x - x.detach();
        let critic = (to_come - value) * (to_come - value);
        total
            + (gradient_of(log_pf) * batch.constant(advantage)).sum() * b
            + gradient_of(log_z) * total
            + gradient_of(critic.sum() * b)
            - gradient_of(log_pb.sum() * b)
    }
}

/// x_t + λ x_{t+1} + λ² x_{t+2} + …, up to the end of each trajectory.
fn traces(xs: &[f64], ends: &[bool], lambda: f64) -> Vec<f64> {
    let mut traces = vec![0.0; xs.len()];
    let mut after = 0.0;
    for t in (0..xs.len()).rev() {
        after = xs[t] + if ends[t] { 0.0 } else { lambda * after };
        traces[t] = after;
    }
    traces
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_stop_at_ends() {
        let ends = [false, false, true, true, false, true];
        let xs = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        assert_eq!(traces(&xs, &ends, 0.5), [3.0, 4.0, 4.0, 8.0, 32.0, 32.0]);
        assert_eq!(traces(&xs, &ends, 1.0), [7.0, 6.0, 4.0, 8.0, 48.0, 32.0]);
        assert_eq!(traces(&xs, &ends, 0.0), xs);
    }
}
