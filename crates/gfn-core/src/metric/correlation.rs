//! Correlation of log R with log P_T: on test objects where there are some, else over all objects.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BLOCK, Better, Column, EvalContext, LogProbEstimate, Metric, MetricContext, MetricError,
    MetricKind, TestSet, estimate_log_probs,
};
use crate::{Ancestors, BrokenLaw, Direction, Environment, KeyError, StateGraph, States};

pub(super) struct Correlation {
    context: MetricContext,
    max_ancestors: usize,
    /// log R of the test objects, computed once: some rewards are expensive.
    log_reward: Option<Vec<f64>>,
    /// The test objects, divided once.
    divided: Option<Divided>,
}

/// How P_T of test objects is known.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TestObjects {
    /// P_T is exact for the test objects that can be built through at most so many states, themselves
    /// included (0: for none), by dynamic programming over these, and estimated for the others. Strings of
    /// length L have L + 1 such states where they grow at one end, up to L (L + 1) / 2 + 1 where they do at
    /// both, and 2^L where they are filled in any order; cells of a grid as many as lie below them. `n_exact`
    /// says how many objects have few enough; `gfn eval RUN -s eval.settings.correlation.max_ancestors=N`
    /// tries another number. States are found once, at the first evaluation, shared by objects, and kept: 4
    /// bytes for every cell of a state's row and about 30, 20 for each action between them, and three times
    /// that while they are found. Every evaluation asks the policy for each of them once.
    max_ancestors: usize,
}

/// More states of an object are not held.
const MOST: usize = 1 << 26;

/// Test objects by how their P_T is known.
struct Divided {
    /// All ways to those that have few ancestors, if there are any.
    graph: Option<StateGraph>,
    /// For each test object its place among the objects of the graph, if it is there.
    places: Vec<Option<usize>>,
    /// The others, in their order.
    others: States,
}

impl Divided {
    fn new(env: &dyn Environment, test: &States, most: usize) -> Result<Self, BrokenLaw> {
        let mut ancestors = Ancestors::new(env);
        let few: Vec<bool> =
            test.rows().map(|row| most > 0 && ancestors.add(env, row, most).is_some()).collect();
        let any = few.contains(&true);
        let graph = any.then(|| StateGraph::of_ancestors(env, ancestors)).transpose()?;
        let (mut places, mut others) = (Vec::with_capacity(few.len()), States::new(test.width()));
        for (row, is_few) in test.rows().zip(few) {
            let of_few = graph.as_ref().filter(|_| is_few);
            let place = of_few.and_then(|graph| graph.find_object(row));
            places.push(place);
            if place.is_none() {
                others.push(row);
            }
        }
        Ok(Self { graph, places, others })
    }

    /// log P_T of the objects of the graph, in its order.
    fn log_probs(&self, eval: &EvalContext<'_>) -> Vec<f64> {
        let Some(graph) = &self.graph else { return Vec::new() };
        let (env, policy) = (&*eval.fixed.env, eval.policy());
        graph.log_terminal_probs(&graph.log_probs(env, policy, Direction::Forward, BLOCK))
    }
}

impl Correlation {
    /// Over which objects, and how P_T is known there.
    fn definition(&self) -> String {
        let n = self.context.backward_trajectories;
        match (&self.context.test, &self.context.exact) {
            (Some(TestSet { objects, origin }), Some(_)) => {
                format!("over {} {origin}, P_T by dynamic programming", objects.len())
            }
            (Some(TestSet { objects, origin }), None) => format!(
                "over {} {origin}, {}P_T(x) estimated as the mean of P_F(tau)/P_B(tau|x) over {n} \
                 trajectories tau drawn from P_B{}",
                objects.len(),
                match self.max_ancestors {
                    0 => String::new(),
                    most => format!(
                        "P_T by dynamic programming for n_exact of them, those that at most {most} \
                         states lead to, and for the others "
                    ),
                },
                match self.context.env.edges_are_actions() {
                    true => "",
                    false => ", corrected by the symmetries of x",
                }
            ),
            (None, _) => "over every object of the environment, P_T by dynamic programming; empty \
                          if it cannot be enumerated and there are no test objects, as where \
                          rewards are costly"
                .to_owned(),
        }
    }

    /// On test objects.
    fn on_test(
        &mut self,
        eval: &EvalContext<'_>,
        test: &States,
    ) -> Result<Vec<Option<f64>>, MetricError> {
        let log_r = match &mut self.log_reward {
            Some(known) => known,
            unknown => {
                let mut log_r = vec![0.0; test.len()];
                self.context.reward.log_reward(test, &mut log_r)?;
                unknown.insert(log_r)
            }
        };
        if let Some(exact) = &eval.fixed.exact {
            let of_all = eval.log_prob(exact);
            // What is no object of the environment is never sampled.
            let log_p = |row| {
                exact.graph.find_object(row).map_or(f64::NEG_INFINITY, |object| of_all[object])
            };
            let log_p: Vec<f64> = test.rows().map(log_p).collect();
            return Ok(correlations(log_r, &log_p, None));
        }
        let divided = match &mut self.divided {
            Some(known) => known,
            unknown => unknown.insert(Divided::new(&*eval.fixed.env, test, self.max_ancestors)?),
        };
        let n = self.context.backward_trajectories;
        let estimates = estimate_log_probs(eval, &divided.others, n);
        let of_graph = divided.log_probs(eval);
        let mut estimated = estimates.iter().map(|estimate| estimate.log_prob);
        let log_p = |place: &Option<usize>| match place {
            Some(object) => of_graph[*object],
            None => estimated.next().expect("those without a place are estimated"),
        };
        let log_p: Vec<f64> = divided.places.iter().map(log_p).collect();
        Ok(correlations(log_r, &log_p, Some((n, &estimates))))
    }
}

