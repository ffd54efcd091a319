//! SMILES, read by the crate `smiles-rs`.

use smiles_rs::bond::Bond as Order;
use smiles_rs::prelude::Smiles;
use thiserror::Error;

use super::kekule::{matchings, spare_valence};
use super::molecule::{Atom, Bond, Chirality, Molecule, atomic_number};

/// Why a text is no molecule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the SMILES `{smiles}`{}: {message}", .at.map_or_else(String::new, |at| format!(", character {at}")))]
pub struct SmilesError {
    /// The text.
    pub smiles: String,
    /// The character that is wrong, counted from 1, where it is one.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl Molecule {
    /// Reads a SMILES: bonds in a Kekulé form, hydrogens counted (also those written as atoms),
    /// chirality where an atom has four neighbours. Arrangements at double bonds are dropped, and so
    /// is the chirality of atoms with three neighbours and a lone pair. Valences are not checked.
    ///
    /// # Errors
    ///
    /// The text is no SMILES, has no atom, more than one fragment, an isotope, a wildcard, a
    /// quadruple bond, or aromatic atoms without a Kekulé form.
    pub fn from_smiles(text: &str) -> Result<Self, SmilesError> {
        let error = |at: Option<usize>, message: String| SmilesError {
            smiles: text.to_owned(),
            at,
            message,
        };
        let parsed = Smiles::from_str(text).map_err(|problem| {
            let at = text.char_indices().take_while(|&(byte, _)| byte <= problem.start()).count();
            error(Some(at.max(1)), problem.smiles_error().to_string())
        })?;
        if parsed.nodes().is_empty() {
            return Err(error(None, "has no atom".to_owned()));
        }
        let fragments = parsed.connected_components().number_of_components();
        if fragments > 1 {
            let at = text.chars().position(|character| character == '.').map(|place| place + 1);
            return Err(error(at, format!("has {fragments} fragments, must be one molecule")));
        }
        Self::of_graph(&parsed).map_err(|message| error(None, message))
    }

    /// The molecule of a graph, its atoms in the graph's order; an error says why it is none.
    pub(super) fn of_graph(parsed: &Smiles) -> Result<Self, String> {
        // Where there are no aromatic atoms this is the graph itself.
        let localized = parsed.kekulize();
        let graph = localized.as_ref().unwrap_or(parsed);

        let nodes = graph.nodes();
        let mut atoms = Vec::with_capacity(nodes.len());
        for (node, hydrogens) in nodes.iter().zip(graph.implicit_hydrogen_counts()) {
            let symbol = node.element().map_or_else(String::new, |element| element.to_string());
            let Some(element) = atomic_number(&symbol) else {
                return Err(format!("`{symbol}` is no element"));
            };
            if let Some(mass) = node.isotope_mass_number() {
                return Err(format!("the isotope {mass}{symbol} is not told from the element"));
            }
            let hydrogens = node.hydrogen_count() + hydrogens;
            let charge = node.charge_value();
            atoms.push(Atom { element, charge, hydrogens, chirality: Chirality::None });
        }
        let mut bonds = Vec::with_capacity(graph.number_of_bonds());
        let mut aromatic = Vec::new();
        for atom in 0..atoms.len() {
            for edge in graph.edges_for_node(atom) {
                let other = edge.other(atom).unwrap_or(atom);
                if other <= atom {
                    continue;
                }
                let order = match edge.bond() {
                    Order::Single | Order::Up | Order::Down => 1,
                    Order::Double => 2,
                    Order::Triple => 3,
                    Order::Quadruple => {
                        return Err("quadruple bonds are not known here".to_owned());
                    }
                };
                if edge.is_aromatic() {
                    aromatic.push(bonds.len());
                }
                bonds.push(Bond { ends: [atom, other], order });
            }
        }
        if let Err(problem) = &localized {
            let mut used: Vec<u8> = atoms.iter().map(|atom| atom.hydrogens).collect();
            for bond in &bonds {
                bond.ends.iter().for_each(|&end| used[end] = used[end].saturating_add(bond.order));
            }
            let wanted: Vec<bool> = std::iter::zip(nodes, std::iter::zip(&atoms, used))
                .map(|(node, (atom, used))| {
                    node.aromatic()
                        && spare_valence(atom.element, atom.charge, used)
                            .is_some_and(|spare| spare > 0)
                })
                .collect();
            let pairs: Vec<_> = aromatic.iter().map(|&bond| bonds[bond].ends).collect();
            let Some(doubles) = matchings(&pairs, &wanted, 1).pop() else {
                return Err(problem.to_string());
            };
            doubles.into_iter().for_each(|pair| bonds[aromatic[pair]].order = 2);
        }
        let drawn = Self { atoms, bonds };
        let (mut molecule, origin) = drawn.without_hydrogen_atoms();
        let neighbors = molecule.neighbors();
        for (atom, &node) in origin.iter().enumerate() {
            if nodes[node].chirality().is_none() {
                continue;
            }
            let hydrogen = drawn.bonds.iter().find_map(|bond| {
                let other = bond.other(node);
                (bond.ends.contains(&node) && !origin.contains(&other)).then_some(Some(other))
            });
            let hydrogens = usize::from(molecule.atoms[atom].hydrogens);
            let first = std::iter::repeat_n(hydrogen.unwrap_or(None), hydrogens);
            let rest = neighbors[atom].iter().map(|&(other, _)| Some(origin[other]));
            let Ok(order) = first.chain(rest).collect::<Vec<_>>().try_into() else { continue };
            molecule.atoms[atom].chirality =
                match graph.tetrahedral_neighbors_anticlockwise(node, order) {
                    Some(true) => Chirality::Counterclockwise,
                    Some(false) => Chirality::Clockwise,
                    None => Chirality::None,
                };
        }
        Ok(molecule)
    }

