//! Molecules of C, N, O and F: start from nothing, add atoms and bonds, and stop at any molecule (the
//! QM9 world of arXiv:2410.15474).

mod actions;
mod atom;
mod convert;
mod graph;
mod mesomers;
mod spec;

pub use crate::symmetry::Symmetry;
pub use atom::{Atom, ELEMENTS, Valence};
pub use spec::{ActionSet, MoleculeSpec};

use std::any::Any;

use gfn_core::space::At;
use gfn_core::{Block, Direction, Environment, KeyError, NO_TOKEN, Space, States};

use crate::canonical::{ColouredGraph, MAX_VERTICES, Symmetries, inverse};
use crate::chemistry::drawn::DISSIMILARITY;
use crate::chemistry::{DrawnMolecule, Molecule, Molecules};
use actions::{BLOCKS, Classes, Starts};
use atom::N_ELEMENTS;
use graph::{Edit, HYDROGENS, Rules, distances, links, on_ring};
use mesomers::MESOMERIC;

/// Number of molecules of up to 1, 2, … atoms with the fewest actions and real valences, enumerated; up
/// to four atoms also by brute force with RDKit (`scripts/reference/count_molecules.py`).
const COUNTS: [u64; 7] = [4, 23, 117, 738, 5_453, 47_525, 465_166];
/// With eight atoms there are more states than this: enumeration was stopped there.
const MANY_STATES: u64 = 3_000_000;
/// Backward actions that undo stopping: one for each Lewis structure of a molecule.
const STRUCTURES: usize = 16;
/// Atoms that are not bonded lie two, three, or more bonds apart.
const DISTANCES: usize = 3;
/// Bond orders are so many bits of a cell.
const ORDER_BITS: usize = 3;
/// Bonds per cell.
const PER_CELL: usize = 10;
/// Where the sense of a stereocentre is in the cell of an atom.
const TURN_SHIFT: u32 = 8;

/// The world of molecules.
///
/// A row is a molecule in canonical form (`canonical.rs`), so that equal molecules are equal rows: a
/// cell for each atom (0 for none), `max_atoms` of them, then for each atom its bonds to those before it,
/// three bits each, then whether it is finished. Hydrogens are implied.
///
/// Forward actions: stop; a first atom; an atom of an element at an atom; a bond between two atoms;
/// a bond's order, 2 or 3; with `full` also an atom's charge, sense and hydrogens. Each attribute is set
/// once, and undone by a backward action of its own; a leaf is removed when nothing of it is set, a bond
/// when it is single and on a ring. Of actions that lead to the same molecule the first is legal.
/// Because forward and backward classes of such actions both are "the larger molecule with a marked
/// part", every edge of the state graph is one forward and one backward action.
///
/// Slots are atoms; those of a finished molecule see bonds in which its Lewis structures differ as a
/// fourth kind of bond. Atoms without a bond see how many bonds they lie apart.
#[derive(Clone, Debug)]
pub struct MoleculeWorld {
    spec: MoleculeSpec,
    rules: Rules,
    space: Space,
    forward: Starts,
    backward: Starts,
}

impl MoleculeWorld {
    /// Molecules as the settings say.
    ///
    /// # Errors
    /// When a number is out of range.
    pub fn new(spec: &MoleculeSpec) -> Result<Self, KeyError> {
        spec.check()?;
        let n = spec.max_atoms;
        let rules = Rules { valence: spec.valence };
        let most_bonds = n * if spec.valence == Valence::Paper { 5 } else { 4 } / 2;
        // Kinds of attributes of an atom, the values that each can be set to.
        let attributes: &[usize] = match spec.actions {
            ActionSet::AtomsBonds => &[],
            ActionSet::Charges => &[2],
            ActionSet::Full => &[2, 2, HYDROGENS],
        };
        // Atoms, what is left of the valences, attributes, and the end.
        let max_len = n + (most_bonds - (n - 1)) + attributes.len() * n + 1;
        let width = n + n * cells_per_atom(n) + 1;
        let mut features = vec![N_ELEMENTS, 5, 2];
        let mut forward = vec![
            Block::stop(),
            Block::whole(BLOCKS[1][0], N_ELEMENTS),
            Block::slot(BLOCKS[2][0], At::Filled, N_ELEMENTS),
            Block::unordered(BLOCKS[3][0], 1),
            Block::unordered(BLOCKS[4][0], 2),
        ];
        let mut backward = vec![
            Block::whole(BLOCKS[0][1], STRUCTURES),
            Block::whole(BLOCKS[1][1], 1),
            Block::slot(BLOCKS[2][1], At::Filled, 1),
            Block::unordered(BLOCKS[3][1], 1),
            Block::unordered(BLOCKS[4][1], 1),
        ];
        for (names, &size) in BLOCKS[5..].iter().zip(attributes) {
            features.push(size + 1);
            forward.push(Block::slot(names[0], At::Filled, size));
            backward.push(Block::slot(names[1], At::Filled, 1));
        }
        let space = Space::new(width, max_len)
            .alike_slots(n, &features)
            .growing()
            .related(usize::from(MESOMERIC), false)
            .with_distances(DISTANCES)
            .forward(&forward)
            .backward(&backward);
        let (forward, backward) =
            (Starts::of(&space, Direction::Forward), Starts::of(&space, Direction::Backward));
        Ok(Self { spec: spec.clone(), rules, space, forward, backward })
    }

