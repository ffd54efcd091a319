//! Networks over states by hand: a sparse first layer, rectified layers on it, one merged output layer, in
//! kept buffers.
//!
//! This is faster than a layer after another: weights are packed for products, rectifying and biases
//! are part of them, all heads of a trunk are one product, and gradients are summed by parameter.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{
    Finish, Mat, NativeNetwork, Panels, Tape, Weights, add_bias_relu, buffer_for, largest_first,
    matmul, scatter_rows, sum_into_bias, sum_rows,
};
use crate::layers::{Layer, LayerList};

/// A trunk with the output layers that stand on it.
struct TrunkAndHeads {
    /// Index of the trunk's first parameter (weight, bias, weight, bias, …).
    trunk: usize,
    /// Index of the first output layer's weight.
    heads: usize,
    /// Columns of the output that the heads fill, and their sizes.
    columns: Range<usize>,
    sizes: Vec<usize>,
}

/// A list of layers over states.
pub(super) struct Chain {
    hidden: usize,
    layers: usize,
    n_active: usize,
    width: usize,
    parts: Vec<TrunkAndHeads>,
}

impl Chain {
    /// The network, if it consists of trunks of equal size, each with heads of its own, in order.
    pub(super) fn new(list: &LayerList) -> Option<Self> {
        let hidden = list.layers.first()?.size;
        // The layers of the trunk that ends in a value, from its first one on.
        let trunk = |mut value: usize| {
            let mut layers = vec![value];
            loop {
                match list.layers[value].layer {
                    Layer::Sum { .. } => break,
                    Layer::Linear { input, rectify: true, bias: true, .. } => value = input,
                    _ => return None,
                }
                layers.push(value);
            }
            layers.reverse();
            let follows = layers.windows(2).all(|pair| pair[1] == pair[0] + 1);
            let alike = layers.iter().all(|&value| list.layers[value].size == hidden);
            (follows && alike).then_some(layers)
        };
        let mut parts: Vec<TrunkAndHeads> = Vec::new();
        let (mut layers, mut start, mut last) = (0, 0, None);
        for head in &list.heads {
            let of_trunk = trunk(head.value)?;
            let size = list.context.size(head.head);
            match parts.last_mut() {
                Some(part) if last == Some(head.value) => {
                    part.columns.end += size;
                    part.sizes.push(size);
                }
                _ => parts.push(TrunkAndHeads {
                    trunk: list.layers[of_trunk[0]].param,
                    heads: head.param,
                    columns: start..start + size,
                    sizes: vec![size],
                }),
            }
            if layers > 0 && of_trunk.len() != layers {
                return None;
            }
            (layers, start, last) = (of_trunk.len(), start + size, Some(head.value));
        }
        let n_active = list.context.space.n_cells();
        Some(Self { hidden, layers, n_active, width: start, parts })
    }

    /// The weights of a part's heads side by side, `[hidden, columns]`, then their biases.
    fn merge(&self, part: &TrunkAndHeads, params: &[Vec<f32>], merged: &mut Vec<f32>) {
        merged.clear();
        for row in 0..self.hidden {
            for (h, &size) in part.sizes.iter().enumerate() {
                merged.extend_from_slice(&params[part.heads + 2 * h][row * size..][..size]);
            }
        }
        for h in 0..part.sizes.len() {
            merged.extend_from_slice(&params[part.heads + 2 * h + 1]);
        }
    }
}

impl NativeNetwork for Chain {
    fn width(&self) -> usize {
        self.width
    }

    fn prepare(&self, weights: &mut Weights) {
        weights.prepared.resize_with(self.parts.len(), Vec::new);
        weights.panels.resize_with(self.parts.len() * 2 * self.layers, Panels::default);
        let panels = weights.panels.chunks_exact_mut(2 * self.layers);
        for ((part, merged), panels) in self.parts.iter().zip(&mut weights.prepared).zip(panels) {
            self.merge(part, &weights.values, merged);
            let columns = part.columns.len();
            let heads = &merged[..self.hidden * columns];
            for (layer, panels) in panels.chunks_exact_mut(2).enumerate() {
                // Of the layer that reads this one.
                let (matrix, columns) = match layer + 1 < self.layers {
                    true => (&weights.values[part.trunk + 2 * (layer + 1)][..], self.hidden),
                    false => (heads, columns),
                };
                let [up, down] = panels else { unreachable!("two per layer") };
                rayon::join(|| up.pack(matrix, columns), || down.pack_transposed(matrix, columns));
            }
        }
    }

