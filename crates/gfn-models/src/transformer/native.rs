//! The transformer by hand: attention, layer normalisation, feed-forward and their gradients.

use gfn_core::kernels::{Mat, add, add_bias, add_bias_relu, matmul, relu_gradient, sum_into_bias};
use gfn_core::native::{NativeNetwork, Tape, Weights, backward_by_tape, grow};

use super::attention::Attention;
use super::{
    ATTENTION_IN, ATTENTION_OUT, CONTRACT, DROPPED_EMBEDDING, EXPAND, NORM_1, NORM_2, NormPlace,
    PER_LAYER, Transformer, dropped_attention, dropped_hidden, dropped_output, norm,
};

/// [`Transformer`] on slices.
pub(super) struct NativeTransformer {
    attention: Attention,
    width: usize,
    layers: usize,
    feed_forward: usize,
    norm: NormPlace,
    n_tokens: usize,
    head_sizes: [usize; 3],
    first_head: usize,
    /// Symbols per slot; 0 where actions are read off the first token alone.
    symbols: usize,
    positions: Vec<f32>,
}

/// What the tape keeps of each layer, by its position: inputs of every linear map and what norms
/// and attention need again.
const KEPT: usize = 11;
/// Input of the layer.
const INPUT: usize = 0;
/// Input of attention where it is not that of the layer (`pre`).
const ATTENDED: usize = 1;
const QKV: usize = 2;
const WEIGHTS: usize = 3;
const MIXED: usize = 4;
/// Input of the feed-forward part.
const MIDDLE: usize = 5;
const HIDDEN: usize = 6;
/// x̂ of both norms, then their scales.
const NORMAL: usize = 7;
const SCALE: usize = 9;

impl NativeTransformer {
    pub(super) fn new(transformer: &Transformer) -> Self {
        let spec = &transformer.spec;
        Self {
            attention: Attention {
                t: transformer.n_positions(),
                heads: spec.heads,
                size: spec.width / spec.heads,
            },
            width: spec.width,
            layers: spec.layers,
            feed_forward: spec.feed_forward,
            norm: spec.norm,
            n_tokens: transformer.layout.n_tokens,
            head_sizes: transformer.head_sizes(),
            first_head: transformer.first_head(),
            symbols: transformer.layout.symbols_per_slot,
            positions: transformer.positions(),
        }
    }

    /// Columns of all heads on the first token side by side.
    fn columns(&self) -> usize {
        self.head_sizes.iter().sum()
    }

    /// Index of the weight that gives each slot its logits.
    fn symbol_head(&self) -> usize {
        self.first_head + 2 * self.head_sizes.len()
    }

    /// Copies what the heads read at every empty slot, state after state: only there can a symbol be
    /// put.
    fn empty_slots(&self, gathered: &mut Vec<f32>, top: &[f32], ids: &[i32], n: usize) {
        let (t, width) = (self.attention.t, self.width);
        gathered.clear();
        let states = top[..n * t * width].chunks_exact(t * width).zip(ids.chunks_exact(t - 1));
        for (rows, ids) in states {
            let slots = rows[width..].chunks_exact(width).zip(ids);
            for (row, _) in slots.filter(|(_, id)| **id < 0) {
                gathered.extend_from_slice(row);
            }
        }
    }

    /// Row of the embedding that an id reads: empty slots have one of their own.
    fn embedding_row(&self, id: i32) -> usize {
        usize::try_from(id).unwrap_or(self.n_tokens)
    }
}

