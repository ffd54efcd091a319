//! HOMO-LUMO gaps of molecules by a Hückel model: no data, no network.

use std::path::PathBuf;
use std::sync::Arc;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, Reward, RewardError, States};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::modes::{ModeSpec, is_empty};
use super::molecules::{molecules_of, not_for_molecules};
use super::transform::Transform;
use super::value::{ObjectValues, ValueKeys, ValueReward};
use crate::chemistry::huckel::gap_of;
use crate::chemistry::{DrawnMolecule, Molecules};

/// eV.
const HARTREE: f64 = 27.211_386_245_988;
/// Of the gaps of 130,831 molecules of QM9 (B3LYP), in Hartree: the one at 5 % of their order, and the
/// distance of the largest and the smallest one.
const LOW_GAP: f64 = 0.1760;
const GAP_RANGE: f64 = 0.5975;

/// From gaps in eV to rewards as in Gritsaev et al. 2025 (arXiv:2410.15474): r = 1 - (gap - q)/w between
/// 1e-4 and 2, R = r^10, with the true constants of QM9: q = 4.789 eV, w = 16.259 eV.
pub fn qm9_transform() -> Transform {
    Transform {
        zero: Some((LOW_GAP + GAP_RANGE) * HARTREE),
        one: Some(LOW_GAP * HARTREE),
        floor: Some(1e-4),
        ceiling: Some(2.0),
        beta: 10.0,
        ..Transform::default()
    }
}

/// Modes that are less similar than 0.7, as in the papers, above quantiles of the reward.
pub fn molecule_modes() -> ModeSpec {
    ModeSpec { similarity: Some(0.7), quantiles: vec![0.9, 0.99, 0.999], ..ModeSpec::default() }
}

/// A small HOMO-LUMO gap, by a Hückel model of π electrons, lone pairs and σ bonds: a function of the
/// graph, fitted to QM9 (rank correlation 0.92 with its gaps).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HuckelSpec {
    /// From values in eV to rewards.
    pub transform: Transform,
    /// Which molecules are modes.
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names molecules (SMILES) to measure correlations on,
    /// where the environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Default for HuckelSpec {
    fn default() -> Self {
        Self { transform: qm9_transform(), modes: molecule_modes(), test_set: PathBuf::new() }
    }
}

impl Kind<RewardAxis> for HuckelSpec {
    const NAME: &'static str = "huckel";
    const SUMMARY: &'static str = "small HOMO-LUMO gaps of molecules, by a Hückel model";

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let molecules = molecules_of(context.env).ok_or_else(not_for_molecules)?;
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        Ok(Box::new(ValueReward::new(context, HuckelGaps { molecules }, keys)?))
    }
}

struct HuckelGaps {
    molecules: Arc<dyn Molecules>,
}

impl ObjectValues for HuckelGaps {
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError> {
        let gap = |i| {
            let DrawnMolecule { molecule, aromatic, .. } = self.molecules.drawn(xs.row(i));
            gap_of(&molecule, &aromatic)
        };
        Ok((0..xs.len()).into_par_iter().map(gap).collect())
    }

    fn column(&self) -> Option<&str> {
        Some("gap_ev")
    }
}
