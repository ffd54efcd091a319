//! The contract of an environment: a deterministic, acyclic way of building objects.

use std::any::Any;
use std::ops::Range;

use super::proposal::Proposal;
use super::space::{Direction, Space};
use super::states::States;

/// An environment that breaks a law of its contract, found out while it was walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment breaks a law: {law}; it does not hold at the state {row:?}")]
pub struct BrokenLaw {
    /// The law.
    pub law: &'static str,
    /// The cells of a state where it does not hold.
    pub row: Vec<i32>,
}

/// A directed acyclic graph of states, walked one action at a time.
///
/// An environment is stateless: it looks at one row and answers; batches, threads and padding
/// belong to the engine. Every method may be called from several threads.
///
/// Laws, which [`laws::check`](super::laws::check) checks, of every registered environment in
/// `gfn-envs/tests/contract.rs`:
/// * [`reset`](Self::reset) has no legal backward action and some legal forward action;
/// * `step` and `unstep` undo each other: `unstep(step(s, a)) = s` with the actions that they
///   return, for *every* legal action of either direction; what they return then is the action
///   itself, unless several lead between the same states, see
///   [`edges_are_actions`](Self::edges_are_actions);
/// * a trajectory ends, within `max_len` actions, in a row without legal forward actions;
/// * two rows that offer a choice (two or more legal actions in a direction) and differ in their
///   legal actions are observed differently.
pub trait Environment: Any + Send + Sync {
    /// What rows, actions and observations consist of. Kept by the environment: it is asked for often.
    fn space(&self) -> &Space;

    /// Writes the initial state s0.
    fn reset(&self, row: &mut [i32]);

    /// Which forward actions are legal; none of them exactly in terminal states.
    /// `mask` has `n_actions` entries and is overwritten.
    fn legal(&self, row: &[i32], mask: &mut [bool]);

    /// Which backward actions are legal; none of them exactly in the initial state.
    /// `mask` has `n_back_actions` entries and is overwritten.
    fn legal_back(&self, row: &[i32], mask: &mut [bool]);

    /// Which actions of a direction are legal.
    fn legal_in(&self, direction: Direction, row: &[i32], mask: &mut [bool]) {
        match direction {
            Direction::Forward => self.legal(row, mask),
            Direction::Backward => self.legal_back(row, mask),
        }
    }

    /// Takes a legal forward action in place and returns the backward action that undoes it.
    fn step(&self, row: &mut [i32], action: usize) -> usize;

    /// Takes a legal backward action in place and returns the forward action that redoes it.
    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize;

    /// Writes what networks see of a row: a value, or [`NO_TOKEN`](super::space::NO_TOKEN), for each
    /// cell of an observation, see [`Space`].
    fn observe(&self, row: &[i32], cells: &mut [i32]);

    /// A terminal row as text, unique among terminal rows.
    fn render(&self, row: &[i32]) -> String;

    /// What a terminal row is called besides, with what such names are called: shown beside its text in
    /// samples. Several rows may have one such name.
    fn alias(&self, _row: &[i32]) -> Option<(&'static str, String)> {
        None
    }

    /// The terminal row that [`render`](Self::render)s as `text`, if there is one.
    ///
    /// Environments that implement this can be given rewards by table.
    fn parse(&self, _text: &str) -> Option<Vec<i32>> {
        None
    }

    /// Whether forward and backward actions are two names of the same edges: `unstep` returns the
    /// action that was undone, and `step` the backward action that was redone.
    ///
    /// They are not where an action stands for several that lead to the same state, such as bonds to
    /// one of several atoms that a symmetry of the molecule exchanges, and there are more of them in
    /// one direction than in the other. Any one of them may then be returned. See
    /// [`log_symmetry`](Self::log_symmetry).
    fn edges_are_actions(&self) -> bool {
        true
    }

    /// log of what R(x) of a terminal row is multiplied with in losses, in nats, so that objects are
    /// sampled in proportion to R: where states are classes of labelled things under a group, and
    /// actions are those of one of its members, log |Aut(x)| − log |Aut(s0)|, with |Aut| the number
    /// of relabellings that change nothing (Kim et al. 2025, arXiv:2506.02685); else 0.
    ///
    /// Between two states, forward and backward actions are in the ratio |Aut(s)| / |Aut(s')|. What
    /// is learned from their probabilities one by one makes P_T(x) proportional to what losses take for
    /// the reward, divided by |Aut(x)|. Metrics and targets know R itself.
    ///
    /// Policies must give the same probability to actions that a symmetry exchanges, as networks
    /// over unnamed slots and the uniform and maximum-entropy P_B do.
    fn log_symmetry(&self, _row: &[i32]) -> f64 {
        0.0
    }

