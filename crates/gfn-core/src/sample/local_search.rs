//! Local search (Kim et al. 2024, arXiv:2310.02710): some actions back from an object by P_B, forward again by
//! P_F, over and over. It changes which trajectories are trained on, not what losses make of them.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::rng::{Purpose, Streams};
use crate::sampler::{Draw, Exploration, Sampler};
use crate::{Environment, KeyError, RewardError, States, Trajectories};

/// When a search goes on from the object that it has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// Where its reward is not smaller.
    #[default]
    Better,
    /// With probability min(1, R(x') / R(x)).
    Metropolis,
}

/// A part of each batch is sampled; from its objects, the search finds the rest, round by round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocalSearch {
    /// Rounds, each as large as what is sampled: 1 / (rounds + 1) of `train.batch`.
    pub rounds: usize,
    /// The part of a trajectory that is taken back, above 0 and up to 1.
    pub back: f64,
    /// When the next round goes on from what was found.
    pub accept: Accept,
}

impl Default for LocalSearch {
    fn default() -> Self {
        Self { rounds: 7, back: 0.25, accept: Accept::Better }
    }
}

/// What a search walks in, and with what.
#[derive(Clone, Copy)]
pub struct Walking<'a> {
    /// The environment.
    pub env: &'a dyn Environment,
    /// P_F and P_B.
    pub policy: &'a dyn Policy,
    /// How the way forward differs from P_F.
    pub exploration: Exploration,
    /// The seeded streams.
    pub streams: Streams,
    /// The iteration.
    pub step: u64,
}

impl LocalSearch {
    /// Checks the numbers, for batches of `batch` trajectories.
    ///
    /// # Errors
    /// With the key `local_search`.
    pub fn check(&self, batch: usize) -> Result<(), KeyError> {
        let fail = |message: String| Err(KeyError::new("local_search", message));
        if !(self.back > 0.0 && self.back <= 1.0) {
            return fail(format!("`back` must lie in (0, 1], not {}", self.back));
        }
        match self.rounds {
            0 => fail("`rounds` must be at least 1".to_owned()),
            rounds if rounds >= batch => {
                fail(format!("{rounds} rounds need train.batch to be at least {}", rounds + 1))
            }
            _ => Ok(()),
        }
    }

    /// How many of `n` trajectories are sampled before the search.
    pub fn sampled_of(&self, n: usize) -> usize {
        n.div_ceil(self.rounds + 1)
    }

