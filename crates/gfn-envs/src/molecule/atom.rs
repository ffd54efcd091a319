//! Atoms and how many bonds they form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number of elements.
pub(super) const N_ELEMENTS: usize = ELEMENTS.len();

/// The elements, in the order of their actions: symbol, atomic number, valence of the neutral atom.
pub const ELEMENTS: [(&str, u8, u8); 4] = [("C", 6, 4), ("N", 7, 3), ("O", 8, 2), ("F", 9, 1)];

const C: u8 = 0;
const N: u8 = 1;
const O: u8 = 2;

/// How many bonds atoms form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Valence {
    /// C 4, N 3, O 2, F 1; with charges N+ 4, N- 2, O- 1, O+ 3, C+ and C- 3.
    #[default]
    Chemical,
    /// As the code of arXiv:2410.15474: C 4, N 5, O 2, F 1, less one with a charge of either sign. Some
    /// of these molecules do not exist.
    Paper,
}

/// What is set of an atom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Atom {
    /// Its number among [`ELEMENTS`].
    pub element: u8,
    /// -1, 0 or 1.
    pub charge: i8,
    /// Its hydrogens where they are fewer than the valence leaves room for.
    pub hydrogens: Option<u8>,
}

impl Atom {
    /// The atom as a colour of a graph.
    pub fn colour(self) -> u16 {
        let charge = self.charge.rem_euclid(3) as u16;
        let hydrogens = self.hydrogens.map_or(0, |n| u16::from(n) + 1);
        u16::from(self.element) | charge << 2 | hydrogens << 4
    }

    /// The atom of a colour.
    pub fn of_colour(colour: u16) -> Self {
        Self {
            element: (colour & 3) as u8,
            charge: [0, 1, -1][usize::from(colour >> 2 & 3)],
            hydrogens: (colour >> 4).checked_sub(1).map(|n| n as u8),
        }
    }

    /// Whether nothing of it is set.
    pub fn is_plain(self) -> bool {
        self.charge == 0 && self.hydrogens.is_none()
    }

    /// The bonds, in units of single ones, that real atoms form with hydrogens counted.
    fn chemical_valence(self) -> u8 {
        let neutral = ELEMENTS[usize::from(self.element)].2;
        match (self.element, self.charge) {
            (_, 0) => neutral,
            (C, _) => neutral - 1,
            (N | O, 1) => neutral + 1,
            _ => neutral - 1,
        }
    }

    /// The most bonds, in units of single ones; none if there is no such atom.
    pub fn most_bonds(self, valence: Valence) -> Option<u8> {
        match valence {
            Valence::Chemical => match (self.element, self.charge) {
                (C | N | O, _) | (_, 0) => Some(self.chemical_valence()),
                _ => None,
            },
            Valence::Paper => {
                let neutral =
                    if self.element == N { 5 } else { self.chemical_valence_if_neutral() };
                Some(neutral - self.charge.unsigned_abs())
            }
        }
    }

    fn chemical_valence_if_neutral(self) -> u8 {
        ELEMENTS[usize::from(self.element)].2
    }

    /// The hydrogens of an atom whose bonds to others add up to `bonds`.
    pub fn hydrogens_beside(self, bonds: u8) -> u8 {
        let room = self.chemical_valence().saturating_sub(bonds);
        self.hydrogens.map_or(room, |n| n.min(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_tell_atoms_apart() {
        let mut seen = std::collections::HashSet::new();
        for element in 0..4 {
            for charge in -1..=1 {
                for hydrogens in [None, Some(0), Some(1), Some(2)] {
                    let atom = Atom { element, charge, hydrogens };
                    assert_eq!(Atom::of_colour(atom.colour()), atom);
                    assert!(seen.insert(atom.colour()));
                }
            }
        }
    }
}
