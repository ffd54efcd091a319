//! HOMO-LUMO gaps of molecules by a Hückel model: no data, no network.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{KeyError, ModeCounter, Modes, Reward, RewardError, States};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::modes::{ModeSet, ModeSpec, is_empty};
use super::objects::listed_objects;
use super::transform::{LogReward, Transform};
use crate::chemistry::huckel::gap;
use crate::molecule::MoleculeWorld;

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
        let world = context.env_as::<MoleculeWorld>().ok_or_else(not_for_molecules)?.clone();
        let log_reward = self.transform.prepare(None)?;
        let values = |xs: &States| gaps(&world, xs);
        let modes = self.modes.build(context, &log_reward, Some(&values))?;
        let test = match is_empty(&self.test_set) {
            true => None,
            false => Some(listed_objects(context, "test_set", &self.test_set)?),
        };
        Ok(Box::new(HuckelReward { world, log_reward, modes, test }))
    }
}

/// The error of rewards for molecules in another environment.
pub fn not_for_molecules() -> KeyError {
    KeyError::new("kind", "this reward is for molecules").help("set env.kind = \"molecule\"")
}

struct HuckelReward {
    world: MoleculeWorld,
    log_reward: LogReward,
    modes: Option<ModeSet>,
    test: Option<States>,
}

fn gaps(world: &MoleculeWorld, xs: &States) -> Vec<f64> {
    (0..xs.len()).into_par_iter().map(|i| gap(&world.molecule(xs.row(i)))).collect()
}

impl Reward for HuckelReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (i, (value, out)) in gaps(&self.world, xs).into_iter().zip(out).enumerate() {
            let log_reward = self.log_reward.of(value).filter(|log_reward| !log_reward.is_nan());
            let object = || gfn_core::Environment::render(&self.world, xs.row(i));
            *out = log_reward.ok_or_else(|| RewardError::value(&object(), value))?;
        }
        Ok(())
    }

    fn values(&self, xs: &States) -> Result<Option<(String, Vec<f64>)>, RewardError> {
        Ok(Some(("gap_ev".to_owned(), gaps(&self.world, xs))))
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
