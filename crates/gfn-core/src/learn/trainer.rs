//! The trainer: it samples, makes the updates of the plan, and lets metrics watch.

use std::collections::VecDeque;

use rand::RngExt;

use super::batch::{Batch, PbOf};
use super::chains::Walk;
use super::data::Sampled;
use super::differentiated::{Differentiated, Made};
use super::engine::{Ask, Engine, Rows, Values};
use super::head::Head;
use super::plan::{Plan, Planned, pb_of};
use super::policy::EnginePolicy;
use super::replay::Buffer;
use super::reward_noise::Call;
use super::settings::TrainSettings;
use super::substructures::Memory;
use super::update::{Data, Follows, ValueCopy};
use super::view::parameter;
use crate::backward::BackwardStrategy;
use crate::local_search::Walking;
use crate::metric::{EvalContext, Metric, MetricContext, MetricError, Observed};
use crate::objective::{LogZ, Objective};
use crate::policy::log_softmax;
use crate::rng::{Purpose, Streams};
use crate::sampler::{Draw, Exploration, Rollout, Sampler};
use crate::special::log_sum_exp;
use crate::{Environment, Reward, RewardError, States, Trajectories};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A loss or its gradient is not finite. Nothing of that update has been applied.
    #[error("{what} is {value} at iteration {step}")]
    Diverged {
        /// The iteration, counted from 0.
        step: u64,
        /// What is not finite.
        what: String,
        /// Its value.
        value: f64,
    },
    /// A reward could not be computed.
    #[error(transparent)]
    Reward(#[from] RewardError),
}

/// What one iteration did. Without a loss, nothing but its number is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The iteration, counted from 0.
    pub step: u64,
    /// The objective's loss; none before it starts.
    pub loss: Option<f64>,
    /// P_B's own loss, where it has one.
    pub backward_loss: Option<f64>,
    /// Norm of the objective's gradient over all network parameters, before clipping.
    pub grad_norm: Option<f64>,
    /// Learning rate of the network.
    pub lr: Option<f64>,
    /// Learning rate of P_B, where it is learned.
    pub backward_lr: Option<f64>,
    /// Probability of a uniform action.
    pub epsilon: Option<f64>,
}

/// What has been spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Iterations finished.
    pub step: u64,
    /// Trajectories sampled for training, or objects of chains.
    pub trajectories: u64,
    /// Rewards computed for training.
    pub reward_calls: u64,
    /// Environment steps of training.
    pub env_steps: u64,
    /// Optimiser steps.
    pub grad_steps: u64,
}

/// The parts that an experiment is made of, besides its model.
pub struct Components {
    /// The objective.
    pub objective: Box<dyn Objective>,
    /// The backward strategy.
    pub backward: Box<dyn BackwardStrategy>,
    /// What both do in an iteration.
    pub plan: Plan,
    /// What is measured.
    pub metrics: Vec<Box<dyn Metric>>,
    /// The environment with its reward and, where it is small enough, its exact target.
    pub context: MetricContext,
}

impl Components {
    /// The environment.
    pub fn env(&self) -> &dyn Environment {
        &*self.context.env
    }

    /// Its reward.
    pub fn reward(&self) -> &dyn Reward {
        &*self.context.reward
    }

    /// How log P_B comes into batches.
    pub fn pb(&self) -> PbOf<'_> {
        pb_of(&*self.backward)
    }
}

/// Trains a GFlowNet: every iteration samples trajectories with P_F, computes their rewards, and
/// makes the updates of the [`Plan`]. Each touches the parameters alone that its loss reads. Where the
/// objective is a baseline of chains, an iteration advances these instead.
pub struct Trainer {
    pub(super) parts: Components,
    pub(super) settings: TrainSettings,
    pub(super) engine: Box<dyn Engine>,
    pub(super) history: VecDeque<Trajectories>,
    /// By update.
    pub(super) buffers: Vec<Option<Buffer>>,
    /// Objects that a guide of P_B remembers.
    pub(super) memory: Option<Memory>,
    /// Where chains take the place of training.
    pub(super) walk: Walk,
    pub(super) sampler: Sampler,
    pub(super) streams: Streams,
    eval_streams: Streams,
    pub(super) counters: Counters,
}

