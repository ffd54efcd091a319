//! The whole state graph of a small environment: enumeration, exact log Z, exact P_T(x) by
//! dynamic programming, path counts and exact bounds.
//!
//! Everything works on any [`Environment`] under a size limit. Sums run in double precision and
//! in a fixed order, so results do not depend on the number of threads.

use rayon::prelude::*;

use crate::policy::{Direction, Policy, log_softmax};
use crate::row_index::{Digits, RowIndex};
use crate::special::log_sum_exp;
use crate::{BrokenLaw, Environment, Reward, RewardError, States};

/// Why an environment cannot be enumerated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExploreError {
    /// It has more states than allowed.
    #[error("the environment has more than {limit} states")]
    TooLarge {
        /// The limit that was passed.
        limit: usize,
    },
    /// Its states are no directed acyclic graph.
    #[error(transparent)]
    Broken(#[from] BrokenLaw),
}

/// One edge of the graph, seen from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Index of the child state.
    pub child: u32,
    /// Forward action that takes it.
    pub action: u32,
    /// Backward action that undoes it.
    pub back_action: u32,
}

/// Every state that can be reached from s0, in an order in which parents precede children.
///
/// Edges are counted by action: if two actions lead from a state to the same child they are two
/// edges, and probabilities and path counts add over both.
#[derive(Debug)]
pub struct StateGraph {
    states: States,
    first_edge: Vec<u32>,
    edges: Vec<Edge>,
    terminals: Vec<u32>,
    index: RowIndex,
}

/// Where states are numbered: no place is left for more.
const MOST_STATES: usize = u32::MAX as usize;

impl StateGraph {
    /// Enumerates every reachable state, breadth first.
    ///
    /// # Errors
    /// When there are more than `limit` states, or a cycle among them.
    pub fn explore(env: &dyn Environment, limit: usize) -> Result<Self, ExploreError> {
        let space = env.space();
        let mut states = States::new(space.width);
        // Up to twice the places that hashing would take.
        let most = limit.saturating_mul(4).min(MOST_STATES);
        let mut index = RowIndex::new(env.cell_ranges().and_then(|cells| Digits::new(cells, most)));
        let mut row = vec![0; space.width];
        let mut mask = vec![false; space.n_actions];
        env.reset(&mut row);
        states.push(&row);
        index.insert_last(&states);

        let (mut first_edge, mut edges) = (vec![0u32], Vec::new());
        let mut next = 0;
        while next < states.len() {
            env.legal(states.row(next), &mut mask);
            for action in (0..space.n_actions).filter(|&action| mask[action]) {
                row.copy_from_slice(states.row(next));
                let back_action = env.step(&mut row, action) as u32;
                let child = match index.get(&states, &row) {
                    Some(child) => child,
                    None if states.len() >= limit.min(MOST_STATES) => {
                        return Err(ExploreError::TooLarge { limit });
                    }
                    None => {
                        states.push(&row);
                        index.insert_last(&states);
                        states.len() as u32 - 1
                    }
                };
                edges.push(Edge { child, action: action as u32, back_action });
            }
            first_edge.push(edges.len() as u32);
            next += 1;
        }
        Ok(Self::sorted(states, index, &first_edge, &edges)?)
    }

    /// Renumbers states so that parents precede children (Kahn's algorithm, stable).
    fn sorted(
        states: States,
        mut index: RowIndex,
        first_edge: &[u32],
        edges: &[Edge],
    ) -> Result<Self, BrokenLaw> {
        let n = states.len();
        let mut missing = vec![0u32; n];
        for edge in edges {
            missing[edge.child as usize] += 1;
        }
        let cycle = |i: usize| BrokenLaw {
            law: "no state is reached from itself, so that every trajectory ends",
            row: states.row(i).to_vec(),
        };
        if missing[0] > 0 {
            return Err(cycle(0));
        }
        let mut order = Vec::with_capacity(n);
        order.push(0u32);
        let mut next = 0;
        while next < order.len() {
            let old = order[next] as usize;
            for edge in &edges[first_edge[old] as usize..first_edge[old + 1] as usize] {
                missing[edge.child as usize] -= 1;
                if missing[edge.child as usize] == 0 {
                    order.push(edge.child);
                }
            }
            next += 1;
        }
        // What is left waits for a parent that is left: it lies on a cycle, or behind one.
        if let Some(left) = missing.iter().position(|&missing| missing > 0) {
            return Err(cycle(left));
        }
        let mut new = vec![0u32; n];
        for (i, &old) in order.iter().enumerate() {
            new[old as usize] = i as u32;
        }
        let mut graph = Self {
            states: States::with_capacity(states.width(), n),
            first_edge: Vec::with_capacity(n + 1),
            edges: Vec::with_capacity(edges.len()),
            terminals: Vec::new(),
            index: {
                index.renumber(|old| new[old as usize]);
                index
            },
        };
        graph.first_edge.push(0);
        for (i, &old) in order.iter().enumerate() {
            let old = old as usize;
            graph.states.push(states.row(old));
            let range = first_edge[old] as usize..first_edge[old + 1] as usize;
            if range.is_empty() {
                graph.terminals.push(i as u32);
            }
            graph.edges.extend(
                edges[range].iter().map(|edge| Edge { child: new[edge.child as usize], ..*edge }),
            );
            graph.first_edge.push(graph.edges.len() as u32);
        }
        Ok(graph)
    }

