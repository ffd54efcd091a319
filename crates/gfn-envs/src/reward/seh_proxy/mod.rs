//! The sEH proxy of the papers on molecules: a network that Bengio et al. trained on docking scores, as
//! published.

pub mod features;
pub mod network;
mod product;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward, RewardError, States};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::modes::{ModeSpec, is_empty};
use super::molecules::{molecules_of, not_for_molecules};
use super::remembered::Remembered;
use super::transform::Transform;
use super::value::{ObjectValues, ValueKeys, ValueReward};
use crate::chemistry::Molecules;
use features::Input;
use network::Network;

/// Settings of the reward `seh_proxy`.
///
/// Values s are binding scores of molecules to soluble epoxide hydrolase, as a network predicts them that
/// Bengio et al. 2021 (arXiv:2106.04399) trained on docking: an MPNN of twelve steps over heavy atoms, with
/// the published weights. In the papers' test set half of the scores lie from 1.8 to 5.5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SehProxySpec {
    /// The network, a safetensors file: `gfn data fetch sehproxy`.
    pub path: PathBuf,
    /// Whether atoms where a fragment could still be attached are marked in the network's input; where there
    /// is none, the first atom is. So did the network's authors, in training it too, and Tiapkin et al.
    /// (arXiv:2310.12934); Gritsaev et al. (arXiv:2410.15474) mark none. Scores differ by up to 2.6, and with
    /// marks they depend on which atom is the first: of the drawing that the environment makes of an
    /// object.
    pub stem_mask: bool,
    /// Scores to remember, at most; 0 to compute them anew every time.
    pub cache: usize,
    /// From scores to rewards. Default: R = clip(s/8, 1e-4, 100)^10, as in arXiv:2410.15474. The reward of
    /// arXiv:2310.12934, (max(0.1, s)/8)^10, is { floor = 0.1, scale = 0.125, exponent = 10 }.
    pub transform: Transform,
    /// Which molecules are modes. Default: those that are less similar than 0.7, with scores of at least 7,
    /// 7.5 and 8.
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names objects to measure correlations on, where the
    /// environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Default for SehProxySpec {
    fn default() -> Self {
        let transform = Transform {
            zero: Some(0.0),
            one: Some(8.0),
            floor: Some(1e-4),
            ceiling: Some(100.0),
            beta: 10.0,
            ..Transform::default()
        };
        let thresholds = vec![7.0, 7.5, 8.0];
        Self {
            path: "seh_proxy.safetensors".into(),
            stem_mask: false,
            cache: 200_000,
            transform,
            modes: ModeSpec { similarity: Some(0.7), thresholds, ..ModeSpec::default() },
            test_set: PathBuf::new(),
        }
    }
}

impl Kind<RewardAxis> for SehProxySpec {
    const NAME: &'static str = "seh_proxy";
    const SUMMARY: &'static str =
        "binding of molecules to sEH, by the network of Bengio et al. 2021";
    const PAPER: Option<&'static str> = Some("arXiv:2106.04399");
    const NEUTRAL_KEYS: &'static [&'static str] = &["path", "cache"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let molecules = molecules_of(context.env).ok_or_else(not_for_molecules)?;
        let bytes = context.files.read_for("path", &self.path)?;
        let network = Network::read(&bytes).map_err(|message| {
            let message = format!("`{}` {message}", self.path.display());
            KeyError::data("path", message).help("get the network anew: `gfn data fetch sehproxy`")
        })?;
        let values = Scores {
            molecules,
            network,
            stem_mask: self.stem_mask,
            remembered: Remembered::new(context.env.space().width, self.cache),
            computed: AtomicU64::new(0),
        };
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        Ok(Box::new(ValueReward::new(context, values, keys)?))
    }
}

struct Scores {
    molecules: Arc<dyn Molecules>,
    network: Network,
    stem_mask: bool,
    remembered: Remembered,
    computed: AtomicU64,
}

impl ObjectValues for Scores {
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError> {
        self.remembered.values(xs, |xs| {
            self.computed.fetch_add(xs.len() as u64, Ordering::Relaxed);
            let input = |i| Input::of(&self.molecules.drawn(xs.row(i)), self.stem_mask);
            let inputs: Vec<Input> = (0..xs.len()).into_par_iter().map(input).collect();
            Ok(self.network.scores(&inputs))
        })
    }

    fn column(&self) -> Option<&str> {
        Some("seh")
    }

    fn computed(&self) -> Option<u64> {
        Some(self.computed.load(Ordering::Relaxed))
    }
}