impl Trainer {
    /// A trainer of a model that has the heads of the plan.
    pub fn new(
        mut engine: Box<dyn Engine>,
        parts: Components,
        settings: TrainSettings,
        seed: u64,
        eval_seed: u64,
    ) -> Self {
        let updates = &parts.plan.updates;
        for copy in updates.iter().filter_map(|planned| planned.update.copy) {
            engine.copy(copy.name);
        }
        let buffer = |planned: &Planned| match planned.update.data {
            Data::Replay { of, capacity, priority, .. } => {
                Some(Buffer::new(of, capacity, priority))
            }
            _ => None,
        };
        let guides = updates.iter().find_map(|planned| planned.update.guide.clone());
        let width = parts.env().space().width;
        Self {
            buffers: updates.iter().map(buffer).collect(),
            memory: guides.map(|settings| Memory::new(settings, width)),
            parts,
            settings,
            engine,
            history: VecDeque::new(),
            walk: Walk::default(),
            sampler: Sampler::default(),
            streams: Streams::new(seed),
            eval_streams: Streams::new(eval_seed),
            counters: Counters::default(),
        }
    }

    /// Iterations in all.
    pub fn n_steps(&self) -> u64 {
        self.settings.n_steps()
    }

    /// What has been spent so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The parts of the experiment.
    pub fn parts(&self) -> &Components {
        &self.parts
    }

    /// The model.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The model, for whoever changes parameters.
    pub fn engine_mut(&mut self) -> &mut dyn Engine {
        &mut *self.engine
    }

