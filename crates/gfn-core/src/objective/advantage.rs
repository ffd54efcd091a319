//! Advantages of policy gradients, and the critics that they are measured against (Niu et al. 2024,
//! arXiv:2408.05885; Niu et al. 2026, arXiv:2603.01047).

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Penalty;
use super::sub_trajectories::{SubTrajectories, Weighting};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::view::BatchView;

/// How the critic V(s), the expected cost from s on, is learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Critic {
    /// From the costs that were still to come.
    #[default]
    MonteCarlo,
    /// From V plus advantages with traces of this λ: 1 is `monte_carlo`, 0 looks one step ahead.
    Lambda(f64),
    /// By sub-trajectory evaluation balance with this λ: the squares of V(s_i) − Σ costs − V(s_j) over all
    /// sub-trajectories.
    SubEb(f64),
    /// None: V is 0. Only with λ = 1 and without exploration is the gradient right then, and it is noisy.
    None,
}

/// V(s).
pub(super) const VALUE: Head = Head::scalar("value");

/// What advantages are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advantages {
    /// λ of their traces.
    pub(super) lambda: f64,
    /// What they are measured against.
    pub(super) critic: Critic,
    /// Whether the mean over all steps is subtracted.
    pub(super) centred: bool,
    /// Whether that mean leaves out the trajectory itself.
    pub(super) leave_one_out: bool,
}

impl Advantages {
    /// Checks the settings that they come from, and the critic's learning rate.
    pub(super) fn check(&self, value_lr: Option<f64>) -> Result<(), KeyError> {
        let within = |key: &str, lambda: f64, most: f64, help: &str| {
            if (0.0..=most).contains(&lambda) {
                return Ok(());
            }
            Err(KeyError::new(key, format!("must lie in [0, {most}], not {lambda}")).help(help))
        };
        within("lambda", self.lambda, 1.0, "the papers use 0.99 or 0.7")?;
        match self.critic {
            Critic::Lambda(lambda) => within("critic", lambda, 1.0, "as in { lambda = 0.9 }")?,
            Critic::SubEb(lambda) => within("critic", lambda, 2.0, "as in { sub_eb = 0.9 }")?,
            Critic::MonteCarlo | Critic::None => {}
        }
        if value_lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
            return Err(KeyError::new("value_lr", "a learning rate must be above 0")
                .help("leave the key out to use train.lr"));
        }
        if value_lr.is_some() && self.critic == Critic::None {
            let message = "has no effect where there is no critic";
            return Err(KeyError::new("value_lr", message).help("leave value_lr out"));
        }
        if self.leave_one_out && !self.centred {
            let message = "has no effect where advantages are not centred";
            return Err(KeyError::new("leave_one_out", message).help("set centred = true"));
        }
        Ok(())
    }

    /// V at both ends of every transition, 0 where s' is terminal. `[m]` each.
    fn values<'t>(&self, batch: &BatchView<'_, 't>) -> [Var<'t>; 2] {
        let zeros = batch.constant(vec![0.0; batch.batch.len()]);
        match self.critic {
            Critic::None => [zeros; 2],
            _ => [batch.from(VALUE), batch.unless_at_end(batch.to(VALUE), zeros)],
        }
    }

    /// A_t = δ_t + λ A_{t+1} of δ_t = c_t + V(s_{t+1}) − V(s_t), centred, with V as this view has it.
    pub(super) fn of(&self, batch: &BatchView<'_, '_>, costs: &[f64]) -> Vec<f64> {
        let mut advantages = traces(&self.errors(batch, costs), &batch.batch.terminal, self.lambda);
        if self.centred {
            centre(&mut advantages, batch.offsets(), self.leave_one_out);
        }
        advantages
    }

    /// δ_t of every transition.
    fn errors(&self, batch: &BatchView<'_, '_>, costs: &[f64]) -> Vec<f64> {
        let [value, next] = self.values(batch).map(Var::value);
        costs
            .iter()
            .zip(&*next)
            .zip(&*value)
            .map(|((cost, next), value)| cost + next - value)
            .collect()
    }

    /// The critic's loss: the mean over trajectories of the sum of squares. What it aims at comes from
    /// `before`, the values that advantages are computed with.
    pub(super) fn critic_loss<'t>(
        &self,
        batch: &BatchView<'_, 't>,
        before: &BatchView<'_, 't>,
        costs: &[f64],
    ) -> Option<Var<'t>> {
        let ends = &batch.batch.terminal[..];
        let goal = match self.critic {
            Critic::None => return None,
            Critic::SubEb(lambda) => {
                let [value, next] = self.values(batch);
                let (weighting, penalty) = (Weighting::GeometricWithin, Penalty::Squared);
                let ratio = batch.constant(costs.iter().map(|cost| -cost).collect());
                let initial = batch.first_of_trajectories(value);
                let loss = SubTrajectories { lambda, weighting, penalty };
                return Some(loss.loss(batch, ratio, next, initial));
            }
            Critic::MonteCarlo => traces(costs, ends, 1.0),
            Critic::Lambda(lambda) => {
                let [value, _] = self.values(before).map(Var::value);
                let traces = traces(&self.errors(before, costs), ends, lambda);
                traces.iter().zip(&*value).map(|(trace, value)| trace + value).collect()
            }
        };
        let error = batch.constant(goal) - batch.from(VALUE);
        Some((error * error).sum() * (1.0 / (batch.offsets().len() - 1) as f64))
    }
}

