//! Which objects are modes: the best fraction, those above a threshold, or a list.

use std::path::{Path, PathBuf};

use gfn_core::registry::RewardContext;
use gfn_core::{KeyError, Modes, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objects::{ObjectIndex, listed_objects, object_id};
use super::transform::LogReward;

/// What counts as a mode; none by default, and at most one of `fraction`, `threshold` and `list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModeSpec {
    /// The best objects that make up this fraction of all; for tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Objects with at least this raw value; at most, where the transform says that less is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The objects in the first column of this CSV file (with a header).
    #[serde(skip_serializing_if = "is_empty")]
    pub list: PathBuf,
    /// A listed mode is found by an object within this Hamming distance of it, in symbols.
    pub radius: usize,
}

pub(crate) fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl ModeSpec {
    /// Whether no modes are defined; such a table is left out of resolved specs.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the keys fit together.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        let ways = [self.fraction.is_some(), self.threshold.is_some(), !is_empty(&self.list)];
        if ways.iter().filter(|&&way| way).count() > 1 {
            let message = "modes are either a fraction, or those above a threshold, or listed";
            return Err(KeyError::new("modes", message)
                .help("keep one of modes.fraction, modes.threshold and modes.list"));
        }
        if self.fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            return Err(KeyError::new("modes", "modes.fraction lies between 0 and 1"));
        }
        if self.radius > 0 && is_empty(&self.list) {
            return Err(KeyError::new("modes", "modes.radius belongs to modes.list"));
        }
        Ok(())
    }

    /// The modes of a reward whose objects are not all known.
    ///
    /// # Errors
    /// When the keys do not fit together or the list cannot be used.
    pub fn build(
        &self,
        context: RewardContext<'_>,
        log_reward: &LogReward,
    ) -> Result<Option<ModeSet>, KeyError> {
        self.check()?;
        if self.fraction.is_some() {
            return Err(KeyError::new("modes", "modes.fraction needs the values of all objects")
                .help("give the value of the last mode instead: modes.threshold"));
        }
        if let Some(threshold) = self.threshold {
            // The reward is a monotone function of the value, so it can be compared instead.
            let log_threshold = log_reward.of(threshold).unwrap_or(f64::NEG_INFINITY);
            let definition = beyond(threshold, log_reward.less_is_better());
            return Ok(Some(ModeSet::Beyond { definition, log_threshold }));
        }
        self.listed(context)
    }

    fn listed(&self, context: RewardContext<'_>) -> Result<Option<ModeSet>, KeyError> {
        if is_empty(&self.list) {
            return Ok(None);
        }
        let objects = listed_objects(context, "modes", &self.list)?;
        let within = match self.radius {
            0 => "one of".to_owned(),
            radius => format!("found within Hamming distance {radius} of one of"),
        };
        let definition = format!("{within} the objects listed in {}", self.list.display());
        Ok(Some(ModeSet::objects(&objects, self.radius, definition)))
    }

    /// The modes among objects whose raw values are known.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn among(
        &self,
        context: RewardContext<'_>,
        values: &[f64],
        less_is_better: bool,
        object: impl Fn(usize) -> Vec<i32>,
    ) -> Result<Option<ModeSet>, KeyError> {
        self.check()?;
        let mut places: Vec<usize> = (0..values.len()).collect();
        // What is better is larger.
        let sign = if less_is_better { -1.0 } else { 1.0 };
        match (self.fraction, self.threshold) {
            (Some(fraction), _) => {
                places.sort_by(|&a, &b| (sign * values[b]).total_cmp(&(sign * values[a])));
                places.truncate((fraction * values.len() as f64) as usize);
            }
            (_, Some(threshold)) => {
                places.retain(|&place| sign * values[place] >= sign * threshold);
            }
            _ => return self.listed(context),
        }
        let mut objects = States::new(context.env.space().width);
        places.iter().for_each(|&place| objects.push(&object(place)));
        if objects.is_empty() {
            return Ok(None);
        }
        let least = places.iter().map(|&place| sign * values[place]).fold(f64::INFINITY, f64::min);
        let least = sign * least;
        let at_least = if less_is_better { "at most" } else { "at least" };
        let definition = match self.fraction {
            Some(fraction) => format!(
                "one of the best objects that make up a fraction {fraction} of the table (value \
                 {at_least} {least})"
            ),
            None => beyond(self.threshold.unwrap_or(least), less_is_better),
        };
        Ok(Some(ModeSet::objects(&objects, 0, definition)))
    }
}

/// The definition of modes by a threshold.
fn beyond(threshold: f64, less_is_better: bool) -> String {
    let at_least = if less_is_better { "at most" } else { "at least" };
    format!("an object with a value of {at_least} {threshold}")
}

/// The modes of a reward.
pub enum ModeSet {
    /// Known objects.
    Objects {
        /// The modes.
        objects: States,
        /// Their places.
        index: ObjectIndex,
        /// How near an object must come.
        radius: usize,
        /// In words.
        definition: String,
    },
    /// Every object with a good enough value; how many there are is not known.
    Beyond {
        /// In words.
        definition: String,
        /// log R of the threshold.
        log_threshold: f64,
    },
}

impl ModeSet {
    fn objects(listed: &States, radius: usize, definition: String) -> Self {
        let mut objects = States::new(listed.width());
        let (_, twice) = ObjectIndex::new(listed);
        for (i, row) in listed.rows().enumerate() {
            if !twice.iter().any(|&(_, again)| again == i) {
                objects.push(row);
            }
        }
        let (index, _) = ObjectIndex::new(&objects);
        Self::Objects { objects, index, radius, definition }
    }
}

impl Modes for ModeSet {
    fn definition(&self) -> String {
        match self {
            Self::Objects { definition, .. } | Self::Beyond { definition, .. } => {
                definition.clone()
            }
        }
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Objects { objects, .. } => Some(objects.len() as u64),
            Self::Beyond { .. } => None,
        }
    }

    fn modes_of(&self, row: &[i32], log_reward: f64) -> Vec<u64> {
        match self {
            Self::Objects { index, radius: 0, .. } => {
                index.place(row).map(|place| place as u64).into_iter().collect()
            }
            Self::Objects { objects, radius, .. } => {
                let distance = |mode: &[i32]| mode.iter().zip(row).filter(|(a, b)| a != b).count();
                let near = objects.rows().enumerate().filter(|(_, mode)| distance(mode) <= *radius);
                near.map(|(i, _)| i as u64).collect()
            }
            Self::Beyond { log_threshold, .. } => {
                let found = log_reward >= *log_threshold;
                found.then(|| object_id(row)).into_iter().collect()
            }
        }
    }
}
