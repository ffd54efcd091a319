//! Specs: TOML text with overrides → a checked [`Spec`]. Nothing outside this module sees TOML
//! text or positions.

mod chosen;
mod metrics;
mod proxy;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gfn_core::backward::BackwardAxis;
use gfn_core::learn::TrainSettings;
use gfn_core::objective::ObjectiveAxis;
use gfn_core::registry::{EnvAxis, RewardAxis};
use gfn_models::network::ModelAxis;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Registry;
use crate::error::Failure;

pub use chosen::{Chosen, Part};
pub use proxy::PROXY_TOP;
pub use source::Source;

/// The `[eval]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSettings {
    /// Metrics are evaluated every so many iterations, before the first and after the last.
    pub every: u64,
    /// Which metrics.
    pub metrics: Vec<String>,
    /// Fresh samples per evaluation.
    pub samples: usize,
    /// A CSV file (with a header) with objects in its first column, to measure correlations on instead
    /// of the reward's test objects.
    #[serde(skip_serializing_if = "no_path")]
    pub test_set: PathBuf,
    /// Whether what `test_set` lists besides objects of the environment is left out, with a note that names
    /// the lines, instead of being an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_outside: bool,
    /// Of the test objects, how many are used, spread evenly over them; or, where there are none and
    /// the space is too large to enumerate, how many are drawn: uniformly if the environment numbers
    /// its objects, else by uniform actions.
    pub test_objects: usize,
    /// Backward trajectories per test object.
    pub backward_trajectories: usize,
    /// Environments with more states are not enumerated; exact metrics are then empty.
    pub max_states: usize,
    /// Up to how many states larger environments are walked through layer by layer at every
    /// evaluation, in 8 bytes per state (counted with states that only fit the cells) and 8 per
    /// object; 0 for never. Exact, but slow: meant for `gfn eval`.
    pub max_streamed_states: usize,
    /// Seed of evaluation; independent of the training seed. Evaluations draw the same numbers for
    /// all training seeds, so the spread over these contains no noise of the evaluation itself.
    pub seed: u64,
    /// Settings of single metrics, by their names: `[eval.settings.<metric>]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, serde_json::Value>>")]
    pub settings: BTreeMap<String, toml::Table>,
}

fn no_path(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Default for EvalSettings {
    fn default() -> Self {
        let metrics =
            ["distribution", "empirical", "log_z", "elbo_eubo", "modes", "samples", "correlation"];
        Self {
            every: 500,
            metrics: metrics.map(str::to_owned).to_vec(),
            samples: 1000,
            test_set: PathBuf::new(),
            skip_outside: false,
            test_objects: 1000,
            backward_trajectories: 10,
            max_states: 3_000_000,
            max_streamed_states: 0,
            seed: 0,
            settings: BTreeMap::new(),
        }
    }
}

/// The `[checkpoint]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// Iterations between checkpoints. One is always written at the end and when interrupted.
    pub every: u64,
    /// How many of the last checkpoints are kept, besides the best.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every: 1000, keep: 2 }
    }
}

/// The `[log]` table: what is written besides the tables of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Whether events are written for TensorBoard: `tensorboard --logdir results`.
    pub tensorboard: bool,
    /// Whether log.jsonl is written: all that train.csv and metrics.csv say, a JSON object per line.
    pub json_lines: bool,
}

/// A complete experiment, checked as far as its parts can be checked one by one.
pub struct Spec {
    /// Name of the run.
    pub name: String,
    /// Seed of everything but evaluation.
    pub seed: u64,
    /// The device.
    pub device: String,
    /// The environment.
    pub env: Chosen<EnvAxis>,
    /// Its reward.
    pub reward: Chosen<RewardAxis>,
    /// The network.
    pub model: Chosen<ModelAxis>,
    /// The objective.
    pub objective: Chosen<ObjectiveAxis>,
    /// The backward strategy.
    pub backward: Chosen<BackwardAxis>,
    /// How to train.
    pub train: TrainSettings,
    /// What to measure.
    pub eval: EvalSettings,
    /// What to save.
    pub checkpoint: CheckpointSettings,
    /// What to write besides.
    pub log: LogSettings,
    source: Source,
}

/// The tables and keys at the top of a spec, in the order in which they are written out.
const TOP: [&str; 13] = [
    "name",
    "seed",
    "device",
    "env",
    "reward",
    "model",
    "objective",
    "backward",
    "train",
    "eval",
    "checkpoint",
    "log",
    "sweep",
];

impl Spec {
    /// Reads a spec file and applies overrides (`key=value`) in their order.
    ///
    /// # Errors
    /// With the place, the legal values and a suggestion.
    pub fn load(registry: &Registry, path: &Path, overrides: &[String]) -> Result<Self, Failure> {
        let (text, stem) = read_text(path)?;
        Self::parse(registry, &path.display().to_string(), text, stem, overrides)
    }

