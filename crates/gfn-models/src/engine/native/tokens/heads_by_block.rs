//! Heads whose blocks are each read off a value of their own: numbers of the whole off one with a row per
//! state, those of slots and pairs off values with a row for every token.

use std::ops::Range;

use super::super::kernels::{add, add_bias, leaky_relu, leaky_relu_gradient};
use super::super::tape::are_asked;
use super::backward::Pass;
use super::rows::Rows;
use super::{Part, Set, Step, TokenNetwork, Weights, at, buffer_for, linear, linear_backward};
use crate::heads::{HeadPlan, pair_place, pairs};

/// The slots of some states: their rows are numbered from the first one of these states on.
#[derive(Clone, Copy)]
struct Slots<'a> {
    network: &'a TokenNetwork,
    /// The places of the rows.
    places: &'a [i32],
    /// The ids of the states' cells.
    ids: &'a [i32],
    first_state: usize,
}

/// Two slots of a state: its number among some states, that of the pair, and the rows of the slots.
struct Pair {
    state: usize,
    place: usize,
    rows: [usize; 2],
}

impl<'a> Slots<'a> {
    fn new(
        network: &'a TokenNetwork,
        rows: &'a Rows<'_>,
        states: Range<usize>,
        ids: &'a [i32],
    ) -> Self {
        let first_state = states.start;
        Self { network, places: rows.places(rows.rows_of(states)), ids, first_state }
    }

    /// For each slot, the number of its state among the given ones, its own, and its row.
    fn each(self) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
        let t = self.network.t();
        let of_row = move |(row, &place): (usize, &i32)| {
            let (state, position) = (place as usize / t - self.first_state, place as usize % t);
            Some((state, position.checked_sub(1)?, row))
        };
        self.places.iter().enumerate().filter_map(of_row)
    }

    /// The slots among these that a part reads.
    fn read_by(self, part: &Part) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
        let (context, reads) = (&self.network.list.context, part.reads());
        let n_cells = context.space.n_cells();
        self.each().filter(move |&(state, slot, _)| {
            reads.has(context.is_empty(&self.ids[state * n_cells..], slot))
        })
    }

    /// All pairs of different slots of a state.
    fn pairs(self, ordered: bool) -> impl Iterator<Item = Pair> + 'a {
        let (t, slots) = (self.network.t(), self.network.t() - 1);
        let mut start = 0;
        let of_states = self.places.chunk_by(move |&a, &b| a as usize / t == b as usize / t);
        of_states.flat_map(move |of_state| {
            let first = start;
            start += of_state.len();
            let state = of_state[0] as usize / t - self.first_state;
            pairs(of_state.len() - 1, ordered).filter(|(i, j)| i != j).map(move |(i, j)| {
                // The first row is that of the first token.
                let [a, b] = [i, j].map(|i| of_state[i + 1] as usize % t - 1);
                let place = pair_place(slots, ordered, a, b);
                Pair { state, place, rows: [first + i + 1, first + j + 1] }
            })
        })
    }

    /// LeakyReLU of the sum of the rows of every pair, one after the other.
    fn meet(self, out: &mut Vec<f32>, x: &[f32], size: usize, ordered: bool) {
        out.clear();
        for Pair { rows, .. } in self.pairs(ordered) {
            let [a, b] = halves(rows, size, ordered).map(|range| &x[range]);
            out.extend(a.iter().zip(b).map(|(a, b)| a + b));
        }
        leaky_relu(out);
    }
}

/// Where the features lie with which two slots meet, in rows of `size` numbers.
fn halves(rows: [usize; 2], size: usize, ordered: bool) -> [Range<usize>; 2] {
    let [a, b] = rows.map(|row| row * size);
    match ordered {
        true => [a..a + size / 2, b + size / 2..b + size],
        false => [a..a + size, b..b + size],
    }
}

