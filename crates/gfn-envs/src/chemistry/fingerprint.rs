//! The path fingerprint of RDKit, `Chem.RDKFingerprint` with its default settings, which the papers
//! on molecules count modes with.
//!
//! Every connected set of 1 to 7 bonds, branched ones included, is hashed from its bonds: aromatic or
//! order, the elements of their ends and whether these are aromatic, and how many bonds of the set
//! meet at each end. A hash sets two of 2048 bits. Charges, hydrogens and chirality are not looked at.
//! Checked bit by bit against RDKit, which looks at molecules after [`Molecule::charge_separated`].

use serde::{Deserialize, Serialize};

use super::molecule::{Bond, Molecule};

/// The largest number of bonds in a path.
const MAX_PATH: usize = 7;
const N_BITS: u32 = 2048;

/// A set of 2048 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u64; 32]);

impl Fingerprint {
    /// The fingerprint of a molecule; without bonds there are no bits.
    ///
    /// # Panics
    ///
    /// As [`Molecule::canonical_smiles`].
    pub fn of(molecule: &Molecule) -> Self {
        let separated = molecule.charge_separated();
        let molecule = separated.as_ref().unwrap_or(molecule);
        let aromatic = molecule.aromatic_bonds();
        let mut atoms: Vec<u32> =
            molecule.atoms.iter().map(|atom| u32::from(atom.element % 128) << 1).collect();
        for (bond, _) in molecule.bonds.iter().zip(&aromatic).filter(|&(_, &aromatic)| aromatic) {
            bond.ends.iter().for_each(|&end| atoms[end] |= 1);
        }
        let types = molecule.bonds.iter().zip(aromatic);
        let types = types.map(|(bond, aromatic)| if aromatic { 12 } else { bond.order.into() });
        let mut adjacent = vec![Vec::new(); molecule.atoms.len()];
        for (index, bond) in molecule.bonds.iter().enumerate() {
            bond.ends.iter().for_each(|&end| adjacent[end].push(index));
        }
        let mut paths = Paths {
            bonds: &molecule.bonds,
            types: types.collect(),
            degree: vec![0; atoms.len()],
            atoms,
            adjacent,
            seen: vec![false; molecule.bonds.len()],
            path: Vec::with_capacity(MAX_PATH),
            frontier: Vec::new(),
            bits: [0; 32],
        };
        for bond in 0..molecule.bonds.len() {
            // A set is met once, from the first of its bonds.
            paths.seen[bond] = true;
            paths.extend(bond, 0..0);
        }
        Self(paths.bits)
    }

