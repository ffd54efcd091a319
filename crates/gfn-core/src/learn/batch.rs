//! A batch of transitions, ready for losses: states, actions among the legal ones, rewards.

use std::cell::OnceCell;
use std::sync::Arc;

use super::engine::{ActionsTaken, Recording, Rows};
use crate::policy::log_softmax;
use crate::row_index::RowIndex;
use crate::sampler::Rollout;
use crate::trajectories::{RowPlan, offers_choice_back};
use crate::{Environment, States, Trajectories};

/// One end of a transition s → s'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// s.
    From,
    /// s'.
    To,
}

/// `m` transitions s → s'; those of whole trajectories one after the other, if they are whole.
#[derive(Debug)]
pub struct Batch {
    /// All states that occur.
    states: States,
    /// State of each transition's child.
    to: Vec<u32>,
    /// The forward action of each transition, chosen at its start.
    pub forward: Arc<ActionsTaken>,
    /// The backward actions that were chosen among several, at the ends of transitions.
    pub backward: Arc<ActionsTaken>,
    /// Which of these belongs to each transition; none where there was nothing to choose, and log P_B
    /// is 0.
    pub backward_of: Vec<Option<u32>>,
    /// Row of each transition's child; none where a network need not know it.
    pub to_rows: Vec<Option<u32>>,
    /// Whether each transition ends in a terminal state.
    pub terminal: Vec<bool>,
    /// log R of each transition that ends in a terminal state, in order.
    pub log_reward: Vec<f64>,
    /// Transitions before each trajectory, `b + 1` entries, if they are whole.
    pub offsets: Option<Vec<u32>>,
    /// Rows that networks evaluate, for both ends or for each end of its own.
    rows: Vec<Rows>,
    fixed_log_pb: Option<Vec<f64>>,
    /// log R of every state as if it were finished there, if some loss asks for it.
    log_reward_along: Vec<f64>,
    /// What each trajectory counts if they are whole, else each transition; none where all count alike.
    pub weights: Option<Vec<f64>>,
    /// log P_G of each transition, where a guide remembers objects; else empty.
    pub log_guide: Vec<f64>,
    next: OnceCell<Next>,
    parents: OnceCell<Parents>,
    choices: [OnceCell<Choices>; 2],
}

/// The forward actions that are legal at the children.
#[derive(Clone, Debug)]
pub struct Next {
    /// One entry per child that is not terminal; no action is taken.
    pub actions: Arc<ActionsTaken>,
    /// Which of these belongs to each transition; none where the child is terminal.
    pub of: Vec<Option<u32>>,
}

/// Every forward action that is legal at an end of transitions.
#[derive(Clone, Debug)]
pub struct Choices {
    /// One entry per transition, but for terminal states.
    pub actions: Arc<ActionsTaken>,
    /// Legal actions before each transition's, `m + 1` entries; a terminal state has none.
    pub offsets: Vec<u32>,
}

/// All parents of the child of every transition.
#[derive(Debug)]
pub struct Parents {
    /// The parents.
    pub rows: Rows,
    /// The action that leads from each parent to the child.
    pub forward: Arc<ActionsTaken>,
    /// Parents before each transition's, `m + 1` entries.
    pub offsets: Vec<u32>,
}

/// Writes the logits of a P_B without parameters at a child, over its legal backward actions.
pub type FixedLogits<'a> = dyn Fn(&dyn Environment, &[i32], &[bool], &mut [f32]) + 'a;

/// How log P_B comes into a batch.
pub struct PbOf<'a> {
    /// What fixes it, if it has no parameters.
    pub fixed: Option<Box<FixedLogits<'a>>>,
    /// Whether some loss reads P_B of a network.
    pub network: bool,
}

/// Transitions of any trajectories, as a replay buffer holds them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Transitions {
    /// s of each.
    pub from: States,
    /// s' of each.
    pub to: States,
    /// Forward action of each.
    pub actions: Vec<u32>,
    /// Backward action that undoes each.
    pub back_actions: Vec<u32>,
    /// log R of s', where that is terminal.
    pub log_reward: Vec<Option<f64>>,
    /// log R of s and of s' as if they were finished there; empty where no loss asks for it.
    pub log_reward_along: Vec<[f64; 2]>,
}

impl Batch {
    /// The trajectories of a rollout, with what it knows of them.
    pub fn of_rollout(env: &dyn Environment, pb: &PbOf<'_>, rollout: Rollout) -> Self {
        let Rollout { trajectories, rows, legal, recording } = rollout;
        Self::new(env, pb, trajectories, rows, Some(legal), recording)
    }

    /// Any trajectories with their rewards.
    pub fn of_trajectories(
        env: &dyn Environment,
        pb: &PbOf<'_>,
        trajectories: Trajectories,
    ) -> Self {
        let rows = RowPlan::packed(env, &trajectories, pb.network);
        Self::new(env, pb, trajectories, rows, None, None)
    }

