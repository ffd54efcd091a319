//! Networks in plain Rust for the CPU, and the tapes that they write. The Burn version of the same
//! network is the reference that it is tested against.

use std::ops::Range;

use rayon::prelude::*;

use super::kernels::{add, sum_of_squares};
use super::largest_first::PER_THREAD;
use super::panels::Panels;
use crate::dropout::Dropout;

/// Parameter values, with what a network derives from them.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// The values of the parameters, row-major, in the order in which the network declares them.
    pub values: Vec<Vec<f32>>,
    /// What [`NativeNetwork::prepare`] has made of them.
    pub prepared: Vec<Vec<f32>>,
    /// The same, packed for products.
    pub panels: Vec<Panels>,
}

/// What forward passes leave for the backward pass: the concatenation of all rows that were
/// evaluated since [`clear`](Self::clear). Buffers are kept from pass to pass and never shrink:
/// what lies beyond [`rows`](Self::rows) is of an earlier pass.
#[derive(Debug, Default)]
pub struct Tape {
    /// Number of rows evaluated.
    pub rows: usize,
    /// Their observations, `n_active` ids each.
    pub ids: Vec<i32>,
    /// The outputs, at least `[rows, width]`, head after head.
    pub output: Vec<f32>,
    /// What the network needs again, in its own order.
    pub kept: Vec<Vec<f32>>,
    /// What it needs again in whole numbers.
    pub numbers: Vec<Vec<i32>>,
    /// Scratch of both passes.
    pub scratch: Vec<Vec<f32>>,
    /// The gradient of the outputs, `[rows, width]`, for the backward pass.
    pub output_gradient: Vec<f32>,
    /// Gradients of the parameters, for networks that compute them by tape.
    gradients: Vec<Vec<f32>>,
    /// What is dropped, in both passes.
    pub dropout: Option<Dropout>,
    /// The columns of the output that are asked for; all if none are named. The others may hold
    /// anything.
    pub columns: Vec<Range<usize>>,
}

impl Tape {
    /// Whether any of these columns of the output is asked for.
    pub fn asks_for(&self, columns: &Range<usize>) -> bool {
        are_asked(&self.columns, columns)
    }

    /// Makes sure that there are `n` scratch buffers, and keeps those that there are.
    pub fn need_scratch(&mut self, n: usize) {
        self.scratch.resize_with(n.max(self.scratch.len()), Vec::new);
    }

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.dropout = None;
        self.columns.clear();
        self.ids.clear();
    }

    /// The outputs of all rows from `start` on.
    pub fn outputs(&self, start: usize, width: usize) -> &[f32] {
        &self.output[start * width..self.rows * width]
    }
}

/// Whether any of these columns is among those that are asked for, which are all if none are named.
pub(super) fn are_asked(asked: &[Range<usize>], columns: &Range<usize>) -> bool {
    let meets = |asked: &Range<usize>| asked.start < columns.end && columns.start < asked.end;
    asked.is_empty() || asked.iter().any(meets)
}

/// The part of a buffer that holds `n` new units of `size` after `start` old ones. Its content is to
/// be overwritten: buffers that are long enough are not cleared.
pub fn buffer_for(buffer: &mut Vec<f32>, start: usize, n: usize, size: usize) -> &mut [f32] {
    let (start, end) = (start * size, (start + n) * size);
    if buffer.len() < end {
        buffer.resize(end, 0.0);
    }
    &mut buffer[start..end]
}

/// Rows of the outputs of several tapes, one after the other.
pub(super) struct OutputRows<'a> {
    /// Number of the first row of every tape, with its rows.
    tapes: Vec<(usize, &'a [f32])>,
    width: usize,
}

impl<'a> OutputRows<'a> {
    /// The outputs of all rows of the tapes, `width` columns each.
    pub(super) fn new(tapes: &'a [Tape], width: usize) -> Self {
        let mut first = 0;
        let of_tape = |tape: &'a Tape| {
            first += tape.rows;
            (first - tape.rows, tape.outputs(0, width))
        };
        Self { tapes: tapes.iter().map(of_tape).collect(), width }
    }

    /// One row.
    ///
    /// # Panics
    /// When there are not so many.
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        let before = |(first, _): &&(usize, &[f32])| *first <= i;
        let (first, rows) = self.tapes.iter().rfind(before).expect("the first row is row 0");
        &rows[(i - first) * self.width..][..self.width]
    }
}

