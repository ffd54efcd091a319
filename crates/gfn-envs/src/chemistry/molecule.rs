//! Molecules as graphs of heavy atoms.

use std::fmt::Write;

/// A molecule: atoms, each with its hydrogens, and the bonds between them in a Kekulé form.
///
/// What computes something from a molecule expects a simple graph: ends of bonds are different atoms
/// that exist, and no pair of atoms has two bonds. [`Molecule::is_simple_graph`] says so; a molecule
/// that is none makes them panic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Molecule {
    /// Heavy atoms.
    pub atoms: Vec<Atom>,
    /// Bonds between them.
    pub bonds: Vec<Bond>,
}

/// A heavy atom, or a hydrogen atom that belongs to no other atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Atom {
    /// The atomic number, 1..=118.
    pub element: u8,
    /// The formal charge, -15..=15.
    pub charge: i8,
    /// All hydrogens bound to it, 0..=15, whether a SMILES would write them or not.
    pub hydrogens: u8,
    /// The arrangement of its neighbours, which means something at atoms with four of them, or with
    /// three and one hydrogen.
    pub chirality: Chirality,
}

/// The arrangement of four neighbours in space. Seen from the first of them, the others in their
/// order turn one way or the other. The hydrogen, if there is one, is the first; the others follow
/// by ascending index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Chirality {
    /// None is said.
    #[default]
    None,
    /// They turn clockwise, `@@` in SMILES.
    Clockwise,
    /// They turn counterclockwise, `@` in SMILES.
    Counterclockwise,
}

/// A bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bond {
    /// Indices of two atoms, in any order.
    pub ends: [usize; 2],
    /// 1, 2 or 3. Aromatic bonds are single or double as in one of the Kekulé forms.
    pub order: u8,
}

impl Atom {
    /// An uncharged atom without chirality.
    pub const fn new(element: u8, hydrogens: u8) -> Self {
        Self { element, charge: 0, hydrogens, chirality: Chirality::None }
    }

    /// The element's symbol, `?` for numbers that are none.
    pub fn symbol(&self) -> &'static str {
        symbol(self.element)
    }
}

/// Symbols by atomic number, from 1.
const SYMBOLS: [&str; 118] = [
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl",
    "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As",
    "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In",
    "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb",
    "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl",
    "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk",
    "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh",
    "Fl", "Mc", "Lv", "Ts", "Og",
];

pub(super) fn symbol(element: u8) -> &'static str {
    SYMBOLS.get(usize::from(element).wrapping_sub(1)).copied().unwrap_or("?")
}

pub(super) fn atomic_number(symbol: &str) -> Option<u8> {
    SYMBOLS.iter().position(|&known| known == symbol).map(|place| place as u8 + 1)
}

impl Bond {
    /// A bond of an order between two atoms.
    pub const fn new(a: usize, b: usize, order: u8) -> Self {
        Self { ends: [a, b], order }
    }

    /// The end that is not `atom`.
    pub const fn other(&self, atom: usize) -> usize {
        if self.ends[0] == atom { self.ends[1] } else { self.ends[0] }
    }
}

