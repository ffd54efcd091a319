//! The forward pass: the list of layers, for the rows that some states add.

use std::ops::Range;

use super::super::kernels::{add, add_bias, add_bias_relu, add_rows, leaky_relu};
use super::super::tape::are_asked;
use super::attention::Related;
use super::graph::{Graph, standardise, summarise};
use super::rows::{Added, Rows};
use super::{
    Dropping, Layer, Set, Step, Tape, TokenNetwork, Weights, among, at, buffer_for, gather, norm,
    product,
};

/// Scratch that no value lies in: of attention and of heads.
pub(super) const MORE_SCRATCH: usize = 7;

impl Added {
    /// The rows that have been added to a set.
    pub(super) fn of(&self, set: Set) -> &Range<usize> {
        match set {
            Set::Different => &self.different,
            Set::All => &self.rows,
            Set::Read => &self.read,
            Set::State => &self.states,
            Set::Edge => &self.edges,
        }
    }
}

/// The values of a pass, by the buffers that they lie in.
struct Buffers<'a> {
    kept: &'a mut [Vec<f32>],
    scratch: &'a mut [Vec<f32>],
}

impl Buffers<'_> {
    /// The rows of a value that are new.
    fn new_rows(&self, step: &Step, added: &Added) -> &[f32] {
        let range = added.of(step.set);
        match step.kept {
            true => &self.kept[step.buffer][at(range, step.size)],
            false => &self.scratch[step.buffer][..range.len() * step.size],
        }
    }

    /// All rows of a value that the tape keeps.
    fn kept_rows(&self, step: &Step) -> &[f32] {
        &self.kept[step.buffer]
    }

    fn take(&mut self, step: &Step) -> Vec<f32> {
        std::mem::take(match step.kept {
            true => &mut self.kept[step.buffer],
            false => &mut self.scratch[step.buffer],
        })
    }

    fn put(&mut self, step: &Step, buffer: Vec<f32>) {
        match step.kept {
            true => self.kept[step.buffer] = buffer,
            false => self.scratch[step.buffer] = buffer,
        }
    }
}