    /// All states; row 0 is s0.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// Indices of the terminal states, ascending. Distributions over objects use their order.
    pub fn terminals(&self) -> &[u32] {
        &self.terminals
    }

    /// The terminal rows, in the order of [`terminals`](Self::terminals).
    pub fn objects(&self) -> States {
        let mut objects = States::with_capacity(self.states.width(), self.terminals.len());
        for &i in &self.terminals {
            objects.push(self.states.row(i as usize));
        }
        objects
    }

    /// The edges out of state `i`.
    pub fn edges(&self, i: usize) -> &[Edge] {
        &self.edges[self.edge_range(i)]
    }

    /// Where the edges out of state `i` are in the graph's order of edges.
    pub fn edge_range(&self, i: usize) -> std::ops::Range<usize> {
        self.first_edge[i] as usize..self.first_edge[i + 1] as usize
    }

    /// Number of edges.
    pub fn n_edges(&self) -> usize {
        self.edges.len()
    }

    /// The index of a state, if it is in the graph.
    pub fn find(&self, row: &[i32]) -> Option<usize> {
        self.index.get(&self.states, row).map(|i| i as usize)
    }

    /// The position of a terminal state among [`terminals`](Self::terminals).
    pub fn find_object(&self, row: &[i32]) -> Option<usize> {
        let i = self.index.get(&self.states, row)?;
        self.terminals.binary_search(&i).ok()
    }

    /// log of the number of action sequences from s0 to each state.
    pub fn log_paths(&self) -> Vec<f64> {
        let mut log_n = vec![f64::NEG_INFINITY; self.states.len()];
        log_n[0] = 0.0;
        for i in 0..self.states.len() {
            for edge in self.edges(i) {
                let child = edge.child as usize;
                log_n[child] = crate::special::log_add_exp(log_n[child], log_n[i]);
            }
        }
        log_n
    }

