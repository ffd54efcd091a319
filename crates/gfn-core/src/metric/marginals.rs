//! Marginals of sampled objects against those of the target, cell by cell: in hundreds of dimensions, where
//! hardly an object is seen twice, what can be seen of distributions.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};
use crate::exact::Exact;
use crate::special::binomial_mean_deviation;
use crate::{Environment, KeyError, States};

pub(super) struct Marginals {
    samples: usize,
    /// P* of each value of each observed cell; none where they are not known.
    exact: Option<Vec<Vec<f64>>>,
}

impl MetricKind for Marginals {
    const NAME: &'static str = "marginals";
    const SUMMARY: &'static str =
        "total variation of each observed cell's distribution over fresh samples from the target's";
    type Settings = NoSettings;

    fn build(context: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        let enumerated = || Some(of_all_objects(&*context.env, context.exact.as_deref()?));
        let exact = context.reward.cell_marginals().or_else(enumerated);
        Ok(Self { samples: context.samples, exact })
    }
}

/// Sums of weights by the values of observed cells.
fn weigh<'a>(
    env: &dyn Environment,
    objects: &States,
    weights: impl Iterator<Item = &'a f64>,
) -> Vec<Vec<f64>> {
    let space = env.space();
    let mut sums: Vec<_> =
        (0..space.n_cells()).map(|cell| vec![0.0; space.values_of(cell)]).collect();
    let mut cells = vec![0; sums.len()];
    for (row, weight) in objects.rows().zip(weights) {
        env.observe(row, &mut cells);
        for (sums, &value) in sums.iter_mut().zip(&cells) {
            if let Ok(value) = usize::try_from(value) {
                sums[value] += weight;
            }
        }
    }
    sums
}

/// P* of each value of each observed cell, by enumeration.
fn of_all_objects(env: &dyn Environment, exact: &Exact) -> Vec<Vec<f64>> {
    weigh(env, &exact.graph.objects(), exact.target.prob.iter())
}

/// The mean over cells of the sums of a distance over the values of a cell, that of no value included.
fn mean_distance(
    sampled: &[Vec<f64>],
    exact: &[Vec<f64>],
    distance: impl Fn(f64, f64) -> f64,
) -> f64 {
    let none = |of: &[f64]| (1.0 - of.iter().sum::<f64>()).max(0.0);
    let of_cell = |(p, q): (&Vec<f64>, &Vec<f64>)| {
        let values: f64 = p.iter().zip(q).map(|(&p, &q)| distance(p, q)).sum();
        values + distance(none(p), none(q))
    };
    sampled.iter().zip(exact).map(of_cell).sum::<f64>() / exact.len() as f64
}

impl Metric for Marginals {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let n = self.samples;
        let empty = "; empty if the target's marginals are known neither in closed form nor by \
                     enumeration";
        vec![
            Column::new(
                "marginal_tv",
                "1",
                Better::Lower,
                format!(
                    "mean over observed cells (of the hypergrid: coordinates) of 1/2 sum_v |p(v) - \
                     P*(v)|, with p the histogram of the cell's values over {n} fresh samples (of \
                     Markov chains: their last {n} objects) and P* the target's exact marginal{empty}"
                ),
            ),
            Column::new(
                "marginal_tv_floor",
                "1",
                Better::Neither,
                format!(
                    "expected marginal_tv of as many samples of the target itself (exact binomial \
                     mean deviation){empty}"
                ),
            ),
        ]
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(exact) = self.exact.as_ref().filter(|exact| !exact.is_empty()) else {
            return Ok(vec![None; 2]);
        };
        let samples = eval.samples()?;
        if samples.is_empty() {
            return Ok(vec![None; 2]);
        }
        let n = samples.len();
        let weights = vec![1.0 / n as f64; n];
        let sampled = weigh(&*eval.fixed.env, &samples.terminals(), weights.iter());
        let tv = mean_distance(&sampled, exact, |p, q| 0.5 * (p - q).abs());
        let floor = mean_distance(exact, exact, |_, q| 0.5 * binomial_mean_deviation(n as u64, q));
        Ok(vec![Some(tv), Some(floor)])
    }
}
