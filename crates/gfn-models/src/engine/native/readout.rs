//! What losses read off the outputs of tapes, and the gradients that come back.

use gfn_core::learn::engine::{ActionsTaken, Readout};
use gfn_core::vector::{softmax_weights, vectorised};
use rayon::prelude::*;

use super::tape::{OutputRows, Tape};
use crate::stop::{is_choice, log_sigmoid, log_sum_exp_of_others};

/// How many choices are worth a thread.
fn per_thread(n_actions: usize) -> usize {
    (1 << 16) / n_actions.max(1)
}

/// Reads a head whose outputs start at `column`, and which decides on `stop` before all other actions
/// if there is one.
pub(super) fn read(
    tapes: &[Tape],
    width: usize,
    column: usize,
    stop: Option<usize>,
    readout: &Readout,
) -> Vec<f64> {
    let outputs = OutputRows::new(tapes, width);
    match readout {
        Readout::Scalar => {
            let rows = tapes.iter().flat_map(|tape| tape.outputs(0, width).chunks_exact(width));
            rows.map(|row| f64::from(row[column])).collect()
        }
        Readout::Taken(of) => {
            let at = |(&row, &taken): (&u32, &u32)| {
                f64::from(outputs.row(row as usize)[column + taken as usize])
            };
            of.rows.iter().zip(&of.taken).map(at).collect()
        }
        Readout::LogProb(of) if stop.is_some() => {
            let stop = stop.expect("there is one");
            let log_prob = |i: usize| {
                let logits = &outputs.row(of.rows[i] as usize)[column..][..of.n_actions];
                stop_first(logits, of.legal_at(i), of.taken[i] as usize, stop)
            };
            (0..of.len()).map(log_prob).collect()
        }
        Readout::LogProb(of) => each(of, &outputs, column, |i, logits, log_sum_exp| {
            f64::from(logits[of.taken[i] as usize]) - log_sum_exp
        }),
        Readout::LogSumExp(of) => each(of, &outputs, column, |_, _, log_sum_exp| log_sum_exp),
    }
}

/// A number for every choice, from the logits and log Σ exp of the legal ones.
fn each(
    of: &ActionsTaken,
    outputs: &OutputRows<'_>,
    column: usize,
    number: impl Fn(usize, &[f32], f64) -> f64 + Sync,
) -> Vec<f64> {
    let mut numbers = vec![0.0; of.len()];
    let fill = |first: usize, numbers: &mut [f64]| {
        let mut weights = vec![0.0; of.n_actions];
        for (i, out) in numbers.iter_mut().enumerate() {
            let i = first + i;
            let logits = &outputs.row(of.rows[i] as usize)[column..][..of.n_actions];
            let (max, sum) = softmax_weights(logits, of.legal_at(i), 1.0, &mut weights);
            *out = number(i, logits, f64::from(max) + f64::from(sum.ln()));
        }
    };
    let per_thread = per_thread(of.n_actions);
    if numbers.len() <= per_thread {
        fill(0, &mut numbers);
    } else {
        let parts = numbers.par_chunks_mut(per_thread).enumerate();
        parts.for_each(|(part, numbers)| fill(part * per_thread, numbers));
    }
    numbers
}

/// log P of an action where stopping is decided on first.
fn stop_first(logits: &[f32], legal: &[bool], taken: usize, stop: usize) -> f64 {
    let z = f64::from(logits[stop]);
    match (is_choice(legal, stop), taken == stop) {
        (true, true) => log_sigmoid(z),
        (false, true) => 0.0,
        (choice, false) => {
            let others = f64::from(logits[taken]) - log_sum_exp_of_others(logits, legal, stop);
            if choice { others + log_sigmoid(-z) } else { others }
        }
    }
}

/// Adds `d` times the gradient of that by all logits.
fn add_stop_first(
    gradient: &mut [f32],
    logits: &[f32],
    legal: &[bool],
    (taken, stop): (usize, usize),
    d: f64,
) {
    let z = f64::from(logits[stop]);
    if is_choice(legal, stop) {
        let by_z = if taken == stop { log_sigmoid(-z).exp() } else { -log_sigmoid(z).exp() };
        gradient[stop] += (d * by_z) as f32;
    }
    if taken != stop {
        let norm = log_sum_exp_of_others(logits, legal, stop);
        for (action, &legal) in legal.iter().enumerate() {
            if legal && action != stop {
                let p = (f64::from(logits[action]) - norm).exp();
                gradient[action] += (d * (f64::from(u8::from(action == taken)) - p)) as f32;
            }
        }
    }
}