    /// Whether of equivalent actions only the first is legal.
    fn merges(&self) -> bool {
        self.spec.symmetry == Symmetry::States
    }

    /// 0 while it grows, then 1 and the number of the group of structures that it was stopped in.
    fn finished(&self, row: &[i32]) -> i32 {
        row[self.space.width - 1]
    }

    fn decode(&self, row: &[i32]) -> ColouredGraph {
        let (slots, per_atom) = (self.space.slots, cells_per_atom(self.space.slots));
        let mut graph = ColouredGraph::EMPTY;
        let atoms = row[..slots].iter().take_while(|&&cell| cell != 0);
        for (v, &cell) in atoms.enumerate() {
            graph.n = v + 1;
            let cell = cell - 1;
            graph.colours[v] = (cell & 0xff) as u16;
            graph.turns[v] = [0, 1, -1][(cell >> TURN_SHIFT) as usize];
            for w in 0..v {
                let bits =
                    row[slots + v * per_atom + w / PER_CELL] >> (ORDER_BITS * (w % PER_CELL));
                let order = (bits & 7) as u8;
                (graph.edges[v][w], graph.edges[w][v]) = (order, order);
            }
        }
        graph
    }

    fn encode(&self, graph: &ColouredGraph, finished: i32, row: &mut [i32]) {
        let (slots, per_atom) = (self.space.slots, cells_per_atom(self.space.slots));
        row.fill(0);
        for v in 0..graph.n {
            let turn = i32::from(graph.turns[v].rem_euclid(3)) << TURN_SHIFT;
            row[v] = (i32::from(graph.colours[v]) | turn) + 1;
            for w in 0..v {
                let order = i32::from(graph.edges[v][w]);
                row[slots + v * per_atom + w / PER_CELL] |= order << (ORDER_BITS * (w % PER_CELL));
            }
        }
        row[self.space.width - 1] = finished;
    }

    /// Writes a growing graph in canonical form; returns that, and what becomes of an edit: the first
    /// of its class where only that is legal.
    fn write(&self, graph: &ColouredGraph, edit: Edit, row: &mut [i32]) -> Edit {
        let symmetries = Symmetries::of(graph);
        let canonical = graph.reordered(&symmetries.order);
        self.encode(&canonical, 0, row);
        let edit = edit.placed(graph, &inverse(&symmetries.order, graph.n));
        if !self.merges() || symmetries.generators.is_empty() {
            return edit;
        }
        let symmetries = symmetries.of_canonical_form(graph.n);
        Classes::new(self, &canonical, &symmetries).representative(self, edit)
    }

    /// The structures that a finished molecule can have been stopped in, as rows, one for each backward
    /// action that goes on from it.
    fn structures(&self, row: &[i32]) -> Vec<Vec<i32>> {
        let graph = self.decode(row);
        let mut rows = self.all_structures(&graph);
        let from = (self.finished(row) as usize - 1) * STRUCTURES;
        rows.drain(..from.min(rows.len()));
        rows.truncate(STRUCTURES);
        rows
    }

    /// The structures of a finished graph.
    fn all_structures(&self, graph: &ColouredGraph) -> Vec<Vec<i32>> {
        let mut row = vec![0; self.space.width];
        if !mesomers::is_marked(graph) {
            self.encode(graph, 0, &mut row);
            return vec![row];
        }
        let mut rows: Vec<Vec<i32>> = Vec::new();
        for structure in mesomers::structures_of_marked(graph) {
            let canonical = structure.reordered(&Symmetries::of(&structure).order);
            self.encode(&canonical, 0, &mut row);
            let same = || convert::same_molecules(&structure, mesomers::structures_of(&structure));
            if (!self.merges() || !rows.contains(&row)) && mesomers::marked(&same()) == *graph {
                rows.push(row.clone());
            }
        }
        rows
    }

