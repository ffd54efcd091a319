//! The HOMO-LUMO gap of a molecular graph by a Hückel model with σ orbitals.
//!
//! Textbook Hückel theory knows π electrons and lone pairs alone, with parameters for heteroatoms
//! (here Van-Catledge, J. Org. Chem. 45, 4801, 1980), and has nothing to say about saturated molecules.
//! Here each atom also has one occupied and one empty orbital that stand for its σ bonds, and oxygen
//! and nitrogen have their lone pair in the plane; they interact with neighbours, as in
//! hyperconjugation. What Van-Catledge does not give was fitted to gaps of QM9 (B3LYP) by
//! `scripts/reference/fit_huckel.py`, on molecules of carbon, nitrogen, oxygen and fluorine. Other
//! elements get a number that nobody should rely on, and so do molecules unlike those of QM9.
//!
//! Energies are in units of |β|, bound orbitals positive, until [`gap`] maps them to eV.

use super::molecule::{Atom, Molecule};

/// E = `OFFSET_EV` + `SLOPE_EV` · gap in |β|: least squares on every tenth molecule of QM9, which a
/// test repeats.
const OFFSET_EV: f64 = 1.283;
const SLOPE_EV: f64 = 2.837;

/// Fitted; in π orbitals added to Van-Catledge's parameters.
mod fitted {
    /// Of a π orbital at a positive atom, and of a lone pair at a negative one.
    pub(super) const PLUS: f64 = 1.99;
    pub(super) const MINUS: f64 = -2.15;
    /// Coupling along double bonds, and across single bonds; aromatic ones have the mean.
    pub(super) const DOUBLE: f64 = 0.91;
    pub(super) const SINGLE: f64 = -0.51;
    /// Lone pairs in the plane of nitrogen and oxygen; of those, at saturated atoms and with two π bonds.
    pub(super) const LONE_N: f64 = 1.03;
    pub(super) const LONE_O: f64 = 0.64;
    pub(super) const LONE_SATURATED: f64 = 4.00;
    pub(super) const LONE_SP: f64 = 3.00;
    /// Occupied σ orbitals: of carbon; more at other elements, in three-membered rings, at saturated
    /// atoms, for each hydrogen.
    pub(super) const SIGMA: f64 = 2.08;
    pub(super) const SIGMA_N: f64 = 2.04;
    pub(super) const SIGMA_O: f64 = 0.17;
    pub(super) const SIGMA_F: f64 = 1.00;
    pub(super) const SIGMA_RING3: f64 = -0.88;
    pub(super) const SIGMA_SATURATED: f64 = 1.59;
    pub(super) const SIGMA_H: f64 = -0.45;
    /// Empty σ orbitals, which nitrogen and oxygen do without.
    pub(super) const STAR: f64 = -1.60;
    pub(super) const STAR_F: f64 = -4.00;
    pub(super) const STAR_RING3: f64 = -0.10;
    pub(super) const STAR_H: f64 = -0.13;
    /// Couplings between neighbours.
    pub(super) const SIGMA_SIGMA: f64 = 0.66;
    pub(super) const STAR_STAR: f64 = 0.14;
    pub(super) const PI_SIGMA: f64 = 0.76;
    pub(super) const PI_STAR: f64 = 0.73;
    pub(super) const LONE_SIGMA: f64 = 0.30;
    pub(super) const LONE_STAR: f64 = 0.52;
    /// Of a lone pair with the σ orbitals of its own atom.
    pub(super) const OWN_LONE_SIGMA: f64 = 0.24;
    pub(super) const OWN_LONE_STAR: f64 = 0.42;
}

/// The HOMO-LUMO gap in eV, on the scale of B3LYP in QM9. For an odd number of electrons the orbital
/// of the single one counts as occupied. Molecules without an empty orbital, such as water, get the
/// gap to an orbital of energy −4 |β|.
///
/// # Panics
///
/// As [`Molecule::canonical_smiles`].
pub fn gap(molecule: &Molecule) -> f64 {
    gap_of(molecule, &molecule.aromatic_bonds())
}

