//! Which objects are modes: the best fraction, those above a threshold, or a list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gfn_core::metric::TestSet;
use gfn_core::registry::RewardContext;
use gfn_core::{Environment, KeyError, ModeCounter, Modes, RewardError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objects::{ObjectIndex, listed_objects, object_id};
use super::separated::{SeparatedCounter, Threshold};
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
    /// Modes are counted that are less similar to each other than this, by the bits that fingerprints
    /// share (Tanimoto): of all objects found, best first, each is a mode that is not as similar to one
    /// before it. The papers on molecules: 0.7. It goes with `thresholds` or `quantiles`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
    /// Modes that are separated by `similarity` are counted among objects with at least (at most, where
    /// less is better) each of these raw values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<f64>,
    /// Or with a reward above these quantiles of those of 10,000 objects at the ends of uniform
    /// actions, spread over the lengths of trajectories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<f64>,
}

/// Raw values of objects, where they can be computed before a run begins.
pub type Values<'a> = &'a dyn Fn(&States) -> Result<Vec<f64>, RewardError>;

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
        let ways = [
            self.fraction.is_some(),
            self.threshold.is_some(),
            !is_empty(&self.list),
            self.similarity.is_some(),
        ];
        if ways.iter().filter(|&&way| way).count() > 1 {
            let message = "modes are either a fraction, or those above a threshold, or listed";
            return Err(KeyError::new("modes", message).help(
                "keep one of modes.fraction, modes.threshold, modes.list and modes.similarity",
            ));
        }
        let kinds = [!self.thresholds.is_empty(), !self.quantiles.is_empty()];
        let wanted = usize::from(self.similarity.is_some());
        if kinds.iter().filter(|&&given| given).count() != wanted {
            let message = "modes.similarity goes with one of modes.thresholds and modes.quantiles";
            return Err(KeyError::new("modes", message)
                .help("as in the papers on molecules: similarity = 0.7 with thresholds"));
        }
        if self.similarity.is_some_and(|similarity| !(similarity > 0.0 && similarity <= 1.0)) {
            return Err(KeyError::new("modes", "modes.similarity lies above 0 and up to 1"));
        }
        if self.quantiles.iter().any(|quantile| !(0.0..1.0).contains(quantile)) {
            return Err(KeyError::new("modes", "modes.quantiles lie from 0 to below 1"));
        }
        if self.fraction.is_some_and(|fraction| !(0.0..=1.0).contains(&fraction)) {
            return Err(KeyError::new("modes", "modes.fraction lies between 0 and 1"));
        }
        if self.radius > 0 && is_empty(&self.list) {
            return Err(KeyError::new("modes", "modes.radius belongs to modes.list"));
        }
        Ok(())
    }

    /// The modes of a reward whose objects are not all known. `values` computes the raw values of
    /// some.
    ///
    /// # Errors
    /// When the keys do not fit together or the list cannot be used.
    pub fn build(
        &self,
        context: RewardContext<'_>,
        log_reward: &LogReward,
        values: Option<Values<'_>>,
    ) -> Result<Option<ModeSet>, KeyError> {
        self.check()?;
        if let Some(similarity) = self.similarity {
            return self.separated(context, similarity, log_reward, values).map(Some);
        }
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

    /// Modes that are separated by the similarity of their fingerprints.
    fn separated(
        &self,
        context: RewardContext<'_>,
        similarity: f64,
        log_reward: &LogReward,
        values: Option<Values<'_>>,
    ) -> Result<ModeSet, KeyError> {
        let env = context.env;
        let objects = TestSet::walks(&**env, if self.quantiles.is_empty() { 1 } else { 10_000 }, 0);
        if objects.objects.is_empty() || env.fingerprint(objects.objects.row(0)).is_none() {
            let message = "modes.similarity needs objects with fingerprints, as molecules have";
            return Err(KeyError::new("modes", message));
        }
        let mut thresholds = Vec::new();
        for &value in &self.thresholds {
            let definition = beyond(value, log_reward.less_is_better());
            let least = log_reward.of(value).unwrap_or(f64::NEG_INFINITY);
            thresholds.push(Threshold { name: value.to_string(), definition, least });
        }
        if !self.quantiles.is_empty() {
            let values = values.ok_or_else(|| {
                let message = "modes.quantiles needs a reward that is computed here";
                KeyError::new("modes", message).help("give raw values: modes.thresholds")
            })?;
            let of = |value| log_reward.of(value).unwrap_or(f64::NEG_INFINITY);
            let values = values(&objects.objects)
                .map_err(|error| KeyError::new("modes", error.to_string()))?;
            let mut all: Vec<f64> = values.into_iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            for &quantile in &self.quantiles {
                let least = all[(quantile * all.len() as f64) as usize];
                let definition = format!(
                    "an object whose log reward is at least {least:.4}, the {quantile} quantile of \
                     {} {}",
                    all.len(),
                    objects.origin
                );
                thresholds.push(Threshold { name: format!("q{quantile}"), definition, least });
            }
        }
        Ok(ModeSet::Separated { env: env.clone(), similarity, thresholds })
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
        if self.similarity.is_some() {
            return Err(KeyError::new("modes", "modes.similarity is not for tables"));
        }
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
    /// Objects whose reward is high enough and that are unlike each other.
    Separated {
        /// Theirs.
        env: Arc<dyn Environment>,
        /// The similarity from which on two objects are one mode.
        similarity: f64,
        /// How high.
        thresholds: Vec<Threshold>,
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

impl ModeSet {
    /// The modes, unless whether an object is one depends on others.
    pub fn independent(&self) -> Option<&dyn Modes> {
        match self {
            Self::Separated { .. } => None,
            _ => Some(self),
        }
    }

    /// Counts them, if whether an object is one depends on others.
    pub fn counter(&self) -> Option<Box<dyn ModeCounter>> {
        match self {
            Self::Separated { env, similarity, thresholds } => {
                Some(Box::new(SeparatedCounter::new(env.clone(), *similarity, thresholds.clone())))
            }
            _ => None,
        }
    }
}

impl Modes for ModeSet {
    fn definition(&self) -> String {
        match self {
            Self::Objects { definition, .. } | Self::Beyond { definition, .. } => {
                definition.clone()
            }
            Self::Separated { .. } => String::new(),
        }
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Objects { objects, .. } => Some(objects.len() as u64),
            Self::Beyond { .. } | Self::Separated { .. } => None,
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
            Self::Separated { .. } => Vec::new(),
        }
    }
}
