//! A checked spec made into the parts that train and measure.

use std::path::PathBuf;
use std::sync::Arc;

use gfn_core::backward::BackwardContext;
use gfn_core::exact::Exact;
use gfn_core::learn::{Components, Plan, Trainer, check_stops};
use gfn_core::metric::{Column, EvalContext, MetricContext, TestSet};
use gfn_core::{Environment, Layers, Purpose, Reward, States, Streams};
use gfn_models::network::NetworkContext;

use crate::Registry;
use crate::error::Failure;
use crate::spec::{EvalSettings, Spec};
use crate::world::World;

/// Everything that a spec says, built.
pub struct Experiment {
    /// The trainer, at iteration 0.
    pub trainer: Trainer,
    /// Columns of all metrics, in order.
    pub columns: Vec<Column>,
    /// The environment.
    pub env: Arc<dyn Environment>,
    /// Its reward.
    pub reward: Arc<dyn Reward>,
    /// The enumerated graph, if it is small enough.
    pub exact: Option<Arc<Exact>>,
    /// Absolute paths and SHA-256 of the data files that were read.
    pub data: Vec<(PathBuf, String)>,
}

impl Experiment {
    /// Builds every part and checks that they fit together.
    ///
    /// # Errors
    /// With the key that does not fit, or the data that is missing.
    pub fn build(registry: &Registry, spec: &Spec) -> Result<Self, Failure> {
        let at = |table: &'static str| move |error| spec.key_failure(table, &error);
        let World { env, reward, exact, test_set, data } = World::build(spec)?;
        let context = BackwardContext { env: env.clone(), exact: exact.clone() };
        let backward = spec.backward.build(context).map_err(at("backward"))?;
        let objective = spec.objective.build(()).map_err(at("objective"))?;
        if let Some(chains) = objective.chains() {
            chains.check(&*env, spec.train.n_steps()).map_err(at("objective"))?;
            if spec.train.reward_noise.is_some() {
                let message = "noise is added to rewards that losses see, and chains have no loss";
                let error = gfn_core::KeyError::new("reward_noise", message);
                return Err(spec.key_failure("train", &error.help("leave the key out")));
            }
        }
        if objective.stops_anywhere() {
            check_stops(&*env).map_err(at("objective"))?;
        }
        if backward.stops_anywhere() {
            check_stops(&*env).map_err(at("backward"))?;
        }
        let plan = Plan::new(&*env, &*objective, &*backward).map_err(|error| {
            let (objective, strategy) = (spec.objective.name(), spec.backward.name());
            let message = format!("{objective} with {strategy}: {}", error.message);
            spec.key_failure("backward", &gfn_core::KeyError { message, ..error })
        })?;
        if spec.train.batch < objective.min_batch() {
            let message = format!(
                "the objective {} compares trajectories of a batch and needs at least {}, not {}",
                spec.objective.name(),
                objective.min_batch(),
                spec.train.batch
            );
            return Err(spec.key_failure("train", &gfn_core::KeyError::new("batch", message)));
        }
        let context = NetworkContext::new(env.space(), &plan.heads);
        let network = spec.model.build(context.clone()).map_err(at("model"))?;
        if network.stop_first.is_some() && plan.raw() {
            let message = format!(
                "{} reads the numbers of P_F as values of actions, which a stop that is decided on \
                 first does not leave as they are",
                spec.objective.name()
            );
            let error = gfn_core::KeyError::new("hierarchical_stop", message);
            return Err(spec.key_failure("model", &error.help("leave the key out")));
        }
        let device = gfn_models::device::open(&spec.device)
            .map_err(|error| Failure::usage(error.to_string()).help(error.remedy()))?;

        let layers = match exact {
            None if reward.may_enumerate() => {
                Layers::new(&*env, spec.eval.max_streamed_states).map(Arc::new)
            }
            _ => None,
        };
        let all = (exact.is_some(), layers.is_some());
        let test = named(test_set, &*reward, &spec.eval)
            .or_else(|| drawn(&*env, &*reward, &spec.eval, all));
        let metric_context = MetricContext {
            env: env.clone(),
            reward: reward.clone(),
            exact: exact.clone(),
            layers,
            samples: spec.eval.samples,
            test,
            backward_trajectories: spec.eval.backward_trajectories,
            settings: spec.eval.settings.clone(),
        };
        for name in spec.eval.settings.keys().filter(|name| !spec.eval.metrics.contains(name)) {
            tracing::warn!("settings of the metric `{name}`, which is not among eval.metrics");
        }
        let metrics: Vec<_> = spec
            .eval
            .metrics
            .iter()
            .filter_map(|name| registry.metrics.iter().find(|entry| entry.name == name))
            .map(|entry| (entry.build)(&metric_context))
            .collect::<Result<_, _>>()
            .map_err(at("eval"))?;
        let columns = metrics.iter().flat_map(|metric| metric.columns()).collect();
        let mut rng = Streams::new(spec.seed).get(Purpose::Init, 0);
        let engine =
            gfn_models::engine::new(network, context, &plan.heads, &spec.train, &device, &mut rng);
        let parts = Components { objective, backward, plan, metrics, context: metric_context };
        let trainer = Trainer::new(engine, parts, spec.train.clone(), spec.seed, spec.eval.seed);
        Ok(Self { trainer, columns, env, reward, exact, data })
    }

