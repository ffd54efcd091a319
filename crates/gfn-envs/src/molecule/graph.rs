//! Molecules as coloured graphs: what may be done to them, and doing it.

use super::atom::{Atom, N_ELEMENTS, Valence};
use super::mesomers::MESOMERIC;
use super::spec::ActionSet;
use crate::canonical::{ColouredGraph, MAX_VERTICES, Map, Symmetries};

/// Numbers of hydrogens that can be set.
pub(super) const HYDROGENS: usize = 3;
const C: u8 = 0;

/// What an action does, on the vertices of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Finish the molecule; backward, go on from one of its structures.
    Stop(usize),
    /// Put the first atom; backward, remove the only one.
    First(usize),
    /// Add an atom of an element to a vertex; backward, remove the leaf that is this vertex.
    Leaf { at: usize, element: usize },
    /// Add or remove a single bond.
    Bond(usize, usize),
    /// Make a single bond double (2) or triple (3), or make it single again.
    Order(usize, usize, u8),
    /// Set or unset the charge.
    Charge(usize, i8),
    /// Set or unset the sense of a stereocentre.
    Turn(usize, i8),
    /// Set or unset the number of hydrogens.
    Hydrogens(usize, u8),
}

impl Edit {
    /// Does it; returns what undoes it.
    pub(super) fn apply(self, graph: &mut ColouredGraph) -> Self {
        match self {
            Self::Stop(_) => unreachable!("no edit of a graph"),
            Self::First(element) => {
                graph.n = 1;
                graph.colours[0] = Atom { element: element as u8, ..Atom::default() }.colour();
                self
            }
            Self::Leaf { at, element } => {
                let new = graph.n;
                graph.n += 1;
                graph.colours[new] = Atom { element: element as u8, ..Atom::default() }.colour();
                connect(graph, at, new, 1);
                Self::Leaf { at: new, element }
            }
            Self::Bond(v, w) => {
                connect(graph, v, w, 1);
                self
            }
            Self::Order(v, w, order) => {
                (graph.edges[v][w], graph.edges[w][v]) = (order, order);
                self
            }
            Self::Charge(v, charge) => {
                graph.colours[v] = Atom { charge, ..atom(graph, v) }.colour();
                self
            }
            Self::Turn(v, turn) => {
                graph.turns[v] = turn;
                self
            }
            Self::Hydrogens(v, n) => {
                graph.colours[v] = Atom { hydrogens: Some(n), ..atom(graph, v) }.colour();
                self
            }
        }
    }

    /// Undoes what was done at its place; returns what does it again.
    pub(super) fn undo(self, graph: &mut ColouredGraph) -> Self {
        match self {
            Self::Stop(_) => unreachable!("no edit of a graph"),
            Self::First(_) => {
                let element = usize::from(atom(graph, 0).element);
                *graph = ColouredGraph::EMPTY;
                Self::First(element)
            }
            Self::Leaf { at: leaf, .. } => {
                let element = usize::from(atom(graph, leaf).element);
                let stem = neighbours(graph, leaf).next().expect("a leaf has a stem");
                disconnect(graph, leaf, stem);
                remove(graph, leaf);
                Self::Leaf { at: stem - usize::from(stem > leaf), element }
            }
            Self::Bond(v, w) => {
                disconnect(graph, v, w);
                self
            }
            Self::Order(v, w, _) => {
                let order = graph.edges[v][w];
                (graph.edges[v][w], graph.edges[w][v]) = (1, 1);
                Self::Order(v, w, order)
            }
            Self::Charge(v, _) => {
                let old = atom(graph, v);
                graph.colours[v] = Atom { charge: 0, ..old }.colour();
                Self::Charge(v, old.charge)
            }
            Self::Turn(v, _) => {
                let turn = std::mem::take(&mut graph.turns[v]);
                Self::Turn(v, turn)
            }
            Self::Hydrogens(v, _) => {
                let old = atom(graph, v);
                graph.colours[v] = Atom { hydrogens: None, ..old }.colour();
                Self::Hydrogens(v, old.hydrogens.unwrap_or(0))
            }
        }
    }

