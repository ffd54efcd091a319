//! `gfn exact`: what is exactly known of a target, without training.

use std::fmt::Write;

use gfn_core::exact::Exact as Enumerated;
use gfn_core::{Environment, ExactTarget, Layers, Reward, States};
use serde_json::{Map, Value, json};

use super::{load_spec, print};
use crate::args::Exact;
use crate::error::Failure;
use crate::spec::Spec;
use crate::{Registry, World};

/// How many of the best objects are shown.
const BEST: usize = 10;
/// Exact samples that the best are looked for among, where objects are not enumerated.
const SAMPLES: usize = 10_000;

pub fn run(registry: &Registry, args: &Exact) -> Result<(), Failure> {
    let spec = load_spec(registry, &args.spec)?;
    let world = World::build(&spec)?;
    let report = Report::of(&world, &spec)?;
    match args.json {
        true => print(&format!("{}\n", report.json())),
        false => print(&report.text()),
    }
}

/// An object, log R and P*.
type Best = (String, f64, f64);

/// What is known, and how.
struct Report {
    method: &'static str,
    n_states: Option<usize>,
    /// ln of their number, where that is not counted one by one.
    n_objects: Result<usize, f64>,
    log_z: f64,
    mean_log_reward: f64,
    entropy: f64,
    /// How many, and what they are.
    modes: Option<(u64, String)>,
    best: Vec<Best>,
    /// Among how many exact samples the best are, if not among all objects.
    best_of: Option<usize>,
    /// Expectations and marginals.
    target: Option<ExactTarget>,
}

impl Report {
    fn of(world: &World, spec: &Spec) -> Result<Self, Failure> {
        let World { env, reward, .. } = world;
        let (env, reward) = (&**env, &**reward);
        if let Some(exact) = &world.exact {
            return Ok(Self::enumerated(env, reward, exact));
        }
        let limit = spec.eval.max_streamed_states;
        if let Some(layers) = Layers::new(env, limit).filter(|_| reward.may_enumerate()) {
            return Self::walked(env, reward, &layers);
        }
        if let Some(target) = reward.exact_target() {
            return Self::by_reward(env, reward, target);
        }
        if !reward.may_enumerate() {
            let message = "nothing is exactly known of this target: this reward is not asked for all \
                           objects, and knows no sum over them";
            return Err(Failure::usage(message).help(
                "reward.enumerate = true, where the kind has it and the environment is small",
            ));
        }
        let failure = Failure::usage(format!(
            "nothing is exactly known of this target: the environment has more than \
             eval.max_states = {} states, and the reward knows no sum over them",
            spec.eval.max_states
        ));
        Err(failure
            .help(
                "raise eval.max_states, or let layers be walked: -s eval.max_streamed_states=50_000_000 \
                 (8 bytes each); graphs: reward.exact_limit",
            )
            .help("the metric `target` estimates log Z where the reward can"))
    }

    fn enumerated(env: &dyn Environment, reward: &dyn Reward, exact: &Enumerated) -> Self {
        let objects = exact.graph.objects();
        let log_reward = &exact.target.log_reward;
        let modes = reward.modes().map(|modes| {
            let found = || {
                let mut found: Vec<u64> = Vec::new();
                for (row, &log_reward) in objects.rows().zip(log_reward) {
                    found.extend(modes.modes_of(row, log_reward));
                }
                found.sort_unstable();
                found.dedup();
                found.len() as u64
            };
            (modes.count().unwrap_or_else(found), modes.definition())
        });
        let best = best_of(log_reward)
            .map(|i| (env.render(objects.row(i)), log_reward[i], exact.target.prob[i]))
            .collect();
        let n_states = Some(exact.graph.states().len());
        let target = reward.exact_target();
        Self { modes, best, n_states, target, ..Self::sums("enumeration", log_reward) }
    }

    fn walked(
        env: &dyn Environment,
        reward: &dyn Reward,
        layers: &Layers,
    ) -> Result<Self, Failure> {
        let (n_states, numbers, target) = layers.survey(env, reward)?;
        let log_reward = &target.log_reward;
        let mut row = vec![0; env.space().width];
        let best = best_of(log_reward)
            .map(|i| {
                layers.write_row(numbers[i], &mut row);
                (env.render(&row), log_reward[i], (log_reward[i] - target.log_z).exp())
            })
            .collect();
        let modes = reward.modes().and_then(|modes| Some((modes.count()?, modes.definition())));
        let n_states = Some(n_states);
        let target = reward.exact_target();
        Ok(Self {
            modes,
            best,
            n_states,
            target,
            ..Self::sums("walking layer by layer", log_reward)
        })
    }

