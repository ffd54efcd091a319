//! Exact distances between P_T and P*, by dynamic programming over the whole state graph.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};

use crate::KeyError;

pub(super) struct Distribution;

impl MetricKind for Distribution {
    const NAME: &'static str = "distribution";
    const SUMMARY: &'static str =
        "exact tv, l1, jsd and kl between the sampled and the target distribution";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }
}

impl Metric for Distribution {
    fn name(&self) -> &'static str {
        Self::NAME
    }

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

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(objects) = eval.objects()? else { return Ok(vec![None; 4]) };
        let log_z = objects.log_z;
        let log_target = objects.log_reward.iter().map(|log_reward| log_reward - log_z);
        let d = match &eval.fixed.exact {
            // Right also where P_T or P* underflows.
            Some(exact) => divergences(eval.log_prob(exact).iter().copied().zip(log_target)),
            None => divergences(objects.prob.iter().map(|p| p.ln()).zip(log_target)),
        };
        Ok(vec![Some(0.5 * d.l1), Some(d.l1), Some(d.jsd), Some(d.kl)])
    }
}

/// Distances between two distributions.
struct Divergences {
    l1: f64,
    jsd: f64,
    kl: f64,
}

/// Of pairs (log p(x), log q(x)), one per object. What is not finite shows in all of them.
fn divergences(pairs: impl Iterator<Item = (f64, f64)>) -> Divergences {
    // a (log a - log b), with 0 for a = 0; NaN stays NaN.
    let term = |a: f64, log_ratio: f64| if a == 0.0 { 0.0 } else { a * log_ratio };
    let (mut l1, mut kl_pm, mut kl_qm, mut kl) = (0.0, 0.0, 0.0, 0.0);
    for (log_p, log_q) in pairs {
        let (p, q) = (log_p.exp(), log_q.exp());
        let m = 0.5 * (p + q);
        l1 += (p - q).abs();
        kl_pm += term(p, (p / m).ln());
        kl_qm += term(q, (q / m).ln());
        kl += term(p, log_p - log_q);
    }
    // Rounding may leave equal distributions a hair below zero.
    let above_zero = |x: f64| if x < 0.0 { 0.0 } else { x };
    Divergences { l1, jsd: above_zero(0.5 * (kl_pm + kl_qm)), kl: above_zero(kl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_two_points() {
        let of =
            |pairs: [(f64, f64); 2]| divergences(pairs.map(|(p, q)| (p.ln(), q.ln())).into_iter());
        let d = of([(0.5, 0.25), (0.5, 0.75)]);
        assert!((d.l1 - 0.5).abs() < 1e-15);
        let kl = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        assert!((d.kl - kl).abs() < 1e-15);
        let h = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        assert!((d.jsd - (h(0.375) - 0.5 * (h(0.5) + h(0.25)))).abs() < 1e-15);
        let disjoint = of([(1.0, 0.0), (0.0, 1.0)]);
        assert_eq!(disjoint.l1, 2.0);
        assert!((disjoint.jsd - 2f64.ln()).abs() < 1e-15);
        assert_eq!(disjoint.kl, f64::INFINITY);
    }
    /// P* = (1 - e^-2000, e^-2000) underflows in linear space; KL(P_T || P*) of a fair coin does not.
    #[test]
    fn kl_of_targets_that_underflow() {
        let half = 0.5f64.ln();
        let d = divergences([(half, 0.0), (half, -2000.0)].into_iter());
        assert!((d.kl - (half + 1000.0)).abs() < 1e-9, "{}", d.kl);
        assert!((d.l1 - 1.0).abs() < 1e-15);
    }

    #[test]
    fn broken_probabilities_show() {
        let d = divergences([(f64::NAN, 0.5f64.ln()), (0.5f64.ln(), 0.5f64.ln())].into_iter());
        assert!(d.l1.is_nan() && d.jsd.is_nan() && d.kl.is_nan());
    }
}
