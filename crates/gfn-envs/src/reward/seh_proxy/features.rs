//! What the network sees of a molecule: 71 numbers of each heavy atom, and kinds of bonds.

use crate::chemistry::{DrawnMolecule, Hybridisation};

/// Numbers of an atom.
pub const WIDTH: usize = 71;
/// The last of them: whether the atom is open.
const OPEN: usize = 70;

/// A molecule as the network takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Its heavy atoms.
    pub atoms: Vec<AtomInput>,
    /// Pairs of them.
    pub bonds: Vec<([usize; 2], BondKind)>,
}

/// What is seen of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomInput {
    /// The atomic number.
    pub element: u8,
    /// Whether it has an aromatic bond.
    pub aromatic: bool,
    /// As RDKit assigns it.
    pub hybridisation: Hybridisation,
    /// All hydrogens bound to it.
    pub hydrogens: u8,
    /// Whether it is marked as open.
    pub open: bool,
}

/// The bonds that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BondKind {
    /// A single bond.
    Single,
    /// A double bond.
    Double,
    /// A triple bond.
    Triple,
    /// An aromatic bond.
    Aromatic,
}

impl BondKind {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 4] = [Self::Single, Self::Double, Self::Triple, Self::Aromatic];
}

impl AtomInput {
    /// Its columns that are not 0, in order, with their numbers.
    pub fn columns(self) -> impl Iterator<Item = (usize, f32)> {
        let element = usize::from(self.element);
        let kind = match self.element {
            1 => 0,
            element @ 6..=9 => usize::from(element) - 5,
            _ => 5,
        };
        let orbitals = match self.hybridisation {
            Hybridisation::Sp => Some(10),
            Hybridisation::Sp2 => Some(11),
            Hybridisation::Sp3 => Some(12),
            _ => None,
        };
        let columns = [
            Some((kind, 1.0)),
            self.aromatic.then_some((9, 1.0)),
            orbitals.map(|column| (column, 1.0)),
            (self.hydrogens > 0).then_some((13, f32::from(self.hydrogens))),
            (1..=56).contains(&element).then_some((13 + element, 1.0)),
            self.open.then_some((OPEN, 1.0)),
        ];
        columns.into_iter().flatten()
    }
}

impl Input {
    /// What is seen of a molecule. With `mark_open`, atoms with an open attachment are marked, the first
    /// atom where there is none.
    pub fn of(drawn: &DrawnMolecule, mark_open: bool) -> Self {
        let separated = drawn.molecule.charge_separated();
        let molecule = separated.as_ref().unwrap_or(&drawn.molecule);
        let hybridisations = molecule.hybridisations(&drawn.aromatic);
        let atoms =
            molecule.atoms.iter().zip(hybridisations).map(|(atom, hybridisation)| AtomInput {
                element: atom.element,
                aromatic: false,
                hybridisation,
                hydrogens: atom.hydrogens,
                open: false,
            });
        let mut input = Self { atoms: atoms.collect(), bonds: Vec::new() };
        for (bond, &aromatic) in molecule.bonds.iter().zip(&drawn.aromatic) {
            let kind = match (aromatic, bond.order) {
                (true, _) => BondKind::Aromatic,
                (_, 1) => BondKind::Single,
                (_, 2) => BondKind::Double,
                _ => BondKind::Triple,
            };
            input.bonds.push((bond.ends, kind));
            bond.ends.iter().for_each(|&end| input.atoms[end].aromatic |= aromatic);
        }
        if mark_open {
            input.mark(&drawn.open);
        }
        input
    }

    /// Marks atoms as open, the first one where there is none.
    pub fn mark(&mut self, open: &[usize]) {
        let first: &[usize] = if self.atoms.is_empty() { &[] } else { &[0] };
        let open = if open.is_empty() { first } else { open };
        open.iter().for_each(|&atom| self.atoms[atom].open = true);
    }
}
