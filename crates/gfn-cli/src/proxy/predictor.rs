//! A surrogate reward's network with its weights, in its environment.

use std::borrow::Cow;
use std::sync::Arc;

use gfn_core::learn::TrainSettings;
use gfn_core::learn::engine::{Engine, NamedTensor, Values};
use gfn_core::metric::TestSet;
use gfn_core::registry::{Axis, Entry, EnvContext};
use gfn_core::{Environment, KeyError, States};
use gfn_envs::ENVIRONMENTS;
use gfn_models::MODELS;
use rayon::prelude::*;
use toml::de::{DeTable, DeValue};

use super::network::{engine, outputs};
use super::weights::{About, Observation, ProxyFile, Unusable};

/// Predicts the values of objects.
pub struct Predictor {
    /// That of training.
    env: Arc<dyn Environment>,
    /// That of the objects, where it is another one, whose objects are converted.
    source: Option<Arc<dyn Environment>>,
    engine: Box<dyn Engine>,
    file: ProxyFile,
}

/// Objects that are observed and evaluated at once.
const BLOCK: usize = 4096;
/// How far the value of a probe may be from what it was, in standard deviations: processors round
/// differently.
const PROBE_TOLERANCE: f64 = 1e-3;

impl Predictor {
    /// From the content of a file.
    ///
    /// # Errors
    /// When it is damaged, or its network does not fit the environment.
    pub fn load(env: &Arc<dyn Environment>, bytes: &[u8]) -> Result<Self, Unusable> {
        let file = ProxyFile::from_bytes(bytes)?;
        let observed = Observation::of(env.space());
        if let Some(difference) = observed.difference(&file.about.observation) {
            let own = built(ENVIRONMENTS, &file.about.env, EnvContext::NO_FILES);
            let own = own.ok().filter(|own| converts(&**own, &**env)).map(Arc::from);
            let Some(own) = own else {
                let kind = file.about.env.get("kind").and_then(|kind| kind.as_str()).unwrap_or("?");
                return Err(Unusable::Foreign(format!(
                    "was trained in another environment ({kind}), where networks see {difference}"
                )));
            };
            let predictor = Self::new(&own, file)?;
            predictor.check_probes()?;
            return Ok(Self { source: Some(env.clone()), ..predictor });
        }
        let predictor = Self::new(env, file)?;
        predictor.check_probes()?;
        Ok(predictor)
    }

