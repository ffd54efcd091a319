//! How a sweep stands, by its files alone.

use std::fmt::Write;

use serde::Serialize;

use super::SweepDirectory;
use super::claim::Claim;
use super::progress::short;
use super::schedule::{Observed, Rung, Schedule, Task};
use super::state;
use crate::error::Failure;

/// What a trial is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    /// At the end of its budget, or of its part in a search.
    Done,
    /// Somebody runs it.
    Running,
    /// Its last attempt failed.
    Failed,
    /// Started, not finished, and nobody runs it.
    Interrupted,
    /// Not started, or waiting for others of a search.
    Waiting,
}

const ALL: [Doing; 5] =
    [Doing::Done, Doing::Running, Doing::Failed, Doing::Interrupted, Doing::Waiting];

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
        }
    }
}

/// One trial.
#[derive(Debug, Serialize)]
pub struct TrialStatus {
    index: usize,
    trial: String,
    state: Doing,
    trajectories: u64,
    of: u64,
    metric: Option<String>,
    value: Option<f64>,
}

/// The whole sweep.
#[derive(Debug, Serialize)]
pub struct Status {
    sweep: String,
    counts: serde_json::Map<String, serde_json::Value>,
    rungs: Vec<serde_json::Value>,
    best: Option<String>,
    trials: Vec<TrialStatus>,
}

/// Reads how a sweep stands.
///
/// # Errors
/// When the metric of a search cannot rank.
pub fn status(sweep: &SweepDirectory) -> Result<Status, Failure> {
    let mut observed = Observed::read(sweep);
    let Schedule { tasks, rungs, best } = observed.schedule(sweep, |_| false)?;
    let preferred = sweep.halving.as_ref().map(|halving| halving.metric());
    let mut trials = Vec::with_capacity(tasks.len());
    for (i, (trial, &task)) in sweep.trials.iter().zip(&tasks).enumerate() {
        let run = sweep.run(trial);
        let running = !matches!(task, Task::Done(_)) && Claim::is_held(&sweep.claim(trial));
        let state = match task {
            _ if running => Doing::Running,
            Task::Done(_) => Doing::Done,
            Task::Failed => Doing::Failed,
            Task::Train(_) if run.exists() && observed.last(i).is_none() => Doing::Interrupted,
            Task::Train(_) | Task::Wait(_) => Doing::Waiting,
        };
        let headline = state::headline(&run, preferred);
        let ended = observed.last(i).map_or(0, |reached| reached.trajectories);
        let (metric, value) = headline.unzip();
        trials.push(TrialStatus {
            index: trial.index,
            trial: trial.name(),
            state,
            trajectories: state::trajectories(&run, trial.batch).max(ended).min(trial.trajectories),
            of: trial.trajectories,
            metric,
            value,
        });
    }
    let count = |state: Doing| trials.iter().filter(|trial| trial.state == state).count();
    let counts = ALL.iter().map(|&state| (state.word().to_owned(), count(state).into())).collect();
    let rung = |rung: &Rung| {
        serde_json::json!({
            "trajectories": rung.budget, "trials": rung.trials, "settled": rung.settled
        })
    };
    Ok(Status {
        sweep: sweep.path().display().to_string(),
        counts,
        rungs: rungs.iter().map(rung).collect(),
        best: best.map(|i| sweep.trials[i].name()),
        trials,
    })
}

impl Status {
    /// One JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a status is JSON") + "\n"
    }

    /// For people: counts, then a line per trial.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let counts: Vec<String> =
            self.counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
        let _ =
            writeln!(out, "{}: {} trials: {}", self.sweep, self.trials.len(), counts.join(", "));
        for rung in &self.rungs {
            let _ = writeln!(
                out,
                "rung of {} trajectories: {} of {} trials there",
                rung["trajectories"], rung["settled"], rung["trials"]
            );
        }
        if let Some(best) = &self.best {
            let _ = writeln!(out, "best: {best}");
        }
        let headline = |trial: &TrialStatus| match (&trial.metric, trial.value) {
            (Some(metric), Some(value)) => format!("{metric} {}", short(value)),
            _ => String::new(),
        };
        let headlines: Vec<String> = self.trials.iter().map(headline).collect();
        let width = headlines.iter().map(|headline| headline.chars().count()).max().unwrap_or(0);
        // Names last: they may be longer than a terminal is wide.
        for (trial, headline) in self.trials.iter().zip(headlines) {
            let percent = 100.0 * trial.trajectories as f64 / trial.of.max(1) as f64;
            let _ = writeln!(
                out,
                "{:>5}  {:11}  {percent:>3.0} %  {headline:width$}  {}",
                trial.index,
                trial.state.word(),
                trial.trial,
            );
        }
        out
    }
}
