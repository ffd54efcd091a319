//! Whether a run directory belongs to a spec.

use crate::Registry;
use crate::error::Failure;
use crate::run::directory::{RunDirectory, differences};
use crate::spec::Spec;

/// Keys that may change between sessions of a run: they do not change what is trained, or
/// measured at a given iteration.
fn may_change(key: &str, spec: &Spec, old: &str, new: &str) -> bool {
    match key {
        "checkpoint.every" | "checkpoint.keep" | "train.log_every" => true,
        _ if key.starts_with("log.") => true,
        // More of the same, unless a schedule depends on how much.
        "train.trajectories" => {
            let number = |text: &str| text.parse::<u64>().unwrap_or(0);
            let whole = number(old).is_multiple_of(spec.train.batch as u64);
            number(new) > number(old) && whole && !spec.train.depends_on_horizon()
        }
        _ => {
            let part = key.split_once('.');
            part.is_some_and(|(table, key)| spec.neutral_keys(table).contains(&key))
        }
    }
}

/// Writes the resolved spec into a new run, or compares it with that of an existing one.
pub fn check_same_spec(
    registry: &Registry,
    directory: &RunDirectory,
    spec: &Spec,
    resolved: &toml::Table,
) -> Result<(), Failure> {
    let file = directory.file("spec.toml");
    let text = toml::to_string(resolved).expect("a spec is TOML");
    let old = match std::fs::read_to_string(&file) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return directory.write("spec.toml", text.as_bytes());
        }
        Err(error) => {
            return Err(Failure::usage(format!("cannot read `{}`: {error}", file.display())));
        }
    };
    let raw: toml::Table = toml::from_str(&old).map_err(|error| {
        Failure::usage(format!("`{}` is damaged: {}", file.display(), error.message()))
            .help("move the run aside and start anew with --fresh")
    })?;
    // As it is read now: keys that are newer than the run have their defaults, as they had then.
    let name = file.display().to_string();
    let old = match Spec::parse(registry, &name, old, &spec.name, &[]) {
        Ok(old) => old.resolved(),
        Err(_) => raw,
    };
    let differing: Vec<String> = differences(&old, resolved)
        .into_iter()
        .filter(|(key, old, new)| !may_change(key, spec, old, new))
        .map(|(key, old, new)| format!("{key}: {old} -> {new}"))
        .collect();
    if !differing.is_empty() {
        return Err(Failure::usage(format!(
            "the run `{}` was made with another spec; these keys differ:\n  {}",
            directory.path().display(),
            differing.join("\n  ")
        ))
        .help("give this run a --name of its own, or move the old one aside with --fresh"));
    }
    directory.write("spec.toml", text.as_bytes())
}
