//! The states that objects can be built through, found backwards: a part of a space that may be too large
//! to enumerate.

use std::ops::Range;

use rayon::prelude::*;

use super::environment::Environment;
use super::row_index::RowIndex;
use super::states::States;

/// A backward action, seen from the state that it leads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// Place of the state that it leads to.
    pub parent: u32,
    /// Forward action that redoes it, as [`Environment::unstep`] returns it.
    pub action: u32,
    /// The backward action.
    pub back_action: u32,
}

/// What is known of a state.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Where its ways back are, once they have been looked for.
    ways: Option<Range<usize>>,
    /// Number of the last object that it was seen to be an ancestor of, counted from 1.
    seen_from: u32,
    /// Whether it is one of an object that counts.
    kept: bool,
}

/// Objects with the states that they can be built through: s0 first, and every state once, whatever
/// number of objects share it. What is known of a state is not looked for again.
///
/// Memory: 4 bytes for every cell of a state's row, some 50 for the state and 12 for each of its legal
/// backward actions. While objects are added there may be twice as many states, and nine times `most`.
#[derive(Debug)]
pub struct Ancestors {
    states: States,
    index: RowIndex,
    known: Vec<Known>,
    ways: Vec<WayBack>,
    n_added: u32,
    n_kept: usize,
}

/// States whose ways back a thread looks for, at least.
const SHARE: usize = 16;

impl Ancestors {
    /// s0 alone.
    pub fn new(env: &dyn Environment) -> Self {
        let mut row = vec![0; env.space().width];
        env.reset(&mut row);
        let mut ancestors = Self::empty(row.len());
        let initial = ancestors.place(&row);
        ancestors.keep(initial);
        ancestors
    }

    /// Those of one object, itself included; none if they are more than `most`.
    pub fn of(env: &dyn Environment, object: &[i32], most: usize) -> Option<Self> {
        let mut ancestors = Self::new(env);
        ancestors.add(env, object, most).map(|_| ancestors)
    }

    /// Adds those of an object, and returns how many it has, itself included; none if they are more than
    /// `most`: nothing is then added.
    pub fn add(&mut self, env: &dyn Environment, object: &[i32], most: usize) -> Option<usize> {
        // Ancestors of objects that have too many may be those of the next: they go once they are many.
        let bound = most.saturating_mul(8).saturating_add(2 * self.n_kept);
        if self.states.len() > bound {
            self.forget();
        }
        self.n_added += 1;
        let mut found = Vec::new();
        let object = self.place(object);
        self.see(object, &mut found);
        let mut wave = 0..found.len();
        while !wave.is_empty() {
            self.look_back(env, &found[wave.clone()]);
            let end = wave.end;
            for i in wave {
                let ways = self.known[found[i] as usize].ways.clone();
                for way in ways.unwrap_or_default() {
                    self.see(self.ways[way].parent, &mut found);
                }
                if found.len() > most {
                    return None;
                }
            }
            wave = end..found.len();
        }
        found.iter().for_each(|&state| self.keep(state));
        Some(found.len())
    }

    /// All states; row 0 is s0.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// Whether a state is among them.
    pub fn contain(&self, row: &[i32]) -> bool {
        self.find(row).is_some()
    }

    /// The place of a state, if it is among them.
    pub fn find(&self, row: &[i32]) -> Option<u32> {
        self.index.get(&self.states, row)
    }

    /// The backward actions of a state.
    pub fn ways_back(&self, state: usize) -> &[WayBack] {
        self.known[state].ways.clone().map_or(&[], |ways| &self.ways[ways])
    }

    /// All states with their index.
    pub(crate) fn into_states(self) -> (States, RowIndex) {
        (self.states, self.index)
    }

    fn empty(width: usize) -> Self {
        let (states, index) = (States::new(width), RowIndex::default());
        Self { states, index, known: Vec::new(), ways: Vec::new(), n_added: 0, n_kept: 0 }
    }

    fn place(&mut self, row: &[i32]) -> u32 {
        let place = self.index.place_or_push(&mut self.states, row);
        self.known.resize(self.states.len(), Known::default());
        place
    }

    fn see(&mut self, state: u32, found: &mut Vec<u32>) {
        let known = &mut self.known[state as usize];
        if known.seen_from != self.n_added {
            known.seen_from = self.n_added;
            found.push(state);
        }
    }

    fn keep(&mut self, state: u32) {
        let known = &mut self.known[state as usize];
        self.n_kept += usize::from(!known.kept);
        known.kept = true;
    }

