//! Complete trajectories, packed end to end without padding.

use serde::{Deserialize, Serialize};

use crate::row_index::RowIndex;
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

    /// Trajectory `i` with its rewards, without room for more.
    pub fn only(&self, i: usize) -> Self {
        let (transitions, rows) = (self.transitions(i), self.rows(i));
        Self {
            states: self.states.slice(rows.clone()),
            offsets: vec![0, transitions.len() as u32],
            actions: self.actions[transitions.clone()].to_vec(),
            back_actions: self.back_actions[transitions].to_vec(),
            log_reward: vec![self.log_reward[i]],
            log_reward_along: self.log_reward_along.get(rows).unwrap_or_default().to_vec(),
        }
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

    /// Appends the first `n` transitions of a trajectory and, from where these lead, the same one of others.
    pub fn push_joined(&mut self, first: &Trajectories, rest: &Trajectories, i: usize, n: usize) {
        let (a, b) = (first.rows(i), rest.rows(i));
        let rows = [first.states.cells(a.start..a.start + n), rest.states.cells(b)].concat();
        let (a, b) = (first.transitions(i), rest.transitions(i));
        let joined = |of: fn(&Trajectories) -> &Vec<u32>| {
            [&of(first)[a.start..a.start + n], &of(rest)[b.clone()]].concat()
        };
        let (actions, back_actions) = (joined(|t| &t.actions), joined(|t| &t.back_actions));
        self.push(&rows, &actions, &back_actions);
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
/// Equal states share a row, all of them or those that a rollout finds equal. A terminal state needs none where P_B
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
        let (states, mut seen) = (&trajectories.states, RowIndex::default());
        for i in 0..trajectories.len() {
            let rows = trajectories.rows(i);
            for state in rows.clone() {
                let row = states.row(state);
                if let Some(equal) = seen.get(states, row) {
                    plan.of_state.push(plan.of_state[equal as usize]);
                    continue;
                }
                seen.insert(states, state as u32);
                let is_last = state + 1 == rows.end;
                let needed = !is_last || learned && offers_choice_back(env, row, &mut mask);
                plan.of_state.push(needed.then_some(plan.states.len() as u32));
                if needed {
                    plan.states.push(state as u32);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Balls;
    use crate::policy::UniformPolicy;
    use crate::rng::{Purpose, Streams};
    use crate::sampler::{Draw, Exploration, Rollout, Sampler};

    fn rollout(n_parts: usize, learned: bool) -> Rollout {
        let draw = Draw { streams: Streams::new(4), purpose: Purpose::Test, step: 0 };
        let mut policies = vec![UniformPolicy; n_parts];
        let env = Balls::new(4, 6);
        Sampler::default().rollout(&env, &mut policies, Exploration::NONE, draw, 60, learned)
    }

    /// Every state that is asked for has the row of an equal one, with its legal actions, in rollouts as
    /// in plans of trajectories.
    #[test]
    fn equal_states_share_rows() {
        let env = Balls::new(4, 6);
        for (n_parts, learned) in [(1, true), (1, false), (4, true)] {
            let Rollout { trajectories, rows, legal, .. } = rollout(n_parts, learned);
            let state = |state: u32| trajectories.states.row(state as usize);
            let packed = RowPlan::packed(&env, &trajectories, learned);
            for plan in [&rows, &packed] {
                let distinct: std::collections::HashSet<_> =
                    plan.states.iter().map(|&i| state(i)).collect();
                assert!(plan.states.len() <= distinct.len() * n_parts);
                if std::ptr::eq(plan, &packed) || n_parts == 1 {
                    // States of this world are reached by ways of one length.
                    assert_eq!(plan.states.len(), distinct.len());
                }
                assert_eq!(plan.of_state.len(), trajectories.states.len());
                let mut used = vec![false; plan.states.len()];
                for (i, row) in plan.of_state.iter().enumerate() {
                    if let Some(row) = row {
                        assert_eq!(state(plan.states[*row as usize]), state(i as u32));
                        used[*row as usize] = true;
                    }
                }
                assert!(!used.contains(&false), "no row in vain");
            }
            let has_row =
                |plan: &RowPlan| plan.of_state.iter().map(Option::is_some).collect::<Vec<_>>();
            assert_eq!(has_row(&rows), has_row(&packed));
            let mut mask = vec![false; env.space().n_actions];
            for i in 0..trajectories.len() {
                for (t, at) in trajectories.transitions(i).zip(trajectories.rows(i)) {
                    env.legal(state(at as u32), &mut mask);
                    assert_eq!(legal[t * mask.len()..][..mask.len()], mask);
                    assert!(packed.of_state[at].is_some());
                }
            }
        }
    }

    /// The parts that a batch is cut into change neither trajectories nor their masks.
    #[test]
    fn parts_draw_the_same() {
        let (one, four) = (rollout(1, true), rollout(4, true));
        assert_eq!((one.trajectories, one.legal), (four.trajectories, four.legal));
    }
}
