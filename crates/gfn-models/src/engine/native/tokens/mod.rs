//! Networks over tokens by hand. A pass over the list of layers works out which rows each value needs
//! and which buffers are kept for the way back; what then runs is the list, with the kernels here.

mod attention;
mod backward;
mod forward;
mod graph;
mod heads;
mod heads_by_block;
mod norm;
mod rows;

use std::ops::Range;

use super::kernels::{matmul, sum_into_bias};
use super::tape::{NativeNetwork, Tape, Weights, backward_by_tape};
use super::{Mat, buffer_for};
use crate::dropout::Dropout;
use crate::heads::{Meet, Part, SlotsRead};
use crate::layers::{Layer, LayerList, Listed};

use attention::Attention;
use rows::{Numbering, Rows};

/// Added to variances before the square root.
pub(in crate::engine) const EPSILON: f32 = 1e-5;

/// Which rows a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    /// One for each of the different tokens: values before the first attention.
    Different,
    /// One for each token of each state.
    All,
    /// One for each token that heads read: values after the last attention, if no value is of states.
    Read,
    /// One for each state.
    State,
    /// One for each kind of edge, whatever the states are.
    Edge,
}

impl Set {
    /// Whether its rows belong to all states of a tape alike.
    fn is_shared(self) -> bool {
        matches!(self, Self::Different | Self::Edge)
    }
}

/// What the pass over the list has found out of a value.
#[derive(Clone, Copy, Debug)]
struct Step {
    layer: Layer,
    size: usize,
    /// Its first parameter.
    param: usize,
    set: Set,
    /// The head that alone reads it, if it is not part of the trunk.
    head: Option<usize>,
    /// Where it lies: sums and dropout overwrite what they are computed from.
    buffer: usize,
    /// Whether the tape keeps it for the way back, or it is forgotten after the pass.
    kept: bool,
    /// Further buffers that the tape keeps: of a norm the normalised rows, then their scales; of
    /// attention its weights; of standardised values the scale of each state.
    extra: usize,
}

/// A list of layers over tokens.
pub(super) struct TokenNetwork {
    list: LayerList,
    steps: Vec<Step>,
    /// Tapes keep so many buffers; passes need so many besides.
    n_kept: usize,
    n_scratch: usize,
    numbering: Numbering,
    /// The value that all heads read, unless each reads its own block by block.
    top: usize,
    by_block: bool,
    /// Columns of all heads on the first token side by side.
    n_first: usize,
    /// Numbers per position of the embedding.
    positions: Vec<f32>,
    /// 0 to the number of tokens.
    all_tokens: Vec<i32>,
}

/// Dropout of rows, if any.
#[derive(Clone, Copy)]
struct Dropping {
    dropout: Option<Dropout>,
    /// Tokens per state.
    t: usize,
}

impl Dropping {
    /// Drops from the rows of a set, `range` of them.
    fn apply(
        self,
        place: usize,
        size: usize,
        rows: &Rows<'_>,
        (set, range): (Set, Range<usize>),
        values: &mut [f32],
    ) {
        let Some(dropout) = self.dropout else { return };
        match set {
            Set::Read => {
                let places = rows.read(range).iter().map(|&row| rows.place(row));
                dropout.apply(place, self.t, size, places, values);
            }
            // While something is dropped, every row has a token of its own, in the order of rows.
            Set::All | Set::Different => {
                let places = rows.places(range).iter().map(|&place| place as usize);
                dropout.apply(place, self.t, size, places, values);
            }
            Set::State | Set::Edge => unreachable!("refused before"),
        }
    }
}

