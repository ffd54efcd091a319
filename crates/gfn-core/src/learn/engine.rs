//! The contract of an engine: what computes networks, their gradients and the steps of their
//! parameters. It alone knows tensors, devices and SIMD; losses see numbers.

use std::sync::{Arc, OnceLock};

use super::head::Head;
use crate::{Environment, NO_TOKEN, States};

/// A named array in single precision, as checkpoints store it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Unique name.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// What is known of a parameter besides its value. Vectors are rows: shape `[1, n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// Unique name, also in checkpoints.
    pub name: String,
    /// The head that it belongs to, or [`TRUNK`](super::head::TRUNK).
    pub group: String,
    /// Rows and columns.
    pub shape: [usize; 2],
}

/// Which values of the parameters an evaluation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    /// Those that are trained.
    Current,
    /// A copy of earlier ones, by its name.
    Copy(&'static str),
}

/// States to evaluate. They are observed when an engine first asks.
#[derive(Debug)]
pub struct Rows {
    /// The states.
    pub states: States,
    /// The rollout that has asked for just these rows, in this order.
    pub recording: Option<Recording>,
    ids: OnceLock<Vec<i32>>,
}

/// A rollout during which an engine may have kept what it computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub u64);

impl Rows {
    /// Rows that no rollout has asked for.
    pub fn new(states: States) -> Self {
        Self { states, recording: None, ids: OnceLock::new() }
    }

    /// Rows that a rollout has asked for.
    pub fn recorded(states: States, recording: Option<Recording>) -> Self {
        Self { recording, ..Self::new(states) }
    }

    /// Rows that have been observed before: `ids` are those of [`Rows::ids`].
    pub fn observed(states: States, ids: Vec<i32>) -> Self {
        Self { states, recording: None, ids: OnceLock::from(ids) }
    }

    /// For each state, the values of its observed cells, numbered among all values of all cells; or
    /// [`NO_TOKEN`]. Row-major.
    pub fn ids(&self, env: &dyn Environment) -> &[i32] {
        self.ids.get_or_init(|| {
            let mut ids = Vec::new();
            observe_into(env, &self.states, &mut ids);
            ids
        })
    }
}

/// Writes what is observed of every row of `states` to `ids`, whose content is replaced: see
/// [`Rows::ids`].
pub fn observe_into(env: &dyn Environment, states: &States, ids: &mut Vec<i32>) {
    let (first_tokens, n_cells) = (env.space().first_tokens(), env.space().n_cells());
    ids.resize(states.len() * n_cells, NO_TOKEN);
    for (row, cells) in states.rows().zip(ids.chunks_exact_mut(n_cells.max(1))) {
        env.observe(row, cells);
        for (cell, first) in cells.iter_mut().zip(first_tokens) {
            *cell = if *cell < 0 { NO_TOKEN } else { *cell + first };
        }
    }
}

/// One entry per choice: the row that it is made at, which actions are legal there, and which one
/// is taken.
#[derive(Clone, Debug, Default)]
pub struct ActionsTaken {
    /// Row of every choice among the rows that are evaluated.
    pub rows: Vec<u32>,
    /// The action taken; any where none is asked for.
    pub taken: Vec<u32>,
    /// `n_actions` per choice.
    pub legal: Vec<bool>,
    /// Actions, legal or not.
    pub n_actions: usize,
}

impl ActionsTaken {
    /// No choices yet among `n_actions`, with room for `m`.
    pub fn with_capacity(n_actions: usize, m: usize) -> Self {
        Self {
            rows: Vec::with_capacity(m),
            taken: Vec::with_capacity(m),
            legal: Vec::with_capacity(m * n_actions),
            n_actions,
        }
    }

    /// Adds the choice of `taken` among the `legal` actions at a row.
    pub fn push(&mut self, row: u32, legal: &[bool], taken: u32) {
        self.rows.push(row);
        self.taken.push(taken);
        self.legal.extend_from_slice(legal);
    }

    /// Adds another choice at the row of an earlier one.
    pub fn push_again(&mut self, earlier: usize, taken: u32) {
        self.rows.push(self.rows[earlier]);
        self.taken.push(taken);
        let legal = earlier * self.n_actions..(earlier + 1) * self.n_actions;
        self.legal.extend_from_within(legal);
    }

    /// Number of choices.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no choices.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The legal actions of a choice.
    pub fn legal_at(&self, choice: usize) -> &[bool] {
        &self.legal[choice * self.n_actions..][..self.n_actions]
    }

    /// How many actions are legal at each choice, one choice after the other: what a readout of all of them
    /// has numbers for.
    pub fn n_legal(&self) -> impl Iterator<Item = usize> {
        let legal = self.legal.chunks_exact(self.n_actions.max(1));
        legal.map(|legal| legal.iter().filter(|&&legal| legal).count())
    }
}

