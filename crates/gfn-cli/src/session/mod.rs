//! A run in its directory: created or resumed, trained, measured, saved.

mod json_lines;
mod progress;
mod same_spec;
pub mod sink;
mod tables;
mod tensorboard;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use gfn_core::RewardError;
use gfn_core::learn::{Report, Snapshot, TrainError};
use gfn_core::metric::MetricError;
use serde_json::json;

use crate::error::{DATA, DIVERGED, DONE, Failure, INTERRUPTED};
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::directory::{RunDirectory, move_aside};
use crate::run::manifest::Manifest;
use crate::run::metrics::{self, Clocks};
use crate::run::samples;
use crate::run::table::{cut_back, last_value};
use crate::signals::Stop;
use crate::spec::Spec;
use crate::{Experiment, Registry};

use json_lines::{JsonLines, Kept};
use progress::Progress;
use same_spec::check_same_spec;
use sink::{Evaluation, Iteration, Sink};
use tables::{MetricTable, TRAIN_TABLE, TrainTable};
use tensorboard::TensorBoard;

/// A larger share of samples unlike those that a reward was learned from is worth a warning.
const MOSTLY_LIKE: f64 = 1.0 / 3.0;

/// Where and how a session runs.
pub struct Options<'a> {
    /// The run lies in `<out>/<name>/s<seed>`.
    pub out: &'a Path,
    /// Whether a run that is there already is moved aside.
    pub fresh: bool,
    /// Whether nothing is shown on stderr.
    pub quiet: bool,
}

/// SHA-256 of the data files, under names that do not depend on where they lie.
fn data_hashes(experiment: &Experiment) -> BTreeMap<String, String> {
    let hashes = experiment.data.iter().enumerate();
    hashes.map(|(i, (_, hash))| (i.to_string(), hash.clone())).collect()
}

/// One stretch of training in a run directory.
pub struct Session {
    directory: RunDirectory,
    spec: Spec,
    experiment: Experiment,
    data: BTreeMap<String, String>,
    manifest: Manifest,
    sinks: Vec<Box<dyn Sink>>,
    quiet: bool,
    /// Seconds of earlier sessions.
    earlier: Clocks,
    start: Instant,
    /// Seconds of this session in iterations.
    training_s: f64,
    /// Score of the last evaluation, lower is better.
    score: Option<f64>,
    last_row: BTreeMap<String, f64>,
    /// Whether there was no checkpoint to start from.
    fresh: bool,
}