    /// Looks for the ways back from states that are new.
    fn look_back(&mut self, env: &dyn Environment, from: &[u32]) {
        let new = |&state: &u32| self.known[state as usize].ways.is_none();
        let new: Vec<u32> = from.iter().copied().filter(new).collect();
        let states = &self.states;
        let look = |mask: &mut Vec<bool>, &state: &u32| {
            let row = states.row(state as usize);
            env.legal_back(row, mask);
            let (mut parents, mut actions) = (States::new(row.len()), Vec::new());
            for back_action in (0..mask.len()).filter(|&action| mask[action]) {
                parents.push(row);
                let action = env.unstep(parents.row_mut(actions.len()), back_action);
                actions.push((action as u32, back_action as u32));
            }
            (parents, actions)
        };
        let mask = || vec![false; env.space().n_back_actions];
        let looked: Vec<_> = new.par_iter().with_min_len(SHARE).map_init(mask, look).collect();
        for (state, (parents, actions)) in new.into_iter().zip(looked) {
            let first = self.ways.len();
            for (row, (action, back_action)) in parents.rows().zip(actions) {
                let parent = self.place(row);
                self.ways.push(WayBack { parent, action, back_action });
            }
            self.known[state as usize].ways = Some(first..self.ways.len());
        }
    }

    /// Drops all states but those of objects that count.
    pub fn forget(&mut self) {
        if self.n_kept == self.states.len() {
            return;
        }
        let mut kept = Self::empty(self.states.width());
        let mut places = vec![u32::MAX; self.states.len()];
        let of_kept = || (0..self.states.len()).filter(|&state| self.known[state].kept);
        for state in of_kept() {
            places[state] = kept.place(self.states.row(state));
            kept.keep(places[state]);
        }
        for state in of_kept().filter(|&state| self.known[state].ways.is_some()) {
            let first = kept.ways.len();
            let moved = |way: &WayBack| WayBack { parent: places[way.parent as usize], ..*way };
            kept.ways.extend(self.ways_back(state).iter().map(moved));
            kept.known[places[state] as usize].ways = Some(first..kept.ways.len());
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StateGraph;
    use crate::environment::testing::Balls;

    /// Of balls in boxes: fewer in every box, as both are in descending order.
    fn is_ancestor(part: &[i32], object: &[i32]) -> bool {
        let stopped = part.len() - 1;
        part == object
            || part[stopped] == 0 && part[..stopped].iter().zip(object).all(|(a, b)| a <= b)
    }

    #[test]
    fn ancestors_are_those_of_the_whole_graph_whatever_came_before() {
        let env = Balls::new(4, 9);
        let graph = StateGraph::explore(&env, 1000).unwrap();
        let objects = graph.objects();
        let mut known: Vec<Vec<i32>> = Vec::new();
        let (mut few, mut refused, mut largest) = (Ancestors::new(&env), 0, 0);
        for object in objects.rows() {
            let expected: Vec<&[i32]> =
                graph.states().rows().filter(|row| is_ancestor(row, object)).collect();
            let own = Ancestors::of(&env, object, 1000).unwrap();
            assert_eq!(own.states().len(), expected.len());
            assert!(expected.iter().all(|row| own.contain(row)), "{object:?}");
            let added = few.add(&env, object, 12);
            assert_eq!(added, Some(expected.len()).filter(|&n| n <= 12), "{object:?}");
            match added {
                Some(_) => known.push(object.to_vec()),
                None => refused += 1,
            }
            largest = largest.max(few.states().len());
        }
        assert!(known.len() > 5 && refused > 5);
        assert!(largest > few.n_kept && largest < 2 * few.n_kept + 9 * 12, "{largest}");
        few.forget();
        let expected: Vec<&[i32]> = graph
            .states()
            .rows()
            .filter(|row| known.iter().any(|object| is_ancestor(row, object)))
            .collect();
        assert_eq!(few.states().len(), expected.len());
        for row in expected {
            let state = few.find(row).unwrap() as usize;
            let mut mask = vec![false; 5];
            env.legal_back(row, &mut mask);
            let back: Vec<usize> = (0..5).filter(|&action| mask[action]).collect();
            let ways = few.ways_back(state);
            assert!(ways.iter().map(|way| way.back_action as usize).eq(back), "{row:?}");
            for way in ways {
                let mut parent = row.to_vec();
                assert_eq!(env.unstep(&mut parent, way.back_action as usize), way.action as usize);
                assert_eq!(few.states().row(way.parent as usize), parent);
            }
        }
    }
}
