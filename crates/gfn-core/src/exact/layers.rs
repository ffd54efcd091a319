//! Exact P_T(x) over graphs too large to hold: layer by layer, edges are walked and forgotten.
//!
//! States are numbers with one digit per cell ([`Environment::cell_ranges`]), so a probability per
//! number and a bit per number are all that is kept: eight bytes per number of the box, and eight
//! per object for the rewards. Every state must be reached by paths of one length only, which is
//! checked.

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::metric::MetricError;
use crate::policy::{Direction, Policy, UniformPolicy, log_softmax};
use crate::row_index::Digits;
use crate::special::log_sum_exp;
use crate::{BrokenLaw, Environment, Reward, RewardError, States};

/// Rows per network evaluation; bounds memory.
const BLOCK: usize = 1 << 13;
/// Rows whose edges are walked by one thread.
const CHUNK: usize = 64;

/// The numbering of an environment's states, and the target over its objects once it is known.
#[derive(Debug)]
pub struct Layers {
    digits: Digits,
    target: OnceLock<LayeredTarget>,
}

/// log R of every object, by their numbers, and log Z.
#[derive(Debug)]
pub struct LayeredTarget {
    /// log R(x) in nats.
    pub log_reward: Vec<f64>,
    /// log of the sum of R over all objects.
    pub log_z: f64,
}

/// A set of numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// The smallest number that is in both sets.
    fn first_in(&self, other: &Self) -> Option<usize> {
        let mut words = self.0.iter().zip(&other.0).map(|(a, b)| a & b);
        let word = words.position(|both| both != 0)?;
        Some(64 * word + (self.0[word] & other.0[word]).trailing_zeros() as usize)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The numbers, ascending.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(i, &word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 64 * i + bit)
        })
    }
}

/// All states, walked.
struct Walk {
    /// By number, the probability of passing through.
    visits: Vec<f64>,
    objects: Bits,
    /// The other states.
    expanded: Bits,
}

impl Layers {
    /// A numbering, if the environment's cells have few enough values: at most `limit` numbers.
    pub fn new(env: &dyn Environment, limit: usize) -> Option<Self> {
        let digits = Digits::new(env.cell_ranges()?, limit.min(u32::MAX as usize))?;
        Some(Self { digits, target: OnceLock::new() })
    }

    fn number(&self, row: &[i32]) -> usize {
        self.digits.number(row).expect("cells stay within their ranges")
    }

    /// P_T(x) of every object, by their numbers, under a policy; and the target.
    ///
    /// # Errors
    /// When the reward of some object is not known, or a state is reached by paths of different
    /// lengths.
    pub fn terminal_probs(
        &self,
        env: &dyn Environment,
        policy: &dyn Policy,
        reward: &dyn Reward,
    ) -> Result<(Vec<f64>, &LayeredTarget), MetricError> {
        let Walk { mut visits, objects, .. } = self.walk_all(env, policy)?;
        // Objects move to the front of the same memory.
        for (i, number) in objects.iter().enumerate() {
            visits[i] = visits[number];
        }
        let n = objects.iter().count();
        visits.truncate(n);
        visits.shrink_to_fit();
        Ok((visits, self.target(&objects, n, reward)?))
    }

    /// Every state and object, without a policy: the number of states, the objects' numbers (see
    /// [`write_row`](Self::write_row)) and the target, in one order.
    ///
    /// # Errors
    /// As [`terminal_probs`](Self::terminal_probs).
    pub fn survey(
        &self,
        env: &dyn Environment,
        reward: &dyn Reward,
    ) -> Result<(usize, Vec<u32>, &LayeredTarget), MetricError> {
        let Walk { objects, expanded, visits } = self.walk_all(env, &UniformPolicy)?;
        drop(visits);
        let numbers: Vec<u32> = objects.iter().map(|number| number as u32).collect();
        let n_states = numbers.len() + expanded.iter().count();
        let target = self.target(&objects, numbers.len(), reward)?;
        Ok((n_states, numbers, target))
    }

    /// Writes the state with this number.
    pub fn write_row(&self, number: u32, row: &mut [i32]) {
        self.digits.write_row(number as usize, row);
    }