    /// Writes the finished molecule of a structure, and returns which of its structures that is.
    fn finish(&self, graph: &ColouredGraph, row: &mut [i32]) -> usize {
        let structures = convert::same_molecules(graph, mesomers::structures_of(graph));
        if structures.len() < 2 {
            self.encode(graph, 1, row);
            return 0;
        }
        let before = row.to_vec();
        let marked = mesomers::marked(&structures);
        let order = Symmetries::of(&marked).order;
        let marked = marked.reordered(&order);
        let place = self.all_structures(&marked).iter().position(|other| *other == before);
        let Some(place) = place else {
            // Perception that depended on the order of atoms: an object of its own, with one structure.
            self.encode(graph, 1, row);
            return 0;
        };
        self.encode(&marked, (place / STRUCTURES) as i32 + 1, row);
        place % STRUCTURES
    }
}

/// Cells for the bonds of an atom to those before it.
fn cells_per_atom(max_atoms: usize) -> usize {
    (max_atoms - 1).div_ceil(PER_CELL).max(1)
}

impl Molecules for MoleculeWorld {
    fn drawn(&self, row: &[i32]) -> DrawnMolecule {
        DrawnMolecule::finished(self.molecule(row))
    }
}

impl Environment for MoleculeWorld {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(false);
        if self.finished(row) != 0 {
            return;
        }
        let graph = self.decode(row);
        if graph.n == 0 {
            mask[self.forward.first..][..N_ELEMENTS].fill(true);
            return;
        }
        mask[self.forward.stop] = true;
        let room = graph.n < self.space.slots;
        self.rules.for_each_growth(&graph, room, self.spec.actions, |edit| {
            mask[self.action(Direction::Forward, edit)] = true;
        });
        if self.merges() {
            self.merge(Direction::Forward, &graph, mask);
        }
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(false);
        if self.finished(row) != 0 {
            let n = self.structures(row).len();
            mask[self.backward.stop..][..n].fill(true);
            return;
        }
        let graph = self.decode(row);
        self.rules.for_each_removal(&graph, |edit| {
            mask[self.action(Direction::Backward, edit)] = true;
        });
        if self.merges() {
            self.merge(Direction::Backward, &graph, mask);
        }
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        let edit = self.edit(Direction::Forward, action);
        let mut graph = self.decode(row);
        if matches!(edit, Edit::Stop(_)) {
            let structure = self.finish(&graph, row);
            return self.action(Direction::Backward, Edit::Stop(structure));
        }
        let undo = edit.apply(&mut graph);
        let undo = self.write(&graph, undo, row);
        self.action(Direction::Backward, undo)
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        let edit = self.edit(Direction::Backward, back_action);
        if let Edit::Stop(structure) = edit {
            let structure = self.structures(row).swap_remove(structure);
            row.copy_from_slice(&structure);
            return self.forward.stop;
        }
        let mut graph = self.decode(row);
        let redo = edit.undo(&mut graph);
        let redo = self.write(&graph, redo, row);
        self.action(Direction::Forward, redo)
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        let graph = self.decode(row);
        let (slots, n_features) = (self.space.slots, self.space.features.len());
        cells.fill(NO_TOKEN);
        let linked = links(&graph);
        for (v, cells) in cells.chunks_exact_mut(n_features).enumerate().take(graph.n) {
            let atom = graph::atom(&graph, v);
            let on_ring = (0..graph.n).any(|w| linked[v] >> w & 1 == 1 && on_ring(&linked, v, w));
            cells[0] = i32::from(atom.element);
            cells[1] = i32::from(atom.hydrogens_beside(graph::bonds(&graph, v)));
            cells[2] = i32::from(on_ring);
            let attributes = [
                i32::from(atom.charge.rem_euclid(3)),
                i32::from(graph.turns[v].rem_euclid(3)),
                atom.hydrogens.map_or(0, |n| i32::from(n) + 1),
            ];
            let n = cells.len() - 3;
            cells[3..].copy_from_slice(&attributes[..n]);
        }
        let first = slots * n_features;
        for v in 0..graph.n {
            let distances = distances(&linked, v, 0);
            for w in v + 1..graph.n {
                cells[first + self.pair(v, w)] = match i32::from(graph.edges[v][w]) {
                    0 => i32::from(MESOMERIC) - 2 + distances[w].min(DISTANCES + 1) as i32,
                    order => order - 1,
                };
            }
        }
    }

    fn edges_are_actions(&self) -> bool {
        self.merges()
    }

    /// Where all actions are legal and it is to be corrected, log of the number of automorphisms.
    fn log_symmetry(&self, row: &[i32]) -> f64 {
        match self.spec.symmetry {
            Symmetry::States | Symmetry::ActionsUncorrected => 0.0,
            Symmetry::Actions => (Symmetries::of(&self.decode(row)).n_automorphisms as f64).ln(),
        }
    }

    fn strata(&self, row: &[i32]) -> Vec<(&'static str, String)> {
        let molecule = self.molecule(row);
        vec![
            ("heavy atoms", molecule.atoms.len().to_string()),
            ("scaffold", molecule.scaffold().canonical_smiles()),
        ]
    }

    /// Senses are kept only where they can be set.
    fn converted(&self, row: &[i32], from: &dyn Environment) -> Option<Vec<i32>> {
        let from: &Self = (from as &dyn Any).downcast_ref()?;
        let mut graph = from.decode(row);
        if graph.n > self.space.slots {
            return None;
        }
        if self.spec.actions < ActionSet::Full && graph.turns.iter().any(|&turn| turn != 0) {
            graph.turns = [0; MAX_VERTICES];
            graph = graph.reordered(&Symmetries::of(&graph).order);
        }
        let mut converted = vec![0; self.space.width];
        self.encode(&graph, from.finished(row), &mut converted);
        Some(converted)
    }

    /// That of [`Fingerprint`](crate::chemistry::Fingerprint).
    fn fingerprint(&self, row: &[i32]) -> Option<[u64; 32]> {
        Some(self.fingerprint_of(row).0)
    }

    fn n_objects(&self) -> Option<u64> {
        let is_counted =
            self.spec.actions == ActionSet::AtomsBonds && self.spec.valence == Valence::Chemical;
        COUNTS.get(self.space.slots - 1).copied().filter(|_| is_counted)
    }

    /// More atoms and more actions only add to them.
    fn has_more_states_than(&self, n: u64) -> bool {
        COUNTS.get(self.space.slots - 1).map_or(n <= MANY_STATES, |&count| count > n)
    }

    fn distance(&self, a: &[i32], b: &[i32]) -> f64 {
        self.dissimilarity(a, b)
    }

    fn total_distance(&self, rows: &[&[i32]]) -> f64 {
        self.total_dissimilarity(rows)
    }

    fn distance_of(&self) -> (&'static str, &'static str) {
        DISSIMILARITY
    }

    /// The best molecules among samples, as a picture.
    fn artifacts(&self, objects: &States, log_reward: &[f64]) -> Vec<(&'static str, String)> {
        vec![self.picture(objects, log_reward)]
    }

    /// For each atom a hash of itself with its bonds, neighbours and rings.
    fn features_of(&self, row: &[i32]) -> Vec<u64> {
        let graph = self.decode(row);
        (0..graph.n).map(|v| graph::surroundings(&graph, v)).collect()
    }

    /// Canonical SMILES, with aromatic atoms in small letters.
    fn render(&self, row: &[i32]) -> String {
        self.molecule(row).canonical_smiles()
    }

    fn refusal(&self, text: &str) -> Option<String> {
        self.read(text).err()
    }

    /// Any SMILES of a molecule of this world; senses of atoms that are no stereocentres here are left
    /// out.
    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        self.read(text).ok()
    }
}

