//! Metrics: what is measured at an evaluation, one file each.
//!
//! A metric declares its columns before a run starts, may watch every training batch, and is
//! evaluated on a shared [`EvalContext`] whose expensive parts (fresh samples, exact
//! distributions) are computed once and only if some metric asks for them.

mod accuracy;
mod backward_estimate;
mod correlation;
mod distribution;
mod elbo_eubo;
mod empirical;
mod fcs;
mod gradient;
mod kind;
mod log_z;
mod marginals;
mod modes;
mod samples;
mod subsets;
mod target;
mod test_set;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::exact::Exact;
use crate::policy::{Direction, Policy, UniformPolicy};
use crate::rng::Purpose;
use crate::row_index::RowIndex;
use crate::sampler::{Draw, Exploration, Sampler};
use crate::{BrokenLaw, Environment, Layers, Reward, RewardError, States, Streams, Trajectories};

pub use backward_estimate::{LogProbEstimate, estimate_log_probs};
pub use correlation::{pearson, spearman, spearman_max};
pub use gradient::GradientSample;
pub use kind::{MetricEntry, MetricKind, NoSettings};
pub use test_set::TestSet;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// A reward could not be computed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The environment is not what exact metrics need.
    #[error(transparent)]
    Broken(#[from] BrokenLaw),
}

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Smaller is better.
    Lower,
    /// Larger is better.
    Higher,
    /// Neither.
    Neither,
}

/// A declared CSV column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    /// Header of the column.
    pub name: String,
    /// Unit of its values; `1` if it has none.
    pub unit: &'static str,
    /// What the number is, exactly.
    pub definition: String,
    /// Which way it improves.
    pub better: Better,
    /// Place among the columns that sum a run up while it trains, if it is one of them. The first
    /// that improves one way and has a value decides which checkpoint is best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headline: Option<u8>,
}

impl Column {
    /// A column.
    pub fn new(
        name: &str,
        unit: &'static str,
        better: Better,
        definition: impl Into<String>,
    ) -> Self {
        Self { name: name.to_owned(), unit, definition: definition.into(), better, headline: None }
    }

    /// The same column, as one that sums a run up.
    fn headline(self, place: u8) -> Self {
        Self { headline: Some(place), ..self }
    }
}

/// What metrics are built from; fixed for a run.
#[derive(Clone)]
pub struct MetricContext {
    /// The environment.
    pub env: Arc<dyn Environment>,
    /// Its reward.
    pub reward: Arc<dyn Reward>,
    /// The exact target, if the environment is small enough to enumerate.
    pub exact: Option<Arc<Exact>>,
    /// Else its layers, if it is to be walked through at every evaluation.
    pub layers: Option<Arc<Layers>>,
    /// Fresh samples per evaluation.
    pub samples: usize,
    /// Objects to measure correlations on, if not on all of them.
    pub test: Option<TestSet>,
    /// Backward trajectories per test object.
    pub backward_trajectories: usize,
    /// Settings of single metrics, by their names.
    pub settings: BTreeMap<String, toml::Table>,
}

/// P_T and the target over all objects, in one order.
#[derive(Clone, Copy, Debug)]
pub struct ObjectDistribution<'a> {
    /// P_T(x).
    pub prob: &'a [f64],
    /// log R(x).
    pub log_reward: &'a [f64],
    /// log of the sum of R over all objects.
    pub log_z: f64,
}

impl ObjectDistribution<'_> {
    /// P*(x), in the same order.
    pub fn target(&self) -> impl Iterator<Item = f64> + '_ {
        self.log_reward.iter().map(|log_reward| (log_reward - self.log_z).exp())
    }
}

/// What a metric sees of one evaluation.
pub struct EvalContext<'a> {
    /// The fixed parts of the run.
    pub fixed: &'a MetricContext,
    /// P_F and P_B as they are used now, without exploration; none where Markov chains take their place.
    pub policy: Option<&'a dyn Policy>,
    /// The learned log Z, where the objective has one.
    pub log_z: Option<f64>,
    /// Streams of the evaluation; they do not depend on the training seed.
    pub streams: Streams,
    /// The iteration after which this evaluation takes place.
    pub step: u64,
    /// Gradients of the objective at the policy as it is, where some metric
    /// [asks for them](Metric::gradient_batches) and the objective has them.
    gradients: Option<GradientSample>,
    log_pf: OnceCell<Vec<f64>>,
    log_pb: OnceCell<Vec<f64>>,
    prob: OnceCell<Vec<f64>>,
    log_prob: OnceCell<Vec<f64>>,
    samples: OnceCell<Trajectories>,
}

/// Rows per network evaluation when the whole graph is evaluated; bounds memory.
const BLOCK: usize = 4096;

impl<'a> EvalContext<'a> {
    /// An evaluation of `policy` after iteration `step`.
    pub fn new(
        fixed: &'a MetricContext,
        policy: &'a dyn Policy,
        log_z: Option<f64>,
        streams: Streams,
        step: u64,
    ) -> Self {
        Self {
            fixed,
            policy: Some(policy),
            log_z,
            streams,
            step,
            gradients: None,
            log_pf: OnceCell::new(),
            log_pb: OnceCell::new(),
            prob: OnceCell::new(),
            log_prob: OnceCell::new(),
            samples: OnceCell::new(),
        }
    }

