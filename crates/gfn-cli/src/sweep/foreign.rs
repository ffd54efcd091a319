//! Whether finished runs in the folders of trials are theirs. (`gfn train` looks itself before it goes on with
//! one that is not finished.)

use std::collections::HashMap;

use super::SweepDirectory;
use super::plan::Given;
use crate::Registry;
use crate::error::Failure;
use crate::run::directory::differences;
use crate::spec::{Spec, read_text};

/// The folder of a run says its seed; so must its spec.
fn seed_differs(found: &toml::Table, seed: u64) -> Option<String> {
    let own = found.get("seed").and_then(toml::Value::as_integer);
    let differs = own.is_some_and(|own| u64::try_from(own) != Ok(seed));
    differs.then(|| format!("seed: {seed} in the sweep, {} in the run", own.unwrap_or(0)))
}

/// Refuses a sweep in which a finished run is of another spec than its trial.
///
/// # Errors
/// With the keys that differ.
pub fn check_finished(registry: &Registry, sweep: &SweepDirectory) -> Result<(), Failure> {
    let file = sweep.spec();
    let (text, stem) = read_text(&file)?;
    let given = Given::new(registry, &file.display().to_string(), text, stem, &[])?;
    let mut expected: HashMap<String, toml::Table> = HashMap::new();
    for trial in &sweep.trials {
        let run = sweep.run(trial);
        let spec = run.join("spec.toml");
        if !run.join("DONE").is_file() || !spec.is_file() {
            continue;
        }
        let key = trial.overrides.to_string();
        if !expected.contains_key(&key) {
            expected.insert(key.clone(), given.load(&trial.overrides)?.resolved());
        }
        let own = &expected[&key];
        let (text, _) = read_text(&spec)?;
        let found: toml::Table = toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("`{}` is damaged: {}", spec.display(), error.message()))
                .help("move the run aside: the same command trains the trial anew")
        })?;
        let differing = |found: &toml::Table| -> Vec<String> {
            let all = differences(own, found).into_iter();
            all.filter(|(key, ..)| match key.as_str() {
                // Trials have names of their own, and may have been trained less far, or to a rung.
                "name" | "seed" | "train.trajectories" | "train.log_every" => false,
                _ => !key.starts_with("checkpoint.") && !key.starts_with("log."),
            })
            .map(|(key, planned, is)| format!("{key}: {planned} in the sweep, {is} in the run"))
            .chain(seed_differs(found, trial.seed))
            .collect()
        };
        if differing(&found).is_empty() {
            continue;
        }
        // An older program may have left out keys, or called them otherwise.
        let origin = spec.display().to_string();
        let found = Spec::parse(registry, &origin, text, stem, &[]).map(|spec| spec.resolved());
        let differing = found.map_or_else(|_| vec!["it cannot be read".into()], |f| differing(&f));
        if !differing.is_empty() {
            return Err(Failure::usage(format!(
                "the run `{}` is not the trial {} of this sweep:\n  {}",
                run.display(),
                trial.index,
                differing.join("\n  ")
            ))
            .help("move it aside: the same command trains the trial anew"));
        }
    }
    Ok(())
}