    fn forward(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        let (hidden, layers, start) = (self.hidden, self.layers, tape.rows);
        tape.rows += n;
        tape.ids.extend_from_slice(ids);
        tape.kept.resize_with(self.parts.len() * layers, Vec::new);
        let asked: Vec<bool> = self.parts.iter().map(|part| tape.asks_for(&part.columns)).collect();
        let output = buffer_for(&mut tape.output, start, n, self.width);
        for (p, part) in self.parts.iter().enumerate() {
            // A trunk of its own need not run for what nobody asks for.
            if !asked[p] {
                continue;
            }
            let panels = self.panels(weights, p);
            for layer in 0..layers {
                let index = part.trunk + 2 * layer;
                let bias = &weights.values[index + 1];
                let (before, rest) = tape.kept.split_at_mut(p * layers + layer);
                let out = buffer_for(&mut rest[0], start, n, hidden);
                if layer == 0 {
                    sum_rows(out, &weights.values[index], ids, self.n_active, hidden);
                    add_bias_relu(out, bias);
                } else {
                    let input = &before[p * layers + layer - 1][start * hidden..];
                    let input = Mat::new(input, n, hidden);
                    panels[2 * (layer - 1)].product(out, hidden, input, Finish::BiasRelu(bias));
                }
            }
            let top = Mat::new(&tape.kept[p * layers + layers - 1][start * hidden..], n, hidden);
            let bias = &weights.prepared[p][hidden * part.columns.len()..];
            let out = &mut output[part.columns.start..];
            panels[2 * (layers - 1)].product(out, self.width, top, Finish::Bias(bias));
        }
    }

    /// First every part of the batch passes its gradients down, side by side; then every parameter
    /// sums over all parts, each stretch of its rows on one thread: there is one result, nothing to
    /// add up afterwards, and no sum depends on how many threads there are.
    fn backward(
        &self,
        weights: &Weights,
        tapes: &mut [Tape],
        keep: bool,
        gradients: &mut [Vec<f32>],
    ) {
        tapes.par_iter_mut().for_each(|tape| self.propagate(weights, tape));
        let mut gradients: Vec<&mut [f32]> = gradients.iter_mut().map(|g| &mut g[..]).collect();
        let mut take = |index: usize| std::mem::take(&mut gradients[index]);
        let mut work: Vec<(usize, Work<'_>)> = Vec::new();
        for (p, part) in self.parts.iter().enumerate() {
            let passed: Vec<Passed<'_>> =
                tapes.iter().filter_map(|tape| self.passed(p, tape)).collect();
            let passed: Arc<[Passed<'_>]> = passed.into();
            let rows: usize = passed.iter().map(|passed| passed.rows).sum();
            for layer in (1..self.layers).rev() {
                let stretch = stretch_of(self.hidden, rows * self.hidden);
                let weight = take(part.trunk + 2 * layer).chunks_mut(stretch * self.hidden);
                for (i, weight) in weight.enumerate() {
                    let passed = passed.clone();
                    let size = rows * weight.len();
                    let piece: Work<'_> = Box::new(move || {
                        self.inner_gradient(&passed, layer, i * stretch, keep, weight);
                    });
                    work.push((size, piece));
                }
            }
            let stretch = stretch_of(self.hidden, rows * part.columns.len());
            let mut heads: Vec<_> = part
                .sizes
                .iter()
                .enumerate()
                .map(|(h, &size)| take(part.heads + 2 * h).chunks_mut(stretch * size))
                .collect();
            for first in (0..self.hidden).step_by(stretch) {
                let of_heads: Vec<_> = heads.iter_mut().filter_map(Iterator::next).collect();
                let passed = passed.clone();
                let size = rows * of_heads.iter().map(|head| head.len()).sum::<usize>();
                let piece: Work<'_> = Box::new(move || {
                    self.head_gradients(&passed, part, first, keep, of_heads);
                });
                work.push((size, piece));
            }
            let table = take(part.trunk);
            let n_tokens = table.len() / self.hidden;
            let stretch = stretch_of(n_tokens, rows * self.n_active);
            for (i, table) in table.chunks_mut(stretch * self.hidden).enumerate() {
                let passed = passed.clone();
                let size = PER_ADDITION * rows * self.n_active * self.hidden;
                let piece: Work<'_> = Box::new(move || {
                    self.table_gradient(&passed, i * stretch, keep, table);
                });
                work.push((size, piece));
            }
            let trunk = (0..self.layers).map(|layer| take(part.trunk + 2 * layer + 1)).collect();
            let heads = (0..part.sizes.len()).map(|h| take(part.heads + 2 * h + 1)).collect();
            let size = PER_ADDITION * rows * (self.layers * self.hidden + part.columns.len());
            let piece: Work<'_> =
                Box::new(move || self.bias_gradients(&passed, part, keep, trunk, heads));
            work.push((size, piece));
        }
        largest_first(work, |piece| piece());
    }
}

