//! Run directories below a folder.

use std::path::{Path, PathBuf};

use crate::error::Failure;

/// Folders nested deeper than this are not looked into: links may go round in circles.
const DEPTH: usize = 32;

/// The run directories in or below a folder, in the order of their paths: folders with spec.toml and
/// metrics.csv. Hidden folders and runs that were moved aside (`s1.old-1`) are left out.
///
/// # Errors
/// When a folder cannot be read, or there is no run.
pub fn find(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    walk(dir, DEPTH, &mut found)?;
    if found.is_empty() {
        return Err(Failure::usage(format!("no run in `{}`", dir.display())).help(
            "a run directory has spec.toml and metrics.csv: give one, or a folder above some",
        ));
    }
    Ok(found)
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if dir.join("spec.toml").is_file() && dir.join("metrics.csv").is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let failed = |error| Failure::usage(format!("cannot read `{}`: {error}", dir.display()));
    let mut below = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && name != "checkpoints" && !moved_aside(&name) && path.is_dir() {
            below.push(path);
        }
    }
    below.sort();
    below.iter().try_for_each(|path| walk(path, depth - 1, found))
}

/// Whether `gfn train --fresh` has moved the run aside.
fn moved_aside(name: &str) -> bool {
    let number = name.rsplit_once(".old-").map(|(_, number)| number);
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}
