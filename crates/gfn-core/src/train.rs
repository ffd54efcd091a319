//! The trainer: one iteration after the other, and everything that a checkpoint must hold.

mod policy;
mod settings;
mod snapshot;

use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use rand::RngExt;

use crate::awake::Awake;
use crate::backward::{BackwardStrategy, Order, OwnUpdate, Source};
use crate::batch::Batch;
use crate::dropout::Dropout;
use crate::metric::{EvalContext, Metric, MetricContext, MetricError, Observed};
use crate::model::{Evaluated, Gradients, Model, Reads, Values};
use crate::native::Tape;
use crate::network::{Group, Network};
use crate::objective::{LogZ, Objective};
use crate::optimizer::Optimizer;
use crate::policy::Direction;
use crate::rng::{Purpose, Streams};
use crate::sampler::{Draw, Exploration, Sampler, parts_of_batch};
use crate::schedule::Schedule;
use crate::scored::{HostLoss, HostScored, LogPb, Scored};
use crate::{Environment, NetworkRows, Reward, RewardError, Trajectories};

pub use policy::ModelPolicy;
pub use settings::{Engine, TrainSettings};
pub use snapshot::{Snapshot, SnapshotError};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A loss or its gradient is not finite. Nothing of that update has been applied.
    #[error("{what} is {value} at iteration {step}")]
    Diverged {
        /// The iteration, counted from 0.
        step: u64,
        /// What is not finite.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A reward could not be computed.
    #[error(transparent)]
    Reward(#[from] RewardError),
}

/// What one iteration did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The iteration, counted from 0.
    pub step: u64,
    /// The objective's loss.
    pub loss: f64,
    /// P_B's own loss, where it has one.
    pub backward_loss: Option<f64>,
    /// Learned log Z before the iteration, where the objective has one.
    pub log_z: Option<f64>,
    /// Norm of the objective's gradient over all network parameters, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the network.
    pub lr: f64,
    /// Learning rate of P_B, where it is learned.
    pub backward_lr: Option<f64>,
    /// Probability of a uniform action.
    pub epsilon: f64,
}

/// What has been spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Iterations finished.
    pub step: u64,
    /// Trajectories sampled for training.
    pub trajectories: u64,
    /// Rewards computed for training.
    pub reward_calls: u64,
    /// Environment steps of training.
    pub env_steps: u64,
    /// Optimiser steps.
    pub grad_steps: u64,
}

/// The parts that an experiment is made of, besides its network.
pub struct Parts {
    /// The objective.
    pub objective: Box<dyn Objective>,
    /// The backward strategy.
    pub backward: Box<dyn BackwardStrategy>,
    /// What is measured.
    pub metrics: Vec<Box<dyn Metric>>,
    /// The environment with its reward and, where it is small enough, its exact target.
    pub context: MetricContext,
}

impl Parts {
    /// The environment.
    pub fn env(&self) -> &dyn Environment {
        &*self.context.env
    }

    /// Its reward.
    pub fn reward(&self) -> &dyn Reward {
        &*self.context.reward
    }
}

/// Trains a GFlowNet.
///
/// Every iteration samples a batch with P_F, computes rewards, and makes two updates: the
/// objective's (P_F, log F, log Z, and P_B if the strategy trains it so), and P_B's own where
/// there is one. Each update touches the parameters of its groups only.
pub struct Trainer {
    parts: Parts,
    settings: TrainSettings,
    model: Model,
    /// Target copy of all network parameters (not log Z), where the strategy reads one.
    target: Option<Values>,
    /// By [`NETWORK`], [`LOG_Z`] and [`BACKWARD`].
    optimizers: [Optimizer; 3],
    history: VecDeque<Trajectories>,
    sampler: Sampler,
    awake: Awake,
    /// Activations of the rollout, until the first update of the iteration has used them.
    recorded: Option<Vec<Tape>>,
    streams: Streams,
    eval_streams: Streams,
    counters: Counters,
    lr: Schedule,
    log_z_lr: Schedule,
    backward_lr: Option<Schedule>,
    epsilon: Schedule,
}

/// Positions of the optimisers: P_F, log F and a trunk they share; log Z; P_B.
const NETWORK: usize = 0;
const LOG_Z: usize = 1;
const BACKWARD: usize = 2;