/// sin and cos of position / 10000^(2i / width), interleaved: `[n, width]`.
pub(in crate::engine) fn sinusoids(n: usize, width: usize) -> Vec<f32> {
    let at = |position: usize, feature: usize| {
        let exponent = (feature - feature % 2) as f64 / width as f64;
        let angle = position as f64 / 10000f64.powf(exponent);
        (if feature.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..n).flat_map(|p| (0..width).map(move |f| at(p, f))).collect()
}

impl TokenNetwork {
    /// The network, if its layers are such as can be run here: one value that all heads read, behind
    /// some attention, or heads that read block by block; sums of what nothing else reads.
    pub(super) fn new(list: &LayerList) -> Option<Self> {
        let top = list.heads.first()?.value;
        let is_last = |layer: &Listed| {
            matches!(layer.layer, Layer::Attention { .. } | Layer::Neighbours { .. })
        };
        let last_attention = list.layers.iter().rposition(is_last)?;
        let parts = || list.heads.iter().flat_map(|head| &head.parts);
        let by_block = !list.is_by_token(top)
            || list.heads.iter().any(|head| head.values().any(|value| value != top));
        let products = |part: &Part| matches!(part, Part::Pairs { meet: Meet::Product, .. });
        let sums = |part: &Part| matches!(part, Part::Pairs { meet: Meet::Sum, .. });
        if if by_block { parts().any(products) } else { parts().any(sums) } {
            return None;
        }
        let mut steps: Vec<Step> = Vec::new();
        for (value, Listed { layer, size, param, .. }) in list.layers.iter().enumerate() {
            let (layer, size, param) = (*layer, *size, *param);
            let set = match layer {
                Layer::Embed { .. } => Set::Different,
                Layer::Edges { .. } => Set::Edge,
                Layer::Attention { .. } | Layer::Neighbours { .. }
                    if value == last_attention && !by_block =>
                {
                    Set::Read
                }
                Layer::Attention { .. }
                | Layer::Neighbours { .. }
                | Layer::Standardise { .. }
                | Layer::Messages { .. } => Set::All,
                Layer::Summary { .. } => Set::State,
                Layer::Linear { input, .. }
                | Layer::Leaky { input }
                | Layer::Norm { input }
                | Layer::Drop { input, .. } => steps[input].set,
                Layer::Concat { left, right } if steps[left].set == steps[right].set => {
                    steps[left].set
                }
                Layer::Add { left, right } if steps[left].set >= steps[right].set => {
                    steps[left].set
                }
                _ => return None,
            };
            let set_of = |value: usize| steps[value].set;
            let is_known = match layer {
                Layer::Messages { input, .. } | Layer::Summary { input } => {
                    set_of(input) == Set::All
                }
                Layer::Attention { input, .. }
                | Layer::Neighbours { input, .. }
                | Layer::Standardise { input } => set_of(input) <= Set::All,
                Layer::Norm { input } | Layer::Drop { input, .. } => set_of(input) <= Set::Read,
                Layer::Add { left, right } => {
                    set_of(left) == set_of(right) || set_of(left) <= Set::Read
                }
                _ => true,
            };
            if !is_known {
                return None;
            }
            let buffer = match layer {
                Layer::Add { left: input, .. }
                | Layer::Leaky { input }
                | Layer::Drop { input, .. } => steps[input].buffer,
                _ => value,
            };
            let head = list.head_of(value);
            steps.push(Step { layer, size, param, set, head, buffer, kept: false, extra: 0 });
        }
        let set_of = |value: usize| steps[value].set;
        let of_slots = || parts().filter_map(Part::value);
        let is_read = match by_block {
            false => set_of(top) == Set::Read,
            true => {
                list.heads.iter().all(|head| set_of(head.value) == Set::State)
                    && of_slots().all(|value| set_of(value) == Set::All)
            }
        };
        if !is_read {
            return None;
        }
        // What is needed again: inputs of products, rectified outputs, what heads read, and tokens
        // that later values come back to.
        let mut needed = vec![false; steps.len()];
        for value in list.heads.iter().flat_map(|head| head.values()) {
            needed[steps[value].buffer] = true;
        }
        for step in &steps {
            match step.layer {
                Layer::Linear { input, rectify, .. } => {
                    needed[steps[input].buffer] = true;
                    needed[step.buffer] |= rectify;
                }
                Layer::Attention { input, .. } => needed[steps[input].buffer] = true,
                Layer::Messages { input, edges } | Layer::Neighbours { input, edges, .. } => {
                    needed[steps[input].buffer] = true;
                    needed[steps[edges].buffer] = true;
                }
                Layer::Leaky { .. } => needed[step.buffer] = true,
                Layer::Standardise { input } => {
                    needed[step.buffer] = true;
                    needed[steps[input].buffer] |= steps[input].set == Set::Different;
                }
                Layer::Add { right, .. } if steps[right].set == Set::Different => {
                    needed[steps[right].buffer] = true;
                }
                _ => {}
            }
        }
        // Numbers of buffers, of either kind.
        let (mut n_kept, mut n_scratch) = (0, 0);
        let mut place = vec![0; steps.len()];
        for value in 0..steps.len() {
            let root = steps[value].buffer;
            steps[value].kept = needed[root];
            if root == value {
                let n = if needed[root] { &mut n_kept } else { &mut n_scratch };
                place[value] = *n;
                *n += 1;
            }
            steps[value].buffer = place[root];
        }
        for step in &mut steps {
            step.extra = n_kept;
            n_kept += match step.layer {
                Layer::Norm { .. } => 2,
                Layer::Attention { .. } | Layer::Neighbours { .. } | Layer::Standardise { .. } => 1,
                _ => 0,
            };
        }
        let t = list.context.n_positions();
        Some(Self {
            numbering: Numbering::new(&list.context),
            top,
            by_block,
            n_first: list.heads.iter().map(|head| head.n_first).sum(),
            positions: sinusoids(t, steps[0].size),
            all_tokens: (0..t as i32).collect(),
            list: list.clone(),
            steps,
            n_kept,
            n_scratch,
        })
    }

    fn t(&self) -> usize {
        self.numbering.t
    }

    /// The sizes of a layer of attention among `t` tokens.
    fn attention(&self, step: &Step, heads: usize, t: usize) -> Attention {
        let relations = match step.layer {
            Layer::Neighbours { .. } => self.list.context.n_edges(),
            _ => self.list.context.n_relations(),
        };
        Attention { t, heads, size: step.size / heads, relations }
    }

    /// Which slots the heads read that a tape is asked for.
    fn reads(&self, tape: &Tape) -> SlotsRead {
        let asked =
            |head: &&crate::heads::HeadPlan| tape.asks_for(&head.columns(&self.list.context));
        let parts = self.list.heads.iter().filter(asked).flat_map(|head| &head.parts);
        parts.map(Part::reads).fold(SlotsRead::default(), SlotsRead::or)
    }

    /// The rows whose attention is computed in a layer.
    fn queries<'a>(&'a self, rows: &'a Rows<'_>, state: usize, set: Set) -> attention::Queries<'a> {
        let of_state = rows.rows_of(state..state + 1);
        if set == Set::Read {
            let range = rows.read_of(state..state + 1);
            attention::Queries { rows: rows.read(range), base: of_state.start as i32 }
        } else {
            attention::Queries { rows: &self.all_tokens[..of_state.len()], base: 0 }
        }
    }
}