/// One value per column; `estimated` says from how many trajectories P_T is estimated, where it is, and
/// what from.
fn correlations(
    log_r: &[f64],
    log_p: &[f64],
    estimated: Option<(usize, &[LogProbEstimate])>,
) -> Vec<Option<f64>> {
    let estimated = estimated.filter(|(_, estimates)| !estimates.is_empty());
    let mean = |of: fn(&LogProbEstimate) -> Option<f64>| {
        let (_, estimates) = estimated?;
        let sum = estimates.iter().map(of).sum::<Option<f64>>()?;
        Some(sum / estimates.len() as f64)
    };
    let n_exact = log_p.len() - estimated.map_or(0, |(_, estimates)| estimates.len());
    vec![
        pearson(log_r, log_p),
        spearman(log_r, log_p),
        spearman_max(log_r),
        estimated.map(|(n, _)| n as f64),
        mean(|estimate| estimate.standard_error),
        mean(|estimate| Some(estimate.effective)),
        Some(n_exact as f64),
    ]
}

impl MetricKind for Correlation {
    const NAME: &'static str = "correlation";
    const SUMMARY: &'static str = "Pearson and Spearman correlation of log R with log P_T";
    type Settings = TestObjects;

    fn build(context: &MetricContext, settings: TestObjects) -> Result<Self, KeyError> {
        let TestObjects { max_ancestors } = settings;
        if max_ancestors > MOST {
            let message = format!("`max_ancestors` must lie in [0, {MOST}], not {max_ancestors}");
            return Err(KeyError::new("max_ancestors", message));
        }
        let context = context.clone();
        Ok(Self { context, max_ancestors, log_reward: None, divided: None })
    }
}

impl Metric for Correlation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let over = self.definition();
        let column = |name, unit, better, what: &str| {
            Column::new(name, unit, better, format!("{what} {over}"))
        };
        vec![
            column(
                "pearson",
                "1",
                Better::Higher,
                "Pearson correlation of log R(x) with log P_T(x)",
            ),
            column(
                "spearman",
                "1",
                Better::Higher,
                "Spearman rank correlation (ties averaged) of log R(x) with log P_T(x), at most \
                 spearman_max where P_T has no ties,",
            ),
            column(
                "spearman_max",
                "1",
                Better::Neither,
                "the largest spearman that a P_T without ties can have, given the ties of log R: \
                 sqrt(1 - sum (t^3 - t) / (n^3 - n)) with t the sizes of the groups of equal log R \
                 and n the number of objects,",
            ),
            Column::new(
                "n_backward",
                "trajectories",
                Better::Neither,
                "backward trajectories per test object from which P_T is estimated; empty if none \
                 is estimated",
            ),
            Column::new(
                "log_p_error",
                "nats",
                Better::Neither,
                "mean of the standard error of these estimates of log P_T(x) over the test objects that \
                 have one, by the delta method: at most 1, and too small where log_p_ess is a few; \
                 empty if none is estimated, and for one trajectory per object",
            ),
            Column::new(
                "log_p_ess",
                "trajectories",
                Better::Higher,
                "mean over the test objects that have an estimate of the effective sample size \
                 (sum w)^2 / sum w^2 of its weights w = P_F(tau)/P_B(tau|x): of n_backward \
                 trajectories, how many count; empty if none is estimated",
            ),
            Column::new(
                "n_exact",
                "objects",
                Better::Neither,
                "objects whose P_T is exact: all of an enumerated environment; else the test objects \
                 that at most eval.settings.correlation.max_ancestors states lead to",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        if let Some(test) = self.context.test.clone() {
            return self.on_test(eval, &test.objects);
        }
        // In log space where the graph is at hand: exact also where P_T underflows.
        if let Some(exact) = &eval.fixed.exact {
            let log_p = eval.log_prob(exact);
            return Ok(correlations(&exact.target.log_reward, log_p, None));
        }
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 7]) };
        let log_p: Vec<f64> = objects.prob.iter().map(|p| p.ln()).collect();
        Ok(correlations(objects.log_reward, &log_p, None))
    }
}