impl Session {
    /// Opens the run of a spec, new or interrupted, and goes back to its last checkpoint. Everything about
    /// the spec is checked before anything is written.
    ///
    /// # Errors
    /// With the key that does not fit, the data that is missing, or what is wrong with the directory.
    pub fn open(registry: &Registry, spec: Spec, options: &Options<'_>) -> Result<Self, Failure> {
        let mut experiment = Experiment::build(registry, &spec)?;
        let path = options.out.join(&spec.name).join(format!("s{}", spec.seed));
        if options.fresh
            && let Some(aside) = move_aside(&path)?
        {
            tracing::info!("moved the existing run to {}", aside.display());
        }
        let directory = RunDirectory::open(&path)?;
        check_same_spec(registry, &directory, &spec, &spec.resolved())?;
        let data = data_hashes(&experiment);
        checkpoint::recover(&directory.checkpoints())?;
        let resumed = latest(&directory)?;
        let mut earlier = Clocks::default();
        let mut step = None;
        if let Some(Checkpoint { snapshot, index }) = &resumed {
            if index.data != data {
                return Err(Failure::new(
                    DATA,
                    format!("the data of the run `{}` has changed", directory.path().display()),
                )
                .help("restore the old file, or start anew with --fresh"));
            }
            experiment.trainer.restore(snapshot).map_err(|error| {
                Failure::usage(format!(
                    "the checkpoint {} of `{}` does not fit: {error}",
                    snapshot.counters.step,
                    directory.path().display()
                ))
                .help("start anew with --fresh")
            })?;
            earlier = metrics::clocks(directory.path(), snapshot.counters.step);
            step = Some(snapshot.counters.step);
        }
        let tables = [(metrics::TABLE, spec.eval.every), (TRAIN_TABLE, spec.train.log_every)];
        for (name, every) in tables {
            match step {
                Some(step) => {
                    // The end of a run that is now trained for longer has a row that a longer run
                    // does not have.
                    let due = step.is_multiple_of(every) || step == experiment.trainer.n_steps();
                    cut_back(&directory.file(name), if due { step } else { step - 1 })?;
                }
                None => directory.remove(name),
            }
        }
        directory.write("metrics.schema.json", &metrics::schema(&experiment.columns))?;
        let last = |name| {
            let step = last_value(&directory.file(name), "step", u64::MAX);
            step.map(|step| step as u64)
        };
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        // Before the tables, which say what is done: where a session is killed in between, the next one
        // cuts back to them.
        if spec.log.json_lines {
            let kept = Kept { iteration: last(TRAIN_TABLE), evaluation: last(metrics::TABLE) };
            sinks.push(Box::new(JsonLines::open(&directory, kept)?));
        }
        if spec.log.tensorboard {
            sinks.push(Box::new(TensorBoard::open(&directory, step)?));
        }
        sinks.push(Box::new(TrainTable::open(&directory)?));
        sinks.push(Box::new(MetricTable::open(&directory, &experiment.columns)?));
        let parameters = experiment.n_params();
        let from = step.unwrap_or(0);
        let manifest = Manifest::begin(&directory, &spec, parameters, &experiment.data, from);
        let score = resumed.as_ref().and_then(|checkpoint| checkpoint.index.score);
        let last_row = metrics::last_row(&directory.file(metrics::TABLE), &experiment.columns);
        let session = Self {
            directory,
            spec,
            experiment,
            data,
            manifest,
            sinks,
            quiet: options.quiet,
            earlier,
            start: Instant::now(),
            training_s: 0.0,
            score,
            last_row,
            fresh: step.is_none(),
        };
        if let Some(step) = step.filter(|&step| step > 0 && !session.finished()) {
            tracing::info!("resuming {} at iteration {step}", session.directory.path().display());
        }
        Ok(session)
    }

    /// The run directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Adds something that hears of everything that is done from now on.
    pub fn tell(&mut self, sink: impl Sink + 'static) {
        self.sinks.push(Box::new(sink));
    }