    /// An evaluation without a policy, on objects that were sampled in another way: trajectories of one
    /// row each, with their rewards.
    pub fn without_policy(
        fixed: &'a MetricContext,
        samples: Trajectories,
        streams: Streams,
        step: u64,
    ) -> Self {
        let samples = OnceCell::from(samples);
        Self { policy: None, samples, ..Self::new(fixed, &UniformPolicy, None, streams, step) }
    }

    /// The same evaluation with gradients.
    #[must_use]
    pub fn with_gradients(self, gradients: Option<GradientSample>) -> Self {
        Self { gradients, ..self }
    }

    /// What a metric measures, one value per column: nothing where it [needs a
    /// policy](Metric::needs_policy) and there is none.
    ///
    /// # Errors
    /// As [`Metric::evaluate`].
    pub fn measure(&self, metric: &mut dyn Metric) -> Result<Vec<Option<f64>>, MetricError> {
        if self.policy.is_none() && metric.needs_policy() {
            return Ok(vec![None; metric.columns().len()]);
        }
        metric.evaluate(self)
    }

    /// The policy of an evaluation that has one.
    fn policy(&self) -> &'a dyn Policy {
        self.policy.expect("metrics that use the policy say that they need it")
    }

    /// log P_F of every edge of the exact graph.
    pub fn log_pf(&self, exact: &Exact) -> &[f64] {
        self.log_pf.get_or_init(|| self.log_probs(exact, Direction::Forward))
    }

    /// log P_B of every edge of the exact graph.
    pub fn log_pb(&self, exact: &Exact) -> &[f64] {
        self.log_pb.get_or_init(|| self.log_probs(exact, Direction::Backward))
    }

    fn log_probs(&self, exact: &Exact, direction: Direction) -> Vec<f64> {
        exact.graph.log_probs(&*self.fixed.env, self.policy(), direction, BLOCK)
    }

    /// log P_T of every object of the exact graph, in its order.
    pub fn log_prob(&self, exact: &Exact) -> &[f64] {
        self.log_prob.get_or_init(|| exact.graph.log_terminal_probs(self.log_pf(exact)))
    }

    /// Whether P_F and P_B are finite along a few trajectories. A policy whose logits have
    /// overflowed or are NaN is not, whatever is measured.
    pub fn policy_is_finite(&self) -> bool {
        const TRAJECTORIES: usize = 16;
        let draw = Draw { streams: self.streams, purpose: Purpose::Evaluation, step: self.step };
        let env = &*self.fixed.env;
        let (policy, none) = (self.policy(), Exploration::NONE);
        let trajectories = Sampler::default().forward(env, policy, none, draw, TRAJECTORIES);
        let (log_pf, log_pb) = self.log_probs_of(&trajectories);
        log_pf.iter().chain(&log_pb).all(|log_prob| log_prob.is_finite())
    }

    /// The exact distribution over objects, where it can be computed.
    ///
    /// # Errors
    /// When the reward of some object is not known, or the environment cannot be walked.
    pub fn objects(&self) -> Result<Option<ObjectDistribution<'_>>, MetricError> {
        let fixed = self.fixed;
        if let Some(exact) = &fixed.exact {
            let prob = self.prob.get_or_init(|| exact.graph.terminal_probs(self.log_pf(exact)));
            let (log_reward, log_z) = (&exact.target.log_reward, exact.target.log_z);
            return Ok(Some(ObjectDistribution { prob, log_reward, log_z }));
        }
        let Some(layers) = &fixed.layers else { return Ok(None) };
        if self.prob.get().is_none() {
            let (prob, _) = layers.terminal_probs(&*fixed.env, self.policy(), &*fixed.reward)?;
            let _ = self.prob.set(prob);
        }
        let (Some(prob), Some(target)) = (self.prob.get(), layers.known_target()) else {
            return Ok(None);
        };
        Ok(Some(ObjectDistribution { prob, log_reward: &target.log_reward, log_z: target.log_z }))
    }

    /// log R of all objects and log of its sum, where they can be enumerated.
    ///
    /// # Errors
    /// As [`objects`](Self::objects).
    pub fn target(&self) -> Result<Option<(&[f64], f64)>, MetricError> {
        if let Some(exact) = &self.fixed.exact {
            return Ok(Some((&exact.target.log_reward, exact.target.log_z)));
        }
        // Layers are walked with the policy, and give both at once.
        let objects = if self.policy.is_some() { self.objects()? } else { None };
        Ok(objects.map(|objects| (objects.log_reward, objects.log_z)))
    }

    /// Fresh trajectories of the policy, without exploration, with their rewards; without a policy the
    /// last objects of Markov chains, which may be fewer, and no way to them.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn samples(&self) -> Result<&Trajectories, RewardError> {
        if let Some(samples) = self.samples.get() {
            return Ok(samples);
        }
        let draw = Draw { streams: self.streams, purpose: Purpose::Evaluation, step: self.step };
        let mut sampler = Sampler::default();
        let mut samples = sampler.forward(
            &*self.fixed.env,
            self.policy(),
            Exploration::NONE,
            draw,
            self.fixed.samples,
        );
        let mut log_reward = vec![0.0; samples.len()];
        self.fixed.reward.log_reward(&samples.terminals(), &mut log_reward)?;
        samples.log_reward = log_reward;
        Ok(self.samples.get_or_init(|| samples))
    }

    /// log P_F(τ) and log P_B(τ|x) of given trajectories under the current policy.
    pub fn log_probs_of(&self, trajectories: &Trajectories) -> (Vec<f64>, Vec<f64>) {
        let env = &*self.fixed.env;
        let space = env.space();
        let sum = |direction: Direction| {
            let n_actions = space.n_actions_in(direction);
            let actions = match direction {
                Direction::Forward => &trajectories.actions,
                Direction::Backward => &trajectories.back_actions,
            };
            let mut mask = vec![false; n_actions];
            let mut log_probs = vec![0.0; n_actions];
            let (mut states, mut logits) = (States::new(space.width), Vec::new());
            // The different states of a block, and which of them each transition has.
            let (mut index, mut places) = (RowIndex::default(), Vec::new());
            let mut sums = Vec::with_capacity(trajectories.len());
            let mut first = 0;
            while first < trajectories.len() {
                // Whole trajectories, in blocks that bound memory.
                states.clear();
                index.clear();
                places.clear();
                let mut end = first;
                while end < trajectories.len() && (end == first || states.len() < BLOCK) {
                    let rows = trajectories.rows(end);
                    let ends = match direction {
                        Direction::Forward => rows.start..rows.end - 1,
                        Direction::Backward => rows.start + 1..rows.end,
                    };
                    let of = |row| index.place_or_push(&mut states, trajectories.states.row(row));
                    places.extend(ends.map(of));
                    end += 1;
                }
                logits.resize(states.len() * n_actions, 0.0f32);
                self.policy().logits(env, direction, &states, &mut logits);
                let mut places = places.iter().map(|&place| place as usize);
                for i in first..end {
                    let log_prob = |transition: usize| {
                        let place = places.next().expect("one per transition");
                        let logits = &logits[place * n_actions..(place + 1) * n_actions];
                        env.legal_in(direction, states.row(place), &mut mask);
                        crate::policy::log_softmax(logits, &mask, &mut log_probs);
                        log_probs[actions[transition] as usize]
                    };
                    sums.push(trajectories.transitions(i).map(log_prob).sum::<f64>());
                }
                first = end;
            }
            sums
        };
        (sum(Direction::Forward), sum(Direction::Backward))
    }
}

