//! The list of layers as operations on tensors.

use burn::tensor::activation::{relu, softmax};
use burn::tensor::module::linear;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::dropout::Dropout;
use crate::engine::native::EPSILON;
use crate::engine::native::sinusoids;
use crate::heads::{HeadPlan, PAIR_RANK, Part, pairs};
use crate::layers::{Layer, LayerList};

/// Observations of `n` states: the numbers of the values of their cells, negative where there is none.
pub(super) struct Observed<'a> {
    pub(super) ids: &'a [i32],
    pub(super) n: usize,
    pub(super) device: &'a Device,
}

impl Observed<'_> {
    fn of_states(&self) -> impl Iterator<Item = &[i32]> {
        self.ids.chunks_exact(self.ids.len() / self.n)
    }
}

/// Integers as a tensor.
pub(super) fn upload_ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// A table with a row of zeros after its own, which empty cells read.
fn with_zeros(table: &Tensor<2>) -> Tensor<2> {
    let [_, size] = table.dims();
    Tensor::cat(vec![table.clone(), Tensor::zeros([1, size], &table.device())], 0)
}

/// x W + b by the weight and bias at `index`.
fn project<const D: usize>(x: Tensor<D>, params: &[Tensor<2>], index: usize) -> Tensor<D> {
    let [_, size] = params[index].dims();
    linear(x, params[index].clone(), Some(params[index + 1].clone().reshape([size])))
}

/// Evaluates states: one tensor, `[n, size]`, for each of the heads that is asked for. `params` are the
/// values of the list's parameters, in their order; with `dropout`, some activations are dropped.
pub(super) fn forward(
    list: &LayerList,
    params: &[Tensor<2>],
    observed: &Observed<'_>,
    dropout: Option<Dropout>,
    asked: &[bool],
) -> Vec<Option<Tensor<2>>> {
    // What is asked for, and what that is computed from.
    let mut wanted = vec![false; list.layers.len()];
    for (head, asked) in list.heads.iter().zip(asked) {
        wanted[head.value] |= asked;
    }
    for value in (0..wanted.len()).rev() {
        if wanted[value] {
            inputs(list, value).into_iter().flatten().for_each(|input| wanted[input] = true);
        }
    }
    // Values of states have one sequence of `n` tokens, those of tokens n sequences.
    let mut values: Vec<Option<Tensor<3>>> = Vec::with_capacity(list.layers.len());
    for (value, listed) in list.layers.iter().enumerate() {
        if !wanted[value] {
            values.push(None);
            continue;
        }
        let of = |value: usize| values[value].clone().expect("wanted as well");
        let params = &params[listed.param..];
        values.push(Some(match listed.layer {
            Layer::Sum { size } => sum(params, observed, size),
            Layer::Embed { size } => embed(list, &params[0], observed, size),
            Layer::Linear { input, rectify, .. } => {
                let x = project(of(input), params, 0);
                if rectify { relu(x) } else { x }
            }
            Layer::Norm { input } => normalise(of(input), params),
            Layer::Attention { input, heads } => {
                attention(list, of(input), params, observed, heads)
            }
            Layer::Add { left, right } => of(left) + of(right),
            Layer::Drop { input, place } => match dropout {
                None => of(input),
                Some(dropout) => {
                    let x = of(input);
                    let [n, t, size] = x.dims();
                    let mut mask = vec![1.0f32; n * t * size];
                    dropout.apply(place, t, size, 0.., &mut mask);
                    x * Tensor::from_data(TensorData::new(mask, [n, t, size]), observed.device)
                }
            },
        }));
    }
    heads(list, params, &values, observed.n, asked)
}

/// What a value is computed from: earlier ones.
fn inputs(list: &LayerList, value: usize) -> [Option<usize>; 2] {
    match list.layers[value].layer {
        Layer::Sum { .. } | Layer::Embed { .. } => [None; 2],
        Layer::Linear { input, .. }
        | Layer::Norm { input }
        | Layer::Attention { input, .. }
        | Layer::Drop { input, .. } => [Some(input), None],
        Layer::Add { left, right } => [Some(left), Some(right)],
    }
}

