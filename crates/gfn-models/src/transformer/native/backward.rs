//! The backward pass.

use std::ops::Range;

use crate::engine::native::{Mat, add, matmul, relu_gradient, scatter_rows};
use crate::engine::native::{Tape, Weights, buffer_for};

use super::super::{
    ATTENTION_IN, ATTENTION_OUT, CONTRACT, DROPPED_EMBEDDING, EXPAND, NORM_1, NORM_2, NormPlace,
    PER_LAYER, dropped_attention, dropped_hidden, dropped_output, norm,
};
use super::rows::Rows;
use super::{
    Dropping, FIRST_QKV, HIDDEN, KEPT, MIDDLE, MIXED, NORMAL, NativeTransformer, QKV, SCALE, TOP,
    WEIGHTS, at, gather, linear_backward,
};

/// Rows that pass their gradients down together: few enough that what they need on the way stays in
/// the cache. The number is part of the result: sums are taken in this order.
const ROWS_AT_ONCE: usize = 128;

/// Buffers of the pass, all of them gradients but the last three.
const BUFFERS: usize = 11;

/// One tape's pass.
struct Pass<'a> {
    network: &'a NativeTransformer,
    weights: &'a Weights,
    rows: Rows<'a>,
    ids: &'a [i32],
    kept: &'a [Vec<f32>],
    dropping: Dropping,
    /// Those of the parameters.
    gradients: &'a mut [Vec<f32>],
    /// That of the rows that the layer at hand puts out, then of those that it takes in.
    gradient: &'a mut Vec<f32>,
    below: &'a mut Vec<f32>,
    wide: &'a mut Vec<f32>,
    /// Those of what different tokens have become in the first layer: queries, keys and values, and
    /// what goes on beside attention.
    of_qkv: &'a mut Vec<f32>,
    of_tokens: &'a mut Vec<f32>,
    /// That of the heads on the first token, side by side.
    of_heads: &'a mut Vec<f32>,
    on_first: &'a mut Vec<f32>,
    on_slots: &'a mut Vec<f32>,
    first_rows: &'a mut Vec<f32>,
    slot_rows: &'a mut Vec<f32>,
    small: &'a mut Vec<f32>,
}

/// The part of a buffer for so many rows of `size` numbers, to be overwritten.
fn room(buffer: &mut Vec<f32>, rows: usize, size: usize) -> &mut [f32] {
    buffer_for(buffer, 0, rows, size)
}

/// The same, zero.
fn zeros(buffer: &mut Vec<f32>, rows: usize, size: usize) -> &mut [f32] {
    let room = room(buffer, rows, size);
    room.fill(0.0);
    room
}

/// The gradient through a norm whose gain and bias are the parameters at `index`.
fn norm_backward(
    gradient: &mut [f32],
    normal: &[f32],
    scale: &[f32],
    params: &[Vec<f32>],
    gradients: &mut [Vec<f32>],
    index: usize,
) {
    let (of_gain, of_bias) = gradients[index..].split_at_mut(1);
    norm::backward(gradient, normal, scale, &params[index], &mut of_gain[0], &mut of_bias[0]);
}

impl NativeTransformer {
    /// Adds the gradients of the parameters that come from one tape.
    pub(super) fn backward_of(
        &self,
        weights: &Weights,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    ) {
        let (width, columns, t) = (self.width, self.columns(), self.attention.t);
        tape.need_scratch(BUFFERS);
        let mut scratch = tape.scratch.iter_mut();
        let mut buffer = || scratch.next().expect("there are enough");
        let mut pass = Pass {
            network: self,
            weights,
            rows: Rows::new(&mut tape.numbers),
            ids: &tape.ids,
            kept: &tape.kept,
            dropping: Dropping { dropout: tape.dropout, t },
            gradients,
            gradient: buffer(),
            below: buffer(),
            wide: buffer(),
            of_qkv: buffer(),
            of_tokens: buffer(),
            of_heads: buffer(),
            on_first: buffer(),
            on_slots: buffer(),
            first_rows: buffer(),
            slot_rows: buffer(),
            small: buffer(),
        };
        let n_different = pass.rows.n_different();
        zeros(pass.of_qkv, n_different, 3 * width);
        zeros(pass.of_tokens, n_different, width);
        zeros(pass.of_heads, width, columns);
        let at_once = (ROWS_AT_ONCE / t).max(1);
        for start in (0..tape.rows).step_by(at_once) {
            let states = start..tape.rows.min(start + at_once);
            pass.heads(states.clone(), &output_gradient[at(&states, self.output_width())]);
            for layer in (0..self.layers).rev() {
                pass.layer(states.clone(), layer);
            }
        }
        pass.weights_of_heads();
        pass.different_tokens();
    }
}