impl Trainer {
    /// Initialises the parameters from `seed` on `device` (a plain device; autodiff is added).
    pub fn new(
        network: Box<dyn Network>,
        parts: Parts,
        settings: TrainSettings,
        seed: u64,
        eval_seed: u64,
        device: &Device,
    ) -> Self {
        let streams = Streams::new(seed);
        let model = Model::new(
            network,
            &parts.env().layout(),
            &mut streams.get(Purpose::Init, 0),
            settings.log_z_init,
            device,
            settings.engine == Engine::Native && *device == Device::flex(),
        );
        let lr = settings.lr_schedule(settings.lr);
        // A strategy without a rate of its own follows the network's schedule.
        let learned = parts.backward.source() != Source::Fixed;
        let backward_lr = learned.then(|| match parts.backward.lr() {
            Some(start) => Schedule::exponential(start, parts.backward.lr_decay()),
            None if parts.backward.lr_decay() < 1.0 => {
                Schedule::exponential(settings.lr, parts.backward.lr_decay())
            }
            None => lr,
        });
        let has_target = parts.backward.own_update().is_some_and(|own| own.target_tau < 1.0);
        let n = model.infos().len();
        let constants = settings.optimizer_settings();
        // Decaying log Z towards 0 would bias it.
        let without_decay = crate::optimizer::OptimizerSettings { weight_decay: 0.0, ..constants };
        Self {
            target: has_target.then(|| model.copy_values()),
            optimizers: [constants, without_decay, constants]
                .map(|settings| Optimizer::new(&settings, n, model.is_native())),
            history: VecDeque::new(),
            sampler: Sampler::default(),
            awake: Awake::default(),
            recorded: None,
            streams,
            eval_streams: Streams::new(eval_seed),
            counters: Counters::default(),
            lr,
            log_z_lr: settings.lr_schedule(settings.log_z_lr),
            backward_lr,
            epsilon: settings.epsilon_schedule(),
            parts,
            settings,
            model,
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

    /// The network with its parameters.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// P_F and P_B as they are now, for sampling and evaluation.
    pub fn policy(&self) -> ModelPolicy<'_> {
        ModelPolicy::new(&self.model, &*self.parts.backward, self.target.as_ref())
    }

    fn device(&self) -> &Device {
        self.model.device()
    }

    /// The learned log Z, where the objective has one.
    pub fn log_z(&self) -> Option<f64> {
        match self.parts.objective.log_z() {
            LogZ::None => None,
            LogZ::Parameter => Some(self.model.log_z_value()),
            LogZ::InitialFlow => Some(self.model.log_flow_initial(self.parts.env())),
        }
    }

    /// Runs one iteration.
    ///
    /// # Errors
    /// When a loss or its gradient is not finite (that update is then not applied), or a reward
    /// cannot be computed.
    pub fn step(&mut self) -> Result<Report, TrainError> {
        let step = self.counters.step;
        let exploration =
            Exploration { epsilon: self.epsilon.at(step), temperature: self.settings.temperature };
        let (trajectories, rows) = self.sample(step, exploration)?;
        let log_z = match self.parts.objective.log_z() {
            // Reading log F(s0) costs a network pass; the batch below contains it.
            LogZ::InitialFlow | LogZ::None => None,
            LogZ::Parameter => self.log_z(),
        };

        let own = self.parts.backward.own_update();
        let own_batch = own.map(|own| self.own_batch(step, own, &trajectories));
        let needs = self.parts.objective.needs();
        let batch = self.batch(&trajectories, rows, needs.parents);
        let mut backward_loss = None;
        if let (Some(own), Some(past)) = (own, &own_batch)
            && own.order == Order::BackwardFirst
        {
            backward_loss = Some(self.update_backward(step, own, past, &batch)?);
        }
        let (loss, grad_norm, log_flow_s0) = self.update_forward(step, &batch)?;
        if let (Some(own), Some(past)) = (own, &own_batch)
            && own.order == Order::ForwardFirst
        {
            backward_loss = Some(self.update_backward(step, own, past, &batch)?);
        }

        let terminals = trajectories.terminals();
        let observed = Observed { terminals: &terminals, log_reward: &trajectories.log_reward };
        for metric in &mut self.parts.metrics {
            metric.observe(&observed);
        }
        self.counters.step += 1;
        let log_z = match self.parts.objective.log_z() {
            LogZ::InitialFlow => Some(log_flow_s0),
            _ => log_z,
        };
        Ok(Report {
            step,
            loss,
            backward_loss,
            log_z,
            grad_norm,
            lr: self.lr.at(step),
            backward_lr: self.backward_lr.map(|lr| lr.at(step)),
            epsilon: exploration.epsilon,
        })
    }

    /// Samples the training batch of `step` and computes its rewards. The activations stay in
    /// `recorded`: the update that comes first evaluates the same states with the same parameters.
    fn sample(
        &mut self,
        step: u64,
        exploration: Exploration,
    ) -> Result<(Trajectories, NetworkRows), TrainError> {
        let draw = Draw { streams: self.streams, purpose: Purpose::Rollout, step };
        let n = self.settings.batch_at(step);
        if self.model.is_native() {
            self.awake.keep(parts_of_batch(n) - 1);
        }
        let (model, backward) = (&self.model, &*self.parts.backward);
        let reads = match backward.own_update() {
            // A loss on past batches cannot use what is recorded.
            Some(own) if own.order == Order::BackwardFirst => {
                Reads { backward: own.batches <= 1, ..Self::READ_BY_BACKWARD }
            }
            _ => self.read_by_objective(),
        };
        let mut policies = match model.recorders(n, reads) {
            Some(tapes) => tapes
                .into_iter()
                .map(|tape| ModelPolicy::recording(model, backward, tape))
                .collect(),
            None => vec![ModelPolicy::new(model, backward, None)],
        };
        let env = &*self.parts.context.env;
        let (mut trajectories, rows) =
            self.sampler.forward_in_parts(env, &mut policies, exploration, draw, n, self.learned());
        self.recorded = policies.into_iter().map(ModelPolicy::into_tape).collect();
        let mut log_reward = vec![0.0; trajectories.len()];
        self.parts.reward().log_reward(&trajectories.terminals(), &mut log_reward)?;
        trajectories.log_reward = log_reward;
        self.counters.trajectories += trajectories.len() as u64;
        self.counters.reward_calls += trajectories.len() as u64;
        self.counters.env_steps += trajectories.n_transitions() as u64;
        Ok((trajectories, rows))
    }

    fn forget_recorded(&mut self) {
        if let Some(tapes) = self.recorded.take() {
            self.model.give_back(tapes);
        }
    }

    /// Evaluates a batch for a loss of this iteration, or takes what the rollout recorded, if it
    /// still holds.
    fn evaluate_batch(
        &mut self,
        step: u64,
        which: usize,
        batch: &Batch,
        reads: Reads,
    ) -> Evaluated {
        let rate = self.model.dropout();
        if rate > 0.0 {
            // Rollouts drop nothing, losses do.
            self.forget_recorded();
            let key = self.streams.at(Purpose::Dropout, step, which as u64).random();
            let dropout = Dropout { rate, key, first_row: 0 };
            return self.model.evaluate_with(&batch.observations, Some(dropout), reads);
        }
        match self.recorded.take() {
            Some(tapes) => self.model.evaluated_on(tapes),
            None => self.model.evaluate_with(&batch.observations, None, reads),
        }
    }

    /// Whether P_B is the network's.
    fn learned(&self) -> bool {
        self.parts.backward.source() != Source::Fixed
    }

    /// What P_B's own loss reads.
    const READ_BY_BACKWARD: Reads = Reads { forward: false, backward: true, log_flow: false };

    /// What the objective reads of the network as it is.
    fn read_by_objective(&self) -> Reads {
        let needs = self.parts.objective.needs();
        let backward = match self.parts.backward.source() {
            Source::Fixed => false,
            Source::Online => true,
            Source::Target => self.target.is_none(),
        };
        Reads { forward: true, backward, log_flow: needs.log_flow }
    }

    fn batch(&self, trajectories: &Trajectories, rows: NetworkRows, parents: bool) -> Batch {
        let device = self.device().clone();
        Batch::new(self.parts.env(), &*self.parts.backward, trajectories, rows, parents, &device)
    }

    /// The batch that P_B's own loss is computed on: none stands for the current one.
    fn own_batch(
        &mut self,
        step: u64,
        own: OwnUpdate,
        current: &Trajectories,
    ) -> Option<Trajectories> {
        if own.batches <= 1 {
            return None;
        }
        self.history.push_back(current.clone());
        while self.history.len() > own.batches {
            self.history.pop_front();
        }
        let mut rng = self.streams.get(Purpose::History, step);
        let drawn = rng.random_range(0..self.history.len() as u32) as usize;
        Some(self.history[drawn].clone())
    }

    /// P_B's own update, and the step of its target copy.
    fn update_backward(
        &mut self,
        step: u64,
        own: OwnUpdate,
        past: &Option<Trajectories>,
        current: &Batch,
    ) -> Result<f64, TrainError> {
        let past = past.as_ref().map(|past| {
            let rows = NetworkRows::packed(self.parts.env(), past, true);
            self.batch(past, rows, false)
        });
        if past.is_some() {
            // The recorded activations are of another batch.
            self.forget_recorded();
        }
        let batch = past.as_ref().unwrap_or(current);
        let evaluated = self.evaluate_batch(step, BACKWARD, batch, Self::READ_BY_BACKWARD);
        let gradients = self.backward_gradients_of(own, batch, evaluated);
        let gradients = checked(step, "the loss of P_B", gradients)?;
        let loss = gradients.loss;
        let lr = self.backward_lr.map_or(0.0, |lr| lr.at(step));
        let clip = self.settings.clip_norm;
        self.model.apply(gradients, clip, &mut self.optimizers, |_| (BACKWARD, lr));
        self.counters.grad_steps += 1;
        if let Some(target) = &mut self.target {
            self.model.lerp(target, own.target_tau);
        }
        Ok(loss)
    }

    /// P_B's own loss on a batch, tracked.
    pub fn backward_loss(&mut self, own: OwnUpdate, batch: &Batch) -> Tensor<1> {
        let evaluated = self.model.evaluate(&batch.observations);
        self.backward_loss_of(own, batch, &evaluated)
    }

    /// P_B's own gradients on a batch.
    pub fn backward_gradients(&mut self, own: OwnUpdate, batch: &Batch) -> Gradients {
        let evaluated = self.model.evaluate(&batch.observations);
        self.backward_gradients_of(own, batch, evaluated)
    }

    fn backward_gradients_of(
        &mut self,
        own: OwnUpdate,
        batch: &Batch,
        evaluated: Evaluated,
    ) -> Gradients {
        let groups = [Group::Trunk, Group::Backward];
        if !self.model.is_native() {
            let loss = self.backward_loss_of(own, batch, &evaluated);
            return self.model.gradients(loss, &groups);
        }
        let choices = &batch.backward;
        let log_pb = self.model.log_probs_on_host(&evaluated, Direction::Backward, choices);
        let loss = own.by_hand(&log_pb, batch.len());
        self.model.gradients_by_hand(evaluated, loss, [None, Some(choices)], &groups)
    }

    fn backward_loss_of(
        &mut self,
        own: OwnUpdate,
        batch: &Batch,
        evaluated: &Evaluated,
    ) -> Tensor<1> {
        let log_pb = self.model.log_probs(evaluated, Direction::Backward, &batch.backward);
        own.loss(batch.sum_by_trajectory(log_pb))
    }

    /// The objective's update. Returns the loss, the norm of its gradient and log F(s0).
    fn update_forward(&mut self, step: u64, batch: &Batch) -> Result<(f64, f64, f64), TrainError> {
        let reads = self.read_by_objective();
        let evaluated = self.evaluate_batch(step, NETWORK, batch, reads);
        // Reported where it is what the objective learns log Z by.
        let log_flow_s0 =
            if reads.log_flow { self.model.first_log_flow(&evaluated) } else { f64::NAN };
        let gradients = self.objective_gradients_of(batch, evaluated);
        let gradients = checked(step, "the loss", gradients)?;
        let (loss, norm) = (gradients.loss, gradients.norm);
        let (lr, log_z_lr) = (self.lr.at(step), self.log_z_lr.at(step));
        let backward_lr = self.backward_lr.map_or(0.0, |lr| lr.at(step));
        let clip = self.settings.clip_norm;
        self.model.apply(gradients, clip, &mut self.optimizers, |group| match group {
            Group::LogZ => (LOG_Z, log_z_lr),
            Group::Backward => (BACKWARD, backward_lr),
            Group::Trunk | Group::Forward => (NETWORK, lr),
        });
        self.counters.grad_steps += 1;
        Ok((loss, norm, log_flow_s0))
    }

    /// The groups whose parameters the objective's update may change.
    pub fn objective_groups(&self) -> &'static [Group] {
        if self.parts.backward.source() == Source::Online {
            &[Group::Trunk, Group::Forward, Group::Backward, Group::LogZ]
        } else {
            &[Group::Trunk, Group::Forward, Group::LogZ]
        }
    }

