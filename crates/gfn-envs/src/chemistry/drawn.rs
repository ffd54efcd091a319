//! Molecules as the objects of an environment are drawn.

use super::molecule::Molecule;

/// A molecule with what its environment knows besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrawnMolecule {
    /// In one of its Kekulé forms.
    pub molecule: Molecule,
    /// Which of its bonds are aromatic, in their order.
    pub aromatic: Vec<bool>,
    /// Atoms where something could still be attached.
    pub open: Vec<usize>,
}

impl DrawnMolecule {
    /// A molecule that nothing is attached to any more.
    ///
    /// # Panics
    ///
    /// As [`Molecule::canonical_smiles`].
    pub fn finished(molecule: Molecule) -> Self {
        let aromatic = molecule.aromatic_bonds();
        Self { molecule, aromatic, open: Vec::new() }
    }
}

/// An environment whose objects are molecules.
pub trait Molecules: Send + Sync {
    /// The molecule of a row.
    fn drawn(&self, row: &[i32]) -> DrawnMolecule;
}
