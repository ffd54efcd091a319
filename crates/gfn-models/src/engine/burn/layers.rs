//! The list of layers as operations on tensors.

use std::cell::OnceCell;

use burn::tensor::activation::{leaky_relu, relu, softmax};
use burn::tensor::module::linear;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::dropout::Dropout;
use crate::engine::native::EPSILON;
use crate::engine::native::sinusoids;
use crate::heads::{HeadPlan, Meet, PAIR_RANK, Part, pairs};
use crate::layers::{LEAK, Layer, LayerList, MESSAGE_FLOOR};
use crate::network::NetworkContext;

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

/// What layers ask about the tokens of the states, worked out once: `n` states of `t` tokens each.
struct Tokens<'a> {
    context: &'a NetworkContext,
    observed: &'a Observed<'a>,
    there: OnceCell<Tensor<3>>,
    relations: OnceCell<Tensor<4>>,
    edges: OnceCell<(Tensor<4>, Tensor<4>)>,
}

impl<'a> Tokens<'a> {
    fn new(context: &'a NetworkContext, observed: &'a Observed<'a>) -> Self {
        let (there, relations, edges) = Default::default();
        Self { context, observed, there, relations, edges }
    }

    fn upload<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), self.observed.device)
    }

    /// Whether a token of a state is there.
    fn is_there(&self, ids: &[i32], position: usize) -> bool {
        position == 0 || self.context.is_there(ids, position - 1)
    }

    /// 1 for tokens that are there, 0 for others: `[n, t, 1]`.
    fn there(&self) -> Tensor<3> {
        let there = self.there.get_or_init(|| {
            let t = self.context.n_positions();
            let of_state = |ids| (0..t).map(move |i| f32::from(u8::from(self.is_there(ids, i))));
            let there = self.observed.of_states().flat_map(of_state).collect();
            self.upload(there, [self.observed.n, t, 1])
        });
        there.clone()
    }

    /// What is added to the scores of keys so that those that are not there have no weight:
    /// `[n, 1, 1, t]`; none if all are.
    fn hidden_keys(&self) -> Option<Tensor<4>> {
        let (n, t) = (self.observed.n, self.context.n_positions());
        let growing = self.context.space.growing;
        growing.then(|| ((self.there() - 1.0) * FAR).reshape([n, 1, 1, t]))
    }

    /// Calls `each` with the ids of every state and the relations of its tokens.
    fn for_states(&self, mut each: impl FnMut(&[i32], &[i32])) {
        let t = self.context.n_positions();
        let mut codes = vec![0; t * t];
        for ids in self.observed.of_states() {
            self.context.write_relations(ids, 0..t, &mut codes);
            each(ids, &codes);
        }
    }

    /// For each state and query: which relation it has to every key, as a one-hot code:
    /// `[n, t, t, relations]`.
    fn relations(&self) -> Tensor<4> {
        let relations = self.relations.get_or_init(|| {
            let (n, t) = (self.observed.n, self.context.n_positions());
            let relations = self.context.n_relations();
            let mut one_hot = Vec::with_capacity(n * t * t * relations);
            self.for_states(|_, codes| {
                for &code in codes {
                    one_hot.extend((0..relations).map(|r| f32::from(u8::from(r == code as usize))));
                }
            });
            self.upload(one_hot, [n, t, t, relations])
        });
        relations.clone()
    }

    /// For each state and pair of slots that can have actions: which relation they have, as a one-hot
    /// code: `[n, pairs, relations]`; nothing for a slot and itself.
    fn pair_relations(&self, ordered: bool) -> Tensor<3> {
        let (n, slots) = (self.observed.n, self.context.space.slots);
        let relations = self.context.n_pair_relations();
        let n_pairs = pairs(slots, ordered).count();
        let mut one_hot = vec![0.0; n * n_pairs * relations];
        let mut of_pairs = one_hot.chunks_exact_mut(relations);
        for ids in self.observed.of_states() {
            for ((i, j), one_hot) in pairs(slots, ordered).zip(&mut of_pairs) {
                if i != j {
                    one_hot[self.context.pair_relation(ids, i, j)] = 1.0;
                }
            }
        }
        self.upload(one_hot, [n, n_pairs, relations])
    }

    /// For each state and token: what part the rows of edges have in its edge to every token,
    /// `[n, t, t, edges]`, and 1 for its neighbours, 0 for others, `[n, t, t, 1]`.
    fn edges(&self) -> (Tensor<4>, Tensor<4>) {
        let edges = self.edges.get_or_init(|| {
            let (n, t, kinds) =
                (self.observed.n, self.context.n_positions(), self.context.n_edges());
            let (mut parts, mut neighbours) = (vec![0.0; n * t * t * kinds], vec![0.0; n * t * t]);
            let mut first = 0;
            self.for_states(|ids, codes| {
                let there: Vec<usize> = (0..t).filter(|&i| self.is_there(ids, i)).collect();
                for &i in &there {
                    let row = first + i * t;
                    neighbours[row + i] = 1.0;
                    let of = |j: usize| Some((j, self.context.edge(codes[i * t + j])?));
                    let others = there.iter().copied().filter(|&j| j != i);
                    let joined: Vec<_> = others.filter_map(of).collect();
                    for &(j, kind) in &joined {
                        neighbours[row + j] = 1.0;
                        parts[(row + j) * kinds + kind] = 1.0;
                        parts[(row + i) * kinds + kind] += 1.0 / joined.len() as f32;
                    }
                }
                first += t * t;
            });
            (self.upload(parts, [n, t, t, kinds]), self.upload(neighbours, [n, t, t, 1]))
        });
        edges.clone()
    }
}

