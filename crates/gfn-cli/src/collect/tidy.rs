//! One table of all rows of many runs.

use std::collections::{BTreeMap, BTreeSet};

use super::group::varying_keys;
use super::run::{Run, column_of_key};
use crate::run::metrics::{budget_columns, identity_columns};
use crate::run::table::line;

/// What goes into the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tidy {
    /// Only the last row of each run.
    pub last: bool,
    /// A column for every key of the specs, not only for those that differ.
    pub all_keys: bool,
}

/// The rows of all runs as CSV: identity columns, a column per key of which two runs have different
/// values, budget columns, metrics. A cell that a run does not have is empty.
pub fn tidy(runs: &[Run], options: Tidy) -> String {
    let mut present: Vec<&str> = Vec::new();
    let mut seen = BTreeSet::new();
    for run in runs {
        present.extend(run.header.iter().map(String::as_str).filter(|name| seen.insert(*name)));
    }
    let keys: Vec<String> = if options.all_keys {
        let mut seen = BTreeSet::new();
        let names = runs.iter().flat_map(|run| run.keys.iter().map(|(name, _)| name));
        names.filter(|name| seen.insert(*name)).cloned().collect()
    } else {
        varying_keys(runs)
    };
    let is_key = |key: &String| column_of_key(key).is_none() && !present.contains(&key.as_str());
    let keys: Vec<String> = keys.into_iter().filter(is_key).collect();

    let found = |name: &&'static str| present.iter().any(|found| found == name);
    let mut columns: Vec<&str> = Vec::new();
    columns.append(&mut identity_columns().filter(found).collect());
    columns.extend(keys.iter().map(String::as_str));
    columns.append(&mut budget_columns().filter(found).collect());
    let leading: BTreeSet<&str> = columns.iter().copied().collect();
    columns.extend(present.iter().filter(|name| !leading.contains(*name)));

    let mut text = line(&columns.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    for run in runs {
        let of_run: BTreeMap<&str, &str> =
            run.keys.iter().map(|(name, value)| (&**name, &**value)).collect();
        let places: Vec<Result<usize, &str>> = columns
            .iter()
            .map(|name| run.column(name).ok_or_else(|| of_run.get(name).copied().unwrap_or("")))
            .collect();
        let skip = if options.last { run.rows.len() - 1 } else { 0 };
        for row in &run.rows[skip..] {
            let cell = |place: &Result<usize, &str>| match *place {
                Ok(column) => row[column].to_owned(),
                Err(value) => value.to_owned(),
            };
            text += &line(&places.iter().map(cell).collect::<Vec<_>>());
        }
    }
    text
}