/// [`gap`] where it is known which bonds are aromatic.
pub fn gap_of(molecule: &Molecule, aromatic: &[bool]) -> f64 {
    OFFSET_EV + SLOPE_EV * gap_in_beta(molecule, aromatic)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Of an element, for one or two electrons.
    Pi(u8, u8),
    /// A lone pair in the plane.
    Lone,
    Sigma,
    Star,
}

#[derive(Default)]
struct Model {
    kinds: Vec<Kind>,
    energies: Vec<f64>,
    /// Pairs of orbitals and their coupling.
    couplings: Vec<(usize, usize, f64)>,
    of_atom: Vec<Vec<usize>>,
    electrons: usize,
}

impl Model {
    fn add(&mut self, atom: usize, kind: Kind, energy: f64, electrons: usize) -> usize {
        self.kinds.push(kind);
        self.energies.push(energy);
        self.electrons += electrons;
        self.of_atom[atom].push(self.kinds.len() - 1);
        self.kinds.len() - 1
    }

    fn add_pi(&mut self, index: usize, atom: &Atom, kind: u8, electrons: usize) -> usize {
        let mut energy = pi_energy(atom.element, kind);
        if atom.charge > 0 && kind == 1 {
            energy += fitted::PLUS;
        }
        if atom.charge < 0 && kind == 2 {
            energy += fitted::MINUS;
        }
        self.add(index, Kind::Pi(atom.element, kind), energy, electrons)
    }

    fn couple_pi(&mut self, i: usize, j: usize, double: f64) {
        let (Kind::Pi(..), Kind::Pi(..)) = (self.kinds[i], self.kinds[j]) else { return };
        let value = pi_coupling(self.kinds[i], self.kinds[j]);
        let value = value + double * fitted::DOUBLE + (1.0 - double) * fitted::SINGLE;
        self.couplings.push((i, j, value));
    }
}

/// Van-Catledge's h: 0 for carbon with one π electron.
fn pi_energy(element: u8, electrons: u8) -> f64 {
    match (element, electrons) {
        (6, 1) => 0.0,
        // Not in the source: a carbanion, before its charge.
        (6, _) => 0.2,
        (7, 1) => 0.51,
        (7, _) => 1.37,
        (8, 1) => 0.97,
        (8, _) => 2.09,
        (9, 2) => 2.71,
        (5, _) => -0.45,
        (14, _) => 0.0,
        (15, 1) => 0.19,
        (15, _) => 0.75,
        (16, 1) => 0.46,
        (16, _) => 1.11,
        (17, 2) => 1.48,
        _ => 1.0,
    }
}

/// Van-Catledge's k, 1 between carbon atoms.
fn pi_coupling(a: Kind, b: Kind) -> f64 {
    let number = |kind| match kind {
        Kind::Pi(element, electrons) => (element, electrons),
        _ => (0, 0),
    };
    let (a, b) = (number(a), number(b));
    match (a.min(b), a.max(b)) {
        ((6, 1), (6, 1)) => 1.0,
        ((6, 1), (7, 1)) => 1.02,
        ((6, 1), (7, 2)) => 0.89,
        ((6, 1), (8, 1)) => 1.06,
        ((6, 1), (8, 2)) => 0.66,
        ((6, 1), (9, 2)) => 0.52,
        ((7, 1), (7, 1)) => 1.09,
        ((7, 1), (7, 2)) => 0.99,
        ((7, 2), (7, 2)) => 0.98,
        ((7, 1), (8, 1)) => 1.14,
        ((7, 2), (8, 1)) => 0.80,
        ((7, 1), (8, 2)) => 1.13,
        ((7, 2), (8, 2)) => 0.89,
        ((8, 1), (8, 1)) => 1.26,
        ((8, 1), (8, 2)) => 1.02,
        ((8, 2), (8, 2)) => 0.95,
        ((7, 1), (9, 2)) => 0.65,
        ((7, 2), (9, 2)) => 0.52,
        ((8, 1), (9, 2)) => 0.77,
        ((8, 2), (9, 2)) => 0.92,
        ((6, 1), (16, 1)) => 0.81,
        ((6, 1), (16, 2)) => 0.69,
        ((6, 1), (17, 2)) => 0.62,
        ((6, 1), (15, 1)) => 0.77,
        ((6, 1), (15, 2)) => 0.76,
        ((5, 1), (6, 1)) => 0.73,
        ((6, 1), (14, 1)) => 0.75,
        _ => 0.9,
    }
}