    /// Parses the text of a spec.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(
        registry: &Registry,
        origin: &str,
        text: String,
        default_name: &str,
        overrides: &[String],
    ) -> Result<Self, Failure> {
        let source = Source::new(origin, text, overrides)?;
        let mut table = source.table()?;

        check_top(&source, &table, &TOP, "a spec")?;
        let (name, seed) = name_and_seed(&source, &mut table, default_name)?;
        check_name(&source, &name)?;
        let device: Option<String> = take(&source, &mut table, "device", "device")?;
        let device = device.unwrap_or_else(|| "flex".to_owned());
        if !registry.devices.iter().any(|entry| entry.name == device) {
            let names = registry.devices.iter().map(|entry| entry.name);
            let failure = Failure::usage(format!("unknown device `{device}`"))
                .at(source.place(source.span_of("device", None)))
                .did_you_mean(&device, names.clone());
            return Err(failure.help(format!("devices: {}", names.collect::<Vec<_>>().join(", "))));
        }

        let env = Chosen::take(&source, &mut table, &registry.environments, None)?;
        // The reward that goes with an environment has its name.
        let default = registry.rewards.iter().find(|entry| entry.answers_to(env.name())).copied();
        let reward = Chosen::take(&source, &mut table, &registry.rewards, default)?;
        let model =
            Chosen::take(&source, &mut table, &registry.models, registry.models.first().copied())?;
        let default = registry.objectives.first().copied();
        let objective = Chosen::take(&source, &mut table, &registry.objectives, default)?;
        let default = registry.backwards.first().copied();
        let backward = Chosen::take(&source, &mut table, &registry.backwards, default)?;

        let train: TrainSettings = settings(&source, &mut table, "train")?;
        train.check().map_err(|error| source.key_failure("train", &error))?;
        metrics::rename_old_keys(&source, &mut table)?;
        let mut eval: EvalSettings = settings(&source, &mut table, "eval")?;
        check_eval(&source, &eval)?;
        metrics::complete(registry, &source, &mut eval)?;
        let checkpoint: CheckpointSettings = settings(&source, &mut table, "checkpoint")?;
        for (key, value) in [("every", checkpoint.every), ("keep", checkpoint.keep as u64)] {
            if value == 0 {
                return Err(Failure::usage(format!("checkpoint.{key} must be at least 1"))
                    .at(source.place(source.span_of("checkpoint", Some(key)))));
            }
        }
        let log: LogSettings = settings(&source, &mut table, "log")?;
        drop(table);
        Ok(Self {
            name,
            seed,
            device,
            env,
            reward,
            model,
            objective,
            backward,
            train,
            eval,
            checkpoint,
            log,
            source,
        })
    }

    /// The complete spec with every default, as TOML: parsing it again gives the same spec.
    pub fn resolved(&self) -> toml::Table {
        let mut out = toml::Table::new();
        out.insert("name".to_owned(), self.name.clone().into());
        out.insert("seed".to_owned(), toml::Value::Integer(self.seed as i64));
        out.insert("device".to_owned(), self.device.clone().into());
        let mut put = |name: &str, table: toml::Table| {
            out.insert(name.to_owned(), toml::Value::Table(table));
        };
        for part in self.parts() {
            put(part.axis(), part.resolved());
        }
        let table =
            |value: Result<toml::Table, toml::ser::Error>| value.expect("settings are TOML");
        put("train", table(toml::Table::try_from(&self.train)));
        put("eval", table(toml::Table::try_from(&self.eval)));
        put("checkpoint", table(toml::Table::try_from(&self.checkpoint)));
        put("log", table(toml::Table::try_from(&self.log)));
        out
    }

    /// The kinds that it chooses, in the order of a spec.
    pub fn parts(&self) -> [&dyn Part; 5] {
        [&self.env, &self.reward, &self.model, &self.objective, &self.backward]
    }

    /// The keys of a table whose kind says that they do not change results.
    pub fn neutral_keys(&self, table: &str) -> &'static [&'static str] {
        let part = self.parts().into_iter().find(|part| part.axis() == table);
        part.map_or(&[], |part| part.kind().neutral_keys)
    }

    /// A failure about a key of a table, with its place in the source.
    pub fn key_failure(&self, table: &str, error: &gfn_core::KeyError) -> Failure {
        self.source.key_failure(table, error)
    }

    /// Where a key (or a whole table) stands.
    pub fn place(&self, table: &str, key: Option<&str>) -> crate::error::Place {
        self.source.place(self.source.span_of(table, key))
    }
}

