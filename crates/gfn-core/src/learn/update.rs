//! An algorithm as data: the list of updates that an iteration makes.

use super::head::Head;
use super::priority::Priority;
use super::substructures::Substructures;
use super::trust_region::{OLD_POLICY, TrustRegion};
use super::view::Loss;
use crate::learn::schedule::Schedule;

/// What an update computes its loss on.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// The trajectories of this iteration.
    Current,
    /// A part of them: each of the update's repeats is on the next of `n` parts of a random order, which is
    /// drawn anew when all have had their turn.
    Minibatches {
        /// How many parts.
        n: usize,
    },
    /// Those of one of the last iterations, this one included, drawn uniformly.
    Past {
        /// From how many.
        batches: usize,
    },
    /// New backward trajectories by P_B from the objects of this iteration.
    Backward,
    /// What earlier iterations and this one have left, drawn with replacement.
    Replay {
        /// What is kept.
        of: Kept,
        /// How many of them, the last ones.
        capacity: usize,
        /// How many are drawn.
        batch: usize,
        /// Which of them.
        priority: Priority,
        /// Whether the trajectories of this iteration come before them; not with transitions.
        with_current: bool,
    },
}

/// What a replay buffer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Transitions, each on its own.
    Transitions,
    /// Whole trajectories.
    Trajectories,
    /// Objects, to which new backward trajectories by P_B are drawn.
    Objects,
}

/// A learning rate: its start is `train.lr` unless given, it follows `train.lr_schedule`, and is
/// multiplied by `decay` at every iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The rate at iteration 0, if it is not that of the network.
    pub start: Option<f64>,
    /// Factor per iteration.
    pub decay: f64,
}

impl Rate {
    /// That of the network.
    pub const NETWORK: Self = Self { start: None, decay: 1.0 };

    /// One that starts elsewhere.
    pub fn of(start: Option<f64>) -> Self {
        Self { start, decay: 1.0 }
    }

    /// The rate at an iteration, from the schedule for a start.
    pub fn at(&self, schedule: impl Fn(Option<f64>) -> Schedule, step: u64) -> f64 {
        schedule(self.start).at(step) * self.decay.powf(step as f64)
    }
}

/// A copy of all values that an update keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueCopy {
    /// Its name, also in checkpoints.
    pub name: &'static str,
    /// How it follows.
    pub follows: Follows,
}

/// The policy that an iteration has begun with.
pub(crate) const OLD: ValueCopy = ValueCopy { name: OLD_POLICY, follows: Follows::Iterations };

/// How a copy follows the values that are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Follows {
    /// copy ← (1 − tau) copy + tau current after every iteration.
    Slowly(f64),
    /// copy ← current after every so many iterations.
    Every(u64),
    /// copy ← current as every iteration begins: the values that its trajectories are sampled with.
    Iterations,
}

/// One update of an iteration: a loss on some data, and the step that follows it.
///
/// Which parameters it steps follows from what its loss reads with derivatives: those of the heads,
/// and of the trunk that they share.
pub struct Update {
    /// Names its optimiser.
    pub name: &'static str,
    /// What the loss is computed on.
    pub data: Data,
    /// The loss.
    pub loss: Box<dyn Loss>,
    /// Learning rate of all that it steps.
    pub rate: Rate,
    /// Rates of single heads.
    pub rates: Vec<(Head, Rate)>,
    /// A copy that the update keeps.
    pub copy: Option<ValueCopy>,
    /// How often it is made in an iteration, each time on data drawn anew.
    pub repeat: usize,
    /// The first iteration in which it is made.
    pub start: u64,
    /// Whether it leaves alone what heads share.
    pub heads_only: bool,
    /// The region that P_F is stepped in, instead of by an optimiser.
    pub trust_region: Option<TrustRegion>,
    /// The objects that are remembered for log P_G of its data.
    pub guide: Option<Substructures>,
}

impl Update {
    /// An update on the current trajectories at the network's rate.
    pub fn new(name: &'static str, loss: impl Loss + 'static) -> Self {
        Self {
            name,
            data: Data::Current,
            loss: Box::new(loss),
            rate: Rate::NETWORK,
            rates: Vec::new(),
            copy: None,
            repeat: 1,
            start: 0,
            heads_only: false,
            trust_region: None,
            guide: None,
        }
    }

    /// On other data.
    #[must_use]
    pub fn on(self, data: Data) -> Self {
        Self { data, ..self }
    }

    /// At another rate.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }

    /// At another rate for one head.
    #[must_use]
    pub fn rate_of(mut self, head: Head, rate: Rate) -> Self {
        self.rates.push((head, rate));
        self
    }

    /// Keeping a copy.
    #[must_use]
    pub fn keeping(self, copy: Option<ValueCopy>) -> Self {
        Self { copy, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::schedule::Shape;

    #[test]
    fn rates_follow_the_schedule_and_decay_besides() {
        let schedule = |start: Option<f64>| {
            let start = start.unwrap_or(1e-3);
            Schedule { start, end: 0.0, steps: 2000, decay: 1.0, shape: Shape::Linear }
        };
        let rate = Rate { start: None, decay: 0.999 };
        // The paper's factor after 1000 iterations, 0.999^1000 = 0.3677, at half the way to 0.
        assert!((rate.at(schedule, 1000) - 0.5e-3 * 0.367_695).abs() < 1e-9);
        assert_eq!(Rate::of(Some(2e-3)).at(schedule, 1000), 1e-3);
        assert_eq!(Rate::NETWORK.at(schedule, 0), 1e-3);
    }
}