    /// The objective's loss on a batch, tracked.
    pub fn objective_loss(&mut self, batch: &Batch) -> Tensor<1> {
        let evaluated = self.model.evaluate(&batch.observations);
        self.objective_loss_of(batch, evaluated)
    }

    fn objective_loss_of(&mut self, batch: &Batch, evaluated: Evaluated) -> Tensor<1> {
        let log_pb = match (self.parts.backward.source(), &self.target) {
            (Source::Fixed, _) => {
                let fixed = batch.fixed_log_pb().expect("computed with the batch");
                LogPb::Given(Box::new(Tensor::from_inner(batch.upload(fixed.clone()))))
            }
            (Source::Online, _) => LogPb::Online,
            // Without a copy the target is the network itself, cut off from its gradient.
            (Source::Target, None) => LogPb::Detached,
            (Source::Target, Some(_)) if !self.parts.objective.needs().backward_policy => {
                LogPb::Detached
            }
            (Source::Target, Some(target)) => {
                let (observations, choices) = (&batch.observations, &batch.backward);
                let direction = Direction::Backward;
                let log_pb = self.model.log_probs_of(target, observations, direction, choices);
                LogPb::Given(Box::new(Tensor::from_inner(log_pb)))
            }
        };
        let scored = Scored::new(batch, &mut self.model, evaluated, log_pb);
        self.parts.objective.loss(&scored)
    }

