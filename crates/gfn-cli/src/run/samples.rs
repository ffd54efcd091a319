//! Fresh samples of a trained policy, or of Markov chains that go on.

use gfn_core::Trajectories;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use serde_json::json;

use super::table::line;
use crate::Experiment;
use crate::error::{DATA, Failure};

/// Samples as CSV.
pub fn csv(experiment: &Experiment, samples: &Trajectories) -> String {
    let mut text = line(&["object", "log_reward", "reward"].map(str::to_owned));
    for (i, log_reward) in samples.log_reward.iter().enumerate() {
        let object = experiment.env.render(samples.terminal(i));
        text += &line(&[object, log_reward.to_string(), log_reward.exp().to_string()]);
    }
    text
}

/// Samples as JSON, an object per line.
pub fn jsonl(experiment: &Experiment, samples: &Trajectories) -> String {
    let mut text = String::new();
    for (i, log_reward) in samples.log_reward.iter().enumerate() {
        let object = experiment.env.render(samples.terminal(i));
        let reward = log_reward.exp();
        let row = json!({ "object": object, "log_reward": log_reward, "reward": reward });
        text += &format!("{row}\n");
    }
    text
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
