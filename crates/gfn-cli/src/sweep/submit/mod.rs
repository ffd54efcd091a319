//! What a cluster needs to run a sweep: a script or a manifest, which is handed over or printed. Nothing
//! stays alive where it was submitted.

mod kubernetes;
mod slurm;

use std::path::PathBuf;
use std::process::Command;

use super::SweepDirectory;
use super::schedule::{Observed, Task};
use crate::error::Failure;
use crate::run::directory::write_atomically;

/// Who runs the trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// A job array.
    Slurm,
    /// An Indexed Job.
    Kubernetes,
}

/// What each trial is given.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Trials at a time; no limit if absent.
    pub parallel: Option<usize>,
    /// Cores of a trial.
    pub cpus: usize,
    /// Memory of a trial, in the engine's words.
    pub mem: Option<String>,
    /// Wall-clock limit, in Slurm's words.
    pub time: Option<String>,
    /// Slurm's partition.
    pub partition: Option<String>,
    /// Container image with gfn, for Kubernetes.
    pub image: Option<String>,
    /// PersistentVolumeClaim that holds the sweep, for Kubernetes.
    pub volume_claim: Option<String>,
    /// Where it is mounted.
    pub mount_path: String,
    /// More options of sbatch.
    pub more: Vec<String>,
}

/// The indices that an engine has to run: those with something to do, failed ones included.
fn missing(sweep: &SweepDirectory) -> Result<Vec<usize>, Failure> {
    let mut observed = Observed::read(sweep);
    let tasks = observed.schedule(sweep, |_| true)?.tasks;
    let open = sweep.trials.iter().zip(tasks);
    Ok(open
        .filter(|(_, task)| matches!(task, Task::Train(_)))
        .map(|(trial, _)| trial.index)
        .collect())
}

/// What was made.
pub enum Submitted {
    /// Nothing is left to do.
    Nothing,
    /// The text, to be printed.
    Printed(String),
    /// What the engine answered.
    Handed(String),
}

/// Writes the script of a sweep's missing trials, and hands it over unless it is only to be printed.
///
/// # Errors
/// When an option is missing, or the engine refuses.
pub fn submit(
    sweep: &SweepDirectory,
    engine: Engine,
    resources: &Resources,
    print: bool,
) -> Result<Submitted, Failure> {
    let indices = missing(sweep)?;
    if indices.is_empty() {
        return Ok(Submitted::Nothing);
    }
    let (file, text, program) = match engine {
        Engine::Slurm => {
            let path = std::path::absolute(sweep.path())
                .map_err(|error| Failure::usage(format!("no current directory: {error}")))?;
            let program = std::env::current_exe().unwrap_or_else(|_| "gfn".into());
            let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
            // A task whose output cannot be opened does not start.
            let logs = path.join("logs");
            std::fs::create_dir_all(&logs).map_err(|error| Failure::write(&logs, &error))?;
            let text = slurm::script(&sweep.name(), &path, &program, &here, &indices, resources);
            ("submit.sbatch", text, vec!["sbatch"])
        }
        Engine::Kubernetes => {
            let text = kubernetes::manifest(&sweep.name(), sweep.path(), &indices, resources)?;
            ("job.yaml", text, vec!["kubectl", "create", "-f"])
        }
    };
    if print {
        return Ok(Submitted::Printed(text));
    }
    let path = sweep.path().join(file);
    write_atomically(&path, text.as_bytes())?;
    let output = Command::new(program[0]).args(&program[1..]).arg(&path).output();
    let refused = |why: String| {
        Failure::usage(format!("`{} {}` failed: {why}", program.join(" "), path.display()))
            .help("--print shows what would be submitted; submit it where the program is at hand")
    };
    let output = output.map_err(|error| refused(error.to_string()))?;
    if !output.status.success() {
        return Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(Submitted::Handed(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// Numbers as ranges: `0-3,7`.
fn ranges(indices: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &index in indices {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let part = |&(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn indices_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3,7,9-10");
        assert_eq!(ranges(&[5]), "5");
    }
}