    /// The objective's gradients on a batch.
    pub fn objective_gradients(&mut self, batch: &Batch) -> Gradients {
        let evaluated = self.model.evaluate(&batch.observations);
        self.objective_gradients_of(batch, evaluated)
    }

    fn objective_gradients_of(&mut self, batch: &Batch, evaluated: Evaluated) -> Gradients {
        let groups = self.objective_groups();
        if let Some(loss) = self.objective_by_hand(batch, &evaluated) {
            let online = self.parts.backward.source() == Source::Online;
            let choices = [Some(&batch.forward), online.then_some(&batch.backward)];
            return self.model.gradients_by_hand(evaluated, loss, choices, groups);
        }
        let loss = self.objective_loss_of(batch, evaluated);
        self.model.gradients(loss, groups)
    }

    /// The objective's loss with its derivatives, if they are written by hand and the native engine
    /// runs.
    fn objective_by_hand(&self, batch: &Batch, evaluated: &Evaluated) -> Option<HostLoss> {
        let needs = self.parts.objective.needs();
        if !self.model.is_native() || needs.parents || !needs.backward_policy {
            return None;
        }
        let (choices, direction) = (&batch.backward, Direction::Backward);
        let log_pb = match (self.parts.backward.source(), &self.target) {
            (Source::Fixed, _) => batch.fixed_log_pb().expect("computed with the batch").clone(),
            (Source::Online, _) | (Source::Target, None) => {
                self.model.log_probs_on_host(evaluated, direction, choices)
            }
            (Source::Target, Some(target)) => {
                let observations = &batch.observations;
                self.model.log_probs_of_on_host(target, observations, direction, choices)
            }
        };
        let scored = HostScored::new(batch, &self.model, evaluated, log_pb);
        self.parts.objective.by_hand(&scored)
    }