impl MoleculeWorld {
    /// The molecule of a row, in one of its structures.
    pub fn molecule(&self, row: &[i32]) -> Molecule {
        match self.finished(row) {
            0 => convert::molecule(&self.decode(row)),
            _ => convert::molecule(&self.decode(&self.structures(row)[0])),
        }
    }

    /// The finished molecule of a SMILES.
    ///
    /// # Errors
    /// Why it is none of this world.
    pub fn read(&self, smiles: &str) -> Result<Vec<i32>, String> {
        let molecule = Molecule::from_smiles(smiles).map_err(|error| error.to_string())?;
        self.row_of(&molecule)
    }

    /// The finished row of a molecule.
    ///
    /// # Errors
    /// Why it is none of this world.
    pub fn row_of(&self, molecule: &Molecule) -> Result<Vec<i32>, String> {
        let mut graph = convert::graph_of(molecule, self.space.slots)?;
        graph::forget_idle_senses(&mut graph, self.spec.actions == ActionSet::Full);
        let atoms = || (0..graph.n).map(|v| graph::atom(&graph, v));
        if self.spec.actions < ActionSet::Charges && atoms().any(|atom| atom.charge != 0) {
            return Err("it has charges, which take actions = \"charges\" or \"full\"".to_owned());
        }
        if self.spec.actions < ActionSet::Full && atoms().any(|atom| atom.hydrogens.is_some()) {
            return Err("it is a radical, which takes actions = \"full\"".to_owned());
        }
        if !self.rules.admit(&graph) {
            return Err("an atom has more bonds than it can".to_owned());
        }
        let graph = graph.reordered(&Symmetries::of(&graph).order);
        let mut row = vec![0; self.space.width];
        self.encode(&graph, 0, &mut row);
        self.finish(&graph, &mut row);
        Ok(row)
    }
}
