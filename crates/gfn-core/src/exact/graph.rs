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
/// edges, and probabilities and path counts add over both. Where [backward actions are edges of their
/// own](Environment::edges_are_actions), there are as many of these.
#[derive(Debug)]
pub struct StateGraph {
    states: States,
    first_edge: Vec<u32>,
    edges: Vec<Edge>,
    back: Option<BackEdges>,
    terminals: Vec<u32>,
    /// By terminal; empty where all are 0.
    log_symmetry: Vec<f64>,
    index: RowIndex,
}

/// Backward actions that are not those of the edges.
#[derive(Debug)]
struct BackEdges {
    /// Before those out of each state; one more than states.
    first: Vec<u32>,
    edges: Vec<BackEdge>,
    /// For each edge, the place of its backward action among them.
    of_edge: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct BackEdge {
    parent: u32,
    back_action: u32,
    /// The place among edges of the action that redoes it.
    edge: u32,
}

impl BackEdges {
    fn of(&self, child: usize) -> std::ops::Range<usize> {
        self.first[child] as usize..self.first[child + 1] as usize
    }
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
        let mut graph = Self::sorted(states, index, &first_edge, &edges)?;
        if !env.edges_are_actions() {
            graph.back = Some(graph.back_edges(env)?);
        }
        let rows = graph.terminals.iter().map(|&i| graph.states.row(i as usize));
        graph.log_symmetry = rows.map(|row| env.log_symmetry(row)).collect();
        if graph.log_symmetry.iter().all(|&log| log == 0.0) {
            graph.log_symmetry = Vec::new();
        }
        Ok(graph)
    }

    /// Walks all backward actions.
    fn back_edges(&self, env: &dyn Environment) -> Result<BackEdges, BrokenLaw> {
        let space = env.space();
        let mut mask = vec![false; space.n_back_actions];
        let mut row = vec![0; space.width];
        let mut back = BackEdges { first: vec![0], edges: Vec::new(), of_edge: Vec::new() };
        for child in self.states.rows() {
            env.legal_back(child, &mut mask);
            for back_action in (0..mask.len()).filter(|&action| mask[action]) {
                row.copy_from_slice(child);
                let action = env.unstep(&mut row, back_action) as u32;
                let edge = self.find(&row).and_then(|parent| {
                    let mut edges = self.edge_range(parent);
                    Some((parent, edges.find(|&e| self.edges[e].action == action)?))
                });
                let Some((parent, edge)) = edge else {
                    let law = "the action that a backward action returns is legal where it leads, \
                               which s0 leads to";
                    return Err(BrokenLaw { law, row: child.to_vec() });
                };
                let (parent, edge) = (parent as u32, edge as u32);
                back.edges.push(BackEdge { parent, back_action: back_action as u32, edge });
            }
            back.first.push(back.edges.len() as u32);
        }
        for edge in &self.edges {
            let child = edge.child as usize;
            let place = back.of(child).find(|&b| back.edges[b].back_action == edge.back_action);
            let Some(place) = place else {
                let law = "the backward action that an action returns is legal where it leads";
                return Err(BrokenLaw { law, row: self.states.row(child).to_vec() });
            };
            back.of_edge.push(place as u32);
        }
        Ok(back)
    }

