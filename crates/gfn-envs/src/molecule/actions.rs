//! Actions of molecules by their numbers, and which of them are equivalent.

use gfn_core::space::Scope;
use gfn_core::{Direction, Space};

use super::atom::N_ELEMENTS;
use super::graph::{Edit, HYDROGENS};
use super::{ActionSet, MoleculeWorld};
use crate::canonical::{ColouredGraph, MAX_VERTICES, Map, Symmetries, unite};

/// Names of blocks, forward and backward.
pub(super) const BLOCKS: [[&str; 2]; 8] = [
    ["stop", "go_on"],
    ["first_atom", "remove_last"],
    ["add_atom", "remove_atom"],
    ["add_bond", "remove_bond"],
    ["set_order", "unset_order"],
    ["set_charge", "unset_charge"],
    ["set_chirality", "unset_chirality"],
    ["set_hydrogens", "unset_hydrogens"],
];

/// Blocks of actions and where each begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    pub(super) stop: usize,
    pub(super) first: usize,
    leaf: usize,
    bond: usize,
    order: usize,
    charge: usize,
    turn: usize,
    hydrogens: usize,
}

impl Starts {
    pub(super) fn of(space: &Space, direction: Direction) -> Self {
        let name = |block: usize| BLOCKS[block][(direction == Direction::Backward) as usize];
        // Blocks that are not there begin where no action is.
        let at = |block| space.first_action(direction, name(block)).unwrap_or(usize::MAX);
        let [stop, first, leaf, bond, order, charge, turn, hydrogens] = std::array::from_fn(at);
        Self { stop, first, leaf, bond, order, charge, turn, hydrogens }
    }
}

impl MoleculeWorld {
    /// The number of a pair of slots.
    pub(super) fn pair(&self, v: usize, w: usize) -> usize {
        self.space.unordered_place(v, w)
    }

    /// The pair of slots of a number.
    pub(super) fn ends(&self, mut pair: usize) -> (usize, usize) {
        let mut v = 0;
        loop {
            let after = self.space.slots - v - 1;
            if pair < after {
                return (v, v + 1 + pair);
            }
            pair -= after;
            v += 1;
        }
    }

    /// The action of an edit; of a backward one, what is set does not count.
    pub(super) fn action(&self, direction: Direction, edit: Edit) -> usize {
        let (starts, forward) = match direction {
            Direction::Forward => (&self.forward, true),
            Direction::Backward => (&self.backward, false),
        };
        let of = |start: usize, place: usize, size: usize, value: usize| {
            start + if forward { place * size + value } else { place }
        };
        match edit {
            Edit::Stop(structure) => starts.stop + if forward { 0 } else { structure },
            Edit::First(element) => of(starts.first, 0, N_ELEMENTS, element),
            Edit::Leaf { at, element } => of(starts.leaf, at, N_ELEMENTS, element),
            Edit::Bond(v, w) => of(starts.bond, self.pair(v, w), 1, 0),
            Edit::Order(v, w, order) => {
                of(starts.order, self.pair(v, w), 2, usize::from(order).saturating_sub(2))
            }
            Edit::Charge(v, charge) => of(starts.charge, v, 2, usize::from(charge < 0)),
            Edit::Turn(v, turn) => of(starts.turn, v, 2, usize::from(turn < 0)),
            Edit::Hydrogens(v, n) => of(starts.hydrogens, v, HYDROGENS, usize::from(n)),
        }
    }

