//! The backward pass: the list of layers from its end, for some states at a time.

use std::ops::Range;

use super::super::kernels::{add, leaky_relu_gradient, relu_gradient, scatter_rows};
use super::attention::Related;
use super::forward::MORE_SCRATCH;
use super::graph::{Graph, standardise_backward, summarise_backward};
use super::rows::Rows;
use super::{
    Dropping, Layer, Set, Step, Tape, TokenNetwork, Weights, among, at, buffer_for, gather,
    linear_backward, norm, product_backward,
};

/// Rows that pass their gradients down together: few enough that what they need on the way stays in
/// the cache. The number is part of the result: sums are taken in this order.
const ROWS_AT_ONCE: usize = 128;

/// Gradients of values, in buffers that several values may share for as long as they are the same.
#[derive(Default)]
pub(super) struct Gradients {
    pub(super) buffers: Vec<Vec<f32>>,
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
    pub(super) fn sum(&mut self, value: usize, n: usize) -> (usize, bool) {
        let before = self.of_value[value].map(|buffer| self.own(buffer, n));
        let buffer = before.unwrap_or_else(|| self.unused());
        buffer_for(&mut self.buffers[buffer], 0, n, 1);
        self.of_value[value] = Some(buffer);
        (buffer, before.is_some())
    }
}

/// One tape's pass.
pub(super) struct Pass<'a> {
    pub(super) network: &'a TokenNetwork,
    pub(super) weights: &'a Weights,
    pub(super) rows: Rows<'a>,
    pub(super) ids: &'a [i32],
    pub(super) kept: &'a [Vec<f32>],
    dropping: Dropping,
    /// Those of the parameters.
    pub(super) gradients: &'a mut [Vec<f32>],
    pub(super) values: Gradients,
    /// Scratch that no gradient lies in.
    pub(super) more: &'a mut [Vec<f32>],
    pub(super) states: Range<usize>,
}

