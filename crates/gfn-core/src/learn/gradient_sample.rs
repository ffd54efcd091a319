//! Gradients of the objective on fresh batches, for metrics.

use super::batch::Batch;
use super::head::{Head, TRUNK};
use super::reward_noise::Call;
use super::trainer::Trainer;
use super::update::Data;
use crate::RewardError;
use crate::metric::GradientSample;
use crate::rng::{Purpose, Streams};
use crate::sampler::{Draw, Exploration, Sampler};

impl Trainer {
    /// Gradients of the main update on `n` batches of `train.batch` trajectories of the policy as it is,
    /// drawn from `streams` without exploration; none where that update is not on current trajectories
    /// alone. What is counted and what training goes on from stay as they are.
    ///
    /// # Errors
    /// When a reward cannot be computed.
    pub(super) fn gradient_sample(
        &mut self,
        streams: Streams,
        n: usize,
    ) -> Result<Option<GradientSample>, RewardError> {
        let main = self.parts.plan.main;
        let update = self.parts.plan.updates.get(main).map(|planned| &planned.update);
        if n == 0 || update.is_none_or(|update| update.data != Data::Current) {
            return Ok(None);
        }
        let of_policy = [TRUNK, Head::FORWARD.name];
        let params = self.engine.params().iter().enumerate();
        let params: Vec<usize> = params
            .filter_map(|(i, info)| of_policy.contains(&info.group.as_str()).then_some(i))
            .collect();
        let (batch, step) = (self.settings.batch, self.counters.step);
        let mut sampler = Sampler::default();
        let (mut gradients, mut n_transitions) = (Vec::with_capacity(n), 0);
        let mut call = Call { streams, step, number: 0 };
        for k in 0..n as u64 {
            let draw =
                Draw { streams, purpose: Purpose::GradientEvaluation, step: step * n as u64 + k };
            let (env, policy) = (self.parts.env(), self.policy());
            let mut drawn = sampler.forward(env, &policy, Exploration::NONE, draw, batch);
            call.number += self.add_rewards(&mut drawn, call)?.1;
            n_transitions += drawn.n_transitions();
            let drawn = Batch::of_trajectories(env, &self.parts.pb(), drawn);
            self.differentiate(main, &drawn, None);
            let of_param = |&i: &usize| self.engine.gradient(i).unwrap_or_default();
            gradients.push(params.iter().flat_map(of_param).collect());
        }
        let n_transitions = n_transitions as f64 / (n * batch) as f64;
        Ok(Some(GradientSample { gradients, batch, n_transitions }))
    }
}