/// Electrons of the outer shell.
fn outer_electrons(element: u8) -> i32 {
    match element {
        1 => 1,
        5 | 13 => 3,
        6 | 14 | 32 | 50 => 4,
        7 | 15 | 33 | 51 => 5,
        8 | 16 | 34 | 52 => 6,
        9 | 17 | 35 | 53 => 7,
        _ => 0,
    }
}

fn model(molecule: &Molecule, aromatic: &[bool]) -> Model {
    let neighbors = molecule.neighbors();
    let mut model = Model { of_atom: vec![Vec::new(); molecule.atoms.len()], ..Model::default() };
    let mut n_pi = vec![0; molecule.atoms.len()];
    let mut partners = Vec::new();
    for (bond, &aromatic) in molecule.bonds.iter().zip(aromatic) {
        for _ in 1..bond.order {
            let [i, j] = bond.ends.map(|end| model.add_pi(end, &molecule.atoms[end], 1, 1));
            model.couple_pi(i, j, if aromatic { 0.5 } else { 1.0 });
            partners.push([i, j]);
            bond.ends.iter().for_each(|&end| n_pi[end] += 1);
        }
    }
    for (index, atom) in molecule.atoms.iter().enumerate() {
        let orders =
            neighbors[index].iter().map(|&(_, bond)| i32::from(molecule.bonds[bond].order));
        let used = orders.sum::<i32>() + i32::from(atom.hydrogens);
        let free = (outer_electrons(atom.element) - i32::from(atom.charge) - used).max(0);
        let (mut pairs, single) = (free / 2, free % 2);
        if pairs > 0 && n_pi[index] == 0 {
            model.add_pi(index, atom, 2, 2);
            pairs -= 1;
        }
        if pairs > 0 && matches!(atom.element, 7 | 8 | 16) {
            let mut energy = if atom.element == 7 { fitted::LONE_N } else { fitted::LONE_O };
            energy += match n_pi[index] {
                0 => fitted::LONE_SATURATED,
                1 => 0.0,
                _ => fitted::LONE_SP,
            };
            if atom.charge < 0 {
                energy += fitted::MINUS;
            }
            model.add(index, Kind::Lone, energy, 2);
        }
        if single == 1 {
            model.add_pi(index, atom, 1, 1);
        }
        let vacant = (atom.element == 6 && atom.charge > 0) || (atom.element == 5 && free == 0);
        if vacant && n_pi[index] == 0 {
            model.add_pi(index, atom, 1, 0);
        }
        add_sigma(&mut model, molecule, &neighbors, index, n_pi[index] == 0);
    }
    for (bond, &aromatic) in molecule.bonds.iter().zip(aromatic) {
        let [a, b] = bond.ends.map(|end| model.of_atom[end].clone());
        let has_pi = aromatic || bond.order > 1;
        for &i in &a {
            for &j in &b {
                if partners.contains(&[i, j]) {
                    continue;
                }
                use Kind::{Lone, Pi, Sigma, Star};
                let value = match (model.kinds[i], model.kinds[j]) {
                    (Pi(..), Pi(..)) => {
                        model.couple_pi(i, j, if aromatic { 0.5 } else { 0.0 });
                        continue;
                    }
                    (Sigma, Sigma) => fitted::SIGMA_SIGMA,
                    (Star, Star) => fitted::STAR_STAR,
                    (Pi(..), Sigma) | (Sigma, Pi(..)) if !has_pi => fitted::PI_SIGMA,
                    (Pi(..), Star) | (Star, Pi(..)) if !has_pi => fitted::PI_STAR,
                    (Lone, Sigma) | (Sigma, Lone) => fitted::LONE_SIGMA,
                    (Lone, Star) | (Star, Lone) => fitted::LONE_STAR,
                    _ => continue,
                };
                model.couplings.push((i, j, value));
            }
        }
    }
    model
}

