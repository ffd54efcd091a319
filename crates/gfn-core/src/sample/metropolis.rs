//! Metropolis–Hastings: Markov chains of objects whose law comes to be R / Z, by proposals that are
//! accepted or not. The baseline that needs no training.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::policy::UniformPolicy;
use crate::proposal::Proposal;
use crate::sampler::{Draw, Exploration, Sampler};
use crate::{Environment, Reward, RewardError, States};

/// A proposal for any environment: some actions back, then forward to an object again, all drawn
/// uniformly among the legal ones.
///
/// From x, draw K uniformly from 1 to M = `most` and walk K actions back, x = b₀, b₁, …, b_K = z; where
/// fewer are left than K, stay. Then walk forward, z = f₀, f₁, …, f_L = x′, until an object is
/// reached; where that takes more than M actions, stay. With n_F(s) and n_B(s) the numbers of legal
/// actions, this way from x to x′ has probability
///
/// q(way) = 1/M · ∏_{0≤k<K} 1/n_B(b_k) · ∏_{0≤l<L} 1/n_F(f_l).
///
/// The same two walks, each the other way round and in the other order, lead from x′ to x: it draws
/// L, which is at most M, goes back along f to z, and forward along b until x, the first object on it
/// since all states before have an action, b itself. So
///
/// q(way back) = 1/M · ∏_{0<l≤L} 1/n_B(f_l) · ∏_{0<k≤K} 1/n_F(b_k).
///
/// Reversal pairs every way with one way back. Accepting with min(1, R(x′) q(way back) / (R(x) q(way)))
/// makes the flow R(x) q(way) · acceptance equal for both of a pair, so the sums over all ways from x
/// to x′ and over all ways back are equal too: detailed balance holds, though no sum over ways is ever
/// computed. Where M is the length of the longest trajectory, any object can be reached from any other
/// through s0.
///
/// Where [actions stand for several](Environment::edges_are_actions), a way is one of classes of
/// actions. The numbers of backward and forward actions of a class are in the ratio |Aut(s')| / |Aut(s)|,
/// which along both walks leaves |Aut(x′)| / |Aut(x)| in q(way back) / q(way).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackAndForth {
    /// M, the most actions back, and the most forward; at least 1.
    pub most: usize,
}

impl BackAndForth {
    /// [`Proposal::propose`], adding the number of actions that it walks to `steps`.
    pub fn walk(
        &self,
        env: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
        steps: &mut u64,
    ) -> Option<f64> {
        let space = env.space();
        let mut forward = vec![false; space.n_actions];
        let mut backward = vec![false; space.n_back_actions];
        let ln = |n: usize| (n as f64).ln();
        let mut log_ratio = 0.0;
        proposed.copy_from_slice(object);
        for _ in 0..rng.random_range(1..=self.most.max(1)) {
            env.legal_back(proposed, &mut backward);
            let (action, n_back) = draw_legal(&backward, rng)?;
            env.unstep(proposed, action);
            *steps += 1;
            env.legal(proposed, &mut forward);
            log_ratio += ln(n_back) - ln(n_legal(&forward));
        }
        for _ in 0..self.most.max(1) {
            env.legal(proposed, &mut forward);
            let (action, n_forward) = draw_legal(&forward, rng)?;
            env.step(proposed, action);
            *steps += 1;
            env.legal_back(proposed, &mut backward);
            log_ratio += ln(n_forward) - ln(n_legal(&backward));
            env.legal(proposed, &mut forward);
            if !forward.contains(&true) {
                return Some(log_ratio + env.log_symmetry(proposed) - env.log_symmetry(object));
            }
        }
        None
    }
}

impl Proposal for BackAndForth {
    fn propose(
        &self,
        env: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
    ) -> Option<f64> {
        self.walk(env, object, rng, proposed, &mut 0)
    }
}

fn n_legal(mask: &[bool]) -> usize {
    mask.iter().map(|&legal| usize::from(legal)).sum()
}

/// One of the legal actions, and their number; none if there are none.
fn draw_legal(mask: &[bool], rng: &mut ChaCha8Rng) -> Option<(usize, usize)> {
    let n = n_legal(mask);
    let drawn = (n > 0).then(|| rng.random_range(0..n as u32) as usize)?;
    let action = (0..mask.len()).filter(|&action| mask[action]).nth(drawn)?;
    Some((action, n))
}

/// Markov chains side by side: an object each, and its log R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chains {
    objects: States,
    log_reward: Vec<f64>,
}

