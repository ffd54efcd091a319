//! A transformer encoder over the tokens of an observation.

mod attention;
mod native;
mod norm;

use burn::tensor::activation::{relu, softmax};
use burn::tensor::module::linear;
use burn::tensor::{Int, Tensor, TensorData};
use gfn_core::learn::head::{Head, HeadSize, TRUNK};
use gfn_core::registry::Kind;
use gfn_core::{Direction, KeyError};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check_size;
use crate::dropout::Dropout;
use crate::engine::native::NativeNetwork;
use crate::network::{ModelAxis, Network, NetworkContext, ParamInit, Tokens, check_space};

/// Where layers are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// After each residual sum, as in the first transformers and the papers.
    #[default]
    Post,
    /// Before attention and feed-forward, and once after the last layer.
    Pre,
}

/// Settings of [`Transformer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerSpec {
    /// Number of features per token; a multiple of `heads`.
    pub width: usize,
    /// Number of layers, at least 1.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward part.
    pub feed_forward: usize,
    /// Where layers are normalised.
    pub norm: NormPlace,
    /// Probability with which losses drop activations: embeddings, hidden units and the outputs of
    /// attention and feed-forward. Rollouts and evaluations drop nothing. The papers use 0.1.
    pub dropout: f32,
    /// Whether the output layer of P_B starts at zero, so that P_B starts uniform.
    pub zero_init_backward: bool,
}

impl Default for TransformerSpec {
    fn default() -> Self {
        Self {
            width: 64,
            layers: 3,
            heads: 8,
            feed_forward: 64,
            norm: NormPlace::Post,
            dropout: 0.0,
            zero_init_backward: true,
        }
    }
}

/// Beyond this, attention over all pairs of tokens is not what anybody wants to wait for.
const MAX_TOKENS: usize = 1024;

impl Kind<ModelAxis> for TransformerSpec {
    const NAME: &'static str = "transformer";
    const SUMMARY: &'static str =
        "transformer encoder over observed tokens, heads on a first token";