/// c_t of every transition: log P_F − log P_B, and at the end log Z − log R besides; without derivatives.
pub(super) fn costs(batch: &BatchView<'_, '_>, log_pf: Var<'_>) -> Vec<f64> {
    let fixed = batch.fixed();
    let (log_z, log_pb) = (fixed.log_z().number(), fixed.log_pb().value());
    let log_reward = fixed.log_reward_at_ends(None).value();
    let terminal = batch.batch.terminal.iter();
    let at_end = terminal.zip(&*log_reward).map(|(&end, r)| if end { log_z - r } else { 0.0 });
    let steps = log_pf.value();
    steps.iter().zip(&*log_pb).zip(at_end).map(|((pf, pb), end)| pf - pb + end).collect()
}

/// x_t + λ x_{t+1} + λ² x_{t+2} + …, up to the end of each trajectory.
pub(crate) fn traces(xs: &[f64], ends: &[bool], lambda: f64) -> Vec<f64> {
    let mut traces = vec![0.0; xs.len()];
    let mut after = 0.0;
    for t in (0..xs.len()).rev() {
        after = xs[t] + if ends[t] { 0.0 } else { lambda * after };
        traces[t] = after;
    }
    traces
}

/// Subtracts the mean over all steps, or over those of all other trajectories.
fn centre(advantages: &mut [f64], offsets: &[u32], leave_one_out: bool) {
    let (sum, n) = (advantages.iter().sum::<f64>(), advantages.len() as f64);
    for ends in offsets.windows(2) {
        let own: Range<usize> = ends[0] as usize..ends[1] as usize;
        let (mut sum, mut n) = (sum, n);
        if leave_one_out {
            sum -= advantages[own.clone()].iter().sum::<f64>();
            n -= own.len() as f64;
        }
        if n > 0.0 {
            advantages[own].iter_mut().for_each(|advantage| *advantage -= sum / n);
        }
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

    #[test]
    fn centres_are_means_over_all_steps_or_those_of_others() {
        let (xs, offsets) = ([1.0, 2.0, 6.0, 3.0], [0, 2, 3, 4]);
        let mut all = xs;
        centre(&mut all, &offsets, false);
        assert_eq!(all, [-2.0, -1.0, 3.0, 0.0]);
        let mut others = xs;
        centre(&mut others, &offsets, true);
        assert_eq!(others, [1.0 - 4.5, 2.0 - 4.5, 6.0 - 2.0, 0.0]);
        let mut alone = [5.0];
        centre(&mut alone, &[0, 1], true);
        assert_eq!(alone, [5.0]);
    }
}
