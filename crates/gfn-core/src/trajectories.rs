//! Complete trajectories, packed end to end without padding.

use serde::{Deserialize, Serialize};

use crate::{Environment, States};

/// A batch of trajectories s0 → … → x.
///
/// Trajectory `i` has `len(i)` transitions and owns `len(i) + 1` consecutive rows of
/// [`states`](Self::states). No log-probabilities are kept: objectives recompute them under the
/// current policy, so they can be neither stale nor mixed with exploration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trajectories {
    /// Every state of every trajectory.
    pub states: States,
    /// Forward action of each transition.
    pub actions: Vec<u32>,
    /// Backward action that undoes each transition.
    pub back_actions: Vec<u32>,
    /// Transitions before trajectory `i`; one more entry than trajectories.
    pub offsets: Vec<u32>,
    /// log R of each trajectory's terminal state; empty until rewards are computed.
    pub log_reward: Vec<f64>,
}

impl Trajectories {
    /// No trajectories of rows of `width` cells.
    pub fn new(width: usize) -> Self {
        Self { states: States::new(width), offsets: vec![0], ..Self::default() }
    }

    /// Number of trajectories.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no trajectories.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of transitions of all trajectories.
    pub fn n_transitions(&self) -> usize {
        self.actions.len()
    }

    /// Transitions of trajectory `i`.
    pub fn transitions(&self, i: usize) -> std::ops::Range<usize> {
        self.offsets[i] as usize..self.offsets[i + 1] as usize
    }

    /// State rows of trajectory `i`, first and last included.
    pub fn rows(&self, i: usize) -> std::ops::Range<usize> {
        self.offsets[i] as usize + i..self.offsets[i + 1] as usize + i + 1
    }

    /// The terminal row of trajectory `i`.
    pub fn terminal(&self, i: usize) -> &[i32] {
        self.states.row(self.rows(i).end - 1)
    }

    /// The terminal rows of all trajectories.
    pub fn terminals(&self) -> States {
        let mut terminals = States::with_capacity(self.states.width(), self.len());
        for i in 0..self.len() {
            terminals.push(self.terminal(i));
        }
        terminals
    }

    /// Appends one trajectory from its rows laid end to end and its actions.
    pub fn push(&mut self, rows: &[i32], actions: &[u32], back_actions: &[u32]) {
        debug_assert_eq!(rows.len(), (actions.len() + 1) * self.states.width());
        self.states.push(rows);
        self.actions.extend_from_slice(actions);
        self.back_actions.extend_from_slice(back_actions);
        self.offsets.push(self.actions.len() as u32);
    }
}

/// Which states of a batch of trajectories a network evaluates, and in which order.
///
/// States that all trajectories share (s0) need one row only. A terminal state needs none where P_B
/// is not the network's or has a single legal action, so that it is known: log F is log R there. Such
/// a state borrows the row of its parent, whose outputs then do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRows {
    /// The state (row of [`Trajectories::states`]) of each network row.
    pub states: Vec<u32>,
    /// The network row of each state.
    pub of_state: Vec<u32>,
}

impl NetworkRows {
    /// Rows in the order of the trajectories; `learned` says whether P_B is the network's.
    pub fn packed(env: &dyn Environment, trajectories: &Trajectories, learned: bool) -> Self {
        let mut rows = Self::default();
        let mut mask = vec![false; env.layout().n_back_actions];
        for i in 0..trajectories.len() {
            for state in trajectories.rows(i) {
                let row = rows.states.len() as u32;
                let is_first = state == trajectories.rows(i).start;
                let is_last = state + 1 == trajectories.rows(i).end;
                if is_first && i > 0 {
                    rows.of_state.push(0);
                } else if is_last
                    && !(learned
                        && offers_choice_back(env, trajectories.states.row(state), &mut mask))
                {
                    rows.of_state.push(rows.of_state[state - 1]);
                } else {
                    rows.states.push(state as u32);
                    rows.of_state.push(row);
                }
            }
        }
        rows
    }
}

/// Whether a state has two or more legal backward actions.
pub(crate) fn offers_choice_back(env: &dyn Environment, row: &[i32], mask: &mut [bool]) -> bool {
    env.legal_back(row, mask);
    mask.iter().filter(|&&legal| legal).count() > 1
}
