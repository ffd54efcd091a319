//! P_T of given objects estimated by backward trajectories: for spaces too large to enumerate.

use super::EvalContext;
use crate::rng::Purpose;
use crate::sampler::{Draw, Sampler};
use crate::{Environment, States};

/// An estimate of log P_T(x) from importance weights w = P_F(τ) / P_B(τ|x) of τ ∼ P_B(·|x), divided by
/// what [`Environment::log_symmetry`](crate::Environment::log_symmetry) is the logarithm of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogProbEstimate {
    /// log of the mean weight. The mean is unbiased for P_T(x); its logarithm falls short, by about
    /// half the squared standard error where that is small, and by more than the standard error
    /// tells where a few weights make up the sum.
    pub log_prob: f64,
    /// Standard error of that logarithm, by the delta method; none for a single weight. It cannot
    /// exceed 1, so it says nothing where [`effective`](Self::effective) is small.
    pub standard_error: Option<f64>,
    /// The effective number of weights, (Σ w)² / Σ w²: from 1, where one weight is the sum, to all of
    /// them, where they are equal.
    pub effective: f64,
}

impl LogProbEstimate {
    /// From log-weights, at least one.
    pub fn of(log_weights: &[f64]) -> Self {
        let n = log_weights.len() as f64;
        let max = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let relative: Vec<f64> = log_weights.iter().map(|w| (w - max).exp()).collect();
        let sum = relative.iter().sum::<f64>();
        let mean = sum / n;
        let deviations = relative.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>();
        Self {
            log_prob: max + mean.ln(),
            standard_error: (n > 1.0).then(|| (deviations / (n - 1.0) / n).sqrt() / mean),
            effective: sum * sum / relative.iter().map(|w| w * w).sum::<f64>(),
        }
    }
}

/// How many trajectories fit into 256 MB, with the masks of all their steps.
pub(super) fn trajectories_at_once(env: &dyn Environment) -> usize {
    let space = env.space();
    (256 << 20) / (space.max_len * (space.n_actions + 8 * space.width)).max(1)
}

