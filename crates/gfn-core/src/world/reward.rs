//! The contract of a reward, and of the modes that it defines.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::States;

/// Why a reward could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// An object has no value, for instance a gap in a table.
    #[error("no reward is known for object `{object}`: {reason}")]
    Unknown {
        /// The object as the environment renders it.
        object: String,
        /// What is missing and where it was looked for.
        reason: String,
    },
    /// A program that computes rewards failed, or gave something that is no reward.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
    },
}

impl RewardError {
    /// The raw value of an object has no positive reward.
    pub fn value(object: &str, value: f64) -> Self {
        let message = format!(
            "the object `{object}` has the value {value}, whose reward would not be positive; set \
             reward.transform.floor or reward.transform.reward_floor"
        );
        Self::Failed { message }
    }
}

/// What a reward knows of its own target where the space is too large to enumerate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetEstimate {
    /// log Z.
    pub log_z: f64,
    /// Its standard error; 0 if it is exact.
    pub log_z_error: f64,
    /// E over P* of log R(x).
    pub mean_log_reward: f64,
    /// Its standard error; 0 if it is exact.
    pub mean_error: f64,
}

/// What a reward knows exactly of its own target where the space is too large to enumerate.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactTarget {
    /// How, to be read after `by`.
    pub method: &'static str,
    /// ln of the number of objects with a positive reward.
    pub log_n_objects: f64,
    /// log Z.
    pub log_z: f64,
    /// E over P* of log R(x).
    pub mean_log_reward: f64,
    /// Entropy of P*, in nats.
    pub entropy: f64,
    /// Expectations over P* of other quantities, by what they are.
    pub expectations: Vec<(&'static str, f64)>,
    /// Probabilities under P* of what objects consist of.
    pub marginals: Vec<Marginals>,
}

/// Probabilities for every ordered pair of named things.
#[derive(Clone, Debug, PartialEq)]
pub struct Marginals {
    /// Of what: the row's name first.
    pub title: &'static str,
    /// Names of rows and columns.
    pub names: Vec<String>,
    /// Row by row.
    pub values: Vec<Vec<f64>>,
}

/// R(x) > 0 of terminal states, as log R(x) in nats.
pub trait Reward: Send + Sync {
    /// Writes log R of every row of `xs` to `out` (same length): finite or -infinity, never NaN.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError>;

    /// The same for objects that follow each other along trajectories: every state as if it were
    /// finished there. Rewards that are sums over parts of an object may compute differences.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    fn log_reward_along(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        self.log_reward(xs, out)
    }

    /// Whether all objects of a small environment may be scored for exact metrics.
    fn may_enumerate(&self) -> bool {
        true
    }

    /// How many rewards were really computed so far, where that is costly: without those that
    /// were remembered.
    fn computed(&self) -> Option<u64> {
        None
    }

    /// log Z = log of the sum of R(x) over all objects, where a closed form is known.
    fn log_partition(&self) -> Option<f64> {
        None
    }

    /// log Z and the mean log reward of the target, where they can be estimated without
    /// enumeration.
    fn target_estimate(&self) -> Option<TargetEstimate> {
        None
    }

    /// What is exactly known of the target, where that is possible without enumeration.
    fn exact_target(&self) -> Option<ExactTarget> {
        None
    }

    /// `n` independent samples of P* itself, where they can be drawn; the same for one seed.
    fn exact_samples(&self, _n: usize, _seed: u64) -> Option<States> {
        None
    }

    /// P* of each value of each cell that is observed of an object, cell by cell, where that is known
    /// without enumeration. What a cell's probabilities fall short of 1 is that of no value.
    fn cell_marginals(&self) -> Option<Vec<Vec<f64>>> {
        None
    }

    /// For each object, whether it has substructures that a learned reward has never seen, so that its
    /// value is extrapolated; none where the reward is not learned, or does not know.
    fn unlike(&self, _xs: &States) -> Option<Vec<bool>> {
        None
    }

    /// The values of objects that rewards are computed from, with a name of them that says their unit,
    /// such as `gap_ev`: for samples to be read by people. None where there are none of interest.
    ///
    /// # Errors
    /// When one of them cannot be computed.
    fn values(&self, _xs: &States) -> Result<Option<(String, Vec<f64>)>, RewardError> {
        Ok(None)
    }

    /// The reward itself, for metrics that are about its type.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Objects to measure correlations on where the space cannot be enumerated.
    fn test_objects(&self) -> Option<States> {
        None
    }

    /// The modes of this reward, if it defines any that do not depend on what has been found.
    fn modes(&self) -> Option<&dyn Modes> {
        None
    }

    /// Counts its modes where whether an object is one depends on those before it, such as on their
    /// distance; has seen nothing yet. Not asked for where it has [`modes`](Self::modes).
    fn mode_counter(&self) -> Option<Box<dyn ModeCounter>> {
        None
    }
}

/// A definition of modes: which terminal states count as having found which mode.
pub trait Modes: Send + Sync {
    /// The definition in words, for `metrics.schema.json`.
    fn definition(&self) -> String;

    /// How many modes there are, if that is known.
    fn count(&self) -> Option<u64>;

    /// Identifiers of the modes that a terminal row counts for; mostly none or one.
    fn modes_of(&self, row: &[i32], log_reward: f64) -> Vec<u64>;
}

/// What a [`ModeCounter`] says of modes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeCount {
    /// Their column is `modes_<suffix>`; `modes` where it is empty, as that of the first is.
    pub suffix: String,
    /// What a mode is, in words, for `metrics.schema.json`.
    pub definition: String,
    /// How many there are, if that is known.
    pub of: Option<u64>,
    /// How many have been found.
    pub found: u64,
}

/// Counts modes as objects come along, in their order. The same objects give the same counts.
pub trait ModeCounter: Send {
    /// What has been found, by kinds of modes: those of several thresholds are several. The first kind
    /// has no suffix, and only the numbers found ever change.
    fn counts(&self) -> Vec<ModeCount>;

    /// Sees objects, one terminal row each, with their log R.
    fn observe(&mut self, xs: &States, log_reward: &[f64]);

    /// What has been found, for a checkpoint: the same bytes for the same state.
    fn save(&self) -> Vec<u8>;

    /// Goes back to what [`save`](Self::save) returned.
    ///
    /// # Errors
    /// Says how the bytes are not of this counter.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// Counts the modes of a reward, if it defines any.
pub fn mode_counter(reward: &Arc<dyn Reward>) -> Option<Box<dyn ModeCounter>> {
    if reward.modes().is_none() {
        return reward.mode_counter();
    }
    Some(Box::new(DistinctModes { reward: reward.clone(), found: BTreeSet::new() }))
}

/// Counts the [`Modes`] of a reward.
struct DistinctModes {
    reward: Arc<dyn Reward>,
    found: BTreeSet<u64>,
}

impl DistinctModes {
    fn modes(&self) -> &dyn Modes {
        self.reward.modes().expect("it had some")
    }
}

impl ModeCounter for DistinctModes {
    fn counts(&self) -> Vec<ModeCount> {
        let modes = self.modes();
        vec![ModeCount {
            suffix: String::new(),
            definition: modes.definition(),
            of: modes.count(),
            found: self.found.len() as u64,
        }]
    }

    fn observe(&mut self, xs: &States, log_reward: &[f64]) {
        for (row, &log_reward) in xs.rows().zip(log_reward) {
            let modes = self.modes().modes_of(row, log_reward);
            self.found.extend(modes);
        }
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.found).expect("a set serialises")
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.found = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(())
    }
}