fn sum(params: &[Tensor<2>], observed: &Observed<'_>, size: usize) -> Tensor<3> {
    let (weight, bias) = (&params[0], &params[1]);
    let [none, _] = weight.dims();
    let (n, n_cells) = (observed.n, observed.ids.len() / observed.n);
    let padded = observed.ids.iter().any(|&id| id < 0);
    let table = if padded { with_zeros(weight) } else { weight.clone() };
    let fill = |&id: &i32| if id < 0 { none as i32 } else { id };
    let ids = upload_ints(observed.ids.iter().map(fill).collect(), observed.device);
    let sum = table.select(0, ids).reshape([n, n_cells, size]).sum_dim(1).reshape([n, size]);
    relu(sum + bias.clone()).reshape([1, n, size])
}

fn embed(list: &LayerList, table: &Tensor<2>, observed: &Observed<'_>, size: usize) -> Tensor<3> {
    let context = &list.context;
    let (t, features) = (context.n_positions(), context.space.features.len().max(1));
    let empty = context.n_embeddings() as i32;
    let (first, none) = (empty + 1, empty + 2);
    let mut rows = Vec::with_capacity(observed.n * t * features);
    for ids in observed.of_states() {
        rows.push(first);
        rows.resize(rows.len() + features - 1, none);
        for slot in 0..t - 1 {
            let end = rows.len() + features;
            rows.extend(context.embeddings(ids, slot).map(|row| row as i32));
            if rows.len() + features == end {
                rows.push(empty);
            }
            rows.resize(end, none);
        }
    }
    let table = if features > 1 { with_zeros(table) } else { table.clone() };
    let rows = table.select(0, upload_ints(rows, observed.device));
    let x = rows.reshape([observed.n * t, features, size]).sum_dim(1);
    let x = x.reshape([observed.n, t, size]);
    if !context.space.named {
        return x;
    }
    let positions = TensorData::new(sinusoids(t, size), [1, t, size]);
    x + Tensor::from_data(positions, observed.device)
}

/// Layer normalisation by the gain and bias.
fn normalise(x: Tensor<3>, params: &[Tensor<2>]) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let gain = params[0].clone().unsqueeze::<3>();
    centred / (variance + EPSILON).sqrt() * gain + params[1].clone().unsqueeze::<3>()
}

/// Multi-head attention from queries, keys and values, `[n, t, 3 width]`.
fn attention(
    list: &LayerList,
    qkv: Tensor<3>,
    params: &[Tensor<2>],
    observed: &Observed<'_>,
    heads: usize,
) -> Tensor<3> {
    let [n, t, width] = qkv.dims();
    let width = width / 3;
    let size = width / heads;
    let [q, k, v] = [0, 1, 2].map(|i| {
        let part = qkv.clone().narrow(2, i * width, width);
        part.reshape([n, t, heads, size]).swap_dims(1, 2)
    });
    let scale = 1.0 / (size as f64).sqrt();
    let relations = list.context.n_relations();
    let mut scores = q.clone().matmul(k.swap_dims(2, 3));
    let mix = |weights: Tensor<4>| weights.matmul(v);
    if relations == 0 {
        let mixed = mix(softmax(scores * scale, 3));
        return mixed.swap_dims(1, 2).reshape([n, t, width]);
    }
    // For each state and query: which relation it has to every key, as a one-hot code.
    let mut codes = vec![0; t * t];
    let mut one_hot = vec![0.0f32; n * t * t * relations];
    for (ids, one_hot) in observed.of_states().zip(one_hot.chunks_exact_mut(t * t * relations)) {
        list.context.write_relations(ids, &mut codes);
        for (&code, one_hot) in codes.iter().zip(one_hot.chunks_exact_mut(relations)) {
            one_hot[code as usize] = 1.0;
        }
    }
    let one_hot = TensorData::new(one_hot, [n, t, t, relations]);
    let one_hot = Tensor::<4>::from_data(one_hot, observed.device);
    let [keys, values] = [0, 1].map(|i| {
        let rows = params[i].clone().reshape([1, relations, heads, size]);
        rows.swap_dims(1, 2)
    });
    // [n, query, head, relation] times [n, query, relation, key].
    let of_relations = q.matmul(keys.swap_dims(2, 3)).swap_dims(1, 2);
    let spread = of_relations.matmul(one_hot.clone().swap_dims(2, 3));
    scores = scores + spread.swap_dims(1, 2);
    let weights = softmax(scores * scale, 3);
    let of_relations = weights.clone().swap_dims(1, 2).matmul(one_hot).swap_dims(1, 2);
    let mixed = mix(weights) + of_relations.matmul(values);
    mixed.swap_dims(1, 2).reshape([n, t, width])
}

