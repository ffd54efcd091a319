//! The reward kind `proxy`: values by a network that `gfn proxy train` made.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::row_index::RowIndex;
use gfn_core::{KeyError, ModeCounter, Modes, Reward, RewardError, States};
use gfn_envs::reward::modes::{ModeSet, ModeSpec};
use gfn_envs::reward::objects::listed_objects;
use gfn_envs::reward::transform::{LogReward, Transform};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::predictor::Predictor;
use super::settings::is_empty;
use super::weights::Unusable;

/// Settings of [`ProxyReward`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyRewardSpec {
    /// A file that `gfn proxy train` made, for objects of the same environment.
    pub weights: PathBuf,
    /// From values to rewards.
    #[serde(skip_serializing_if = "Transform::is_identity")]
    pub transform: Transform,
    /// The reward of objects with substructures that the network has never seen is multiplied by this,
    /// above 0 and up to 1: their values are extrapolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlike: Option<f64>,
    /// Which objects are modes.
    #[serde(skip_serializing_if = "ModeSpec::is_none")]
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names objects to measure correlations on, where
    /// the environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Kind<RewardAxis> for ProxyRewardSpec {
    const NAME: &'static str = "proxy";
    const SUMMARY: &'static str = "a network trained on a table of values: `gfn proxy train`";
    const NEUTRAL_KEYS: &'static [&'static str] = &["weights"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if is_empty(&self.weights) {
            return Err(KeyError::data("weights", "no weights are given")
                .help("name a file that `gfn proxy train` made: -s reward.weights=FILE"));
        }
        let bytes = context.files.read_for("weights", &self.weights)?;
        let name = format!("`{}`", self.weights.display());
        let reward =
            ProxyReward::of(context, (&name, &bytes), &self.transform, &self.modes, &self.test_set);
        reward
            .and_then(|reward| reward.with_unlike(self.unlike))
            .map(|reward| Box::new(reward) as Box<dyn Reward>)
            .map_err(|error| KeyError { key: error.key.or(Some("weights".to_owned())), ..error })
    }
}

/// R(x) from what a network predicts, by [`Transform`].
pub struct ProxyReward {
    predictor: Predictor,
    log_reward: LogReward,
    modes: Option<ModeSet>,
    test: Option<States>,
    remembered: Mutex<Remembered>,
    computed: AtomicU64,
    /// What values are called in samples.
    name: String,
    /// What is added to log R of objects unlike those trained on, unless that is nothing.
    unlike: Option<f64>,
}

impl ProxyReward {
    /// A reward by the content of a file, which may be part of the program (`include_bytes!`), and
    /// what it is called in messages. `test_set` may be empty.
    ///
    /// # Errors
    /// When the file is damaged or for another environment (then without a key), or another setting
    /// does not fit.
    pub fn of(
        context: RewardContext<'_>,
        (name, bytes): (&str, &[u8]),
        transform: &Transform,
        modes: &ModeSpec,
        test_set: &Path,
    ) -> Result<Self, KeyError> {
        let log_reward = transform.prepare(None)?;
        let predictor = Predictor::load(context.env, bytes).map_err(|unusable| {
            let message = format!("{name} {unusable}");
            match unusable {
                Unusable::Damaged(_) => KeyError { data: true, ..KeyError::part(message) }
                    .help("get the file again, or make it anew with `gfn proxy train`"),
                Unusable::Foreign(_) => KeyError::part(message)
                    .help("name a file that `gfn proxy train` made for the same [env]"),
            }
        })?;
        let modes = modes.build(context, &log_reward, Some(&|xs| predictor.values(xs)))?;
        let test = match is_empty(test_set) {
            true => None,
            false => Some(listed_objects(context, "test_set", test_set)?),
        };
        let remembered = Mutex::new(Remembered::new(context.env.space().width));
        let computed = AtomicU64::new(0);
        let name = "value".to_owned();
        let unlike = None;
        Ok(Self { predictor, log_reward, modes, test, remembered, computed, name, unlike })
    }

    /// With rewards of objects unlike those trained on multiplied by a factor.
    ///
    /// # Errors
    /// When it is no factor from above 0 to 1.
    pub fn with_unlike(self, factor: Option<f64>) -> Result<Self, KeyError> {
        if let Some(factor) = factor.filter(|factor| !(*factor > 0.0 && *factor <= 1.0)) {
            let message = format!("a factor above 0 and up to 1, not {factor}");
            return Err(KeyError::new("unlike", message)
                .help("1 leaves rewards as they are; for none at all choose a very small one"));
        }
        Ok(Self { unlike: factor.map(f64::ln).filter(|log| *log < 0.0), ..self })
    }