/// The terminal states of one training batch.
pub struct Observed<'a> {
    /// Terminal rows, exploratory ones included.
    pub terminals: &'a States,
    /// log R of each.
    pub log_reward: &'a [f64],
}

/// A metric. `None` stands for "does not apply" and becomes an empty cell; NaN for a policy that is
/// broken, never for a good one.
pub trait Metric: Send {
    /// The name in `eval.metrics`, under which checkpoints hold what it has gathered.
    fn name(&self) -> &'static str;

    /// The columns, in the order of [`evaluate`](Self::evaluate).
    fn columns(&self) -> Vec<Column>;

    /// Whether it uses P_F, P_B or the way to a sample. Where Markov chains take the place of a policy
    /// its cells are then empty.
    fn needs_policy(&self) -> bool {
        true
    }

    /// The gradients of how many batches it wants to see: those of the evaluation.
    fn gradient_batches(&self) -> usize {
        0
    }

    /// Watches one training batch.
    fn observe(&mut self, _batch: &Observed<'_>) {}

    /// Measures; one value per column.
    ///
    /// # Errors
    /// When the reward of some object is not known, or the environment is not what the metric needs.
    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError>;

    /// What [`observe`](Self::observe) has gathered, for a checkpoint; none if nothing is.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Restores what [`save`](Self::save) returned. None if the checkpoint is of a run that did not
    /// gather it: the metric then does not apply.
    ///
    /// # Errors
    /// When the bytes are not of this metric.
    fn load(&mut self, _gathered: Option<&[u8]>) -> Result<(), String> {
        Ok(())
    }
}

/// Every metric.
pub const METRICS: &[MetricEntry] = &[
    MetricEntry::of::<distribution::Distribution>(),
    MetricEntry::of::<empirical::Empirical>(),
    MetricEntry::of::<log_z::LogZ>(),
    MetricEntry::of::<elbo_eubo::ElboEubo>(),
    MetricEntry::of::<modes::ModesFound>(),
    MetricEntry::of::<modes::FreshModes>(),
    MetricEntry::of::<samples::Samples>(),
    MetricEntry::of::<correlation::Correlation>(),
    MetricEntry::of::<accuracy::Accuracy>(),
    MetricEntry::of::<target::TargetMoments>(),
    MetricEntry::of::<fcs::Fcs>(),
    MetricEntry::of::<marginals::Marginals>(),
    MetricEntry::of::<gradient::Gradient>(),
];
