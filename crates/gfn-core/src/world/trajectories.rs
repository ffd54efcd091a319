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
    /// log R of each trajectory's terminal state; empty until rewards are computed. In training as
    /// losses take it, with [`Environment::log_symmetry`].
    pub log_reward: Vec<f64>,
    /// The same of every state as if it were finished there; empty where no loss asks for it.
    pub log_reward_along: Vec<f64>,
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

    /// Every state as if it were finished there.
    ///
    /// # Panics
    /// When no action finishes objects.
    pub fn finished(&self, env: &dyn Environment) -> States {
        let space = env.space();
        let stop = space.stop().expect("an action finishes objects");
        let mut finished = States::with_capacity(space.width, self.states.len());
        let mut row = vec![0; space.width];
        for i in 0..self.len() {
            for state in self.rows(i) {
                row.copy_from_slice(self.states.row(state));
                if state + 1 < self.rows(i).end {
                    env.step(&mut row, stop);
                }
                finished.push(&row);
            }
        }
        finished
    }

    /// Appends trajectory `i` of others, with its reward.
    pub fn push_of(&mut self, others: &Trajectories, i: usize) {
        let transitions = others.transitions(i);
        let (actions, back_actions) =
            (&others.actions[transitions.clone()], &others.back_actions[transitions]);
        self.push(others.states.cells(others.rows(i)), actions, back_actions);
        self.log_reward.push(others.log_reward[i]);
        if !others.log_reward_along.is_empty() {
            self.log_reward_along.extend_from_slice(&others.log_reward_along[others.rows(i)]);
        }
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
/// Trajectories that start in the same state share its row. A terminal state needs none where P_B
/// is not the network's or has a single legal action, so that it is known: log F is log R there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowPlan {
    /// The state (row of [`Trajectories::states`]) of each network row.
    pub states: Vec<u32>,
    /// The network row of each state, if it has one.
    pub of_state: Vec<Option<u32>>,
}

impl RowPlan {
    /// Rows in the order of the trajectories; `learned` says whether P_B is the network's.
    pub fn packed(env: &dyn Environment, trajectories: &Trajectories, learned: bool) -> Self {
        let mut plan = Self::default();
        let mut mask = vec![false; env.space().n_back_actions];
        for i in 0..trajectories.len() {
            let rows = trajectories.rows(i);
            for state in rows.clone() {
                let row = trajectories.states.row(state);
                let shared = state == rows.start && i > 0 && row == trajectories.states.row(0);
                let is_last = state + 1 == rows.end;
                let of_state = if shared {
                    Some(0)
                } else if !is_last || learned && offers_choice_back(env, row, &mut mask) {
                    plan.states.push(state as u32);
                    Some(plan.states.len() as u32 - 1)
                } else {
                    None
                };
                plan.of_state.push(of_state);
            }
        }
        plan
    }
}

/// Whether a state has two or more legal backward actions.
pub(crate) fn offers_choice_back(env: &dyn Environment, row: &[i32], mask: &mut [bool]) -> bool {
    env.legal_back(row, mask);
    mask.iter().filter(|&&legal| legal).count() > 1
}