/// Added to what must not count beside any score.
const FAR: f64 = 1e9;

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
        head.values().for_each(|value| wanted[value] |= asked);
    }
    for value in (0..wanted.len()).rev() {
        if wanted[value] {
            list.inputs(value).into_iter().flatten().for_each(|input| wanted[input] = true);
        }
    }
    // Values of states have one sequence of `n` tokens, those of tokens n sequences.
    // The rows of edges are one sequence.
    let tokens = Tokens::new(&list.context, observed);
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
            Layer::Linear { input, rectify, bias, .. } => {
                let x = match bias {
                    true => project(of(input), params, 0),
                    false => linear(of(input), params[0].clone(), None),
                };
                if rectify { relu(x) } else { x }
            }
            Layer::Leaky { input } => leaky_relu(of(input), LEAK),
            Layer::Norm { input } => normalise(of(input), params),
            Layer::Attention { input, heads } => {
                let related = (list.context.n_relations() > 0).then(|| {
                    let [keys, values] = [0, 1].map(|i| params[i].clone());
                    Related { keys, values, parts: tokens.relations() }
                });
                attention(of(input), heads, related, tokens.hidden_keys())
            }
            Layer::Edges { size } => {
                let mut unit = vec![0.0; size];
                unit[0] = 1.0;
                let rows = vec![params[0].clone(), tokens.upload(unit, [1, size])];
                Tensor::cat(rows, 0).unsqueeze()
            }
            Layer::Standardise { input } => standardise(of(input), &tokens),
            Layer::Messages { input, edges } => {
                let (x, (parts, neighbours)) = (of(input), tokens.edges());
                let [n, t, size] = x.dims();
                let [_, kinds, _] = of(edges).dims();
                let rows = of(edges).reshape([1, 1, kinds, size]);
                let sent = relu(x.clone().reshape([n, 1, t, size]) + parts.matmul(rows));
                let sent = (sent + MESSAGE_FLOOR) * neighbours;
                x + sent.sum_dim(2).reshape([n, t, size])
            }
            Layer::Neighbours { input, edges, heads } => {
                let (parts, neighbours) = tokens.edges();
                let [n, t, ..] = neighbours.dims();
                // Tokens that are not there have no neighbours, and nobody reads what they become.
                let far = ((neighbours - 1.0) * FAR).reshape([n, 1, t, t]);
                let [_, kinds, size] = of(edges).dims();
                let rows = of(edges).reshape([kinds, size]);
                let related = Related { keys: rows.clone(), values: rows, parts };
                attention(of(input), heads, Some(related), Some(far))
            }
            Layer::Summary { input } => {
                let (x, there) = (of(input), tokens.there());
                let [n, t, size] = x.dims();
                let slots = |x: Tensor<3>| x.narrow(1, 1, t - 1).sum_dim(1);
                let mean = slots(x.clone() * there.clone()) / slots(there).clamp_min(1.0);
                Tensor::cat(vec![mean, x.narrow(1, 0, 1)], 2).reshape([1, n, 2 * size])
            }
            Layer::Concat { left, right } => Tensor::cat(vec![of(left), of(right)], 2),
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
    heads(list, params, &values, &tokens, asked)
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