/// The sum of squares of every parameter's gradient. Cut into chunks by size alone: the same sums
/// for any number of threads.
pub(super) fn sums_of_squares(gradients: &[Vec<f32>]) -> Vec<f64> {
    let chunks_of = |(i, gradient): (usize, &'_ Vec<f32>)| {
        (0..gradient.len()).step_by(PER_THREAD).map(move |start| (i, start)).collect::<Vec<_>>()
    };
    let chunks: Vec<(usize, usize)> = gradients.iter().enumerate().flat_map(chunks_of).collect();
    let square = |&(i, start): &(usize, usize)| {
        let end = gradients[i].len().min(start + PER_THREAD);
        sum_of_squares(&gradients[i][start..end])
    };
    let n: usize = gradients.iter().map(Vec::len).sum();
    let squares: Vec<f64> = if n < 2 * PER_THREAD {
        chunks.iter().map(square).collect()
    } else {
        chunks.par_iter().map(square).collect()
    };
    let mut sums = vec![0.0; gradients.len()];
    for ((i, _), square) in chunks.iter().zip(squares) {
        sums[*i] += square;
    }
    sums
}

/// Backward passes that add up gradients of the parameters by tape, side by side, and the sum over
/// tapes: `pass` adds the gradients of one tape, given that of its outputs.
pub fn backward_by_tape(
    tapes: &mut [Tape],
    keep: bool,
    gradients: &mut [Vec<f32>],
    pass: impl Fn(&mut Tape, &[f32], &mut [Vec<f32>]) + Sync,
) {
    let Some((first, others)) = tapes.split_first_mut() else { return };
    let run = |tape: &mut Tape, gradients: &mut [Vec<f32>]| {
        let output_gradient = std::mem::take(&mut tape.output_gradient);
        pass(tape, &output_gradient, gradients);
        tape.output_gradient = output_gradient;
    };
    let sizes: Vec<usize> = gradients.iter().map(Vec::len).collect();
    rayon::join(
        || {
            if !keep {
                gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
            }
            run(first, gradients);
        },
        || {
            others.par_iter_mut().for_each(|tape| {
                let mut own = std::mem::take(&mut tape.gradients);
                own.resize_with(sizes.len(), Vec::new);
                for (gradient, &size) in own.iter_mut().zip(&sizes) {
                    gradient.clear();
                    gradient.resize(size, 0.0);
                }
                run(tape, &mut own);
                tape.gradients = own;
            });
        },
    );
    let add_others = |i: usize, start: usize, sum: &mut [f32]| {
        for tape in &*others {
            add(sum, &tape.gradients[i][start..][..sum.len()]);
        }
    };
    for (i, sum) in gradients.iter_mut().enumerate() {
        if sum.len() < 2 * PER_THREAD {
            add_others(i, 0, sum);
            continue;
        }
        let chunks = sum.par_chunks_mut(PER_THREAD).enumerate();
        chunks.for_each(|(chunk, sum)| add_others(i, chunk * PER_THREAD, sum));
    }
}

/// A network whose passes are written by hand.
pub trait NativeNetwork: Send + Sync {
    /// Columns of the output: those of all heads.
    fn width(&self) -> usize;

    /// How many states are worth a thread.
    fn rows_per_thread(&self) -> usize {
        96
    }

    /// Derives from new values what passes would otherwise compute again and again.
    fn prepare(&self, _weights: &mut Weights) {}

    /// Evaluates `n` observations of `n_active` ids each (negative: no token) and appends them to
    /// `tape`.
    fn forward(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape);

    /// Computes the gradients of the parameters, given those of the outputs of all rows
    /// ([`Tape::output_gradient`]): adds them to `gradients` with `keep`, else overwrites all of
    /// those of the network's parameters. Each tape is worth a thread.
    fn backward(
        &self,
        weights: &Weights,
        tapes: &mut [Tape],
        keep: bool,
        gradients: &mut [Vec<f32>],
    );
}
