//! How a fragment is written with others joined to it: its SMILES with ring closures, so that a molecule is
//! `CC%10.c1ccccc1%10`: dots between fragments, closures where they are joined. Any reader of SMILES takes it
//! for the molecule.

use std::fmt::Write;

use crate::chemistry::Molecule;
use crate::chemistry::kekule::spare_valence;

/// Numbers of closures that join fragments are above this: those of a fragment's own rings have one digit.
const FIRST_CLOSURE: usize = 10;

/// A SMILES cut after its atoms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    smiles: String,
    atoms: Vec<Token>,
}

/// An atom of a SMILES.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// Where it starts and ends.
    start: usize,
    end: usize,
    /// Whether it stands in brackets, with its hydrogens.
    bracketed: bool,
}

impl Template {
    /// Finds the atoms of a SMILES that is known to be one.
    ///
    /// # Errors
    /// What cannot be written with other fragments.
    pub(super) fn new(smiles: &str) -> Result<Self, String> {
        if smiles.contains('%') {
            return Err("it has a ring closure above 9".to_owned());
        }
        let bytes = smiles.as_bytes();
        let mut atoms = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            let bracketed = bytes[at] == b'[';
            at += match bytes[at] {
                b'[' => smiles[at..].find(']').map_or(1, |length| length + 1),
                b'C' if bytes.get(at + 1) == Some(&b'l') => 2,
                b'B' if bytes.get(at + 1) == Some(&b'r') => 2,
                _ => 1,
            };
            if bracketed || bytes[start].is_ascii_alphabetic() {
                atoms.push(Token { start, end: at, bracketed });
            }
        }
        Ok(Self { smiles: smiles.to_owned(), atoms })
    }

    /// The SMILES of the fragment by itself.
    pub(super) fn smiles(&self) -> &str {
        &self.smiles
    }

    /// Number of atoms.
    pub(super) fn n_atoms(&self) -> usize {
        self.atoms.len()
    }

    /// Whether an atom says how many hydrogens it has; those of others are what its valence leaves.
    pub(super) fn is_bracketed(&self, atom: usize) -> bool {
        self.atoms[atom].bracketed
    }

    /// Hydrogens of an atom to which so many fragments are joined. An atom in brackets loses one for each,
    /// as long as it has some; any other has what is left to its next valence, so that sulphur of valence 4
    /// gets one. `used` is the sum of the orders of its bonds in the fragment.
    pub(super) fn hydrogens(&self, molecule: &Molecule, atom: usize, used: u8, joins: u8) -> u8 {
        let of_fragment = molecule.atoms[atom];
        if joins == 0 {
            of_fragment.hydrogens
        } else if self.atoms[atom].bracketed {
            of_fragment.hydrogens.saturating_sub(joins)
        } else {
            spare_valence(of_fragment.element, 0, used + joins).unwrap_or(0)
        }
    }

    /// Whether so many fragments can be joined to an atom.
    pub(super) fn takes(&self, molecule: &Molecule, atom: usize, joins: usize) -> bool {
        let of_fragment = molecule.atoms[atom];
        let Ok(joins) = u8::try_from(joins) else { return false };
        let used = used(molecule, atom).saturating_add(joins);
        let grows = matches!(of_fragment.element, 15 | 16) && !self.atoms[atom].bracketed;
        joins <= of_fragment.hydrogens
            || grows && spare_valence(of_fragment.element, 0, used).is_some()
    }

    /// Writes the fragment with joins at atoms, each an atom and the number of the join.
    pub(super) fn write(&self, molecule: &Molecule, joins: &[(usize, usize)], text: &mut String) {
        let mut from = 0;
        for (atom, token) in self.atoms.iter().enumerate() {
            let here = || joins.iter().filter(|&&(at, _)| at == atom);
            if here().next().is_none() {
                continue;
            }
            text.push_str(&self.smiles[from..token.start]);
            let symbol = &self.smiles[token.start..token.end];
            match token.bracketed {
                true => text.push_str(&with_hydrogens(
                    symbol,
                    self.hydrogens(molecule, atom, 0, here().count() as u8),
                )),
                false => text.push_str(symbol),
            }
            for &(_, join) in here() {
                let _ = write!(text, "%{}", FIRST_CLOSURE + join);
            }
            from = token.end;
        }
        text.push_str(&self.smiles[from..]);
    }

    /// The joins of a written fragment, if it is this one.
    pub(super) fn joins(&self, molecule: &Molecule, written: &str) -> Option<Vec<(usize, usize)>> {
        let mut joins = Vec::new();
        let (mut rest, mut from) = (written, 0);
        for (atom, token) in self.atoms.iter().enumerate() {
            rest = rest.strip_prefix(&self.smiles[from..token.start])?;
            let symbol = &self.smiles[token.start..token.end];
            let length = match token.bracketed {
                true => rest.find(']')? + 1,
                false => symbol.len(),
            };
            let (found, after) = rest.split_at_checked(length)?;
            rest = after;
            let before = joins.len();
            while let Some(after) = rest.strip_prefix('%') {
                let (number, after) = after.split_at_checked(2)?;
                joins.push((atom, number.parse::<usize>().ok()?.checked_sub(FIRST_CLOSURE)?));
                rest = after;
            }
            let n = (joins.len() - before) as u8;
            let expected = match token.bracketed && n > 0 {
                true => with_hydrogens(symbol, self.hydrogens(molecule, atom, 0, n)),
                false => symbol.to_owned(),
            };
            if found != expected {
                return None;
            }
            from = token.end;
        }
        (rest == &self.smiles[from..]).then_some(joins)
    }
}