/// Pearson's correlation coefficient; none if a variance is zero or a value is not finite.
pub fn pearson(xs: &[f64], ys: &[f64]) -> Option<f64> {
    let n = xs.len() as f64;
    let (mean_x, mean_y) = (xs.iter().sum::<f64>() / n, ys.iter().sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (&x, &y) in xs.iter().zip(ys) {
        xx += (x - mean_x) * (x - mean_x);
        yy += (y - mean_y) * (y - mean_y);
        xy += (x - mean_x) * (y - mean_y);
    }
    let r = xy / (xx.sqrt() * yy.sqrt());
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation coefficient, with the average rank for ties; none if a value is NaN
/// or all values of one side are equal.
pub fn spearman(xs: &[f64], ys: &[f64]) -> Option<f64> {
    if xs.iter().chain(ys).any(|value| value.is_nan()) {
        return None;
    }
    pearson(&ranks(xs), &ranks(ys))
}

/// The largest [`spearman`] of `xs` with values that are all different; none if there is none.
///
/// It is reached where groups of equal `xs` stay together, in their order. The covariance of the
/// ranks then is the variance of the averaged ones, which ties of t values reduce by (t³ − t) / 12.
pub fn spearman_max(xs: &[f64]) -> Option<f64> {
    let mut sorted = xs.to_vec();
    sorted.par_sort_unstable_by(f64::total_cmp);
    let cube = |t: usize| (t as f64).powi(3) - t as f64;
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|group| cube(group.len())).sum();
    let share = ties / cube(xs.len());
    (share < 1.0).then(|| (1.0 - share).sqrt())
}

fn ranks(xs: &[f64]) -> Vec<f64> {
    let mut order: Vec<u32> = (0..xs.len() as u32).collect();
    order.par_sort_unstable_by(|&a, &b| xs[a as usize].total_cmp(&xs[b as usize]));
    let mut ranks = vec![0.0; xs.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && xs[order[end] as usize] == xs[order[start] as usize] {
            end += 1;
        }
        for &i in &order[start..end] {
            ranks[i as usize] = (start + end - 1) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let (xs, ys) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]);
        assert!((pearson(&xs, &ys).unwrap() - 0.8).abs() < 1e-15);
        assert!((spearman(&xs, &ys).unwrap() - 0.8).abs() < 1e-15);
        // A monotone map changes Pearson, never Spearman.
        let cubes = xs.map(|x| x * x * x);
        assert!((spearman(&cubes, &ys).unwrap() - 0.8).abs() < 1e-15);
        assert_eq!(pearson(&xs, &[2.0; 4]), None);
    }

    #[test]
    fn ties_get_the_average_rank() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
    }

    /// The closed form against the best order among all that keep values apart, by trying them all.
    #[test]
    fn the_largest_spearman_under_ties() {
        fn orders(n: usize) -> Vec<Vec<f64>> {
            let mut all = vec![vec![]];
            for i in 0..n {
                let insert = |order: &Vec<f64>| {
                    let order = order.clone();
                    (0..=i).map(move |at| {
                        let mut longer = order.clone();
                        longer.insert(at, i as f64);
                        longer
                    })
                };
                all = all.iter().flat_map(insert).collect();
            }
            all
        }
        for xs in [&[1.0, 1.0, 1.0, 2.0, 2.0, 7.0][..], &[3.0, 1.0, 3.0, 3.0], &[1.0, 2.0, 3.0]] {
            let values = orders(xs.len()).into_iter().map(|ys| spearman(xs, &ys).unwrap());
            let best = values.fold(-1.0, f64::max);
            assert!((spearman_max(xs).unwrap() - best).abs() < 1e-12, "{xs:?}");
        }
        assert_eq!(spearman_max(&[1.0, 2.0, 3.0]), Some(1.0));
        assert_eq!(spearman_max(&[1.0; 3]), None);
        assert_eq!(spearman_max(&[]), None);
    }

    /// The papers' grid of 20^4 cells: 10 coordinates of 20 are on the plateau and 4 on the peaks, so
    /// log R takes three values, and no P_T without ties reaches more than 0.4193.
    #[test]
    fn the_largest_spearman_of_the_papers_grid() {
        let counts = [(0.0, 160_000 - 10_000), (1.0, 10_000 - 256), (2.0, 256)];
        let log_r: Vec<f64> =
            counts.iter().flat_map(|&(value, n)| std::iter::repeat_n(value, n)).collect();
        let increasing: Vec<f64> = (0..log_r.len()).map(|i| i as f64).collect();
        let max = spearman_max(&log_r).unwrap();
        assert!((max - 0.419_284_533_5).abs() < 1e-9, "{max}");
        assert!((max - spearman(&log_r, &increasing).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_a_number_has_no_rank() {
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[f64::NAN; 3]), None);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 2.0]), None);
        assert_eq!(pearson(&[1.0, 2.0, 3.0], &[1.0, f64::NAN, 2.0]), None);
        let lowest = spearman(&[1.0, 2.0, 3.0], &[f64::NEG_INFINITY, 0.0, 1.0]);
        assert!((lowest.unwrap() - 1.0).abs() < 1e-15);
    }
}