/// The values in a table, by their dotted keys, in the order of the table.
pub(crate) fn flatten(table: &toml::Table) -> Vec<(String, &toml::Value)> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                let inner = flatten(inner).into_iter();
                all.extend(inner.map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => all.push((key.clone(), value)),
        }
    }
    all
}

/// The text of a spec file, and its name without extension.
pub(crate) fn read_text(path: &Path) -> Result<(String, &str), Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::usage(format!("cannot read the spec `{}`: {error}", path.display()))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        Failure::usage(format!(
            "the spec `{}` is not UTF-8 text: the byte {at} on line {line} is not valid",
            path.display()
        ))
        .help("save the file as UTF-8")
    })?;
    Ok((text, path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run")))
}

/// Refuses keys at the top of `what` that are not among `known`.
fn check_top(
    source: &Source,
    table: &DeTable<'_>,
    known: &[&str],
    what: &str,
) -> Result<(), Failure> {
    let unknown = table.iter().find(|(key, _)| !known.contains(&key.get_ref().as_ref()));
    let Some((key, _)) = unknown else { return Ok(()) };
    let word = key.get_ref();
    let failure = Failure::usage(format!("unknown key `{word}`"))
        .at(source.place(key.span()))
        .did_you_mean(word, known.iter().copied());
    Err(failure.help(format!("{what} has the keys {}", known.join(", "))))
}

/// Takes the name, or the default one, and the seed.
fn name_and_seed(
    source: &Source,
    table: &mut DeTable<'_>,
    default_name: &str,
) -> Result<(String, u64), Failure> {
    let name: Option<String> = take(source, table, "name", "name")?;
    let seed: Option<u64> = take(source, table, "seed", "seed")?;
    if seed.is_some_and(|seed| i64::try_from(seed).is_err()) {
        return Err(Failure::usage("the seed must be below 2^63")
            .at(source.place(source.span_of("seed", None))));
    }
    Ok((name.unwrap_or_else(|| default_name.to_owned()), seed.unwrap_or(0)))
}

/// Takes the value of a key out of a table, where it is set; messages call it `name`.
pub(crate) fn take<T: DeserializeOwned>(
    source: &Source,
    table: &mut DeTable<'_>,
    key: &str,
    name: &str,
) -> Result<Option<T>, Failure> {
    let Some(value) = table.remove(key) else { return Ok(None) };
    let value = T::deserialize(toml::de::ValueDeserializer::from(value))
        .map_err(|error| source.toml_failure(&error, name, &[]))?;
    Ok(Some(value))
}

/// Takes a table without kinds.
fn settings<T: DeserializeOwned + Default + JsonSchema>(
    source: &Source,
    table: &mut DeTable<'_>,
    name: &str,
) -> Result<T, Failure> {
    let Some(value) = table.remove(name) else { return Ok(T::default()) };
    let span = value.span();
    let DeValue::Table(inner) = value.into_inner() else {
        return Err(Failure::usage(format!("`{name}` must be a table")).at(source.place(span)));
    };
    let keys = chosen::schema_keys(&T::json_schema(&mut schemars::SchemaGenerator::default()));
    T::deserialize(toml::de::Deserializer::from(Spanned::new(span, inner)))
        .map_err(|error| source.toml_failure(&error, name, &keys))
}

fn check_name(source: &Source, name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_alphanumeric() || "-_.+=,".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::usage(format!("the name `{name}` cannot be used as a folder"))
            .at(source.place(source.span_of("name", None)))
            .help("use letters, digits and any of - _ . + = ,"));
    }
    Ok(())
}

fn check_eval(source: &Source, eval: &EvalSettings) -> Result<(), Failure> {
    let at = |key: &str| source.place(source.span_of("eval", Some(key)));
    for (key, value) in [
        ("every", eval.every),
        ("samples", eval.samples as u64),
        ("test_objects", eval.test_objects as u64),
        ("backward_trajectories", eval.backward_trajectories as u64),
    ] {
        if value == 0 {
            return Err(Failure::usage(format!("eval.{key} must be at least 1")).at(at(key)));
        }
    }
    const MAX_SAMPLES: usize = 1 << 22;
    if eval.samples > MAX_SAMPLES {
        return Err(
            Failure::usage(format!("eval.samples must not exceed {MAX_SAMPLES}")).at(at("samples"))
        );
    }
    if eval.backward_trajectories.saturating_mul(eval.test_objects) > MAX_SAMPLES {
        let message = format!(
            "eval.test_objects times eval.backward_trajectories must not exceed {MAX_SAMPLES}"
        );
        return Err(Failure::usage(message).at(at("backward_trajectories")));
    }
    Ok(())
}
