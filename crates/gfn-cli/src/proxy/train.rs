//! From a spec to a surrogate reward: read, split, train, measure.

use std::path::Path;
use std::sync::Arc;

use gfn_core::learn::engine::NamedTensor;
use gfn_core::registry::{EnvAxis, EnvContext, Files};
use gfn_core::{Environment, KeyError, States};
use gfn_envs::reward::objects::ObjectIndex;
use gfn_models::network::ModelAxis;

use super::examples::Examples;
use super::fit::{Fit, Sample, fit};
use super::known::Known;
use super::network::engine;
use super::predictor::Predictor;
use super::scores::{Scores, by_class};
use super::settings::{ProxySettings, is_empty};
use super::split::Split;
use super::weights::{About, DataNote, ProxyFile, Report, Unusable, rounded};
use crate::error::{BUG, DIVERGED, Failure};
use crate::spec::Part;
use crate::spec::{Chosen, Source};

/// A surrogate reward to be trained: a spec with `[env]`, `[model]` and `[proxy]`.
pub struct ProxySpec {
    /// Its name.
    pub name: String,
    /// The seed of the split, of the first weights and of the order of training.
    pub seed: u64,
    /// The environment whose objects it is about.
    pub env: Chosen<EnvAxis>,
    /// The network.
    pub model: Chosen<ModelAxis>,
    /// What is learned, and how.
    pub proxy: ProxySettings,
    pub(crate) source: Source,
}

/// What an epoch came to.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// Epochs so far.
    pub epoch: usize,
    /// Epochs in all.
    pub of: usize,
    /// The mean loss over its steps.
    pub loss: f64,
    /// Mean absolute error on held-out objects in the unit of the values, if there are any.
    pub mae: Option<f64>,
}

/// A surrogate reward that has been trained.
pub struct Trained {
    /// What is written.
    pub file: ProxyFile,
    /// The same, ready to be used.
    pub predictor: Predictor,
}

/// How many objects a file tells its values of.
const PROBES: usize = 16;

/// Trains a surrogate reward. `note` is told what is worth a note, `watch` what an epoch came to, and
/// `stop` is asked after each step whether to stop with what there is.
///
/// # Errors
/// With the key that does not fit, the data that is missing, or when training diverges.
pub fn train(
    spec: &ProxySpec,
    files: &dyn Files,
    note: impl Fn(&str),
    mut watch: impl FnMut(Epoch),
    stop: impl FnMut() -> bool,
) -> Result<Trained, Failure> {
    let at = |table: &'static str| move |error| spec.source.key_failure(table, &error);
    let settings = &spec.proxy;
    settings.check().map_err(at("proxy"))?;
    let env: Arc<dyn Environment> = spec.env.build(EnvContext { files }).map_err(at("env"))?.into();
    let mut engine =
        engine(&*env, |context| spec.model.build(context), &settings.of_engine(), spec.seed)
            .map_err(at("model"))?;
    let read = |key: &'static str, path: &Path| -> Result<Examples, Failure> {
        let examples = Examples::read(&*env, files, (key, path), settings);
        let examples = examples.map_err(at("proxy"))?;
        let told = examples.note();
        if !told.is_empty() {
            note(&told);
        }
        Ok(examples)
    };
    let examples = read("table", &settings.table)?;
    let test = (!is_empty(&settings.test_table)).then(|| read("test_table", &settings.test_table));
    let test = test.transpose()?;
    let split = Split::draw(&*env, &examples.objects, settings, spec.seed).map_err(at("proxy"))?;

    let (mean, sd) = moments(split.train.iter().map(|&place| examples.values[place]));
    if !(sd > 0.0 && sd.is_finite()) {
        let message = "the values of all objects trained on are equal: there is nothing to learn";
        return Err(at("proxy")(KeyError::new("value_column", message)));
    }
    let scaled = |places: &[usize]| {
        let (objects, values) = at_places(&examples, places);
        let targets = values.into_iter().map(|value| (value - mean) / sd).collect();
        Sample { objects, targets }
    };
    // What the epoch is chosen by comes first among the reports.
    let random = format!("held out at random ({})", settings.held_out);
    let groups = format!("held out by {}", settings.held_out_by);
    let held_out = [(random, &split.random), (groups, &split.groups)];
    let chosen_by = held_out.iter().find(|(_, places)| !places.is_empty());
    let watched = scaled(chosen_by.map_or(&[], |(_, places)| places));
    let trained_on = scaled(&split.train);
    let fitted =
        fit(&mut *engine, &*env, (&trained_on, &watched), settings, spec.seed, stop, |done| {
            let mae = done.mae.map(|mae| mae * sd);
            watch(Epoch { epoch: done.epoch, of: settings.epochs, loss: done.loss, mae });
        });
    let Fit { weights, epoch, interrupted } = fitted.map_err(|what| {
        Failure::new(DIVERGED, format!("training diverged: {what}"))
            .help("try a lower proxy.lr, proxy.clip_norm, or proxy.loss = \"huber\"")
    })?;

    let infos = engine.params().iter().zip(weights);
    let mut weights: Vec<NamedTensor> = infos
        .map(|(info, values)| NamedTensor {
            name: info.name.clone(),
            shape: info.shape.to_vec(),
            values,
        })
        .collect();
    weights.sort_by(|a, b| a.name.cmp(&b.name));
    rounded(&mut weights, settings.precision)
        .map_err(|message| at("proxy")(KeyError::new("precision", message)))?;
    let known = Known::of(&*env, &trained_on.objects, settings.known_from);
    let about = About {
        name: spec.name.clone(),
        seed: spec.seed,
        env: spec.env.resolved(),
        model: spec.model.resolved(),
        parameters: weights.iter().map(|tensor| tensor.values.len()).sum(),
        mean,
        sd,
        test: test.as_ref().map(note_of),
        trained_on: split.train.len(),
        epoch,
        interrupted,
        known: known.numbers().len(),
        ..About::new(&*env, settings, note_of(&examples))
    };
    // All that is said of it is measured with the weights as they are written.
    let mut file = ProxyFile { about, scale: (mean, sd), weights, known };
    let bug = |error: Unusable| Failure::new(BUG, format!("the trained network {error}"));
    let predictor = Predictor::new(&env, file.clone()).map_err(bug)?;
    for (objects, places) in held_out {
        let (rows, values) = at_places(&examples, places);
        file.about.reports.extend(report(&*env, &predictor, objects, &rows, &values));
    }
    if let Some(test) = &test {
        // Others than those trained on.
        let (trained, _) = ObjectIndex::new(&trained_on.objects);
        let is_new = |&place: &usize| trained.place(test.objects.row(place)).is_none();
        let places: Vec<usize> = (0..test.values.len()).filter(is_new).collect();
        let (rows, values) = at_places(test, &places);
        let objects = format!("of `{}`", test.file);
        file.about.reports.extend(report(&*env, &predictor, objects, &rows, &values));
    }
    file.about.probes = probes(&*env, &predictor, &trained_on.objects);
    let predictor = Predictor::new(&env, file.clone()).map_err(bug)?;
    Ok(Trained { file, predictor })
}