    /// Whether all was done before.
    pub fn finished(&self) -> bool {
        let step = self.experiment.trainer.counters().step;
        self.directory.file("DONE").exists() && step >= self.experiment.trainer.n_steps()
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall_s: self.earlier.wall_s + self.start.elapsed().as_secs_f64(),
            train_s: self.earlier.train_s + self.training_s,
        }
    }

    /// Trains to the end, or until `stop` asks to go no further.
    ///
    /// # Errors
    /// When it was interrupted, diverged, or something cannot be computed or written; what was done is saved.
    pub fn train(&mut self, stop: &Stop) -> Result<(), Failure> {
        self.directory.remove("DONE");
        self.directory.remove("FAILED");
        self.manifest.write(&self.directory)?;
        let outcome = self.iterate(stop);
        self.sinks.iter_mut().for_each(|sink| sink.finish());
        let exit = outcome.as_ref().err().map_or(DONE, Failure::exit_code);
        let computed = self.experiment.reward.computed();
        self.manifest.end(exit, self.experiment.trainer.counters().step, computed);
        if let Err(failure) = &outcome
            && exit != INTERRUPTED
        {
            let _ = self.directory.write("FAILED", failure.render().as_bytes());
        }
        let written = self.manifest.write(&self.directory);
        outcome.and(written)
    }

    fn iterate(&mut self, stop: &Stop) -> Result<(), Failure> {
        let total = self.experiment.trainer.n_steps();
        let counters = self.experiment.trainer.counters();
        let first = counters.step;
        if !self.quiet {
            self.tell(Progress::new(counters, total, self.spec.train.batch));
        }
        // An evaluation is due at the start, and where the last session ended before its row was
        // written.
        let due = first.is_multiple_of(self.spec.eval.every) || first == total;
        if due && !metrics::has_row(&self.directory.file(metrics::TABLE), first) {
            self.evaluate(None)?;
        }
        if self.fresh {
            // From here on there is a checkpoint to come back to.
            self.save()?;
        }
        while self.experiment.trainer.counters().step < total {
            if stop.requested() {
                self.save()?;
                let step = self.experiment.trainer.counters().step;
                return Err(Failure::new(
                    INTERRUPTED,
                    format!("interrupted at iteration {step}; run the same command to resume"),
                ));
            }
            let begun = Instant::now();
            let report = self.experiment.trainer.step().map_err(|error| self.failed(error))?;
            self.training_s += begun.elapsed().as_secs_f64();
            let step = report.step + 1;
            let recorded = step.is_multiple_of(self.spec.train.log_every) || step == total;
            let (log_z, clocks) = (self.experiment.trainer.log_z(), self.clocks());
            let iteration = Iteration { report: &report, log_z, clocks, recorded };
            self.sinks.iter_mut().try_for_each(|sink| sink.iteration(&iteration))?;
            if step.is_multiple_of(self.spec.eval.every) || step == total {
                self.evaluate(Some(&report))?;
            }
            if step.is_multiple_of(self.spec.checkpoint.every) || step == total {
                self.save()?;
            }
        }
        self.write_samples()?;
        let summary = serde_json::to_vec_pretty(&self.summary()).expect("a summary is JSON");
        self.directory.write("DONE", &summary)
    }

    fn failed(&mut self, error: TrainError) -> Failure {
        match error {
            TrainError::Diverged { .. } => self.diverged(&error.to_string()),
            TrainError::Reward(error) => self.without_reward(&error),
        }
    }

    /// Exit 3, with everything that was computed before the reward failed saved.
    fn without_reward(&mut self, error: &RewardError) -> Failure {
        let failure = Failure::new(DATA, error.to_string());
        let step = self.experiment.trainer.counters().step;
        match self.save() {
            Ok(()) => failure.help(format!(
                "nothing is lost: iteration {step} is saved; run the same command again to go on"
            )),
            Err(_) => failure,
        }
    }

    fn evaluate(&mut self, report: Option<&Report>) -> Result<(), Failure> {
        let values = match self.experiment.trainer.evaluate() {
            Ok(values) => values,
            Err(MetricError::Reward(error)) => return Err(self.without_reward(&error)),
            Err(error) => return Err(error.into()),
        };
        if let Some(what) = self.broken(&values) {
            return Err(self.diverged(&what));
        }
        let counters = self.experiment.trainer.counters();
        let (clocks, columns) = (self.clocks(), &self.experiment.columns);
        self.last_row = metrics::named(columns, &values);
        self.score = metrics::score(&metrics::headlines(columns, &values));
        let evaluation = Evaluation {
            counters: &counters,
            clocks,
            columns,
            values: &values,
            report,
            spec: &self.spec,
        };
        self.sinks.iter_mut().try_for_each(|sink| sink.evaluation(&evaluation))
    }

    /// Writes a checkpoint and removes those that are no longer kept.
    fn save(&mut self) -> Result<(), Failure> {
        let dir = self.directory.checkpoints();
        let step = self.experiment.trainer.counters().step;
        // A score belongs to the iteration that was evaluated.
        let evaluated =
            step.is_multiple_of(self.spec.eval.every) || step == self.experiment.trainer.n_steps();
        let score = self.score.filter(|_| evaluated);
        let snapshot = self.experiment.trainer.snapshot();
        if let Some(name) = snapshot.non_finite() {
            return Err(self.diverged(&format!("`{name}` is not finite at iteration {step}")));
        }
        // Parameters may be finite and so large that the network is not.
        if let Some(what) = self.broken(&[]) {
            return Err(self.diverged(&what));
        }
        checkpoint::write(&dir, &snapshot, score, &self.data)?;
        checkpoint::prune(&dir, self.spec.checkpoint.keep);
        Ok(())
    }

    /// What shows that training has diverged: a metric that is NaN, or a policy that is not finite.
    fn broken(&self, values: &[Option<f64>]) -> Option<String> {
        let step = self.experiment.trainer.counters().step;
        let mut named = self.experiment.columns.iter().zip(values);
        if let Some((column, _)) = named.find(|(_, value)| value.is_some_and(f64::is_nan)) {
            return Some(format!("`{}` is NaN at iteration {step}", column.name));
        }
        let finite = self.experiment.policy_is_finite();
        (!finite).then(|| format!("P_F or P_B is not finite at iteration {step}"))
    }

    /// Exit 4, with what is left to go on from.
    fn diverged(&mut self, what: &str) -> Failure {
        let failure = Failure::new(DIVERGED, format!("training diverged: {what}"));
        let left = match self.last_good() {
            Some(step) => format!("the last good checkpoint is that of iteration {step}"),
            None => "there is no good checkpoint".to_owned(),
        };
        failure
            .help(left)
            .help("try a lower train.lr, train.clip_norm, or objective.penalty = \"huber\"")
    }

    /// The last checkpoint that can be evaluated: one may have been saved after the step that broke
    /// the policy and before anybody could tell. The trainer stays where it is.
    fn last_good(&mut self) -> Option<u64> {
        let now = self.experiment.trainer.snapshot();
        let dir = self.directory.checkpoints();
        let good = checkpoint::list(&dir).into_iter().rev().find(|step| {
            let read = checkpoint::read(&dir.join(step.to_string()));
            read.is_ok_and(|checkpoint| self.is_good(&checkpoint.snapshot))
        });
        let back = self.experiment.trainer.restore(&now);
        good.filter(|_| back.is_ok())
    }

    fn is_good(&mut self, snapshot: &Snapshot) -> bool {
        let trainer = &mut self.experiment.trainer;
        let values = match trainer.restore(snapshot) {
            Ok(()) => trainer.evaluate().ok(),
            Err(_) => None,
        };
        values.is_some_and(|values| self.broken(&values).is_none())
    }

    /// Fresh samples of the final policy, or where the chains go on to, in samples.csv, and what they
    /// show together.
    fn write_samples(&self) -> Result<(), Failure> {
        let samples = samples::draw(&self.experiment, self.spec.eval.samples, self.spec.eval.seed)?;
        if let Some(share) = samples::share_unlike(&self.experiment, &samples)
            && share > MOSTLY_LIKE
        {
            tracing::warn!(
                "{:.0} % of samples have substructures that the reward has never seen: their values \
                 are extrapolated (column unlike_training of samples.csv)",
                100.0 * share
            );
        }
        let mut files = vec![("samples.csv", samples::csv(&self.experiment, &samples)?)];
        files.extend(samples::artifacts(&self.experiment, &samples));
        files.iter().try_for_each(|(name, text)| self.directory.write(name, text.as_bytes()))
    }

    /// What was spent, and the last value of every metric.
    pub fn summary(&self) -> serde_json::Value {
        let counters = self.experiment.trainer.counters();
        let metrics: serde_json::Map<String, serde_json::Value> = self
            .experiment
            .columns
            .iter()
            .map(|column| (column.name.clone(), json!(self.last_row.get(&column.name))))
            .collect();
        let clocks = self.clocks();
        let milliseconds = |seconds: f64| (seconds * 1e3).round() / 1e3;
        json!({
            "run": self.directory.path().display().to_string(),
            "step": counters.step,
            "trajectories": counters.trajectories,
            "wall_s": milliseconds(clocks.wall_s),
            "train_s": milliseconds(clocks.train_s),
            "metrics": metrics,
        })
    }
}

/// The newest checkpoint that can be read. Damaged ones are skipped with a warning: training
/// again from an older one gives the same results.
fn latest(directory: &RunDirectory) -> Result<Option<Checkpoint>, Failure> {
    let dir = directory.checkpoints();
    let steps = checkpoint::list(&dir);
    for step in steps.iter().rev() {
        let path = dir.join(step.to_string());
        match checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(damage) => {
                tracing::warn!("the checkpoint `{}` is not used: {damage}", path.display())
            }
        }
    }
    if steps.is_empty() {
        return Ok(None);
    }
    Err(Failure::usage(format!("no checkpoint in `{}` can be read", dir.display()))
        .help("move the run aside and start anew with --fresh"))
}
