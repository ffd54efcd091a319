//! The reward kind `gap`: HOMO-LUMO gaps of molecules by a network that is part of the program.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward};
use gfn_envs::molecule::MoleculeWorld;
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::transform::Transform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reward::ProxyReward;
use super::settings::is_empty;

/// The network, made by `gfn proxy train configs/proxies/qm9_gap.toml`; its card lies beside it.
const WEIGHTS: &[u8] = include_bytes!("../../proxies/qm9_gap.safetensors");
/// eV.
const HARTREE: f64 = 27.211_386_245_988;
/// Of the gaps of 130,831 molecules of QM9, in Hartree: the one at 5 % of their order, and the distance
/// of the largest and the smallest one.
const LOW_GAP: f64 = 0.1760;
const GAP_RANGE: f64 = 0.5975;

/// Settings of the reward `gap`.
///
/// Values are gaps in eV, and r = 1 - (gap - q)/w between 1e-4 and 2, R = r^10, as in Gritsaev et al. 2025
/// (arXiv:2410.15474), with the true constants of QM9: q = 4.789 eV, the gap at 5 % of their order, and
/// w = 16.259 eV, the range. The papers' own network (MXMNet on a geometry) cannot be had: this one sees
/// the graph alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GapSpec {
    /// From values in eV to rewards.
    pub transform: Transform,
    /// Which molecules are modes.
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names molecules (SMILES) to measure correlations on,
    /// where the environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Default for GapSpec {
    fn default() -> Self {
        let transform = Transform {
            zero: Some((LOW_GAP + GAP_RANGE) * HARTREE),
            one: Some(LOW_GAP * HARTREE),
            floor: Some(1e-4),
            ceiling: Some(2.0),
            beta: 10.0,
            ..Transform::default()
        };
        let modes = ModeSpec {
            similarity: Some(0.7),
            quantiles: vec![0.9, 0.99, 0.999],
            ..ModeSpec::default()
        };
        Self { transform, modes, test_set: PathBuf::new() }
    }
}

impl Kind<RewardAxis> for GapSpec {
    const NAME: &'static str = "gap";
    const SUMMARY: &'static str = "small HOMO-LUMO gaps of molecules, by a network trained on QM9 that is part of the program";
    const PAPER: Option<&'static str> = Some("arXiv:2410.15474");

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if context.env_as::<MoleculeWorld>().is_none() {
            return Err(KeyError::new("kind", "this reward is for molecules")
                .help("set env.kind = \"molecule\""));
        }
        let file = ("the network of reward.kind = \"gap\"", WEIGHTS);
        let reward = ProxyReward::of(context, file, &self.transform, &self.modes, &self.test_set)?;
        Ok(Box::new(reward))
    }
}