fn note_of(examples: &Examples) -> DataNote {
    DataNote {
        file: examples.file.clone(),
        sha256: examples.sha256.clone(),
        value: examples.value_name.clone(),
        rows: examples.rows,
        objects: examples.objects.len(),
        repeated: examples.repeated,
        skipped: examples.skipped,
    }
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// Some of the objects, with their values.
fn at_places(examples: &Examples, places: &[usize]) -> (States, Vec<f64>) {
    let mut objects = States::with_capacity(examples.objects.width(), places.len());
    places.iter().for_each(|&place| objects.push(examples.objects.row(place)));
    (objects, places.iter().map(|&place| examples.values[place]).collect())
}

/// The errors on some objects; none if there are none.
fn report(
    env: &dyn Environment,
    predictor: &Predictor,
    name: String,
    objects: &States,
    values: &[f64],
) -> Option<Report> {
    let predicted = predictor.values(objects);
    let scores = Scores::of(&predicted, values)?;
    let unknown = predictor.unknown(objects);
    let only = |wanted: bool| {
        let unknown = unknown.as_ref()?;
        let pairs = predicted.iter().zip(values).zip(unknown);
        let (predicted, values): (Vec<f64>, Vec<f64>) = pairs
            .filter(|(_, unknown)| (**unknown > 0) == wanted)
            .map(|((p, v), _)| (*p, *v))
            .unzip();
        Scores::of(&predicted, &values)
    };
    let classes = by_class(env, objects, &predicted, values);
    Some(Report { objects: name, scores, classes, unlike: only(true), like: only(false) })
}

/// Some objects, spread over the table, as the environment reads what it writes.
fn probes(env: &dyn Environment, predictor: &Predictor, objects: &States) -> Vec<(String, f64)> {
    let n = PROBES.min(objects.len());
    let (mut read, mut texts) = (States::new(objects.width()), Vec::new());
    for text in (0..n).map(|i| env.render(objects.row(i * objects.len() / n))) {
        if let Some(row) = env.parse(&text) {
            read.push(&row);
            texts.push(text);
        }
    }
    texts.into_iter().zip(predictor.values(&read)).collect()
}
