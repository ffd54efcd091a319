//! Gradients of the objective on fresh batches, for metrics.

use super::batch::Batch;
use super::head::{Head, TRUNK};
use super::plan::Planned;
use super::reward_noise::Call;
use super::trainer::Trainer;
use super::update::{Data, Follows};
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
        let updates = &self.parts.plan.updates;
        let main = updates.get(self.parts.plan.main).map(|planned| &planned.update);
        let fresh = |data: &Data| matches!(data, Data::Current | Data::Minibatches { .. });
        if n == 0 || !main.is_some_and(|update| fresh(&update.data)) {
            return Ok(None);
        }
        // These batches begin an iteration of their own.
        let copies = updates.iter().filter_map(|planned| planned.update.copy);
        let at_start = copies.filter(|copy| copy.follows == Follows::Iterations);
        let kept: Vec<_> =
            at_start.map(|copy| (copy.name, self.engine.copied(copy.name))).collect();
        self.begin();
        let sample = self.gradients_of_batches(streams, n);
        kept.into_iter().for_each(|(name, values)| self.engine.set_copy(name, values));
        sample.map(Some)
    }

    fn gradients_of_batches(
        &mut self,
        streams: Streams,
        n: usize,
    ) -> Result<GradientSample, RewardError> {
        let of_policy = [TRUNK, Head::FORWARD.name];
        let params = self.engine.params().iter().enumerate();
        let params: Vec<usize> = params
            .filter_map(|(i, info)| of_policy.contains(&info.group.as_str()).then_some(i))
            .collect();
        let (batch, step) = (self.settings.batch, self.counters.step);
        let along = self.parts.plan.updates[self.parts.plan.main].along;
        let mut sampler = Sampler::default();
        let (mut gradients, mut n_transitions) = (Vec::with_capacity(n), 0);
        let mut call = Call { streams, step, number: 0 };
        for k in 0..n as u64 {
            let draw =
                Draw { streams, purpose: Purpose::GradientEvaluation, step: step * n as u64 + k };
            let (env, policy) = (self.parts.env(), self.policy());
            let mut drawn = sampler.forward(env, &policy, Exploration::NONE, draw, batch);
            call.number += self.add_rewards(&mut drawn, along, call)?.1;
            n_transitions += drawn.n_transitions();
            let drawn = Batch::of_trajectories(env, &self.parts.pb(), drawn);
            let (Planned { update, groups, .. }, mut of) =
                self.differentiated(self.parts.plan.main);
            of.gradients(&*update.loss, &drawn, groups, None);
            let of_param = |&i: &usize| self.engine.gradient(i).unwrap_or_default();
            gradients.push(params.iter().flat_map(of_param).collect());
        }
        let n_transitions = n_transitions as f64 / (n * batch) as f64;
        Ok(GradientSample { gradients, batch, n_transitions })
    }
}