    fn new(
        env: &dyn Environment,
        pb: &PbOf<'_>,
        trajectories: Trajectories,
        plan: RowPlan,
        legal: Option<Vec<bool>>,
        recording: Option<Recording>,
    ) -> Self {
        let (b, m) = (trajectories.len(), trajectories.n_transitions());
        let n_actions = env.space().n_actions;
        let mut forward = ActionsTaken::with_capacity(n_actions, 0);
        forward.legal = legal.unwrap_or_else(|| {
            let mut legal = vec![false; m * n_actions];
            // The first transition out of each state, by its row.
            let mut first_of = vec![None; plan.states.len()];
            for i in 0..b {
                for (t, state) in trajectories.transitions(i).zip(trajectories.rows(i)) {
                    let row = plan.of_state[state].expect("an action was chosen there");
                    match *first_of[row as usize].get_or_insert(t) {
                        first if first < t => {
                            let known = first * n_actions..(first + 1) * n_actions;
                            legal.copy_within(known, t * n_actions);
                        }
                        _ => {
                            let mask = &mut legal[t * n_actions..(t + 1) * n_actions];
                            env.legal(trajectories.states.row(state), mask);
                        }
                    }
                }
            }
            legal
        });
        let (mut to, mut to_rows) = (Vec::with_capacity(m), Vec::with_capacity(m));
        let mut terminal = vec![false; m];
        for i in 0..b {
            let first = trajectories.rows(i).start;
            for t in 0..trajectories.transitions(i).len() {
                forward.rows.push(plan.of_state[first + t].expect("an action was chosen there"));
                to.push((first + t + 1) as u32);
                to_rows.push(plan.of_state[first + t + 1]);
            }
            if let Some(last) = trajectories.transitions(i).last() {
                terminal[last] = true;
            }
        }
        forward.taken = trajectories.actions;
        let mut evaluated = States::with_capacity(env.space().width, plan.states.len());
        for &state in &plan.states {
            evaluated.push(trajectories.states.row(state as usize));
        }
        let rows = Rows::recorded(evaluated, recording);
        let mut batch = Self {
            states: trajectories.states,
            to,
            forward: Arc::new(forward),
            backward: Arc::default(),
            backward_of: Vec::new(),
            to_rows,
            terminal,
            log_reward: trajectories.log_reward,
            offsets: Some(trajectories.offsets),
            rows: vec![rows],
            fixed_log_pb: None,
            log_reward_along: trajectories.log_reward_along,
            weights: None,
            log_guide: Vec::new(),
            next: OnceCell::new(),
            parents: OnceCell::new(),
            choices: Default::default(),
        };
        batch.read_backward(env, pb, &trajectories.back_actions);
        batch
    }

    /// Transitions that need not belong together.
    pub fn of_transitions(env: &dyn Environment, pb: &PbOf<'_>, transitions: &Transitions) -> Self {
        let space = env.space();
        let m = transitions.actions.len();
        let mut forward = ActionsTaken::with_capacity(space.n_actions, m);
        let mut next = ActionsTaken::with_capacity(space.n_actions, m);
        let (mut to_rows, mut next_of) = (Vec::with_capacity(m), Vec::with_capacity(m));
        let mut starts = Distinct::new(env);
        let mut children = Distinct::new(env);
        let mut legal_back = vec![false; space.n_back_actions];
        for (t, (from, to)) in transitions.from.rows().zip(transitions.to.rows()).enumerate() {
            let row = starts.row(env, from, |_| true);
            let row = row.expect("an action was chosen there");
            forward.push(row, starts.legal(row), transitions.actions[t]);
            let row = children.row(env, to, |legal| {
                let inner = legal.contains(&true);
                inner || pb.network && offers_choice_back(env, to, &mut legal_back)
            });
            let legal = row.map(|row| (row, children.legal(row)));
            let inner = legal.filter(|(_, legal)| legal.contains(&true));
            next_of.push(inner.map(|(row, legal)| {
                next.push(row, legal, 0);
                next.len() as u32 - 1
            }));
            to_rows.push(row);
        }
        let mut states = transitions.from.clone();
        transitions.to.rows().for_each(|row| states.push(row));
        let mut batch = Self {
            states,
            to: (m as u32..2 * m as u32).collect(),
            forward: Arc::new(forward),
            backward: Arc::default(),
            backward_of: Vec::new(),
            to_rows,
            terminal: transitions.log_reward.iter().map(Option::is_some).collect(),
            log_reward: transitions.log_reward.iter().copied().flatten().collect(),
            offsets: None,
            rows: vec![Rows::new(starts.states), Rows::new(children.states)],
            fixed_log_pb: None,
            log_reward_along: [0, 1]
                .into_iter()
                .flat_map(|end| transitions.log_reward_along.iter().map(move |ends| ends[end]))
                .collect(),
            weights: None,
            log_guide: Vec::new(),
            next: OnceCell::from(Next { actions: Arc::new(next), of: next_of }),
            parents: OnceCell::new(),
            choices: Default::default(),
        };
        batch.read_backward(env, pb, &transitions.back_actions);
        batch
    }

