//! `gfn sample`: objects from a checkpoint, with their rewards.

use gfn_core::Trajectories;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use serde_json::json;

use super::open::OpenRun;
use super::print;
use crate::args::{Format, Sample};
use crate::error::{DATA, Failure};
use crate::run::table::line;
use crate::{Experiment, Registry};

pub fn run(registry: &Registry, args: &Sample) -> Result<(), Failure> {
    let run = OpenRun::open(registry, &args.run, &[], &args.checkpoint)?;
    match args.format {
        Format::Csv => print(&sample_csv(&run.experiment, args.n, args.seed)?),
        Format::Jsonl => {
            let samples = draw(&run.experiment, args.n, args.seed)?;
            let mut text = String::new();
            for (i, log_reward) in samples.log_reward.iter().enumerate() {
                let object = run.experiment.env.render(samples.terminal(i));
                let row = json!({
                    "object": object,
                    "log_reward": log_reward,
                    "reward": log_reward.exp(),
                });
                text += &format!("{row}\n");
            }
            print(&text)
        }
    }
}

/// Fresh samples of the policy as CSV.
pub(super) fn sample_csv(experiment: &Experiment, n: usize, seed: u64) -> Result<String, Failure> {
    let samples = draw(experiment, n, seed)?;
    let mut text = line(&["object", "log_reward", "reward"].map(str::to_owned));
    for (i, log_reward) in samples.log_reward.iter().enumerate() {
        let object = experiment.env.render(samples.terminal(i));
        text += &line(&[object, log_reward.to_string(), log_reward.exp().to_string()]);
    }
    Ok(text)
}

fn draw(experiment: &Experiment, n: usize, seed: u64) -> Result<Trajectories, Failure> {
    // In blocks, so that memory does not grow with n times the length of a trajectory.
    const BLOCK: usize = 4096;
    let mut out = Trajectories::new(experiment.env.layout().width);
    let mut log_reward = Vec::with_capacity(n);
    let policy = experiment.trainer.policy();
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
