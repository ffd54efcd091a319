//! Rewards of fresh samples, or of the last objects of Markov chains where these take the place of a
//! policy.

use rustc_hash::FxHashSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind};
use crate::{Environment, KeyError, States};

pub(super) struct Samples {
    context: MetricContext,
    top_k: usize,
    /// What rewards are computed from, where that is of interest.
    value_name: Option<String>,
}

/// Which samples are the best.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Best {
    /// How many of the best distinct samples `top_k_reward` averages; with fewer it is empty.
    top_k: usize,
}

impl Default for Best {
    fn default() -> Self {
        Self { top_k: 100 }
    }
}

impl Samples {
    /// Whether the reward can tell objects that are unlike those that it was learned from.
    fn knows_unlike(&self) -> bool {
        self.context.reward.unlike(&States::new(self.context.env.space().width)).is_some()
    }
}

impl MetricKind for Samples {
    const NAME: &'static str = "samples";
    const SUMMARY: &'static str = "mean reward, mean log reward, top-k reward and diversity of fresh samples, and for \
              learned rewards the share of unlike objects";
    type Settings = Best;

    fn build(context: &MetricContext, best: Best) -> Result<Self, KeyError> {
        if best.top_k == 0 {
            return Err(KeyError::new("top_k", "`top_k` must be at least 1"));
        }
        let none = States::new(context.env.space().width);
        let value_name = context.reward.values(&none).ok().flatten().map(|(name, _)| name);
        Ok(Self { context: context.clone(), top_k: best.top_k, value_name })
    }
}

impl Metric for Samples {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let (n, k) = (self.context.samples, self.top_k);
        let (unit, distance) = self.context.env.distance_of();
        let samples = format!("{n} fresh samples (of Markov chains: their last {n} objects)");
        let mut columns = vec![
            Column::new(
                "mean_reward",
                "reward",
                Better::Neither,
                format!("mean R(x) of {samples}; the target's own mean is its optimum"),
            ),
            Column::new(
                "mean_log_reward",
                "nats",
                Better::Neither,
                format!("mean log R(x) of {samples}"),
            ),
            Column::new(
                "top_k_reward",
                "reward",
                Better::Higher,
                format!(
                    "mean R(x) of the {k} best distinct objects among {samples}; empty if \
                     n_distinct is below {k}"
                ),
            ),
            Column::new(
                "diversity",
                unit,
                Better::Higher,
                format!(
                    "mean over pairs of these {k} objects of the {distance}; empty if n_distinct is \
                     below {k}"
                ),
            ),
            Column::new(
                "n_distinct",
                "objects",
                Better::Neither,
                format!("distinct objects among {samples}"),
            ),
        ];
        if let Some(name) = &self.value_name {
            let column = |what: &str, of: String| {
                let definition = format!("mean {name}, from which R(x) is computed, of {of}");
                Column::new(&format!("{what}_{name}"), "1", Better::Neither, definition)
            };
            columns.push(column("mean", samples.clone()));
            columns.push(column(
                "top_k",
                format!(
                    "the {k} distinct objects with the best rewards among {samples}; empty if \
                     n_distinct is below {k}"
                ),
            ));
        }
        columns.extend(self.knows_unlike().then(|| {
            Column::new(
                "unlike_training",
                "1",
                Better::Lower,
                format!(
                    "share of {samples} with some substructure that the learned reward has never \
                     seen, so that its value is extrapolated"
                ),
            )
        }));
        columns
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let samples = eval.samples()?;
        let n = samples.len() as f64;
        if samples.is_empty() {
            return Ok(vec![None; self.columns().len()]);
        }
        let mut seen = FxHashSet::default();
        let mut best: Vec<usize> =
            (0..samples.len()).filter(|&i| seen.insert(samples.terminal(i))).collect();
        // Equal rewards stay in the order of the samples.
        best.sort_by(|&a, &b| samples.log_reward[b].total_cmp(&samples.log_reward[a]));
        let (n_distinct, k) = (best.len(), self.top_k);
        best.truncate(k);
        let top = best.iter().map(|&i| samples.log_reward[i].exp()).sum::<f64>() / k as f64;
        let of_best = best.clone();
        let best: Vec<&[i32]> = best.into_iter().map(|i| samples.terminal(i)).collect();
        let mean = samples.log_reward.iter().map(|log_r| log_r.exp()).sum::<f64>() / n;
        let mean_log = samples.log_reward.iter().sum::<f64>() / n;
        // Over fewer objects the mean would reward a policy that has collapsed.
        let (top, diversity) = match n_distinct < k {
            true => (None, None),
            false => (Some(top), diversity(&*self.context.env, &best)),
        };
        let mut values = vec![Some(mean), Some(mean_log), top, diversity, Some(n_distinct as f64)];
        if self.value_name.is_some() {
            let of_samples = self.context.reward.values(&samples.terminals())?;
            let of_samples = of_samples.map(|(_, values)| values).unwrap_or_default();
            let top = of_best.iter().map(|&i| of_samples[i]).sum::<f64>() / k as f64;
            values.push(Some(of_samples.iter().sum::<f64>() / n));
            values.push((n_distinct >= k).then_some(top));
        }
        if self.knows_unlike() {
            let unlike = self.context.reward.unlike(&samples.terminals());
            let count = |unlike: Vec<bool>| unlike.into_iter().filter(|&unlike| unlike).count();
            values.push(unlike.map(|unlike| count(unlike) as f64 / n));
        }
        Ok(values)
    }
}

/// Mean distance of two of the objects; none if there are no two.
fn diversity(env: &dyn Environment, objects: &[&[i32]]) -> Option<f64> {
    let n = objects.len() * objects.len().saturating_sub(1) / 2;
    (n > 0).then(|| env.total_distance(objects) / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Edges;

    #[test]
    fn diversity_is_the_mean_distance_of_pairs() {
        let objects: [&[i32]; 3] = [&[0, 0, 0], &[0, 1, 2], &[5, 0, 0]];
        // Distances 2, 1 and 3.
        let env = Edges::new(2, vec![(0, 1)]);
        assert_eq!(diversity(&env, &objects), Some(2.0));
        assert_eq!(diversity(&env, &objects[..1]), None);
    }
}