impl Molecule {
    /// Whether bonds join different atoms that exist, at most one for each pair.
    pub fn is_simple_graph(&self) -> bool {
        let mut pairs: Vec<[usize; 2]> = self.bonds.iter().map(|bond| bond.ends).collect();
        pairs.iter_mut().for_each(|ends| ends.sort_unstable());
        pairs.sort_unstable();
        pairs.iter().all(|&[a, b]| a != b && b < self.atoms.len())
            && pairs.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// For each atom its neighbours and the bonds to them, by ascending index of the neighbour.
    pub fn neighbors(&self) -> Vec<Vec<(usize, usize)>> {
        let mut neighbors = vec![Vec::new(); self.atoms.len()];
        for (index, bond) in self.bonds.iter().enumerate() {
            let [a, b] = bond.ends;
            neighbors[a].push((b, index));
            neighbors[b].push((a, index));
        }
        neighbors.iter_mut().for_each(|row: &mut Vec<_>| row.sort_unstable());
        neighbors
    }

    /// Which bonds lie on a ring: those whose removal separates nothing.
    pub fn ring_bonds(&self) -> Vec<bool> {
        /// Numbers atoms in the order in which they are reached; a bond is a bridge if nothing
        /// beyond it leads back before it.
        struct Search<'a> {
            neighbors: &'a [Vec<(usize, usize)>],
            number: Vec<usize>,
            next: usize,
            in_ring: Vec<bool>,
        }
        impl Search<'_> {
            fn earliest(&mut self, atom: usize, from: usize) -> usize {
                self.number[atom] = self.next;
                self.next += 1;
                let mut earliest = self.number[atom];
                for &(other, bond) in &self.neighbors[atom] {
                    if bond == from {
                        continue;
                    }
                    let reached = if self.number[other] == usize::MAX {
                        let reached = self.earliest(other, bond);
                        self.in_ring[bond] = reached <= self.number[atom];
                        reached
                    } else {
                        self.in_ring[bond] = true;
                        self.number[other]
                    };
                    earliest = earliest.min(reached);
                }
                earliest
            }
        }
        let neighbors = self.neighbors();
        let mut search = Search {
            neighbors: &neighbors,
            number: vec![usize::MAX; self.atoms.len()],
            next: 0,
            in_ring: vec![false; self.bonds.len()],
        };
        for atom in 0..self.atoms.len() {
            if search.number[atom] == usize::MAX {
                search.earliest(atom, usize::MAX);
            }
        }
        search.in_ring
    }

    /// The sum formula in Hill's order, with the net charge: `C2H6O`, `C2H8N+`, `C2O4-2`.
    pub fn formula(&self) -> String {
        let mut counts = [0_usize; 256];
        for atom in &self.atoms {
            counts[usize::from(atom.element)] += 1;
            counts[1] += usize::from(atom.hydrogens);
        }
        let mut elements: Vec<u8> =
            (0..=u8::MAX).filter(|&element| counts[usize::from(element)] > 0).collect();
        let organic = counts[6] > 0;
        elements.sort_by_key(|&element| match element {
            6 if organic => (0, ""),
            1 if organic => (1, ""),
            _ => (2, symbol(element)),
        });
        let mut formula = String::new();
        for element in elements {
            formula += symbol(element);
            let count = counts[usize::from(element)];
            if count > 1 {
                let _ = write!(formula, "{count}");
            }
        }
        let charge: i32 = self.atoms.iter().map(|atom| i32::from(atom.charge)).sum();
        match charge {
            0 => {}
            1 => formula.push('+'),
            -1 => formula.push('-'),
            charge => {
                let _ = write!(formula, "{charge:+}");
            }
        }
        formula
    }

    /// The molecule with charges where it has neutral nitrogen of valence 5, as RDKit rewrites it:
    /// `N(=O)=O` to `[N+](=O)[O-]`, `N=N#N` to `N=[N+]=[N-]`. `None` if there is nothing to do.
    pub fn charge_separated(&self) -> Option<Self> {
        let mut separated: Option<Self> = None;
        for (atom, neighbors) in self.neighbors().iter().enumerate() {
            let current = separated.as_ref().unwrap_or(self);
            let Atom { element, charge, hydrogens, .. } = current.atoms[atom];
            let orders = neighbors.iter().map(|&(_, bond)| current.bonds[bond].order);
            if (element, charge) != (7, 0) || orders.sum::<u8>() + hydrogens != 5 {
                continue;
            }
            let gives = |&&(other, bond): &&(usize, usize)| {
                let Atom { element, charge, .. } = current.atoms[other];
                charge == 0 && matches!((element, current.bonds[bond].order), (8, 2) | (7, 3))
            };
            if let Some(&(other, bond)) = neighbors.iter().find(gives) {
                let separated = separated.get_or_insert_with(|| self.clone());
                separated.bonds[bond].order -= 1;
                separated.atoms[atom].charge = 1;
                separated.atoms[other].charge = -1;
            }
        }
        separated
    }

    /// The same molecule with its atoms in another order: atom `i` becomes atom `places[i]`.
    pub fn reordered(&self, places: &[usize]) -> Self {
        let mut atoms = self.atoms.clone();
        for (atom, neighbors) in self.neighbors().iter().enumerate() {
            let order: Vec<usize> = neighbors.iter().map(|&(other, _)| places[other]).collect();
            let pairs = (0..order.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
            let odd = pairs.filter(|&(a, b)| order[a] > order[b]).count() % 2 == 1;
            let mut moved = self.atoms[atom];
            moved.chirality = match moved.chirality {
                Chirality::Clockwise if odd => Chirality::Counterclockwise,
                Chirality::Counterclockwise if odd => Chirality::Clockwise,
                chirality => chirality,
            };
            atoms[places[atom]] = moved;
        }
        let mut bonds = self.bonds.clone();
        for bond in &mut bonds {
            bond.ends = bond.ends.map(|end| places[end]);
            bond.ends.sort_unstable();
        }
        bonds.sort_unstable_by_key(|bond| bond.ends);
        Self { atoms, bonds }
    }

    /// The Bemis-Murcko scaffold (J. Med. Chem. 39, 1996): rings, the chains between them, and what
    /// is bound to these by double bonds; hydrogens take the place of what is cut off, and chirality
    /// is dropped. Empty where there is no ring.
    pub fn scaffold(&self) -> Self {
        let neighbors = self.neighbors();
        let in_ring = self.ring_bonds();
        let mut kept: Vec<bool> =
            neighbors.iter().map(|row| row.iter().any(|&(_, bond)| in_ring[bond])).collect();
        let rings = kept.iter().any(|&kept| kept);
        if rings {
            kept.fill(true);
        }
        // What has at most one neighbour that is kept is no part of a ring or a chain between two.
        let mut degree: Vec<usize> = neighbors.iter().map(Vec::len).collect();
        let mut ends: Vec<usize> =
            (0..degree.len()).filter(|&atom| kept[atom] && degree[atom] <= 1).collect();
        while let Some(end) = ends.pop() {
            kept[end] = false;
            for &(other, _) in &neighbors[end] {
                degree[other] -= 1;
                if kept[other] && degree[other] == 1 {
                    ends.push(other);
                }
            }
        }
        let core = kept.clone();
        for bond in self.bonds.iter().filter(|bond| bond.order == 2) {
            let [a, b] = bond.ends;
            if core[a] || core[b] {
                kept[a] = true;
                kept[b] = true;
            }
        }
        let mut place = vec![usize::MAX; self.atoms.len()];
        let mut scaffold = Self::default();
        for (atom, _) in kept.iter().enumerate().filter(|&(_, &kept)| kept) {
            place[atom] = scaffold.atoms.len();
            let cut: u8 = neighbors[atom]
                .iter()
                .filter(|&&(other, _)| !kept[other])
                .map(|&(_, bond)| self.bonds[bond].order)
                .sum();
            let Atom { element, charge, hydrogens, .. } = self.atoms[atom];
            let chirality = Chirality::None;
            scaffold.atoms.push(Atom { element, charge, hydrogens: hydrogens + cut, chirality });
        }
        let inside = |bond: &&Bond| bond.ends.iter().all(|&end| kept[end]);
        scaffold.bonds = self
            .bonds
            .iter()
            .filter(inside)
            .map(|bond| Bond { ends: bond.ends.map(|end| place[end]), order: bond.order })
            .collect();
        scaffold
    }
}
