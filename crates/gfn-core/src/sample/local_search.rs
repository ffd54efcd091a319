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
