//! Heads: from the rows that are read to numbers of the whole, of slots and of pairs, and back.

use std::ops::Range;

use super::super::kernels::{add, add_bias, matmul};
use super::super::tape::{are_asked, buffer_for};
use super::rows::Rows;
use super::{Mat, Part, TokenNetwork, Weights, linear, linear_backward};
use crate::heads::{HeadPlan, PAIR_RANK, pair_place, pairs};

/// The rows that are read of some states, told apart.
struct ReadRows<'a> {
    network: &'a TokenNetwork,
    rows: &'a Rows<'a>,
    states: Range<usize>,
}

impl ReadRows<'_> {
    /// For each read row of the states: its state among them, and its position.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let t = self.network.t();
        let start = self.states.start;
        let read = self.rows.read(self.rows.read_of(self.states.clone())).iter();
        let places = read.map(|&row| self.rows.place(row));
        places.map(move |place| (place / t - start, place % t))
    }

    /// Copies the rows at the positions that `of` wants, of all states; says which they are.
    fn gather(
        &self,
        top: &[f32],
        out: &mut Vec<f32>,
        of: impl Fn(usize, usize) -> bool,
    ) -> Vec<(usize, usize)> {
        let width = self.network.steps[self.network.top].size;
        out.clear();
        let mut places = Vec::new();
        for ((state, position), row) in self.each().zip(top.chunks_exact(width)) {
            if of(state, position) {
                out.extend_from_slice(row);
                places.push((state, position));
            }
        }
        places
    }

    /// Adds rows to those at the positions that `of` wants.
    fn scatter(&self, gradient: &mut [f32], from: &[f32], of: impl Fn(usize, usize) -> bool) {
        let width = self.network.steps[self.network.top].size;
        let mut from = from.chunks_exact(width);
        for ((state, position), row) in self.each().zip(gradient.chunks_exact_mut(width)) {
            if of(state, position) {
                add(row, from.next().expect("a row for each"));
            }
        }
    }
}

/// Whether a part reads the slot at a position of a state.
fn wants<'a>(
    network: &'a TokenNetwork,
    ids: &'a [i32],
    part: &Part,
) -> impl Fn(usize, usize) -> bool + use<'a> {
    let (context, reads) = (&network.list.context, part.reads());
    let n_cells = context.space.n_cells();
    move |state, position| {
        position > 0 && reads.has(context.is_empty(&ids[state * n_cells..], position - 1))
    }
}

/// 1 / √rank.
fn pair_scale() -> f32 {
    1.0 / (PAIR_RANK as f32).sqrt()
}

/// Numbers per state of one of the two maps of a pair block with `size` numbers per pair.
fn per_slot(size: usize) -> usize {
    size * PAIR_RANK
}

/// Takes the slots of a state, each its state and position, off a list of those of all states from it on.
fn slots_of<'a>(rest: &mut &'a [(usize, usize)], state: usize) -> &'a [(usize, usize)] {
    let n = rest.iter().take_while(|&&(other, _)| other == state).count();
    let (of_state, others) = rest.split_at(n);
    *rest = others;
    of_state
}

/// The place of a pair that is given by its places among the slots of a state.
fn of_pair(of_state: &[(usize, usize)], slots: usize, ordered: bool, i: usize, j: usize) -> usize {
    let [i, j] = [i, j].map(|i| of_state[i].1 - 1);
    pair_place(slots, ordered, i, j)
}

/// The features in which slots of one state meet for number `c` of a pair.
fn meeting(maps: &[f32], slots: usize, size: usize, c: usize) -> Mat<'_> {
    let maps = maps.get(c * PAIR_RANK..).unwrap_or_default();
    Mat::with_stride(maps, slots, PAIR_RANK, per_slot(size))
}

