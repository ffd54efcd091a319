//! Canonical SMILES and aromaticity, by the crate `smiles-rs`.
//!
//! Its graphs can be made from text alone. A molecule goes there as a text in which every atom is a
//! fragment of its own and every bond a ring closure, `C1.O1` for methanol: atoms keep their order,
//! and neighbours stand in ascending order, which is what chirality refers to.

use std::fmt::Write;

use smiles_rs::prelude::{AromaticityAssignment, Smiles};

use super::kekule::{matchings, spare_valence};
use super::molecule::{Atom, Bond, Chirality, Molecule};

impl Molecule {
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
        // What is said of charges changes what is aromatic, so order is found with charges separated;
        // marks tell apart the atoms that had none.
        let separated = self.charge_separated();
        let plain = separated.as_ref().unwrap_or(self);
        let mark = |(atom, plain): (&Atom, &Atom)| plain.charge != atom.charge;
        let marks: Vec<bool> = self.atoms.iter().zip(&plain.atoms).map(mark).collect();
        let graph = parse(&plain.text(&marks));
        let aromatic = graph.aromaticity_assignment();
        let smiles = if plain.has_bare_aromatic_cation(&aromatic) {
            // Canonicalising would move the double bonds of such rings to where they cannot be.
            let labeling = match graph.try_with_aromaticity_assignment(&aromatic) {
                Ok(aromatic) => aromatic.canonical_labeling(),
                Err(_) => graph.canonical_labeling(),
            };
            let places = labeling.new_index_of_old_node();
            let forms = self.kekule_forms(&aromatic).into_iter();
            forms.map(|form| form.reordered(places).text_as_ordered()).min().unwrap_or_default()
        } else if separated.is_some() {
            let canonical = graph.canonicalize();
            let mut molecule = Self::of_graph(&canonical).unwrap_or_default();
            let marked: Vec<bool> =
                canonical.nodes().iter().map(|node| node.class() != 0).collect();
            for bond in &mut molecule.bonds {
                let charges = bond.ends.map(|end| molecule.atoms[end].charge);
                if bond.ends.iter().all(|&end| marked[end]) && charges[0] == -charges[1] {
                    bond.order += 1;
                }
            }
            let atoms = molecule.atoms.iter_mut().zip(marked);
            atoms.filter(|(_, marked)| *marked).for_each(|(atom, _)| atom.charge = 0);
            molecule.text_as_ordered()
        } else {
            let canonical = graph.canonicalize();
            let aromatic = canonical.aromaticity_assignment();
            render(&canonical, &aromatic)
        };
        // The same in fewer letters, and known to more programs.
        smiles.replace("@TH1", "@").replace("@TH2", "@@")
    }

    /// The aromatic SMILES for the order that atoms have.
    fn text_as_ordered(&self) -> String {
        render(&self.to_graph(), &self.aromaticity())
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
        if self.bonds.is_empty() {
            return Vec::new();
        }
        let aromatic = self.aromaticity();
        self.bonds.iter().map(|&Bond { ends: [a, b], .. }| aromatic.contains_edge(a, b)).collect()
    }

    /// RDKit separates charges before it looks.
    fn aromaticity(&self) -> AromaticityAssignment {
        let separated = self.charge_separated();
        separated.as_ref().unwrap_or(self).to_graph().aromaticity_assignment()
    }

    /// The atoms of the smallest rings, in order around them.
    pub fn smallest_rings(&self) -> Vec<Vec<usize>> {
        if self.bonds.is_empty() {
            vec![]
        } else {
            self.to_graph().symm_sssr_result().cycles().to_vec()
        }
    }

    fn to_graph(&self) -> Smiles {
        parse(&self.text(&[]))
    }

    /// The text described above; some atoms may be marked by an atom class.
    fn text(&self, marks: &[bool]) -> String {
        let mut text = String::with_capacity(16 * self.atoms.len());
        // Numbers of ring closures, reused once closed: those that are open, by bond.
        let mut open: Vec<Option<usize>> = Vec::new();
        for (index, (atom, neighbors)) in self.atoms.iter().zip(self.neighbors()).enumerate() {
            if index > 0 {
                text.push('.');
            }
            let marked = marks.get(index).is_some_and(|&marked| marked);
            let used = neighbors.iter().map(|&(_, bond)| self.bonds[bond].order).sum();
            if !marked && has_usual_hydrogens(atom, used) {
                text += atom.symbol();
            } else {
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
                text += if marked { ":1]" } else { "]" };
            }
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

/// Whether an atom may be written without brackets: its hydrogens are those that a reader supplies.
fn has_usual_hydrogens(atom: &Atom, used: u8) -> bool {
    let organic = matches!(atom.element, 5..=9 | 15..=17 | 35 | 53);
    organic
        && atom.charge == 0
        && atom.chirality == Chirality::None
        && match spare_valence(atom.element, 0, used) {
            // Beyond the highest valence nothing is supplied either, but that is not relied on.
            None => false,
            Some(spare) => spare == atom.hydrogens,
        }
}

fn parse(text: &str) -> Smiles {
    Smiles::from_str(text).unwrap_or_else(|error| {
        panic!("a molecule of atoms and bonds is a SMILES, but `{text}` has: {error}")
    })
}

fn render(graph: &Smiles, aromatic: &AromaticityAssignment) -> String {
    // The Kekulé form, should it ever be needed, says as well which molecule it is.
    let aromatized = graph.try_with_aromaticity_assignment(aromatic);
    aromatized.as_ref().unwrap_or(graph).render()
}