impl Pass<'_> {
    /// From the outputs of some states to the rows that heads read.
    fn heads(&mut self, states: Range<usize>, output_gradient: &[f32]) {
        let net = self.network;
        let (width, symbols, columns) = (net.width, net.symbols, net.columns());
        let (n, slots) = (states.len(), net.attention.t - 1);
        let ids = &self.ids[at(&states, slots)];
        let read = self.rows.read_of(states);
        let top = &self.kept[net.read_by_heads()][at(&read, width)];
        net.part_by_heads(top, ids, self.first_rows, self.slot_rows);

        // Slots: what reaches their symbols, and summed up the first token.
        let on_first = if symbols == 0 {
            output_gradient
        } else {
            self.on_first.clear();
            self.on_slots.clear();
            let states = output_gradient.chunks_exact(net.output_width());
            for (row, ids) in states.zip(ids.chunks_exact(slots)) {
                let (actions, rest) = row.split_at(slots * symbols);
                for (actions, &id) in actions.chunks_exact(symbols).zip(ids) {
                    if id < 0 {
                        self.on_first.push(actions.iter().sum::<f32>());
                        self.on_slots.extend_from_slice(actions);
                    } else {
                        self.on_first.push(0.0);
                    }
                }
                self.on_first.extend_from_slice(rest);
            }
            &self.on_first[..]
        };
        let of_slots = room(self.wide, self.slot_rows.len(), 1);
        if symbols > 0 {
            let (params, index) = (&self.weights.values, net.symbol_head());
            let (x, dy) = (&*self.slot_rows, &*self.on_slots);
            linear_backward(of_slots, false, dy, x, params, self.gradients, index);
        }

        // Heads on the first token: one product, which is split at the end.
        let dy = Mat::new(on_first, n, columns);
        matmul(self.of_heads, true, Mat::new(self.first_rows, n, width).t(), dy);
        for h in 0..net.head_sizes.len() {
            let column: usize = net.head_sizes[..h].iter().sum();
            let bias = &mut self.gradients[net.first_head + 2 * h + 1];
            for row in on_first.chunks_exact(columns) {
                add(bias, &row[column..column + net.head_sizes[h]]);
            }
        }
        let of_first = room(self.below, n, width);
        let merged = Mat::new(&self.weights.prepared[0][..width * columns], width, columns);
        matmul(of_first, false, dy, merged.t());

        let mut rest = room(self.gradient, read.len(), width);
        let mut of_slots = &*of_slots;
        for (ids, of_first) in ids.chunks_exact(slots).zip(of_first.chunks_exact(width)) {
            let empty = net.slots_read(ids);
            let (of_state, others) = rest.split_at_mut((1 + empty) * width);
            let (own, others_of_slots) = of_slots.split_at(empty * width);
            of_state[..width].copy_from_slice(of_first);
            of_state[width..].copy_from_slice(own);
            (rest, of_slots) = (others, others_of_slots);
        }
        if net.norm == NormPlace::Pre {
            let index = 1 + PER_LAYER * net.layers;
            let [normal, scale] = [2, 3].map(|i| &self.kept[KEPT * net.layers + TOP + i]);
            let (normal, scale) = (&normal[at(&read, width)], &scale[read.clone()]);
            let gradient = room(self.gradient, read.len(), width);
            let params = &self.weights.values;
            norm_backward(gradient, normal, scale, params, self.gradients, index);
        }
    }

    /// From the output of a layer to its input, for some states.
    fn layer(&mut self, states: Range<usize>, layer: usize) {
        let net = self.network;
        let (width, feed_forward, t) = (net.width, net.feed_forward, net.attention.t);
        let params = &self.weights.values;
        let first = 1 + PER_LAYER * layer;
        let kept = &self.kept[KEPT * layer..][..KEPT];
        let (is_first, is_last) = (layer == 0, layer + 1 == net.layers);
        let inputs = at(&states, t);
        let outputs = if is_last { self.rows.read_of(states.clone()) } else { inputs.clone() };
        let n = outputs.len();
        let dropped = |place: usize, size: usize, values: &mut [f32]| {
            if is_last {
                let rows = self.rows.read(outputs.clone()).iter().map(|&row| row as usize);
                self.dropping.apply(place, size, rows, values);
            } else {
                self.dropping.apply(place, size, outputs.clone(), values);
            }
        };
        let drops = self.dropping.dropout.is_some();
        let through_norm =
            |gradient: &mut [f32], which: usize, rows: &Range<usize>, grads: &mut [Vec<f32>]| {
                let normal = &kept[NORMAL + which][at(rows, width)];
                let scale = &kept[SCALE + which][rows.clone()];
                let index = first + [NORM_1, NORM_2][which];
                norm_backward(gradient, normal, scale, params, grads, index);
            };

        let gradient = room(self.gradient, n, width);
        let below = room(self.below, n, width);
        if net.norm == NormPlace::Post {
            through_norm(gradient, 1, &outputs, self.gradients);
        }
        // `gradient` is that of the sum before the second norm (or of the output).
        let hidden = &kept[HIDDEN][at(&outputs, feed_forward)];
        let of_hidden = room(self.wide, n, feed_forward);
        let index = first + CONTRACT;
        // The residual sum passes its gradient on as it is; the branch drops what it dropped.
        let branch: &[f32] = if drops {
            below.copy_from_slice(gradient);
            dropped(dropped_output(layer), width, below);
            below
        } else {
            gradient
        };
        linear_backward(of_hidden, false, branch, hidden, params, self.gradients, index);
        dropped(dropped_hidden(layer), feed_forward, of_hidden);
        relu_gradient(of_hidden, hidden);
        let (middle, index) = (&kept[MIDDLE][at(&outputs, width)], first + EXPAND);
        match net.norm {
            NormPlace::Post => {
                linear_backward(gradient, true, of_hidden, middle, params, self.gradients, index);
                through_norm(gradient, 0, &outputs, self.gradients);
            }
            NormPlace::Pre => {
                linear_backward(below, false, of_hidden, middle, params, self.gradients, index);
                through_norm(below, 1, &outputs, self.gradients);
                add(gradient, below);
            }
        }
        // Now that of the sum after attention.
        let branch: &[f32] = if drops {
            let branch = room(self.wide, n, width);
            branch.copy_from_slice(gradient);
            dropped(dropped_attention(layer), width, branch);
            branch
        } else {
            gradient
        };
        let (mixed, index) = (&kept[MIXED][at(&outputs, width)], first + ATTENTION_OUT);
        linear_backward(below, false, branch, mixed, params, self.gradients, index);
        self.attention(states, layer, &outputs);

        // And that of the input.
        let gradient = room(self.gradient, n, width);
        let continued = net.continued(&self.rows, outputs.clone(), layer);
        if is_first {
            let tokens = continued.expect("the first layer takes in different tokens");
            scatter_rows(self.of_tokens, 0, gradient, tokens, 1, width);
            return;
        }
        let of_qkv = room(self.wide, inputs.len(), 3 * width);
        let (attended, index) = (&kept[net.attended()][at(&inputs, width)], first + ATTENTION_IN);
        let below = room(self.below, inputs.len(), width);
        linear_backward(below, false, of_qkv, attended, params, self.gradients, index);
        if net.norm == NormPlace::Pre {
            through_norm(below, 0, &inputs, self.gradients);
        }
        match continued {
            None => add(below, gradient),
            Some(rows) => {
                for (&row, gradient) in rows.iter().zip(gradient.chunks_exact(width)) {
                    let row = row as usize - inputs.start;
                    add(&mut below[row * width..][..width], gradient);
                }
            }
        }
        std::mem::swap(self.gradient, self.below);
    }

    /// From what attention has mixed, in `below`, to queries, keys and values: in `wide`, or of the
    /// first layer added up by tokens.
    fn attention(&mut self, states: Range<usize>, layer: usize, outputs: &Range<usize>) {
        let net = self.network;
        let (width, attention, t) = (net.width, net.attention, net.attention.t);
        let is_last = layer + 1 == net.layers;
        let kept = &self.kept[KEPT * layer..][..KEPT];
        let of_mixed = room(self.below, outputs.len(), width);
        let weights = &kept[WEIGHTS][at(&states, attention.per_sequence())];
        let n = if layer == 0 { 1 } else { states.len() };
        let of_qkv = room(self.wide, n * t, 3 * width);
        let mut done = 0;
        for (i, state) in states.enumerate() {
            let rows = state * t..(state + 1) * t;
            let queries = net.queries(&self.rows, state, is_last);
            let end = done + queries.rows.len();
            let of_mixed = &of_mixed[at(&(done..end), width)];
            let weights = &weights[at(&(i..i + 1), attention.per_sequence())];
            done = end;
            if layer > 0 {
                let qkv = &kept[QKV][at(&rows, 3 * width)];
                let out = &mut of_qkv[at(&(i * t..(i + 1) * t), 3 * width)];
                attention.backward(out, of_mixed, weights, qkv, queries, self.small);
                continue;
            }
            let tokens = self.rows.tokens(rows);
            let of_different = &self.kept[KEPT * net.layers + FIRST_QKV];
            gather(self.first_rows, of_different, tokens, 3 * width);
            let qkv = &self.first_rows[..];
            attention.backward(of_qkv, of_mixed, weights, qkv, queries, self.small);
            scatter_rows(self.of_qkv, 0, of_qkv, tokens, 1, 3 * width);
        }
    }

    /// The gradients of the heads on the first token, one by one.
    fn weights_of_heads(&mut self) {
        let net = self.network;
        let mut column = 0;
        for (h, &size) in net.head_sizes.iter().enumerate() {
            let weight = self.gradients[net.first_head + 2 * h].chunks_exact_mut(size);
            for (row, merged) in weight.zip(self.of_heads.chunks_exact(net.columns())) {
                add(row, &merged[column..column + size]);
            }
            column += size;
        }
    }

    /// From what the first layer made of different tokens to their embeddings.
    fn different_tokens(&mut self) {
        let net = self.network;
        let width = net.width;
        let n = self.rows.n_different();
        let params = &self.weights.values;
        let kept = &self.kept[..KEPT];
        let (attended, index) = (&kept[net.attended()][..n * width], 1 + ATTENTION_IN);
        let of_qkv = &self.of_qkv[..n * 3 * width];
        let below = room(self.below, n, width);
        linear_backward(below, false, of_qkv, attended, params, self.gradients, index);
        if net.norm == NormPlace::Pre {
            let (normal, scale) = (&kept[NORMAL][..n * width], &kept[SCALE][..n]);
            norm_backward(below, normal, scale, params, self.gradients, 1 + NORM_1);
        }
        add(below, self.of_tokens);
        self.dropping.apply(DROPPED_EMBEDDING, width, 0.., below);
        let embeddings = &mut self.gradients[0];
        let tokens = self.rows.embedded(0..n);
        for ((_, embedding), gradient) in tokens.zip(below.chunks_exact(width)) {
            add(&mut embeddings[embedding * width..][..width], gradient);
        }
    }
}