impl TokenNetwork {
    pub(super) fn evaluate(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        let start = tape.rows;
        let reads = self.reads(tape);
        tape.rows += n;
        tape.ids.extend_from_slice(ids);
        tape.need_scratch(self.n_scratch + MORE_SCRATCH);
        tape.kept.resize_with(self.n_kept, Vec::new);
        let mut rows = Rows::new(&mut tape.numbers);
        if start == 0 {
            rows.clear(&self.numbering);
        }
        let added = rows.add(&self.numbering, ids, tape.dropout.is_some(), reads);
        if self.list.context.n_relations() > 0 {
            rows.relate(&self.list.context, ids);
        }
        let dropping = Dropping { dropout: tape.dropout, t: self.t() };
        let (scratch, more) = tape.scratch.split_at_mut(self.n_scratch);
        let mut buffers = Buffers { kept: &mut tape.kept, scratch };
        for step in &self.steps {
            if let Some(head) = step.head {
                let columns = self.list.heads[head].columns(&self.list.context);
                if !are_asked(&tape.columns, &columns) {
                    continue;
                }
            }
            let mut out = buffers.take(step);
            let range = added.of(step.set).clone();
            let first = if step.kept { range.start } else { 0 };
            let values = buffer_for(&mut out, first, range.len(), step.size);
            match step.layer {
                Layer::Attention { input, heads } | Layer::Neighbours { input, heads, .. } => {
                    let mut mix = std::mem::take(&mut buffers.kept[step.extra]);
                    let qkv = &self.steps[input];
                    let related = match step.layer {
                        Layer::Neighbours { edges, .. } => self.edges(&self.steps[edges], &buffers),
                        _ => self.related(weights, step),
                    };
                    self.attend(
                        related,
                        &rows,
                        &added,
                        (step, heads),
                        (qkv, &buffers),
                        values,
                        &mut mix,
                        more,
                    );
                    buffers.kept[step.extra] = mix;
                }
                Layer::Norm { input } => {
                    let [mut normal, mut scale] =
                        [0, 1].map(|i| std::mem::take(&mut buffers.kept[step.extra + i]));
                    let (gain, bias) =
                        (&weights.values[step.param], &weights.values[step.param + 1]);
                    let x = buffers.new_rows(&self.steps[input], &added);
                    let kept = buffer_for(&mut normal, range.start, range.len(), step.size);
                    let scales = buffer_for(&mut scale, range.start, range.len(), 1);
                    norm::forward(values, kept, scales, x, gain, bias);
                    (buffers.kept[step.extra], buffers.kept[step.extra + 1]) = (normal, scale);
                }
                Layer::Standardise { input } => {
                    let mut scale = std::mem::take(&mut buffers.kept[step.extra]);
                    let from = &self.steps[input];
                    if from.set == step.set {
                        values.copy_from_slice(buffers.new_rows(from, &added));
                    } else {
                        let tokens = rows.tokens(range);
                        let to = values.chunks_exact_mut(step.size).zip(tokens);
                        for (to, &token) in to {
                            let token = token as usize;
                            to.copy_from_slice(
                                &buffers.kept_rows(from)[at(&(token..token + 1), step.size)],
                            );
                        }
                    }
                    let states = added.states.clone();
                    let scales = buffer_for(&mut scale, states.start, states.len(), 1);
                    let mut rest = values;
                    for (state, scale) in states.zip(scales) {
                        let n = rows.rows_of(state..state + 1).len() * step.size;
                        let (of_state, others) = rest.split_at_mut(n);
                        *scale = standardise(of_state);
                        rest = others;
                    }
                    buffers.kept[step.extra] = scale;
                }
                _ => self.without_extras(
                    weights, &rows, &added, step, &buffers, &tape.ids, dropping, values, more,
                ),
            }
            buffers.put(step, out);
        }
        let output = buffer_for(&mut tape.output, start, n, self.list.context.width());
        if self.by_block {
            let values =
                |step: &Step| &buffers.kept[step.buffer][at(added.of(step.set), step.size)];
            let states = (added.states.clone(), &tape.columns[..]);
            self.heads_by_block(weights, &rows, states, ids, values, output, more);
            return;
        }
        let top = buffers.new_rows(&self.steps[self.top], &added);
        let states = start..start + n;
        self.heads(weights, &rows, (states, &tape.columns), ids, top, output, more);
    }

    /// Layers of which the way back needs nothing but values.
    #[allow(clippy::too_many_arguments)]
    fn without_extras(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        added: &Added,
        step: &Step,
        buffers: &Buffers<'_>,
        ids: &[i32],
        dropping: Dropping,
        out: &mut [f32],
        scratch: &mut [Vec<f32>],
    ) {
        let (params, range) = (&weights.values, added.of(step.set).clone());
        match step.layer {
            Layer::Embed { size } => {
                let tokens = rows.embedded(range);
                for (x, (state, position)) in out.chunks_exact_mut(size).zip(tokens) {
                    self.embed(&params[step.param], ids, state, position, x);
                }
            }
            Layer::Linear { input, rectify, bias, .. } => {
                let x = buffers.new_rows(&self.steps[input], added);
                product(out, x, &params[step.param], step.size, range.len());
                match (bias, rectify) {
                    (true, true) => add_bias_relu(out, &params[step.param + 1]),
                    (true, false) => add_bias(out, &params[step.param + 1]),
                    (false, true) => out.iter_mut().for_each(|x| *x = x.max(0.0)),
                    (false, false) => {}
                }
            }
            Layer::Leaky { .. } => leaky_relu(out),
            Layer::Edges { size } => {
                let (rows, unit) = out.split_at_mut(out.len() - size);
                rows.copy_from_slice(&params[step.param]);
                unit.fill(0.0);
                unit[0] = 1.0;
            }
            Layer::Messages { input, edges } => {
                let edges = buffers.kept_rows(&self.steps[edges]);
                let edges = &edges[at(&added.edges, step.size)];
                let x = buffers.new_rows(&self.steps[input], added);
                for state in added.states.clone() {
                    let of_state = rows.rows_of(state..state + 1);
                    let of_state = of_state.start - range.start..of_state.end - range.start;
                    let numbers = at(&of_state, step.size);
                    let graph = Graph { codes: rows.relations(state), edges, size: step.size };
                    graph.messages(&mut out[numbers.clone()], &x[numbers], &mut scratch[0]);
                }
            }
            Layer::Summary { input } => {
                let mut rest = buffers.new_rows(&self.steps[input], added);
                for (state, out) in range.zip(out.chunks_exact_mut(step.size)) {
                    let n = rows.rows_of(state..state + 1).len() * step.size / 2;
                    let (of_state, others) = rest.split_at(n);
                    summarise(out, of_state);
                    rest = others;
                }
            }
            Layer::Concat { left, right } => {
                let (left, right) = (&self.steps[left], &self.steps[right]);
                let [a, b] = [left, right].map(|from| buffers.new_rows(from, added));
                let both = a.chunks_exact(left.size).zip(b.chunks_exact(right.size));
                for (out, (a, b)) in out.chunks_exact_mut(step.size).zip(both) {
                    out[..a.len()].copy_from_slice(a);
                    out[a.len()..].copy_from_slice(b);
                }
            }
            Layer::Add { right, .. } => {
                let other = &self.steps[right];
                if other.set == step.set {
                    add(out, buffers.new_rows(other, added));
                    return;
                }
                let places = among(rows, other.set, step.set, range);
                if other.kept {
                    add_rows(out, &buffers.kept[other.buffer], places, step.size);
                } else {
                    // Rows of this pass alone lie there.
                    let before = added.of(other.set).start as i32;
                    let table = &buffers.scratch[other.buffer];
                    let new: Vec<i32> = places.iter().map(|place| place - before).collect();
                    add_rows(out, table, &new, step.size);
                }
            }
            Layer::Drop { place, .. } => {
                dropping.apply(place, step.size, rows, (step.set, range), out);
            }
            _ => unreachable!("computed elsewhere, or refused"),
        }
    }