/// Layer normalisation of all features of the tokens that are there, of each state.
fn standardise(x: Tensor<3>, tokens: &Tokens<'_>) -> Tensor<3> {
    let [_, _, size] = x.dims();
    let there = tokens.there();
    let n = there.clone().sum_dim(1) * size as f64;
    let mean = |x: Tensor<3>| (x * there.clone()).sum_dim(2).sum_dim(1) / n.clone();
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone().square());
    centred / (variance + EPSILON).sqrt()
}

/// The rows of relations, `[relations, width]`, for keys and for values, and what part each has in what a
/// query is to a key: `[n, t, t, relations]`.
struct Related {
    keys: Tensor<2>,
    values: Tensor<2>,
    parts: Tensor<4>,
}

/// Multi-head attention from queries, keys and values, `[n, t, 3 width]`. `far` is added to scores.
fn attention(
    qkv: Tensor<3>,
    heads: usize,
    related: Option<Related>,
    far: Option<Tensor<4>>,
) -> Tensor<3> {
    let [n, t, width] = qkv.dims();
    let width = width / 3;
    let size = width / heads;
    let [q, k, v] = [0, 1, 2].map(|i| {
        let part = qkv.clone().narrow(2, i * width, width);
        part.reshape([n, t, heads, size]).swap_dims(1, 2)
    });
    let scale = 1.0 / (size as f64).sqrt();
    let mut scores = q.clone().matmul(k.swap_dims(2, 3));
    let mix = |weights: Tensor<4>| weights.matmul(v);
    let soften = |scores: Tensor<4>| match far {
        None => softmax(scores * scale, 3),
        Some(far) => softmax(scores * scale + far, 3),
    };
    let Some(Related { keys, values, parts }) = related else {
        let mixed = mix(soften(scores));
        return mixed.swap_dims(1, 2).reshape([n, t, width]);
    };
    let [.., relations] = parts.dims();
    let [keys, values] =
        [keys, values].map(|rows| rows.reshape([1, relations, heads, size]).swap_dims(1, 2));
    // [n, query, head, relation] times [n, query, relation, key].
    let of_relations = q.matmul(keys.swap_dims(2, 3)).swap_dims(1, 2);
    let spread = of_relations.matmul(parts.clone().swap_dims(2, 3));
    scores = scores + spread.swap_dims(1, 2);
    let weights = soften(scores);
    let of_relations = weights.clone().swap_dims(1, 2).matmul(parts).swap_dims(1, 2);
    let mixed = mix(weights) + of_relations.matmul(values);
    mixed.swap_dims(1, 2).reshape([n, t, width])
}

/// All heads that are asked for.
fn heads(
    list: &LayerList,
    params: &[Tensor<2>],
    values: &[Option<Tensor<3>>],
    tokens: &Tokens<'_>,
    asked: &[bool],
) -> Vec<Option<Tensor<2>>> {
    let (top, n) = (list.heads[0].value, tokens.observed.n);
    let of_top = |head: &HeadPlan| head.value == top && head.values().count() == 1;
    let one_top = list.heads.iter().all(of_top);
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
        Some(one_head(list, params, head, values, tokens))
    };
    list.heads.iter().zip(asked).map(of).collect()
}

