//! The transformer by hand: attention, layer normalisation, feed-forward and their gradients.

mod backward;
mod forward;
mod rows;

use std::ops::Range;

use crate::dropout::Dropout;
use crate::engine::native::{Mat, matmul, sum_into_bias};
use crate::engine::native::{NativeNetwork, Tape, Weights, backward_by_tape};

use super::attention::Attention;
use super::{NormPlace, Transformer};
use rows::Numbering;

/// [`Transformer`] on slices.
pub(super) struct NativeTransformer {
    attention: Attention,
    numbering: Numbering,
    width: usize,
    layers: usize,
    feed_forward: usize,
    norm: NormPlace,
    head_sizes: Vec<usize>,
    first_head: usize,
    /// Symbols per slot; 0 where actions are read off the first token alone.
    symbols: usize,
    positions: Vec<f32>,
    /// 0 to the number of tokens.
    all_tokens: Vec<i32>,
}

/// What the tape keeps of each layer, by its position: inputs of every linear map and what norms
/// and attention need again.
const KEPT: usize = 11;
/// Input of the layer; of the first one, for different tokens.
const INPUT: usize = 0;
/// Input of attention where it is not that of the layer (`pre`).
const ATTENDED: usize = 1;
/// Queries, keys and values, of every layer but the first.
const QKV: usize = 2;
const WEIGHTS: usize = 3;
const MIXED: usize = 4;
/// Input of the feed-forward part.
const MIDDLE: usize = 5;
const HIDDEN: usize = 6;
/// x̂ of both norms, then their scales.
const NORMAL: usize = 7;
const SCALE: usize = 9;

/// What it keeps after all layers, by its position there: queries, keys and values of the first
/// layer, for different tokens.
const FIRST_QKV: usize = 0;
/// The last output; what the heads read of it if that is not the same (`pre`); x̂ and scale of the
/// norm between them.
const TOP: usize = 1;

/// Dropout of rows, if any.
#[derive(Clone, Copy)]
struct Dropping {
    dropout: Option<Dropout>,
    /// Tokens per state.
    t: usize,
}

impl Dropping {
    fn apply(
        self,
        place: usize,
        size: usize,
        rows: impl IntoIterator<Item = usize>,
        values: &mut [f32],
    ) {
        if let Some(dropout) = self.dropout {
            dropout.apply(place, self.t, size, rows, values);
        }
    }
}

impl NativeTransformer {
    pub(super) fn new(transformer: &Transformer) -> Self {
        let spec = &transformer.spec;
        let t = transformer.n_positions();
        let symbols = transformer.context.symbols();
        Self {
            attention: Attention { t, heads: spec.heads, size: spec.width / spec.heads },
            numbering: Numbering {
                t,
                n_tokens: transformer.context.space.n_tokens(),
                reads_slots: symbols > 0,
            },
            width: spec.width,
            layers: spec.layers,
            feed_forward: spec.feed_forward,
            norm: spec.norm,
            head_sizes: transformer.head_sizes(),
            first_head: transformer.first_head(),
            symbols,
            positions: transformer.positions(),
            all_tokens: (0..t as i32).collect(),
        }
    }

    /// Columns of all heads on the first token side by side.
    fn columns(&self) -> usize {
        self.head_sizes.iter().sum()
    }

    fn output_width(&self) -> usize {
        let slots = self.head_sizes[0];
        self.columns() + if self.symbols > 0 { slots * self.symbols - slots } else { 0 }
    }

    /// Index of the weight that gives each slot its logits.
    fn symbol_head(&self) -> usize {
        self.first_head + 2 * self.head_sizes.len()
    }

    /// How many slots of a state the heads read.
    fn slots_read(&self, ids: &[i32]) -> usize {
        if self.symbols > 0 { ids.iter().filter(|&&id| id < 0).count() } else { 0 }
    }

    /// Where a layer keeps the input of its attention.
    fn attended(&self) -> usize {
        match self.norm {
            NormPlace::Post => INPUT,
            NormPlace::Pre => ATTENDED,
        }
    }

    /// Where the tape keeps what the heads read.
    fn read_by_heads(&self) -> usize {
        KEPT * self.layers + TOP + if self.norm == NormPlace::Pre { 1 } else { 0 }
    }
}

/// The numbers of some rows, or the rows of some states, of `size` each.
fn at(range: &Range<usize>, size: usize) -> Range<usize> {
    range.start * size..range.end * size
}

/// Copies some rows of a table, one after the other.
fn gather(out: &mut Vec<f32>, table: &[f32], rows: &[i32], width: usize) {
    out.clear();
    for &row in rows {
        out.extend_from_slice(&table[row as usize * width..][..width]);
    }
}

/// x W.
fn linear(out: &mut [f32], x: &[f32], params: &[Vec<f32>], index: usize, rows: usize) {
    let (weight, bias) = (&params[index], &params[index + 1]);
    let (fan_in, fan_out) = (weight.len() / bias.len(), bias.len());
    matmul(out, false, Mat::new(x, rows, fan_in), Mat::new(weight, fan_in, fan_out));
}

/// Adds the gradients of weight and bias, and writes (or, with `keep`, adds) that of the input.
fn linear_backward(
    input_gradient: &mut [f32],
    keep: bool,
    gradient: &[f32],
    x: &[f32],
    params: &[Vec<f32>],
    gradients: &mut [Vec<f32>],
    index: usize,
) {
    let (weight, bias) = (&params[index], &params[index + 1]);
    let (fan_in, fan_out) = (weight.len() / bias.len(), bias.len());
    let rows = gradient.len() / fan_out;
    let dy = Mat::new(gradient, rows, fan_out);
    sum_into_bias(&mut gradients[index + 1], gradient);
    matmul(&mut gradients[index], true, Mat::new(x, rows, fan_in).t(), dy);
    matmul(input_gradient, keep, dy, Mat::new(weight, fan_in, fan_out).t());
}

impl NativeNetwork for NativeTransformer {
    fn width(&self) -> usize {
        self.output_width()
    }

    fn rows_per_thread(&self) -> usize {
        8
    }

    fn prepare(&self, weights: &mut Weights) {
        weights.prepared.resize_with(1, Vec::new);
        let merged = &mut weights.prepared[0];
        merged.clear();
        for row in 0..self.width {
            for (h, &size) in self.head_sizes.iter().enumerate() {
                let head = &weights.values[self.first_head + 2 * h];
                merged.extend_from_slice(&head[row * size..][..size]);
            }
        }
        for h in 0..self.head_sizes.len() {
            merged.extend_from_slice(&weights.values[self.first_head + 2 * h + 1]);
        }
    }

    fn forward(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        self.evaluate(weights, ids, n, tape);
    }

    fn backward(
        &self,
        weights: &Weights,
        tapes: &mut [Tape],
        keep: bool,
        gradients: &mut [Vec<f32>],
    ) {
        backward_by_tape(tapes, keep, gradients, |tape, output_gradient, gradients| {
            self.backward_of(weights, tape, output_gradient, gradients);
        });
    }
}
