//! What the sampler and the exact evaluation need of a policy: logits for rows of states.

use crate::{Environment, States};

/// Which way along the edges of the state graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From s0 towards objects: P_F.
    Forward,
    /// From objects back to s0: P_B.
    Backward,
}

/// Unnormalised log-probabilities over actions.
pub trait Policy {
    /// Writes the logits of each row of `states`, row-major, to `out`, which has
    /// `states.len() * n_actions` (or `n_back_actions`) entries.
    ///
    /// Logits of illegal actions may be anything finite; the caller masks them.
    fn logits(&self, env: &dyn Environment, direction: Direction, states: &States, out: &mut [f32]);
}

/// The policy that is uniform over legal actions, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct UniformPolicy;

impl Policy for UniformPolicy {
    fn logits(&self, _: &dyn Environment, _: Direction, _: &States, out: &mut [f32]) {
        out.fill(0.0);
    }
}

/// Turns logits into log-probabilities over the legal actions, in double precision.
///
/// `log_probs` gets -infinity for illegal actions. Returns false if no action is legal.
pub fn log_softmax(logits: &[f32], legal: &[bool], log_probs: &mut [f64]) -> bool {
    let mut max = f64::NEG_INFINITY;
    for (&logit, &legal) in logits.iter().zip(legal) {
        if legal {
            max = max.max(f64::from(logit));
        }
    }
    if max == f64::NEG_INFINITY {
        log_probs.fill(f64::NEG_INFINITY);
        return legal.contains(&true);
    }
    let mut sum = 0.0;
    for (&logit, &legal) in logits.iter().zip(legal) {
        if legal {
            sum += (f64::from(logit) - max).exp();
        }
    }
    let log_norm = max + sum.ln();
    for ((out, &logit), &legal) in log_probs.iter_mut().zip(logits).zip(legal) {
        *out = if legal { f64::from(logit) - log_norm } else { f64::NEG_INFINITY };
    }
    true
}