    /// log R of every object.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn log_rewards(&self, reward: &dyn Reward) -> Result<Vec<f64>, RewardError> {
        let mut out = vec![0.0; self.terminals.len()];
        reward.log_reward(&self.objects(), &mut out)?;
        Ok(out)
    }

    /// The target distribution: log P*(x) of every object, and log Z.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn target(&self, reward: &dyn Reward) -> Result<Target, RewardError> {
        let log_reward = self.log_rewards(reward)?;
        let log_z = log_sum_exp(log_reward.iter().copied());
        let prob = log_reward.iter().map(|log_r| (log_r - log_z).exp()).collect();
        Ok(Target { log_reward, log_z, prob })
    }

    /// log-probabilities of every edge under a policy: log P_F(a|s), or log P_B(s|s') of the
    /// same edge. Edges are in the graph's order.
    ///
    /// States are evaluated in blocks of `block` rows: beside the result and the edges by child,
    /// nothing grows with the graph.
    pub fn log_probs(
        &self,
        env: &dyn Environment,
        policy: &dyn Policy,
        direction: Direction,
        block: usize,
    ) -> Vec<f64> {
        let n_actions = env.space().n_actions_in(direction);
        // A state with a single legal action takes it for certain, and one without (half of a
        // grid, most of short strings) takes none: the policy is asked for the others alone.
        let undecided = |mask: &mut Vec<bool>, i: u32| {
            env.legal_in(direction, self.states.row(i as usize), mask);
            (mask.iter().filter(|&&legal| legal).nth(1).is_some()).then_some(i)
        };
        let all = (0..self.states.len() as u32).into_par_iter();
        let undecided: Vec<u32> =
            all.map_init(|| vec![false; n_actions], undecided).flatten_iter().collect();
        let incoming = (direction == Direction::Backward).then(|| self.incoming());
        let mut out = vec![0.0; self.edges.len()];
        let (mut logits, mut log_probs) = (Vec::new(), Vec::new());
        let mut rows = States::new(self.states.width());
        for block in undecided.chunks(block.max(1)) {
            rows.clear();
            block.iter().for_each(|&i| rows.push(self.states.row(i as usize)));
            logits.resize(rows.len() * n_actions, 0.0f32);
            policy.logits(env, direction, &rows, &mut logits);
            log_probs.resize(rows.len() * n_actions, 0.0);
            log_probs
                .par_chunks_mut(n_actions)
                .zip(logits.par_chunks(n_actions))
                .enumerate()
                .for_each_init(
                    || vec![false; n_actions],
                    |mask, (i, (out, logits))| {
                        env.legal_in(direction, rows.row(i), mask);
                        log_softmax(logits, mask, out);
                    },
                );
            for (&i, log_probs) in block.iter().zip(log_probs.chunks_exact(n_actions)) {
                match &incoming {
                    None => {
                        for e in self.edge_range(i as usize) {
                            out[e] = log_probs[self.edges[e].action as usize];
                        }
                    }
                    Some(incoming) => {
                        for &e in incoming.of(i as usize) {
                            let edge = &self.edges[e as usize];
                            out[e as usize] = log_probs[edge.back_action as usize];
                        }
                    }
                }
            }
        }
        out
    }

    /// The edges into every state.
    fn incoming(&self) -> Incoming {
        let mut first = vec![0u32; self.states.len() + 1];
        for edge in &self.edges {
            first[edge.child as usize + 1] += 1;
        }
        for i in 0..self.states.len() {
            first[i + 1] += first[i];
        }
        let (mut next, mut edges) = (first.clone(), vec![0; self.edges.len()]);
        for (e, edge) in self.edges.iter().enumerate() {
            let place = &mut next[edge.child as usize];
            edges[*place as usize] = e as u32;
            *place += 1;
        }
        Incoming { first, edges }
    }

    /// The probability that a trajectory passes through each state, from log P_F per edge.
    pub fn visits(&self, log_pf: &[f64]) -> Vec<f64> {
        let mut visits = vec![0.0; self.states.len()];
        visits[0] = 1.0;
        for i in 0..self.states.len() {
            for e in self.edge_range(i) {
                visits[self.edges[e].child as usize] += visits[i] * log_pf[e].exp();
            }
        }
        visits
    }

    /// P_T(x) of every object: dynamic programming over the whole graph, from log P_F per edge.
    pub fn terminal_probs(&self, log_pf: &[f64]) -> Vec<f64> {
        let visits = self.visits(log_pf);
        self.terminals.iter().map(|&i| visits[i as usize]).collect()
    }

    /// log P_T(x) of every object, in log space: exact also where P_T underflows.
    pub fn log_terminal_probs(&self, log_pf: &[f64]) -> Vec<f64> {
        // A first pass finds the largest term of each sum, the second adds relative to it.
        let mut log_visits = vec![f64::NEG_INFINITY; self.states.len()];
        log_visits[0] = 0.0;
        for i in 0..self.states.len() {
            for e in self.edge_range(i) {
                let child = self.edges[e].child as usize;
                log_visits[child] =
                    crate::special::log_add_exp(log_visits[child], log_visits[i] + log_pf[e]);
            }
        }
        self.terminals.iter().map(|&i| log_visits[i as usize]).collect()
    }

    /// The exact evidence bounds ELBO ≤ log Z ≤ EUBO, from log-probabilities per edge.
    ///
    /// ELBO = E_{τ∼P_F}[log R(x) + log P_B(τ|x) − log P_F(τ)]; EUBO is the same expectation over
    /// x ∼ P*, τ ∼ P_B(·|x). Both equal log Z exactly when P_F(τ) = P*(x) P_B(τ|x) everywhere.
    pub fn bounds(&self, target: &Target, log_pf: &[f64], log_pb: &[f64]) -> (f64, f64) {
        let weighted = |mass: &[f64], log_prob: &[f64], backward: bool| {
            let mut sum = 0.0;
            for i in 0..self.states.len() {
                for e in self.edge_range(i) {
                    let end = if backward { self.edges[e].child as usize } else { i };
                    let flow = mass[end] * log_prob[e].exp();
                    // NaN is no 0: it must show.
                    if flow != 0.0 {
                        sum += flow * (log_pb[e] - log_pf[e]);
                    }
                }
            }
            sum
        };
        let visits = self.visits(log_pf);
        let mut elbo = weighted(&visits, log_pf, false);
        for (&i, &log_r) in self.terminals.iter().zip(&target.log_reward) {
            if visits[i as usize] != 0.0 {
                elbo += visits[i as usize] * log_r;
            }
        }
        // The mass that the target and P_B put on each state, children before parents.
        let mut mass = vec![0.0; self.states.len()];
        let mut eubo = 0.0;
        for ((&i, &p), &log_r) in self.terminals.iter().zip(&target.prob).zip(&target.log_reward) {
            mass[i as usize] = p;
            if p > 0.0 {
                eubo += p * log_r;
            }
        }
        for i in (0..self.states.len()).rev() {
            for e in self.edge_range(i) {
                mass[i] += mass[self.edges[e].child as usize] * log_pb[e].exp();
            }
        }
        eubo += weighted(&mass, log_pb, true);
        (elbo, eubo)
    }
}

