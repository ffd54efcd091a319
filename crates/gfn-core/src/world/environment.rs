//! The contract of an environment: a deterministic, acyclic way of building objects.

use std::any::Any;
use std::ops::Range;

/// An environment that breaks a law of its contract, found out while it was walked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment breaks a law: {law}; it does not hold at the state {row:?}")]
pub struct BrokenLaw {
    /// The law.
    pub law: &'static str,
    /// The cells of a state where it does not hold.
    pub row: Vec<i32>,
}

/// An observation slot that holds no token.
pub const NO_TOKEN: i32 = -1;

/// Which way along the edges of the state graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From s0 towards objects: P_F.
    Forward,
    /// From objects back to s0: P_B.
    Backward,
}

/// The fixed sizes of an environment, from which buffers and networks are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Cells per state row.
    pub width: usize,
    /// Forward actions, legal or not.
    pub n_actions: usize,
    /// Backward actions, legal or not.
    pub n_back_actions: usize,
    /// Size of the token vocabulary of [`Environment::observe`].
    pub n_tokens: usize,
    /// Token slots per observation; an observation is the set of its tokens (a sparse one-hot).
    pub n_active: usize,
    /// The most actions that a trajectory can have.
    pub max_len: usize,
    /// Where forward actions put one of `k` symbols into an observed slot that is still empty, action
    /// `slot k + symbol` over all `n_active` slots: k. Networks may then give each empty slot its own
    /// logits. Else 0.
    pub symbols_per_slot: usize,
}

impl Layout {
    /// Actions of a direction, legal or not.
    pub fn n_actions_in(&self, direction: Direction) -> usize {
        match direction {
            Direction::Forward => self.n_actions,
            Direction::Backward => self.n_back_actions,
        }
    }
}

/// A directed acyclic graph of states, walked one action at a time.
///
/// An environment is stateless: it looks at one row and answers; batches, threads and padding
/// belong to the engine. Every method may be called from several threads.
///
/// Laws (tested for every registered environment by `gfn-envs/tests/contract.rs`):
/// * [`reset`](Self::reset) has no legal backward action and some legal forward action;
/// * `step` and `unstep` undo each other: `unstep(step(s, a)) = s` with the actions that they
///   return, for *every* legal action of either direction;
/// * a trajectory ends, within `max_len` actions, in a row without legal forward actions;
/// * two rows that offer a choice (two or more legal actions in a direction) and differ in their
///   legal actions are observed differently.
pub trait Environment: Any + Send + Sync {
    /// Sizes of rows, actions and observations.
    fn layout(&self) -> Layout;

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

    /// Writes the active tokens (`0..n_tokens`, or [`NO_TOKEN`]) of a row: `n_active` slots.
    fn observe(&self, row: &[i32], tokens: &mut [i32]);

    /// A terminal row as text, unique among terminal rows.
    fn render(&self, row: &[i32]) -> String;

    /// The terminal row that [`render`](Self::render)s as `text`, if there is one.
    ///
    /// Environments that implement this can be given rewards by table.
    fn parse(&self, _text: &str) -> Option<Vec<i32>> {
        None
    }

    /// log of the number of action sequences from s0 to this row, where a closed form is known.
    ///
    /// It makes the maximum-entropy backward policy exact without enumeration.
    fn log_paths(&self, _row: &[i32]) -> Option<f64> {
        None
    }

    /// Number of terminal states, where a closed form is known; saturates at `u64::MAX`.
    fn n_objects(&self) -> Option<u64> {
        None
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
}

#[cfg(test)]
pub(crate) mod testing {
    //! Any graph as an environment, lawful or not.

    use super::{Environment, Layout, Range};

    /// States 0 to `n` - 1, one cell wide; the actions of a state are its edges, in their order.
    pub struct Edges {
        pub n: usize,
        pub edges: Vec<(i32, i32)>,
    }

    impl Edges {
        fn out(&self, from: i32) -> impl Iterator<Item = usize> + '_ {
            (0..self.edges.len()).filter(move |&e| self.edges[e].0 == from)
        }

        fn into(&self, to: i32) -> impl Iterator<Item = usize> + '_ {
            (0..self.edges.len()).filter(move |&e| self.edges[e].1 == to)
        }
    }

    impl Environment for Edges {
        fn layout(&self) -> Layout {
            let n = self.edges.len();
            Layout {
                width: 1,
                n_actions: n,
                n_back_actions: n,
                n_tokens: self.n,
                n_active: 1,
                max_len: n,
                symbols_per_slot: 0,
            }
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

        fn observe(&self, row: &[i32], tokens: &mut [i32]) {
            tokens[0] = row[0];
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
