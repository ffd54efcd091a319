//! A finished or interrupted run, opened to be evaluated or sampled.

use std::path::Path;

use crate::error::Failure;
use crate::run::checkpoint::{self, Checkpoint, Index};
use crate::run::directory::spec_of_run;
use crate::spec::Spec;
use crate::{Experiment, Registry};

/// A run with the chosen checkpoint loaded.
pub struct OpenRun {
    /// Its spec, with overrides.
    pub spec: Spec,
    /// Its parts, with the checkpoint's parameters.
    pub experiment: Experiment,
    /// The checkpoint's index.
    pub index: Index,
}

impl OpenRun {
    /// Opens the run in `path` at a checkpoint: an iteration, `last` or `best`.
    ///
    /// # Errors
    /// When the run or the checkpoint cannot be used.
    pub fn open(
        registry: &Registry,
        path: &Path,
        overrides: &[String],
        which: &str,
    ) -> Result<Self, Failure> {
        let file = spec_of_run(path)?;
        for argument in overrides {
            if !argument.trim_start().starts_with("eval.") {
                return Err(Failure::usage(format!(
                    "`{argument}`: only keys of the table eval can be overridden here"
                ))
                .help("the rest of the spec belongs to the checkpoint"));
            }
        }
        let spec = Spec::load(registry, &file, overrides)?;
        let mut experiment = Experiment::build(registry, &spec)?;

        let dir = path.join("checkpoints");
        let steps = checkpoint::list(&dir);
        let step = match which {
            "last" => steps.last().copied(),
            "best" => checkpoint::best(&dir),
            number => number.parse().ok().filter(|step| steps.contains(step)),
        };
        let Some(step) = step else {
            let list: Vec<String> = steps.iter().map(u64::to_string).collect();
            let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            return Err(Failure::usage(format!(
                "`{}` has no checkpoint `{which}`",
                path.display()
            ))
            .help(format!("checkpoints: {list}; or last, or best")));
        };
        let folder = dir.join(step.to_string());
        let unusable = |why: String| {
            Failure::usage(format!("the checkpoint `{}` cannot be used: {why}", folder.display()))
                .help(
                    "choose another with --checkpoint, or train on: `gfn train` goes back to the \
                       last intact one",
                )
        };
        let Checkpoint { snapshot, index } = checkpoint::read(&folder).map_err(unusable)?;
        // What metrics of the run have gathered in training is restored, too; others have gathered
        // nothing, and those that would have do not apply.
        experiment.trainer.restore(&snapshot).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { spec, experiment, index })
    }
}