/// The two σ orbitals of an atom, and what its lone pair has to do with them.
fn add_sigma(
    model: &mut Model,
    molecule: &Molecule,
    neighbors: &[Vec<(usize, usize)>],
    index: usize,
    saturated: bool,
) {
    let atom = &molecule.atoms[index];
    let near = |atom: &usize| neighbors[index].iter().any(|(other, _)| other == atom);
    let in_ring3 = molecule.bonds.iter().any(|bond| bond.ends.iter().all(near));
    let ring3 = f64::from(in_ring3);
    let hydrogens = f64::from(atom.hydrogens);
    let by_element = match atom.element {
        7 => fitted::SIGMA_N,
        8 => fitted::SIGMA_O,
        9 => fitted::SIGMA_F,
        _ => 0.0,
    };
    let energy = fitted::SIGMA
        + by_element
        + fitted::SIGMA_RING3 * ring3
        + fitted::SIGMA_SATURATED * f64::from(saturated)
        + fitted::SIGMA_H * hydrogens;
    let lone: Vec<usize> = model.of_atom[index].clone();
    let lone = lone.into_iter().find(|&orbital| model.kinds[orbital] == Kind::Lone);
    let sigma = model.add(index, Kind::Sigma, energy, 2);
    if let Some(lone) = lone {
        model.couplings.push((lone, sigma, fitted::OWN_LONE_SIGMA));
    }
    if !matches!(atom.element, 7 | 8) {
        let by_element = if atom.element == 9 { fitted::STAR_F } else { 0.0 };
        let energy =
            fitted::STAR + by_element + fitted::STAR_RING3 * ring3 + fitted::STAR_H * hydrogens;
        let star = model.add(index, Kind::Star, energy, 0);
        if let Some(lone) = lone {
            model.couplings.push((lone, star, fitted::OWN_LONE_STAR));
        }
    }
}

/// The gap in units of |β|.
fn gap_in_beta(molecule: &Molecule, aromatic: &[bool]) -> f64 {
    if molecule.atoms.is_empty() {
        return 0.0;
    }
    let model = model(molecule, aromatic);
    let n = model.kinds.len();
    let mut matrix = vec![vec![0.0; n]; n];
    for (index, &energy) in model.energies.iter().enumerate() {
        matrix[index][index] = energy;
    }
    for &(i, j, value) in &model.couplings {
        matrix[i][j] += value;
        matrix[j][i] += value;
    }
    let occupied = model.electrons.div_ceil(2);
    let levels = Tridiagonal::of(matrix);
    let empty = if occupied < n { levels.largest(occupied) } else { -4.0 };
    levels.largest(occupied - 1) - empty
}

/// A symmetric tridiagonal matrix, for single eigenvalues of a symmetric one.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Squares of the numbers beside the diagonal.
    beside: Vec<f64>,
}

impl Tridiagonal {
    /// With the same eigenvalues, by Householder's reflections (Golub and Van Loan, 8.3.1).
    fn of(mut a: Vec<Vec<f64>>) -> Self {
        let n = a.len();
        let mut beside = Vec::with_capacity(n);
        for k in 0..n.saturating_sub(1) {
            let mut v: Vec<f64> = (k + 1..n).map(|i| a[i][k]).collect();
            let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
            beside.push(norm * norm);
            v[0] += if v[0] < 0.0 { -norm } else { norm };
            let square = v.iter().map(|x| x * x).sum::<f64>();
            if square < 1e-300 {
                continue;
            }
            let rest = &mut a[k + 1..];
            let dot = |row: &[f64]| row[k + 1..].iter().zip(&v).map(|(a, v)| a * v).sum::<f64>();
            let mut w: Vec<f64> = rest.iter().map(|row| 2.0 * dot(row) / square).collect();
            let half = w.iter().zip(&v).map(|(w, v)| w * v).sum::<f64>() / square;
            w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
            for (i, row) in rest.iter_mut().enumerate() {
                for (j, value) in row[k + 1..].iter_mut().enumerate() {
                    *value -= v[i] * w[j] + w[i] * v[j];
                }
            }
        }
        Self { diagonal: (0..n).map(|i| a[i][i]).collect(), beside }
    }

