//! The columns and rows of metrics.csv and eval.csv: who, what was spent, what was measured.

use std::collections::BTreeMap;
use std::path::Path;

use gfn_core::learn::Counters;
use gfn_core::metric::{Better, Column};
use serde_json::json;

use super::table::{cell, last_value};
use crate::spec::Spec;

/// The file of a run that they are in.
pub const TABLE: &str = "metrics.csv";

/// Names, units and definitions of the columns before the metrics.
const LEADING: [(&str, &str, &str); 14] = [
    ("name", "", "name of the run"),
    ("env", "", "kind of the environment"),
    ("objective", "", "kind of the objective"),
    ("backward", "", "kind of the backward strategy"),
    ("model", "", "kind of the network"),
    ("device", "", "device that computed"),
    ("seed", "", "training seed"),
    ("step", "iterations", "iterations finished"),
    ("trajectories", "trajectories", "trajectories sampled for training, or objects of chains"),
    ("reward_calls", "calls", "rewards computed for training"),
    ("env_steps", "steps", "environment steps of training, both ways where chains take them"),
    ("grad_steps", "steps", "optimiser steps"),
    ("wall_s", "s", "seconds of training, evaluation and saving, over all sessions"),
    (
        "train_s",
        "s",
        "seconds of training alone (sampling, rewards and updates; no evaluation, no saving), over \
         all sessions",
    ),
];

/// How many of the leading columns say which run it is; the others say what was spent.
const N_IDENTITY: usize = 7;

/// Names of the columns that say which run it is.
pub fn identity_columns() -> impl Iterator<Item = &'static str> {
    LEADING[..N_IDENTITY].iter().map(|(name, ..)| *name)
}

/// Names of the columns that say what was spent.
pub fn budget_columns() -> impl Iterator<Item = &'static str> {
    LEADING[N_IDENTITY..].iter().map(|(name, ..)| *name)
}

/// The header line.
pub fn header(columns: &[Column]) -> Vec<String> {
    let leading = LEADING.iter().map(|(name, ..)| (*name).to_owned());
    leading.chain(columns.iter().map(|column| column.name.clone())).collect()
}

/// Seconds that a run has taken, over all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clocks {
    /// In all.
    pub wall_s: f64,
    /// In iterations: no evaluation, no saving.
    pub train_s: f64,
}

/// One row; `values` are those of the metrics.
pub fn row(
    spec: &Spec,
    counters: &Counters,
    clocks: Clocks,
    values: &[Option<f64>],
) -> Vec<String> {
    let mut row: Vec<String> = [
        spec.name.as_str(),
        spec.env.name(),
        spec.objective.name(),
        spec.backward.name(),
        spec.model.name(),
        spec.device.as_str(),
    ]
    .map(str::to_owned)
    .to_vec();
    let numbers = [
        spec.seed,
        counters.step,
        counters.trajectories,
        counters.reward_calls,
        counters.env_steps,
        counters.grad_steps,
    ];
    row.extend(numbers.map(|number| number.to_string()));
    row.extend([clocks.wall_s, clocks.train_s].map(|seconds| format!("{seconds:.3}")));
    row.extend(values.iter().map(|&value| cell(value)));
    row
}

/// Whether a table ends with the row of an iteration.
pub fn has_row(table: &Path, step: u64) -> bool {
    last_value(table, "step", step) == Some(step as f64)
}

/// Seconds that a run had taken at an iteration, by its tables.
pub fn clocks(run: &Path, step: u64) -> Clocks {
    let last = |evaluated: &str, logged: &str| {
        let evaluated = last_value(&run.join(TABLE), evaluated, step);
        let logged = last_value(&run.join("train.csv"), logged, step);
        evaluated.unwrap_or(0.0).max(logged.unwrap_or(0.0))
    };
    Clocks { wall_s: last("wall_s", "seconds"), train_s: last("train_s", "train_s") }
}

/// metrics.schema.json.
pub fn schema(columns: &[Column]) -> Vec<u8> {
    let leading = LEADING.iter().map(|(name, unit, definition)| {
        json!({ "name": name, "unit": unit, "definition": definition, "better": "neither" })
    });
    let all: Vec<_> = leading.chain(columns.iter().map(|column| json!(column))).collect();
    serde_json::to_vec_pretty(&all).expect("a schema is JSON")
}

/// Values that apply, by column.
pub fn named(columns: &[Column], values: &[Option<f64>]) -> BTreeMap<String, f64> {
    let pairs = columns.iter().zip(values);
    pairs.filter_map(|(column, value)| Some((column.name.clone(), (*value)?))).collect()
}

/// The columns that sum a run up and have a value, in their order.
pub fn headlines<'a>(columns: &'a [Column], values: &[Option<f64>]) -> Vec<(&'a Column, f64)> {
    let pairs = columns.iter().zip(values);
    let mut headlines: Vec<_> = pairs
        .filter_map(|(column, value)| Some((column, value.filter(|_| column.headline.is_some())?)))
        .collect();
    headlines.sort_by_key(|(column, _)| column.headline);
    headlines
}

/// What the best checkpoint has least of, by the first headline that improves one way.
pub fn score(headlines: &[(&Column, f64)]) -> Option<f64> {
    headlines.iter().find_map(|&(column, value)| match column.better {
        Better::Lower => Some(value),
        Better::Higher => Some(-value),
        Better::Neither => None,
    })
}

/// The metrics of the last row of a table; empty if there is none.
pub fn last_row(path: &Path, columns: &[Column]) -> BTreeMap<String, f64> {
    let Ok(mut reader) = csv::Reader::from_path(path) else { return BTreeMap::new() };
    let Some(record) = reader.records().filter_map(Result::ok).last() else {
        return BTreeMap::new();
    };
    let values: Vec<Option<f64>> =
        record.iter().skip(LEADING.len()).map(|cell| cell.parse().ok()).collect();
    named(columns, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines_have_an_order_and_the_first_that_improves_is_the_score() {
        let column = |name: &str, better, headline| Column {
            headline,
            ..Column::new(name, "1", better, "a column")
        };
        let columns = [
            column("bound", Better::Higher, Some(2)),
            column("other", Better::Lower, None),
            column("learned", Better::Neither, Some(0)),
            column("distance", Better::Lower, Some(1)),
        ];
        let summary = |values: [Option<f64>; 4]| {
            let headlines = headlines(&columns, &values);
            let names: Vec<&str> = headlines.iter().map(|(column, _)| &*column.name).collect();
            (names.join(" "), score(&headlines))
        };
        let all = [Some(3.0), Some(0.1), Some(8.0), Some(0.5)];
        assert_eq!(summary(all), ("learned distance bound".to_owned(), Some(0.5)));
        let no_distance = [Some(3.0), Some(0.1), Some(8.0), None];
        assert_eq!(summary(no_distance), ("learned bound".to_owned(), Some(-3.0)));
        assert_eq!(summary([None, Some(0.1), Some(8.0), None]), ("learned".to_owned(), None));
    }
}
