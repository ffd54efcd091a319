//! P_T of given objects estimated by backward trajectories: for spaces too large to enumerate.

use super::EvalContext;
use crate::States;
use crate::rng::Purpose;
use crate::sampler::{Draw, Sampler};

/// Estimates of log P_T(x), one per object.
pub struct LogProbEstimate {
    /// log of the mean of P_F(τ) / P_B(τ|x) over τ ∼ P_B(·|x). The mean is unbiased for P_T(x);
    /// its logarithm falls short by about half its squared standard error.
    pub log_prob: Vec<f64>,
    /// Standard error of that logarithm, by the delta method.
    pub standard_error: Vec<f64>,
}

/// Estimates log P_T of each row of `objects` from `n` backward trajectories each.
pub fn estimate_log_probs(eval: &EvalContext<'_>, objects: &States, n: usize) -> LogProbEstimate {
    let env = &*eval.fixed.env;
    let mut repeated = States::with_capacity(objects.width(), objects.len() * n);
    for row in objects.rows() {
        for _ in 0..n {
            repeated.push(row);
        }
    }
    let (streams, step) = (eval.streams, eval.step);
    let draw = Draw { streams, purpose: Purpose::BackwardEvaluation, step };
    let trajectories = Sampler::default().backward(env, eval.policy, draw, &repeated);
    let (log_pf, log_pb) = eval.log_probs_of(&trajectories);
    let log_weights: Vec<f64> = log_pf.iter().zip(&log_pb).map(|(pf, pb)| pf - pb).collect();
    let (mut log_prob, mut standard_error) = (Vec::new(), Vec::new());
    for weights in log_weights.chunks_exact(n.max(1)) {
        let max = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let relative: Vec<f64> = weights.iter().map(|w| (w - max).exp()).collect();
        let count = n as f64;
        let mean = relative.iter().sum::<f64>() / count;
        let squares = relative.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>();
        let variance = squares / (count - 1.0).max(1.0);
        log_prob.push(max + mean.ln());
        standard_error.push((variance / count).sqrt() / mean);
    }
    LogProbEstimate { log_prob, standard_error }
}