/// x W + b.
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
        let slots = self.head_sizes[0];
        self.columns() + if self.symbols > 0 { slots * self.symbols - slots } else { 0 }
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
        let Self { width, layers, attention, .. } = *self;
        let (t, start) = (attention.t, tape.rows);
        let rows = n * t;
        let params = &weights.values;
        tape.rows += n;
        tape.ids.extend_from_slice(ids);
        // After the layers: the last output, what the heads read, x̂ and scale of the last norm.
        tape.kept.resize_with(KEPT * layers + 4, Vec::new);
        tape.need_scratch(5);
        let [sum, small, on_first, on_slots, gathered, ..] = &mut tape.scratch[..] else {
            unreachable!("there are enough")
        };
        sum.resize(rows * width, 0.0);

        let x = grow(&mut tape.kept[INPUT], start, n, t * width);
        let embedding = |row: usize| &params[0][row * width..][..width];
        for (x, ids) in x.chunks_exact_mut(t * width).zip(ids.chunks_exact(t - 1)) {
            let tokens = ids.iter().map(|&id| self.embedding_row(id));
            let tokens = std::iter::once(self.n_tokens + 1).chain(tokens);
            let positions = self.positions.chunks_exact(width);
            for ((x, token), position) in x.chunks_exact_mut(width).zip(tokens).zip(positions) {
                x.copy_from_slice(embedding(token));
                add(x, position);
            }
        }
        let dropout = tape.dropout;
        let drop = |place: usize, size: usize, values: &mut [f32]| {
            if let Some(dropout) = dropout {
                dropout.apply(place, start, t * size, values);
            }
        };
        drop(DROPPED_EMBEDDING, width, grow(&mut tape.kept[INPUT], start, n, t * width));
        for layer in 0..layers {
            let first = 1 + PER_LAYER * layer;
            let param = |index: usize| &params[first + index];
            let (kept, after) = tape.kept[KEPT * layer..].split_at_mut(KEPT);
            let [
                input,
                attended,
                qkv,
                mix,
                mixed,
                middle,
                hidden,
                normal1,
                normal2,
                scale1,
                scale2,
            ] = kept
            else {
                unreachable!("KEPT buffers")
            };
            let input = &input[start * t * width..(start + n) * t * width];
            let [normal1, normal2] = [normal1, normal2].map(|b| grow(b, start, n, t * width));
            let [scale1, scale2] = [scale1, scale2].map(|b| grow(b, start, n, t));

            let attended: &[f32] = match self.norm {
                NormPlace::Post => input,
                NormPlace::Pre => {
                    let out = grow(attended, start, n, t * width);
                    let (gain, bias) = (param(NORM_1), param(NORM_1 + 1));
                    norm::forward(out, normal1, scale1, input, gain, bias);
                    out
                }
            };
            let qkv = grow(qkv, start, n, 3 * t * width);
            linear(qkv, attended, params, first + ATTENTION_IN, rows);
            add_bias(qkv, param(ATTENTION_IN + 1));
            let mix = grow(mix, start, n, attention.weights_len());
            let mixed = grow(mixed, start, n, t * width);
            attention.forward(mixed, mix, qkv, small);
            linear(sum, mixed, params, first + ATTENTION_OUT, rows);
            add_bias(sum, param(ATTENTION_OUT + 1));
            drop(dropped_attention(layer), width, sum);
            add(sum, input);

            let middle = grow(middle, start, n, t * width);
            match self.norm {
                NormPlace::Post => {
                    let (gain, bias) = (param(NORM_1), param(NORM_1 + 1));
                    norm::forward(middle, normal1, scale1, sum, gain, bias);
                }
                NormPlace::Pre => {
                    let (gain, bias) = (param(NORM_2), param(NORM_2 + 1));
                    norm::forward(middle, normal2, scale2, sum, gain, bias);
                }
            }
            let hidden = grow(hidden, start, n, t * self.feed_forward);
            linear(hidden, middle, params, first + EXPAND, rows);
            add_bias_relu(hidden, param(EXPAND + 1));
            drop(dropped_hidden(layer), self.feed_forward, hidden);
            let out = grow(&mut after[INPUT], start, n, t * width);
            linear(out, hidden, params, first + CONTRACT, rows);
            add_bias(out, param(CONTRACT + 1));
            drop(dropped_output(layer), width, out);
            match self.norm {
                NormPlace::Pre => add(out, sum),
                NormPlace::Post => {
                    add(out, middle);
                    sum.copy_from_slice(out);
                    let (gain, bias) = (param(NORM_2), param(NORM_2 + 1));
                    norm::forward(out, normal2, scale2, sum, gain, bias);
                }
            }
        }

        // What the heads read: normalised once more with `pre`.
        let [last, top, normal, scale] = &mut tape.kept[KEPT * layers..] else {
            unreachable!("resized above")
        };
        let last = &last[start * t * width..(start + n) * t * width];
        let top: &[f32] = match self.norm {
            NormPlace::Post => last,
            NormPlace::Pre => {
                let out = grow(top, start, n, t * width);
                let (normal, scale) = (grow(normal, start, n, t * width), grow(scale, start, n, t));
                let index = 1 + PER_LAYER * layers;
                norm::forward(out, normal, scale, last, &params[index], &params[index + 1]);
                out
            }
        };
        let columns = self.columns();
        let (weight, bias) = weights.prepared[0].split_at(width * columns);
        let weight = Mat::new(weight, width, columns);
        let first = Mat::with_stride(top, n, width, t * width);
        let output = grow(&mut tape.output, start, n, self.width());
        if self.symbols == 0 {
            matmul(output, false, first, weight);
            add_bias(output, bias);
            return;
        }
        on_first.resize(n * columns, 0.0);
        matmul(on_first, false, first, weight);
        add_bias(on_first, bias);
        self.empty_slots(gathered, top, ids, n);
        let empty = gathered.len() / width;
        let on_slots = grow(on_slots, 0, empty, self.symbols);
        linear(on_slots, gathered, params, self.symbol_head(), empty);
        add_bias(on_slots, &params[self.symbol_head() + 1]);
        let mut of_slots = on_slots.chunks_exact(self.symbols);
        let states = output.chunks_exact_mut(self.width()).zip(on_first.chunks_exact(columns));
        for ((output, on_first), ids) in states.zip(ids.chunks_exact(t - 1)) {
            let (actions, rest) = output.split_at_mut((t - 1) * self.symbols);
            let slots = actions.chunks_exact_mut(self.symbols).zip(on_first).zip(ids);
            for ((actions, &slot), &id) in slots {
                if id >= 0 {
                    actions.fill(0.0);
                    continue;
                }
                let of_slot = of_slots.next().expect("one for every empty slot");
                for (action, &x) in actions.iter_mut().zip(of_slot) {
                    *action = x + slot;
                }
            }
            rest.copy_from_slice(&on_first[t - 1..]);
        }
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

