//! The multilayer perceptron by hand: a sparse first layer, one merged output layer, no
//! allocation per pass.

use std::ops::Range;

use gfn_core::kernels::{
    Mat, add_bias_relu, matmul, relu_gradient, scatter_rows, sum_into_bias, sum_rows,
};
use gfn_core::native::{NativeNetwork, Tape, Weights, grow};
use gfn_core::panels::{Finish, Panels};

use super::{HEADS, Mlp};

/// A trunk with the output layers that stand on it.
struct Part {
    /// Index of the trunk's first parameter (weight, bias, weight, bias, …).
    trunk: usize,
    /// Index of the first output layer's weight.
    heads: usize,
    /// Columns of the output that the heads fill, and their sizes.
    columns: Range<usize>,
    sizes: Vec<usize>,
}

/// [`Mlp`] on slices.
pub(super) struct NativeMlp {
    hidden: usize,
    layers: usize,
    n_active: usize,
    width: usize,
    parts: Vec<Part>,
}

impl NativeMlp {
    pub(super) fn new(mlp: &Mlp) -> Self {
        let sizes = mlp.head_sizes();
        let width = sizes.iter().sum();
        let per_trunk = 2 * mlp.spec.layers;
        let parts = if mlp.spec.shared {
            vec![Part { trunk: 0, heads: per_trunk, columns: 0..width, sizes: sizes.to_vec() }]
        } else {
            let heads = HEADS.len() * per_trunk;
            let mut start = 0;
            let part = |(h, &size): (usize, &usize)| {
                let columns = start..start + size;
                start += size;
                Part { trunk: h * per_trunk, heads: heads + 2 * h, columns, sizes: vec![size] }
            };
            sizes.iter().enumerate().map(part).collect()
        };
        Self {
            hidden: mlp.spec.hidden,
            layers: mlp.spec.layers,
            n_active: mlp.layout.n_active,
            width,
            parts,
        }
    }

    /// The weights of a part's heads side by side, `[hidden, columns]`, then their biases.
    fn merge(&self, part: &Part, params: &[Vec<f32>], merged: &mut Vec<f32>) {
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

impl NativeNetwork for NativeMlp {
    fn width(&self) -> usize {
        self.width
    }

    fn prepare(&self, weights: &mut Weights) {
        weights.prepared.resize_with(self.parts.len(), Vec::new);
        weights.panels.resize_with(self.parts.len() * self.layers, Panels::default);
        let panels = weights.panels.chunks_exact_mut(self.layers);
        for ((part, merged), panels) in self.parts.iter().zip(&mut weights.prepared).zip(panels) {
            self.merge(part, &weights.values, merged);
            let columns = part.columns.len();
            let (heads, inner) = panels.split_first_mut().expect("there is a layer");
            heads.pack(&merged[..self.hidden * columns], columns);
            for (layer, panels) in inner.iter_mut().enumerate() {
                panels.pack(&weights.values[part.trunk + 2 * (layer + 1)], self.hidden);
            }
        }
    }

    fn forward(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        let (hidden, layers, start) = (self.hidden, self.layers, tape.rows);
        tape.rows += n;
        tape.ids.extend_from_slice(ids);
        tape.kept.resize_with(self.parts.len() * layers, Vec::new);
        let asked: Vec<bool> = self.parts.iter().map(|part| tape.asks_for(&part.columns)).collect();
        let output = grow(&mut tape.output, start, n, self.width);
        for (p, part) in self.parts.iter().enumerate() {
            // A trunk of its own need not run for what nobody asks for.
            if !asked[p] {
                continue;
            }
            // Output layers first, then the inner layers from the second on.
            let panels = &weights.panels[p * layers..][..layers];
            for layer in 0..layers {
                let index = part.trunk + 2 * layer;
                let bias = &weights.values[index + 1];
                let (before, rest) = tape.kept.split_at_mut(p * layers + layer);
                let out = grow(&mut rest[0], start, n, hidden);
                if layer == 0 {
                    sum_rows(out, &weights.values[index], ids, self.n_active, hidden);
                    add_bias_relu(out, bias);
                } else {
                    let input = &before[p * layers + layer - 1][start * hidden..];
                    let input = Mat::new(input, n, hidden);
                    panels[layer].product(out, hidden, input, Finish::BiasRelu(bias));
                }
            }
            let top = Mat::new(&tape.kept[p * layers + layers - 1][start * hidden..], n, hidden);
            let bias = &weights.prepared[p][hidden * part.columns.len()..];
            let out = &mut output[part.columns.start..];
            panels[0].product(out, self.width, top, Finish::Bias(bias));
        }
    }

    fn backward(
        &self,
        weights: &Weights,
        tape: &mut Tape,
        output_gradient: &[f32],
        gradients: &mut [Vec<f32>],
    ) {
        let (hidden, layers, n) = (self.hidden, self.layers, tape.rows);
        tape.need_scratch(3);
        let [gradient, below, own_columns, ..] = &mut tape.scratch[..] else {
            unreachable!("there are enough")
        };
        for (p, part) in self.parts.iter().enumerate() {
            let columns = part.columns.len();
            let output_gradient = if columns == self.width {
                output_gradient
            } else {
                own_columns.clear();
                let rows = output_gradient.chunks_exact(self.width);
                own_columns.extend(rows.flat_map(|row| &row[part.columns.clone()]).copied());
                // A loss that does not read this part has no gradient for its trunk.
                if own_columns.iter().all(|&g| g == 0.0) {
                    continue;
                }
                &own_columns[..]
            };
            gradient.resize(n * hidden, 0.0);
            below.resize((n * hidden).max(hidden * columns), 0.0);

            // Output layers: one product, then split by head.
            let top = &tape.kept[p * layers + layers - 1];
            let dy = Mat::new(output_gradient, n, columns);
            let merged = &mut below[..hidden * columns];
            matmul(merged, false, Mat::new(top, n, hidden).t(), dy);
            let mut start = 0;
            for (h, &size) in part.sizes.iter().enumerate() {
                let weight = gradients[part.heads + 2 * h].chunks_exact_mut(size);
                for (row, merged) in weight.zip(merged.chunks_exact(columns)) {
                    for (x, &g) in row.iter_mut().zip(&merged[start..start + size]) {
                        *x += g;
                    }
                }
                let bias = &mut gradients[part.heads + 2 * h + 1];
                for row in output_gradient.chunks_exact(columns) {
                    for (x, &g) in bias.iter_mut().zip(&row[start..start + size]) {
                        *x += g;
                    }
                }
                start += size;
            }
            let weight = Mat::new(&weights.prepared[p][..hidden * columns], hidden, columns);
            matmul(gradient, false, dy, weight.t());
            for layer in (0..layers).rev() {
                relu_gradient(&mut gradient[..n * hidden], &tape.kept[p * layers + layer]);
                let index = part.trunk + 2 * layer;
                sum_into_bias(&mut gradients[index + 1], &gradient[..n * hidden]);
                if layer == 0 {
                    let dx = &gradient[..n * hidden];
                    scatter_rows(&mut gradients[index], dx, &tape.ids, self.n_active, hidden);
                    break;
                }
                let input = Mat::new(&tape.kept[p * layers + layer - 1], n, hidden);
                let dy = Mat::new(gradient, n, hidden);
                matmul(&mut gradients[index], true, input.t(), dy);
                let weight = Mat::new(&weights.values[index], hidden, hidden);
                matmul(below, false, dy, weight.t());
                std::mem::swap(gradient, below);
            }
        }
    }
}