    /// Why [`parse`](Self::parse) knows no object of that text, to be read after it; none where there is
    /// no more to say than that it is none.
    fn refusal(&self, _text: &str) -> Option<String> {
        None
    }

    /// log of the number of action sequences from s0 to this row, where a closed form is known;
    /// of sequences of backward actions, where [they are not the same](Self::edges_are_actions).
    ///
    /// It makes the maximum-entropy backward policy exact without enumeration.
    fn log_paths(&self, _row: &[i32]) -> Option<f64> {
        None
    }

    /// Number of terminal states, where a closed form is known; saturates at `u64::MAX`.
    fn n_objects(&self) -> Option<u64> {
        None
    }

    /// Whether it is known without looking that there are more states than this: then nobody
    /// tries to enumerate them.
    fn has_more_states_than(&self, n: u64) -> bool {
        self.n_objects().is_some_and(|n_objects| n_objects > n)
    }

    /// The terminal row of the object with this number, in lexicographic order of the cells, where
    /// objects are numbered.
    fn object_at(&self, _number: u64) -> Option<Vec<i32>> {
        None
    }

    /// The values of each cell, where they are few: state graphs then find a row by its digits
    /// instead of hashing it.
    fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
        None
    }

    /// The terminal row that is the same object here as one of another environment, where the two are
    /// of a kind and differ in their settings.
    fn converted(&self, _row: &[i32], _from: &dyn Environment) -> Option<Vec<i32>> {
        None
    }

    /// A terminal row as a set of bits, where objects are compared by those that they share (Tanimoto's
    /// similarity): the fingerprint of a molecule.
    fn fingerprint(&self, _row: &[i32]) -> Option<[u64; 32]> {
        None
    }

    /// How far two terminal rows are from each other, for the diversity of samples: 0 or more, the same
    /// both ways. By default the number of cells in which they differ.
    fn distance(&self, a: &[i32], b: &[i32]) -> f64 {
        a.iter().zip(b).filter(|(a, b)| a != b).count() as f64
    }

    /// The sum of [`distance`](Self::distance) over all pairs of terminal rows.
    fn total_distance(&self, rows: &[&[i32]]) -> f64 {
        let with_those_before =
            |(i, a): (usize, &&[i32])| rows[..i].iter().map(|b| self.distance(a, b)).sum::<f64>();
        rows.iter().enumerate().map(with_those_before).sum()
    }

    /// What [`distance`](Self::distance) is: its unit (`1` if it has none), and in words that follow
    /// `the`.
    fn distance_of(&self) -> (&'static str, &'static str) {
        ("cells", "number of cells (coordinates, symbols) in which they differ")
    }

    /// What samples of a policy show together, as files beside them: names and texts. `objects` are
    /// terminal rows, as often as they were drawn, with their log R.
    fn artifacts(&self, _objects: &States, _log_reward: &[f64]) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What kinds of objects a terminal row is one of, as names of classifications with its class in
    /// each, such as ("length", "7"): errors of learned rewards are reported by class, and a class can
    /// be held out as a whole.
    fn strata(&self, _row: &[i32]) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Numbers that stand for the substructures of a terminal row, such as hashes of the surroundings
    /// of atoms, the same in every run: an object with some that a learned reward has never seen is
    /// unlike those that it was learned from. None where substructures mean nothing.
    fn features_of(&self, _row: &[i32]) -> Vec<u64> {
        Vec::new()
    }

    /// Moves from object to object that the field uses for Markov chains, if there are any.
    fn local_moves(&self) -> Option<&dyn Proposal> {
        None
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Any graph as an environment, lawful or not, and one whose states have symmetries.

    use super::{Environment, Range, Space};
    use crate::space::{At, Block};

    /// Up to `most` balls in `boxes` boxes without names: numbers of balls in descending order, then
    /// whether the walk has stopped. A ball goes to any box, or comes from any that holds some, and
    /// boxes that hold as many are alike: |Aut| is the product of the factorials of their numbers.
    pub struct Balls {
        pub boxes: usize,
        pub most: i32,
        space: Space,
    }

    impl Balls {
        pub fn new(boxes: usize, most: i32) -> Self {
            let space = Space::new(boxes + 1, most as usize + 1)
                .named_slots(boxes, &[most as usize + 1])
                .forward(&[Block::slot("add", At::Any, 1), Block::stop()])
                .backward(&[Block::slot("take", At::Any, 1), Block::whole("go_on", 1)]);
            Self { boxes, most, space }
        }

        /// Changes a box, and returns the first that then holds as many.
        fn change(&self, row: &mut [i32], of: usize, by: i32) -> usize {
            row[of] += by;
            let after = row[of];
            let boxes = &mut row[..self.boxes];
            boxes.sort_unstable_by(|a, b| b.cmp(a));
            boxes.iter().position(|&balls| balls == after).expect("it is there")
        }

        /// |Aut| of a state.
        pub fn n_symmetries(&self, row: &[i32]) -> f64 {
            let groups = row[..self.boxes].chunk_by(|a, b| a == b);
            groups.map(|group| (1..=group.len()).product::<usize>() as f64).product()
        }
    }

    impl Environment for Balls {
        fn space(&self) -> &Space {
            &self.space
        }

        fn reset(&self, row: &mut [i32]) {
            row.fill(0);
        }

        fn legal(&self, row: &[i32], mask: &mut [bool]) {
            let (boxes, going) = (self.boxes, row[self.boxes] == 0);
            mask[..boxes].fill(going && row[..boxes].iter().sum::<i32>() < self.most);
            mask[boxes] = going;
        }

        fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
            let (boxes, going) = (self.boxes, row[self.boxes] == 0);
            mask.iter_mut().zip(&row[..boxes]).for_each(|(legal, &n)| *legal = going && n > 0);
            mask[boxes] = !going;
        }

        fn step(&self, row: &mut [i32], action: usize) -> usize {
            if action == self.boxes {
                row[action] = 1;
                return action;
            }
            self.change(row, action, 1)
        }

        fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
            if back_action == self.boxes {
                row[back_action] = 0;
                return back_action;
            }
            self.change(row, back_action, -1)
        }

        fn observe(&self, row: &[i32], cells: &mut [i32]) {
            cells.copy_from_slice(&row[..self.boxes]);
        }

        fn render(&self, row: &[i32]) -> String {
            format!("{row:?}")
        }

        fn edges_are_actions(&self) -> bool {
            false
        }

        fn log_symmetry(&self, row: &[i32]) -> f64 {
            let all = (1..=self.boxes).product::<usize>() as f64;
            (self.n_symmetries(row) / all).ln()
        }
    }

    /// States 0 to `n` - 1, one cell wide; the actions of a state are its edges, in their order.
    pub struct Edges {
        pub n: usize,
        pub edges: Vec<(i32, i32)>,
        space: Space,
    }

    impl Edges {
        pub fn new(n: usize, edges: Vec<(i32, i32)>) -> Self {
            let actions = [Block::whole("edge", edges.len())];
            let space = Space::new(1, edges.len()).named_slots(1, &[n]);
            Self { n, space: space.forward(&actions).backward(&actions), edges }
        }

        fn out(&self, from: i32) -> impl Iterator<Item = usize> + '_ {
            (0..self.edges.len()).filter(move |&e| self.edges[e].0 == from)
        }

        fn into(&self, to: i32) -> impl Iterator<Item = usize> + '_ {
            (0..self.edges.len()).filter(move |&e| self.edges[e].1 == to)
        }
    }

    impl Environment for Edges {
        fn space(&self) -> &Space {
            &self.space
        }

        fn reset(&self, row: &mut [i32]) {
            row[0] = 0;
        }

        fn legal(&self, row: &[i32], mask: &mut [bool]) {
            let n = self.out(row[0]).count();
            mask.iter_mut().enumerate().for_each(|(action, legal)| *legal = action < n);
        }

        fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
            let n = self.into(row[0]).count();
            mask.iter_mut().enumerate().for_each(|(action, legal)| *legal = action < n);
        }

        fn step(&self, row: &mut [i32], action: usize) -> usize {
            let e = self.out(row[0]).nth(action).expect("legal");
            row[0] = self.edges[e].1;
            self.into(row[0]).position(|other| other == e).expect("an edge into its end")
        }

        fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
            let e = self.into(row[0]).nth(back_action).expect("legal");
            row[0] = self.edges[e].0;
            self.out(row[0]).position(|other| other == e).expect("an edge out of its start")
        }

        fn observe(&self, row: &[i32], cells: &mut [i32]) {
            cells[0] = row[0];
        }

        fn render(&self, row: &[i32]) -> String {
            row[0].to_string()
        }

        fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
            let of_cell = 0..self.n as i32;
            Some(vec![of_cell])
        }
    }
}
