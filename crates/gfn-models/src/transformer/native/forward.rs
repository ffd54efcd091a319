//! The forward pass.

use std::ops::Range;

use crate::engine::native::{Mat, add, add_bias, add_bias_relu, add_rows, matmul};
use crate::engine::native::{Tape, Weights, buffer_for};

use super::super::attention::Queries;
use super::super::{
    ATTENTION_IN, ATTENTION_OUT, CONTRACT, DROPPED_EMBEDDING, EXPAND, NORM_1, NORM_2, NormPlace,
    PER_LAYER, dropped_attention, dropped_hidden, dropped_output, norm,
};
use super::rows::{Added, Rows};
use super::{Dropping, FIRST_QKV, KEPT, NativeTransformer, TOP, at, gather, linear};

/// A buffer's part for the rows of a range, which are new.
fn new_rows<'a>(buffer: &'a mut Vec<f32>, range: &Range<usize>, size: usize) -> &'a mut [f32] {
    buffer_for(buffer, range.start, range.len(), size)
}

impl NativeTransformer {
    pub(super) fn evaluate(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        let start = tape.rows;
        tape.rows += n;
        tape.ids.extend_from_slice(ids);
        tape.need_scratch(5);
        let mut rows = Rows::new(&mut tape.numbers);
        if start == 0 {
            rows.clear(self.numbering);
        }
        let added = rows.add(self.numbering, ids, tape.dropout.is_some());
        let dropping = Dropping { dropout: tape.dropout, t: self.attention.t };
        // After the layers: what the first one computes of tokens, the output of the last one, what
        // the heads read, x̂ and scale of the last norm.
        tape.kept.resize_with(KEPT * self.layers + FIRST_QKV + 5, Vec::new);
        self.embed(weights, &rows, &added.different, dropping, &mut tape.kept[0]);
        for layer in 0..self.layers {
            self.layer(weights, &rows, &added, layer, dropping, &mut tape.kept, &mut tape.scratch);
        }
        self.finish(weights, &added.read, &mut tape.kept);
        let output = buffer_for(&mut tape.output, start, n, self.output_width());
        self.heads(weights, ids, &added.read, &tape.kept, output, &mut tape.scratch);
    }

    /// Embeddings with positions, of different tokens.
    fn embed(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        different: &Range<usize>,
        dropping: Dropping,
        x: &mut Vec<f32>,
    ) {
        let width = self.width;
        let x = new_rows(x, different, width);
        let tokens = rows.embedded(different.clone());
        for (x, (position, embedding)) in x.chunks_exact_mut(width).zip(tokens) {
            x.copy_from_slice(&weights.values[0][embedding * width..][..width]);
            add(x, &self.positions[position * width..][..width]);
        }
        // While something is dropped, every row has a token of its own, in the order of rows.
        dropping.apply(DROPPED_EMBEDDING, width, different.clone(), x);
    }

