//! Networks in plain Rust for the CPU: what training and rollouts run on where a network offers
//! it. The Burn version of the same network is the reference that it is tested against.

use std::ops::Range;

use rayon::prelude::*;

use crate::dropout::Dropout;
use crate::kernels::{add, sum_of_squares};
use crate::panels::Panels;

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
    /// The outputs, at least `[rows, width]`: logits of P_F, logits of P_B, log F.
    pub output: Vec<f32>,
    /// What the network needs again, in its own order.
    pub kept: Vec<Vec<f32>>,
    /// Scratch of both passes.
    pub scratch: Vec<Vec<f32>>,
    /// What is dropped, in both passes.
    pub dropout: Option<Dropout>,
    /// The columns of the output that are asked for, if not all; the others may hold anything.
    pub columns: Option<Range<usize>>,
}

impl Tape {
    /// Whether any of these columns of the output is asked for.
    pub fn asks_for(&self, columns: &Range<usize>) -> bool {
        let meets = |asked: &Range<usize>| asked.start < columns.end && columns.start < asked.end;
        self.columns.as_ref().is_none_or(meets)
    }

    /// Makes sure that there are `n` scratch buffers, and keeps those that there are.
    pub fn need_scratch(&mut self, n: usize) {
        self.scratch.resize_with(n.max(self.scratch.len()), Vec::new);
    }

    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.dropout = None;
        self.columns = None;
        self.ids.clear();
    }

    /// The outputs of all rows from `start` on.
    pub fn outputs(&self, start: usize, width: usize) -> &[f32] {
        &self.output[start * width..self.rows * width]
    }
}

/// The part of a buffer that holds `n` new units of `size` after `start` old ones. Its content is to
/// be overwritten: buffers that are long enough are not cleared.
pub fn grow(buffer: &mut Vec<f32>, start: usize, n: usize, size: usize) -> &mut [f32] {
    let (start, end) = (start * size, (start + n) * size);
    if buffer.len() < end {
        buffer.resize(end, 0.0);
    }
    &mut buffer[start..end]
}

/// How many numbers of a parameter or its gradient are worth a thread.
pub(crate) const PER_THREAD: usize = 1 << 14;

/// Adds the gradients of all parts of a batch up in the first, and returns the sum of squares of
/// every parameter's. Cut into chunks by size alone: the same sums for any number of threads.
pub(crate) fn sum_gradients(parts: &mut [Vec<Vec<f32>>]) -> Vec<f64> {
    let (sum, others) = parts.split_at_mut(1);
    let others = &*others;
    let of_parameter = |(i, sum): (usize, &mut Vec<f32>)| {
        let of_chunk = |(chunk, sum): (usize, &mut [f32])| {
            for other in others {
                add(sum, &other[i][chunk * PER_THREAD..][..sum.len()]);
            }
            sum_of_squares(sum)
        };
        if sum.len() < 2 * PER_THREAD {
            return sum.chunks_mut(PER_THREAD).enumerate().map(of_chunk).sum();
        }
        let chunks = sum.par_chunks_mut(PER_THREAD).enumerate().map(of_chunk);
        chunks.collect::<Vec<f64>>().into_iter().sum()
    };
    sum[0].iter_mut().enumerate().map(of_parameter).collect()
}

/// A network whose passes are written by hand.
pub trait NativeNetwork: Send + Sync {
    /// Columns of the output: `n_actions + n_back_actions + 1`.
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

    /// Adds the gradients of the parameters to `gradients`, given that of the outputs
    /// `[rows, width]` of all rows of `tape`.
    fn backward(
        &self,
        weights: &Weights,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    );
}