fn one_head(
    list: &LayerList,
    params: &[Tensor<2>],
    head: &HeadPlan,
    values: &[Option<Tensor<3>>],
    tokens: &Tokens<'_>,
) -> Tensor<2> {
    let (n, slots) = (tokens.observed.n, list.context.space.slots);
    let of = |value: usize| values[value].clone().expect("it was asked for");
    let x = match (of(head.value), list.is_by_token(head.value)) {
        (x, true) => x.narrow(1, 0, 1),
        (x, false) => x,
    };
    let size = list.layers[head.value].size;
    let first = project(x.reshape([n, size]), params, head.param);
    let of_slots = |value: usize| of(value).narrow(1, 1, slots);
    let columns = |start: usize, n: usize| first.clone().narrow(1, start, n);
    // Which slots are there, `[n, slots, 1]`, if not all are.
    let there = list.context.space.growing.then(|| tokens.there().narrow(1, 1, slots));
    let part = |part: &Part| match *part {
        Part::First { first, n, .. } => columns(first, n),
        Part::Slots { value, first, size, param, .. } => {
            let mut by_slot = project(of_slots(value), params, param);
            if let Some(start) = first {
                by_slot = by_slot + columns(start, slots).reshape([n, slots, 1]);
            }
            if let Some(there) = &there {
                by_slot = by_slot * there.clone();
            }
            by_slot.reshape([n, slots * size])
        }
        Part::Pairs { value, first, size, ordered, meet, relations, param, .. } => {
            let scores = match meet {
                Meet::Product => {
                    let [a, b] = [param, param + 2].map(|param| {
                        let maps = project(of_slots(value), params, param);
                        maps.reshape([n, slots, size, PAIR_RANK]).swap_dims(1, 2)
                    });
                    let scale = 1.0 / (PAIR_RANK as f64).sqrt();
                    let mut scores = a.matmul(b.swap_dims(2, 3)) * scale;
                    if !ordered {
                        scores = scores.clone() + scores.swap_dims(2, 3);
                    }
                    scores.swap_dims(1, 2).swap_dims(2, 3)
                }
                Meet::Sum => {
                    let width = list.layers[value].size / if ordered { 2 } else { 1 };
                    let to = if ordered { width } else { 0 };
                    let half = |start: usize| of_slots(value).narrow(2, start, width);
                    let sums = half(0).reshape([n, slots, 1, width])
                        + half(to).reshape([n, 1, slots, width]);
                    project(leaky_relu(sums, LEAK), params, param)
                }
            };
            // [n, slots, slots, size] to a number of all pairs each.
            let scores = scores.reshape([n, slots * slots, size]);
            let places: Vec<i32> =
                pairs(slots, ordered).map(|(i, j)| (i * slots + j) as i32).collect();
            let n_places = places.len();
            let of_pairs = |of_all: Tensor<3>| match ordered {
                true => of_all,
                false => of_all.select(1, upload_ints(places.clone(), tokens.observed.device)),
            };
            let mut by_pair = of_pairs(scores);
            if let Some(start) = first {
                by_pair = by_pair + columns(start, n_places).reshape([n, n_places, 1]);
            }
            if let Some(table) = relations {
                by_pair =
                    by_pair + linear(tokens.pair_relations(ordered), params[table].clone(), None);
            }
            if let Some(there) = &there {
                let both = there.clone() * there.clone().swap_dims(1, 2);
                by_pair = by_pair * of_pairs(both.reshape([n, slots * slots, 1]));
            }
            by_pair.reshape([n, n_places * size])
        }
    };
    Tensor::cat(head.parts.iter().map(part).collect(), 1)
}