    /// The embedding of a token.
    fn embed(&self, table: &[f32], ids: &[i32], state: usize, position: usize, x: &mut [f32]) {
        let (context, size) = (&self.list.context, x.len());
        let n = context.n_embeddings();
        let row = |row: usize| &table[row * size..][..size];
        if position == 0 {
            x.copy_from_slice(row(n + 1));
        } else {
            let of_state = &ids[state * context.space.n_cells()..];
            let mut embeddings = context.embeddings(of_state, position - 1);
            x.copy_from_slice(row(embeddings.next().unwrap_or(n)));
            embeddings.for_each(|embedding| add(x, row(embedding)));
        }
        if context.space.named {
            add(x, &self.positions[position * size..][..size]);
        }
    }

    /// The rows of edges, as attention adds them to keys and values.
    fn edges<'a>(&self, edges: &Step, buffers: &'a Buffers<'_>) -> Related<'a> {
        let rows = &buffers.kept_rows(edges)[..self.list.context.n_edges() * edges.size];
        Related { keys: rows, values: rows, codes: &[], edges: true }
    }

    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        related: Related<'_>,
        rows: &Rows<'_>,
        added: &Added,
        (step, heads): (&Step, usize),
        (qkv, buffers): (&Step, &Buffers<'_>),
        out: &mut [f32],
        mix: &mut Vec<f32>,
        scratch: &mut [Vec<f32>],
    ) {
        let width = step.size;
        let per_state = self.attention(step, heads, self.t()).per_sequence();
        let [small, gathered, ..] = scratch else { unreachable!("there are enough") };
        let states = added.states.clone();
        let mix = buffer_for(mix, states.start, states.len(), per_state);
        let table = &buffers.kept[qkv.buffer];
        let mut done = 0;
        for (state, mix) in states.zip(mix.chunks_exact_mut(per_state)) {
            let of_state = rows.rows_of(state..state + 1);
            let attention = self.attention(step, heads, of_state.len());
            let queries = self.queries(rows, state, step.set);
            let projected = if qkv.set == Set::Different {
                gather(gathered, table, rows.tokens(of_state), 3 * width);
                &gathered[..]
            } else {
                &table[at(&of_state, 3 * width)]
            };
            let end = done + queries.rows.len();
            let out = &mut out[at(&(done..end), width)];
            let related = related.with(rows.relations(state));
            attention.forward(out, mix, projected, queries, related, small);
            done = end;
        }
    }
}