impl TokenNetwork {
    /// The rows of relations of an attention layer.
    pub(super) fn related<'a>(&self, weights: &'a Weights, step: &Step) -> Related<'a> {
        match self.list.context.n_relations() {
            0 => Related::default(),
            _ => {
                let [keys, values] = [0, 1].map(|i| &weights.values[step.param + i][..]);
                Related { keys, values, codes: &[], edges: false }
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
            if self.by_block {
                pass.heads_by_block(output_gradient);
            } else {
                pass.heads(output_gradient, of_first);
            }
            pass.layers(|set| !set.is_shared());
        }
        pass.layers(Set::is_shared);
        let values = std::mem::take(&mut pass.values.buffers);
        if !self.by_block {
            self.split_by_head(of_first, gradients);
        }
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
            Set::State => self.states.clone(),
            Set::Edge => 0..self.network.list.context.n_edges(),
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
                Layer::Linear { input, rectify, bias, .. } => {
                    self.linear(step, value, input, (rectify, bias));
                }
                Layer::Attention { input, heads } | Layer::Neighbours { input, heads, .. } => {
                    self.attention(step, value, input, heads);
                }
                Layer::Leaky { input } => {
                    let Some(buffer) = self.values.take(value, n) else { continue };
                    let out = &self.kept[step.buffer][at(&self.range(step.set), step.size)];
                    leaky_relu_gradient(&mut self.values.buffers[buffer][..n], out);
                    self.values.give(input, buffer, n);
                }
                Layer::Edges { size } => {
                    let Some(buffer) = self.values.of_value[value].take() else { continue };
                    // The last row is no parameter.
                    let rows = &self.values.buffers[buffer][..n - size];
                    add(&mut self.gradients[step.param], rows);
                    self.values.free(buffer);
                }
                Layer::Standardise { input } => {
                    let Some(buffer) = self.values.take(value, n) else { continue };
                    self.standardise(step, buffer);
                    if net.steps[input].set == step.set {
                        self.values.give(input, buffer, n);
                    } else {
                        self.scatter(step, input, buffer);
                        self.values.free(buffer);
                    }
                }
                Layer::Messages { input, edges } => self.messages(step, value, input, edges),
                Layer::Summary { input } => self.summary(step, value, input),
                Layer::Concat { left, right } => {
                    let Some(buffer) = self.values.of_value[value].take() else { continue };
                    self.part(step, buffer, left, 0);
                    self.part(step, buffer, right, net.steps[left].size);
                    self.values.free(buffer);
                }
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

    /// From a standardised value to what it was, in place.
    fn standardise(&mut self, step: &Step, buffer: usize) {
        let (all, scales) = (self.range(step.set), &self.kept[step.extra]);
        for state in self.states.clone() {
            let rows = self.rows.rows_of(state..state + 1);
            let normal = &self.kept[step.buffer][at(&rows, step.size)];
            let rows = rows.start - all.start..rows.end - all.start;
            let gradient = &mut self.values.buffers[buffer][at(&rows, step.size)];
            standardise_backward(gradient, normal, scales[state]);
        }
    }

    /// A buffer of a value's gradient that `n` numbers can be added to, taken out of its place.
    fn open(&mut self, value: usize, n: usize) -> (usize, Vec<f32>) {
        let (buffer, any) = self.values.sum(value, n);
        let mut gradient = std::mem::take(&mut self.values.buffers[buffer]);
        if !any {
            gradient[..n].fill(0.0);
        }
        (buffer, gradient)
    }

    /// From what tokens have received to what they are, and to the rows of edges.
    fn messages(&mut self, step: &Step, value: usize, input: usize, edges: usize) {
        let Some(buffer) = self.values.of_value[value].take() else { return };
        let [from, by] = [input, edges].map(|value| &self.network.steps[value]);
        let (n, n_edges, all) = (self.len(from), self.len(by), self.range(step.set));
        let (of_input, mut of_x) = self.open(input, n);
        let (of_by, mut of_edges) = self.open(edges, n_edges);
        let [mean, of_mean, ..] = &mut *self.more else { unreachable!("there are enough") };
        for state in self.states.clone() {
            let rows = self.rows.rows_of(state..state + 1);
            let x = &self.kept[from.buffer][at(&rows, step.size)];
            let rows = rows.start - all.start..rows.end - all.start;
            let numbers = at(&rows, step.size);
            let graph = Graph {
                codes: self.rows.relations(state),
                edges: &self.kept[by.buffer][..n_edges],
                size: step.size,
            };
            let gradient = &self.values.buffers[buffer][numbers.clone()];
            let of_edges = &mut of_edges[..n_edges];
            let scratch = [&mut *mean, &mut *of_mean];
            graph.messages_backward(&mut of_x[numbers], of_edges, gradient, x, scratch);
        }
        self.values.buffers[of_input] = of_x;
        self.values.buffers[of_by] = of_edges;
        self.values.free(buffer);
    }

    fn summary(&mut self, step: &Step, value: usize, input: usize) {
        let Some(buffer) = self.values.take(value, self.len(step)) else { return };
        let from = &self.network.steps[input];
        let (of_input, mut of_x) = self.open(input, self.len(from));
        let gradients = self.values.buffers[buffer].chunks_exact_mut(step.size);
        let mut rest = &mut of_x[..];
        for (state, gradient) in self.states.clone().zip(gradients) {
            let n = self.rows.rows_of(state..state + 1).len() * from.size;
            let (of_state, others) = rest.split_at_mut(n);
            summarise_backward(of_state, gradient);
            rest = others;
        }
        self.values.buffers[of_input] = of_x;
        self.values.free(buffer);
    }

    /// Adds the features of a gradient from `first` on to that of the value whose they are.
    fn part(&mut self, step: &Step, buffer: usize, value: usize, first: usize) {
        let size = self.network.steps[value].size;
        let n = self.range(step.set).len();
        let (to, mut sum) = self.open(value, n * size);
        let rows = self.values.buffers[buffer][..n * step.size].chunks_exact(step.size);
        for (sum, row) in sum.chunks_exact_mut(size).zip(rows) {
            add(sum, &row[first..first + size]);
        }
        self.values.buffers[to] = sum;
    }

    fn linear(&mut self, step: &Step, value: usize, input: usize, (rectify, bias): (bool, bool)) {
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
        if bias {
            linear_backward(of_input_at, keep, dy, x, params, self.gradients, step.param);
        } else {
            let (weight, of_weight) = (&params[step.param], &mut self.gradients[step.param]);
            product_backward(of_input_at, keep, (dy, step.size), x, weight, of_weight);
        }
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
        let edges = match step.layer {
            Layer::Neighbours { edges, .. } => Some((edges, self.len(&net.steps[edges]))),
            _ => None,
        };
        let related = match edges {
            None => net.related(self.weights, step),
            Some((edges, n)) => {
                let rows = &self.kept[net.steps[edges].buffer][..n];
                Related { keys: rows, values: rows, codes: &[], edges: true }
            }
        };
        let [small, gathered, of_gathered, of_edge_keys, of_edge_values, ..] = &mut *self.more
        else {
            unreachable!("there are enough")
        };
        let (of_keys, of_values) = match (edges, net.list.context.n_relations()) {
            (Some((_, n)), _) => {
                let [keys, values] =
                    [of_edge_keys, of_edge_values].map(|buffer| buffer_for(buffer, 0, n, 1));
                keys.fill(0.0);
                values.fill(0.0);
                (keys, values)
            }
            (None, 0) => (&mut [][..], &mut [][..]),
            (None, _) => {
                let (of_keys, of_values) = self.gradients[step.param..].split_at_mut(1);
                (&mut of_keys[0][..], &mut of_values[0][..])
            }
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
        if let Some((edges, n)) = edges {
            // The same rows have been added to both.
            let (to, any) = self.values.sum(edges, n);
            let of_edges = &mut self.values.buffers[to][..n];
            if !any {
                of_edges.fill(0.0);
            }
            add(of_edges, of_keys);
            add(of_edges, of_values);
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