    /// Renumbers states so that parents precede children (Kahn's algorithm, stable).
    pub(super) fn sorted(
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
            back: None,
            terminals: Vec::new(),
            log_symmetry: Vec::new(),
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

    /// [`Environment::log_symmetry`] of an object, by its place among the terminals.
    pub fn log_symmetry(&self, object: usize) -> f64 {
        self.log_symmetry.get(object).copied().unwrap_or(0.0)
    }

    /// log of the number of action sequences from s0 to each state; of backward ones, where [they are
    /// not the same](Environment::edges_are_actions).
    pub fn log_paths(&self) -> Vec<f64> {
        let mut log_n = vec![f64::NEG_INFINITY; self.states.len()];
        log_n[0] = 0.0;
        if let Some(back) = &self.back {
            for child in 1..self.states.len() {
                let parents = back.edges[back.of(child)].iter().map(|edge| edge.parent as usize);
                log_n[child] = log_sum_exp(parents.map(|parent| log_n[parent]));
            }
            return log_n;
        }
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
    /// same edge. Edges are in the graph's order. Where backward actions are edges of their own, log
    /// P_B of each of these.
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
        let backward = direction == Direction::Backward;
        let back = self.back.as_ref().filter(|_| backward);
        let incoming = (backward && back.is_none()).then(|| self.incoming());
        let mut out = vec![0.0; back.map_or(self.edges.len(), |back| back.edges.len())];
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
                match (&incoming, back) {
                    (None, None) => {
                        for e in self.edge_range(i as usize) {
                            out[e] = log_probs[self.edges[e].action as usize];
                        }
                    }
                    (None, Some(back)) => {
                        for b in back.of(i as usize) {
                            out[b] = log_probs[back.edges[b].back_action as usize];
                        }
                    }
                    (Some(incoming), _) => {
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

    /// The exact evidence bounds ELBO ≤ log Z ≤ EUBO, from what [`log_probs`](Self::log_probs)
    /// returns for both directions.
    ///
    /// ELBO = E_{τ∼P_F}[log R(x) + log P_B(τ|x) − log P_F(τ)]; EUBO is the same expectation over
    /// x ∼ P*, τ ∼ P_B(·|x). Both equal log Z exactly when P_F(τ) = P*(x) P_B(τ|x) everywhere. In both
    /// R is what losses take for it, with [`Environment::log_symmetry`].
    pub fn bounds(&self, target: &Target, log_pf: &[f64], log_pb: &[f64]) -> (f64, f64) {
        // The place of an edge's backward action.
        let back_of = |e: usize| self.back.as_ref().map_or(e, |back| back.of_edge[e] as usize);
        // NaN is no 0: it must show.
        let term = |flow: f64, e: usize, b: usize| match flow != 0.0 {
            true => flow * (log_pb[b] - log_pf[e]),
            false => 0.0,
        };
        let visits = self.visits(log_pf);
        let mut elbo = 0.0;
        for (i, visits) in visits.iter().enumerate() {
            for e in self.edge_range(i) {
                elbo += term(visits * log_pf[e].exp(), e, back_of(e));
            }
        }
        let log_rewards = (0..).zip(&target.log_reward);
        let log_rewards = log_rewards.map(|(object, &log_r)| log_r + self.log_symmetry(object));
        for (&i, log_r) in self.terminals.iter().zip(log_rewards.clone()) {
            if visits[i as usize] != 0.0 {
                elbo += visits[i as usize] * log_r;
            }
        }
        // The mass that the target and P_B put on each state, children before parents.
        let mut mass = vec![0.0; self.states.len()];
        let mut eubo = 0.0;
        for ((&i, &p), log_r) in self.terminals.iter().zip(&target.prob).zip(log_rewards) {
            mass[i as usize] = p;
            if p > 0.0 {
                eubo += p * log_r;
            }
        }
        let mut sum = 0.0;
        match &self.back {
            Some(back) => {
                for child in (0..self.states.len()).rev() {
                    for b in back.of(child) {
                        let BackEdge { parent, edge, .. } = back.edges[b];
                        let flow = mass[child] * log_pb[b].exp();
                        mass[parent as usize] += flow;
                        sum += term(flow, edge as usize, b);
                    }
                }
            }
            None => {
                for i in (0..self.states.len()).rev() {
                    for e in self.edge_range(i) {
                        mass[i] += mass[self.edges[e].child as usize] * log_pb[e].exp();
                    }
                }
                for i in 0..self.states.len() {
                    for e in self.edge_range(i) {
                        let flow = mass[self.edges[e].child as usize] * log_pb[e].exp();
                        sum += term(flow, e, e);
                    }
                }
            }
        }
        (elbo, eubo + sum)
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
    use crate::environment::testing::{Balls, Edges};
    use crate::policy::UniformPolicy;

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

    /// Objects of the world of [`Balls`], with a reward that follows no symmetry.
    fn balls() -> (Balls, StateGraph, Target) {
        let env = Balls::new(4, 6);
        let graph = StateGraph::explore(&env, 1000).unwrap();
        let objects = graph.objects();
        let log_reward: Vec<f64> =
            (0..objects.len()).map(|i| ((7 * i % 5) as f64 - 2.0) * 0.4).collect();
        let log_z = log_sum_exp(log_reward.iter().copied());
        let prob = log_reward.iter().map(|log_r| (log_r - log_z).exp()).collect();
        (env, graph, Target { log_reward, log_z, prob })
    }

    /// Flows that balance F(s) P_F(a|s) = F(s') P_B(b|s') action by action with given rewards of
    /// objects: log P_F of every edge, and log F(s0).
    fn balanced(graph: &StateGraph, log_reward: &[f64], log_pb: &[f64]) -> (Vec<f64>, f64) {
        let of_edge = &graph.back.as_ref().unwrap().of_edge;
        let mut log_flow = vec![0.0; graph.states().len()];
        graph.terminals().iter().zip(log_reward).for_each(|(&i, r)| log_flow[i as usize] = *r);
        let mut log_pf = vec![0.0; graph.n_edges()];
        for i in (0..log_flow.len()).rev().filter(|&i| !graph.edges(i).is_empty()) {
            for (e, edge) in graph.edge_range(i).zip(graph.edges(i)) {
                log_pf[e] = log_flow[edge.child as usize] + log_pb[of_edge[e] as usize];
            }
            log_flow[i] = log_sum_exp(log_pf[graph.edge_range(i)].iter().copied());
            graph.edge_range(i).for_each(|e| log_pf[e] -= log_flow[i]);
        }
        (log_pf, log_flow[0])
    }

    /// Without a correction objects are sampled in proportion to R / |Aut|, with it to R; bounds then
    /// are log Z on both sides.
    #[test]
    fn balance_by_action_samples_what_symmetry_leaves() {
        let (env, graph, target) = balls();
        let objects = graph.objects();
        // Partitions of 0 to 6 into at most 4 parts.
        assert_eq!(objects.len(), 1 + 1 + 2 + 3 + 5 + 6 + 9);
        let log_pb = graph.log_probs(&env, &UniformPolicy, Direction::Backward, 7);
        let uncorrected = &target.log_reward;
        let corrected: Vec<f64> =
            (0..objects.len()).map(|i| uncorrected[i] + env.log_symmetry(objects.row(i))).collect();
        for (rewards, power) in [(uncorrected, -1), (&corrected, 0)] {
            let (log_pf, log_z) = balanced(&graph, rewards, &log_pb);
            let probs = graph.terminal_probs(&log_pf);
            let expected = (0..objects.len())
                .map(|i| target.log_reward[i].exp() * env.n_symmetries(objects.row(i)).powi(power));
            let sum: f64 = expected.clone().sum();
            for (got, expected) in probs.iter().zip(expected) {
                assert!((got - expected / sum).abs() < 1e-12, "{power}: {got} {}", expected / sum);
            }
            let (elbo, eubo) = graph.bounds(&target, &log_pf, &log_pb);
            if power == 0 {
                assert!((log_z - target.log_z).abs() < 1e-12);
                assert!((elbo - log_z).abs() < 1e-12 && (eubo - log_z).abs() < 1e-12);
            } else {
                assert!(elbo < target.log_z - 0.01 && eubo > target.log_z + 0.01);
            }
        }
    }

    /// Bounds of a policy that is not balanced, by the sum over all ways between states, with the
    /// probabilities of states given states.
    #[test]
    fn bounds_under_symmetries_are_those_of_states() {
        let (env, graph, target) = balls();
        // Alike for boxes that hold as many.
        struct Alike;
        impl Policy for Alike {
            fn logits(&self, env: &dyn Environment, _: Direction, xs: &States, out: &mut [f32]) {
                let n = env.space().n_actions;
                for (row, out) in xs.rows().zip(out.chunks_exact_mut(n)) {
                    let sum: i32 = row.iter().sum();
                    let of = |balls: &i32| (f64::from(3 * balls + sum) * 0.9).sin() as f32;
                    out.iter_mut().zip(row).for_each(|(logit, balls)| *logit = of(balls));
                }
            }
        }
        let way = |direction| graph.log_probs(&env, &Alike, direction, 5);
        let (log_pf, log_pb) = (way(Direction::Forward), way(Direction::Backward));
        let back = graph.back.as_ref().unwrap();
        let n = graph.states().len();
        let (mut forward, mut backward) = (vec![vec![0.0; n]; n], vec![vec![0.0; n]; n]);
        for i in 0..n {
            for (e, edge) in graph.edge_range(i).zip(graph.edges(i)) {
                forward[i][edge.child as usize] += log_pf[e].exp();
            }
            for b in back.of(i) {
                backward[i][back.edges[b].parent as usize] += log_pb[b].exp();
            }
        }
        let visits = graph.visits(&log_pf);
        let mut mass = vec![0.0; n];
        graph.terminals().iter().zip(&target.prob).for_each(|(&i, p)| mass[i as usize] = *p);
        let (mut elbo, mut eubo) = (0.0, 0.0);
        for (&i, log_r) in graph.terminals().iter().zip(&target.log_reward) {
            elbo += visits[i as usize] * log_r;
            eubo += mass[i as usize] * log_r;
        }
        for child in (0..n).rev() {
            for i in (0..child).filter(|&i| forward[i][child] > 0.0) {
                let (pf, pb) = (forward[i][child], backward[child][i]);
                let ratio = (pb / pf).ln();
                elbo += visits[i] * pf * ratio;
                eubo += mass[child] * pb * ratio;
                mass[i] += mass[child] * pb;
            }
        }
        assert!((mass[0] - 1.0).abs() < 1e-12);
        let (got_elbo, got_eubo) = graph.bounds(&target, &log_pf, &log_pb);
        assert!((got_elbo - elbo).abs() < 1e-6, "{got_elbo} {elbo}");
        assert!((got_eubo - eubo).abs() < 1e-6, "{got_eubo} {eubo}");
        assert!(elbo < target.log_z - 0.01 && eubo > target.log_z + 0.01);
    }

    /// Ways back take one ball after the other: as many as there are orders of balls in named boxes.
    #[test]
    fn backward_paths_are_counted_by_backward_actions() {
        let (_, graph, _) = balls();
        for (row, log_n) in graph.states().rows().zip(graph.log_paths()) {
            let factorial = |n: i32| (1..=n).map(f64::from).product::<f64>();
            let orders = factorial(row[..4].iter().sum());
            let alike: f64 = row[..4].iter().map(|&n| factorial(n)).product();
            assert!((log_n - (orders / alike).ln()).abs() < 1e-12, "{row:?}");
        }
    }

    /// Actions that are not what the environment says they are show while it is walked.
    #[test]
    fn broken_backward_actions_are_named() {
        struct Lost(Balls);
        impl Environment for Lost {
            fn space(&self) -> &crate::Space {
                self.0.space()
            }
            fn reset(&self, row: &mut [i32]) {
                self.0.reset(row);
            }
            fn legal(&self, row: &[i32], mask: &mut [bool]) {
                self.0.legal(row, mask);
            }
            fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
                self.0.legal_back(row, mask);
            }
            fn step(&self, row: &mut [i32], action: usize) -> usize {
                self.0.step(row, action)
            }
            fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
                self.0.unstep(row, back_action) + 7
            }
            fn observe(&self, row: &[i32], cells: &mut [i32]) {
                self.0.observe(row, cells);
            }
            fn render(&self, row: &[i32]) -> String {
                self.0.render(row)
            }
            fn edges_are_actions(&self) -> bool {
                false
            }
        }
        let error = StateGraph::explore(&Lost(Balls::new(2, 2)), 100).unwrap_err();
        assert!(error.to_string().contains("that a backward action returns is legal"), "{error}");
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
