//! What losses read off the outputs of tapes, and the gradients that come back.

use std::cell::OnceCell;
use std::ops::Range;

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
        Readout::LogProb(of) => match stop {
            Some(stop) => each(of, &outputs, column, |i, logits, _, numbers| {
                let log_probs = StopFirst::new(logits, of.legal_at(i), stop);
                numbers.push(log_probs.of(of.taken[i] as usize));
            }),
            None => each(of, &outputs, column, |i, logits, weights, numbers| {
                let log_sum_exp = log_sum_exp(logits, of.legal_at(i), weights);
                numbers.push(f64::from(logits[of.taken[i] as usize]) - log_sum_exp);
            }),
        },
        Readout::LogProbs(of) => match stop {
            Some(stop) => each(of, &outputs, column, |i, logits, _, numbers| {
                let log_probs = StopFirst::new(logits, of.legal_at(i), stop);
                numbers.extend(actions(of.legal_at(i)).map(|action| log_probs.of(action)));
            }),
            None => each(of, &outputs, column, |i, logits, weights, numbers| {
                let log_sum_exp = log_sum_exp(logits, of.legal_at(i), weights);
                let log_prob = |action: usize| f64::from(logits[action]) - log_sum_exp;
                numbers.extend(actions(of.legal_at(i)).map(log_prob));
            }),
        },
        Readout::Numbers(of) => each(of, &outputs, column, |i, logits, _, numbers| {
            numbers.extend(actions(of.legal_at(i)).map(|action| f64::from(logits[action])));
        }),
        Readout::LogSumExp(of) => each(of, &outputs, column, |i, logits, weights, numbers| {
            numbers.push(log_sum_exp(logits, of.legal_at(i), weights));
        }),
    }
}

/// The legal ones.
fn actions(legal: &[bool]) -> impl Iterator<Item = usize> {
    legal.iter().enumerate().filter(|(_, legal)| **legal).map(|(action, _)| action)
}

/// log Σ exp over the legal logits.
fn log_sum_exp(logits: &[f32], legal: &[bool], weights: &mut [f32]) -> f64 {
    let (max, sum) = softmax_weights(logits, legal, 1.0, weights);
    f64::from(max) + f64::from(sum.ln())
}

/// Numbers for every choice, from its logits; there is room for weights of them.
fn each(
    of: &ActionsTaken,
    outputs: &OutputRows<'_>,
    column: usize,
    numbers: impl Fn(usize, &[f32], &mut [f32], &mut Vec<f64>) + Sync,
) -> Vec<f64> {
    let of_part = |part: Range<usize>| {
        let mut weights = vec![0.0; of.n_actions];
        let mut out = Vec::with_capacity(part.len());
        for i in part {
            let logits = &outputs.row(of.rows[i] as usize)[column..][..of.n_actions];
            numbers(i, logits, &mut weights, &mut out);
        }
        out
    };
    let per_thread = per_thread(of.n_actions);
    if of.len() <= per_thread {
        return of_part(0..of.len());
    }
    let parts = (0..of.len().div_ceil(per_thread)).into_par_iter();
    let part = |part: usize| part * per_thread..((part + 1) * per_thread).min(of.len());
    let parts: Vec<_> = parts.map(|i| of_part(part(i))).collect();
    parts.concat()
}

/// log P of actions where stopping is decided on first.
struct StopFirst<'a> {
    logits: &'a [f32],
    legal: &'a [bool],
    /// Whether stopping and going on are both legal.
    choice: bool,
    stop: usize,
    /// log Σ exp of all others, once it is asked for.
    others: OnceCell<f64>,
}

impl<'a> StopFirst<'a> {
    fn new(logits: &'a [f32], legal: &'a [bool], stop: usize) -> Self {
        Self { logits, legal, choice: is_choice(legal, stop), stop, others: OnceCell::new() }
    }

    fn others(&self) -> f64 {
        *self.others.get_or_init(|| log_sum_exp_of_others(self.logits, self.legal, self.stop))
    }

    fn of(&self, action: usize) -> f64 {
        let z = f64::from(self.logits[self.stop]);
        match (self.choice, action == self.stop) {
            (true, true) => log_sigmoid(z),
            (false, true) => 0.0,
            (choice, false) => {
                let log_prob = f64::from(self.logits[action]) - self.others();
                if choice { log_prob + log_sigmoid(-z) } else { log_prob }
            }
        }
    }