    /// What log P_B needs: values where it is fixed, else choices at the children.
    fn read_backward(&mut self, env: &dyn Environment, pb: &PbOf<'_>, back_actions: &[u32]) {
        let n = env.space().n_back_actions;
        let mut legal = vec![false; n];
        // By the row of a child, what was found out when it came first.
        let mut known = vec![None; self.rows[self.set(End::To)].states.len()];
        if pb.network {
            let mut backward = ActionsTaken::with_capacity(n, self.len());
            for (t, &taken) in back_actions.iter().enumerate() {
                let child = self.states.row(self.to[t] as usize);
                let choice = self.to_rows[t].and_then(|row| {
                    // The first choice there, if it is one.
                    let first: Option<usize> = *known[row as usize].get_or_insert_with(|| {
                        env.legal_back(child, &mut legal);
                        let choice = legal.iter().filter(|&&legal| legal).count() > 1;
                        choice.then_some(backward.len())
                    });
                    first.map(|first| (row, first))
                });
                self.backward_of.push(choice.map(|(row, first)| {
                    match first == backward.len() {
                        true => backward.push(row, &legal, taken),
                        false => backward.push_again(first, taken),
                    }
                    backward.len() as u32 - 1
                }));
            }
            self.backward = Arc::new(backward);
            known.fill(None);
        }
        if let Some(fixed) = &pb.fixed {
            let mut logits = vec![0.0f32; n];
            // Those of children with a row, one after the other.
            let mut log_probs = Vec::new();
            let of = |(t, &taken): (usize, &u32)| {
                let mut compute = || {
                    let child = self.states.row(self.to[t] as usize);
                    env.legal_back(child, &mut legal);
                    fixed(env, child, &legal, &mut logits);
                    let start = log_probs.len();
                    log_probs.resize(start + n, 0.0f64);
                    log_softmax(&logits, &legal, &mut log_probs[start..]);
                    Some(start)
                };
                let start = match self.to_rows[t] {
                    Some(row) => *known[row as usize].get_or_insert_with(compute),
                    None => compute(),
                };
                let start = start.expect("it was computed");
                let log_prob = log_probs[start + taken as usize];
                if self.to_rows[t].is_none() {
                    log_probs.truncate(start);
                }
                log_prob
            };
            self.fixed_log_pb = Some(back_actions.iter().enumerate().map(of).collect());
        }
    }

    /// Number of transitions, `m`.
    pub fn len(&self) -> usize {
        self.to.len()
    }

    /// Whether there are no transitions.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// Which of the sets of rows holds an end of every transition.
    pub fn set(&self, end: End) -> usize {
        match end {
            End::From => 0,
            End::To => self.rows.len() - 1,
        }
    }

    /// A set of rows that networks evaluate.
    pub fn rows(&self, set: usize) -> &Rows {
        &self.rows[set]
    }

    /// Every forward action that is legal at an end of transitions.
    pub fn choices(&self, end: End) -> &Choices {
        let place = match end {
            End::From => 0,
            End::To => 1,
        };
        self.choices[place].get_or_init(|| {
            let actions = match end {
                End::From => self.forward.clone(),
                End::To => self.next().actions.clone(),
            };
            let mut n_legal = actions.n_legal();
            let (mut before, mut offsets) = (0, vec![0]);
            for t in 0..self.len() {
                if end == End::From || self.next().of[t].is_some() {
                    before += n_legal.next().expect("one entry each") as u32;
                }
                offsets.push(before);
            }
            drop(n_legal);
            Choices { actions, offsets }
        })
    }

    /// log P_B of every transition, `[m]`, for a strategy with a fixed P_B.
    pub fn fixed_log_pb(&self) -> Option<&Vec<f64>> {
        self.fixed_log_pb.as_ref()
    }

    /// log R of an end of every transition as if it were finished there, `[m]`; empty where it has not
    /// been computed.
    pub fn log_reward_along(&self, end: End) -> Vec<f64> {
        if self.log_reward_along.is_empty() {
            return Vec::new();
        }
        let state = |t: usize| match (end, &self.offsets) {
            (End::To, _) => self.to[t] as usize,
            // States of whole trajectories follow each other.
            (End::From, Some(_)) => self.to[t] as usize - 1,
            (End::From, None) => t,
        };
        (0..self.len()).map(|t| self.log_reward_along[state(t)]).collect()
    }