    #[allow(clippy::too_many_arguments)]
    fn layer(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        added: &Added,
        layer: usize,
        dropping: Dropping,
        kept: &mut [Vec<f32>],
        scratch: &mut [Vec<f32>],
    ) {
        let Self { width, attention, feed_forward, .. } = *self;
        let params = &weights.values;
        let first = 1 + PER_LAYER * layer;
        let param = |index: usize| &params[first + index];
        let (is_first, is_last) = (layer == 0, layer + 1 == self.layers);
        let inputs = if is_first { &added.different } else { &added.rows };
        let outputs = if is_last { &added.read } else { &added.rows };
        let n = outputs.len();
        let [sum, small, gathered, ..] = scratch else { unreachable!("there are enough") };
        let (kept, after) = kept[KEPT * layer..].split_at_mut(KEPT);
        let [input, attended, qkv, mix, mixed, middle, hidden, normal1, normal2, scale1, scale2] =
            kept
        else {
            unreachable!("KEPT buffers")
        };

        let attended: &[f32] = match self.norm {
            NormPlace::Post => &input[at(inputs, width)],
            NormPlace::Pre => {
                let out = new_rows(attended, inputs, width);
                let normal = new_rows(normal1, inputs, width);
                let scale = new_rows(scale1, inputs, 1);
                let (gain, bias) = (param(NORM_1), param(NORM_1 + 1));
                norm::forward(out, normal, scale, &input[at(inputs, width)], gain, bias);
                out
            }
        };
        // The first layer's are of different tokens, and stand behind all layers.
        let qkv = if is_first { &mut after[KEPT * (self.layers - 1) + FIRST_QKV] } else { qkv };
        let projected = new_rows(qkv, inputs, 3 * width);
        linear(projected, attended, params, first + ATTENTION_IN, inputs.len());
        add_bias(projected, param(ATTENTION_IN + 1));
        let mixed = new_rows(mixed, outputs, width);
        let states = added.rows.start / attention.t..added.rows.end / attention.t;
        let mix = new_rows(mix, &states, attention.per_sequence());
        let mut mix = mix.chunks_exact_mut(attention.per_sequence());
        let mut done = 0;
        for state in states {
            let of_state = state * attention.t..(state + 1) * attention.t;
            let queries = self.queries(rows, state, is_last);
            let projected = if is_first {
                gather(gathered, qkv, rows.tokens(of_state), 3 * width);
                &gathered[..]
            } else {
                &qkv[at(&of_state, 3 * width)]
            };
            let end = done + queries.rows.len();
            let mix = mix.next().expect("one for every state");
            attention.forward(&mut mixed[at(&(done..end), width)], mix, projected, queries, small);
            done = end;
        }

        let sum = buffer_for(sum, 0, n, width);
        linear(sum, mixed, params, first + ATTENTION_OUT, n);
        add_bias(sum, param(ATTENTION_OUT + 1));
        let dropped = |place: usize, size: usize, values: &mut [f32]| {
            if is_last {
                let rows = rows.read(outputs.clone()).iter().map(|&row| row as usize);
                dropping.apply(place, size, rows, values);
            } else {
                dropping.apply(place, size, outputs.clone(), values);
            }
        };
        dropped(dropped_attention(layer), width, sum);
        match self.continued(rows, outputs.clone(), layer) {
            None => add(sum, &input[at(inputs, width)]),
            Some(rows) => add_rows(sum, input, rows, width),
        }

        let middle = new_rows(middle, outputs, width);
        let normal2 = new_rows(normal2, outputs, width);
        let scale2 = new_rows(scale2, outputs, 1);
        match self.norm {
            NormPlace::Post => {
                let normal = new_rows(normal1, outputs, width);
                let scale = new_rows(scale1, outputs, 1);
                norm::forward(middle, normal, scale, sum, param(NORM_1), param(NORM_1 + 1));
            }
            NormPlace::Pre => {
                norm::forward(middle, normal2, scale2, sum, param(NORM_2), param(NORM_2 + 1));
            }
        }
        let hidden = new_rows(hidden, outputs, feed_forward);
        linear(hidden, middle, params, first + EXPAND, n);
        add_bias_relu(hidden, param(EXPAND + 1));
        dropped(dropped_hidden(layer), feed_forward, hidden);
        // The input of the next layer, or what stands there after the last one.
        let after = &mut after[if is_last { TOP } else { 0 }];
        let out = new_rows(after, outputs, width);
        linear(out, hidden, params, first + CONTRACT, n);
        add_bias(out, param(CONTRACT + 1));
        dropped(dropped_output(layer), width, out);
        match self.norm {
            NormPlace::Pre => add(out, sum),
            NormPlace::Post => {
                add(out, middle);
                sum.copy_from_slice(out);
                norm::forward(out, normal2, scale2, sum, param(NORM_2), param(NORM_2 + 1));
            }
        }
    }

    /// What the heads read: the last output, normalised once more with `pre`.
    fn finish(&self, weights: &Weights, read: &Range<usize>, kept: &mut [Vec<f32>]) {
        if self.norm == NormPlace::Post {
            return;
        }
        let width = self.width;
        let [last, out, normal, scale] = &mut kept[KEPT * self.layers + TOP..] else {
            unreachable!("resized before")
        };
        let out = new_rows(out, read, width);
        let (normal, scale) = (new_rows(normal, read, width), new_rows(scale, read, 1));
        let index = 1 + PER_LAYER * self.layers;
        let (gain, bias) = (&weights.values[index], &weights.values[index + 1]);
        norm::forward(out, normal, scale, &last[at(read, width)], gain, bias);
    }