    fn by_reward(
        env: &dyn Environment,
        reward: &dyn Reward,
        target: ExactTarget,
    ) -> Result<Self, Failure> {
        let samples = reward.exact_samples(SAMPLES, 0);
        let best_of_samples = samples.as_ref().map(States::len);
        let mut best = Vec::new();
        if let Some(samples) = samples {
            let mut log_reward = vec![0.0; samples.len()];
            reward
                .log_reward(&samples, &mut log_reward)
                .map_err(|error| Failure::new(crate::error::DATA, error.to_string()))?;
            let mut order: Vec<usize> = (0..samples.len()).collect();
            order.sort_by(|&a, &b| {
                let by_reward = rounded(log_reward[b]).total_cmp(&rounded(log_reward[a]));
                by_reward.then_with(|| samples.row(a).cmp(samples.row(b)))
            });
            let mut seen = std::collections::BTreeSet::new();
            let fresh = order.into_iter().filter(|&i| seen.insert(samples.row(i))).take(BEST);
            best = fresh
                .map(|i| {
                    let p = (log_reward[i] - target.log_z).exp();
                    (env.render(samples.row(i)), log_reward[i], p)
                })
                .collect();
        }
        Ok(Self {
            method: target.method,
            n_states: None,
            n_objects: Err(target.log_n_objects),
            log_z: target.log_z,
            mean_log_reward: target.mean_log_reward,
            entropy: target.entropy,
            modes: None,
            best,
            best_of: best_of_samples,
            target: Some(target),
        })
    }

    /// From the log rewards of all objects.
    fn sums(method: &'static str, log_reward: &[f64]) -> Self {
        let log_z = gfn_core::special::log_sum_exp(log_reward.iter().copied());
        // A reward of 0 weighs nothing.
        let weighed = log_reward.iter().filter(|&&r| r > f64::NEG_INFINITY);
        let mean_log_reward: f64 = weighed.map(|r| (r - log_z).exp() * r).sum();
        Self {
            method,
            n_states: None,
            n_objects: Ok(log_reward.len()),
            log_z,
            mean_log_reward,
            entropy: log_z - mean_log_reward,
            modes: None,
            best: Vec::new(),
            best_of: None,
            target: None,
        }
    }

    fn json(&self) -> Value {
        let best: Vec<Value> = self
            .best
            .iter()
            .map(|(object, log_reward, p)| {
                json!({ "object": object, "log_reward": log_reward, "probability": p })
            })
            .collect();
        let target = self.target.as_ref();
        let expectations: Map<String, Value> = target
            .iter()
            .flat_map(|target| &target.expectations)
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let marginals: Vec<Value> = target
            .iter()
            .flat_map(|target| &target.marginals)
            .map(|of| json!({ "title": of.title, "names": of.names, "values": of.values }))
            .collect();
        json!({
            "method": self.method,
            "states": self.n_states,
            "objects": self.n_objects.ok(),
            "log_objects": self.n_objects.map_or_else(|log| log, |n| (n as f64).ln()),
            "log_z": self.log_z,
            "mean_log_reward": self.mean_log_reward,
            "entropy": self.entropy,
            "modes": self.modes.as_ref().map(|(count, _)| count),
            "expectations": expectations,
            "marginals": marginals,
            "best": best,
            "best_of_samples": self.best_of,
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text += &format!("{name:<20} {value}\n");
        line("known by", self.method.to_owned());
        if let Some(n_states) = self.n_states {
            line("states", n_states.to_string());
        }
        line("objects", self.n_objects.map_or_else(number_of_log, |n| n.to_string()));
        line("log Z", format!("{:.8}", self.log_z));
        line("entropy", format!("{:.8} nats", self.entropy));
        line("E[log R]", format!("{:.8}", self.mean_log_reward));
        if let Some((count, definition)) = &self.modes {
            line("modes", format!("{count}; a mode is {definition}"));
        }
        for (name, value) in self.target.iter().flat_map(|target| &target.expectations) {
            line(&format!("E[{name}]"), format!("{value:.8}"));
        }
        if !self.best.is_empty() {
            let among =
                self.best_of.map_or("all objects".to_owned(), |n| format!("{n} exact samples"));
            let _ = writeln!(text, "\nbest of {among}\n{:>14} {:>12}  object", "log R", "P");
        }
        for (object, log_reward, p) in &self.best {
            let _ = writeln!(text, "{log_reward:>14.6} {p:>12.4e}  {object}");
        }
        for of in self.target.iter().flat_map(|target| &target.marginals) {
            let width = of.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6);
            let header = of.names.iter().map(|name| format!(" {name:>width$}"));
            text += &format!("\n{}\n{:width$}{}\n", of.title, "", header.collect::<String>());
            for (name, row) in of.names.iter().zip(&of.values) {
                let cells = row.iter().map(|p| format!(" {p:>width$.4}"));
                text += &format!("{name:width$}{}\n", cells.collect::<String>());
            }
        }
        text
    }
}

/// log R without the digits in which equal rewards differ by rounding.
fn rounded(log_reward: f64) -> f64 {
    (log_reward * 1e9).round()
}

/// Places of the largest, in descending order; equal ones in their own order.
fn best_of(log_reward: &[f64]) -> impl Iterator<Item = usize> {
    let mut best: Vec<usize> = Vec::with_capacity(BEST + 1);
    for (i, value) in log_reward.iter().enumerate() {
        let value = rounded(*value);
        let place = best.partition_point(|&other| rounded(log_reward[other]) >= value);
        if place < BEST {
            best.insert(place, i);
            best.truncate(BEST);
        }
    }
    best.into_iter()
}

/// A number by its logarithm: whole where that is exact, else in powers of ten.
fn number_of_log(log: f64) -> String {
    match log.exp() {
        n if n < 1e9 => format!("{n:.0}"),
        _ => {
            let tens = log / std::f64::consts::LN_10;
            format!("{:.4}e{:.0}", 10f64.powf(tens.fract()), tens.floor())
        }
    }
}