impl TokenNetwork {
    /// Writes the outputs of some states from their rows of each value.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn heads_by_block<'a>(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        (states, columns): (Range<usize>, &[Range<usize>]),
        ids: &[i32],
        values: impl Fn(&Step) -> &'a [f32],
        output: &mut [f32],
        scratch: &mut [Vec<f32>],
    ) {
        let [met, on_first, on_rows, ..] = scratch else { unreachable!("there are enough") };
        let (params, total, n) = (&weights.values, self.list.context.width(), states.len());
        let slots = Slots::new(self, rows, states, ids);
        for head in &self.list.heads {
            let of_head = head.columns(&self.list.context);
            if !are_asked(columns, &of_head) {
                continue;
            }
            for out in output.chunks_exact_mut(total) {
                out[of_head.clone()].fill(0.0);
            }
            let n_first = head.n_first;
            let on_first = buffer_for(on_first, 0, n, n_first);
            linear(on_first, values(&self.steps[head.value]), params, head.param, n);
            add_bias(on_first, &params[head.param + 1]);
            for part in &head.parts {
                match *part {
                    Part::First { output: start, first, n } => {
                        let states = output.chunks_exact_mut(total);
                        for (out, on_first) in states.zip(on_first.chunks_exact(n_first)) {
                            out[start..start + n].copy_from_slice(&on_first[first..first + n]);
                        }
                    }
                    Part::Slots { value, output: start, first, size, param, .. } => {
                        let n_rows = slots.places.len();
                        let on_rows = buffer_for(on_rows, 0, n_rows, size);
                        linear(on_rows, values(&self.steps[value]), params, param, n_rows);
                        add_bias(on_rows, &params[param + 1]);
                        for (state, slot, row) in slots.read_by(part) {
                            let first =
                                first.map_or(0.0, |first| on_first[state * n_first + first + slot]);
                            let out = &mut output[state * total + start + slot * size..][..size];
                            for (out, x) in out.iter_mut().zip(&on_rows[row * size..]) {
                                *out = x + first;
                            }
                        }
                    }
                    Part::Pairs { value, output: start, first, size, ordered, param, .. } => {
                        let step = &self.steps[value];
                        slots.meet(met, values(step), step.size, ordered);
                        let n_pairs = slots.pairs(ordered).count();
                        let on_pairs = buffer_for(on_rows, 0, n_pairs, size);
                        linear(on_pairs, met, params, param, n_pairs);
                        add_bias(on_pairs, &params[param + 1]);
                        for (pair, x) in slots.pairs(ordered).zip(on_pairs.chunks_exact(size)) {
                            let Pair { state, place, .. } = pair;
                            let first = first
                                .map_or(0.0, |first| on_first[state * n_first + first + place]);
                            let out = &mut output[state * total + start + place * size..][..size];
                            for (out, x) in out.iter_mut().zip(x) {
                                *out = x + first;
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Pass<'_> {
    /// From the gradient of the outputs of the states at hand to those of the values that heads read.
    pub(super) fn heads_by_block(&mut self, output_gradient: &[f32]) {
        let context = &self.network.list.context;
        let output_gradient = &output_gradient[at(&self.states, context.width())];
        for head in &self.network.list.heads {
            let columns = head.columns(context);
            let mut states = output_gradient.chunks_exact(context.width());
            // What the loss does not read.
            if !states.all(|dy| dy[columns.clone()].iter().all(|&g| g == 0.0)) {
                self.head_by_block(head, output_gradient);
            }
        }
    }

    fn head_by_block(&mut self, head: &HeadPlan, output_gradient: &[f32]) {
        let net = self.network;
        let (total, n_first) = (net.list.context.width(), head.n_first);
        let (states, params) = (self.states.clone(), &self.weights.values);
        let ids = &self.ids[at(&states, net.list.context.space.n_cells())];
        let [met, on_first, dy, of_rows, ..] = &mut *self.more else {
            unreachable!("there are enough")
        };
        let on_first = buffer_for(on_first, 0, states.len(), n_first);
        on_first.fill(0.0);
        let slots = Slots::new(net, &self.rows, states.clone(), ids);
        let rows = self.rows.rows_of(states.clone());
        for part in &head.parts {
            match *part {
                Part::First { output: start, first, n } => {
                    let states = output_gradient.chunks_exact(total);
                    for (dy, on_first) in states.zip(on_first.chunks_exact_mut(n_first)) {
                        on_first[first..first + n].copy_from_slice(&dy[start..start + n]);
                    }
                }
                Part::Slots { value, output: start, first, size, param, .. } => {
                    let step = &net.steps[value];
                    let dy = buffer_for(dy, 0, rows.len(), size);
                    dy.fill(0.0);
                    for (state, slot, row) in slots.read_by(part) {
                        let from = &output_gradient[state * total + start + slot * size..][..size];
                        dy[row * size..][..size].copy_from_slice(from);
                        if let Some(first) = first {
                            on_first[state * n_first + first + slot] += from.iter().sum::<f32>();
                        }
                    }
                    let x = &self.kept[step.buffer][at(&rows, step.size)];
                    let (sum, any) = self.values.sum(value, x.len());
                    let of_x = &mut self.values.buffers[sum][..x.len()];
                    linear_backward(of_x, any, dy, x, params, self.gradients, param);
                }
                Part::Pairs { value, output: start, first, size, ordered, param, .. } => {
                    let step = &net.steps[value];
                    let x = &self.kept[step.buffer][at(&rows, step.size)];
                    slots.meet(met, x, step.size, ordered);
                    let n_pairs = slots.pairs(ordered).count();
                    let dy = buffer_for(dy, 0, n_pairs, size);
                    for (pair, dy) in slots.pairs(ordered).zip(dy.chunks_exact_mut(size)) {
                        let Pair { state, place, .. } = pair;
                        let from = &output_gradient[state * total + start + place * size..][..size];
                        dy.copy_from_slice(from);
                        if let Some(first) = first {
                            on_first[state * n_first + first + place] += from.iter().sum::<f32>();
                        }
                    }
                    let of_met = buffer_for(of_rows, 0, met.len(), 1);
                    linear_backward(of_met, false, dy, met, params, self.gradients, param);
                    leaky_relu_gradient(of_met, met);
                    let (sum, any) = self.values.sum(value, x.len());
                    let of_x = &mut self.values.buffers[sum][..x.len()];
                    if !any {
                        of_x.fill(0.0);
                    }
                    let width = if ordered { step.size / 2 } else { step.size };
                    for (pair, of_met) in slots.pairs(ordered).zip(of_met.chunks_exact(width)) {
                        for range in halves(pair.rows, step.size, ordered) {
                            add(&mut of_x[range], of_met);
                        }
                    }
                }
            }
        }
        let step = &net.steps[head.value];
        debug_assert_eq!(step.set, Set::State);
        let x = &self.kept[step.buffer][at(&states, step.size)];
        let (sum, any) = self.values.sum(head.value, x.len());
        let of_x = &mut self.values.buffers[sum][..x.len()];
        linear_backward(of_x, any, on_first, x, params, self.gradients, head.param);
    }
}
