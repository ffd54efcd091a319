//! Markov chains in the place of training, for objectives that are baselines without a policy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::trainer::{Report, TrainError, Trainer};
use crate::metric::{MetricContext, Observed};
use crate::metropolis::{BackAndForth, Chains};
use crate::proposal::Proposal;
use crate::rng::{Purpose, Streams};
use crate::sampler::Draw;
use crate::{Environment, KeyError, RewardError, Trajectories};

/// How chains move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// [`BackAndForth`] by so many actions at most; none for those of the longest trajectory.
    BackAndForth(Option<usize>),
    /// [`Environment::local_moves`].
    Local,
}

/// What an iteration does with chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainSettings {
    /// How they move.
    pub moves: Moves,
    /// Iterations at the start whose objects no metric sees.
    pub burn_in: u64,
    /// Proposals per chain and iteration.
    pub thin: u64,
}

impl ChainSettings {
    /// Checks what depends on the rest of the experiment: the environment, and the number of
    /// iterations.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn check(&self, env: &dyn Environment, n_steps: u64) -> Result<(), KeyError> {
        if self.moves == Moves::Local && env.local_moves().is_none() {
            return Err(KeyError::new("proposal", "this environment has no local moves")
                .help("back_and_forth works in any environment"));
        }
        if let Moves::BackAndForth(Some(steps)) = self.moves
            && steps > env.space().max_len
        {
            let longest = env.space().max_len;
            let message = format!("{steps} actions, where no trajectory has more than {longest}");
            return Err(KeyError::new("steps_back", message)
                .help("leave the key out for the length of the longest trajectory"));
        }
        if self.burn_in >= n_steps {
            let message = format!(
                "a burn-in of {} iterations leaves none of {n_steps} to measure",
                self.burn_in
            );
            return Err(
                KeyError::new("burn_in", message).help("lower it, or raise train.trajectories")
            );
        }
        Ok(())
    }

    /// Advances chains by an iteration; proposal k is drawn from step `first` + k. Returns the rewards
    /// computed and the actions walked.
    fn advance(
        &self,
        chains: &mut Chains,
        context: &MetricContext,
        first: Draw,
    ) -> Result<(u64, u64), RewardError> {
        let moves = Counting { moves: self.moves, steps: AtomicU64::new(0) };
        let mut rewards = 0;
        for k in 0..self.thin {
            let draw = Draw { step: first.step + k, ..first };
            let advance = chains.advance(&*context.env, &*context.reward, &moves, draw)?;
            rewards += advance.rewards as u64;
        }
        Ok((rewards, moves.steps.into_inner()))
    }
}

/// Moves with a count of the actions that they take: chains move on several threads.
struct Counting {
    moves: Moves,
    steps: AtomicU64,
}

impl Proposal for Counting {
    fn propose(
        &self,
        env: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
    ) -> Option<f64> {
        let (log_ratio, steps) = match self.moves {
            Moves::BackAndForth(most) => {
                let most = most.unwrap_or(env.space().max_len);
                let mut steps = 0;
                let walk = BackAndForth { most }.walk(env, object, rng, proposed, &mut steps);
                (walk, steps)
            }
            Moves::Local => (env.local_moves()?.propose(env, object, rng, proposed), 1),
        };
        self.steps.fetch_add(steps, Ordering::Relaxed);
        log_ratio
    }
}

/// Chains between two iterations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Walk {
    /// None before the first iteration.
    chains: Option<Chains>,
    /// The last objects that metrics have seen with log R, the oldest first.
    recent: VecDeque<(Vec<i32>, f64)>,
}

impl Walk {
    fn remember(&mut self, observed: &Observed<'_>, capacity: usize) {
        let pairs = observed.terminals.rows().zip(observed.log_reward);
        self.recent.extend(pairs.map(|(row, &log_reward)| (row.to_vec(), log_reward)));
        self.shrink(capacity);
    }

    /// Forgets all but the last `capacity` objects.
    fn shrink(&mut self, capacity: usize) {
        self.recent.drain(..self.recent.len().saturating_sub(capacity));
    }

    /// The last objects as samples without the way to them.
    pub(super) fn samples(&self, width: usize) -> Trajectories {
        let mut samples = Trajectories::new(width);
        for (row, log_reward) in &self.recent {
            samples.push(row, &[], &[]);
            samples.log_reward.push(*log_reward);
        }
        samples
    }
}

