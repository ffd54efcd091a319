//! From paths on the command line to runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::StringRecord;

use super::find::find;
use super::group::check_key;
use super::run::{Run, parse, read_text};
use crate::error::Failure;
use crate::run::metrics::budget_columns;

/// The runs in folders and tables, those with at least one row. Runs that are named twice count once.
///
/// # Errors
/// With the path that holds no run, or the damaged file unless those are skipped.
pub fn load(paths: &[PathBuf], skip_damaged: bool) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    let mut seen = BTreeSet::new();
    let mut keep = |run: Result<Vec<Run>, Failure>| -> Result<(), Failure> {
        match run {
            Ok(read) => runs.extend(read),
            Err(failure) if skip_damaged => tracing::warn!("{}; left out", failure.message()),
            Err(failure) => return Err(failure),
        }
        Ok(())
    };
    for path in paths {
        let found = match path.is_dir() {
            true => find(path)?,
            false => vec![path.clone()],
        };
        for path in found {
            let canonical = path.canonicalize().map_err(|error| {
                Failure::usage(format!("cannot read `{}`: {error}", path.display()))
            })?;
            if !seen.insert(canonical) {
                continue;
            }
            keep(if path.is_dir() { Run::read(&path).map(|run| vec![run]) } else { split(&path) })?;
        }
    }
    warn_of_twins(&runs);
    let all = runs.len();
    runs.retain(|run| !run.rows.is_empty());
    match all - runs.len() {
        0 => {}
        1 => tracing::warn!("1 run has no row yet"),
        n => tracing::warn!("{n} runs have no row yet"),
    }
    if runs.is_empty() {
        return Err(
            Failure::usage("no run has a row yet").help("`gfn train` writes one per evaluation")
        );
    }
    Ok(runs)
}

/// The same run twice would make intervals narrower than they are.
fn warn_of_twins(runs: &[Run]) {
    let mut seen = BTreeMap::new();
    for run in runs.iter().filter(|run| run.finished.is_some()) {
        if let Some(other) = seen.insert(&run.keys, &run.path) {
            let (a, b) = (other.display(), run.path.display());
            tracing::warn!("`{a}` and `{b}` have the same spec and seed; both are counted");
        }
    }
}

/// Keeps the runs that have all of the values, `KEY=VALUE`. Numbers are compared as numbers.
///
/// # Errors
/// When a key is unknown, or no run is left.
pub fn select(runs: Vec<Run>, filter: &[String]) -> Result<Vec<Run>, Failure> {
    let mut runs = runs;
    for condition in filter {
        let Some((key, wanted)) = condition.split_once('=') else {
            return Err(Failure::usage(format!("`{condition}` is not KEY=VALUE")));
        };
        check_key(&runs, key)?;
        let mut values: Vec<String> =
            runs.iter().filter_map(|run| run.value(key)).map(str::to_owned).collect();
        runs.retain(|run| run.value(key).is_some_and(|value| same(value, wanted)));
        if runs.is_empty() {
            values.sort();
            values.dedup();
            return Err(Failure::usage(format!("no run has {key} = {wanted}"))
                .help(format!("values: {}", values.join(", "))));
        }
    }
    Ok(runs)
}

fn same(value: &str, wanted: &str) -> bool {
    value == wanted
        || matches!((value.parse::<f64>(), wanted.parse::<f64>()), (Ok(a), Ok(b)) if a.total_cmp(&b).is_eq())
}

/// The runs of a table: rows that agree in everything before the budget columns. Of a table without
/// `step`, every row is a run. What has no name is called like the file.
fn split(path: &Path) -> Result<Vec<Run>, Failure> {
    let (header, rows) = parse(path, &read_text(path)?)?;
    if rows.is_empty() {
        return Err(Failure::usage(format!("`{}` has no rows", path.display()))
            .help("give a folder of runs, or a CSV table with a header"));
    }
    let leading = header.iter().position(|name| budget_columns().any(|budget| budget == name));
    let by_step = header.iter().any(|name| name == "step");
    let mut keys = Vec::new();
    if !header.iter().any(|name| name == "name") {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        keys.push(("name".to_owned(), stem.into_owned()));
    }
    let header: Arc<[String]> = header.into();
    let run = |rows: Vec<StringRecord>| Run {
        path: path.to_owned(),
        keys: keys.clone(),
        header: header.clone(),
        rows,
        finished: None,
    };
    if !by_step {
        return Ok(rows.into_iter().map(|row| run(vec![row])).collect());
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut places = BTreeMap::new();
    for row in rows {
        let identity: Vec<String> =
            row.iter().take(leading.unwrap_or(0)).map(str::to_owned).collect();
        let place = *places.entry(identity).or_insert(runs.len());
        match runs.get_mut(place) {
            Some(run) => run.rows.push(row),
            None => runs.push(run(vec![row])),
        }
    }
    Ok(runs)
}
