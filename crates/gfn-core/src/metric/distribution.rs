//! Exact distances between P_T and P*, by dynamic programming over the whole state graph.

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricEntry};
use crate::RewardError;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "distribution",
    summary: "exact tv, l1, jsd and kl between the sampled and the target distribution",
    build: |_: &MetricContext| Box::new(Distribution),
};

struct Distribution;

impl Metric for Distribution {
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new(
                "tv_exact",
                "1",
                Better::Lower,
                "total variation 1/2 sum_x |P_T(x) - P*(x)|, P_T by dynamic programming over the \
                 whole state graph; empty if the environment has more states than eval.max_states \
                 and eval.max_streamed_states allow",
            )
            .headline(0),
            Column::new("l1_exact", "1", Better::Lower, "sum_x |P_T(x) - P*(x)|, twice tv_exact"),
            Column::new(
                "jsd_exact",
                "nats",
                Better::Lower,
                "Jensen-Shannon divergence between P_T and P*",
            ),
            Column::new("kl_exact", "nats", Better::Lower, "KL(P_T || P*)"),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 4]) };
        let d = divergences(objects.prob.iter().copied().zip(objects.target()));
        Ok(vec![Some(0.5 * d.l1), Some(d.l1), Some(d.jsd), Some(d.kl)])
    }
}

/// Distances between two distributions.
struct Divergences {
    l1: f64,
    jsd: f64,
    kl: f64,
}

/// Of pairs (p(x), q(x)), one per object.
fn divergences(pairs: impl Iterator<Item = (f64, f64)>) -> Divergences {
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    let (mut l1, mut kl_pm, mut kl_qm, mut kl) = (0.0, 0.0, 0.0, 0.0);
    for (p, q) in pairs {
        let m = 0.5 * (p + q);
        l1 += (p - q).abs();
        kl_pm += term(p, m);
        kl_qm += term(q, m);
        kl += term(p, q);
    }
    // Rounding may leave equal distributions a hair below zero.
    Divergences { l1, jsd: (0.5 * (kl_pm + kl_qm)).max(0.0), kl: kl.max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_two_points() {
        let d = divergences([(0.5, 0.25), (0.5, 0.75)].into_iter());
        assert!((d.l1 - 0.5).abs() < 1e-15);
        let kl = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        assert!((d.kl - kl).abs() < 1e-15);
        let h = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        assert!((d.jsd - (h(0.375) - 0.5 * (h(0.5) + h(0.25)))).abs() < 1e-15);
        let disjoint = divergences([(1.0, 0.0), (0.0, 1.0)].into_iter());
        assert_eq!(disjoint.l1, 2.0);
        assert!((disjoint.jsd - 2f64.ln()).abs() < 1e-15);
        assert_eq!(disjoint.kl, f64::INFINITY);
    }
}