    /// The number of bits that are set.
    pub fn n_bits(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The bits that are set, ascending.
    pub fn bits(&self) -> impl Iterator<Item = usize> + '_ {
        (0..N_BITS as usize).filter(|bit| self.0[bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// The Tanimoto similarity: bits of both over bits of either; 0 if there are none, as RDKit has it.
    pub fn tanimoto(&self, other: &Self) -> f64 {
        let (mut both, mut either) = (0, 0);
        for (a, b) in self.0.iter().zip(&other.0) {
            both += (a & b).count_ones();
            either += (a | b).count_ones();
        }
        if either == 0 { 0.0 } else { f64::from(both) / f64::from(either) }
    }
}

/// The mean over pairs of 1 − Tanimoto similarity; none for fewer than two fingerprints.
pub fn mean_distance(fingerprints: &[Fingerprint]) -> Option<f64> {
    let n = fingerprints.len();
    let mut sum = 0.0;
    for (index, a) in fingerprints.iter().enumerate() {
        sum += fingerprints[index + 1..].iter().map(|b| 1.0 - a.tanimoto(b)).sum::<f64>();
    }
    (n > 1).then(|| sum / (n * (n - 1) / 2) as f64)
}

/// The search through all connected sets of bonds.
struct Paths<'a> {
    bonds: &'a [Bond],
    /// 12 for aromatic bonds, else the order.
    types: Vec<u32>,
    /// Element and aromaticity.
    atoms: Vec<u32>,
    /// Bonds of each atom.
    adjacent: Vec<Vec<usize>>,
    /// Number of bonds of the path at each atom.
    degree: Vec<u32>,
    path: Vec<usize>,
    /// Bonds that were considered for the path, now or before, and must not be again.
    seen: Vec<bool>,
    /// Bonds that may be added, a stack of ranges.
    frontier: Vec<usize>,
    bits: [u64; 32],
}

impl Paths<'_> {
    /// Adds a bond to the path, takes its bits, and goes on with the bonds of a range of the frontier
    /// and those that the new bond brings into reach.
    fn extend(&mut self, bond: usize, rest: std::ops::Range<usize>) {
        self.path.push(bond);
        self.bonds[bond].ends.iter().for_each(|&end| self.degree[end] += 1);
        self.set_bits();
        if self.path.len() < MAX_PATH {
            let start = self.frontier.len();
            self.frontier.extend_from_within(rest);
            let brought = self.frontier.len();
            for end in self.bonds[bond].ends {
                for &next in &self.adjacent[end] {
                    if !std::mem::replace(&mut self.seen[next], true) {
                        self.frontier.push(next);
                    }
                }
            }
            let stop = self.frontier.len();
            for place in start..stop {
                self.extend(self.frontier[place], place + 1..stop);
            }
            self.frontier[brought..].iter().for_each(|&next| self.seen[next] = false);
            self.frontier.truncate(start);
        }
        self.bonds[bond].ends.iter().for_each(|&end| self.degree[end] -= 1);
        self.path.pop();
    }

    fn set_bits(&mut self) {
        let mut hashes = [0; MAX_PATH + 1];
        let mut n_ends = 0;
        for (hash, &bond) in hashes.iter_mut().zip(&self.path) {
            let ends = self.bonds[bond].ends.map(|end| (self.atoms[end], self.degree[end]));
            let [small, large] = if ends[0] < ends[1] { ends } else { [ends[1], ends[0]] };
            let beside = small.1 + large.1 - 2;
            *hash = [self.types[bond], large.0, large.1, small.0, small.1]
                .into_iter()
                .fold(beside, combine);
            n_ends += 2;
        }
        let n = self.path.len();
        let hash = if n == 1 {
            hashes[0]
        } else {
            hashes[..n].sort_unstable();
            // Each atom was counted once for each of its bonds.
            let mut atoms = n_ends;
            for (place, &bond) in self.path.iter().enumerate() {
                for end in self.bonds[bond].ends {
                    let before = &self.path[..place];
                    atoms -= u32::from(
                        before.iter().any(|&other| self.bonds[other].ends.contains(&end)),
                    );
                }
            }
            hashes[n] = atoms;
            hashes[..=n].iter().fold(0, |seed, &value| combine(seed, value))
        };
        for bit in [hash % N_BITS, first_draw(hash) / 2 % N_BITS] {
            self.bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
}

/// `boost::hash_combine` on 32 bits.
fn combine(seed: u32, value: u32) -> u32 {
    let mixed = value.wrapping_add(0x9e37_79b9).wrapping_add(seed << 6).wrapping_add(seed >> 2);
    seed ^ mixed
}

/// The first number of RDKit's generator after seeding: a Mersenne twister whose state has four words
/// (and two for its middle), seeded and tempered as usual.
fn first_draw(seed: u32) -> u32 {
    let mut state = [seed; 3];
    for i in 1..3 {
        let last = state[i - 1];
        state[i] = (last ^ last >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
    }
    let mixed = state[0] & 0x8000_0000 | state[1] & 0x7fff_ffff;
    let mut draw = state[2] ^ mixed >> 1 ^ (mixed & 1).wrapping_mul(0x9908_b0df);
    draw ^= draw >> 11;
    draw ^= draw << 7 & 0x9d2c_5680;
    draw ^= draw << 15 & 0xefc6_0000;
    draw ^ draw >> 18
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(smiles: &str) -> Fingerprint {
        Fingerprint::of(&Molecule::from_smiles(smiles).unwrap())
    }

    #[test]
    fn similarities_have_the_values_they_must_have() {
        let (benzene, toluene) = (fingerprint("c1ccccc1"), fingerprint("Cc1ccccc1"));
        assert!((benzene.tanimoto(&benzene) - 1.0).abs() < 1e-12);
        // All paths of benzene are paths of toluene.
        let contained = f64::from(benzene.n_bits()) / f64::from(toluene.n_bits());
        assert!((benzene.tanimoto(&toluene) - contained).abs() < 1e-12);
        assert_eq!(fingerprint("C").n_bits(), 0);
        assert_eq!(fingerprint("C").tanimoto(&fingerprint("C")).to_bits(), 0);
        assert_eq!(fingerprint("C1=CC=CC=C1"), benzene);
        assert_eq!(benzene.bits().count() as u32, benzene.n_bits());
        assert_eq!(mean_distance(&[benzene]), None);
        let mean = mean_distance(&[benzene, benzene, toluene]).unwrap();
        assert!((mean - 2.0 / 3.0 * (1.0 - contained)).abs() < 1e-12);
    }
}
