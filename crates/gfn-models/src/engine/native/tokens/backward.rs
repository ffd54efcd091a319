//! The backward pass: the list of layers from its end, for some states at a time.

use std::ops::Range;

use super::super::kernels::{add, relu_gradient, scatter_rows};
use super::attention::Related;
use super::forward::MORE_SCRATCH;
use super::rows::Rows;
use super::{
    Dropping, Layer, Set, Step, Tape, TokenNetwork, Weights, among, at, buffer_for, gather,
    linear_backward, norm,
};

/// Rows that pass their gradients down together: few enough that what they need on the way stays in
/// the cache. The number is part of the result: sums are taken in this order.
const ROWS_AT_ONCE: usize = 128;

/// Gradients of values, in buffers that several values may share for as long as they are the same.
#[derive(Default)]
struct Gradients {
    buffers: Vec<Vec<f32>>,
    /// How many values share each buffer.
    shared_by: Vec<usize>,
    of_value: Vec<Option<usize>>,
}

impl Gradients {
    /// A buffer that no value has.
    fn unused(&mut self) -> usize {
        if let Some(free) = self.shared_by.iter().position(|&n| n == 0) {
            self.shared_by[free] = 1;
            return free;
        }
        if self.buffers.len() == self.shared_by.len() {
            self.buffers.push(Vec::new());
        }
        self.shared_by.push(1);
        self.shared_by.len() - 1
    }

    /// Takes the gradient of a value, of `n` numbers, to be changed. None if nothing has reached it.
    fn take(&mut self, value: usize, n: usize) -> Option<usize> {
        let buffer = self.of_value[value].take()?;
        Some(self.own(buffer, n))
    }

    /// A buffer of the same content that nobody shares.
    fn own(&mut self, buffer: usize, n: usize) -> usize {
        if self.shared_by[buffer] == 1 {
            return buffer;
        }
        let own = self.unused();
        let from = std::mem::take(&mut self.buffers[buffer]);
        buffer_for(&mut self.buffers[own], 0, n, 1).copy_from_slice(&from[..n]);
        self.buffers[buffer] = from;
        self.shared_by[buffer] -= 1;
        own
    }

    fn free(&mut self, buffer: usize) {
        self.shared_by[buffer] -= 1;
    }

    /// Gives a value a gradient of `n` numbers that lies in a buffer, which it may keep.
    fn give(&mut self, value: usize, buffer: usize, n: usize) {
        match self.of_value[value] {
            None => self.of_value[value] = Some(buffer),
            Some(sum) => {
                let sum = self.own(sum, n);
                self.of_value[value] = Some(sum);
                let other = std::mem::take(&mut self.buffers[buffer]);
                add(&mut self.buffers[sum][..n], &other[..n]);
                self.buffers[buffer] = other;
                self.free(buffer);
            }
        }
    }

    /// The buffer of a value that `n` numbers are to be added to, and whether it holds any yet.
    fn sum(&mut self, value: usize, n: usize) -> (usize, bool) {
        let before = self.of_value[value].map(|buffer| self.own(buffer, n));
        let buffer = before.unwrap_or_else(|| self.unused());
        buffer_for(&mut self.buffers[buffer], 0, n, 1);
        self.of_value[value] = Some(buffer);
        (buffer, before.is_some())
    }
}

/// One tape's pass.
struct Pass<'a> {
    network: &'a TokenNetwork,
    weights: &'a Weights,
    rows: Rows<'a>,
    ids: &'a [i32],
    kept: &'a [Vec<f32>],
    dropping: Dropping,
    /// Those of the parameters.
    gradients: &'a mut [Vec<f32>],
    values: Gradients,
    /// Scratch that no gradient lies in.
    more: &'a mut [Vec<f32>],
    states: Range<usize>,
}

impl TokenNetwork {
    /// The rows of relations of an attention layer.
    pub(super) fn related<'a>(&self, weights: &'a Weights, step: &Step) -> Related<'a> {
        match self.list.context.n_relations() {
            0 => Related::default(),
            _ => {
                let [keys, values] = [0, 1].map(|i| &weights.values[step.param + i][..]);
                Related { keys, values, codes: &[] }
            }
        }
    }

    /// Adds the gradients of the parameters that come from one tape.
    pub(super) fn backward_of(
        &self,
        weights: &Weights,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    ) {
        let (width, t) = (self.steps[self.top].size, self.t());
        tape.need_scratch(MORE_SCRATCH + 1);
        let mut buffers = std::mem::take(&mut tape.scratch);
        let values = buffers.split_off(MORE_SCRATCH + 1);
        let (of_first, more) = buffers.split_first_mut().expect("more than one");
        let of_first = buffer_for(of_first, 0, width, self.n_first);
        of_first.fill(0.0);
        let mut pass = Pass {
            network: self,
            weights,
            rows: Rows::new(&mut tape.numbers),
            ids: &tape.ids,
            kept: &tape.kept,
            dropping: Dropping { dropout: tape.dropout, t },
            gradients,
            values: Gradients {
                buffers: values,
                shared_by: Vec::new(),
                of_value: vec![None; self.steps.len()],
            },
            more,
            states: 0..0,
        };
        let mut start = 0;
        while start < tape.rows {
            let mut end = start + 1;
            while end < tape.rows && pass.rows.rows_of(start..end + 1).len() <= ROWS_AT_ONCE {
                end += 1;
            }
            pass.states = start..end;
            start = end;
            pass.heads(output_gradient, of_first);
            pass.layers(|set| set != Set::Different);
        }
        pass.layers(|set| set == Set::Different);
        let values = std::mem::take(&mut pass.values.buffers);
        self.split_by_head(of_first, gradients);
        buffers.extend(values);
        tape.scratch = buffers;
    }
}