    /// The edit of an action.
    pub(super) fn edit(&self, direction: Direction, action: usize) -> Edit {
        let (starts, forward) = match direction {
            Direction::Forward => (&self.forward, true),
            Direction::Backward => (&self.backward, false),
        };
        let of = |start: usize, size: usize| match forward {
            true => ((action - start) / size, (action - start) % size),
            false => (action - start, 0),
        };
        let sign = |value: usize| if value == 0 { 1 } else { -1 };
        if action < starts.first {
            return Edit::Stop(action);
        }
        if action < starts.leaf {
            return Edit::First(action - starts.first);
        }
        if action < starts.bond {
            let (at, element) = of(starts.leaf, N_ELEMENTS);
            return Edit::Leaf { at, element };
        }
        if action < starts.order {
            let (v, w) = self.ends(action - starts.bond);
            return Edit::Bond(v, w);
        }
        if action < starts.charge {
            let (pair, order) = of(starts.order, 2);
            let (v, w) = self.ends(pair);
            return Edit::Order(v, w, order as u8 + 2);
        }
        if action < starts.turn {
            let (v, value) = of(starts.charge, 2);
            return Edit::Charge(v, sign(value));
        }
        if action < starts.hydrogens {
            let (v, value) = of(starts.turn, 2);
            return Edit::Turn(v, sign(value));
        }
        let (v, n) = of(starts.hydrogens, HYDROGENS);
        Edit::Hydrogens(v, n as u8)
    }

    /// Leaves one legal action of each class of those that lead to the same state: the first one.
    pub(super) fn merge(&self, direction: Direction, graph: &ColouredGraph, mask: &mut [bool]) {
        let symmetries = Symmetries::of(graph);
        if symmetries.generators.is_empty() {
            return;
        }
        let first = Classes::new(self, graph, &symmetries);
        for action in (0..mask.len()).filter(|&action| mask[action]).collect::<Vec<_>>() {
            let edit = first.representative(self, self.edit(direction, action));
            mask[action] = self.action(direction, edit) == action;
        }
    }
}

/// The first of each class of equivalent vertices, pairs, and vertices with a sense.
pub(super) struct Classes {
    vertices: Map,
    pairs: Vec<u16>,
    senses: [u8; 2 * MAX_VERTICES],
}

impl Classes {
    pub(super) fn new(
        world: &MoleculeWorld,
        graph: &ColouredGraph,
        symmetries: &Symmetries,
    ) -> Self {
        let n = graph.n;
        let mut pairs: Vec<u16> = (0..world.space.places(Scope::Unordered) as u16).collect();
        let moved = |map: &Map| {
            let map = *map;
            let all = (0..n).flat_map(move |v| (v + 1..n).map(move |w| (v, w)));
            all.map(move |(v, w)| {
                let (to_v, to_w) = (usize::from(map[v]), usize::from(map[w]));
                (world.pair(v, w), world.pair(to_v, to_w))
            })
        };
        unite(&mut pairs, symmetries.generators.iter().flat_map(moved));
        let mut senses: [u8; 2 * MAX_VERTICES] = std::array::from_fn(|at| at as u8);
        if world.spec.actions == ActionSet::Full {
            let turned = symmetries.generators.iter().flat_map(|map| {
                (0..n).flat_map(move |v| {
                    let odd = usize::from(graph.is_odd_around(v, map));
                    let to = 2 * usize::from(map[v]);
                    [(2 * v, to + odd), (2 * v + 1, to + 1 - odd)]
                })
            });
            unite(&mut senses, turned);
        }
        Self { vertices: symmetries.orbits(n), pairs, senses }
    }

    /// The first edit of a class.
    pub(super) fn representative(&self, world: &MoleculeWorld, edit: Edit) -> Edit {
        let vertex = |v: usize| usize::from(self.vertices[v]);
        let pair = |v: usize, w: usize| world.ends(usize::from(self.pairs[world.pair(v, w)]));
        match edit {
            Edit::Stop(_) | Edit::First(_) => edit,
            Edit::Leaf { at, element } => Edit::Leaf { at: vertex(at), element },
            Edit::Bond(v, w) => {
                let (v, w) = pair(v, w);
                Edit::Bond(v, w)
            }
            Edit::Order(v, w, order) => {
                let (v, w) = pair(v, w);
                Edit::Order(v, w, order)
            }
            Edit::Charge(v, charge) => Edit::Charge(vertex(v), charge),
            Edit::Turn(v, turn) => {
                let first = usize::from(self.senses[2 * v + usize::from(turn < 0)]);
                Edit::Turn(first / 2, if first % 2 == 0 { 1 } else { -1 })
            }
            Edit::Hydrogens(v, n) => Edit::Hydrogens(vertex(v), n),
        }
    }
}
