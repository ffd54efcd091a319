//! SMILES, read and written by the crate `smiles-rs`.
//!
//! Its graphs can be made from text alone. A molecule goes there as a text in which every atom is a
//! fragment of its own and every bond a ring closure, `[CH3]1.[OH]1` for methanol: atoms keep their
//! order, and neighbours stand in ascending order, which is what chirality refers to.

use std::fmt::Write;

use smiles_rs::bond::Bond as Order;
use smiles_rs::prelude::{AromaticityAssignment, Smiles};
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
        // Where there are no aromatic atoms this is the graph itself.
        let localized = parsed.kekulize();
        let graph = localized.as_ref().unwrap_or(&parsed);

        let nodes = graph.nodes();
        let mut atoms = Vec::with_capacity(nodes.len());
        for (node, hydrogens) in nodes.iter().zip(graph.implicit_hydrogen_counts()) {
            let symbol = node.element().map_or_else(String::new, |element| element.to_string());
            let Some(element) = atomic_number(&symbol) else {
                return Err(error(None, format!("`{symbol}` is no element")));
            };
            if let Some(mass) = node.isotope_mass_number() {
                let message = format!("the isotope {mass}{symbol} is not told from the element");
                return Err(error(None, message));
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
                        return Err(error(None, "quadruple bonds are not known here".to_owned()));
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
                    node.aromatic() && spare_valence(atom.element, atom.charge, used) > 0
                })
                .collect();
            let pairs: Vec<_> = aromatic.iter().map(|&bond| bonds[bond].ends).collect();
            let Some(doubles) = matchings(&pairs, &wanted, 1).pop() else {
                return Err(error(None, problem.to_string()));
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

    /// The canonical SMILES: aromatic, with chirality at centres that are some, the same for every
    /// order of atoms and every Kekulé form. The empty molecule gives an empty text.
    ///
    /// # Panics
    ///
    /// If the molecule is no simple graph, or an atom has no symbol.
    pub fn canonical_smiles(&self) -> String {
        if self.atoms.is_empty() {
            return String::new();
        }
        let graph = self.to_graph();
        let aromatic = self.aromaticity();
        let smiles = match graph.try_with_aromaticity_assignment(&aromatic) {
            // Never seen; the Kekulé form still says which molecule it is.
            Err(_) => graph.canonicalize().render(),
            Ok(graph) if self.has_bare_aromatic_cation(&aromatic) => {
                // Canonicalising would move the double bonds of such rings to where they cannot be.
                let labeling = graph.canonical_labeling();
                let places = labeling.new_index_of_old_node();
                let forms = self.kekule_forms(&aromatic).into_iter();
                forms
                    .map(|form| form.reordered(places).to_graph().render())
                    .min()
                    .unwrap_or_default()
            }
            Ok(graph) => graph.canonicalize().render(),
        };
        // The same in fewer letters, and known to more programs.
        smiles.replace("@TH1", "@").replace("@TH2", "@@")
    }

    fn has_bare_aromatic_cation(&self, aromatic: &AromaticityAssignment) -> bool {
        aromatic.atom_ids().iter().any(|&atom| {
            let Atom { element, charge, hydrogens, .. } = self.atoms[atom];
            element == 6 && charge > 0 && hydrogens == 0
        })
    }

    /// All ways to place the double bonds that are aromatic.
    fn kekule_forms(&self, aromatic: &AromaticityAssignment) -> Vec<Self> {
        let is_aromatic = |&bond: &usize| {
            let Bond { ends: [a, b], order } = self.bonds[bond];
            // A triple bond leaves no other form.
            order < 3 && aromatic.contains_edge(a, b)
        };
        let bonds: Vec<usize> = (0..self.bonds.len()).filter(is_aromatic).collect();
        let mut wanted = vec![false; self.atoms.len()];
        for bond in bonds.iter().map(|&bond| &self.bonds[bond]).filter(|bond| bond.order == 2) {
            bond.ends.iter().for_each(|&end| wanted[end] = true);
        }
        let pairs: Vec<_> = bonds.iter().map(|&bond| self.bonds[bond].ends).collect();
        let form = |doubles: Vec<usize>| {
            let mut form = self.clone();
            bonds.iter().for_each(|&bond| form.bonds[bond].order = 1);
            doubles.into_iter().for_each(|pair| form.bonds[bonds[pair]].order = 2);
            form
        };
        matchings(&pairs, &wanted, 1024).into_iter().map(form).collect()
    }

    /// Which bonds RDKit takes for aromatic, in their order.
    ///
    /// # Panics
    ///
    /// As [`Molecule::canonical_smiles`].
    pub fn aromatic_bonds(&self) -> Vec<bool> {
        let aromatic = self.aromaticity();
        self.bonds.iter().map(|&Bond { ends: [a, b], .. }| aromatic.contains_edge(a, b)).collect()
    }

    /// RDKit separates charges before it looks.
    fn aromaticity(&self) -> AromaticityAssignment {
        let separated = self.charge_separated();
        separated.as_ref().unwrap_or(self).to_graph().aromaticity_assignment()
    }

    fn to_graph(&self) -> Smiles {
        let text = self.text();
        Smiles::from_str(&text).unwrap_or_else(|error| {
            panic!("a molecule of atoms and bonds is a SMILES, but `{text}` has: {error}")
        })
    }

    /// The text described above.
    fn text(&self) -> String {
        let mut text = String::with_capacity(16 * self.atoms.len());
        // Numbers of ring closures, reused once closed: those that are open, by bond.
        let mut open: Vec<Option<usize>> = Vec::new();
        for (index, (atom, neighbors)) in self.atoms.iter().zip(self.neighbors()).enumerate() {
            if index > 0 {
                text.push('.');
            }
            text.push('[');
            text += atom.symbol();
            match atom.chirality {
                Chirality::None => {}
                Chirality::Clockwise => text += "@@",
                Chirality::Counterclockwise => text += "@",
            }
            match atom.hydrogens {
                0 => {}
                1 => text.push('H'),
                hydrogens => {
                    let _ = write!(text, "H{hydrogens}");
                }
            }
            if atom.charge != 0 {
                let _ = write!(text, "{:+}", atom.charge);
            }
            text.push(']');
            let mut closed = Vec::new();
            for (other, bond) in neighbors {
                let number = if other < index {
                    let number = open.iter().position(|&open| open == Some(bond));
                    closed.extend(number);
                    number.unwrap_or_default()
                } else {
                    text += ["", "=", "#"][usize::from(self.bonds[bond].order.clamp(1, 3) - 1)];
                    let number = open.iter().position(Option::is_none).unwrap_or(open.len());
                    if number == open.len() {
                        open.push(None);
                    }
                    open[number] = Some(bond);
                    number
                };
                match number + 1 {
                    digit @ ..10 => {
                        let _ = write!(text, "{digit}");
                    }
                    number @ 10..100 => {
                        let _ = write!(text, "%{number}");
                    }
                    number => {
                        let _ = write!(text, "%({number})");
                    }
                }
            }
            // Only now, since a number that was closed here must not be opened here again.
            closed.into_iter().for_each(|number| open[number] = None);
        }
        text
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