    /// The eigenvalue that `rank` others are larger than, by bisection: as many are larger than x as
    /// there are positive pivots of the matrix minus x (Sturm).
    fn largest(&self, rank: usize) -> f64 {
        let n_above = |x: f64| {
            let mut pivot = 1.0;
            let mut above = 0;
            for (i, &d) in self.diagonal.iter().enumerate() {
                let square = if i == 0 { 0.0 } else { self.beside[i - 1] };
                pivot = d - x - square / pivot;
                if pivot == 0.0 {
                    pivot = -1e-300;
                }
                above += usize::from(pivot > 0.0);
            }
            above
        };
        let size = self.diagonal.iter().map(|d| d.abs()).fold(0.0, f64::max)
            + 2.0 * self.beside.iter().copied().fold(0.0, f64::max).sqrt();
        let (mut low, mut high) = (-size - 1.0, size + 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if n_above(middle) > rank { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rings and chains of Hückel theory have eigenvalues 2 cos(2πk/n) and 2 cos(πk/(n + 1)).
    #[test]
    fn eigenvalues_are_those_of_rings_and_chains() {
        use std::f64::consts::PI;
        for n in 1..12_usize {
            let mut ring = vec![vec![0.0; n]; n];
            let mut chain = ring.clone();
            for i in 0..n {
                if i + 1 < n {
                    chain[i][i + 1] = 1.0;
                    chain[i + 1][i] = 1.0;
                }
                ring[i][(i + 1) % n] += 1.0;
                ring[(i + 1) % n][i] += 1.0;
            }
            let mut of_ring: Vec<f64> =
                (0..n).map(|k| 2.0 * (2.0 * PI * k as f64 / n as f64).cos()).collect();
            let of_chain = (1..=n).map(|k| 2.0 * (PI * k as f64 / (n + 1) as f64).cos());
            of_ring.sort_by(|a, b| b.total_cmp(a));
            let (ring, chain) = (Tridiagonal::of(ring), Tridiagonal::of(chain));
            for (rank, (of_ring, of_chain)) in of_ring.iter().zip(of_chain).enumerate() {
                assert!((ring.largest(rank) - of_ring).abs() < 1e-9, "ring {n}, {rank}");
                assert!((chain.largest(rank) - of_chain).abs() < 1e-9, "chain {n}, {rank}");
            }
        }
    }

    #[test]
    fn gaps_depend_on_the_molecule_alone_and_have_the_order_of_textbooks() {
        let gap = |smiles: &str| gap(&Molecule::from_smiles(smiles).unwrap());
        for (one, other) in [
            ("C1=CC=CC=C1C", "C1C=CC=CC=1C"),
            ("OC1=C2C=CC=CC2=CC=C1", "c1ccc2c(O)cccc2c1"),
            ("O=N(=O)C1=CC=CN1", "N1C(=CC=C1)N(=O)=O"),
            ("N#CC(C)=O", "CC(=O)C#N"),
        ] {
            assert!((gap(one) - gap(other)).abs() < 1e-6, "{one} {other}");
        }
        assert!(gap("CC") > gap("C=C") && gap("C=C") > gap("C=CC=C"));
        assert!(gap("C=CC=C") > gap("C=CC=CC=C"));
        assert!(gap("CCC=O") > gap("O=CC=O"));
        assert!(gap("CC(C)=O") < gap("CCO"));
        // Alone, with one orbital filled, and without any atom.
        assert!(gap("[He]").is_finite() && gap("O") > 6.0);
        assert_eq!(super::gap(&Molecule::default()).to_bits(), OFFSET_EV.to_bits());
    }
}
