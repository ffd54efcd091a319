//! The hybridisation of atoms, as RDKit 2026.09 assigns it (`ConjugHybrid.cpp`): by bonds, lone pairs and
//! single electrons, where conjugation makes sp2 of sp3.

use super::molecule::Molecule;

/// Orbitals that bonds and lone pairs of an atom are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hybridisation {
    /// s alone.
    S,
    /// sp.
    Sp,
    /// sp2.
    Sp2,
    /// sp3.
    Sp3,
    /// sp3d.
    Sp3d,
    /// sp3d2.
    Sp3d2,
    /// More neighbours than those have, or an element whose valences are not known here.
    Other,
}

/// Electrons in the outer shell and valences of an element, the usual one first.
const fn shell(element: u8) -> Option<(i32, &'static [i32])> {
    Some(match element {
        1 => (1, &[1]),
        5 => (3, &[3]),
        6 | 14 => (4, &[4]),
        7 => (5, &[3]),
        8 => (6, &[2]),
        9 | 17 | 35 => (7, &[1]),
        15 | 33 => (5, &[3, 5]),
        16 | 34 => (6, &[2, 4, 6]),
        53 => (7, &[1, 3, 5]),
        _ => return None,
    })
}

/// What is counted of an atom.
#[derive(Clone, Copy)]
struct Site {
    element: u8,
    charge: i32,
    outer: i32,
    usual_valence: i32,
    /// Orders of all bonds, those to hydrogens included.
    valence: i32,
    /// Neighbours, hydrogens included.
    degree: i32,
    /// Orders of bonds to heavy atoms beyond the first.
    multiple: i32,
    single_electrons: i32,
}

impl Site {
    fn new(molecule: &Molecule, neighbors: &[(usize, usize)], atom: usize) -> Option<Self> {
        let atom = molecule.atoms[atom];
        let (outer, valences) = shell(atom.element)?;
        let orders = neighbors.iter().map(|&(_, bond)| i32::from(molecule.bonds[bond].order));
        let (heavy, hydrogens) = (neighbors.len() as i32, i32::from(atom.hydrogens));
        let valence = orders.sum::<i32>() + hydrogens;
        let charge = i32::from(atom.charge);
        let octet = if atom.element == 1 { 2 } else { 8 };
        let mut single_electrons = octet - outer - valence + charge;
        if single_electrons < 0 {
            let mut spare = valences[1..].iter().map(|allowed| allowed - valence + charge);
            single_electrons = spare.find(|&spare| spare >= 0).unwrap_or(0);
        }
        let unbound = outer - valence - charge;
        if unbound >= 0 {
            single_electrons = single_electrons.min(unbound);
        }
        Some(Self {
            element: atom.element,
            charge,
            outer,
            usual_valence: valences[0],
            valence,
            degree: heavy + hydrogens,
            multiple: valence - hydrogens - heavy,
            single_electrons,
        })
    }

    /// Whether it can take part in conjugation.
    fn may_conjugate(&self) -> bool {
        let expanded = self.charge == 0 && self.valence > self.usual_valence;
        // Heavier elements of the groups of nitrogen and oxygen do not, but for =S and its like.
        let fits = self.element <= 10
            || match self.outer {
                5 => false,
                6 => self.degree < 2,
                _ => true,
            };
        !expanded && fits && self.pi_electrons() > 0
    }

    /// Electrons that it could give to a π system.
    fn pi_electrons(&self) -> i32 {
        if self.usual_valence <= 1 || self.degree > 3 {
            return 0;
        }
        let lone = (self.outer - self.usual_valence - self.charge).max(0);
        let electrons = self.usual_valence - self.degree + lone - self.single_electrons;
        if electrons > 1 && self.multiple > 1 { 1 } else { electrons }
    }

    /// Bonds, lone pairs and single electrons.
    fn orbitals(&self) -> i32 {
        if self.element == 1 {
            return self.degree;
        }
        let free = self.outer - self.valence - self.charge;
        match self.valence + self.outer - self.charge < 8 {
            true => self.degree + (free - self.single_electrons) / 2 + self.single_electrons,
            false => self.degree + free / 2,
        }
    }
}