    /// Adds the gradient of what has these derivatives by log P of actions.
    fn add_gradient(&self, gradient: &mut [f32], derivatives: impl Iterator<Item = (usize, f64)>) {
        let z = f64::from(self.logits[self.stop]);
        let (mut by_stop, mut by_others) = (0.0, 0.0);
        for (action, d) in derivatives {
            if action == self.stop {
                by_stop += d;
            } else {
                by_others += d;
                gradient[action] += d as f32;
            }
        }
        if self.choice {
            let by_z = by_stop * log_sigmoid(-z).exp() - by_others * log_sigmoid(z).exp();
            gradient[self.stop] += by_z as f32;
        }
        if by_others != 0.0 {
            for action in actions(self.legal).filter(|&action| action != self.stop) {
                let p = (f64::from(self.logits[action]) - self.others()).exp();
                gradient[action] -= (by_others * p) as f32;
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
    match readout {
        Readout::Scalar => {
            let rows =
                tapes.iter_mut().flat_map(|tape| tape.output_gradient.chunks_exact_mut(width));
            rows.zip(derivatives).for_each(|(row, &d)| row[column] += d as f32);
        }
        Readout::LogProb(of) => {
            by_choice(tapes, width, column, of, |i, logits, gradient, weights| {
                let (legal, taken, d) = (of.legal_at(i), of.taken[i] as usize, derivatives[i]);
                if let Some(stop) = stop {
                    let of_stop_first = StopFirst::new(logits, legal, stop);
                    of_stop_first.add_gradient(gradient, std::iter::once((taken, d)));
                } else if legal.iter().filter(|&&legal| legal).count() > 1 && d != 0.0 {
                    // Nothing to choose, no gradient.
                    add_softmax(gradient, logits, legal, weights, -d as f32);
                    gradient[taken] += d as f32;
                }
            })
        }
        Readout::LogProbs(of) => {
            let offsets = offsets(of);
            by_choice(tapes, width, column, of, |i, logits, gradient, weights| {
                let legal = of.legal_at(i);
                let each = actions(legal).zip(derivatives[offsets[i]..].iter().copied());
                if let Some(stop) = stop {
                    StopFirst::new(logits, legal, stop).add_gradient(gradient, each);
                    return;
                }
                let mut total = 0.0;
                for (action, d) in each {
                    gradient[action] += d as f32;
                    total += d;
                }
                add_softmax(gradient, logits, legal, weights, -total as f32);
            });
        }
        Readout::Taken(of) => by_choice(tapes, width, column, of, |i, _, gradient, _| {
            gradient[of.taken[i] as usize] += derivatives[i] as f32;
        }),
        Readout::Numbers(of) => {
            let offsets = offsets(of);
            by_choice(tapes, width, column, of, |i, _, gradient, _| {
                for (action, d) in actions(of.legal_at(i)).zip(&derivatives[offsets[i]..]) {
                    gradient[action] += *d as f32;
                }
            });
        }
        Readout::LogSumExp(of) => {
            by_choice(tapes, width, column, of, |i, logits, gradient, weights| {
                if derivatives[i] != 0.0 {
                    add_softmax(gradient, logits, of.legal_at(i), weights, derivatives[i] as f32);
                }
            })
        }
    }
}

/// Legal actions before those of each choice.
fn offsets(of: &ActionsTaken) -> Vec<usize> {
    let before = of.n_legal().scan(0, |before, n| Some(std::mem::replace(before, *before + n)));
    before.collect()
}

/// Adds a multiple of P(a) for every legal action a.
fn add_softmax(
    gradient: &mut [f32],
    logits: &[f32],
    legal: &[bool],
    weights: &mut [f32],
    factor: f32,
) {
    let (_, sum) = softmax_weights(logits, legal, 1.0, weights);
    add_scaled(gradient, weights, factor / sum);
}

/// Adds to the gradient of the logits of each choice. There is room for weights of them.
fn by_choice(
    tapes: &mut [Tape],
    width: usize,
    column: usize,
    of: &ActionsTaken,
    add: impl Fn(usize, &[f32], &mut [f32], &mut [f32]) + Sync,
) {
    let add = |choice: usize, weights: &mut [f32], output: &[f32], gradient: &mut [f32]| {
        let gradient = &mut gradient[column..][..of.n_actions];
        add(choice, &output[column..][..of.n_actions], gradient, weights);
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