    /// With another name of the values in samples.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The network.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// The value of each object, in the unit of the table: each distinct one is computed once.
    pub fn values(&self, xs: &States) -> Vec<f64> {
        let mut values = vec![0.0; xs.len()];
        let (mut fresh, mut index) = (States::new(xs.width()), RowIndex::new(None));
        // Objects that are not remembered, with their places in `fresh`.
        let mut waiting = Vec::new();
        let mut remembered = self.remembered.lock().expect("no thread panics with it");
        for (i, row) in xs.rows().enumerate() {
            if let Some(value) = remembered.get(row) {
                values[i] = value;
                continue;
            }
            let place = index.get(&fresh, row).unwrap_or_else(|| {
                fresh.push(row);
                index.insert_last(&fresh);
                fresh.len() as u32 - 1
            });
            waiting.push((i, place as usize));
        }
        drop(remembered);
        if fresh.is_empty() {
            return values;
        }
        let computed = self.predictor.values(&fresh);
        self.computed.fetch_add(computed.len() as u64, Ordering::Relaxed);
        waiting.into_iter().for_each(|(i, place)| values[i] = computed[place]);
        let mut remembered = self.remembered.lock().expect("no thread panics with it");
        for (row, &value) in fresh.rows().zip(&computed) {
            remembered.insert(row, value);
        }
        values
    }
}

impl Reward for ProxyReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (i, (value, out)) in Self::values(self, xs).into_iter().zip(&mut *out).enumerate() {
            *out = self
                .log_reward
                .of(value)
                .filter(|log_reward| !log_reward.is_nan())
                .ok_or_else(|| RewardError::value(&self.predictor.render(xs.row(i)), value))?;
        }
        if let Some(log_factor) = self.unlike
            && let Some(unlike) = self.predictor.unlike(xs)
        {
            let unlike = unlike.into_iter().zip(out).filter(|(unlike, _)| *unlike);
            unlike.for_each(|(_, out)| *out += log_factor);
        }
        Ok(())
    }

    fn values(&self, xs: &States) -> Result<Option<(String, Vec<f64>)>, RewardError> {
        Ok(Some((self.name.clone(), Self::values(self, xs))))
    }

    fn computed(&self) -> Option<u64> {
        Some(self.computed.load(Ordering::Relaxed))
    }

    fn unlike(&self, xs: &States) -> Option<Vec<bool>> {
        self.predictor.unlike(xs)
    }

    fn test_objects(&self) -> Option<States> {
        self.test.clone()
    }

    fn modes(&self) -> Option<&dyn Modes> {
        self.modes.as_ref().and_then(ModeSet::independent)
    }

    fn mode_counter(&self) -> Option<Box<dyn ModeCounter>> {
        self.modes.as_ref().and_then(ModeSet::counter)
    }
}

/// Values of objects that were computed before, a bounded number of them: those of the last two
/// generations. What is asked for again is of the young one.
struct Remembered {
    young: Generation,
    old: Generation,
    /// Objects in a generation.
    limit: usize,
}

struct Generation {
    objects: States,
    index: RowIndex,
    values: Vec<f64>,
}

/// Cells of the rows of a generation: 16 MB.
const CELLS: usize = 1 << 22;

impl Generation {
    fn new(width: usize) -> Self {
        let (objects, index) = (States::new(width), RowIndex::new(None));
        Self { objects, index, values: Vec::new() }
    }

    fn get(&self, row: &[i32]) -> Option<f64> {
        self.index.get(&self.objects, row).map(|place| self.values[place as usize])
    }
}

impl Remembered {
    fn new(width: usize) -> Self {
        let (young, old) = (Generation::new(width), Generation::new(width));
        Self { young, old, limit: CELLS / width.max(1) + 1 }
    }

    fn get(&mut self, row: &[i32]) -> Option<f64> {
        if let Some(value) = self.young.get(row) {
            return Some(value);
        }
        let value = self.old.get(row)?;
        self.insert(row, value);
        Some(value)
    }

    fn insert(&mut self, row: &[i32], value: f64) {
        if self.young.get(row).is_some() {
            return;
        }
        if self.young.values.len() >= self.limit {
            let width = self.young.objects.width();
            self.old = std::mem::replace(&mut self.young, Generation::new(width));
        }
        self.young.objects.push(row);
        self.young.index.insert_last(&self.young.objects);
        self.young.values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_objects_are_remembered_and_memory_is_bounded() {
        let mut remembered = Remembered { limit: 10, ..Remembered::new(1) };
        for i in 0..1000 {
            remembered.insert(&[i], f64::from(i));
            // Asked for again and again.
            assert_eq!(remembered.get(&[0]), Some(0.0), "{i}");
            assert_eq!(remembered.get(&[i]), Some(f64::from(i)));
            assert_eq!(remembered.get(&[i - 1]), (i >= 1).then(|| f64::from(i - 1)));
            let kept = remembered.young.values.len() + remembered.old.values.len();
            assert!(kept <= 20, "{kept}");
        }
        assert_eq!(remembered.get(&[3]), None);
    }
}