    /// The same on a graph whose vertices have gone to other places.
    pub(super) fn placed(self, graph: &ColouredGraph, place: &Map) -> Self {
        let to = |v: usize| usize::from(place[v]);
        match self {
            Self::Stop(_) | Self::First(_) => self,
            Self::Leaf { at, element } => Self::Leaf { at: to(at), element },
            Self::Bond(v, w) => Self::Bond(to(v), to(w)),
            Self::Order(v, w, order) => Self::Order(to(v), to(w), order),
            Self::Charge(v, charge) => Self::Charge(to(v), charge),
            Self::Turn(v, turn) => {
                Self::Turn(to(v), if graph.is_odd_around(v, place) { -turn } else { turn })
            }
            Self::Hydrogens(v, n) => Self::Hydrogens(to(v), n),
        }
    }
}

pub(super) fn atom(graph: &ColouredGraph, v: usize) -> Atom {
    Atom::of_colour(graph.colours[v])
}

pub(super) fn neighbours(graph: &ColouredGraph, v: usize) -> impl Iterator<Item = usize> + '_ {
    (0..graph.n).filter(move |&w| graph.edges[v][w] > 0)
}

/// A single bond, or none; at a stereocentre with three neighbours the new one takes the place of its
/// hydrogen, which came first, and the other way round.
fn set_bond(graph: &mut ColouredGraph, v: usize, w: usize, order: u8) {
    for (centre, other) in [(v, w), (w, v)] {
        let before = neighbours(graph, centre).filter(|&neighbour| neighbour < other).count();
        if before % 2 == 1 {
            graph.turns[centre] = -graph.turns[centre];
        }
    }
    (graph.edges[v][w], graph.edges[w][v]) = (order, order);
}

fn connect(graph: &mut ColouredGraph, v: usize, w: usize, order: u8) {
    set_bond(graph, v, w, order);
}

fn disconnect(graph: &mut ColouredGraph, v: usize, w: usize) {
    set_bond(graph, v, w, 0);
}

/// Removes a vertex without neighbours; those after it move up.
fn remove(graph: &mut ColouredGraph, vertex: usize) {
    let n = graph.n;
    for v in vertex..n - 1 {
        graph.colours[v] = graph.colours[v + 1];
        graph.turns[v] = graph.turns[v + 1];
        graph.edges[v] = graph.edges[v + 1];
    }
    for row in &mut graph.edges[..n - 1] {
        row.copy_within(vertex + 1..n, vertex);
        row[n - 1] = 0;
    }
    graph.edges[n - 1] = [0; MAX_VERTICES];
    (graph.colours[n - 1], graph.turns[n - 1]) = (0, 0);
    graph.n = n - 1;
}

/// What molecules may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) valence: Valence,
}

impl Rules {
    /// Bonds that an atom can still form, in units of single ones; none if it has too many, or does not
    /// exist. Set hydrogens are fewer than fit, so that one bond stays free there.
    pub(super) fn room(&self, atom: Atom, bonds: u8) -> Option<u8> {
        let hydrogens = atom.hydrogens.map_or(0, |n| n + 1);
        atom.most_bonds(self.valence)?.checked_sub(bonds + hydrogens)
    }

    /// Bonds that each atom can still form.
    fn rooms(&self, graph: &ColouredGraph) -> [u8; MAX_VERTICES] {
        std::array::from_fn(|v| {
            let of_atom = || self.room(atom(graph, v), bonds(graph, v));
            if v < graph.n { of_atom().unwrap_or(0) } else { 0 }
        })
    }

    /// Whether every atom has at most the bonds that it can have.
    pub(super) fn admit(&self, graph: &ColouredGraph) -> bool {
        (0..graph.n).all(|v| self.room(atom(graph, v), bonds(graph, v)).is_some())
            && senses_hold(graph)
    }