    /// Number of scalars in all parameters; 0 where there is no policy.
    pub fn n_params(&self) -> usize {
        if !self.trainer.has_policy() {
            return 0;
        }
        let infos = self.trainer.engine().params().iter();
        infos.map(|info| info.shape[0] * info.shape[1]).sum()
    }

    /// Whether P_F and P_B are finite along a few trajectories, as they are now, or there are none.
    pub fn policy_is_finite(&self) -> bool {
        if !self.trainer.has_policy() {
            return true;
        }
        let fixed = &self.trainer.parts().context;
        let (policy, step) = (self.trainer.policy(), self.trainer.counters().step);
        EvalContext::new(fixed, &policy, None, Streams::new(0), step).policy_is_finite()
    }
}

/// Objects to measure correlations on that somebody has named: those of a file, or the reward's.
fn named(test_set: Option<States>, reward: &dyn Reward, eval: &EvalSettings) -> Option<TestSet> {
    let (all, origin) = match test_set {
        Some(listed) => (listed, "objects of eval.test_set"),
        None => (reward.test_objects()?, "test objects of the reward"),
    };
    Some(TestSet { objects: Arc::new(spaced(&all, eval.test_objects)), origin })
}

/// Objects to measure correlations on where nobody has named any, the environment is too large to
/// enumerate and rewards are cheap: drawn uniformly, or by walks if that is not possible and `layers`
/// do not show all objects either.
fn drawn(
    env: &dyn Environment,
    reward: &dyn Reward,
    eval: &EvalSettings,
    (enumerated, layers): (bool, bool),
) -> Option<TestSet> {
    if enumerated || !reward.may_enumerate() {
        return None;
    }
    let (n, seed) = (eval.test_objects, eval.seed);
    let walks = || (!layers).then(|| TestSet::walks(env, n, seed));
    TestSet::uniform(env, n, seed).or_else(walks)
}

/// At most `n` rows, spread evenly, in their order.
///
/// Lists are often tables read line by line, such as a string for every mode and number of flipped
/// bits. Taking every k-th row would skip columns of such a table for good; a stride without a
/// common divisor with the length meets all residues of any width equally often, and near the
/// golden section it spreads over the lines as well.
fn spaced(all: &States, n: usize) -> States {
    let n = n.min(all.len());
    let golden = (all.len() as f64 * 0.618_033_988_749_895) as usize;
    let stride = (golden.max(1)..).find(|&stride| gcd(stride, all.len()) == 1).unwrap_or(1);
    let mut chosen: Vec<usize> = (0..n).map(|i| i * stride % all.len()).collect();
    chosen.sort_unstable();
    let mut rows = States::with_capacity(all.width(), n);
    chosen.into_iter().for_each(|i| rows.push(all.row(i)));
    rows
}

/// The greatest common divisor; 0 has any.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of `len` rows are chosen.
    fn chosen(len: usize, n: usize) -> Vec<usize> {
        let mut all = States::new(1);
        (0..len as i32).for_each(|i| all.push(&[i]));
        spaced(&all, n).rows().map(|row| row[0] as usize).collect()
    }

    #[test]
    fn few_test_objects_come_from_all_lines_and_columns() {
        // The papers' bit sequences: 60 modes, 120 numbers of flipped bits.
        let count = |chosen: &[usize], of: fn(usize) -> usize, n: usize| {
            let mut counts = vec![0; n];
            chosen.iter().for_each(|&i| counts[of(i)] += 1);
            counts
        };
        for (n, per_mode, per_flips) in [(1000, 14..=19, 8..=9), (60, 0..=2, 0..=1)] {
            let chosen = chosen(7200, n);
            assert_eq!(chosen.len(), n);
            assert!(chosen.is_sorted_by(|a, b| a < b), "distinct, in order");
            let (modes, flips) =
                (count(&chosen, |i| i / 120, 60), count(&chosen, |i| i % 120, 120));
            assert!(modes.iter().all(|count| per_mode.contains(count)), "{n}: {modes:?}");
            assert!(flips.iter().all(|count| per_flips.contains(count)), "{n}: {flips:?}");
            assert!(modes.iter().filter(|&&count| count > 0).count() >= 45, "{n}: {modes:?}");
        }
    }

    #[test]
    fn all_objects_are_taken_where_they_are_few() {
        for len in [0, 1, 2, 3, 10, 120] {
            let all: Vec<usize> = (0..len).collect();
            assert_eq!(chosen(len, len), all);
            assert_eq!(chosen(len, 1000), all);
        }
    }
}
