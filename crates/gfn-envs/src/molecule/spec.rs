//! Settings of molecules.

use gfn_core::registry::{EnvAxis, EnvContext, Kind};
use gfn_core::{Environment, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MoleculeWorld, Valence};
use crate::canonical::MAX_VERTICES;
use crate::symmetry::Symmetry;

/// What may be done to a molecule.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ActionSet {
    /// Add an atom, close a ring, make a bond double or triple: every object is a neutral molecule.
    #[default]
    AtomsBonds,
    /// Besides, set the charge of an atom.
    Charges,
    /// Besides, set the sense of a stereocentre, and a number of hydrogens below what the valence
    /// leaves room for (a radical).
    Full,
}

/// Settings of [`MoleculeWorld`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MoleculeSpec {
    /// The most atoms besides hydrogen, from 1 to 16. QM9 has up to 9; the papers use 8.
    pub max_atoms: usize,
    /// What may be done.
    pub actions: ActionSet,
    /// What the actions of a state stand for.
    pub symmetry: Symmetry,
    /// How many bonds atoms form.
    pub valence: Valence,
}

impl Default for MoleculeSpec {
    fn default() -> Self {
        Self {
            max_atoms: 9,
            actions: ActionSet::default(),
            symmetry: Symmetry::default(),
            valence: Valence::default(),
        }
    }
}

impl Kind<EnvAxis> for MoleculeSpec {
    const NAME: &'static str = "molecule";
    const SUMMARY: &'static str = "molecules of C, N, O and F, atom by atom and bond by bond";
    const PAPER: Option<&'static str> = Some("arXiv:2410.15474");

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        Ok(Box::new(MoleculeWorld::new(self)?))
    }
}

impl MoleculeSpec {
    pub(super) fn check(&self) -> Result<(), KeyError> {
        if !(1..=MAX_VERTICES).contains(&self.max_atoms) {
            let message = format!("{} is not from 1 to {MAX_VERTICES}", self.max_atoms);
            return Err(KeyError::new("max_atoms", message)
                .help("QM9 has up to 9 atoms besides hydrogen; the papers use 8"));
        }
        Ok(())
    }
}
