//! `gfn sample`: objects from a checkpoint, with their rewards.

use serde_json::json;

use super::open::OpenRun;
use super::print;
use crate::Registry;
use crate::args::{Format, Sample};
use crate::error::Failure;
use crate::run::samples::{draw, sample_csv};

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
