//! Fresh samples of a trained policy, or of Markov chains that go on.

use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{RewardError, States};
use serde_json::json;

use super::table::line;
use crate::Experiment;
use crate::error::{DATA, Failure};

/// Objects, without the way to them.
pub struct Samples {
    pub objects: States,
    /// Their log R.
    pub log_reward: Vec<f64>,
}

/// Samples as CSV.
pub fn csv(experiment: &Experiment, samples: &Samples) -> String {
    let mut text = line(&["object", "log_reward", "reward"].map(str::to_owned));
    for (row, log_reward) in samples.objects.rows().zip(&samples.log_reward) {
        let object = experiment.env.render(row);
        text += &line(&[object, log_reward.to_string(), log_reward.exp().to_string()]);
    }
    text
}

/// Samples as JSON, an object per line.
pub fn jsonl(experiment: &Experiment, samples: &Samples) -> String {
    let mut text = String::new();
    for (row, log_reward) in samples.objects.rows().zip(&samples.log_reward) {
        let object = experiment.env.render(row);
        let reward = log_reward.exp();
        let row = json!({ "object": object, "log_reward": log_reward, "reward": reward });
        text += &format!("{row}\n");
    }
    text
}

/// What samples show together in the environment's own way, as names and texts of files.
pub fn artifacts(experiment: &Experiment, samples: &Samples) -> Vec<(&'static str, String)> {
    experiment.env.artifacts(&samples.objects, &samples.log_reward)
}

/// Fresh samples and their log R: of the policy; where there is none, the objects that the chains come
/// to from where they are.
///
/// # Errors
/// When a reward cannot be computed, or chains are not past their burn-in.
pub fn draw(experiment: &Experiment, n: usize, seed: u64) -> Result<Samples, Failure> {
    let unknown = |error: RewardError| Failure::new(DATA, error.to_string());
    let trainer = &experiment.trainer;
    if !trainer.has_policy() {
        let drawn = trainer.draw_from_chains(Streams::new(seed), n).map_err(unknown)?;
        let drawn = drawn.map(|(objects, log_reward)| Samples { objects, log_reward });
        return drawn.ok_or_else(|| {
            let step = trainer.counters().step;
            Failure::usage(format!("the chains are not past their burn-in at iteration {step}"))
                .help("train on, or choose a later checkpoint with --checkpoint")
        });
    }
    // In blocks, so that memory does not grow with n times the length of a trajectory.
    const BLOCK: usize = 4096;
    let mut objects = States::with_capacity(experiment.env.space().width, n);
    let mut log_reward = vec![0.0; n];
    let policy = trainer.policy();
    let mut sampler = Sampler::default();
    for (block, start) in (0..n).step_by(BLOCK).enumerate() {
        let draw =
            Draw { streams: Streams::new(seed), purpose: Purpose::Sample, step: block as u64 };
        let n = BLOCK.min(n - start);
        let samples = sampler.forward(&*experiment.env, &policy, Exploration::NONE, draw, n);
        let terminals = samples.terminals();
        let rewards = &mut log_reward[start..start + n];
        experiment.reward.log_reward(&terminals, rewards).map_err(unknown)?;
        terminals.rows().for_each(|row| objects.push(row));
    }
    Ok(Samples { objects, log_reward })
}