    /// Another action in the place of the one that was taken at the start of every transition.
    pub fn instead(&self, action: usize) -> ActionsTaken {
        ActionsTaken { taken: vec![action as u32; self.len()], ..(*self.forward).clone() }
    }

    /// An action at the child of every transition that is not terminal.
    pub fn next_taking(&self, action: usize) -> ActionsTaken {
        let next = &self.next().actions;
        ActionsTaken { taken: vec![action as u32; next.len()], ..(**next).clone() }
    }

    /// Row of each transition's start.
    pub fn from_rows(&self) -> &[u32] {
        &self.forward.rows
    }

    /// The forward actions that are legal at the children.
    pub fn next(&self) -> &Next {
        // The child of a transition that ends no trajectory is where the next one starts.
        self.next.get_or_init(|| {
            let mut actions = ActionsTaken::with_capacity(self.forward.n_actions, self.len());
            let of = (0..self.len()).map(|t| {
                (!self.terminal[t]).then(|| {
                    actions.push(self.forward.rows[t + 1], self.forward.legal_at(t + 1), 0);
                    actions.len() as u32 - 1
                })
            });
            let of = of.collect();
            Next { actions: Arc::new(actions), of }
        })
    }

    /// All parents of every child.
    pub fn parents(&self, env: &dyn Environment) -> &Parents {
        self.parents.get_or_init(|| {
            let space = env.space();
            let mut states = States::new(space.width);
            let mut forward = ActionsTaken::with_capacity(space.n_actions, self.len());
            let mut offsets = vec![0];
            let mut legal = vec![false; space.n_actions];
            let mut legal_back = vec![false; space.n_back_actions];
            let mut row = vec![0; space.width];
            for &child in &self.to {
                let child = self.states.row(child as usize);
                env.legal_back(child, &mut legal_back);
                for back_action in (0..legal_back.len()).filter(|&action| legal_back[action]) {
                    row.copy_from_slice(child);
                    let action = env.unstep(&mut row, back_action);
                    env.legal(&row, &mut legal);
                    forward.push(states.len() as u32, &legal, action as u32);
                    states.push(&row);
                }
                offsets.push(forward.len() as u32);
            }
            Parents { rows: Rows::new(states), forward: Arc::new(forward), offsets }
        })
    }
}

/// The different states among ends of transitions that networks evaluate, with their legal forward
/// actions.
struct Distinct {
    states: States,
    index: RowIndex,
    legal: Vec<bool>,
    n_actions: usize,
}

impl Distinct {
    fn new(env: &dyn Environment) -> Self {
        let states = States::new(env.space().width);
        let n_actions = env.space().n_actions;
        Self { states, index: RowIndex::default(), legal: Vec::new(), n_actions }
    }

    /// The row of a state; none where it is not `needed`, by its legal actions.
    fn row(
        &mut self,
        env: &dyn Environment,
        state: &[i32],
        needed: impl FnOnce(&[bool]) -> bool,
    ) -> Option<u32> {
        if let Some(row) = self.index.get(&self.states, state) {
            return Some(row);
        }
        let start = self.legal.len();
        self.legal.resize(start + self.n_actions, false);
        env.legal(state, &mut self.legal[start..]);
        if !needed(&self.legal[start..]) {
            self.legal.truncate(start);
            return None;
        }
        Some(self.index.place_or_push(&mut self.states, state))
    }

    fn legal(&self, row: u32) -> &[bool] {
        &self.legal[row as usize * self.n_actions..][..self.n_actions]
    }
}

impl Transitions {
    /// No transitions between rows of `width` cells.
    pub fn new(width: usize) -> Self {
        Self { from: States::new(width), to: States::new(width), ..Self::default() }
    }

    /// Adds one.
    pub fn push(
        &mut self,
        from: &[i32],
        to: &[i32],
        action: u32,
        back_action: u32,
        log_reward: Option<f64>,
    ) {
        self.from.push(from);
        self.to.push(to);
        self.actions.push(action);
        self.back_actions.push(back_action);
        self.log_reward.push(log_reward);
    }

    /// Adds those of whole trajectories with their rewards.
    pub fn extend(&mut self, trajectories: &Trajectories) {
        for i in 0..trajectories.len() {
            let rows = trajectories.rows(i);
            for (start, t) in rows.clone().zip(trajectories.transitions(i)) {
                let is_last = start + 2 == rows.end;
                self.push(
                    trajectories.states.row(start),
                    trajectories.states.row(start + 1),
                    trajectories.actions[t],
                    trajectories.back_actions[t],
                    is_last.then(|| trajectories.log_reward[i]),
                );
                if let Some(along) = trajectories.log_reward_along.get(start..start + 2) {
                    self.log_reward_along.push([along[0], along[1]]);
                }
            }
        }
    }
}
