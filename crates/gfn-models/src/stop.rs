//! Stopping as a decision of its own (Deleu et al. 2022, arXiv:2202.13903): P_F(stop|s) = σ(z), and
//! P_F(a|s) = σ(−z) softmax(l)(a) for all other actions, with z the number that the head gives to
//! stopping and l those of the others.
//!
//! That is one softmax over z and l − log Σ exp l: policies need not know of it.

use gfn_core::{Environment, States};

/// Where some action may be taken instead of stopping, and stopping instead of it.
pub(crate) fn is_choice(legal: &[bool], stop: usize) -> bool {
    legal[stop] && legal.iter().enumerate().any(|(action, &legal)| legal && action != stop)
}

/// log Σ exp over the legal actions but stopping.
pub(crate) fn log_sum_exp_of_others(logits: &[f32], legal: &[bool], stop: usize) -> f64 {
    let others = || {
        let legal = legal.iter().enumerate().filter(|&(action, &legal)| legal && action != stop);
        legal.map(|(action, _)| f64::from(logits[action]))
    };
    let max = others().fold(f64::NEG_INFINITY, f64::max);
    max + others().map(|logit| (logit - max).exp()).sum::<f64>().ln()
}

/// log σ(x).
pub(crate) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Turns the numbers of a head, for each state those of all forward actions, into logits.
pub(crate) fn into_logits(env: &dyn Environment, states: &States, stop: usize, out: &mut [f32]) {
    let mut legal = vec![false; env.space().n_actions];
    for (row, logits) in states.rows().zip(out.chunks_exact_mut(legal.len())) {
        env.legal(row, &mut legal);
        if !is_choice(&legal, stop) {
            continue;
        }
        let norm = log_sum_exp_of_others(logits, &legal, stop) as f32;
        for (action, logit) in logits.iter_mut().enumerate() {
            if action != stop {
                *logit -= norm;
            }
        }
    }
}