    /// From what a file holds.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn new(env: &Arc<dyn Environment>, file: ProxyFile) -> Result<Self, Unusable> {
        let build = |context| built(MODELS, &file.about.model, context);
        let engine = engine(&**env, build, &TrainSettings::default(), 0);
        let mut engine = engine.map_err(|error| {
            Unusable::Foreign(format!("has a network that cannot be built: {error}"))
        })?;
        set_weights(&mut *engine, &file.weights)?;
        Ok(Self { env: env.clone(), source: None, engine, file })
    }

    /// All about it but its numbers.
    pub fn about(&self) -> &About {
        &self.file.about
    }

    /// Objects as the network's environment knows them.
    ///
    /// # Panics
    /// When there is no such object, which `converts` has made sure of by a large one.
    fn own<'a>(&self, objects: &'a States) -> Cow<'a, States> {
        let Some(source) = &self.source else { return Cow::Borrowed(objects) };
        let mut own = States::with_capacity(self.env.space().width, objects.len());
        for row in objects.rows() {
            let row = self.env.converted(row, &**source);
            own.push(&row.expect("objects of one environment are objects of the other"));
        }
        Cow::Owned(own)
    }

    /// The value of each object, in the unit of the table.
    pub fn values(&self, objects: &States) -> Vec<f64> {
        let objects = &*self.own(objects);
        let (mean, sd) = self.file.scale;
        let mut values = Vec::with_capacity(objects.len());
        for start in (0..objects.len()).step_by(BLOCK) {
            let block = objects.slice(start..objects.len().min(start + BLOCK));
            let outputs = outputs(&*self.engine, Values::Current, &*self.env, &block);
            values.extend(outputs.into_iter().map(|output| mean + sd * output));
        }
        values
    }

    /// An object as its environment writes it.
    pub fn render(&self, row: &[i32]) -> String {
        self.source.as_ref().unwrap_or(&self.env).render(row)
    }

    /// For each object, how many of its substructures none trained on has; none where substructures are
    /// not known.
    pub fn unknown(&self, objects: &States) -> Option<Vec<u32>> {
        let objects = &*self.own(objects);
        let (known, env) = (&self.file.known, &*self.env);
        let missing = |i| known.missing(env, objects.row(i));
        (!known.is_empty()).then(|| (0..objects.len()).into_par_iter().map(missing).collect())
    }

    /// Whether the environment and the network are those of training, by what they make of a few
    /// objects.
    fn check_probes(&self) -> Result<(), Unusable> {
        let about = &self.file.about;
        let mut objects = States::new(self.env.space().width);
        for (text, _) in &about.probes {
            let row = self.env.parse(text).ok_or_else(|| {
                let message = "which it was trained on and which is none of this environment";
                Unusable::Foreign(format!("knows the object `{text}`, {message}"))
            })?;
            objects.push(&row);
        }
        for ((text, before), now) in about.probes.iter().zip(self.values(&objects)) {
            let distance = (now - before).abs();
            if distance.is_nan() || distance > PROBE_TOLERANCE * about.sd {
                return Err(Unusable::Foreign(format!(
                    "gives {now} for `{text}`, where it gave {before} when it was made: this \
                     environment shows the object to the network in another way"
                )));
            }
        }
        Ok(())
    }
}

/// Whether an environment knows the objects of another one, small and large.
fn converts(own: &dyn Environment, env: &dyn Environment) -> bool {
    let objects = TestSet::walks(env, 64, 0).objects;
    !objects.is_empty() && objects.rows().all(|row| own.converted(row, env).is_some())
}

/// What a resolved table describes.
fn built<A: Axis>(
    entries: &[Entry<A>],
    table: &toml::Table,
    context: A::Context<'_>,
) -> Result<Box<A::Product>, KeyError> {
    let text = toml::to_string(table).map_err(|error| KeyError::part(error.to_string()))?;
    let unreadable = |error: toml::de::Error| KeyError::part(error.message().to_owned());
    let mut table = DeTable::parse(&text).map_err(unreadable)?;
    let kind = table.get_mut().remove("kind");
    let kind = match kind.as_ref().map(|kind| kind.get_ref()) {
        Some(DeValue::String(kind)) => kind.as_ref(),
        _ => "",
    };
    let entry = entries.iter().find(|entry| entry.answers_to(kind));
    let entry = entry.ok_or_else(|| KeyError::part(format!("there is no {} `{kind}`", A::NAME)))?;
    (entry.parse)(table).map_err(unreadable)?.build(context)
}

/// Gives the parameters of a network their values, by name.
fn set_weights(engine: &mut dyn Engine, weights: &[NamedTensor]) -> Result<(), Unusable> {
    let infos = engine.params().to_vec();
    if weights.len() != infos.len() {
        let (found, wanted) = (weights.len(), infos.len());
        let message = format!("has {found} arrays of weights, but its network {wanted}");
        return Err(Unusable::Foreign(message));
    }
    for (i, info) in infos.iter().enumerate() {
        let tensor = weights.iter().find(|tensor| tensor.name == info.name);
        let tensor = tensor.ok_or_else(|| {
            Unusable::Foreign(format!("lacks the weights `{}` of its network", info.name))
        })?;
        if tensor.shape != info.shape {
            return Err(Unusable::Foreign(format!(
                "has `{}` of shape {:?}, but its network of shape {:?}",
                info.name, tensor.shape, info.shape
            )));
        }
        engine.set_value(i, tensor.values.clone());
    }
    Ok(())
}