/// What a loss may read of a head that has been evaluated.
#[derive(Clone, Debug)]
pub enum Readout {
    /// The log-probability of each action taken: the log-softmax over the legal actions, or what a model
    /// that decides on stopping first makes of them.
    LogProb(Arc<ActionsTaken>),
    /// The same of every legal action of each choice, in order.
    LogProbs(Arc<ActionsTaken>),
    /// The number of each action taken, as it is.
    Taken(Arc<ActionsTaken>),
    /// The number of every legal action of each choice, in order.
    Numbers(Arc<ActionsTaken>),
    /// log Σ exp over the legal actions of each choice.
    LogSumExp(Arc<ActionsTaken>),
    /// The number of each row.
    Scalar,
}

/// Rows that an engine has evaluated for the loss under construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(pub usize);

/// Derivatives of a loss by what it has read of one head of one pass.
#[derive(Debug)]
pub struct Upstream {
    /// Which pass.
    pub pass: Pass,
    /// Which head of it.
    pub head: Head,
    /// What was read.
    pub readout: Readout,
    /// The derivatives, one per number read.
    pub derivatives: Vec<f64>,
}

/// A question for logits outside of losses.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// With which values.
    pub values: Values,
    /// Which head.
    pub head: Head,
    /// The part of a rollout that asks, if what is computed should be kept for the loss.
    pub record: Option<usize>,
}

/// A model: a network with its values, copies of them, and the optimisers that step them.
///
/// A loss is computed by any number of [`evaluate`](Self::evaluate) and [`read`](Self::read), one
/// [`gradients`](Self::gradients), which ends all passes, and one [`step`](Self::step).
pub trait Engine: Send + Sync {
    /// What it is called in specs.
    fn name(&self) -> &'static str;

    /// Names, groups and shapes of all parameters.
    fn params(&self) -> &[ParamInfo];

    /// The value of parameter `i`, row-major.
    fn value(&self, i: usize) -> Vec<f32>;

    /// Replaces the value of parameter `i` (row-major, of its shape).
    fn set_value(&mut self, i: usize, value: Vec<f32>);

    /// Whether losses drop activations.
    fn drops(&self) -> bool {
        false
    }

    /// Announces a rollout of `n` trajectories, whose first loss will read these heads, with the
    /// current values, of the rows that the rollout asks for. Returns into how many parts the
    /// batch should be cut, and a name for the rollout.
    fn begin_rollout(&mut self, n: usize, heads: &[Head]) -> (usize, Recording);

    /// Writes the logits of `ask.head` for each row of `states` to `out`. Nothing is dropped.
    fn logits(&self, ask: Ask, env: &dyn Environment, states: &States, out: &mut [f32]);

    /// Evaluates some heads for a loss. With a key, some activations are dropped.
    fn evaluate(
        &mut self,
        env: &dyn Environment,
        rows: &Rows,
        heads: &[Head],
        values: Values,
        dropout: Option<u64>,
    ) -> Pass;

    /// Reads one of the heads that were evaluated.
    fn read(&mut self, pass: Pass, head: Head, readout: &Readout) -> Vec<f64>;

    /// The gradients of a loss for the parameters of some groups, from its derivatives by what it
    /// has read; those of [parameters](super::head::HeadSize::Parameter) by name. They stay with
    /// the engine until the next loss. Returns their norm over all but these parameters.
    fn gradients(
        &mut self,
        upstream: Vec<Upstream>,
        parameters: &[(&'static str, f64)],
        groups: &[&str],
    ) -> f64;

    /// The last gradient of parameter `i`, if it belongs to the groups that were asked for.
    fn gradient(&self, i: usize) -> Option<Vec<f32>>;

    /// Ends all passes without a gradient.
    fn forget(&mut self);

    /// Steps the parameters of some groups by the last gradients, each group at its rate, by the
    /// optimiser of that name. Gradients are scaled by `scale`, but for parameters of their own.
    fn step(&mut self, optimizer: &str, rates: &[(&str, f64)], scale: f64);

    /// Makes a copy of the current values, or brings it up to date.
    fn copy(&mut self, name: &'static str);

    /// Moves a copy towards the current values: copy ← (1 − tau) copy + tau current.
    fn move_copy(&mut self, name: &'static str, tau: f64);

    /// The values of a copy in the order of the parameters.
    fn copied(&self, name: &'static str) -> Vec<Vec<f32>>;

    /// Sets a copy.
    fn set_copy(&mut self, name: &'static str, values: Vec<Vec<f32>>);

    /// The state of an optimiser, by the names of the parameters.
    fn save_optimizer(&self, name: &str) -> Vec<NamedTensor>;

    /// Restores what [`save_optimizer`](Self::save_optimizer) returned.
    fn load_optimizer(&mut self, name: &str, state: Vec<NamedTensor>);
}