    fn heads(
        &self,
        weights: &Weights,
        ids: &[i32],
        read: &Range<usize>,
        kept: &[Vec<f32>],
        output: &mut [f32],
        scratch: &mut [Vec<f32>],
    ) {
        let (width, symbols) = (self.width, self.symbols);
        let columns = self.columns();
        let slots = self.attention.t - 1;
        let [first_rows, slot_rows, _, on_first, on_slots, ..] = scratch else {
            unreachable!("there are enough")
        };
        let top = &kept[self.read_by_heads()][at(read, width)];
        self.part_by_heads(top, ids, first_rows, slot_rows);
        let n = first_rows.len() / width;
        let (weight, bias) = weights.prepared[0].split_at(width * columns);
        let weight = Mat::new(weight, width, columns);
        let first_rows = Mat::new(first_rows, n, width);
        if symbols == 0 {
            matmul(output, false, first_rows, weight);
            add_bias(output, bias);
            return;
        }
        let on_first = buffer_for(on_first, 0, n, columns);
        matmul(on_first, false, first_rows, weight);
        add_bias(on_first, bias);
        let empty = slot_rows.len() / width;
        let on_slots = buffer_for(on_slots, 0, empty, symbols);
        linear(on_slots, slot_rows, &weights.values, self.symbol_head(), empty);
        add_bias(on_slots, &weights.values[self.symbol_head() + 1]);
        let mut of_slots = on_slots.chunks_exact(symbols);
        let states =
            output.chunks_exact_mut(self.output_width()).zip(on_first.chunks_exact(columns));
        for ((output, on_first), ids) in states.zip(ids.chunks_exact(slots)) {
            let (actions, rest) = output.split_at_mut(slots * symbols);
            let slots_of = actions.chunks_exact_mut(symbols).zip(on_first).zip(ids);
            for ((actions, &slot), &id) in slots_of {
                if id >= 0 {
                    actions.fill(0.0);
                    continue;
                }
                let of_slot = of_slots.next().expect("one for every empty slot");
                for (action, &x) in actions.iter_mut().zip(of_slot) {
                    *action = x + slot;
                }
            }
            rest.copy_from_slice(&on_first[slots..]);
        }
    }

    /// Copies what heads read of every state's first token, and of every empty slot.
    pub(super) fn part_by_heads(
        &self,
        top: &[f32],
        ids: &[i32],
        first_rows: &mut Vec<f32>,
        slot_rows: &mut Vec<f32>,
    ) {
        first_rows.clear();
        slot_rows.clear();
        let mut rest = top;
        for ids in ids.chunks_exact(self.attention.t - 1) {
            let (of_state, others) = rest.split_at((1 + self.slots_read(ids)) * self.width);
            first_rows.extend_from_slice(&of_state[..self.width]);
            slot_rows.extend_from_slice(&of_state[self.width..]);
            rest = others;
        }
    }

    /// The rows whose attention is computed in a layer.
    pub(super) fn queries<'a>(
        &'a self,
        rows: &'a Rows<'_>,
        state: usize,
        is_last: bool,
    ) -> Queries<'a> {
        if is_last {
            let range = rows.read_of(state..state + 1);
            Queries { rows: rows.read(range), base: (state * self.attention.t) as i32 }
        } else {
            Queries { rows: &self.all_tokens, base: 0 }
        }
    }

    /// Where the rows that a layer puts out stand among those that it takes in: nothing if they are
    /// the same.
    pub(super) fn continued<'a>(
        &self,
        rows: &'a Rows<'_>,
        outputs: Range<usize>,
        layer: usize,
    ) -> Option<&'a [i32]> {
        match (layer == 0, layer + 1 == self.layers) {
            (true, true) => Some(rows.read_tokens(outputs)),
            (true, false) => Some(rows.tokens(outputs)),
            (false, true) => Some(rows.read(outputs)),
            (false, false) => None,
        }
    }
}
