//! The data of updates: what an iteration has sampled, what earlier ones have left, and new ways back.

use rand::RngExt;

use super::batch::Batch;
use super::plan::Planned;
use super::policy::EnginePolicy;
use super::priority::Places;
use super::replay::Drawn;
use super::trainer::{TrainError, Trainer};
use super::update::Data;
use crate::rng::{Purpose, shuffle};
use crate::sampler::Draw;
use crate::{States, Trajectories};

/// What an iteration has sampled, for updates on other data.
#[derive(Clone, Copy)]
pub(super) struct Sampled<'a> {
    pub(super) objects: &'a States,
    /// log R of these, as losses take it.
    pub(super) log_reward: &'a [f64],
    /// The trajectories, where they are taken apart or mixed with replayed ones.
    pub(super) trajectories: Option<&'a Trajectories>,
}

/// The data of an update.
#[derive(Default)]
pub(super) struct DrawnBatch {
    /// None if it is on the current trajectories.
    pub(super) batch: Option<Batch>,
    /// Where in the buffer the last of its items come from.
    pub(super) places: Vec<usize>,
}

impl Trainer {
    /// Keeps trajectories for the updates that come back to them.
    pub(super) fn remember(&mut self, trajectories: &Trajectories) {
        let batches = self.parts.plan.history();
        if batches > 0 {
            self.history.push_back(trajectories.clone());
            while self.history.len() > batches {
                self.history.pop_front();
            }
        }
        self.buffers.iter_mut().flatten().for_each(|buffer| buffer.extend(trajectories));
        if let Some(memory) = &mut self.memory {
            let objects = trajectories.terminals();
            memory.extend(&*self.parts.context.env, &objects, &trajectories.log_reward);
        }
    }

    /// The number of a draw among all draws of all iterations.
    pub(super) fn address(&self, which: usize, repeat: usize) -> u64 {
        let repeats = |updates: &[Planned]| -> usize {
            updates.iter().map(|planned| planned.update.repeat).sum()
        };
        let updates = &self.parts.plan.updates;
        self.counters.step * repeats(updates) as u64 + (repeats(&updates[..which]) + repeat) as u64
    }

    /// The data of an update.
    pub(super) fn draw(
        &mut self,
        which: usize,
        repeat: usize,
        sampled: Sampled<'_>,
    ) -> Result<DrawnBatch, TrainError> {
        let address = self.address(which, repeat);
        let (env, pb) = (&*self.parts.context.env, self.parts.pb());
        let policy = EnginePolicy::new(&*self.engine, &*self.parts.backward);
        let sampler = &mut self.sampler;
        let mut back_from = |objects: &States, log_reward: Vec<f64>| {
            let (streams, purpose) = (self.streams, Purpose::BackwardRollout);
            let draw = Draw { streams, purpose, step: address };
            let mut trajectories = sampler.backward(env, &policy, draw, objects);
            trajectories.log_reward = log_reward;
            trajectories
        };
        let mut drawn = Places::default();
        let mut trajectories = match self.parts.plan.updates[which].update.data {
            Data::Current => return Ok(DrawnBatch::default()),
            Data::Minibatches { n } => {
                let all = sampled.trajectories.expect("kept where they are taken apart");
                let part = repeat % n;
                let mut rng = self.streams.get(Purpose::Minibatch, address - part as u64);
                let mut order: Vec<usize> = (0..all.len()).collect();
                shuffle(&mut order, &mut rng);
                let mut own = Trajectories::new(env.space().width);
                let ends = [part, part + 1].map(|part| part * all.len() / n);
                order[ends[0]..ends[1]].iter().for_each(|&i| own.push_of(all, i));
                own
            }
            Data::Past { batches } => {
                let mut rng = self.streams.get(Purpose::History, address);
                let last = self.history.len().min(batches);
                let drawn = rng.random_range(0..last as u32) as usize;
                self.history[self.history.len() - last + drawn].clone()
            }
            Data::Backward => back_from(sampled.objects, sampled.log_reward.to_vec()),
            Data::Replay { batch, with_current, .. } => {
                let mut rng = self.streams.get(Purpose::Replay, address);
                let buffer = self.buffers[which].as_ref().expect("made with the plan");
                drawn = buffer.draw(batch, self.counters.step, &mut rng);
                let replayed = match buffer.at(env.space().width, &drawn.of) {
                    Drawn::Transitions(transitions) => {
                        let mut batch = Batch::of_transitions(env, &pb, &transitions);
                        batch.weights = drawn.weights;
                        return Ok(DrawnBatch { batch: Some(batch), places: drawn.of });
                    }
                    Drawn::Trajectories(trajectories) => trajectories,
                    Drawn::Objects(objects, log_reward) => back_from(&objects, log_reward),
                };
                match sampled.trajectories.filter(|_| with_current) {
                    Some(current) => {
                        let mut all = current.clone();
                        (0..replayed.len()).for_each(|i| all.push_of(&replayed, i));
                        if let Some(weights) = &mut drawn.weights {
                            weights.splice(0..0, std::iter::repeat_n(1.0, current.len()));
                        }
                        all
                    }
                    None => replayed,
                }
            }
        };
        drop(pb);
        if self.parts.plan.updates[which].along
            && trajectories.log_reward_along.len() != trajectories.states.len()
        {
            let kept = trajectories.log_reward.clone();
            self.counters.reward_calls +=
                self.add_rewards(&mut trajectories, true, self.next_call(0))?.1;
            if self.settings.reward_noise.is_some() {
                // Objects keep the noise that they came with.
                for (i, &log_reward) in kept.iter().enumerate() {
                    let end = trajectories.rows(i).end - 1;
                    trajectories.log_reward_along[end] = log_reward;
                }
                trajectories.log_reward = kept;
            }
        }
        let guided = self.parts.plan.updates[which].update.guide.is_some();
        let mut batch = self.batch(trajectories, guided);
        batch.weights = drawn.weights;
        Ok(DrawnBatch { batch: Some(batch), places: drawn.of })
    }

    /// Trajectories as losses see them.
    pub(super) fn batch(&self, trajectories: Trajectories, guided: bool) -> Batch {
        let env = self.parts.env();
        let memory = self.memory.as_ref().filter(|_| guided);
        let log_guide = memory.map(|memory| memory.log_probs(env, &trajectories));
        let mut batch = Batch::of_trajectories(env, &self.parts.pb(), trajectories);
        batch.log_guide = log_guide.unwrap_or_default();
        batch
    }
}
