//! Fresh samples of a trained policy, or of Markov chains that go on.

use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Reward, States, Trajectories};
use serde_json::json;

use super::table::line;
use crate::Experiment;
use crate::error::{DATA, Failure};

/// The share of samples that are unlike those that a learned reward was learned from, where it can tell.
pub fn share_unlike(experiment: &Experiment, samples: &Trajectories) -> Option<f64> {
    let unlike = experiment.reward.unlike(&samples.terminals())?;
    let count = unlike.iter().filter(|&&unlike| unlike).count();
    Some(count as f64 / unlike.len().max(1) as f64)
}

/// What rewards say of objects besides.
pub struct Remarks {
    /// The values that rewards are computed from, with their name.
    values: Option<(String, Vec<f64>)>,
    /// Whether they are unlike those that a learned reward was learned from.
    unlike: Option<Vec<bool>>,
}

impl Remarks {
    /// Of terminal rows.
    ///
    /// # Errors
    /// When a value cannot be computed.
    pub fn of(reward: &dyn Reward, objects: &States) -> Result<Self, Failure> {
        let values = reward.values(objects);
        let values = values.map_err(|error| Failure::new(DATA, error.to_string()))?;
        Ok(Self { values, unlike: reward.unlike(objects) })
    }

    /// Names of their columns.
    pub fn header(&self) -> Vec<String> {
        let values = self.values.as_ref().map(|(name, _)| name.clone());
        let unlike = self.unlike.as_ref().map(|_| "unlike_training".to_owned());
        values.into_iter().chain(unlike).collect()
    }

    /// The cells of object `i`.
    pub fn cells(&self, i: usize) -> impl Iterator<Item = String> {
        let value = self.values.as_ref().map(|(_, values)| values[i].to_string());
        let unlike = self.unlike.as_ref().map(|unlike| unlike[i].to_string());
        value.into_iter().chain(unlike)
    }
}

/// Samples as CSV.
///
/// # Errors
/// When a value cannot be computed.
pub fn csv(experiment: &Experiment, samples: &Trajectories) -> Result<String, Failure> {
    let remarks = Remarks::of(&*experiment.reward, &samples.terminals())?;
    let mut header = ["object", "log_reward", "reward"].map(str::to_owned).to_vec();
    let alias = |i: usize| experiment.env.alias(samples.terminal(i));
    let named = (!samples.is_empty()).then(|| alias(0)).flatten();
    header.extend(named.map(|(name, _)| name.to_owned()));
    header.extend(remarks.header());
    let mut text = line(&header);
    for (i, log_reward) in samples.log_reward.iter().enumerate() {
        let object = experiment.env.render(samples.terminal(i));
        let mut cells = vec![object, log_reward.to_string(), log_reward.exp().to_string()];
        cells.extend(alias(i).map(|(_, alias)| alias));
        cells.extend(remarks.cells(i));
        text += &line(&cells);
    }
    Ok(text)
}

/// Samples as JSON, an object per line.
///
/// # Errors
/// When a value cannot be computed.
pub fn jsonl(experiment: &Experiment, samples: &Trajectories) -> Result<String, Failure> {
    let Remarks { values, unlike } = Remarks::of(&*experiment.reward, &samples.terminals())?;
    let mut text = String::new();
    for (i, log_reward) in samples.log_reward.iter().enumerate() {
        let object = experiment.env.render(samples.terminal(i));
        let reward = log_reward.exp();
        let mut row = json!({ "object": object, "log_reward": log_reward, "reward": reward });
        if let Some((name, alias)) = experiment.env.alias(samples.terminal(i)) {
            row[name] = json!(alias);
        }
        if let Some((name, values)) = &values {
            row[name.as_str()] = json!(values[i]);
        }
        if let Some(unlike) = &unlike {
            row["unlike_training"] = json!(unlike[i]);
        }
        text += &format!("{row}\n");
    }
    Ok(text)
}

/// What samples show together in the environment's own way, as names and texts of files.
pub fn artifacts(experiment: &Experiment, samples: &Trajectories) -> Vec<(&'static str, String)> {
    experiment.env.artifacts(&samples.terminals(), &samples.log_reward)
}

/// Fresh samples of the policy, or where there is none the objects that the chains come to from where
/// they are: without the way to them, with log R.
///
/// # Errors
/// When a reward cannot be computed, or chains are not past their burn-in.
pub fn draw(experiment: &Experiment, n: usize, seed: u64) -> Result<Trajectories, Failure> {
    let trainer = &experiment.trainer;
    if !trainer.has_policy() {
        let drawn = trainer.draw_from_chains(Streams::new(seed), n);
        let drawn = drawn.map_err(|error| Failure::new(DATA, error.to_string()))?;
        return drawn.ok_or_else(|| {
            let step = trainer.counters().step;
            Failure::usage(format!("the chains show no object yet at iteration {step}"))
                .help("train on, or choose a checkpoint after objective.burn_in with --checkpoint")
        });
    }
    // In blocks, so that memory does not grow with n times the length of a trajectory.
    const BLOCK: usize = 4096;
    let mut out = Trajectories::new(experiment.env.space().width);
    let mut log_reward = Vec::with_capacity(n);
    let policy = trainer.policy();
    let mut sampler = Sampler::default();
    for (block, start) in (0..n).step_by(BLOCK).enumerate() {
        let draw =
            Draw { streams: Streams::new(seed), purpose: Purpose::Sample, step: block as u64 };
        let n = BLOCK.min(n - start);
        let samples = sampler.forward(&*experiment.env, &policy, Exploration::NONE, draw, n);
        let terminals = samples.terminals();
        let mut rewards = vec![0.0; terminals.len()];
        experiment
            .reward
            .log_reward(&terminals, &mut rewards)
            .map_err(|error| Failure::new(DATA, error.to_string()))?;
        log_reward.extend(rewards);
        for row in terminals.rows() {
            out.push(row, &[], &[]);
        }
    }
    out.log_reward = log_reward;
    Ok(out)
}