/// All heads that are asked for.
fn heads(
    list: &LayerList,
    params: &[Tensor<2>],
    values: &[Option<Tensor<3>>],
    n: usize,
    asked: &[bool],
) -> Vec<Option<Tensor<2>>> {
    let top = list.heads[0].value;
    let one_top = list.heads.iter().all(|head| head.value == top);
    let merged = (one_top && !list.is_by_token(top) && asked.contains(&true)).then(|| {
        // All heads are one product.
        let part = |which: usize| {
            list.heads.iter().map(|head| params[head.param + which].clone()).collect()
        };
        let (weight, bias) = (Tensor::cat(part(0), 1), Tensor::cat(part(1), 1));
        let x = values[top].clone().expect("it was asked for");
        let [_, _, size] = x.dims();
        let width = list.context.width();
        linear(x.reshape([n, size]), weight, Some(bias.reshape([width])))
    });
    let of = |(head, &asked): (&HeadPlan, &bool)| {
        if !asked {
            return None;
        }
        if let Some(merged) = &merged {
            let columns = head.columns(&list.context);
            return Some(merged.clone().narrow(1, columns.start, columns.len()));
        }
        let x = values[head.value].clone().expect("it was asked for");
        Some(one_head(list, params, head, x, n))
    };
    list.heads.iter().zip(asked).map(of).collect()
}

fn one_head(
    list: &LayerList,
    params: &[Tensor<2>],
    head: &HeadPlan,
    x: Tensor<3>,
    n: usize,
) -> Tensor<2> {
    let [_, t, size] = x.dims();
    if !list.is_by_token(head.value) {
        return project(x.reshape([n, size]), params, head.param);
    }
    let first = project(x.clone().narrow(1, 0, 1).reshape([n, size]), params, head.param);
    let slots = t - 1;
    let tokens = || x.clone().narrow(1, 1, slots);
    let columns = |start: usize, n: usize| first.clone().narrow(1, start, n);
    let part = |part: &Part| match *part {
        Part::First { first, n, .. } => columns(first, n),
        Part::Slots { first, size, param, .. } => {
            let mut by_slot = project(tokens(), params, param);
            if let Some(start) = first {
                by_slot = by_slot + columns(start, slots).reshape([n, slots, 1]);
            }
            by_slot.reshape([n, slots * size])
        }
        Part::Pairs { first, size, ordered, param, .. } => {
            let [a, b] = [param, param + 2].map(|param| {
                let maps = project(tokens(), params, param);
                maps.reshape([n, slots, size, PAIR_RANK]).swap_dims(1, 2)
            });
            let scale = 1.0 / (PAIR_RANK as f64).sqrt();
            let mut scores = a.matmul(b.swap_dims(2, 3)) * scale;
            if !ordered {
                scores = scores.clone() + scores.swap_dims(2, 3);
            }
            // [n, size, slots, slots] to a number of all pairs each.
            let scores = scores.swap_dims(1, 2).swap_dims(2, 3).reshape([n, slots * slots, size]);
            let places: Vec<i32> =
                pairs(slots, ordered).map(|(i, j)| (i * slots + j) as i32).collect();
            let n_places = places.len();
            let mut by_pair = match ordered {
                true => scores,
                false => scores.select(1, upload_ints(places, &x.device())),
            };
            if let Some(start) = first {
                by_pair = by_pair + columns(start, n_places).reshape([n, n_places, 1]);
            }
            by_pair.reshape([n, n_places * size])
        }
    };
    Tensor::cat(head.parts.iter().map(part).collect(), 1)
}