impl TokenNetwork {
    /// Writes the outputs of some states from the rows that are read.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn heads(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        (states, columns): (Range<usize>, &[Range<usize>]),
        ids: &[i32],
        top: &[f32],
        output: &mut [f32],
        scratch: &mut [Vec<f32>],
    ) {
        let (width, n_first) = (self.steps[self.top].size, self.n_first);
        let [gathered, on_first, on_slots, on_others, ..] = scratch else {
            unreachable!("there are enough")
        };
        let read = ReadRows { network: self, rows, states };
        let n = read.gather(top, gathered, |_, position| position == 0).len();
        let (weight, bias) = weights.prepared[0].split_at(width * n_first);
        let on_first = buffer_for(on_first, 0, n, n_first);
        matmul(on_first, false, Mat::new(gathered, n, width), Mat::new(weight, width, n_first));
        add_bias(on_first, bias);

        let (total, n_cells) = (self.list.context.width(), self.list.context.space.n_cells());
        let (params, slots) = (&weights.values, self.t() - 1);
        for (head, before) in self.heads_with_first() {
            let of_head = head.columns(&self.list.context);
            let asked = are_asked(columns, &of_head);
            for part in &head.parts {
                match *part {
                    Part::First { output: start, first, n } => {
                        let states = output.chunks_exact_mut(total);
                        for (out, on_first) in states.zip(on_first.chunks_exact(n_first)) {
                            let from = &on_first[before + first..][..n];
                            out[start..start + n].copy_from_slice(from);
                        }
                    }
                    _ if !asked => {}
                    Part::Slots { output: start, first, size, param, .. } => {
                        let places = read.gather(top, gathered, wants(self, ids, part));
                        let on_slots = buffer_for(on_slots, 0, places.len(), size);
                        linear(on_slots, gathered, params, param, places.len());
                        add_bias(on_slots, &params[param + 1]);
                        for out in output.chunks_exact_mut(total) {
                            out[start..start + slots * size].fill(0.0);
                        }
                        for ((state, position), of_slot) in
                            places.into_iter().zip(on_slots.chunks_exact(size))
                        {
                            let slot = position - 1;
                            let at = state * total + start + slot * size;
                            let first = first.map_or(0.0, |first| {
                                on_first[state * n_first + before + first + slot]
                            });
                            for (out, &x) in output[at..at + size].iter_mut().zip(of_slot) {
                                *out = x + first;
                            }
                        }
                    }
                    Part::Pairs {
                        output: start, first, size, ordered, relations, param, ..
                    } => {
                        let places = read.gather(top, gathered, |_, position| position > 0);
                        let m = places.len();
                        let from = buffer_for(on_slots, 0, m, per_slot(size));
                        linear(from, gathered, params, param, m);
                        add_bias(from, &params[param + 1]);
                        let to = buffer_for(on_others, 0, m, per_slot(size));
                        linear(to, gathered, params, param + 2, m);
                        add_bias(to, &params[param + 3]);
                        let n_places = pairs(slots, ordered).count();
                        let mut scores = vec![0.0; slots * slots];
                        let mut rest = &places[..];
                        for state in 0..n {
                            let done = m - rest.len();
                            let of_state = slots_of(&mut rest, state);
                            let m = of_state.len();
                            let maps = done * per_slot(size)..(done + m) * per_slot(size);
                            let [a, b] = [&*from, &*to].map(|of_all| &of_all[maps.clone()]);
                            let on_first = &on_first[state * n_first..][..n_first];
                            let out = &mut output[state * total + start..][..n_places * size];
                            if m < slots {
                                out.fill(0.0);
                            }
                            for c in 0..size {
                                let (a, b) = (meeting(a, m, size, c), meeting(b, m, size, c));
                                matmul(&mut scores, false, a, b.t());
                                for (i, j) in pairs(m, ordered) {
                                    let mut x = scores[i * m + j];
                                    if !ordered {
                                        x += scores[j * m + i];
                                    }
                                    let place = of_pair(of_state, slots, ordered, i, j);
                                    let first = first.map_or(0.0, |f| on_first[before + f + place]);
                                    out[place * size + c] = x * pair_scale() + first;
                                }
                            }
                            if let Some(table) = relations.map(|table| &params[table]) {
                                let ids = &ids[state * n_cells..];
                                self.for_related(of_state, ids, ordered, |place, relation| {
                                    let row = &table[relation * size..][..size];
                                    add(&mut out[place * size..][..size], row);
                                });
                            }
                        }
                    }
                }
            }
        }
    }

    /// Calls `each` with the place of every pair of the slots of a state, and what they are to each other.
    fn for_related(
        &self,
        of_state: &[(usize, usize)],
        ids: &[i32],
        ordered: bool,
        mut each: impl FnMut(usize, usize),
    ) {
        let slot = |i: usize| of_state[i].1 - 1;
        for (i, j) in pairs(of_state.len(), ordered).filter(|(i, j)| i != j) {
            let place = pair_place(self.t() - 1, ordered, slot(i), slot(j));
            each(place, self.list.context.pair_relation(ids, slot(i), slot(j)));
        }
    }

    /// The heads, with the place of each among all columns of the first token.
    fn heads_with_first(&self) -> impl Iterator<Item = (&HeadPlan, usize)> {
        let mut before = 0;
        self.list.heads.iter().map(move |head| {
            before += head.n_first;
            (head, before - head.n_first)
        })
    }

    /// From the gradient of the outputs of some states to that of the rows that are read, which is
    /// overwritten. Adds those of the parameters, but of the first token's maps only biases: their
    /// weights' go to `of_first`, side by side.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn heads_backward(
        &self,
        weights: &Weights,
        rows: &Rows<'_>,
        states: Range<usize>,
        ids: &[i32],
        top: &[f32],
        output_gradient: &[f32],
        gradient: &mut [f32],
        gradients: &mut [Vec<f32>],
        of_first: &mut [f32],
        scratch: &mut [Vec<f32>],
    ) {
        let (width, n_first) = (self.steps[self.top].size, self.n_first);
        let (params, slots, total) = (&weights.values, self.t() - 1, self.list.context.width());
        let n_cells = self.list.context.space.n_cells();
        let [gathered, on_first, on_slots, on_others, of_rows, of_maps, of_others, ..] = scratch
        else {
            unreachable!("there are enough")
        };
        let n = states.len();
        let read = ReadRows { network: self, rows, states };
        let on_first = buffer_for(on_first, 0, n, n_first);
        on_first.fill(0.0);
        gradient.fill(0.0);
        for (head, before) in self.heads_with_first() {
            for part in &head.parts {
                match *part {
                    Part::First { output: start, first, n } => {
                        let states = output_gradient.chunks_exact(total);
                        for (dy, on_first) in states.zip(on_first.chunks_exact_mut(n_first)) {
                            let to = &mut on_first[before + first..][..n];
                            to.copy_from_slice(&dy[start..start + n]);
                        }
                    }
                    Part::Slots { output: start, first, size, param, .. } => {
                        let places = read.gather(top, gathered, wants(self, ids, part));
                        let dy = buffer_for(on_slots, 0, places.len(), size);
                        for (&(state, position), dy) in places.iter().zip(dy.chunks_exact_mut(size))
                        {
                            let at = state * total + start + (position - 1) * size;
                            dy.copy_from_slice(&output_gradient[at..at + size]);
                            if let Some(first) = first {
                                let place = state * n_first + before + first + position - 1;
                                on_first[place] = dy.iter().sum::<f32>();
                            }
                        }
                        let of_rows = buffer_for(of_rows, 0, places.len(), width);
                        linear_backward(of_rows, false, dy, gathered, params, gradients, param);
                        read.scatter(gradient, of_rows, wants(self, ids, part));
                    }
                    Part::Pairs {
                        output: start, first, size, ordered, relations, param, ..
                    } => {
                        let dy = |state: usize, place: usize, c: usize| {
                            output_gradient[state * total + start + place * size + c]
                        };
                        let of_head = start..start + pairs(slots, ordered).count() * size;
                        let mut states = output_gradient.chunks_exact(total);
                        // A loss that does not read this part has no gradient for its maps.
                        if states.all(|dy| dy[of_head.clone()].iter().all(|&g| g == 0.0)) {
                            continue;
                        }
                        let is_slot = |_: usize, position: usize| position > 0;
                        let places = read.gather(top, gathered, is_slot);
                        let m = places.len();
                        let from = buffer_for(on_slots, 0, m, per_slot(size));
                        linear(from, gathered, params, param, m);
                        add_bias(from, &params[param + 1]);
                        let to = buffer_for(on_others, 0, m, per_slot(size));
                        linear(to, gathered, params, param + 2, m);
                        add_bias(to, &params[param + 3]);
                        let of_from = buffer_for(of_maps, 0, m, per_slot(size));
                        let of_to = buffer_for(of_others, 0, m, per_slot(size));
                        let mut scores = vec![0.0; slots * slots];
                        let mut product = vec![0.0; slots * PAIR_RANK];
                        let mut rest = &places[..];
                        for state in 0..n {
                            let done = m - rest.len();
                            let of_state = slots_of(&mut rest, state);
                            let m = of_state.len();
                            let at = done * per_slot(size)..(done + m) * per_slot(size);
                            for c in 0..size {
                                scores.fill(0.0);
                                for (i, j) in pairs(m, ordered) {
                                    let place = of_pair(of_state, slots, ordered, i, j);
                                    let dy = dy(state, place, c);
                                    scores[i * m + j] += dy * pair_scale();
                                    if !ordered {
                                        scores[j * m + i] += dy * pair_scale();
                                    }
                                    if let Some(first) = first {
                                        on_first[state * n_first + before + first + place] += dy;
                                    }
                                }
                                let dy = Mat::new(&scores, m, m);
                                let [a, b] = [&*from, &*to]
                                    .map(|maps| meeting(&maps[at.clone()], m, size, c));
                                let product = &mut product[..m * PAIR_RANK];
                                matmul(product, false, dy, b);
                                put(&mut of_from[at.clone()], product, size, c);
                                matmul(product, false, dy.t(), a);
                                put(&mut of_to[at.clone()], product, size, c);
                            }
                            if let Some(table) = relations.map(|table| &mut gradients[table]) {
                                let ids = &ids[state * n_cells..];
                                self.for_related(of_state, ids, ordered, |place, relation| {
                                    let dy =
                                        &output_gradient[state * total + start + place * size..];
                                    add(&mut table[relation * size..][..size], &dy[..size]);
                                });
                            }
                        }
                        let of_rows = buffer_for(of_rows, 0, m, width);
                        linear_backward(
                            of_rows, false, of_from, gathered, params, gradients, param,
                        );
                        linear_backward(
                            of_rows,
                            true,
                            of_to,
                            gathered,
                            params,
                            gradients,
                            param + 2,
                        );
                        read.scatter(gradient, of_rows, is_slot);
                    }
                }
            }
        }
        read.gather(top, gathered, |_, position| position == 0);
        let dy = Mat::new(on_first, n, n_first);
        matmul(of_first, true, Mat::new(gathered, n, width).t(), dy);
        for (head, before) in self.heads_with_first() {
            let bias = &mut gradients[head.param + 1];
            for row in on_first.chunks_exact(n_first) {
                add(bias, &row[before..before + head.n_first]);
            }
        }
        let of_rows = buffer_for(of_rows, 0, n, width);
        let merged = Mat::new(&weights.prepared[0][..width * n_first], width, n_first);
        matmul(of_rows, false, dy, merged.t());
        read.scatter(gradient, of_rows, |_, position| position == 0);
    }

    /// Adds the gradients of the weights of the first token's maps to those of each head.
    pub(super) fn split_by_head(&self, of_first: &[f32], gradients: &mut [Vec<f32>]) {
        for (head, before) in self.heads_with_first() {
            let weight = gradients[head.param].chunks_exact_mut(head.n_first);
            for (row, merged) in weight.zip(of_first.chunks_exact(self.n_first)) {
                add(row, &merged[before..before + head.n_first]);
            }
        }
    }
}

/// Writes the gradients of the features of number `c` in which slots meet.
fn put(of_maps: &mut [f32], product: &[f32], size: usize, c: usize) {
    let rows = of_maps.chunks_exact_mut(per_slot(size)).zip(product.chunks_exact(PAIR_RANK));
    for (row, product) in rows {
        row[c * PAIR_RANK..][..PAIR_RANK].copy_from_slice(product);
    }
}