    /// Evaluates every metric under the current policy; one value per declared column.
    ///
    /// # Errors
    /// When a reward cannot be computed, or the environment is not what a metric needs.
    pub fn evaluate(&mut self) -> Result<Vec<Option<f64>>, MetricError> {
        let mut metrics = std::mem::take(&mut self.parts.metrics);
        let policy = self.policy();
        let eval = EvalContext::new(
            &self.parts.context,
            &policy,
            self.log_z(),
            self.eval_streams,
            self.counters.step,
        );
        let values =
            metrics.iter_mut().map(|metric| metric.evaluate(&eval)).collect::<Result<Vec<_>, _>>();
        drop(policy);
        self.parts.metrics = metrics;
        Ok(values?.into_iter().flatten().collect())
    }

    /// A batch of the given trajectories, as the objective sees it.
    pub fn batch_of(&self, trajectories: &Trajectories) -> Batch {
        let rows = NetworkRows::packed(self.parts.env(), trajectories, self.learned());
        self.batch(trajectories, rows, self.parts.objective.needs().parents)
    }

    /// The parts of the experiment.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The model, for tests that perturb parameters.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }
}

/// Gradients of a loss, refused if it or they are not finite.
fn checked(step: u64, what: &'static str, gradients: Gradients) -> Result<Gradients, TrainError> {
    let values = [(what, gradients.loss), ("the norm of the gradient", gradients.norm)];
    for (what, value) in values {
        if !value.is_finite() {
            return Err(TrainError::Diverged { step, what, value });
        }
    }
    Ok(gradients)
}
