//! From a spec with `[sweep]` to a table of trials, which only ever grows.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::SweepDirectory;
use super::halving::{Halving, configurations};
use super::settings::{Configuration, HalvingSettings, Method, SweepSettings};
use super::trial::{Overrides, Trial, read_table, write_table};
use crate::Registry;
use crate::error::Failure;
use crate::run::directory::{differences, write_atomically};
use crate::spec::{Source, Spec, read_text};

/// What planning has come to.
pub struct Plan {
    /// The sweep.
    pub sweep: SweepDirectory,
    /// Trials that were not there before.
    pub new: usize,
    /// Configurations that were drawn more than once.
    pub repeated: usize,
}

impl Plan {
    /// For people: how many trials of what, and what they cost.
    pub fn summary(&self) -> String {
        let trials = &self.sweep.trials;
        let groups = configurations(trials).len();
        let mut text = format!(
            "{}: {} trials ({groups} configurations)",
            self.sweep.path().display(),
            trials.len()
        );
        if self.new < trials.len() {
            text += &format!(", {} of them new", self.new);
        }
        if self.repeated > 0 {
            text += &format!(", {} drawn again and left out", self.repeated);
        }
        let full: u64 = trials.iter().map(|trial| trial.trajectories).sum();
        let Some(halving) = &self.sweep.halving else {
            return text + &format!("\n{full} trajectories in all");
        };
        let (rungs, cost) = halving.cost(trials);
        for (i, (budget, n)) in rungs.iter().enumerate() {
            text += &format!("\nrung {}: {n} trials to {budget} trajectories", i + 1);
        }
        let percent = 100.0 * cost as f64 / full.max(1) as f64;
        text + &format!(
            "\n{cost} trajectories in all, {percent:.1} % of the {full} of all trials to their end"
        )
    }
}

/// A spec with `[sweep]`, as given.
pub(super) struct Given<'a> {
    registry: &'a Registry,
    origin: String,
    text: String,
    stem: &'a str,
    set: &'a [String],
    source: Source,
}

/// Plans a sweep, or more of one that is there already, in `out/<name>`.
///
/// # Errors
/// When the spec or one of its trials is none, or when trials that have run would mean something
/// else.
pub fn plan(registry: &Registry, spec: &Path, set: &[String], out: &Path) -> Result<Plan, Failure> {
    let (text, stem) = read_text(spec)?;
    let given = Given::new(registry, &spec.display().to_string(), text, stem, set)?;
    let settings = given.settings()?;
    let (name, mut trials, repeated) = given.trials(&settings)?;
    let path = out.join(&name);
    let old = given.earlier(&path)?;
    let new = match &old {
        Some(old) => given.merge(old, &mut trials, settings.halving.as_ref())?,
        None => {
            forget_failures(&path);
            trials.len()
        }
    };
    let text = given.planned()?;
    write(&path, &text, &trials)?;
    Ok(Plan { sweep: SweepDirectory::open(&path)?, new, repeated })
}

/// Where a spec's sweep lies or would lie.
///
/// # Errors
/// When the spec cannot be read.
pub fn place(spec: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let (text, stem) = read_text(spec)?;
    let source = Source::new(&spec.display().to_string(), text, &[])?;
    let table = source.table()?;
    let name = table.get("name").and_then(|name| name.get_ref().as_str()).unwrap_or(stem);
    Ok(out.join(name))
}

/// Notes of failures before anything ran may be of trials with other numbers.
fn forget_failures(sweep: &Path) {
    let notes = std::fs::read_dir(sweep.join("logs")).into_iter().flatten().filter_map(Result::ok);
    for note in notes.map(|note| note.path()) {
        if note.extension().is_some_and(|extension| extension == "failed") {
            let _ = std::fs::remove_file(note);
        }
    }
}

