//! Between graphs and molecules as chemistry knows them.

use super::atom::{Atom, ELEMENTS, Valence};
use super::graph::{atom, bonds};
use super::mesomers::MESOMERIC;
use crate::canonical::ColouredGraph;
use crate::chemistry::{self, Bond, Chirality, Molecule};

/// The molecule of a graph without mesomeric bonds.
pub(super) fn molecule(graph: &ColouredGraph) -> Molecule {
    let of_vertex = |v: usize| {
        let atom = atom(graph, v);
        chemistry::Atom {
            element: ELEMENTS[usize::from(atom.element)].1,
            charge: atom.charge,
            hydrogens: atom.hydrogens_beside(bonds(graph, v)),
            chirality: match graph.turns[v] {
                1 => Chirality::Clockwise,
                -1 => Chirality::Counterclockwise,
                _ => Chirality::None,
            },
        }
    };
    let pairs = (0..graph.n).flat_map(|v| (v + 1..graph.n).map(move |w| (v, w)));
    let bonded = pairs.filter(|&(v, w)| graph.edges[v][w] > 0);
    Molecule {
        atoms: (0..graph.n).map(of_vertex).collect(),
        bonds: bonded.map(|(v, w)| Bond { ends: [v, w], order: graph.edges[v][w] }).collect(),
    }
}

/// Those of some structures that are the same molecule as a graph: whose bonds differ where they are
/// aromatic (as RDKit sees it) and nowhere else.
pub(super) fn same_molecules(
    graph: &ColouredGraph,
    structures: Vec<ColouredGraph>,
) -> Vec<ColouredGraph> {
    if structures.len() < 2 {
        return structures;
    }
    // Aromatic bonds are of one order in all of them.
    let blurred = |graph: &ColouredGraph| {
        let molecule = molecule(graph);
        let mut graph = graph.clone();
        for (bond, aromatic) in molecule.bonds.iter().zip(molecule.aromatic_bonds()) {
            if aromatic {
                let [v, w] = bond.ends;
                (graph.edges[v][w], graph.edges[w][v]) = (MESOMERIC, MESOMERIC);
            }
        }
        graph
    };
    let own = blurred(graph);
    structures.into_iter().filter(|other| blurred(other) == own).collect()
}

/// Why a molecule is none of a world.
pub(super) fn graph_of(molecule: &Molecule, max_atoms: usize) -> Result<ColouredGraph, String> {
    let n = molecule.atoms.len();
    if n > max_atoms {
        return Err(format!(
            "it has {n} atoms besides hydrogen, more than max_atoms = {max_atoms}"
        ));
    }
    if !molecule.is_simple_graph() {
        return Err("two of its atoms have several bonds to each other".to_owned());
    }
    // Nitro groups and their like are often drawn with five bonds of an uncharged nitrogen.
    let separated = molecule.charge_separated();
    let molecule = separated.as_ref().unwrap_or(molecule);
    let mut graph = ColouredGraph { n, ..ColouredGraph::EMPTY };
    for bond in &molecule.bonds {
        let [v, w] = bond.ends;
        (graph.edges[v][w], graph.edges[w][v]) = (bond.order, bond.order);
    }
    for (v, found) in molecule.atoms.iter().enumerate() {
        let element = ELEMENTS.iter().position(|element| element.1 == found.element);
        let element =
            element.ok_or_else(|| format!("{} is not among C, N, O, F", found.symbol()))?;
        if !(-1..=1).contains(&found.charge) {
            return Err(format!("an atom has the charge {}", found.charge));
        }
        let atom = Atom { element: element as u8, charge: found.charge, hydrogens: None };
        if atom.most_bonds(Valence::Chemical).is_none() {
            return Err(format!("{} has a charge", found.symbol()));
        }
        let full = atom.hydrogens_beside(bonds(&graph, v));
        let hydrogens = (found.hydrogens != full).then_some(found.hydrogens);
        if found.hydrogens > full {
            return Err(format!("{} has more bonds than it can", found.symbol()));
        }
        graph.colours[v] = Atom { hydrogens, ..atom }.colour();
        graph.turns[v] = match found.chirality {
            Chirality::None => 0,
            Chirality::Clockwise => 1,
            Chirality::Counterclockwise => -1,
        };
    }
    Ok(graph)
}