/// Adds to the gradient of the outputs of `tapes`, of `width` columns, what follows from the
/// derivatives of a loss by what it has read of a head whose outputs start at `column`, and which
/// decides on `stop` before all other actions if there is one.
pub(super) fn add_gradient(
    tapes: &mut [Tape],
    width: usize,
    (column, stop): (usize, Option<usize>),
    readout: &Readout,
    derivatives: &[f64],
) {
    // By the number of the action taken, and by log Σ exp.
    match readout {
        Readout::Scalar => {
            let rows =
                tapes.iter_mut().flat_map(|tape| tape.output_gradient.chunks_exact_mut(width));
            rows.zip(derivatives).for_each(|(row, &d)| row[column] += d as f32);
        }
        Readout::LogProb(of) if stop.is_some() => {
            let stop = stop.expect("there is one");
            let mut rows: Vec<(&[f32], &mut [f32])> = tapes
                .iter_mut()
                .flat_map(|tape| {
                    let outputs = tape.output[..tape.rows * width].chunks_exact(width);
                    outputs.zip(tape.output_gradient.chunks_exact_mut(width))
                })
                .collect();
            for (i, &d) in derivatives.iter().enumerate() {
                let (output, gradient) = &mut rows[of.rows[i] as usize];
                let logits = &output[column..][..of.n_actions];
                let gradient = &mut gradient[column..][..of.n_actions];
                let actions = (of.taken[i] as usize, stop);
                add_stop_first(gradient, logits, of.legal_at(i), actions, d);
            }
        }
        Readout::LogProb(of) => by_choice(tapes, width, column, of, |i| {
            // Nothing to choose, no gradient.
            let choice = of.legal_at(i).iter().filter(|&&legal| legal).count() > 1;
            let d = if choice { derivatives[i] as f32 } else { 0.0 };
            (d, -d)
        }),
        Readout::Taken(of) => {
            by_choice(tapes, width, column, of, |i| (derivatives[i] as f32, 0.0));
        }
        Readout::LogSumExp(of) => {
            by_choice(tapes, width, column, of, |i| (0.0, derivatives[i] as f32));
        }
    }
}

/// For each choice with derivatives d by the number of the action taken and e by log Σ exp: adds
/// d · 1[a taken] + e · P(a) for the logit of each legal action a.
fn by_choice(
    tapes: &mut [Tape],
    width: usize,
    column: usize,
    of: &ActionsTaken,
    derivatives: impl Fn(usize) -> (f32, f32) + Sync,
) {
    let add = |choice: usize, weights: &mut [f32], output: &[f32], gradient: &mut [f32]| {
        let (by_taken, by_sum) = derivatives(choice);
        let gradient = &mut gradient[column..][..of.n_actions];
        if by_sum != 0.0 {
            let logits = &output[column..][..of.n_actions];
            let (_, sum) = softmax_weights(logits, of.legal_at(choice), 1.0, weights);
            add_scaled(gradient, weights, by_sum / sum);
        }
        if by_taken != 0.0 {
            gradient[of.taken[choice] as usize] += by_taken;
        }
    };
    // By row, so that threads write into different rows; those of one row in order.
    let mut order: Vec<u32> = (0..of.len() as u32).collect();
    order.sort_by_key(|&choice| of.rows[choice as usize]);
    let by_row = order.chunk_by(|&a, &b| of.rows[a as usize] == of.rows[b as usize]);
    let mut rows = tapes.iter_mut().flat_map(|tape| {
        let outputs = tape.output[..tape.rows * width].chunks_exact(width);
        outputs.zip(tape.output_gradient.chunks_exact_mut(width))
    });
    let mut next = 0;
    let work = by_row.map(|choices| {
        let row = of.rows[choices[0] as usize] as usize;
        let (output, gradient) = rows.nth(row - next).expect("every choice has its row");
        next = row + 1;
        (choices, output, gradient)
    });
    let per_thread = per_thread(of.n_actions);
    let new_weights = || vec![0.0; of.n_actions];
    if of.len() <= per_thread {
        let mut weights = new_weights();
        work.for_each(|(choices, output, gradient)| {
            for &choice in choices {
                add(choice as usize, &mut weights, output, gradient);
            }
        });
        return;
    }
    let mut work: Vec<_> = work.collect();
    work.par_iter_mut().with_min_len(per_thread).for_each_init(
        new_weights,
        |weights, (choices, output, gradient)| {
            choices.iter().for_each(|&choice| add(choice as usize, weights, output, gradient));
        },
    );
}

/// From how many numbers on loops are worth a call for wide instructions.
const WIDE: usize = 32;

/// `gradient += factor · weights`.
fn add_scaled(gradient: &mut [f32], weights: &[f32], factor: f32) {
    if weights.len() < WIDE {
        for (gradient, &weight) in gradient.iter_mut().zip(weights) {
            *gradient += factor * weight;
        }
        return;
    }
    vectorised(
        #[inline(always)]
        || {
            for (gradient, &weight) in gradient.iter_mut().zip(weights) {
                *gradient += factor * weight;
            }
        },
    );
}