    fn build(&self, context: NetworkContext) -> Result<Box<dyn Network>, KeyError> {
        check_space(&context.space)?;
        let sizes = [
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
        ];
        for (key, value) in sizes {
            if value == 0 {
                return Err(KeyError::new(key, "must be at least 1"));
            }
            if value > 1 << 14 {
                return Err(KeyError::new(key, format!("{value} is more than fits into memory")));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("{} is not a multiple of heads = {}", self.width, self.heads);
            return Err(KeyError::new("width", message)
                .help("every head sees width / heads features; the papers use 64 and 8"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let message = format!("a probability from 0 to below 1, not {}", self.dropout);
            return Err(KeyError::new("dropout", message));
        }
        if context.space.n_cells() >= MAX_TOKENS {
            let message = format!("{} tokens per state are too many", context.space.n_cells());
            return Err(KeyError::new("kind", message).help("use `mlp`"));
        }
        let [width, hidden] = [self.width, self.feed_forward].map(|size| size as f64);
        let per_layer = width * (4.0 * width + 2.0 * hidden);
        let ends = context.space.n_tokens() + context.width();
        check_size(self.layers, "width", self.layers as f64 * per_layer + width * ends as f64)?;
        Ok(Box::new(Transformer { spec: self.clone(), context }))
    }
}

/// A transformer encoder (Vaswani et al. 2017, arXiv:1706.03762) with ReLU.
///
/// The tokens of an observation, in their slots, follow a first token of its own; an empty slot
/// has an embedding too. Sinusoidal positions are added. Heads are linear in the features of the
/// first token. Where actions put symbols into slots
/// ([`Layout::symbols_per_slot`](gfn_core::Layout::symbols_per_slot)), the number that a head gives to a forward action is the sum of one for
/// the slot, from the first token, and one for the symbol, from the token of the slot, by a linear map that all slots
/// share (Tiapkin et al. 2024, arXiv:2310.12934). Weights and biases start uniform in ±1/√fan_in, embeddings
/// uniform with unit variance.
pub struct Transformer {
    spec: TransformerSpec,
    context: NetworkContext,
}

/// Parameters per layer, by their position in it.
const PER_LAYER: usize = 12;
const ATTENTION_IN: usize = 0;
const ATTENTION_OUT: usize = 2;
const NORM_1: usize = 4;
const EXPAND: usize = 6;
const CONTRACT: usize = 8;
const NORM_2: usize = 10;

/// Added to variances before the square root.
const EPSILON: f32 = 1e-5;

impl Transformer {
    /// Tokens per state, the first one included.
    fn n_positions(&self) -> usize {
        self.context.space.n_cells() + 1
    }

    /// Whether a head gives numbers to symbols in slots.
    fn is_by_slot(&self, head: Head) -> bool {
        self.context.symbols() > 0 && head.size == HeadSize::Actions(Direction::Forward)
    }

    /// Outputs that are read off the first token, by head.
    fn head_sizes(&self) -> Vec<usize> {
        let size = |&head: &Head| match self.is_by_slot(head) {
            true => self.context.space.n_cells(),
            false => self.context.size(head),
        };
        self.context.heads.iter().map(size).collect()
    }

    /// sin and cos of position / 10000^(2i / width), interleaved: `[n_positions, width]`.
    fn positions(&self) -> Vec<f32> {
        let width = self.spec.width;
        let at = |position: usize, feature: usize| {
            let exponent = (feature - feature % 2) as f64 / width as f64;
            let angle = position as f64 / 10000f64.powf(exponent);
            (if feature.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
        };
        (0..self.n_positions()).flat_map(|p| (0..width).map(move |f| at(p, f))).collect()
    }

    /// Index of the first parameter after the layers.
    fn after_layers(&self) -> usize {
        1 + PER_LAYER * self.spec.layers
    }

    /// Index of the first head's weight.
    fn first_head(&self) -> usize {
        self.after_layers() + if self.spec.norm == NormPlace::Pre { 2 } else { 0 }
    }

    /// Multi-head self-attention of `[n, t, width]`.
    fn attention(&self, layer: &[Tensor<2>], x: Tensor<3>) -> Tensor<3> {
        let [n, t, width] = x.dims();
        let heads = self.spec.heads;
        let size = width / heads;
        let qkv = project(x, layer, ATTENTION_IN);
        let [q, k, v] = [0, 1, 2].map(|i| {
            let part = qkv.clone().narrow(2, i * width, width);
            part.reshape([n, t, heads, size]).swap_dims(1, 2)
        });
        let scores = q.matmul(k.swap_dims(2, 3)) * (1.0 / (size as f64).sqrt());
        let mixed = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([n, t, width]);
        project(mixed, layer, ATTENTION_OUT)
    }

    fn feed_forward(&self, layer: &[Tensor<2>], x: Tensor<3>, drop: Drop, i: usize) -> Tensor<3> {
        let hidden = drop.apply(dropped_hidden(i), relu(project(x, layer, EXPAND)));
        drop.apply(dropped_output(i), project(hidden, layer, CONTRACT))
    }
}

/// Name of the parameters that give symbols their numbers: P_F's had it before others came.
fn symbol_head(head: Head) -> String {
    match head {
        Head::FORWARD => "symbols.head".to_owned(),
        _ => format!("{}.symbols.head", head.name),
    }
}

/// Where dropout is applied, by number: the embeddings, and three places per layer.
const DROPPED_EMBEDDING: usize = 0;

fn dropped_attention(layer: usize) -> usize {
    1 + 3 * layer
}

fn dropped_hidden(layer: usize) -> usize {
    2 + 3 * layer
}

fn dropped_output(layer: usize) -> usize {
    3 + 3 * layer
}

/// Dropout of tensors, if any.
#[derive(Clone, Copy)]
struct Drop(Option<Dropout>);

impl Drop {
    fn apply(self, place: usize, x: Tensor<3>) -> Tensor<3> {
        let Some(dropout) = self.0 else { return x };
        let [n, t, size] = x.dims();
        let mut mask = vec![1.0f32; n * t * size];
        dropout.apply(place, t, size, 0.., &mut mask);
        let mask = Tensor::from_data(TensorData::new(mask, [n, t, size]), &x.device());
        x * mask
    }
}

/// A linear map by the weight and bias at `index`.
fn project(x: Tensor<3>, layer: &[Tensor<2>], index: usize) -> Tensor<3> {
    let [_, size] = layer[index].dims();
    linear(x, layer[index].clone(), Some(layer[index + 1].clone().reshape([size])))
}

/// Layer normalisation by the gain and bias at `index`.
fn normalise(x: Tensor<3>, layer: &[Tensor<2>], index: usize) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let gain = layer[index].clone().unsqueeze::<3>();
    centred / (variance + EPSILON).sqrt() * gain + layer[index + 1].clone().unsqueeze::<3>()
}

impl Network for Transformer {
    fn init(&self, rng: &mut ChaCha8Rng) -> Vec<ParamInit> {
        let TransformerSpec { width, layers, feed_forward, zero_init_backward, .. } = self.spec;
        let mut params = Vec::new();
        let mut add = |name: String, group: &str, shape: [usize; 2], bound: f32| {
            let n = shape[0] * shape[1];
            let values = match bound {
                0.0 => vec![0.0; n],
                _ => (0..n).map(|_| rng.random_range(-bound..bound)).collect(),
            };
            params.push(ParamInit { name, group: group.to_owned(), shape, values });
        };
        add("embedding".into(), TRUNK, [self.context.space.n_tokens() + 2, width], 3f32.sqrt());
        let scale = |fan_in: usize| 1.0 / (fan_in as f32).sqrt();
        for i in 0..layers {
            let mut linear = |name: &str, fan_in: usize, fan_out: usize| {
                let (name, bound) = (format!("layers.{i}.{name}"), scale(fan_in));
                add(format!("{name}.weight"), TRUNK, [fan_in, fan_out], bound);
                add(format!("{name}.bias"), TRUNK, [1, fan_out], bound);
            };
            linear("attention.in", width, 3 * width);
            linear("attention.out", width, width);
            add(format!("layers.{i}.norm1.weight"), TRUNK, [1, width], 0.0);
            add(format!("layers.{i}.norm1.bias"), TRUNK, [1, width], 0.0);
            let mut linear = |name: &str, fan_in: usize, fan_out: usize| {
                let (name, bound) = (format!("layers.{i}.{name}"), scale(fan_in));
                add(format!("{name}.weight"), TRUNK, [fan_in, fan_out], bound);
                add(format!("{name}.bias"), TRUNK, [1, fan_out], bound);
            };
            linear("feed_forward.in", width, feed_forward);
            linear("feed_forward.out", feed_forward, width);
            add(format!("layers.{i}.norm2.weight"), TRUNK, [1, width], 0.0);
            add(format!("layers.{i}.norm2.bias"), TRUNK, [1, width], 0.0);
        }
        if self.spec.norm == NormPlace::Pre {
            add("norm.weight".into(), TRUNK, [1, width], 0.0);
            add("norm.bias".into(), TRUNK, [1, width], 0.0);
        }
        for (&head, size) in self.context.heads.iter().zip(self.head_sizes()) {
            let zero = zero_init_backward && head == Head::BACKWARD;
            let bound = if zero { 0.0 } else { scale(width) };
            add(format!("{}.head.weight", head.name), head.name, [width, size], bound);
            add(format!("{}.head.bias", head.name), head.name, [1, size], bound);
        }
        let symbols = self.context.symbols();
        for &head in self.context.heads.iter().filter(|&&head| self.is_by_slot(head)) {
            let (name, bound) = (symbol_head(head), scale(width));
            add(format!("{name}.weight"), head.name, [width, symbols], bound);
            add(format!("{name}.bias"), head.name, [1, symbols], bound);
        }
        for param in &mut params {
            if param.name.contains("norm") && param.name.ends_with("weight") {
                param.values.fill(1.0);
            }
        }
        params
    }

    fn dropout(&self) -> f32 {
        self.spec.dropout
    }

    fn forward(
        &self,
        params: &[Tensor<2>],
        tokens: &Tokens,
        dropout: Option<Dropout>,
        asked: &[bool],
    ) -> Vec<Option<Tensor<2>>> {
        let drop = Drop(dropout);
        let TransformerSpec { width, layers, norm, .. } = self.spec;
        let (n, t) = (tokens.n, self.n_positions());
        let embedding = params[0].clone();
        let device = embedding.device();
        let first = Tensor::<1, Int>::full([n], self.context.space.n_tokens() as i64 + 1, &device);
        let first = embedding.clone().select(0, first).reshape([n, 1, width]);
        let rest = embedding.select(0, tokens.ids.clone()).reshape([n, t - 1, width]);
        let positions = TensorData::new(self.positions(), [1, t, width]);
        let mut x = Tensor::cat(vec![first, rest], 1) + Tensor::<3>::from_data(positions, &device);
        x = drop.apply(DROPPED_EMBEDDING, x);
        let by_layer = params[1..][..PER_LAYER * layers].chunks_exact(PER_LAYER);
        for (i, layer) in by_layer.enumerate() {
            let attend = |x| drop.apply(dropped_attention(i), self.attention(layer, x));
            x = match norm {
                NormPlace::Post => {
                    let x = normalise(x.clone() + attend(x), layer, NORM_1);
                    normalise(x.clone() + self.feed_forward(layer, x, drop, i), layer, NORM_2)
                }
                NormPlace::Pre => {
                    let x = x.clone() + attend(normalise(x, layer, NORM_1));
                    x.clone() + self.feed_forward(layer, normalise(x, layer, NORM_2), drop, i)
                }
            };
        }
        if norm == NormPlace::Pre {
            x = normalise(x, params, self.after_layers());
        }
        let tokens = x.clone();
        let x = x.narrow(1, 0, 1).reshape([n, width]);
        let of_heads = &params[self.first_head()..];
        let symbols = self.context.symbols();
        let mut symbol_head = 2 * self.context.heads.len();
        let each = self.context.heads.iter().zip(self.head_sizes()).enumerate();
        each.map(|(h, (&head, size))| {
            let of_symbols = symbol_head;
            if self.is_by_slot(head) {
                symbol_head += 2;
            }
            asked[h].then(|| {
                let bias = of_heads[2 * h + 1].clone().reshape([size]);
                let on_first = linear(x.clone(), of_heads[2 * h].clone(), Some(bias));
                if !self.is_by_slot(head) {
                    return on_first;
                }
                let slots = tokens.clone().narrow(1, 1, t - 1);
                let by_symbol = project(slots, of_heads, of_symbols);
                let sum = on_first.reshape([n, t - 1, 1]) + by_symbol;
                sum.reshape([n, (t - 1) * symbols])
            })
        })
        .collect()
    }

    fn native(&self) -> Option<Box<dyn NativeNetwork>> {
        // By hand, only the first head may give numbers to symbols in slots.
        let others = self.context.heads.get(1..)?;
        if others.iter().any(|&head| self.is_by_slot(head)) {
            return None;
        }
        Some(Box::new(native::NativeTransformer::new(self)))
    }
}
