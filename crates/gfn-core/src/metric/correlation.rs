//! Correlation of log R with log P_T: on test objects where there are some, else over all objects.

use rayon::prelude::*;

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricEntry, TestSet, estimate_log_probs,
};
use crate::{RewardError, States};

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "correlation",
    summary: "Pearson and Spearman correlation of log R with log P_T",
    build: |context: &MetricContext| {
        Box::new(Correlation { context: context.clone(), log_reward: None })
    },
};

struct Correlation {
    context: MetricContext,
    /// log R of the test objects, computed once: some rewards are expensive.
    log_reward: Option<Vec<f64>>,
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
                "over {} {origin}, P_T(x) estimated as the mean of P_F(tau)/P_B(tau|x) over {n} \
                 trajectories tau drawn from P_B",
                objects.len()
            ),
            (None, _) => "over every object of the environment, P_T by dynamic programming; empty \
                          if it cannot be enumerated and there are no test objects"
                .to_owned(),
        }
    }

    /// On test objects.
    fn on_test(
        &mut self,
        eval: &EvalContext<'_>,
        test: &States,
    ) -> Result<Vec<Option<f64>>, RewardError> {
        let log_r = match &mut self.log_reward {
            Some(known) => known,
            unknown => {
                let mut log_r = vec![0.0; test.len()];
                self.context.reward.log_reward(test, &mut log_r)?;
                unknown.insert(log_r)
            }
        };
        if let Some(exact) = &eval.fixed.exact {
            let of_all = exact.graph.log_terminal_probs(eval.log_pf(exact));
            // What is no object of the environment is never sampled.
            let log_p = |row| {
                exact.graph.find_object(row).map_or(f64::NEG_INFINITY, |object| of_all[object])
            };
            let log_p: Vec<f64> = test.rows().map(log_p).collect();
            return Ok(correlations(log_r, &log_p, None));
        }
        let n = self.context.backward_trajectories;
        let estimate = estimate_log_probs(eval, test, n);
        let error = estimate.standard_error.iter().sum::<f64>() / test.len() as f64;
        Ok(correlations(log_r, &estimate.log_prob, Some((n, error))))
    }
}

/// One value per column; `estimated` says from how many trajectories, and the standard error.
fn correlations(log_r: &[f64], log_p: &[f64], estimated: Option<(usize, f64)>) -> Vec<Option<f64>> {
    vec![
        pearson(log_r, log_p),
        spearman(log_r, log_p),
        estimated.map(|(n, _)| n as f64),
        estimated.map(|(_, error)| error),
    ]
}

impl Metric for Correlation {
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
                "Spearman rank correlation (ties averaged) of log R(x) with log P_T(x)",
            ),
            Column::new(
                "n_backward",
                "trajectories",
                Better::Neither,
                "backward trajectories per test object from which P_T is estimated; empty if it \
                 is exact",
            ),
            Column::new(
                "log_p_error",
                "nats",
                Better::Neither,
                "mean standard error of these estimates of log P_T(x); empty if they are exact",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        if let Some(test) = self.context.test.clone() {
            return self.on_test(eval, &test.objects);
        }
        // In log space where the graph is at hand: exact also where P_T underflows.
        if let Some(exact) = &eval.fixed.exact {
            let log_p = exact.graph.log_terminal_probs(eval.log_pf(exact));
            return Ok(correlations(&exact.target.log_reward, &log_p, None));
        }
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 4]) };
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

/// Spearman's rank correlation coefficient, with the average rank for ties.
pub fn spearman(xs: &[f64], ys: &[f64]) -> Option<f64> {
    pearson(&ranks(xs), &ranks(ys))
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
}