    /// Hydrogen atoms made numbers of their neighbours, and where each remaining atom was.
    fn without_hydrogen_atoms(&self) -> (Self, Vec<usize>) {
        let neighbors = self.neighbors();
        let is_hydrogen = |atom: usize| {
            let Atom { element, charge, hydrogens, .. } = self.atoms[atom];
            (element, charge, hydrogens) == (1, 0, 0)
        };
        // The hydrogens of H2 stay, and so do bridging ones.
        let counted = |atom: usize| {
            is_hydrogen(atom)
                && matches!(neighbors[atom][..], [(other, bond)]
                    if self.bonds[bond].order == 1 && self.atoms[other].element != 1)
        };
        let origin: Vec<usize> = (0..self.atoms.len()).filter(|&atom| !counted(atom)).collect();
        let mut place = vec![None; self.atoms.len()];
        origin.iter().enumerate().for_each(|(new, &old)| place[old] = Some(new));
        let mut molecule =
            Self { atoms: origin.iter().map(|&atom| self.atoms[atom]).collect(), bonds: vec![] };
        for bond in &self.bonds {
            match bond.ends.map(|end| place[end]) {
                [Some(a), Some(b)] => molecule.bonds.push(Bond::new(a, b, bond.order)),
                [Some(heavy), None] | [None, Some(heavy)] => molecule.atoms[heavy].hydrogens += 1,
                [None, None] => {}
            }
        }
        (molecule, origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn molecules_survive_being_written_and_read() {
        for smiles in [
            "C",
            "[H][H]",
            "c1ccccc1",
            "c1cc[nH]c1",
            "[CH3]",
            "[CH2]C",
            "C[NH3+]",
            "CC(=O)[O-]",
            "O=N(=O)C",
            "C[N+](=O)[O-]",
            "N[C@@H](C)C(=O)O",
            "C1CC1",
            "C1=CC=CC=CC=C1",
            "[OH2+]C",
            "C12C3C4C1C5C2C3C45",
            "F[C@](Cl)(Br)I",
            "[H][C@](F)(Cl)Br",
            "c1ccc2ccccc2c1",
            "C#N",
        ] {
            let molecule = Molecule::from_smiles(smiles).unwrap();
            assert!(molecule.is_simple_graph());
            let written = molecule.canonical_smiles();
            let again = Molecule::from_smiles(&written).unwrap();
            assert_eq!(again.canonical_smiles(), written, "{smiles}");
            assert_eq!(again.formula(), molecule.formula(), "{smiles}");
        }
    }
}
