//! Correlation of log R with log P_T over all objects.

use rayon::prelude::*;

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricEntry};
use crate::RewardError;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "correlation",
    summary: "Pearson and Spearman correlation of log R with log P_T",
    build: |_: &MetricContext| Box::new(Correlation),
};

struct Correlation;

impl Metric for Correlation {
    fn columns(&self) -> Vec<Column> {
        let over = "over every object of the environment, P_T by dynamic programming; empty if \
                    the environment cannot be enumerated or log R is constant";
        vec![
            Column::new(
                "pearson",
                "1",
                Better::Higher,
                format!("Pearson correlation of log R(x) with log P_T(x) {over}"),
            ),
            Column::new(
                "spearman",
                "1",
                Better::Higher,
                format!("Spearman rank correlation (ties averaged) of the same {over}"),
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        // In log space where the graph is at hand: exact also where P_T underflows.
        if let Some(exact) = &eval.fixed.exact {
            let log_p = exact.graph.log_terminal_probs(eval.log_pf(exact));
            let log_r = &exact.target.log_reward;
            return Ok(vec![pearson(log_r, &log_p), spearman(log_r, &log_p)]);
        }
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 2]) };
        let log_p: Vec<f64> = objects.prob.iter().map(|p| p.ln()).collect();
        Ok(vec![pearson(objects.log_reward, &log_p), spearman(objects.log_reward, &log_p)])
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