    /// Finds trajectories beside those that have been sampled, up to `n` in all. `rewards` gives
    /// trajectories their log R.
    ///
    /// # Errors
    /// When a reward cannot be computed.
    pub fn search(
        &self,
        sampler: &mut Sampler,
        walking: Walking<'_>,
        n: usize,
        all: &mut Trajectories,
        mut rewards: impl FnMut(&mut Trajectories) -> Result<(), RewardError>,
    ) -> Result<(), RewardError> {
        let Walking { env, policy, exploration, streams, step } = walking;
        let width = env.space().width;
        let (mut objects, mut log_reward) = (all.terminals(), all.log_reward.clone());
        for round in 0..self.rounds {
            let address = step * self.rounds as u64 + round as u64;
            let wanted = objects.len().min(n - all.len());
            if wanted == 0 {
                break;
            }
            objects = objects.slice(0..wanted);
            let draw = |purpose| Draw { streams, purpose, step: address };
            let back = sampler.backward(env, policy, draw(Purpose::SearchBack), &objects);
            let mut middle = States::with_capacity(width, wanted);
            let kept: Vec<usize> = (0..wanted)
                .map(|i| {
                    let length = back.transitions(i).len();
                    let kept = length - (self.back * length as f64).ceil() as usize;
                    middle.push(back.states.row(back.rows(i).start + kept));
                    kept
                })
                .collect();
            let forth =
                sampler.forward_from(env, policy, exploration, draw(Purpose::SearchForth), &middle);
            let mut found = Trajectories::new(width);
            for (i, &kept) in kept.iter().enumerate() {
                found.push_joined(&back, &forth, i, kept);
            }
            rewards(&mut found)?;
            let mut rng = streams.get(Purpose::SearchAccept, address);
            let (mut next, mut next_log_reward) =
                (States::with_capacity(width, wanted), Vec::new());
            let rewards = found.log_reward.iter().zip(&log_reward);
            for (i, (&new, &old)) in rewards.enumerate() {
                let uniform: f64 = rng.random();
                let accepted = match self.accept {
                    Accept::Better => new >= old,
                    Accept::Metropolis => uniform.ln() < new - old,
                };
                next.push(if accepted { found.terminal(i) } else { objects.row(i) });
                next_log_reward.push(if accepted { new } else { old });
            }
            (objects, log_reward) = (next, next_log_reward);
            (0..found.len()).for_each(|i| all.push_of(&found, i));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::environment::testing::Edges;
    use crate::policy::Direction;

    const CELLS: i32 = 6;

    /// R of the objects, one for each cell; two are alike.
    const REWARDS: [f64; CELLS as usize] = [1.0, 0.5, 2.0, 0.5, 0.1, 3.0];

    /// Cells 0 to 5 in a row, each with an object of its own, and two ways to cell 2: some objects have
    /// trajectories of different lengths.
    fn world() -> Edges {
        let mut edges = vec![(0, 2)];
        edges.extend((1..CELLS).map(|cell| (cell - 1, cell)));
        edges.extend((0..CELLS).map(|cell| (cell, CELLS + cell)));
        Edges::new(2 * CELLS as usize, edges)
    }

    fn log_reward(object: i32) -> f64 {
        REWARDS[(object - CELLS) as usize].ln()
    }

    fn add_rewards(found: &mut Trajectories) -> Result<(), RewardError> {
        found.log_reward = found.terminals().rows().map(|row| log_reward(row[0])).collect();
        Ok(())
    }

    /// The uniform policy, which writes down what it is asked for.
    #[derive(Default)]
    struct Watched(RefCell<Vec<(Direction, i32)>>);

    impl Policy for Watched {
        fn logits(&self, _: &dyn Environment, of: Direction, states: &States, out: &mut [f32]) {
            self.0.borrow_mut().extend(states.rows().map(|row| (of, row[0])));
            out.fill(0.0);
        }
    }

    /// `sampled` trajectories and what is found from them, `n` in all; with what the policy was asked for.
    fn search(
        search: &LocalSearch,
        sampled: usize,
        n: usize,
        step: u64,
    ) -> (Trajectories, Vec<(Direction, i32)>) {
        let (env, streams, mut sampler) = (world(), Streams::new(5), Sampler::default());
        let policy = Watched::default();
        let draw = Draw { streams, purpose: Purpose::Test, step };
        let mut all = sampler.forward(&env, &policy, Exploration::NONE, draw, sampled);
        add_rewards(&mut all).unwrap();
        let before = all.clone();
        policy.0.borrow_mut().clear();
        let exploration = Exploration::NONE;
        let walking = Walking { env: &env, policy: &policy, exploration, streams, step };
        search.search(&mut sampler, walking, n, &mut all, add_rewards).unwrap();
        for i in 0..sampled {
            assert_eq!(all.states.cells(all.rows(i)), before.states.cells(before.rows(i)));
        }
        (all, policy.0.into_inner())
    }

    /// A round of one search: the states that it came back through, its object first, and those that it
    /// went forth from.
    fn rounds(asked: &[(Direction, i32)]) -> Vec<(Vec<i32>, Vec<i32>)> {
        let turns = asked.chunk_by(|a, b| a.0 == b.0);
        let turns: Vec<Vec<i32>> =
            turns.map(|turn| turn.iter().map(|(_, state)| *state).collect()).collect();
        turns.chunks(2).map(|round| (round[0].clone(), round[1].clone())).collect()
    }

    #[test]
    fn the_part_taken_back_is_rounded_up() {
        for (part, of) in [(1, 100), (1, 4), (1, 3), (1, 2), (2, 3), (3, 4), (1, 1)] {
            let back = part as f64 / of as f64;
            let mut seen = BTreeMap::new();
            for step in 0..200 {
                let settings = LocalSearch { rounds: 2, back, ..LocalSearch::default() };
                let (all, asked) = search(&settings, 1, 3, step);
                assert_eq!(all.len(), 3);
                let rounds = rounds(&asked);
                assert_eq!(rounds.len(), 2);
                for (i, (back, forth)) in rounds.into_iter().enumerate() {
                    // s0 is not asked for on the way back.
                    let length = back.len();
                    let taken = (part * length).div_ceil(of);
                    let middle = if taken == length { 0 } else { back[taken] };
                    assert_eq!(forth[0], middle, "{part}/{of} of {back:?}");
                    let found = all.states.cells(all.rows(i + 1));
                    let kept: Vec<i32> = back[taken..].iter().rev().copied().collect();
                    assert_eq!(found[0], 0);
                    assert_eq!(found[1..][..kept.len()], kept, "the rest of it stays");
                    *seen.entry(length).or_insert(0) += 1;
                }
            }
            assert!(seen.len() >= 5, "trajectories of several lengths: {seen:?}");
        }
    }

    #[test]
    fn found_trajectories_are_of_the_environment_with_their_rewards() {
        let env = world();
        for (sampled, n) in [(10, 40), (10, 37), (1, 4), (12, 12)] {
            let settings = LocalSearch { rounds: 3, back: 0.5, accept: Accept::Metropolis };
            let (all, _) = search(&settings, sampled, n, 0);
            assert_eq!([all.len(), all.log_reward.len()], [n, n]);
            let mut legal = vec![false; env.space().n_actions];
            for i in 0..n {
                let mut row = vec![0];
                for (at, t) in all.rows(i).zip(all.transitions(i)) {
                    assert_eq!(all.states.row(at), row);
                    env.legal(&row, &mut legal);
                    let action = all.actions[t] as usize;
                    assert!(legal[action]);
                    assert_eq!(env.step(&mut row, action), all.back_actions[t] as usize);
                }
                assert_eq!(all.terminal(i), row);
                assert!(row[0] >= CELLS, "an object");
                assert_eq!(all.log_reward[i], log_reward(row[0]));
            }
        }
    }

    /// Which object a round starts from says what was accepted in the one before.
    #[test]
    fn searches_go_on_from_what_is_accepted() {
        for accept in [Accept::Better, Accept::Metropolis] {
            let settings = LocalSearch { rounds: 3, back: 0.6, accept };
            // By the reward of an object and of the one found from it: how often, and how often accepted.
            let mut counts = BTreeMap::new();
            for step in 0..6000 {
                let (all, asked) = search(&settings, 1, 4, step);
                let starts: Vec<i32> = rounds(&asked).iter().map(|(back, _)| back[0]).collect();
                for (i, ends) in starts.windows(2).enumerate() {
                    let (old, new) = (ends[0], all.terminal(i + 1)[0]);
                    assert!(ends[1] == new || ends[1] == old);
                    if old != new {
                        let (n, accepted) = counts.entry((old, new)).or_insert((0.0, 0.0));
                        *n += 1.0;
                        *accepted += f64::from(u8::from(ends[1] == new));
                    }
                }
            }
            assert!(counts.len() >= 24, "most pairs of objects: {}", counts.len());
            for ((old, new), (n, accepted)) in counts {
                let ratio = (log_reward(new) - log_reward(old)).exp();
                let p = match accept {
                    Accept::Metropolis => ratio.min(1.0),
                    Accept::Better => f64::from(u8::from(ratio >= 1.0)),
                };
                // Five standard deviations; none where p is 0 or 1.
                let error = 5.0 * (n * p * (1.0 - p)).sqrt();
                let what = format!("{accept:?} {old} to {new}");
                assert!((accepted - n * p).abs() <= error + 1e-9, "{what}: {accepted} of {n}, {p}");
            }
        }
    }
}