impl Molecule {
    /// The hybridisation of each atom. `aromatic` says it of each bond, as
    /// [`aromatic_bonds`](Self::aromatic_bonds).
    pub fn hybridisations(&self, aromatic: &[bool]) -> Vec<Hybridisation> {
        let neighbors = self.neighbors();
        let sites: Vec<Option<Site>> =
            (0..self.atoms.len()).map(|atom| Site::new(self, &neighbors[atom], atom)).collect();
        let may_conjugate: Vec<bool> =
            sites.iter().map(|site| site.is_some_and(|site| site.may_conjugate())).collect();
        let few = |atom: usize| sites[atom].is_none_or(|site| site.degree <= 3);
        let mut conjugated = aromatic.to_vec();
        for (atom, site) in sites.iter().enumerate() {
            if !may_conjugate[atom] || site.is_none_or(|site| !(2..=3).contains(&site.degree)) {
                continue;
            }
            for &(partner, multiple) in &neighbors[atom] {
                if (self.bonds[multiple].order < 2 && !aromatic[multiple])
                    || !may_conjugate[partner]
                {
                    continue;
                }
                for &(other, bond) in &neighbors[atom] {
                    if bond != multiple && few(other) && may_conjugate[other] {
                        conjugated[multiple] = true;
                        conjugated[bond] = true;
                    }
                }
            }
        }
        let of_site = |(site, neighbors): (&Option<Site>, &Vec<(usize, usize)>)| {
            let Some(site) = site else { return Hybridisation::Other };
            match site.orbitals() {
                0 | 1 => Hybridisation::S,
                2 => Hybridisation::Sp,
                3 => Hybridisation::Sp2,
                4 if site.degree <= 3 && neighbors.iter().any(|&(_, bond)| conjugated[bond]) => {
                    Hybridisation::Sp2
                }
                4 => Hybridisation::Sp3,
                5 => Hybridisation::Sp3d,
                6 => Hybridisation::Sp3d2,
                _ => Hybridisation::Other,
            }
        };
        sites.iter().zip(&neighbors).map(of_site).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kekule::{matchings, spare_valence};
    use super::super::{Atom, Bond, Chirality};
    use super::*;

    /// Atom by atom as RDKit has it, in every molecule of the papers' test set.
    #[test]
    #[cfg_attr(not(reference_data), ignore = "needs the reference data")]
    fn fragments_are_hybridised_as_by_rdkit() {
        let path = std::path::Path::new(env!("GFN_REFERENCE_DATA")).join("test_mols_950.json");
        let entries: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let numbers = |entry: &serde_json::Value| -> Vec<i64> {
            entry.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
        };
        let rows = |list: &serde_json::Value| -> Vec<Vec<i64>> {
            list.as_array().unwrap().iter().map(numbers).collect()
        };
        let entries = entries.as_array().unwrap();
        assert_eq!(entries.len(), 950);
        for entry in entries {
            let (atoms, bonds) = (rows(&entry["atoms"]), rows(&entry["bonds"]));
            let aromatic: Vec<bool> = bonds.iter().map(|bond| bond[2] == 3).collect();
            let mut molecule = Molecule {
                atoms: atoms
                    .iter()
                    .map(|atom| Atom {
                        element: atom[0] as u8,
                        charge: atom[4] as i8,
                        hydrogens: atom[3] as u8,
                        chirality: Chirality::None,
                    })
                    .collect(),
                bonds: bonds
                    .iter()
                    .map(|bond| {
                        let order = if bond[2] == 3 { 1 } else { bond[2] as u8 + 1 };
                        Bond::new(bond[0] as usize, bond[1] as usize, order)
                    })
                    .collect(),
            };
            // Aromatic bonds have no order there.
            let neighbors = molecule.neighbors();
            let wanted: Vec<bool> = molecule
                .atoms
                .iter()
                .zip(&neighbors)
                .map(|(atom, neighbors)| {
                    let orders = neighbors.iter().map(|&(_, bond)| molecule.bonds[bond].order);
                    let used = orders.sum::<u8>() + atom.hydrogens;
                    neighbors.iter().any(|&(_, bond)| aromatic[bond])
                        && spare_valence(atom.element, atom.charge, used).is_some_and(|n| n > 0)
                })
                .collect();
            let places: Vec<usize> = (0..bonds.len()).filter(|&bond| aromatic[bond]).collect();
            let pairs: Vec<[usize; 2]> =
                places.iter().map(|&bond| molecule.bonds[bond].ends).collect();
            let double = matchings(&pairs, &wanted, 1).pop().expect("a Kekulé form");
            double.into_iter().for_each(|pair| molecule.bonds[places[pair]].order = 2);
            let expected: Vec<Hybridisation> = atoms
                .iter()
                .map(|atom| match atom[2] {
                    1 => Hybridisation::Sp,
                    2 => Hybridisation::Sp2,
                    3 => Hybridisation::Sp3,
                    code => panic!("{code}"),
                })
                .collect();
            assert_eq!(molecule.hybridisations(&aromatic), expected, "{}", entry["smiles"]);
        }
    }
}