/// Gradients of some parameters, or of a stretch of their rows.
type Work<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Multiplications of a matrix product that take as long as one addition to a row in memory.
const PER_ADDITION: usize = 4;

/// What a part of the batch has left for the gradients of one trunk and its heads.
struct Passed<'a> {
    rows: usize,
    ids: &'a [i32],
    /// Gradients of the outputs, `[rows, columns]`.
    outputs: &'a [f32],
    /// What each layer has computed, `[rows, hidden]`, and the gradients before its rectifier.
    activations: &'a [Vec<f32>],
    gradients: &'a [Vec<f32>],
}

/// How many of `n_rows` rows of a parameter one thread takes, where each is a sum over so many
/// numbers. By size alone: the same sums for any number of threads. Every stretch has its own copy of
/// the gradients packed, so that few are better.
fn stretch_of(n_rows: usize, per_row: usize) -> usize {
    /// Multiplications that are worth a thread.
    const PER_THREAD: usize = 1 << 20;
    n_rows.div_ceil((n_rows * per_row / PER_THREAD).clamp(1, 4))
}

impl Chain {
    /// Per layer of a part: the weights of what reads it, and their transpose.
    fn panels<'a>(&self, weights: &'a Weights, p: usize) -> &'a [Panels] {
        &weights.panels[p * 2 * self.layers..][..2 * self.layers]
    }

    /// Where a tape keeps the gradients of a part's outputs (if they lie apart), then those of its layers.
    fn scratch_of(&self, p: usize) -> usize {
        p * (1 + self.layers)
    }

    /// Passes the gradients of the outputs of one tape down to the first layer.
    fn propagate(&self, weights: &Weights, tape: &mut Tape) {
        let (hidden, n) = (self.hidden, tape.rows);
        tape.need_scratch(self.scratch_of(self.parts.len()));
        for (p, part) in self.parts.iter().enumerate() {
            let columns = part.columns.len();
            let scratch = &mut tape.scratch[self.scratch_of(p)..][..1 + self.layers];
            let (own_columns, gradients) = scratch.split_first_mut().expect("one at least");
            let output_gradient = if columns == self.width {
                &tape.output_gradient
            } else {
                own_columns.clear();
                let rows = tape.output_gradient.chunks_exact(self.width);
                own_columns.extend(rows.flat_map(|row| &row[part.columns.clone()]).copied());
                // A loss that does not read this part has no gradient for its trunk.
                if own_columns.iter().all(|&g| g == 0.0) {
                    own_columns.clear();
                    continue;
                }
                own_columns
            };
            for layer in (0..self.layers).rev() {
                let (below, above) = gradients.split_at_mut(layer + 1);
                let dy = match above.first() {
                    None => Mat::new(output_gradient, n, columns),
                    Some(above) => Mat::new(above, n, hidden),
                };
                let gate = Finish::Gate(&tape.kept[p * self.layers + layer]);
                let gradient = buffer_for(&mut below[layer], 0, n, hidden);
                self.panels(weights, p)[2 * layer + 1].product(gradient, hidden, dy, gate);
            }
        }
    }

    /// What [`propagate`](Self::propagate) has left of a part; nothing if no gradient reaches it.
    fn passed<'a>(&self, p: usize, tape: &'a Tape) -> Option<Passed<'a>> {
        let scratch = &tape.scratch[self.scratch_of(p)..][..1 + self.layers];
        let whole = self.parts[p].columns.len() == self.width;
        let outputs = if whole { &tape.output_gradient } else { &scratch[0] };
        (whole || !outputs.is_empty()).then_some(Passed {
            rows: tape.rows,
            ids: &tape.ids,
            outputs,
            activations: &tape.kept[p * self.layers..][..self.layers],
            gradients: &scratch[1..],
        })
    }

    /// The weight of an inner layer, from row `first` on.
    fn inner_gradient(
        &self,
        passed: &[Passed<'_>],
        layer: usize,
        first: usize,
        keep: bool,
        weight: &mut [f32],
    ) {
        let hidden = self.hidden;
        fill_unless(keep || !passed.is_empty(), weight);
        for (i, passed) in passed.iter().enumerate() {
            let x = &passed.activations[layer - 1][first..];
            let x = Mat::with_stride(x, passed.rows, weight.len() / hidden, hidden);
            let dy = Mat::new(&passed.gradients[layer], passed.rows, hidden);
            matmul(weight, keep || i > 0, x.t(), dy);
        }
    }

    /// The weights of all heads of a part, from row `first` on: one product, then split by head.
    fn head_gradients(
        &self,
        passed: &[Passed<'_>],
        part: &TrunkAndHeads,
        first: usize,
        keep: bool,
        mut heads: Vec<&mut [f32]>,
    ) {
        let columns = part.columns.len();
        let n_rows = heads[0].len() / part.sizes[0];
        let mut merged = vec![0.0; n_rows * columns];
        for (i, passed) in passed.iter().enumerate() {
            let x = &passed.activations[self.layers - 1][first..];
            let x = Mat::with_stride(x, passed.rows, n_rows, self.hidden);
            let dy = Mat::new(passed.outputs, passed.rows, columns);
            matmul(&mut merged, i > 0, x.t(), dy);
        }
        let mut start = 0;
        for (head, &size) in heads.iter_mut().zip(&part.sizes) {
            fill_unless(keep, head);
            for (row, merged) in head.chunks_exact_mut(size).zip(merged.chunks_exact(columns)) {
                for (x, &g) in row.iter_mut().zip(&merged[start..start + size]) {
                    *x += g;
                }
            }
            start += size;
        }
    }

    /// The first layer's weight, from token `first` on.
    fn table_gradient(&self, passed: &[Passed<'_>], first: usize, keep: bool, table: &mut [f32]) {
        fill_unless(keep, table);
        for Passed { ids, gradients, .. } in passed {
            scatter_rows(table, first, &gradients[0], ids, self.n_active, self.hidden);
        }
    }

    /// The biases of all layers and heads of a part.
    fn bias_gradients<'a>(
        &self,
        passed: &[Passed<'_>],
        part: &TrunkAndHeads,
        keep: bool,
        mut trunk: Vec<&'a mut [f32]>,
        mut heads: Vec<&'a mut [f32]>,
    ) {
        for bias in [&mut trunk, &mut heads].into_iter().flatten() {
            fill_unless(keep, bias);
        }
        for Passed { rows, outputs, gradients, .. } in passed {
            for (bias, gradient) in trunk.iter_mut().zip(*gradients) {
                sum_into_bias(bias, &gradient[..rows * self.hidden]);
            }
            for row in outputs.chunks_exact(part.columns.len()) {
                let mut start = 0;
                for bias in &mut heads {
                    let size = bias.len();
                    for (x, &g) in bias.iter_mut().zip(&row[start..start + size]) {
                        *x += g;
                    }
                    start += size;
                }
            }
        }
    }
}

/// Sets gradients to zero that nothing is to be kept of.
fn fill_unless(keep: bool, gradient: &mut [f32]) {
    if !keep {
        gradient.fill(0.0);
    }
}
