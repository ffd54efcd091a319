//! Cutting a molecule into fragments.

use std::ops::RangeInclusive;

use super::library::{Fragment, Library};
use super::template;
use super::tree::{NONE, Tree, at_site};
use crate::chemistry::Molecule;

/// Trees of one molecule that are looked for, at most.
const MOST_TREES: usize = 4096;
/// Atoms of a molecule: they are sets of bits.
const MOST_ATOMS: usize = 128;

/// A fragment somewhere in a molecule.
struct Placement {
    fragment: usize,
    atoms: u128,
    /// For each bond that leaves it, that bond and the site there; sorted.
    joins: Vec<(usize, u8)>,
}

/// The trees with the fewest fragments of those that a molecule can be cut into, within a range.
///
/// # Errors
/// Why there is none.
pub(super) fn trees(
    library: &Library,
    molecule: &Molecule,
    range: RangeInclusive<usize>,
) -> Result<Vec<Tree>, String> {
    let n = molecule.atoms.len();
    if n > MOST_ATOMS || !molecule.is_simple_graph() {
        return Err(format!("it has more than {MOST_ATOMS} atoms, or several bonds of two atoms"));
    }
    let separated = molecule.charge_separated();
    let seen = Seen::of(separated.as_ref().unwrap_or(molecule));
    let mut placements = Vec::new();
    for (number, fragment) in library.fragments.iter().enumerate() {
        seen.place(number, fragment, &mut placements);
    }
    let covered = placements.iter().fold(0, |set, placement| set | placement.atoms);
    if let Some(atom) = (0..n).find(|&atom| covered >> atom & 1 == 0) {
        let symbol = molecule.atoms[atom].symbol();
        let message = "no fragment can stand where its atom";
        return Err(format!("{message} {} ({symbol}) is", atom + 1));
    }
    let mut search = Search { placements: &placements, n, chosen: Vec::new(), found: Vec::new() };
    for size in range.clone() {
        search.cover(0, size);
        if !search.found.is_empty() {
            return Ok(search.found);
        }
    }
    let (min, max) = (range.start(), range.end());
    Err(format!(
        "it cannot be cut into {min} to {max} of the {} fragments",
        library.fragments.len()
    ))
}

struct Seen<'a> {
    molecule: &'a Molecule,
    neighbours: Vec<Vec<(usize, usize)>>,
    aromatic: Vec<bool>,
    in_ring: Vec<bool>,
}

impl<'a> Seen<'a> {
    fn of(molecule: &'a Molecule) -> Self {
        Self {
            molecule,
            neighbours: molecule.neighbors(),
            aromatic: molecule.aromatic_bonds(),
            in_ring: molecule.ring_bonds(),
        }
    }

    /// The order of a bond in a molecule, aromatic ones alike; 0 if there is none.
    fn order(&self, v: usize, w: usize) -> u8 {
        let bond = self.neighbours[v].iter().find(|&&(other, _)| other == w);
        bond.map_or(0, |&(_, bond)| match self.aromatic[bond] {
            true => u8::MAX,
            false => self.molecule.bonds[bond].order,
        })
    }

    /// All ways to lay a fragment into the molecule so that it is joined to the rest at its sites.
    fn place(&self, number: usize, fragment: &Fragment, placements: &mut Vec<Placement>) {
        let own = Seen {
            molecule: &fragment.molecule,
            neighbours: fragment.molecule.neighbors(),
            aromatic: fragment.aromatic.clone(),
            in_ring: Vec::new(),
        };
        let m = fragment.molecule.atoms.len();
        // In an order in which each atom is bonded to one before it.
        let mut order = vec![0];
        while order.len() < m {
            let next = order.iter().flat_map(|&v| &own.neighbours[v]).map(|&(w, _)| w);
            let Some(next) = next.into_iter().find(|w| !order.contains(w)) else { return };
            order.push(next);
        }
        let mut image = Vec::with_capacity(m);
        self.extend(number, fragment, &own, &order, &mut image, placements);
    }