fn write(path: &Path, spec: &str, trials: &[Trial]) -> Result<(), Failure> {
    let refuse = |error: std::io::Error| {
        Failure::usage(format!("cannot write to the sweep directory `{}`: {error}", path.display()))
            .help("choose another place with --out DIR")
    };
    std::fs::create_dir_all(path.join("logs")).map_err(refuse)?;
    let file = path.join("sweep.toml");
    if std::fs::read_to_string(&file).ok().as_deref() != Some(spec) {
        let probe = path.join(".sweep.toml.partial");
        std::fs::write(&probe, "").map_err(refuse)?;
        write_atomically(&file, spec.as_bytes())?;
    }
    let file = path.join("trials.csv");
    let same = file.is_file() && read_table(&file).is_ok_and(|planned| planned == trials);
    if same { Ok(()) } else { write_table(&file, trials) }
}

impl<'a> Given<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        origin: &str,
        text: String,
        stem: &'a str,
        set: &'a [String],
    ) -> Result<Self, Failure> {
        let source = Source::new(origin, text.clone(), set)?;
        Ok(Self { registry, origin: origin.to_owned(), text, stem, set, source })
    }

    fn settings(&self) -> Result<SweepSettings, Failure> {
        SweepSettings::take(&self.source, &mut self.source.table()?)
    }

    /// The spec with what some trial sets.
    pub(super) fn load(&self, overrides: &Overrides) -> Result<Spec, Failure> {
        let mut all = self.set.to_vec();
        all.extend(overrides.arguments());
        Spec::parse(self.registry, &self.origin, self.text.clone(), self.stem, &all)
    }

    /// The text of sweep.toml: as given, or with the overrides of the command line in it.
    fn planned(&self) -> Result<String, Failure> {
        if self.set.is_empty() {
            return Ok(self.text.clone());
        }
        let set: Vec<String> = self.set.iter().map(|set| format!("{set:?}")).collect();
        let text = toml::to_string(&self.values()?).expect("a spec is TOML");
        Ok(format!("# {} with -s {}\n{text}", self.origin, set.join(" -s ")))
    }

    /// Everything that is written in the spec, with the overrides of the command line.
    fn values(&self) -> Result<toml::Table, Failure> {
        use serde::Deserialize;
        let table = toml::Spanned::new(0..0, self.source.table()?);
        toml::Table::deserialize(toml::de::Deserializer::from(table))
            .map_err(|error| self.source.toml_failure(&error, "", &[]))
    }

    /// The name of the sweep, its trials, and how many configurations were drawn again.
    fn trials(&self, settings: &SweepSettings) -> Result<(String, Vec<Trial>, usize), Failure> {
        let all = settings.configurations(&self.source)?;
        let mut resolved: HashMap<(String, Option<u64>), usize> = HashMap::new();
        let mut chosen: Vec<(Configuration, Spec)> = Vec::new();
        let mut repeated = 0;
        for (i, configuration) in all.into_iter().enumerate() {
            let spec = self
                .load(&configuration.overrides)
                .map_err(|failure| self.explain(failure, i, &configuration))?;
            let same = (spec.resolved().to_string(), configuration.seed);
            if let Some(first) = resolved.insert(same, i) {
                if settings.method == Method::Random {
                    repeated += 1;
                    continue;
                }
                let mut failure = Failure::usage(format!(
                    "the configurations {} and {} of the sweep are the same: {}",
                    first + 1,
                    i + 1,
                    configuration.overrides
                ));
                if let Some(origin) = configuration.origins.last() {
                    failure = failure.at(self.source.place(origin.span.clone()));
                }
                return Err(failure.help("list every value once; more of the same are seeds"));
            }
            if let Some(halving) = &settings.halving {
                self.check_halving(&spec, halving, &configuration)?;
            }
            chosen.push((configuration, spec));
        }
        let Some((_, first)) = chosen.first() else {
            return Err(Failure::usage("a sweep without trials"));
        };
        let name = first.name.clone();
        // All configurations with the first seed, then all with the second: more seeds go on
        // where the table ends, and a sweep that is stopped early has something of everything.
        let seeds: Vec<Option<u64>> = match &settings.seeds {
            Some(seeds) => seeds.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut trials = Vec::with_capacity(chosen.len() * seeds.len());
        for (i, seed) in seeds.iter().enumerate() {
            for (configuration, spec) in &chosen {
                if configuration.seed.is_some() && i > 0 {
                    continue;
                }
                trials.push(Trial {
                    index: trials.len(),
                    folder: configuration.named.folder(&name),
                    seed: configuration.seed.or(*seed).unwrap_or(spec.seed),
                    trajectories: spec.train.trajectories,
                    batch: spec.train.batch as u64,
                    overrides: configuration.overrides.clone(),
                });
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = trials.iter().find(|trial| !names.insert(trial.name())) {
            return Err(Failure::usage(format!(
                "the sweep has two trials of the name `{}`",
                twice.name()
            ))
            .help("list every trial once, and give different ones different labels"));
        }
        Ok((name, trials, repeated))
    }

    /// A failure of a trial's spec, said of the axis that brings it about.
    fn explain(&self, failure: Failure, i: usize, configuration: &Configuration) -> Failure {
        let trial = format!("configuration {} of the sweep: {}", i + 1, configuration.overrides);
        let Some(place) = failure.place() else { return failure.help(trial) };
        let text = place.text.trim();
        let key = text.split_once(" = ").map(|(key, _)| key);
        let origin = key.filter(|_| place.origin == "command line").and_then(|key| {
            let set = |argument: &String| {
                argument.split_once('=').is_some_and(|(name, _)| name.trim() == key)
            };
            let own = configuration.overrides.keys().any(|own| own == key);
            let origins = configuration.origins.iter();
            let found = origins.rev().find(|origin| origin.keys.iter().any(|own| own == key));
            found.filter(|_| own && !self.set.iter().any(set))
        });
        match origin {
            Some(origin) => {
                let place = self.source.place(origin.span.clone());
                failure.at(place).help(format!("set by the axis `{}` in {trial}", origin.axis))
            }
            None => failure.help(trial),
        }
    }

    fn check_halving(
        &self,
        spec: &Spec,
        halving: &HalvingSettings,
        configuration: &Configuration,
    ) -> Result<(), Failure> {
        let at = |table: &str, key: &str| self.source.place(self.source.span_of(table, Some(key)));
        if configuration.overrides.keys().any(|key| key == "train.trajectories") {
            return Err(Failure::usage("an axis over train.trajectories beside halving")
                .at(at("sweep", "halving"))
                .help("halving decides how long trials are trained, up to train.trajectories"));
        }
        if spec.train.depends_on_horizon() {
            return Err(Failure::usage(format!(
                "halving trains runs on, which the schedules of {} do not allow: they depend on how \
                 long training takes in all",
                configuration.overrides
            ))
            .at(at("sweep", "halving"))
            .help("use constant or exponential schedules of learning rate and epsilon"));
        }
        let (first, all) = (halving.first_trajectories, spec.train.trajectories);
        if first >= all {
            return Err(Failure::usage(format!(
                "the first budget of {first} trajectories is not below train.trajectories = {all}"
            ))
            .at(at("sweep", "halving")));
        }
        Ok(())
    }

    /// The sweep that was planned in a folder before, unless nothing of it has run.
    fn earlier(&self, path: &Path) -> Result<Option<SweepDirectory>, Failure> {
        if !path.join("trials.csv").is_file() {
            return Ok(None);
        }
        let old = SweepDirectory::open(path)?;
        let ran = old.trials.iter().any(|trial| old.run(trial).exists());
        Ok(ran.then_some(old))
    }

    /// Gives trials of an earlier plan their old numbers, and new ones numbers of their own;
    /// returns how many are new.
    fn merge(
        &self,
        old: &SweepDirectory,
        trials: &mut [Trial],
        halving: Option<&HalvingSettings>,
    ) -> Result<usize, Failure> {
        let kept = |what: &str| {
            Failure::usage(format!(
                "trials of `{}` have run already, and {what}",
                old.path().display()
            ))
            .help("give this sweep another name or --out, or move the old one aside")
        };
        let budgets = |halving: Option<&Halving>| {
            halving.and_then(|h| {
                Some(h.budgets(&Trial {
                    trajectories: u64::MAX,
                    batch: 1,
                    ..old.trials.first()?.clone()
                }))
            })
        };
        let new_halving = halving.cloned().map(Halving::new);
        if old.halving.is_some() && budgets(old.halving.as_ref()) != budgets(new_halving.as_ref()) {
            return Err(kept("the rungs of their search would be others"));
        }
        // What a trial sets says which it is; labels may have been added or changed since.
        let key = |trial: &Trial| (trial.overrides.to_string(), trial.seed);
        let known: HashMap<(String, u64), usize> =
            trials.iter().enumerate().map(|(i, trial)| (key(trial), i)).collect();
        let mut is_old = vec![false; trials.len()];
        let mut next = 0;
        for trial in &old.trials {
            next = next.max(trial.index + 1);
            match known.get(&key(trial)) {
                Some(&i) => {
                    trials[i].index = trial.index;
                    if old.run(trial).exists() {
                        trials[i].folder.clone_from(&trial.folder);
                    }
                    is_old[i] = true;
                }
                None if old.run(trial).exists() => {
                    return Err(kept(&format!(
                        "the trial {} ({}) would no longer be one of them",
                        trial.index,
                        trial.name()
                    )));
                }
                None => {}
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = trials.iter().find(|trial| !names.insert(trial.name())) {
            return Err(kept(&format!("the name {} would be that of another one", twice.name()))
                .help("give new values labels of their own"));
        }
        self.check_same(old)?;
        for (trial, is_old) in trials.iter_mut().zip(&is_old) {
            if !is_old {
                trial.index = next;
                next += 1;
            }
        }
        trials.sort_by_key(|trial| trial.index);
        Ok(is_old.iter().filter(|is_old| !**is_old).count())
    }

    /// Refuses a spec with which trials that have run would be others.
    fn check_same(&self, old: &SweepDirectory) -> Result<(), Failure> {
        let file = old.spec();
        let (text, stem) = read_text(&file)?;
        let before = Given::new(self.registry, &file.display().to_string(), text, stem, &[])?;
        let without_sweep = |given: &Given<'_>| -> Result<toml::Table, Failure> {
            let mut table = given.values()?;
            table.remove("sweep");
            Ok(table)
        };
        if without_sweep(&before)? == without_sweep(self)? {
            return Ok(());
        }
        for group in configurations(&old.trials) {
            let trial = &old.trials[group[0]];
            if !group.iter().any(|&i| old.run(&old.trials[i]).exists()) {
                continue;
            }
            let (then, now) = (before.load(&trial.overrides)?, self.load(&trial.overrides)?);
            let changed: Vec<String> = differences(&then.resolved(), &now.resolved())
                .into_iter()
                .filter(|(key, ..)| !may_change(key, &then, &now))
                .map(|(key, then, now)| format!("{key}: {then} -> {now}"))
                .collect();
            if !changed.is_empty() {
                return Err(Failure::usage(format!(
                    "the trial {} ({}) has run already and would be another one:\n  {}",
                    trial.index,
                    trial.name(),
                    changed.join("\n  ")
                ))
                .help("give this sweep another name or --out, or move the old one aside"));
            }
        }
        Ok(())
    }
}

/// What may differ between sessions of a run. Only the obvious: `gfn train` has the last word.
fn may_change(key: &str, then: &Spec, now: &Spec) -> bool {
    match key {
        // Trials have names and seeds of their own.
        "name" | "seed" | "checkpoint.every" | "checkpoint.keep" | "train.log_every" => true,
        "train.trajectories" => {
            let (old, new) = (then.train.trajectories, now.train.trajectories);
            let whole = old.is_multiple_of(now.train.batch as u64);
            new > old && whole && !now.train.depends_on_horizon()
        }
        _ => false,
    }
}