/// Estimates log P_T of each row of `objects` from `n` backward trajectories each, at least 1.
pub fn estimate_log_probs(
    eval: &EvalContext<'_>,
    objects: &States,
    n: usize,
) -> Vec<LogProbEstimate> {
    let env = &*eval.fixed.env;
    let n = n.max(1);
    let at_once = (trajectories_at_once(env) / n).max(1);
    let draw =
        Draw { streams: eval.streams, purpose: Purpose::BackwardEvaluation, step: eval.step };
    let mut sampler = Sampler::default();
    let mut estimates = Vec::with_capacity(objects.len());
    while estimates.len() < objects.len() {
        let first = estimates.len();
        let block = first..objects.len().min(first + at_once);
        let mut repeated = States::with_capacity(objects.width(), block.len() * n);
        for object in block {
            (0..n).for_each(|_| {
                repeated.push(objects.row(object));
            });
        }
        let trajectories = sampler.backward_from(env, eval.policy(), draw, &repeated, first * n);
        let (log_pf, log_pb) = eval.log_probs_of(&trajectories);
        let log_weights: Vec<f64> = log_pf.iter().zip(&log_pb).map(|(pf, pb)| pf - pb).collect();
        for weights in log_weights.chunks_exact(n) {
            let mut estimate = LogProbEstimate::of(weights);
            estimate.log_prob -= env.log_symmetry(objects.row(estimates.len()));
            estimates.push(estimate);
        }
    }
    estimates
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::environment::testing::Balls;
    use crate::exact::Exact;
    use crate::metric::MetricContext;
    use crate::{Direction, Policy, Reward, RewardError, StateGraph, Streams};

    #[test]
    fn estimates_from_hand_numbers() {
        // Weights 1 and 3: mean 2, variance 2 of a weight, 1 of the mean; (1 + 3)^2 / (1 + 9).
        let estimate = LogProbEstimate::of(&[1f64.ln(), 3f64.ln()]);
        assert!((estimate.log_prob - 2f64.ln()).abs() < 1e-15);
        assert!((estimate.standard_error.unwrap() - 0.5).abs() < 1e-15);
        assert!((estimate.effective - 1.6).abs() < 1e-15);
        // Equal weights leave nothing to estimate, at any scale.
        let estimate = LogProbEstimate::of(&[-2000.0; 10]);
        assert!((estimate.log_prob + 2000.0).abs() < 1e-12);
        assert_eq!((estimate.standard_error, estimate.effective), (Some(0.0), 10.0));
    }

    /// Against dynamic programming: standardised errors have a spread of 1, and the effective number is
    /// that of the formula, also where actions stand for several.
    #[test]
    fn errors_are_those_of_the_estimates() {
        /// P_F goes on with a preference for the fullest boxes, alike for boxes that are.
        struct Greedy;
        impl Policy for Greedy {
            fn logits(&self, env: &dyn Environment, way: Direction, xs: &States, out: &mut [f32]) {
                let n = env.space().n_actions;
                for (row, out) in xs.rows().zip(out.chunks_exact_mut(n)) {
                    out.fill(0.0);
                    if way == Direction::Forward {
                        out.iter_mut().zip(row).for_each(|(l, &balls)| *l = 0.4 * balls as f32);
                    }
                }
            }
        }
        struct Flat;
        impl Reward for Flat {
            fn log_reward(&self, _: &States, out: &mut [f64]) -> Result<(), RewardError> {
                out.fill(0.0);
                Ok(())
            }
        }
        let env = Arc::new(Balls::new(4, 7));
        let graph = StateGraph::explore(&*env, 1000).unwrap();
        let target = graph.target(&Flat).unwrap();
        let exact = Arc::new(Exact { graph, target });
        let fixed = MetricContext {
            env,
            reward: Arc::new(Flat),
            exact: Some(exact.clone()),
            layers: None,
            samples: 1,
            test: None,
            backward_trajectories: 1,
            settings: BTreeMap::new(),
        };
        let objects = exact.graph.objects();
        const N: usize = 400;
        let (mut errors, mut squares) = (0.0, 0.0);
        for seed in 0..40 {
            let eval = EvalContext::new(&fixed, &Greedy, None, Streams::new(seed), 0);
            let known = eval.log_prob(&exact);
            for (estimate, known) in estimate_log_probs(&eval, &objects, N).iter().zip(known) {
                let (error, of_n) = (estimate.standard_error.unwrap(), N as f64);
                let variation = of_n / estimate.effective - 1.0;
                let expected = (variation.max(0.0) / (of_n - 1.0)).sqrt();
                assert!((error - expected).abs() < 1e-6, "{error} {expected}");
                if error < 1e-3 {
                    assert!((estimate.log_prob - known).abs() < 1e-5, "no choice back");
                    continue;
                }
                squares += ((estimate.log_prob - known) / error).powi(2);
                errors += 1.0;
            }
        }
        assert!(errors > 800.0, "{errors}");
        let spread = (squares / errors).sqrt();
        assert!((spread - 1.0).abs() < 0.08, "{spread}");
    }

    /// One trajectory has no spread, and one weight that outweighs all others shows in the effective
    /// number alone: the standard error stops at 1.
    #[test]
    fn little_evidence_shows() {
        let estimate = LogProbEstimate::of(&[-3.0]);
        assert_eq!((estimate.log_prob, estimate.standard_error), (-3.0, None));
        assert_eq!(estimate.effective, 1.0);
        for gap in [50.0, 500.0] {
            let mut log_weights = [-gap; 10];
            log_weights[4] = 0.0;
            let estimate = LogProbEstimate::of(&log_weights);
            assert!((estimate.standard_error.unwrap() - 1.0).abs() < 1e-12);
            assert!((estimate.effective - 1.0).abs() < 1e-12);
        }
        assert!(LogProbEstimate::of(&[f64::NAN, 0.0]).log_prob.is_nan());
    }
}