impl Pass<'_> {
    /// The rows of a set that are at hand.
    fn range(&self, set: Set) -> Range<usize> {
        match set {
            Set::Different => 0..self.rows.n_different(),
            Set::All => self.rows.rows_of(self.states.clone()),
            Set::Read => self.rows.read_of(self.states.clone()),
        }
    }

    /// Numbers of a value that are at hand.
    fn len(&self, step: &Step) -> usize {
        self.range(step.set).len() * step.size
    }

    fn heads(&mut self, output_gradient: &[f32], of_first: &mut [f32]) {
        let net = self.network;
        let top = &net.steps[net.top];
        let (n, range, states) = (self.len(top), self.range(Set::Read), self.states.clone());
        let (buffer, _) = self.values.sum(net.top, n);
        let mut gradient = std::mem::take(&mut self.values.buffers[buffer]);
        let (context, x) = (&net.list.context, &self.kept[top.buffer][at(&range, top.size)]);
        let ids = &self.ids[at(&states, context.space.n_cells())];
        let output_gradient = &output_gradient[at(&states, context.width())];
        net.heads_backward(
            self.weights,
            &self.rows,
            states,
            ids,
            x,
            output_gradient,
            &mut gradient[..n],
            self.gradients,
            of_first,
            self.more,
        );
        self.values.buffers[buffer] = gradient;
    }

    /// From the end to the start, the layers whose values have rows of the sets that `of` wants.
    fn layers(&mut self, of: impl Fn(Set) -> bool) {
        let net = self.network;
        for value in (0..net.steps.len()).rev() {
            let step = &net.steps[value];
            if !of(step.set) {
                continue;
            }
            let n = self.len(step);
            match step.layer {
                Layer::Add { left, right } => {
                    let Some(buffer) = self.values.of_value[value].take() else { continue };
                    let other = &net.steps[right];
                    if other.set == step.set {
                        self.values.shared_by[buffer] += 1;
                        self.values.give(right, buffer, n);
                    } else {
                        self.scatter(step, right, buffer);
                    }
                    self.values.give(left, buffer, n);
                }
                Layer::Linear { input, rectify, .. } => {
                    self.linear(step, value, input, rectify);
                }
                Layer::Attention { input, heads } => self.attention(step, value, input, heads),
                Layer::Norm { input } => {
                    let Some(buffer) = self.values.take(value, n) else { continue };
                    let range = self.range(step.set);
                    let normal = &self.kept[step.extra][at(&range, step.size)];
                    let scale = &self.kept[step.extra + 1][range];
                    let (of_gain, of_bias) = self.gradients[step.param..].split_at_mut(1);
                    let gradient = &mut self.values.buffers[buffer][..n];
                    let gain = &self.weights.values[step.param];
                    norm::backward(gradient, normal, scale, gain, &mut of_gain[0], &mut of_bias[0]);
                    self.values.give(input, buffer, n);
                }
                Layer::Drop { input, place } => {
                    let Some(buffer) = self.values.of_value[value].take() else { continue };
                    // Without dropout the gradient passes as it is, shared or not.
                    let buffer = match self.dropping.dropout {
                        None => buffer,
                        Some(_) => self.values.own(buffer, n),
                    };
                    let rows = (step.set, self.range(step.set));
                    let gradient = &mut self.values.buffers[buffer][..n];
                    self.dropping.apply(place, step.size, &self.rows, rows, gradient);
                    self.values.give(input, buffer, n);
                }
                Layer::Embed { size } => {
                    let Some(buffer) = self.values.take(value, n) else { continue };
                    self.embedding(step.param, size, buffer);
                    self.values.free(buffer);
                }
                _ => unreachable!("refused before"),
            }
        }
    }

    /// Adds the gradient of a sum to that of its right part, which has rows of an earlier set.
    fn scatter(&mut self, step: &Step, right: usize, buffer: usize) {
        let other = &self.network.steps[right];
        let (n, from, to) = (self.len(other), self.range(step.set), self.range(other.set));
        let (sum, any) = self.values.sum(right, n);
        let mut gradient = std::mem::take(&mut self.values.buffers[sum]);
        if !any {
            gradient[..n].fill(0.0);
        }
        let places = among(&self.rows, other.set, step.set, from.clone());
        let rows = &self.values.buffers[buffer][..from.len() * step.size];
        if other.set == Set::Different {
            scatter_rows(&mut gradient[..n], 0, rows, places, 1, step.size);
        } else {
            for (&place, row) in places.iter().zip(rows.chunks_exact(step.size)) {
                let place = place as usize - to.start;
                add(&mut gradient[place * step.size..][..step.size], row);
            }
        }
        self.values.buffers[sum] = gradient;
    }

    fn linear(&mut self, step: &Step, value: usize, input: usize, rectify: bool) {
        let n = self.len(step);
        let Some(mut buffer) = self.values.of_value[value].take() else { return };
        let range = self.range(step.set);
        if rectify {
            buffer = self.values.own(buffer, n);
            let out = &self.kept[step.buffer][at(&range, step.size)];
            relu_gradient(&mut self.values.buffers[buffer][..n], out);
        }
        let from = &self.network.steps[input];
        let n_input = self.len(from);
        // Its gradient may be one with that of a sum of input and output.
        let (sum, keep) = match self.values.of_value[input] {
            Some(same) if same == buffer => {
                let sum = self.values.own(same, n_input);
                self.values.of_value[input] = Some(sum);
                (sum, true)
            }
            _ => self.values.sum(input, n_input),
        };
        let mut of_input = std::mem::take(&mut self.values.buffers[sum]);
        let (dy, x) =
            (&self.values.buffers[buffer][..n], &self.kept[from.buffer][at(&range, from.size)]);
        let (params, of_input_at) = (&self.weights.values, &mut of_input[..n_input]);
        linear_backward(of_input_at, keep, dy, x, params, self.gradients, step.param);
        self.values.buffers[sum] = of_input;
        self.values.free(buffer);
    }

    /// From what attention has mixed to queries, keys and values; those of different tokens are added
    /// up over all states.
    fn attention(&mut self, step: &Step, value: usize, input: usize, heads: usize) {
        let net = self.network;
        let Some(buffer) = self.values.of_value[value].take() else { return };
        let (width, from) = (step.size, &net.steps[input]);
        let per_state = net.attention(step, heads, net.t()).per_sequence();
        let n = self.len(from);
        let (sum, any) = self.values.sum(input, n);
        let mut of_qkv = std::mem::take(&mut self.values.buffers[sum]);
        let different = from.set == Set::Different;
        debug_assert!(different || !any, "nothing else reads queries, keys and values");
        if different && !any {
            of_qkv[..n].fill(0.0);
        }
        let of_mixed = &self.values.buffers[buffer];
        let weights = &self.kept[step.extra];
        let related = net.related(self.weights, step);
        let (of_keys, of_values) = match net.list.context.n_relations() {
            0 => (&mut [][..], &mut [][..]),
            _ => {
                let (of_keys, of_values) = self.gradients[step.param..].split_at_mut(1);
                (&mut of_keys[0][..], &mut of_values[0][..])
            }
        };
        let [small, gathered, of_gathered, ..] = &mut *self.more else {
            unreachable!("there are enough")
        };
        let (mut done, first) = (0, self.rows.rows_of(self.states.clone()).start);
        for state in self.states.clone() {
            let rows = self.rows.rows_of(state..state + 1);
            let attention = net.attention(step, heads, rows.len());
            let queries = net.queries(&self.rows, state, step.set);
            let end = done + queries.rows.len();
            let of_mixed = &of_mixed[at(&(done..end), width)];
            let weights = &weights[at(&(state..state + 1), per_state)];
            let related = related.with(self.rows.relations(state));
            let of_related = [&mut *of_keys, &mut *of_values];
            done = end;
            let table = &self.kept[from.buffer];
            if !different {
                let qkv = &table[at(&rows, 3 * width)];
                let out = &mut of_qkv[at(&(rows.start - first..rows.end - first), 3 * width)];
                attention
                    .backward(out, of_mixed, weights, qkv, queries, related, of_related, small);
                continue;
            }
            let tokens = self.rows.tokens(rows);
            gather(gathered, table, tokens, 3 * width);
            let out = buffer_for(of_gathered, 0, tokens.len(), 3 * width);
            attention
                .backward(out, of_mixed, weights, gathered, queries, related, of_related, small);
            scatter_rows(&mut of_qkv[..n], 0, out, tokens, 1, 3 * width);
        }
        self.values.buffers[sum] = of_qkv;
        self.values.free(buffer);
    }

    /// From the gradient of different tokens to those of embeddings.
    fn embedding(&mut self, param: usize, size: usize, buffer: usize) {
        let context = &self.network.list.context;
        let (n, n_cells) = (context.n_embeddings(), context.space.n_cells());
        let different = self.range(Set::Different);
        let table = &mut self.gradients[param];
        let gradient = self.values.buffers[buffer].chunks_exact(size);
        let mut put = |row: usize, gradient: &[f32]| {
            add(&mut table[row * size..][..size], gradient);
        };
        for ((state, position), gradient) in self.rows.embedded(different).zip(gradient) {
            if position == 0 {
                put(n + 1, gradient);
                continue;
            }
            let of_state = &self.ids[state * n_cells..];
            let mut embeddings = context.embeddings(of_state, position - 1);
            put(embeddings.next().unwrap_or(n), gradient);
            embeddings.for_each(|embedding| put(embedding, gradient));
        }
    }
}