/// What came of one proposal per chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Chains that went to another object.
    pub accepted: usize,
    /// Objects whose reward was computed: those proposed that are not where the chain is.
    pub rewards: usize,
}

/// What a chain drew.
struct Proposed {
    row: Vec<i32>,
    log_ratio: f64,
    uniform: f64,
}

impl Chains {
    /// `n` chains that start where trajectories of uniform actions end, one stream each; with the
    /// number of these actions.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn start(
        env: &dyn Environment,
        reward: &dyn Reward,
        draw: Draw,
        n: usize,
    ) -> Result<(Self, usize), RewardError> {
        let walks = Sampler::default().forward(env, &UniformPolicy, Exploration::NONE, draw, n);
        Ok((Self::at(walks.terminals(), reward)?, walks.n_transitions()))
    }

    /// Chains that start at given objects.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn at(objects: States, reward: &dyn Reward) -> Result<Self, RewardError> {
        let mut log_reward = vec![0.0; objects.len()];
        reward.log_reward(&objects, &mut log_reward)?;
        Ok(Self { objects, log_reward })
    }

    /// Where the chains are, one terminal row each.
    pub fn objects(&self) -> &States {
        &self.objects
    }

    /// log R there.
    pub fn log_reward(&self) -> &[f64] {
        &self.log_reward
    }

    /// Makes one proposal for every chain and accepts it with probability
    /// min(1, R(x′) q(x | x′) / (R(x) q(x′ | x))); always where R(x) = 0, which R / Z does not visit.
    ///
    /// Chain `i` draws from stream `i` of `draw`, so that the result is the same for any number of
    /// threads; every call needs a step of its own.
    ///
    /// # Errors
    /// When the reward of some object is not known; the chains then stay where they are.
    pub fn advance(
        &mut self,
        env: &dyn Environment,
        reward: &dyn Reward,
        proposal: &dyn Proposal,
        draw: Draw,
    ) -> Result<Advance, RewardError> {
        let propose = |i: usize| {
            let mut rng = draw.streams.at(draw.purpose, draw.step, i as u64);
            let (object, mut row) = (self.objects.row(i), vec![0; self.objects.width()]);
            let log_ratio = proposal.propose(env, object, &mut rng, &mut row)?;
            (row != object).then(|| Proposed { row, log_ratio, uniform: rng.random() })
        };
        let drawn: Vec<Option<Proposed>> =
            (0..self.objects.len()).into_par_iter().map(propose).collect();
        let mut rows = States::with_capacity(self.objects.width(), drawn.len());
        drawn.iter().flatten().for_each(|proposed| rows.push(&proposed.row));
        let mut log_reward = vec![0.0; rows.len()];
        reward.log_reward(&rows, &mut log_reward)?;
        let mut advance = Advance { accepted: 0, rewards: rows.len() };
        let moving = (0..).zip(&drawn).filter_map(|(i, proposed)| Some((i, proposed.as_ref()?)));
        for ((i, proposed), &after) in moving.zip(&log_reward) {
            let before = self.log_reward[i];
            let log_odds = after - before + proposed.log_ratio;
            if before == f64::NEG_INFINITY || proposed.uniform.ln() < log_odds {
                self.objects.row_mut(i).copy_from_slice(&proposed.row);
                self.log_reward[i] = after;
                advance.accepted += 1;
            }
        }
        Ok(advance)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::environment::testing::{Balls, Edges};
    use crate::{Purpose, StateGraph, Streams};

    /// Three objects, 5 to 7, in two and three actions, several ways and by double edges.
    fn world() -> Edges {
        let edges = [
            (0, 1),
            (0, 2),
            (1, 3),
            (2, 3),
            (1, 5),
            (1, 5),
            (3, 5),
            (3, 6),
            (2, 6),
            (2, 4),
            (4, 7),
            (3, 7),
        ];
        Edges::new(8, edges.to_vec())
    }

    /// R grows with the number of the object.
    struct Growing;

    impl Reward for Growing {
        fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
            for (out, row) in out.iter_mut().zip(xs.rows()) {
                *out = 0.7 * f64::from(row[0]);
            }
            Ok(())
        }
    }

    /// Every way from an object: back edges, then forward edges, by their numbers.
    fn ways(env: &Edges, from: i32, most: usize) -> Vec<(Vec<usize>, Vec<usize>, i32)> {
        let leaves = |state: i32| env.edges.iter().any(|edge| edge.0 == state);
        let mut ways = Vec::new();
        let mut back = vec![(vec![], from)];
        for _ in 0..most {
            let longer = |(path, state): &(Vec<usize>, i32)| {
                let (path, state) = (path.clone(), *state);
                let into = (0..env.edges.len()).filter(move |&e| env.edges[e].1 == state);
                into.map(move |e| ([&path[..], &[e]].concat(), env.edges[e].0)).collect::<Vec<_>>()
            };
            back = back.iter().flat_map(longer).collect();
            for (path, turn) in &back {
                let mut forth = vec![(vec![], *turn)];
                for _ in 0..most {
                    let longer = |(path, state): &(Vec<usize>, i32)| {
                        let (path, state) = (path.clone(), *state);
                        let out = (0..env.edges.len()).filter(move |&e| env.edges[e].0 == state);
                        out.map(move |e| ([&path[..], &[e]].concat(), env.edges[e].1))
                            .collect::<Vec<_>>()
                    };
                    forth = forth.iter().flat_map(longer).collect();
                    for (forward, to) in forth.iter().filter(|(_, to)| !leaves(*to)) {
                        ways.push((path.clone(), forward.clone(), *to));
                    }
                }
            }
        }
        ways
    }

    /// The probability of a way, from the definition.
    fn probability(env: &Edges, back: &[usize], forth: &[usize], most: usize) -> f64 {
        let n_into = |state: i32| env.edges.iter().filter(|edge| edge.1 == state).count() as f64;
        let n_out = |state: i32| env.edges.iter().filter(|edge| edge.0 == state).count() as f64;
        let of_back: f64 = back.iter().map(|&e| n_into(env.edges[e].1)).product();
        let of_forth: f64 = forth.iter().map(|&e| n_out(env.edges[e].0)).product();
        1.0 / most as f64 / of_back / of_forth
    }

    /// What is proposed, with which ratio, agrees with all ways and their reversals, and R with the
    /// kernel that they make.
    #[test]
    fn all_ways_of_a_small_world() {
        let env = world();
        for most in 1..=4 {
            let proposal = BackAndForth { most };
            // The probability to go from one object to another, proposed and accepted.
            let mut kernel = BTreeMap::new();
            for from in 5..8 {
                let mut expected: BTreeMap<(i32, i64), f64> = BTreeMap::new();
                for (back, forth, to) in ways(&env, from, most) {
                    let q = probability(&env, &back, &forth, most);
                    let reversed = |path: &[usize]| path.iter().rev().copied().collect::<Vec<_>>();
                    let q_back = probability(&env, &reversed(&forth), &reversed(&back), most);
                    let ratio = q_back / q;
                    *expected.entry((to, (ratio.ln() * 1e9).round() as i64)).or_default() += q;
                    let odds = (0.7 * f64::from(to - from)).exp() * ratio;
                    *kernel.entry((from, to)).or_insert(0.0) += q * odds.min(1.0);
                }
                let mut counts: BTreeMap<(i32, i64), f64> = BTreeMap::new();
                let (mut proposed, mut stays) = ([0], 0.0);
                const DRAWS: u32 = 40_000;
                for i in 0..u64::from(DRAWS) {
                    let mut rng = Streams::new(6).at(Purpose::Test, from as u64, i);
                    match proposal.propose(&env, &[from], &mut rng, &mut proposed) {
                        None => stays += 1.0,
                        Some(log_ratio) => {
                            let key = (proposed[0], (log_ratio * 1e9).round() as i64);
                            assert!(expected.contains_key(&key), "{most}: {key:?}: {expected:?}");
                            *counts.entry(key).or_default() += 1.0;
                        }
                    }
                }
                let n = f64::from(DRAWS);
                let left = 1.0 - expected.values().sum::<f64>();
                let near = |count: f64, p: f64| {
                    (count - n * p).abs() <= 4.5 * (n * p * (1.0 - p)).max(0.0).sqrt() + 1e-6
                };
                assert!(near(stays, left), "{most}: {stays} of {left}");
                for (key, &p) in &expected {
                    let count = counts.get(key).copied().unwrap_or(0.0);
                    assert!(near(count, p), "{most}: {key:?}: {count} of {p}");
                }
            }
            for (&(from, to), &forth) in &kernel {
                let flow = |x: i32, p: f64| (0.7 * f64::from(x)).exp() * p;
                let back = kernel[&(to, from)];
                assert!((flow(from, forth) / flow(to, back) - 1.0).abs() < 1e-12, "{from} {to}");
            }
            assert_eq!(kernel.len(), 9, "{most}: every object from every object");
        }
    }

    fn draw(step: u64) -> Draw {
        Draw { streams: Streams::new(8), purpose: Purpose::Chain, step }
    }

    /// Threads and interruptions change nothing.
    #[test]
    fn chains_continue_to_the_same_objects() {
        let (env, proposal) = (world(), BackAndForth { most: 3 });
        let run = |interrupt: bool| {
            let (mut chains, _) = Chains::start(&env, &Growing, draw(0), 50).unwrap();
            for step in 1..20 {
                let before = chains.objects().clone();
                let advance = chains.advance(&env, &Growing, &proposal, draw(step)).unwrap();
                let pairs = chains.objects().rows().zip(before.rows());
                assert_eq!(advance.accepted, pairs.filter(|(a, b)| a != b).count());
                assert!(advance.accepted <= advance.rewards && advance.rewards <= 50);
                if interrupt {
                    let bytes = postcard::to_stdvec(&chains).unwrap();
                    chains = postcard::from_bytes(&bytes).unwrap();
                }
            }
            let mut log_reward = vec![0.0; 50];
            Growing.log_reward(chains.objects(), &mut log_reward).unwrap();
            assert_eq!(chains.log_reward(), log_reward);
            chains
        };
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let one = pool(1).install(|| run(false));
        assert_eq!(pool(3).install(|| run(true)), one);
    }

    /// Objects without reward are left at once and never entered again.
    #[test]
    fn objects_without_reward() {
        struct OnlySix;
        impl Reward for OnlySix {
            fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
                for (out, row) in out.iter_mut().zip(xs.rows()) {
                    *out = if row[0] == 6 { -3.0 } else { f64::NEG_INFINITY };
                }
                Ok(())
            }
        }
        let (env, proposal) = (world(), BackAndForth { most: 3 });
        let (mut chains, _) = Chains::start(&env, &OnlySix, draw(0), 200).unwrap();
        let at_six = |chains: &Chains| chains.objects().rows().filter(|row| row[0] == 6).count();
        let mut before = at_six(&chains);
        assert!(before < 150);
        for step in 1..60 {
            chains.advance(&env, &OnlySix, &proposal, draw(step)).unwrap();
            assert!(at_six(&chains) >= before);
            before = at_six(&chains);
        }
        assert_eq!(before, 200);
    }

    /// Chains that are distributed as the target stay so where actions stand for several.
    #[test]
    fn chains_keep_a_target_with_symmetries() {
        struct Many;
        impl Reward for Many {
            fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
                for (out, row) in out.iter_mut().zip(xs.rows()) {
                    *out = 0.3 * f64::from(row[0]) - 0.2 * f64::from(row[1]);
                }
                Ok(())
            }
        }
        let env = Balls::new(3, 4);
        let graph = StateGraph::explore(&env, 1000).unwrap();
        let target = graph.target(&Many).unwrap();
        let (objects, n) = (graph.objects(), 100_000.0);
        let mut starts = States::new(4);
        for (row, p) in objects.rows().zip(&target.prob) {
            (0..(n * p).round() as usize).for_each(|_| starts.push(row));
        }
        let mut chains = Chains::at(starts, &Many).unwrap();
        for step in 1..4 {
            chains.advance(&env, &Many, &BackAndForth { most: 5 }, draw(step)).unwrap();
        }
        let mut counts = BTreeMap::new();
        chains.objects().rows().for_each(|row| *counts.entry(row).or_insert(0.0) += 1.0);
        let chi2: f64 = objects
            .rows()
            .zip(&target.prob)
            .map(|(row, p)| f64::powi(counts[row] - n * p, 2) / (n * p))
            .sum();
        // 1 + 1 + 2 + 3 + 4 partitions: 10 degrees of freedom, 29.6 at 0.001.
        assert_eq!(objects.len(), 11);
        assert!(chi2 < 29.6, "{chi2}");
    }

    #[test]
    fn chains_stay_where_a_reward_fails() {
        struct Fails;
        impl Reward for Fails {
            fn log_reward(&self, _: &States, _: &mut [f64]) -> Result<(), RewardError> {
                Err(RewardError::Failed { message: "no answer".to_owned() })
            }
        }
        let (env, proposal) = (world(), BackAndForth { most: 3 });
        let (mut chains, _) = Chains::start(&env, &Growing, draw(0), 20).unwrap();
        let before = chains.clone();
        assert!(chains.advance(&env, &Fails, &proposal, draw(1)).is_err());
        assert_eq!(chains, before);
    }
}
