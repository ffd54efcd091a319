//! The reward kind `proxy`: values by a network that `gfn proxy train` made.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward, RewardError, States};
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::remembered::Remembered;
use gfn_envs::reward::transform::Transform;
use gfn_envs::reward::value::{ObjectValues, ValueKeys, ValueReward};
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
    /// The reward of an object is multiplied by this, above 0 and up to 1, for each of its substructures
    /// that the network has never seen: its value is extrapolated.
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
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        proxy_reward(context, (&name, &bytes), "value", keys)
            .and_then(|reward| reward.with_unlike(self.unlike))
            .map(|reward| Box::new(reward) as Box<dyn Reward>)
            .map_err(|error| KeyError { key: error.key.or(Some("weights".to_owned())), ..error })
    }
}

/// R(x) from what a network predicts, by [`Transform`].
pub type ProxyReward = ValueReward<ProxyValues>;

/// Values that a network predicts.
pub struct ProxyValues {
    predictor: Predictor,
    remembered: Remembered,
    computed: AtomicU64,
    /// What values are called in samples.
    column: &'static str,
}

/// Cells of the rows of all objects whose values are remembered: 32 MB.
const CELLS: usize = 1 << 23;

/// A reward by the content of a file, which may be part of the program (`include_bytes!`), with what it
/// is called in messages and the values in samples.
///
/// # Errors
/// When the file is damaged or for another environment (then without a key), or another setting does not
/// fit.
pub fn proxy_reward(
    context: RewardContext<'_>,
    (name, bytes): (&str, &[u8]),
    column: &'static str,
    keys: ValueKeys<'_>,
) -> Result<ProxyReward, KeyError> {
    let predictor = Predictor::load(context.env, bytes).map_err(|unusable| {
        let message = format!("{name} {unusable}");
        match unusable {
            Unusable::Damaged(_) => KeyError { data: true, ..KeyError::part(message) }
                .help("get the file again, or make it anew with `gfn proxy train`"),
            Unusable::Foreign(_) => KeyError::part(message)
                .help("name a file that `gfn proxy train` made for the same [env]"),
        }
    })?;
    let width = context.env.space().width;
    let remembered = Remembered::new(width, CELLS / width.max(1));
    let values = ProxyValues { predictor, remembered, computed: AtomicU64::new(0), column };
    ValueReward::new(context, values, keys)
}

impl ProxyValues {
    /// The network.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }
}

impl ObjectValues for ProxyValues {
    /// In the unit of the table.
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError> {
        self.remembered.values(xs, |xs| {
            self.computed.fetch_add(xs.len() as u64, Ordering::Relaxed);
            Ok(self.predictor.values(xs))
        })
    }

    fn column(&self) -> Option<&str> {
        Some(self.column)
    }

    fn computed(&self) -> Option<u64> {
        Some(self.computed.load(Ordering::Relaxed))
    }

    fn unknown(&self, xs: &States) -> Option<Vec<u32>> {
        self.predictor.unknown(xs)
    }
}
