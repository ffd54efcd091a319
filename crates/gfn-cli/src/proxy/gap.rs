//! The reward kind `gap`: HOMO-LUMO gaps of molecules by a network that is part of the program.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward};
use gfn_envs::molecule::MoleculeWorld;
use gfn_envs::reward::huckel::{molecule_modes, qm9_transform};
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::transform::Transform;
use gfn_envs::reward::value::ValueKeys;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reward::proxy_reward;
use super::settings::is_empty;

/// The network, made by `gfn proxy train configs/proxies/qm9_gap.toml`; its card lies beside it.
const WEIGHTS: &[u8] = include_bytes!("../../proxies/qm9_gap.safetensors");
/// Settings of the reward `gap`.
///
/// Values are gaps in eV, and r = 1 - (gap - q)/w between 1e-4 and 2, R = r^10, as in Gritsaev et al. 2025
/// (arXiv:2410.15474), with the true constants of QM9 (B3LYP): q = 4.789 eV, the gap at 5 % of their
/// order, and w = 16.259 eV, the range. The papers' own network (MXMNet on a geometry) cannot be had:
/// this one sees the graph alone, and its errors are in its card, `crates/gfn-cli/proxies/qm9_gap.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GapSpec {
    /// From values in eV to rewards.
    pub transform: Transform,
    /// The reward of a molecule is multiplied by this, above 0 and up to 1, for each of its atoms with
    /// bonds, neighbours and rings such as no molecule of QM9 has: its gap is extrapolated. 1 is the papers'
    /// way.
    pub unlike: f64,
    /// Which molecules are modes.
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names molecules (SMILES) to measure correlations on,
    /// where the environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Default for GapSpec {
    fn default() -> Self {
        Self {
            transform: qm9_transform(),
            unlike: 1.0,
            modes: molecule_modes(),
            test_set: PathBuf::new(),
        }
    }
}

impl Kind<RewardAxis> for GapSpec {
    const NAME: &'static str = "gap";
    const SUMMARY: &'static str = "small HOMO-LUMO gaps of molecules, by a network trained on QM9 that is part of the program";
    const PAPER: Option<&'static str> = Some("arXiv:2410.15474");

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if context.env_as::<MoleculeWorld>().is_none() {
            return Err(KeyError::new("kind", "this reward is for molecules of C, N, O and F")
                .help("set env.kind = \"molecule\""));
        }
        let file = ("the network of reward.kind = \"gap\"", WEIGHTS);
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        let reward = proxy_reward(context, file, "gap_ev", keys)?;
        Ok(Box::new(reward.with_unlike(Some(self.unlike))?))
    }
}
