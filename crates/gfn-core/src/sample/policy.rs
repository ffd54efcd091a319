//! What the sampler and the exact evaluation need of a policy: logits for rows of states.

use crate::{Environment, States};

pub use crate::space::Direction;

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
/// `log_probs` gets -infinity for illegal actions, and NaN for all legal ones where a legal logit
/// is NaN or +infinity. Returns false if no action is legal.
pub fn log_softmax(logits: &[f32], legal: &[bool], log_probs: &mut [f64]) -> bool {
    if !legal.contains(&true) {
        log_probs.fill(f64::NEG_INFINITY);
        return false;
    }
    let mut max = f64::NEG_INFINITY;
    for (&logit, &legal) in logits.iter().zip(legal) {
        if legal {
            max = max.max(f64::from(logit));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_of_hand_numbers() {
        let mut out = [0.0; 3];
        let ln3 = 3f32.ln();
        assert!(log_softmax(&[ln3, 9.0, 0.0], &[true, false, true], &mut out));
        assert!((out[0] - 0.75f64.ln()).abs() < 1e-7 && (out[2] - 0.25f64.ln()).abs() < 1e-7);
        assert_eq!(out[1], f64::NEG_INFINITY);
        assert!(!log_softmax(&[0.0; 3], &[false; 3], &mut out));
        assert_eq!(out, [f64::NEG_INFINITY; 3]);
    }

    /// Broken logits are not mistaken for a state without actions.
    #[test]
    fn broken_logits_show() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for logits in [[nan, nan, 0.0], [nan, 1.0, 0.0], [inf, 1.0, 0.0], [-inf, -inf, 0.0]] {
            let mut out = [0.0; 3];
            assert!(log_softmax(&logits, &[true, true, false], &mut out));
            assert!(out[0].is_nan() && out[1].is_nan(), "{logits:?}: {out:?}");
            assert_eq!(out[2], f64::NEG_INFINITY);
        }
    }
}
