//! The native engine of a model: its buffers, and passes over the parts of a batch.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::{Gradients, ParamInfo, Values};
use crate::choices::Choices;
use crate::dropout::Dropout;
use crate::native::{NativeNetwork, PER_THREAD, Tape, Weights, sums_of_squares};
use crate::network::Group;

/// Parameters and buffers of the native engine.
pub(super) struct Native {
    pub(super) network: Box<dyn NativeNetwork>,
    /// All parameters, log Z last.
    pub(super) weights: Weights,
    /// The gradients of the last loss.
    pub(super) gradients: Vec<Vec<f32>>,
    /// Passes of the loss under construction.
    pub(super) passes: Vec<Pass>,
    /// Tapes to use again.
    pub(super) spare: Mutex<Vec<Tape>>,
    pub(super) log_z: Option<Tensor<1>>,
}

/// States evaluated for a loss, and what of them has become leaves of Burn's graph.
pub(super) struct Pass {
    /// By part.
    pub(super) tapes: Vec<Tape>,
    /// log-probabilities, with the column at which their logits start.
    pub(super) log_probs: Vec<(Tensor<1>, Arc<Choices>, usize)>,
    pub(super) log_flow: Option<Tensor<1>>,
}

/// Into how many parts `n` states are cut, one thread each. It depends on the batch alone, so
/// results do not depend on how many threads there are.
fn parts_of_states(n: usize, per_thread: usize) -> usize {
    let mut parts = 1;
    // More parts need more buffers for gradients: their number grows with the root of the work.
    while parts < 16 && n >= 2 * per_thread * parts * parts {
        parts *= 2;
    }
    parts
}

impl Native {
    /// `n` empty tapes.
    pub(super) fn tapes(&self, n: usize) -> Vec<Tape> {
        let mut spare = self.spare.lock().expect("no thread panics with it");
        let kept = spare.len().saturating_sub(n);
        let mut tapes = spare.split_off(kept);
        tapes.resize_with(n, Tape::default);
        for tape in &mut tapes {
            tape.clear();
        }
        tapes
    }

    /// The current values, or a copy.
    pub(super) fn weights_of<'a>(&'a self, copy: Option<&'a Values>) -> &'a Weights {
        match copy {
            Some(Values::Native(weights)) => weights,
            _ => &self.weights,
        }
    }

    pub(super) fn give_back(&self, tapes: Vec<Tape>) {
        self.spare.lock().expect("no thread panics with it").extend(tapes);
    }

    /// Evaluates `n` states in parts, side by side.
    pub(super) fn forward(
        &self,
        weights: &Weights,
        ids: &[i32],
        n: usize,
        dropout: Option<Dropout>,
        columns: &[Range<usize>],
    ) -> Vec<Tape> {
        let n_parts = parts_of_states(n, self.network.rows_per_thread());
        let mut tapes = self.tapes(n_parts);
        let n_active = ids.len() / n.max(1);
        tapes.par_iter_mut().enumerate().for_each(|(i, tape)| {
            let (start, end) = (n * i / n_parts, n * (i + 1) / n_parts);
            let ids = &ids[start * n_active..end * n_active];
            tape.dropout = dropout.map(|dropout| dropout.after(start));
            tape.columns.extend_from_slice(columns);
            self.network.forward(weights, ids, end - start, tape);
        });
        tapes
    }

    /// Computes the gradients of the parameters from those of what losses have read.
    pub(super) fn backward(&mut self, passes: Vec<(Vec<Tape>, Upstream)>, of_log_z: f32) {
        let width = self.network.width();
        let mut keep = false;
        for (mut tapes, upstream) in passes {
            if upstream.log_probs.is_empty() && upstream.log_flow.is_none() {
                self.give_back(tapes);
                continue;
            }
            let clear = |tape: &mut Tape| {
                tape.output_gradient.clear();
                tape.output_gradient.resize(tape.rows * width, 0.0);
            };
            let n_rows: usize = tapes.iter().map(|tape| tape.rows).sum();
            let worth = (PER_THREAD / (n_rows * width / tapes.len()).max(1)).max(1);
            tapes.par_iter_mut().with_min_len(worth).for_each(clear);
            for (choices, column, upstream) in upstream.log_probs {
                choices.add_gradient(&mut tapes, width, column, &upstream);
            }
            if let Some(upstream) = upstream.log_flow {
                let tapes = tapes.iter_mut();
                let rows = tapes.flat_map(|tape| tape.output_gradient.chunks_exact_mut(width));
                for (row, upstream) in rows.zip(upstream) {
                    row[width - 1] += upstream;
                }
            }
            self.network.backward(&self.weights, &mut tapes, keep, &mut self.gradients);
            keep = true;
            self.give_back(tapes);
        }
        if !keep {
            self.gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        }
        self.gradients.last_mut().expect("log Z is the last")[0] = of_log_z;
    }

    /// The last gradients as those of some groups.
    pub(super) fn kept(&self, loss: f64, infos: &[ParamInfo], groups: &[Group]) -> Gradients {
        let squares_of = sums_of_squares(&self.gradients);
        let (mut kept, mut squares) = (Vec::new(), 0.0);
        for (i, info) in infos.iter().enumerate() {
            if groups.contains(&info.group) {
                if info.group != Group::LogZ {
                    squares += squares_of[i];
                }
                kept.push((i, None));
            }
        }
        Gradients { loss, norm: squares.sqrt(), kept }
    }
}

/// The gradients of what a loss has read of one pass.
pub(super) struct Upstream {
    /// Those of log-probabilities, with the column at which their logits start.
    pub(super) log_probs: Vec<(Arc<Choices>, usize, Vec<f32>)>,
    /// That of log F, one per row.
    pub(super) log_flow: Option<Vec<f32>>,
}

/// The outputs of all parts, one after the other.
pub(super) fn joined(tapes: &[Tape], width: usize) -> Vec<f32> {
    let n_rows: usize = tapes.iter().map(|tape| tape.rows).sum();
    let mut output = Vec::with_capacity(n_rows * width);
    for tape in tapes {
        output.extend_from_slice(tape.outputs(0, width));
    }
    output
}