/// Where rows of a later set, `range` of them, stand among those of an earlier one.
fn among<'a>(rows: &'a Rows<'_>, earlier: Set, later: Set, range: Range<usize>) -> &'a [i32] {
    match (earlier, later) {
        (Set::Different, Set::All) => rows.tokens(range),
        (Set::Different, Set::Read) => rows.read_tokens(range),
        _ => rows.read(range),
    }
}

/// The numbers of some rows, or the rows of some states, of `size` each.
fn at(range: &Range<usize>, size: usize) -> Range<usize> {
    range.start * size..range.end * size
}

/// Copies some rows of a table, one after the other.
fn gather(out: &mut Vec<f32>, table: &[f32], rows: &[i32], width: usize) {
    out.clear();
    for &row in rows {
        out.extend_from_slice(&table[row as usize * width..][..width]);
    }
}

/// x W, with the size of its rows.
fn product(out: &mut [f32], x: &[f32], weight: &[f32], size: usize, rows: usize) {
    let fan_in = weight.len() / size;
    matmul(out, false, Mat::new(x, rows, fan_in), Mat::new(weight, fan_in, size));
}

/// x W, with W before the bias at `index`.
fn linear(out: &mut [f32], x: &[f32], params: &[Vec<f32>], index: usize, rows: usize) {
    product(out, x, &params[index], params[index + 1].len(), rows);
}

/// Adds the gradient of the weight, and writes (or, with `keep`, adds) that of the input.
fn product_backward(
    input_gradient: &mut [f32],
    keep: bool,
    (gradient, size): (&[f32], usize),
    x: &[f32],
    weight: &[f32],
    of_weight: &mut [f32],
) {
    let (fan_in, rows) = (weight.len() / size, gradient.len() / size);
    let dy = Mat::new(gradient, rows, size);
    matmul(of_weight, true, Mat::new(x, rows, fan_in).t(), dy);
    matmul(input_gradient, keep, dy, Mat::new(weight, fan_in, size).t());
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
    let (weight, of_weight) = (&params[index], &mut gradients[index..]);
    sum_into_bias(&mut of_weight[1], gradient);
    let dy = (gradient, params[index + 1].len());
    product_backward(input_gradient, keep, dy, x, weight, &mut of_weight[0]);
}

impl NativeNetwork for TokenNetwork {
    fn width(&self) -> usize {
        self.list.context.width()
    }

    fn rows_per_thread(&self) -> usize {
        8
    }

    /// The heads' maps of the first token side by side, then their biases.
    fn prepare(&self, weights: &mut Weights) {
        if self.by_block {
            return;
        }
        weights.prepared.resize_with(1, Vec::new);
        let merged = &mut weights.prepared[0];
        merged.clear();
        for row in 0..self.steps[self.top].size {
            for head in &self.list.heads {
                let weight = &weights.values[head.param];
                merged.extend_from_slice(&weight[row * head.n_first..][..head.n_first]);
            }
        }
        for head in &self.list.heads {
            merged.extend_from_slice(&weights.values[head.param + 1]);
        }
    }

    fn forward(&self, weights: &Weights, ids: &[i32], n: usize, tape: &mut Tape) {
        self.evaluate(weights, ids, n, tape);
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