    /// P_F and P_B as they are now, for sampling and evaluation: untrained where the trainer
    /// [has no policy](Self::has_policy).
    pub fn policy(&self) -> EnginePolicy<'_> {
        EnginePolicy::new(&*self.engine, &*self.parts.backward)
    }

    /// The learned log Z, where the objective has one.
    pub fn log_z(&mut self) -> Option<f64> {
        let env = &*self.parts.context.env;
        let mut start = vec![0; env.space().width];
        env.reset(&mut start);
        let mut states = States::new(start.len());
        states.push(&start);
        match self.parts.objective.log_z() {
            LogZ::None => None,
            LogZ::Parameter(head) => parameter(&*self.engine, head),
            LogZ::Initial(head) => Some(self.scalar_at(states, head)),
            LogZ::SoftValue(head, tau) => {
                let (logits, legal) = self.logits_at(&states, head);
                let legal = logits.iter().zip(&legal).filter(|(_, legal)| **legal);
                let logits: Vec<f64> = legal.map(|(&logit, _)| f64::from(logit)).collect();
                Some(tau * log_sum_exp(logits.iter().copied()))
            }
            LogZ::Stopping(head, min) => {
                let (logits, legal) = self.logits_at(&states, head);
                let mut log_probs = vec![0.0; legal.len()];
                log_softmax(&logits, &legal, &mut log_probs);
                let stop = env.space().stop()?;
                Some(self.log_reward_of_finished(&start, min)? - log_probs[stop])
            }
            LogZ::ForwardLooking(head, min) => {
                let scalar = self.scalar_at(states, head);
                Some(scalar + self.log_reward_of_finished(&start, min)?)
            }
        }
    }

    /// A scalar of one state.
    fn scalar_at(&mut self, state: States, head: Head) -> f64 {
        let env = &*self.parts.context.env;
        let (rows, values) = (Rows::new(state), Values::Current);
        let pass = self.engine.evaluate(env, &rows, &[head], values, None);
        let read = self.engine.read(pass, head, &super::engine::Readout::Scalar);
        self.engine.forget();
        read[0]
    }

    /// What a head gives the actions of one state, and which of them are legal.
    fn logits_at(&self, state: &States, head: Head) -> (Vec<f32>, Vec<bool>) {
        let env = self.parts.env();
        let mut legal = vec![false; env.space().n_actions];
        env.legal(state.row(0), &mut legal);
        let mut logits = vec![0.0; legal.len()];
        let ask = Ask { values: Values::Current, head, record: None };
        self.engine.logits(ask, env, state, &mut logits);
        (logits, legal)
    }

    /// log R of a state as if it were finished there, as losses take it, raised to `min`, if its
    /// reward is known.
    fn log_reward_of_finished(&self, state: &[i32], min: Option<f64>) -> Option<f64> {
        let env = self.parts.env();
        let mut row = state.to_vec();
        env.step(&mut row, env.space().stop()?);
        let mut finished = States::new(row.len());
        finished.push(&row);
        let mut log_reward = [0.0];
        self.parts.reward().log_reward(&finished, &mut log_reward).ok()?;
        self.for_losses(None, &finished, &mut log_reward);
        Some(log_reward[0].max(min.unwrap_or(f64::NEG_INFINITY)))
    }

    /// log R of every state along trajectories as if it were finished there, as losses take it but for
    /// noise per call.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn reward_along(&self, trajectories: &Trajectories) -> Result<Vec<f64>, RewardError> {
        let finished = trajectories.finished(self.parts.env());
        let mut along = vec![0.0; finished.len()];
        self.parts.reward().log_reward_along(&finished, &mut along)?;
        self.for_losses(None, &finished, &mut along);
        Ok(along)
    }

    /// Makes log R of objects what losses take for it: symmetries, and noise where there is some, that of
    /// calls from `call` on.
    fn for_losses(&self, call: Option<Call>, objects: &States, log_reward: &mut [f64]) {
        let env = self.parts.env();
        for (log_reward, row) in log_reward.iter_mut().zip(objects.rows()) {
            *log_reward += env.log_symmetry(row);
        }
        if let Some(noise) = &self.settings.reward_noise {
            noise.add(self.streams, call, objects, log_reward);
        }
    }

    /// The next call for rewards of training, after some more of this iteration.
    pub(super) fn next_call(&self, asked: u64) -> Call {
        let (streams, step) = (self.streams, self.counters.step);
        Call { streams, step, number: self.counters.reward_calls + asked }
    }

    /// Computes the rewards of objects, and those `along` trajectories if wanted: every
    /// state is then asked for once. Trajectories get them as losses take them; returns log R of
    /// objects itself, and how many were asked for, `first` being the first.
    pub(super) fn add_rewards(
        &self,
        trajectories: &mut Trajectories,
        along: bool,
        first: Call,
    ) -> Result<(Vec<f64>, u64), RewardError> {
        let (env, reward) = (self.parts.env(), self.parts.reward());
        let (log_reward, asked) = if along {
            let finished = trajectories.finished(env);
            let mut along = vec![0.0; finished.len()];
            reward.log_reward_along(&finished, &mut along)?;
            let at_ends = |along: &[f64]| -> Vec<f64> {
                (0..trajectories.len()).map(|i| along[trajectories.rows(i).end - 1]).collect()
            };
            let log_reward = at_ends(&along);
            self.for_losses(Some(first), &finished, &mut along);
            trajectories.log_reward = at_ends(&along);
            trajectories.log_reward_along = along;
            (log_reward, finished.len())
        } else {
            let (objects, mut log_reward) =
                (trajectories.terminals(), vec![0.0; trajectories.len()]);
            reward.log_reward(&objects, &mut log_reward)?;
            trajectories.log_reward.clone_from(&log_reward);
            self.for_losses(Some(first), &objects, &mut trajectories.log_reward);
            (log_reward, objects.len())
        };
        Ok((log_reward, asked as u64))
    }

    /// Runs one iteration.
    ///
    /// # Errors
    /// When a loss or its gradient is not finite (that update is then not applied), or a reward
    /// cannot be computed.
    pub fn step(&mut self) -> Result<Report, TrainError> {
        if let Some(settings) = self.chain_settings() {
            return self.step_chains(settings);
        }
        let step = self.counters.step;
        let (epsilon, temperature) =
            (self.settings.epsilon_schedule().at(step), self.settings.temperature);
        let (rollout, log_reward) = self.sample(step, Exploration { epsilon, temperature })?;
        self.remember(&rollout.trajectories);
        let objects = rollout.trajectories.terminals();
        let for_losses = rollout.trajectories.log_reward.clone();
        let on_current = |planned: &Planned| planned.update.data == Data::Current;
        let apart = self.parts.plan.takes_apart().then(|| rollout.trajectories.clone());
        let current = self.parts.plan.updates.iter().any(on_current).then(|| {
            match self.settings.local_search {
                None => Batch::of_rollout(self.parts.env(), &self.parts.pb(), rollout),
                // What the search has found is not among what the rollout knows.
                Some(_) => {
                    Batch::of_trajectories(self.parts.env(), &self.parts.pb(), rollout.trajectories)
                }
            }
        });

        self.begin();
        let mut done = vec![None; self.parts.plan.updates.len()];
        for (which, done) in done.iter_mut().enumerate() {
            let Planned { update, .. } = &self.parts.plan.updates[which];
            if step < update.start {
                continue;
            }
            for repeat in 0..update.repeat {
                let sampled = Sampled {
                    objects: &objects,
                    log_reward: &for_losses,
                    trajectories: apart.as_ref(),
                };
                let drawn = self.draw(which, repeat, sampled)?;
                let batch =
                    drawn.batch.as_ref().or(current.as_ref()).expect("all others are drawn");
                let Made { loss, norm, losses } = self.update(which, repeat, batch)?;
                if let Some(buffer) = &mut self.buffers[which] {
                    // Those of this iteration come first.
                    let n = drawn.places.len();
                    buffer.learned(&drawn.places, &losses[losses.len().saturating_sub(n)..]);
                }
                *done = Some((loss, norm));
            }
            self.follow(which);
        }

        let observed = Observed { terminals: &objects, log_reward: &log_reward };
        for metric in &mut self.parts.metrics {
            metric.observe(&observed);
        }
        self.counters.step += 1;
        let main = done[self.parts.plan.main];
        let updates = &self.parts.plan.updates;
        let named = |name: &str| updates.iter().position(|planned| planned.update.name == name);
        let learned = updates.iter().find(|p| p.groups.contains(&Head::BACKWARD.name));
        Ok(Report {
            step,
            loss: main.map(|(loss, _)| loss),
            backward_loss: named(crate::backward::BACKWARD)
                .and_then(|which| done[which])
                .map(|(loss, _)| loss),
            grad_norm: main.map(|(_, norm)| norm),
            lr: Some(self.rate_of(&updates[self.parts.plan.main], Head::FORWARD.name, step)),
            backward_lr: learned.map(|planned| self.rate_of(planned, Head::BACKWARD.name, step)),
            epsilon: Some(epsilon),
        })
    }

    /// Samples the trajectories of an iteration and computes their rewards, for losses in them and
    /// log R of their objects itself.
    fn sample(
        &mut self,
        step: u64,
        exploration: Exploration,
    ) -> Result<(Rollout, Vec<f64>), TrainError> {
        let draw = Draw { streams: self.streams, purpose: Purpose::Rollout, step };
        let all = self.settings.batch_at(step);
        let search = self.settings.local_search.clone();
        let n = search.as_ref().map_or(all, |search| search.sampled_of(all));
        let plan = &self.parts.plan;
        let (n_parts, recording) = self.engine.begin_rollout(n, &plan.of_first());
        let policy = EnginePolicy::new(&*self.engine, &*self.parts.backward);
        let mut policies: Vec<_> = (0..n_parts).map(|part| policy.recording(part)).collect();
        let env = &*self.parts.context.env;
        let (network_pb, along) = (plan.network_pb(), plan.along_sampled());
        let mut rollout =
            self.sampler.rollout(env, &mut policies, exploration, draw, n, network_pb);
        rollout.recording = Some(recording);
        let trajectories = &mut rollout.trajectories;
        let (mut log_reward, mut asked) =
            self.add_rewards(trajectories, along, self.next_call(0))?;
        if let Some(search) = search {
            let mut sampler = std::mem::take(&mut self.sampler);
            let rewards = |found: &mut Trajectories| {
                let (own, n) = self.add_rewards(found, along, self.next_call(asked))?;
                log_reward.extend(own);
                asked += n;
                Ok(())
            };
            let policy = EnginePolicy::new(&*self.engine, &*self.parts.backward);
            let streams = self.streams;
            let walking = Walking { env, policy: &policy, exploration, streams, step };
            search.search(&mut sampler, walking, all, trajectories, rewards)?;
            self.sampler = sampler;
        }
        self.counters.reward_calls += asked;
        self.counters.trajectories += trajectories.len() as u64;
        self.counters.env_steps += trajectories.n_transitions() as u64;
        Ok((rollout, log_reward))
    }

    /// Makes an update.
    fn update(&mut self, which: usize, repeat: usize, batch: &Batch) -> Result<Made, TrainError> {
        let step = self.counters.step;
        let dropout = self
            .engine
            .drops()
            .then(|| self.streams.get(Purpose::Dropout, self.address(which, repeat)).random());
        let left = self.settings.lr_schedule(1.0).at(step);
        let (Planned { update, groups, .. }, mut of) = self.differentiated(which);
        let made = match update.trust_region {
            Some(region) => region.shrunk(left).step(&mut of, (&*update.loss, groups), batch),
            None => of.gradients(&*update.loss, batch, groups, dropout),
        };
        let (Made { loss, norm, .. }, stepped) = (&made, update.trust_region.is_some());
        let planned = &self.parts.plan.updates[which];
        let name = planned.update.name;
        let gradient = format!("the norm of the gradient of the {name} loss");
        for (what, &value) in [(format!("the {name} loss"), loss), (gradient, norm)] {
            if !value.is_finite() {
                return Err(TrainError::Diverged { step, what, value });
            }
        }
        if !stepped {
            let groups = planned.groups.iter();
            let rates: Vec<_> =
                groups.map(|&group| (group, self.rate_of(planned, group, step))).collect();
            let scale = match self.settings.clip_norm {
                Some(limit) if *norm > limit => limit / norm,
                _ => 1.0,
            };
            self.engine.step(name, &rates, scale);
        }
        self.counters.grad_steps += 1;
        Ok(made)
    }

    /// The losses of an update, to be computed.
    pub(super) fn differentiated(&mut self, which: usize) -> (&Planned, Differentiated<'_>) {
        let planned = &self.parts.plan.updates[which];
        let env = &*self.parts.context.env;
        let (reads, pb) = (&planned.reads[..], self.parts.plan.pb);
        (planned, Differentiated { engine: &mut *self.engine, env, reads, pb })
    }

    /// The learning rate of a group of parameters in an update.
    fn rate_of(&self, planned: &Planned, group: &str, step: u64) -> f64 {
        let Planned { update, .. } = planned;
        let own = update.rates.iter().find(|(head, _)| head.name == group);
        let is_parameter =
            self.parts.plan.heads.iter().any(|head| head.name == group && head.is_parameter());
        let default = if is_parameter { self.settings.log_z_lr } else { self.settings.lr };
        let rate = match own {
            Some((_, rate)) => *rate,
            None if is_parameter => super::update::Rate::NETWORK,
            None => update.rate,
        };
        rate.at(|start| self.settings.lr_schedule(start.unwrap_or(default)), step)
    }

    /// Takes the copies of the values that trajectories have just been sampled with.
    pub(super) fn begin(&mut self) {
        for planned in &self.parts.plan.updates {
            if let Some(ValueCopy { name, follows: Follows::Iterations }) = planned.update.copy {
                self.engine.copy(name);
            }
        }
    }

    /// Lets the copy of an update follow, at the end of its turn.
    fn follow(&mut self, which: usize) {
        let Some(copy) = self.parts.plan.updates[which].update.copy else { return };
        match copy.follows {
            Follows::Slowly(tau) => self.engine.move_copy(copy.name, tau),
            Follows::Every(n) if (self.counters.step + 1).is_multiple_of(n) => {
                self.engine.copy(copy.name);
            }
            Follows::Every(_) | Follows::Iterations => {}
        }
    }

    /// The loss of the update of that name on a batch, without dropout, and the norm of its
    /// gradient, which stays with the engine.
    ///
    /// # Panics
    /// When there is no such update.
    pub fn gradients(&mut self, update: &str, batch: &Batch) -> (f64, f64) {
        let (Planned { update, groups, .. }, mut of) = self.differentiated(self.named(update));
        let Made { loss, norm, .. } = of.gradients(&*update.loss, batch, groups, None);
        (loss, norm)
    }

    /// Makes the update of that name on a batch that the current values have sampled; returns its loss.
    ///
    /// # Errors
    /// When the loss or its gradient is not finite; the update is then not applied.
    ///
    /// # Panics
    /// When there is no such update.
    pub fn update_on(&mut self, update: &str, batch: &Batch) -> Result<f64, TrainError> {
        self.begin();
        Ok(self.update(self.named(update), 0, batch)?.loss)
    }

    /// The number of the update of that name.
    fn named(&self, update: &str) -> usize {
        let named = |planned: &Planned| planned.update.name == update;
        self.parts.plan.updates.iter().position(named).expect("an update of the plan")
    }

    /// A batch of the given trajectories with their rewards, as losses see it; those of objects are
    /// taken as they are.
    ///
    /// # Panics
    /// When a loss reads rewards along trajectories, and one of them is not known.
    pub fn batch_of(&self, trajectories: &Trajectories) -> Batch {
        let mut trajectories = trajectories.clone();
        if self.parts.plan.along() && trajectories.log_reward_along.is_empty() {
            let along = self.reward_along(&trajectories);
            trajectories.log_reward_along = along.expect("every reward is known");
        }
        self.batch(trajectories, self.memory.is_some())
    }

    /// Evaluates every metric under the current policy, or on the last objects of chains; one value per
    /// declared column.
    ///
    /// # Errors
    /// When a reward cannot be computed, or the environment is not what a metric needs.
    pub fn evaluate(&mut self) -> Result<Vec<Option<f64>>, MetricError> {
        let log_z = self.log_z();
        let wanted = self.parts.metrics.iter().map(|metric| metric.gradient_batches()).max();
        let gradients = self.gradient_sample(self.eval_streams, wanted.unwrap_or(0))?;
        let mut metrics = std::mem::take(&mut self.parts.metrics);
        let policy = self.policy();
        let (context, step) = (&self.parts.context, self.counters.step);
        let streams = self.eval_streams;
        let eval = if self.has_policy() {
            EvalContext::new(context, &policy, log_z, streams, step).with_gradients(gradients)
        } else {
            let samples = self.walk.samples(context.env.space().width);
            EvalContext::without_policy(context, samples, streams, step)
        };
        let measured = metrics.iter_mut().map(|metric| eval.measure(&mut **metric));
        let values = measured.collect::<Result<Vec<_>, _>>();
        self.parts.metrics = metrics;
        Ok(values?.into_iter().flatten().collect())
    }
}