/// Positions of edges, by their child.
struct Incoming {
    first: Vec<u32>,
    edges: Vec<u32>,
}

impl Incoming {
    fn of(&self, child: usize) -> &[u32] {
        &self.edges[self.first[child] as usize..self.first[child + 1] as usize]
    }
}

/// The distribution that a GFlowNet should sample: P*(x) = R(x) / Z.
#[derive(Clone, Debug)]
pub struct Target {
    /// log R of every object.
    pub log_reward: Vec<f64>,
    /// log Z, by enumeration.
    pub log_z: f64,
    /// P* of every object.
    pub prob: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Edges;

    #[test]
    fn cycles_are_named_not_walked() {
        for (edges, row) in [
            // Back to s0, to a state on the way, and to itself.
            (vec![(0, 1), (1, 0), (1, 2)], 0),
            (vec![(0, 1), (1, 2), (2, 1), (2, 3)], 1),
            (vec![(0, 1), (1, 1), (1, 2)], 1),
        ] {
            let error = StateGraph::explore(&Edges::new(4, edges), 10).unwrap_err();
            let ExploreError::Broken(BrokenLaw { law, row: found }) = error else {
                panic!("{error}");
            };
            assert!(law.contains("no state is reached from itself"));
            assert_eq!(found, [row]);
        }
        let line = Edges::new(4, vec![(0, 1), (1, 2), (2, 3)]);
        let error = StateGraph::explore(&line, 3).unwrap_err();
        assert_eq!(error, ExploreError::TooLarge { limit: 3 });
    }

    /// Logits that name their state and action.
    struct Named;

    impl Policy for Named {
        fn logits(&self, env: &dyn Environment, to: Direction, states: &States, out: &mut [f32]) {
            let n = env.space().n_actions;
            for (row, out) in states.rows().zip(out.chunks_exact_mut(n)) {
                for (action, logit) in out.iter_mut().enumerate() {
                    let sign = if to == Direction::Forward { 1.0 } else { -1.0 };
                    *logit = sign * (row[0] * row[0] + action as i32) as f32 * 0.3;
                }
            }
        }
    }

    /// Edge by edge, by the definition: for every size of a block, with two edges between the same
    /// states, states with a single action, and states with several in either direction.
    #[test]
    fn log_probs_stand_with_their_edges() {
        let edges = vec![(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (2, 4), (3, 5), (3, 4)];
        let env = Edges::new(6, edges);
        let graph = StateGraph::explore(&env, 10).unwrap();
        for (direction, block) in [Direction::Forward, Direction::Backward]
            .into_iter()
            .flat_map(|direction| [1, 2, 100].map(|block| (direction, block)))
        {
            let log_probs = graph.log_probs(&env, &Named, direction, block);
            assert_eq!(log_probs.len(), 8);
            for i in 0..graph.states().len() {
                for (e, edge) in graph.edge_range(i).zip(graph.edges(i)) {
                    let child = graph.states().row(edge.child as usize)[0];
                    let (state, action, n, sign) = match direction {
                        Direction::Forward => {
                            (graph.states().row(i)[0], edge.action, graph.edges(i).len(), 1.0)
                        }
                        Direction::Backward => {
                            let n = env.edges.iter().filter(|edge| edge.1 == child).count();
                            (child, edge.back_action, n, -1.0)
                        }
                    };
                    let weight = |a: u32| (sign * 0.3 * f64::from(state * state + a as i32)).exp();
                    let expected = weight(action) / (0..n as u32).map(weight).sum::<f64>();
                    assert!((log_probs[e] - expected.ln()).abs() < 1e-6, "{direction:?} {block}");
                }
            }
        }
    }
}