    fn extend(
        &self,
        number: usize,
        fragment: &Fragment,
        own: &Seen<'_>,
        order: &[usize],
        image: &mut Vec<usize>,
        placements: &mut Vec<Placement>,
    ) {
        let at = image.len();
        if at == order.len() {
            placements.extend(self.placement(number, fragment, order, image).filter(|new| {
                let same = |old: &Placement| {
                    (old.fragment, old.atoms, &old.joins) == (new.fragment, new.atoms, &new.joins)
                };
                !placements.iter().any(same)
            }));
            return;
        }
        let v = order[at];
        let of_fragment = own.molecule.atoms[v];
        let near: Vec<usize> = match (0..at).find(|&k| own.order(v, order[k]) > 0) {
            Some(k) => self.neighbours[image[k]].iter().map(|&(w, _)| w).collect(),
            None => (0..self.molecule.atoms.len()).collect(),
        };
        for w in near {
            let atom = self.molecule.atoms[w];
            let fits = (atom.element, atom.charge) == (of_fragment.element, of_fragment.charge)
                && !image.contains(&w)
                && (0..at).all(|k| own.order(v, order[k]) == self.order(w, image[k]));
            if fits {
                image.push(w);
                self.extend(number, fragment, own, order, image, placements);
                image.pop();
            }
        }
    }

    /// Sites that are alike stand for each other, so that a placement is found once.
    fn placement(
        &self,
        number: usize,
        fragment: &Fragment,
        order: &[usize],
        image: &[usize],
    ) -> Option<Placement> {
        let mut joins = Vec::new();
        for (&v, &w) in order.iter().zip(image) {
            let leaving = || self.neighbours[w].iter().filter(|(other, _)| !image.contains(other));
            let count = leaving().count();
            let used = template::used(&fragment.molecule, v);
            let hydrogens =
                fragment.template.hydrogens(&fragment.molecule, v, used, count.try_into().ok()?);
            if self.molecule.atoms[w].hydrogens != hydrogens {
                return None;
            }
            if count > 0 {
                let site = fragment.sites.iter().position(|site| site.atom == v)?;
                if count > usize::from(fragment.sites[site].capacity) {
                    return None;
                }
                for &(_, bond) in leaving() {
                    if self.molecule.bonds[bond].order != 1 || self.in_ring[bond] {
                        return None;
                    }
                    joins.push((bond, site as u8));
                }
            }
        }
        let moved = |map: &Vec<u8>| {
            let mut moved: Vec<_> =
                joins.iter().map(|&(bond, site)| (bond, map[usize::from(site)])).collect();
            moved.sort_unstable();
            moved
        };
        let joins = fragment.symmetries.iter().map(moved).min()?;
        let atoms = image.iter().fold(0, |set, &atom| set | 1 << atom);
        Some(Placement { fragment: number, atoms, joins })
    }
}

struct Search<'a> {
    placements: &'a [Placement],
    n: usize,
    chosen: Vec<&'a Placement>,
    found: Vec<Tree>,
}

impl Search<'_> {
    /// Covers what is left with so many fragments.
    fn cover(&mut self, covered: u128, left: usize) {
        if covered.count_ones() as usize == self.n {
            if left == 0 {
                self.found.extend(tree(&self.chosen));
            }
            return;
        }
        if left == 0 || self.found.len() >= MOST_TREES {
            return;
        }
        let atom = covered.trailing_ones();
        let placements = self.placements;
        let fits = |new: &&Placement| new.atoms >> atom & 1 == 1 && new.atoms & covered == 0;
        for placement in placements.iter().filter(fits) {
            self.chosen.push(placement);
            self.cover(covered | placement.atoms, left - 1);
            self.chosen.pop();
        }
    }
}

/// The tree of placements that cover a molecule. Bonds between them lie on no ring, so it is one.
fn tree(placements: &[&Placement]) -> Option<Tree> {
    let mut tree = Tree::EMPTY;
    let mut open: Vec<(usize, usize, u8)> = Vec::new();
    for (v, placement) in placements.iter().enumerate() {
        tree.add(placement.fragment as u16, 0, NONE, NONE);
        for &(bond, site) in &placement.joins {
            match open.iter().position(|&(other, ..)| other == bond) {
                None => open.push((bond, v, site)),
                Some(place) => {
                    let (_, w, at_w) = open.swap_remove(place);
                    (tree.sides[v][w], tree.sides[w][v]) = (at_site(site), at_site(at_w));
                }
            }
        }
    }
    open.is_empty().then_some(tree)
}
