//! `gfn train`: create or resume a run, train, measure, save.

use std::collections::BTreeMap;
use std::time::Instant;

use gfn_core::RewardError;
use gfn_core::learn::{Report, Snapshot, TrainError};
use gfn_core::metric::MetricError;
use serde_json::json;

use super::{load_spec, print};
use crate::args::Train;
use crate::error::{BUG, DATA, DIVERGED, DONE, Failure, INTERRUPTED};
use crate::progress::Progress;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::directory::{RunDirectory, differences, move_aside};
use crate::run::manifest::Manifest;
use crate::run::metrics::{self, Clocks};
use crate::run::samples;
use crate::run::table::{Table, cell, cut_back};
use crate::signals::Stop;
use crate::spec::Spec;
use crate::{Experiment, Registry};

/// A larger share of samples unlike those that a reward was learned from is worth a warning.
const MOSTLY_LIKE: f64 = 1.0 / 3.0;

pub fn run(registry: &Registry, args: &Train) -> Result<(), Failure> {
    let spec = load_spec(registry, &args.spec)?;
    // Everything about the spec is checked before anything is written.
    let experiment = Experiment::build(registry, &spec)?;
    let path = args.out.join(&spec.name).join(format!("s{}", spec.seed));
    if args.fresh
        && let Some(aside) = move_aside(&path)?
    {
        tracing::info!("moved the existing run to {}", aside.display());
    }
    let directory = RunDirectory::open(&path)?;
    let resolved = spec.resolved();
    check_same_spec(&directory, &spec, &resolved)?;

    let data = data_hashes(&experiment);
    let mut session = Session::begin(directory, &spec, experiment, data, args)?;
    if session.finished() {
        tracing::info!("done already: {}", path.display());
    } else {
        // Inside the thread pool: from outside, every parallel part would wait for a thread to
        // wake up and another to report back.
        rayon::scope(|_| session.train())?;
    }
    if args.json {
        print(&format!("{}\n", session.summary()))
    } else {
        print(&format!("{}\n", path.display()))
    }
}

/// SHA-256 of the data files, under names that do not depend on where they lie.
fn data_hashes(experiment: &Experiment) -> BTreeMap<String, String> {
    let hashes = experiment.data.iter().enumerate();
    hashes.map(|(i, (_, hash))| (i.to_string(), hash.clone())).collect()
}

/// Keys that may change between sessions of a run: they do not change what is trained, or
/// measured at a given iteration.
fn may_change(key: &str, spec: &Spec, old: &str, new: &str) -> bool {
    match key {
        "checkpoint.every" | "checkpoint.keep" | "train.log_every" => true,
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
fn check_same_spec(
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
    let old: toml::Table = toml::from_str(&old).map_err(|error| {
        Failure::usage(format!("`{}` is damaged: {}", file.display(), error.message()))
            .help("move the run aside and start anew with --fresh")
    })?;
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

/// One stretch of training in a run directory.
struct Session<'a> {
    directory: RunDirectory,
    spec: &'a Spec,
    experiment: Experiment,
    data: BTreeMap<String, String>,
    args: &'a Train,
    manifest: Manifest,
    metrics: Table,
    log: Table,
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

impl<'a> Session<'a> {
    fn begin(
        directory: RunDirectory,
        spec: &'a Spec,
        mut experiment: Experiment,
        data: BTreeMap<String, String>,
        args: &'a Train,
    ) -> Result<Self, Failure> {
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
        let tables = [("metrics.csv", spec.eval.every), ("train.csv", spec.train.log_every)];
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
        let header = metrics::header(&experiment.columns);
        let metrics = Table::open(&directory.file("metrics.csv"), &header)?;
        let log = Table::open(&directory.file("train.csv"), &log_header())?;
        let parameters = experiment.n_params();
        let from = step.unwrap_or(0);
        let manifest = Manifest::begin(&directory, spec, parameters, &experiment.data, from);
        let score = resumed.as_ref().and_then(|checkpoint| checkpoint.index.score);
        let last_row = metrics::last_row(&directory.file("metrics.csv"), &experiment.columns);
        let session = Self {
            directory,
            spec,
            experiment,
            data,
            args,
            manifest,
            metrics,
            log,
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

    fn finished(&self) -> bool {
        let step = self.experiment.trainer.counters().step;
        self.directory.file("DONE").exists() && step >= self.experiment.trainer.n_steps()
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall_s: self.earlier.wall_s + self.start.elapsed().as_secs_f64(),
            train_s: self.earlier.train_s + self.training_s,
        }
    }

    fn train(&mut self) -> Result<(), Failure> {
        let stop = Stop::listen()
            .map_err(|error| Failure::new(BUG, format!("cannot listen to signals: {error}")))?;
        self.directory.remove("DONE");
        self.directory.remove("FAILED");
        self.manifest.write(&self.directory)?;
        let outcome = self.iterate(&stop);
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
        let mut progress = Progress::new(self.args.quiet, counters, total, self.spec.train.batch);
        // An evaluation is due at the start, and where the last session ended before its row was
        // written.
        let due = first.is_multiple_of(self.spec.eval.every) || first == total;
        if due && !metrics::has_row(&self.directory.file("metrics.csv"), first) {
            self.evaluate(&mut progress, None)?;
        }
        if self.fresh {
            // From here on there is a checkpoint to come back to.
            self.save()?;
        }
        while self.experiment.trainer.counters().step < total {
            if stop.requested() {
                progress.finish();
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
            progress.step(&report);
            let step = report.step + 1;
            if step.is_multiple_of(self.spec.train.log_every) || step == total {
                let log_z = self.experiment.trainer.log_z();
                self.log.row(&log_row(&report, log_z, self.clocks()))?;
            }
            if step.is_multiple_of(self.spec.eval.every) || step == total {
                self.evaluate(&mut progress, Some(&report))?;
            }
            if step.is_multiple_of(self.spec.checkpoint.every) || step == total {
                self.save()?;
            }
        }
        progress.finish();
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

    fn evaluate(
        &mut self,
        progress: &mut Progress,
        report: Option<&Report>,
    ) -> Result<(), Failure> {
        let values = match self.experiment.trainer.evaluate() {
            Ok(values) => values,
            Err(MetricError::Reward(error)) => return Err(self.without_reward(&error)),
            Err(error) => return Err(error.into()),
        };
        if let Some(what) = self.broken(&values) {
            return Err(self.diverged(&what));
        }
        let counters = self.experiment.trainer.counters();
        let row = metrics::row(self.spec, &counters, self.clocks(), &values);
        self.metrics.row(&row)?;
        self.last_row = metrics::named(&self.experiment.columns, &values);
        let headlines = metrics::headlines(&self.experiment.columns, &values);
        self.score = metrics::score(&headlines);
        progress.evaluated(&counters, report, &headlines);
        Ok(())
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

    fn summary(&self) -> serde_json::Value {
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

fn log_header() -> Vec<String> {
    let names = [
        "step",
        "loss",
        "backward_loss",
        "log_z",
        "grad_norm",
        "lr",
        "backward_lr",
        "epsilon",
        "seconds",
        "train_s",
    ];
    names.map(str::to_owned).to_vec()
}

fn log_row(report: &Report, log_z: Option<f64>, clocks: Clocks) -> Vec<String> {
    vec![
        (report.step + 1).to_string(),
        cell(report.loss),
        cell(report.backward_loss),
        cell(log_z),
        cell(report.grad_norm),
        cell(report.lr),
        cell(report.backward_lr),
        cell(report.epsilon),
        format!("{:.3}", clocks.wall_s),
        format!("{:.3}", clocks.train_s),
    ]
}
