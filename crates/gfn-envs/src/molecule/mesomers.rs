//! Molecules with several Lewis structures: the same atoms and hydrogens with double bonds in other
//! places, such as the two of a substituted benzene ring.
//!
//! Growth distinguishes them; finished molecules do not. A finished molecule has *mesomeric* bonds where
//! its structures differ, and was stopped in any of them.

use crate::canonical::{ColouredGraph, MAX_VERTICES};

/// The mark of bonds that are single in one structure and double in another.
pub(super) const MESOMERIC: u8 = 4;

/// All ways of placing the double bonds of a graph so that each of `atoms` has exactly one, along
/// `bonds`: one row of partners each.
fn matchings(n: usize, bonds: &[u16; MAX_VERTICES], atoms: u16) -> Vec<[u8; MAX_VERTICES]> {
    fn extend(
        bonds: &[u16; MAX_VERTICES],
        left: u16,
        partner: &mut [u8; MAX_VERTICES],
        found: &mut Vec<[u8; MAX_VERTICES]>,
    ) {
        if left == 0 {
            found.push(*partner);
            return;
        }
        let v = left.trailing_zeros() as usize;
        let mut others = bonds[v] & left;
        while others != 0 {
            let w = others.trailing_zeros() as usize;
            others &= others - 1;
            (partner[v], partner[w]) = (w as u8, v as u8);
            extend(bonds, left & !(1 << v) & !(1 << w), partner, found);
        }
    }
    let mut found = Vec::new();
    let mut partner = [u8::MAX; MAX_VERTICES];
    debug_assert!(atoms >> n == 0 || n == MAX_VERTICES);
    extend(bonds, atoms, &mut partner, &mut found);
    found
}

/// The graph with its double bonds along partners, where `bonds` allows.
fn with_partners(
    graph: &ColouredGraph,
    bonds: &[u16; MAX_VERTICES],
    partner: &[u8; MAX_VERTICES],
) -> ColouredGraph {
    let mut new = graph.clone();
    for v in 0..graph.n {
        for w in (0..graph.n).filter(|&w| bonds[v] >> w & 1 == 1) {
            new.edges[v][w] = 1 + u8::from(usize::from(partner[v]) == w);
        }
    }
    new
}

/// All structures with the atoms and hydrogens of this one, itself among them; nothing if it is the
/// only one.
pub(super) fn structures_of(graph: &ColouredGraph) -> Vec<ColouredGraph> {
    // Fewer than three double bonds cannot move around a ring of a molecule that stays the same.
    let n = graph.n;
    let mut atoms = 0u16;
    for v in 0..n {
        let doubles = graph.edges[v][..n].iter().filter(|&&order| order == 2).count();
        atoms |= u16::from(doubles == 1) << v;
    }
    if atoms.count_ones() < 6 {
        return Vec::new();
    }
    let mut bonds = [0u16; MAX_VERTICES];
    for (v, bonds) in bonds.iter_mut().enumerate().take(n) {
        for w in 0..n {
            let shifts = atoms >> v & atoms >> w & 1 == 1 && matches!(graph.edges[v][w], 1 | 2);
            *bonds |= u16::from(shifts) << w;
        }
    }
    let all = matchings(n, &bonds, atoms);
    match all.len() {
        ..=1 => Vec::new(),
        _ => all.iter().map(|partner| with_partners(graph, &bonds, partner)).collect(),
    }
}

/// All structures of a graph with mesomeric bonds.
pub(super) fn structures_of_marked(graph: &ColouredGraph) -> Vec<ColouredGraph> {
    let n = graph.n;
    let (mut bonds, mut atoms) = ([0u16; MAX_VERTICES], 0u16);
    for (v, bonds) in bonds.iter_mut().enumerate().take(n) {
        for w in (0..n).filter(|&w| graph.edges[v][w] == MESOMERIC) {
            *bonds |= 1 << w;
            atoms |= 1 << v;
        }
    }
    matchings(n, &bonds, atoms)
        .iter()
        .map(|partner| with_partners(graph, &bonds, partner))
        .collect()
}

/// One graph for several structures of the same molecule: bonds in which they differ are marked.
pub(super) fn marked(structures: &[ColouredGraph]) -> ColouredGraph {
    let mut marked = structures[0].clone();
    for other in &structures[1..] {
        for v in 0..marked.n {
            for w in 0..marked.n {
                if structures[0].edges[v][w] != other.edges[v][w] {
                    marked.edges[v][w] = MESOMERIC;
                }
            }
        }
    }
    marked
}

/// Whether some bonds are marked.
pub(super) fn is_marked(graph: &ColouredGraph) -> bool {
    graph.edges.iter().flatten().any(|&order| order == MESOMERIC)
}
