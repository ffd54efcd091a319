//! The sink log.jsonl: everything that is recorded, a JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::sink::{Evaluation, Iteration, Sink};
use super::tables::numbers;
use crate::error::Failure;
use crate::run::directory::{RunDirectory, write_atomically};
use crate::run::metrics::Clocks;

/// Its file.
pub const JSON_LINES: &str = "log.jsonl";

/// What a line is about.
const ITERATION: &str = "iteration";
const EVALUATION: &str = "evaluation";

/// The last iterations of which records and evaluations are kept of earlier sessions.
#[derive(Clone, Copy)]
pub struct Kept {
    pub iteration: Option<u64>,
    pub evaluation: Option<u64>,
}

/// log.jsonl: `{"kind": "iteration" | "evaluation", "step": …, "wall_s": …, …}`. Numbers that do not apply
/// are left out.
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens or creates it, without what it says of later iterations than are kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(directory: &RunDirectory, kept: Kept) -> Result<Self, Failure> {
        let path = directory.file(JSON_LINES);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let is_kept = |line: &&str| {
            let Ok(object) = serde_json::from_str::<Value>(line) else { return false };
            let last = match object["kind"].as_str() {
                Some(ITERATION) => kept.iteration,
                Some(EVALUATION) => kept.evaluation,
                _ => None,
            };
            let step = object["step"].as_u64().zip(last);
            line.ends_with('\n') && step.is_some_and(|(step, last)| step <= last)
        };
        let kept: String = old.split_inclusive('\n').filter(is_kept).collect();
        if kept != old {
            write_atomically(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|error| Failure::write(&path, &error))?;
        Ok(Self { path, file })
    }

    fn line(
        &mut self,
        kind: &str,
        step: u64,
        clocks: Clocks,
        more: Map<String, Value>,
    ) -> Result<(), Failure> {
        let mut object = Map::new();
        object.insert("kind".to_owned(), kind.into());
        object.insert("step".to_owned(), step.into());
        object.insert("wall_s".to_owned(), json!(clocks.wall_s));
        object.insert("train_s".to_owned(), json!(clocks.train_s));
        object.extend(more);
        let line = format!("{}\n", Value::Object(object));
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| Failure::write(&self.path, &error))
    }
}

impl Sink for JsonLines {
    fn iteration(&mut self, iteration: &Iteration<'_>) -> Result<(), Failure> {
        if !iteration.recorded {
            return Ok(());
        }
        let numbers = numbers(iteration).into_iter();
        let numbers = numbers.filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        self.line(ITERATION, iteration.step(), iteration.clocks, numbers.collect())
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) -> Result<(), Failure> {
        let counters = evaluation.counters;
        let mut more = Map::new();
        for (name, spent) in [
            ("trajectories", counters.trajectories),
            ("reward_calls", counters.reward_calls),
            ("env_steps", counters.env_steps),
            ("grad_steps", counters.grad_steps),
        ] {
            more.insert(name.to_owned(), spent.into());
        }
        let values = evaluation.named();
        more.extend(values.map(|(column, value)| (column.name.clone(), json!(value))));
        self.line(EVALUATION, counters.step, evaluation.clocks, more)
    }
}