impl Trainer {
    /// Whether there is a policy to sample and to measure; none where chains take its place.
    pub fn has_policy(&self) -> bool {
        self.chain_settings().is_none()
    }

    pub(super) fn chain_settings(&self) -> Option<ChainSettings> {
        self.parts.objective.chains()
    }

    /// An iteration of chains.
    pub(super) fn step_chains(&mut self, settings: ChainSettings) -> Result<Report, TrainError> {
        let context = &self.parts.context;
        let step = self.counters.step;
        let draw = |step| Draw { streams: self.streams, purpose: Purpose::Chain, step };
        let mut counters = self.counters;
        // On copies: where a reward fails, the iteration has not begun.
        let mut chains = match &self.walk.chains {
            Some(chains) => chains.clone(),
            None => {
                let (env, n) = (&*context.env, self.settings.batch);
                let (chains, steps) = Chains::start(env, &*context.reward, draw(0), n)?;
                counters.reward_calls += n as u64;
                counters.env_steps += steps as u64;
                chains
            }
        };
        let first = draw(1 + step * settings.thin);
        let (rewards, steps) = settings.advance(&mut chains, context, first)?;
        // The last iteration may be shorter: every chain moves, some are shown.
        let n = self.settings.batch_at(step);
        counters.step += 1;
        counters.trajectories += n as u64;
        counters.reward_calls += rewards;
        counters.env_steps += steps;
        self.counters = counters;
        if step >= settings.burn_in {
            let terminals = &chains.objects().slice(0..n);
            let observed = Observed { terminals, log_reward: &chains.log_reward()[..n] };
            for metric in &mut self.parts.metrics {
                metric.observe(&observed);
            }
            self.walk.remember(&observed, self.parts.context.samples);
        }
        self.walk.chains = Some(chains);
        Ok(Report { step, ..Report::default() })
    }

    /// `n` objects where the chains go from here with other random numbers, iteration by iteration,
    /// without the way to them and with log R. None before the end of burn-in, and where there are no
    /// chains.
    ///
    /// # Errors
    /// When the reward of some object is not known.
    pub fn draw_from_chains(
        &self,
        streams: Streams,
        n: usize,
    ) -> Result<Option<Trajectories>, RewardError> {
        let settings = self.chain_settings();
        let settings = settings.filter(|settings| self.counters.step >= settings.burn_in);
        let Some((settings, mut chains)) = settings.zip(self.walk.chains.clone()) else {
            return Ok(None);
        };
        let mut samples = Trajectories::new(chains.objects().width());
        for iteration in 0.. {
            let n = chains.log_reward().len().min(n - samples.len());
            if n == 0 {
                break;
            }
            let step = iteration * settings.thin;
            let draw = Draw { streams, purpose: Purpose::Sample, step };
            settings.advance(&mut chains, &self.parts.context, draw)?;
            (0..n).for_each(|i| samples.push(chains.objects().row(i), &[], &[]));
            samples.log_reward.extend_from_slice(&chains.log_reward()[..n]);
        }
        Ok(Some(samples))
    }

    /// What a checkpoint holds of the chains: nothing where there are none.
    pub(super) fn save_walk(&self) -> Vec<u8> {
        let bytes = || postcard::to_stdvec(&self.walk).expect("chains serialise");
        self.chain_settings().map(|_| bytes()).unwrap_or_default()
    }

    /// Restores what [`save_walk`](Self::save_walk) returned.
    pub(super) fn load_walk(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.chain_settings().is_none() {
            return Ok(());
        }
        let mut walk: Walk =
            postcard::from_bytes(bytes).map_err(|error| format!("chains: {error}"))?;
        let (n, width) = (self.settings.batch, self.parts.env().space().width);
        let objects = walk.chains.as_ref().map(Chains::objects);
        if let Some(objects) = objects.filter(|own| (own.len(), own.width()) != (n, width)) {
            let (len, cells) = (objects.len(), objects.width());
            return Err(format!("{len} chains of {cells} cells instead of {n} of {width}"));
        }
        walk.shrink(self.parts.context.samples);
        self.walk = walk;
        Ok(())
    }
}