    /// The probability of visiting every state, by number, layer by layer.
    fn walk_all(&self, env: &dyn Environment, policy: &dyn Policy) -> Result<Walk, MetricError> {
        let width = self.digits.width();
        let mut visits = vec![0.0; self.digits.size()];
        let mut objects = Bits::new(self.digits.size());
        let mut expanded = Bits::new(self.digits.size());
        let mut layer = Bits::new(self.digits.size());
        let mut row = vec![0; width];
        env.reset(&mut row);
        visits[self.number(&row)] = 1.0;
        layer.insert(self.number(&row));
        let mut mask = vec![false; env.space().n_actions];
        let (mut rows, mut numbers) = (States::new(width), Vec::with_capacity(BLOCK));
        let (mut logits, mut edges) = (Vec::new(), Vec::new());
        while !layer.is_empty() {
            let mut next = Bits::new(self.digits.size());
            let mut of_layer = layer.iter().peekable();
            while of_layer.peek().is_some() {
                rows.clear();
                numbers.clear();
                for number in of_layer.by_ref() {
                    self.digits.write_row(number, &mut row);
                    env.legal(&row, &mut mask);
                    if !mask.contains(&true) {
                        objects.insert(number);
                        continue;
                    }
                    expanded.insert(number);
                    rows.push(&row);
                    numbers.push(number);
                    if numbers.len() == BLOCK {
                        break;
                    }
                }
                if rows.is_empty() {
                    continue;
                }
                self.walk(env, policy, &rows, &numbers, &visits, &mut logits, &mut edges);
                // One after the other, in the order of the numbers: the same sums in every run.
                for &(child, mass) in edges.iter().flatten() {
                    visits[child as usize] += mass;
                    next.insert(child as usize);
                }
            }
            if let Some(again) = next.first_in(&expanded).or_else(|| next.first_in(&objects)) {
                self.digits.write_row(again, &mut row);
                let law = "all paths from s0 to a state have one length, as walking layer by layer \
                           (eval.max_streamed_states) needs";
                return Err(BrokenLaw { law, row }.into());
            }
            drop(of_layer);
            layer = next;
        }
        Ok(Walk { visits, objects, expanded })
    }

    /// Writes (child, probability) of every edge out of a block of states, by chunks of rows.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        env: &dyn Environment,
        policy: &dyn Policy,
        rows: &States,
        numbers: &[usize],
        visits: &[f64],
        logits: &mut Vec<f32>,
        edges: &mut Vec<Vec<(u32, f64)>>,
    ) {
        let n_actions = env.space().n_actions;
        logits.resize(rows.len() * n_actions, 0.0);
        policy.logits(env, Direction::Forward, rows, logits);
        edges.resize_with(rows.len().div_ceil(CHUNK), Vec::new);
        edges.par_iter_mut().zip(logits.par_chunks(CHUNK * n_actions)).enumerate().for_each_init(
            || (vec![false; n_actions], vec![0.0; n_actions], vec![0; rows.width()]),
            |(mask, log_probs, child), (chunk, (edges, logits))| {
                edges.clear();
                for (i, logits) in logits.chunks(n_actions).enumerate() {
                    let i = chunk * CHUNK + i;
                    env.legal(rows.row(i), mask);
                    log_softmax(logits, mask, log_probs);
                    for action in (0..n_actions).filter(|&action| mask[action]) {
                        child.copy_from_slice(rows.row(i));
                        env.step(child, action);
                        let mass = visits[numbers[i]] * log_probs[action].exp();
                        edges.push((self.number(child) as u32, mass));
                    }
                }
            },
        );
    }

    /// The target, once an evaluation has computed it.
    pub fn known_target(&self) -> Option<&LayeredTarget> {
        self.target.get()
    }

    /// The target, computed when it is first asked for.
    fn target(
        &self,
        objects: &Bits,
        n: usize,
        reward: &dyn Reward,
    ) -> Result<&LayeredTarget, RewardError> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let mut rows = States::new(self.digits.width());
        let mut row = vec![0; self.digits.width()];
        let mut log_reward = Vec::with_capacity(n);
        let mut numbers = objects.iter().peekable();
        while numbers.peek().is_some() {
            rows.clear();
            for number in numbers.by_ref().take(8 * BLOCK) {
                self.digits.write_row(number, &mut row);
                rows.push(&row);
            }
            let start = log_reward.len();
            log_reward.resize(start + rows.len(), 0.0);
            reward.log_reward(&rows, &mut log_reward[start..])?;
        }
        let log_z = log_sum_exp(log_reward.iter().copied());
        Ok(self.target.get_or_init(|| LayeredTarget { log_reward, log_z }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Edges;

    struct Flat;

    impl Reward for Flat {
        fn log_reward(&self, _: &States, out: &mut [f64]) -> Result<(), RewardError> {
            out.fill(0.0);
            Ok(())
        }
    }

    fn walked(edges: &[(i32, i32)]) -> Result<Vec<f64>, MetricError> {
        let env = Edges::new(5, edges.to_vec());
        let layers = Layers::new(&env, 100).unwrap();
        layers.terminal_probs(&env, &UniformPolicy, &Flat).map(|(prob, _)| prob)
    }

    /// Both ways of breaking it: an object that is reached again, and a state.
    #[test]
    fn paths_of_different_lengths_are_named() {
        for (edges, row) in [
            (&[(0, 1), (0, 2), (1, 2)][..], 2),
            (&[(0, 1), (0, 2), (1, 2), (2, 3)], 2),
            (&[(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)], 3),
        ] {
            let error = walked(edges).unwrap_err();
            let MetricError::Broken(BrokenLaw { law, row: found }) = error else {
                panic!("{error}");
            };
            assert!(law.contains("paths from s0 to a state have one length"), "{law}");
            assert_eq!(found, [row]);
        }
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (2, 4)];
        assert_eq!(walked(&edges).unwrap(), [0.75, 0.25]);
        let env = Edges::new(5, edges.to_vec());
        let layers = Layers::new(&env, 100).unwrap();
        let (n_states, objects, target) = layers.survey(&env, &Flat).unwrap();
        assert_eq!((n_states, &objects[..], target.log_reward.len()), (5, &[3, 4][..], 2));
    }
}
