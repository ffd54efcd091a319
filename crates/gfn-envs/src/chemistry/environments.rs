//! Atom environments: what an atom is and what it is bonded to, as numbers. A model that was fitted
//! to some molecules should not be believed about one with environments that none of them had.

use super::molecule::Molecule;

/// The environments of a molecule's atoms, each once, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environments {
    /// Radius 0: element, charge, hydrogens, and the number of neighbours.
    pub atoms: Vec<u64>,
    /// Radius 1: the same of an atom and its neighbours, with bonds, aromatic ones as a kind.
    pub neighborhoods: Vec<u64>,
}

/// The hashes of radius 0 and 1 of each atom, in their order: `[atom, neighbourhood]`. They are the
/// same on every machine and in every version of this program; chirality does not enter.
///
/// # Panics
///
/// As [`Molecule::canonical_smiles`].
pub fn of_atoms(molecule: &Molecule) -> Vec<[u64; 2]> {
    let aromatic = molecule.aromatic_bonds();
    let neighbors = molecule.neighbors();
    let own: Vec<u64> = molecule
        .atoms
        .iter()
        .zip(&neighbors)
        .map(|(atom, neighbors)| {
            let charge = atom.charge.to_le_bytes()[0];
            hash([atom.element, charge, atom.hydrogens, neighbors.len() as u8].into_iter())
        })
        .collect();
    let environment = |atom: usize| {
        let mut arms: Vec<[u64; 2]> = neighbors[atom]
            .iter()
            .map(|&(other, bond)| {
                let order = if aromatic[bond] { 4 } else { molecule.bonds[bond].order };
                [u64::from(order), own[other]]
            })
            .collect();
        arms.sort_unstable();
        let words = std::iter::once(own[atom]).chain(arms.into_iter().flatten());
        [own[atom], hash(words.flat_map(u64::to_le_bytes))]
    };
    (0..molecule.atoms.len()).map(environment).collect()
}

impl Environments {
    /// The environments of a molecule.
    ///
    /// # Panics
    ///
    /// As [`Molecule::canonical_smiles`].
    pub fn of(molecule: &Molecule) -> Self {
        let hashes = of_atoms(molecule);
        let distinct = |radius: usize| {
            let mut hashes: Vec<u64> = hashes.iter().map(|hash| hash[radius]).collect();
            hashes.sort_unstable();
            hashes.dedup();
            hashes
        };
        Self { atoms: distinct(0), neighborhoods: distinct(1) }
    }
}

/// FNV-1a (Fowler, Noll, Vo), 64 bits.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environments(smiles: &str) -> Environments {
        Environments::of(&Molecule::from_smiles(smiles).unwrap())
    }

    #[test]
    fn environments_tell_what_they_should_and_stay_what_they_are() {
        // FNV-1a's published value.
        assert_eq!(hash(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
        let counts = |smiles| {
            let Environments { atoms, neighborhoods } = environments(smiles);
            (atoms.len(), neighborhoods.len())
        };
        assert_eq!(counts("c1ccccc1"), (1, 1));
        assert_eq!(counts("CCCCCC"), (2, 3));
        assert_eq!(counts("CC(=O)C"), (3, 3));
        assert_eq!(environments("C1=CC=CC=C1"), environments("c1ccccc1"));
        // An aldehyde's oxygen is no ketone's only one bond further.
        let (ketone, aldehyde) = (environments("CC(=O)C"), environments("CC=O"));
        let oxygen =
            |smiles: &str, atom: usize| of_atoms(&Molecule::from_smiles(smiles).unwrap())[atom];
        assert!(ketone.atoms.contains(&oxygen("CC=O", 2)[0]));
        assert!(!ketone.neighborhoods.contains(&oxygen("CC=O", 2)[1]));
        assert!(aldehyde.neighborhoods.contains(&oxygen("CCC=O", 3)[1]));
        // FNV-1a of the bytes 8, 0, 1, 1, computed elsewhere.
        assert_eq!(oxygen("CCO", 2)[0], 0x4cf7_71c2_4f79_1707);
    }
}