/// The sum of the orders of an atom's bonds.
pub(super) fn used(molecule: &Molecule, atom: usize) -> u8 {
    let of_atom = molecule.bonds.iter().filter(|bond| bond.ends.contains(&atom));
    of_atom.map(|bond| bond.order).sum()
}

/// An atom in brackets with another number of hydrogens.
fn with_hydrogens(symbol: &str, hydrogens: u8) -> String {
    // What stands before the H: the element and chirality; `[H` is hydrogen itself, which is no such atom.
    let inside = &symbol[1..symbol.len() - 1];
    let Some(at) = inside.find('H').filter(|&at| at > 0) else { return symbol.to_owned() };
    let digits = inside[at + 1..].chars().take_while(char::is_ascii_digit).count();
    let count = match hydrogens {
        0 => String::new(),
        1 => "H".to_owned(),
        n => format!("H{n}"),
    };
    format!("[{}{count}{}]", &inside[..at], &inside[at + 1 + digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_written_with_joins_and_read_again() {
        for (smiles, joins, written) in [
            ("c1ccncc1", &[(1, 0), (4, 12)][..], "c1c%10cnc%22c1"),
            ("C", &[(0, 0), (0, 1), (0, 2)], "C%10%11%12"),
            ("c1c[nH]cn1", &[(2, 3)], "c1c[n]%13cn1"),
            ("C1COCC[NH2+]1", &[(5, 1)], "C1COCC[NH+]%111"),
            ("C[NH3+]", &[(1, 0), (1, 4)], "C[NH+]%10%14"),
            ("O=[SH](=O)Cl", &[(1, 0)], "O=[S]%10(=O)Cl"),
            ("CBr", &[], "CBr"),
        ] {
            let molecule = Molecule::from_smiles(smiles).unwrap();
            let template = Template::new(smiles).unwrap();
            assert_eq!(template.n_atoms(), molecule.atoms.len());
            let mut text = String::new();
            template.write(&molecule, joins, &mut text);
            assert_eq!(text, written);
            assert_eq!(template.joins(&molecule, &text).as_deref(), Some(joins), "{text}");
            for other in ["c1ccncc1C", "N", "", "c1", "%10", "C%1", "C%09"] {
                assert_eq!(template.joins(&molecule, other), None, "{smiles} is not {other}");
            }
        }
    }
}