    /// Everything that may be added to a molecule; atoms only if there is `room` for them.
    pub(super) fn for_each_growth(
        &self,
        graph: &ColouredGraph,
        room: bool,
        actions: ActionSet,
        mut edit: impl FnMut(Edit),
    ) {
        let n = graph.n;
        let rooms = self.rooms(graph);
        let tagged = graph.turns.iter().any(|&turn| turn != 0);
        let mut offer = |offered: Edit| {
            if !tagged || holds_senses_after(graph, |graph| offered.apply(graph)) {
                edit(offered);
            }
        };
        for v in 0..n {
            if room && rooms[v] > 0 {
                (0..N_ELEMENTS).for_each(|element| offer(Edit::Leaf { at: v, element }));
            }
            for w in v + 1..n {
                let both = rooms[v].min(rooms[w]);
                match graph.edges[v][w] {
                    0 if both > 0 => offer(Edit::Bond(v, w)),
                    1 => {
                        for order in 2..=3 {
                            if both + 1 >= order {
                                offer(Edit::Order(v, w, order));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        if actions == ActionSet::AtomsBonds {
            return;
        }
        let centres = if actions == ActionSet::Full { centres(graph) } else { 0 };
        for v in 0..n {
            let (old, bonds) = (atom(graph, v), bonds(graph, v));
            if old.charge == 0 {
                for charge in [1, -1] {
                    if self.room(Atom { charge, ..old }, bonds).is_some() {
                        offer(Edit::Charge(v, charge));
                    }
                }
            }
            if actions < ActionSet::Full {
                continue;
            }
            if graph.turns[v] == 0 && centres >> v & 1 == 1 {
                [1, -1].into_iter().for_each(|turn| offer(Edit::Turn(v, turn)));
            }
            if old.hydrogens.is_none() {
                for hydrogens in 0..HYDROGENS as u8 {
                    let set = Atom { hydrogens: Some(hydrogens), ..old };
                    if self.room(set, bonds).is_some() {
                        offer(Edit::Hydrogens(v, hydrogens));
                    }
                }
            }
        }
    }

    /// Everything that may be taken from a molecule.
    pub(super) fn for_each_removal(&self, graph: &ColouredGraph, mut edit: impl FnMut(Edit)) {
        let n = graph.n;
        let tagged = graph.turns.iter().any(|&turn| turn != 0);
        let mut offer = |offered: Edit| {
            if !tagged || holds_senses_after(graph, |graph| offered.undo(graph)) {
                edit(offered);
            }
        };
        let linked = links(graph);
        for v in 0..n {
            let old = atom(graph, v);
            let plain = old.charge == 0 && old.hydrogens.is_none();
            match linked[v].count_ones() {
                0 if plain => offer(Edit::First(0)),
                1 if plain && graph.edges[v][linked[v].trailing_zeros() as usize] == 1 => {
                    offer(Edit::Leaf { at: v, element: 0 });
                }
                _ => {}
            }
            for w in v + 1..n {
                match graph.edges[v][w] {
                    1 if on_ring(&linked, v, w) => offer(Edit::Bond(v, w)),
                    2 | 3 => offer(Edit::Order(v, w, 0)),
                    _ => {}
                }
            }
            let neutral = Atom { charge: 0, ..old };
            if old.charge != 0 && self.room(neutral, bonds(graph, v)).is_some() {
                offer(Edit::Charge(v, 0));
            }
            if graph.turns[v] != 0 {
                offer(Edit::Turn(v, 0));
            }
            if old.hydrogens.is_some() {
                offer(Edit::Hydrogens(v, 0));
            }
        }
    }
}

/// The bonds of an atom in units of single ones: of mesomeric ones, one is double.
pub(super) fn bonds(graph: &ColouredGraph, v: usize) -> u8 {
    let edges = &graph.edges[v][..graph.n];
    let single_or_double = edges.iter().filter(|&&order| order == MESOMERIC).count() as u8;
    let others: u8 = edges.iter().filter(|&&order| order != MESOMERIC).sum();
    others + single_or_double + u8::from(single_or_double > 0)
}

/// For each atom those that it is bonded to, as sets.
pub(super) fn links(graph: &ColouredGraph) -> [u16; MAX_VERTICES] {
    std::array::from_fn(|v| neighbours(graph, v).fold(0, |set, w| set | 1 << w))
}

/// For each atom how many bonds it lies apart from `v`, on ways that do not touch the atoms of `without`;
/// the number of all atoms there can be where there is no way.
pub(super) fn distances(
    linked: &[u16; MAX_VERTICES],
    v: usize,
    without: u16,
) -> [usize; MAX_VERTICES] {
    let mut distances = [MAX_VERTICES; MAX_VERTICES];
    let (mut seen, mut last) = (without | 1 << v, 1u16 << v);
    for distance in 0.. {
        let mut next = 0;
        while last != 0 {
            let w = last.trailing_zeros() as usize;
            last &= last - 1;
            distances[w] = distance;
            next |= linked[w];
        }
        last = next & !seen;
        if last == 0 {
            return distances;
        }
        seen |= last;
    }
    unreachable!("there are finitely many atoms")
}

/// Whether the bond of two atoms lies on a ring: whether one reaches the other without it.
pub(super) fn on_ring(linked: &[u16; MAX_VERTICES], v: usize, w: usize) -> bool {
    let mut others = *linked;
    others[v] &= !(1 << w);
    distances(&others, v, 0)[w] < MAX_VERTICES
}

/// Whether stereocentres with a sense are stereocentres after a change.
fn holds_senses_after(graph: &ColouredGraph, change: impl Fn(&mut ColouredGraph) -> Edit) -> bool {
    let mut changed = graph.clone();
    change(&mut changed);
    senses_hold(&changed)
}

fn senses_hold(graph: &ColouredGraph) -> bool {
    if graph.turns.iter().all(|&turn| turn == 0) {
        return true;
    }
    let centres = centres(graph);
    (0..graph.n).all(|v| graph.turns[v] == 0 || centres >> v & 1 == 1)
}

/// The atoms that can have a sense: carbon with four single bonds, one of them at most to hydrogen, to
/// neighbours that no symmetry of the graph without senses takes to each other.
fn centres(graph: &ColouredGraph) -> u16 {
    let candidate = |&v: &usize| {
        let (atom, degree) = (atom(graph, v), neighbours(graph, v).count());
        let single = usize::from(bonds(graph, v)) == degree;
        atom == Atom { element: C, ..Atom::default() } && single && degree >= 3
    };
    if !(0..graph.n).any(|v| candidate(&v)) {
        return 0;
    }
    let flat = ColouredGraph { turns: [0; MAX_VERTICES], ..graph.clone() };
    let orbits = Symmetries::of(&flat).orbits(graph.n);
    let apart = |&v: &usize| {
        let set = neighbours(graph, v).fold(0u16, |set, w| set | 1 << orbits[w]);
        set.count_ones() as usize == neighbours(graph, v).count()
    };
    (0..graph.n).filter(candidate).filter(apart).fold(0, |set, v| set | 1 << v)
}

/// Leaves out the senses of atoms that are no stereocentres; all of them unless they `count`.
pub(super) fn forget_idle_senses(graph: &mut ColouredGraph, count: bool) {
    let centres = if count { centres(graph) } else { 0 };
    for v in 0..graph.n {
        if centres >> v & 1 == 0 {
            graph.turns[v] = 0;
        }
    }
}

/// A hash of an atom with its bonds, its neighbours, and the size of the smallest ring with it between any
/// two of them, the same in every run and version.
pub(super) fn surroundings(graph: &ColouredGraph, v: usize) -> u64 {
    let key = |atom: Atom, hydrogens: u8| u64::from(atom.colour()) << 3 | u64::from(hydrogens);
    let own = key(atom(graph, v), atom(graph, v).hydrogens_beside(bonds(graph, v)));
    let mut around: Vec<u64> = neighbours(graph, v)
        .map(|w| u64::from(graph.colours[w]) << 3 | u64::from(graph.edges[v][w]))
        .collect();
    around.sort_unstable();
    let linked = links(graph);
    let mut rings: Vec<u64> = Vec::new();
    for w in neighbours(graph, v) {
        let distances = distances(&linked, w, 1 << v);
        let others = neighbours(graph, v).filter(|&other| other > w);
        let closed = others.map(|other| distances[other]).filter(|&far| far < MAX_VERTICES);
        rings.extend(closed.map(|far| far as u64 + 2));
    }
    rings.sort_unstable();
    around.extend(rings.into_iter().map(|size| size << 32));
    // FNV-1a, word by word.
    let stir = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    around.into_iter().fold(stir(0xcbf2_9ce4_8422_2325, own), stir)
}