impl NativeTransformer {
    /// Adds the gradients of the parameters that come from one tape.
    fn backward_of(
        &self,
        weights: &Weights,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    ) {
        let Self { width, layers, attention, feed_forward, .. } = *self;
        let (t, n, columns) = (attention.t, tape.rows, self.columns());
        let rows = n * t;
        let params = &weights.values;
        tape.need_scratch(9);
        let [gradient, small, wide, below, of_top, of_heads, on_first, on_slots, gathered, ..] =
            &mut tape.scratch[..]
        else {
            unreachable!("there are enough")
        };
        gradient.clear();
        gradient.resize(rows * width, 0.0);
        below.resize(rows * width, 0.0);
        wide.resize(rows * (3 * width).max(feed_forward), 0.0);
        let top = match self.norm {
            NormPlace::Post => &tape.kept[KEPT * layers],
            NormPlace::Pre => &tape.kept[KEPT * layers + 1],
        };

        // Slots: what reaches their symbols, and summed up the first token.
        let output_gradient = if self.symbols == 0 {
            output_gradient
        } else {
            on_first.clear();
            on_slots.clear();
            let states = output_gradient.chunks_exact(self.width());
            for (row, ids) in states.zip(tape.ids.chunks_exact(t - 1)) {
                let (actions, rest) = row.split_at((t - 1) * self.symbols);
                for (actions, &id) in actions.chunks_exact(self.symbols).zip(ids) {
                    if id < 0 {
                        on_first.push(actions.iter().sum::<f32>());
                        on_slots.extend_from_slice(actions);
                    } else {
                        on_first.push(0.0);
                    }
                }
                on_first.extend_from_slice(rest);
            }
            self.empty_slots(gathered, top, &tape.ids, n);
            let of_gathered = grow(of_top, 0, gathered.len(), 1);
            let index = self.symbol_head();
            linear_backward(of_gathered, false, on_slots, gathered, params, gradients, index);
            let mut of_gathered = of_gathered.chunks_exact(width);
            for (rows, ids) in gradient.chunks_exact_mut(t * width).zip(tape.ids.chunks(t - 1)) {
                for (row, _) in rows[width..].chunks_exact_mut(width).zip(ids).filter(|s| *s.1 < 0)
                {
                    row.copy_from_slice(of_gathered.next().expect("one for every empty slot"));
                }
            }
            &on_first[..]
        };

        // Heads on the first token: one product, then split.
        let dy = Mat::new(output_gradient, n, columns);
        of_heads.resize(width * columns, 0.0);
        matmul(of_heads, false, Mat::with_stride(top, n, width, t * width).t(), dy);
        let mut column = 0;
        for (h, &size) in self.head_sizes.iter().enumerate() {
            let weight = gradients[self.first_head + 2 * h].chunks_exact_mut(size);
            for (row, merged) in weight.zip(of_heads.chunks_exact(columns)) {
                add(row, &merged[column..column + size]);
            }
            for row in output_gradient.chunks_exact(columns) {
                add(&mut gradients[self.first_head + 2 * h + 1], &row[column..column + size]);
            }
            column += size;
        }
        of_top.resize(n * width, 0.0);
        let merged = Mat::new(&weights.prepared[0][..width * columns], width, columns);
        matmul(of_top, false, dy, merged.t());
        for (row, top) in gradient.chunks_exact_mut(t * width).zip(of_top.chunks_exact(width)) {
            add(&mut row[..width], top);
        }
        if self.norm == NormPlace::Pre {
            let index = 1 + PER_LAYER * layers;
            let [normal, scale] = [2, 3].map(|i| &tape.kept[KEPT * layers + i]);
            let (gain, bias) = gradients[index..].split_at_mut(1);
            norm::backward(gradient, normal, scale, &params[index], &mut gain[0], &mut bias[0]);
        }

        let dropout = tape.dropout;
        let drop = |place: usize, size: usize, values: &mut [f32]| {
            if let Some(dropout) = dropout {
                dropout.apply(place, 0, t * size, values);
            }
        };
        for layer in (0..layers).rev() {
            let first = 1 + PER_LAYER * layer;
            let kept = &tape.kept[KEPT * layer..][..KEPT];
            let norm_backward = |gradient: &mut [f32], which: usize, grads: &mut [Vec<f32>]| {
                let index = first + [NORM_1, NORM_2][which];
                let (gain, bias) = grads[index..].split_at_mut(1);
                let (normal, scale) = (&kept[NORMAL + which], &kept[SCALE + which]);
                let values = &params[index];
                norm::backward(gradient, normal, scale, values, &mut gain[0], &mut bias[0]);
            };
            if self.norm == NormPlace::Post {
                norm_backward(gradient, 1, gradients);
            }
            // `gradient` is that of the sum before the second norm (or of the output).
            let hidden = &kept[HIDDEN];
            let of_hidden = &mut wide[..rows * feed_forward];
            let index = first + CONTRACT;
            // The residual sum passes its gradient on as it is; the branch drops what it dropped.
            let branch: &[f32] = match dropout {
                None => gradient,
                Some(_) => {
                    below.copy_from_slice(gradient);
                    drop(dropped_output(layer), width, below);
                    below
                }
            };
            linear_backward(of_hidden, false, branch, hidden, params, gradients, index);
            drop(dropped_hidden(layer), feed_forward, of_hidden);
            relu_gradient(of_hidden, hidden);
            let (middle, index) = (&kept[MIDDLE], first + EXPAND);
            match self.norm {
                NormPlace::Post => {
                    linear_backward(gradient, true, of_hidden, middle, params, gradients, index);
                    norm_backward(gradient, 0, gradients);
                }
                NormPlace::Pre => {
                    linear_backward(below, false, of_hidden, middle, params, gradients, index);
                    norm_backward(below, 1, gradients);
                    add(gradient, below);
                }
            }
            // Now that of the sum after attention.
            let index = first + ATTENTION_OUT;
            let branch: &[f32] = match dropout {
                None => gradient,
                Some(_) => {
                    let branch = &mut wide[..rows * width];
                    branch.copy_from_slice(gradient);
                    drop(dropped_attention(layer), width, branch);
                    branch
                }
            };
            linear_backward(below, false, branch, &kept[MIXED], params, gradients, index);
            let of_qkv = &mut wide[..rows * 3 * width];
            attention.backward(of_qkv, below, &kept[WEIGHTS], &kept[QKV], small);
            let index = first + ATTENTION_IN;
            match self.norm {
                NormPlace::Post => {
                    let input = &kept[INPUT];
                    linear_backward(gradient, true, of_qkv, input, params, gradients, index);
                }
                NormPlace::Pre => {
                    let input = &kept[ATTENDED];
                    linear_backward(below, false, of_qkv, input, params, gradients, index);
                    norm_backward(below, 0, gradients);
                    add(gradient, below);
                }
            }
        }

        drop(DROPPED_EMBEDDING, width, gradient);
        let embedding = &mut gradients[0];
        let sequences = gradient.chunks_exact(t * width).zip(tape.ids.chunks_exact(t - 1));
        for (gradient, ids) in sequences {
            let tokens = ids.iter().map(|&id| self.embedding_row(id));
            let tokens = std::iter::once(self.n_tokens + 1).chain(tokens);
            for (gradient, token) in gradient.chunks_exact(width).zip(tokens) {
                add(&mut embedding[token * width..][..width], gradient);
            }
        }
    }
}
