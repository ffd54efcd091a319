//! A network as a list of layers: what it computes, said once. Engines interpret the list: Burn on
//! every device, by hand on the CPU.

use gfn_core::KeyError;
use gfn_core::learn::head::{Head, TRUNK};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::heads::{HeadPlan, PAIR_RANK, Part};
use crate::network::{NetworkContext, ParamInit};

/// What a layer computes, from the values of earlier layers: these are numbered by their places in
/// the list. A value is a matrix with a row per state, or a row per *token* of a state: the first
/// token, which stands for the whole, then one for each slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// For each state, max(W x + b, 0) with x the sparse one-hot code of all observed cells.
    Sum {
        /// Number of features.
        size: usize,
    },
    /// For each token, the sum of a learned row for each feature that a slot has; a row of their own
    /// for slots without any, and for the first token. Slots that are told apart by their number get
    /// the sinusoidal position of Vaswani et al. 2017 (arXiv:1706.03762) besides.
    Embed {
        /// Number of features.
        size: usize,
    },
    /// W x + b.
    Linear {
        /// x.
        input: usize,
        /// Number of features.
        size: usize,
        /// Whether negative numbers become 0.
        rectify: bool,
    },
    /// Layer normalisation with gain and bias.
    Norm {
        /// What is normalised.
        input: usize,
    },
    /// Multi-head attention of all tokens of a state to each other. Where slots are related, each pair
    /// of tokens has a learned row by its relation that is added to the key, and one to the value
    /// (Shaw et al. 2018, arXiv:1803.02155).
    Attention {
        /// Queries, keys and values, side by side.
        input: usize,
        /// Number of heads.
        heads: usize,
    },
    /// The sum of two values.
    Add {
        /// One, that nothing else reads.
        left: usize,
        /// The other.
        right: usize,
    },
    /// Dropout, while a loss is computed.
    Drop {
        /// What is dropped from; nothing else reads it.
        input: usize,
        /// The number of this dropout among all of the network.
        place: usize,
    },
}

/// A layer in its list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The layer.
    pub layer: Layer,
    /// Features of its value.
    pub size: usize,
    /// The number of its first parameter: of a linear layer the weight, then the bias; of a norm gain
    /// and bias; of attention the rows of keys and those of values.
    pub param: usize,
    /// Its parameters are named by this.
    name: String,
    /// And belong to this group.
    group: String,
}

/// A network.
#[derive(Clone, Debug)]
pub struct LayerList {
    /// What it is built for.
    pub context: NetworkContext,
    /// The layers.
    pub layers: Vec<Listed>,
    /// How each head of the context is read off a value.
    pub heads: Vec<HeadPlan>,
    /// Probability with which [`Layer::Drop`] drops.
    pub dropout: f32,
    /// The action that P_F decides on before all others, if it does: P_F(stop|s) is the
    /// logistic function of its number, and all others share the rest by their softmax.
    pub stop_first: Option<usize>,
    n_params: usize,
}

/// How a parameter starts.
#[derive(Clone, Copy)]
enum Start {
    Constant(f32),
    /// Uniform between minus this and this.
    Uniform(f32),
}

impl LayerList {
    /// An empty list.
    pub fn new(context: NetworkContext) -> Self {
        Self {
            context,
            layers: Vec::new(),
            heads: Vec::new(),
            dropout: 0.0,
            stop_first: None,
            n_params: 0,
        }
    }

    /// Lets P_F decide whether to stop before it chooses among all other actions, if `first`.
    ///
    /// # Errors
    /// When no action finishes objects.
    pub fn decide_to_stop(&mut self, first: bool) -> Result<(), KeyError> {
        if !first {
            return Ok(());
        }
        self.stop_first = self.context.space.stop();
        match self.stop_first {
            Some(_) => Ok(()),
            None => Err(KeyError::new(
                "hierarchical_stop",
                "in this environment no action of its own finishes objects",
            )
            .help("leave the key out")),
        }
    }

    /// Adds a layer whose parameters belong to all heads; returns the number of its value.
    pub fn push(&mut self, name: impl Into<String>, layer: Layer) -> usize {
        self.push_of(TRUNK, name, layer)
    }

    /// Adds a layer whose parameters belong to one group; returns the number of its value.
    ///
    /// # Panics
    /// When a head has been read: parameters are numbered in the order of layers, then heads.
    pub fn push_of(&mut self, group: &str, name: impl Into<String>, layer: Layer) -> usize {
        assert!(self.heads.is_empty(), "layers come before heads");
        let of = |value: usize| self.layers[value].size;
        let size = match layer {
            Layer::Sum { size } | Layer::Embed { size } | Layer::Linear { size, .. } => size,
            Layer::Norm { input } | Layer::Drop { input, .. } => of(input),
            Layer::Add { left, .. } => of(left),
            Layer::Attention { input, .. } => of(input) / 3,
        };
        let (param, group) = (self.n_params, group.to_owned());
        self.layers.push(Listed { layer, size, param, name: name.into(), group });
        let value = self.layers.len() - 1;
        self.n_params += self.shapes_of(value).len();
        value
    }

    /// Reads the next head of the context off a value; with `zero` its outputs start at 0.
    pub fn read(&mut self, value: usize, zero: bool) {
        let head = self.context.heads[self.heads.len()];
        let tokens = self.is_by_token(value);
        let plan = HeadPlan::new(&self.context, head, value, tokens, zero, self.n_params);
        self.n_params += plan.n_params();
        self.heads.push(plan);
    }

    /// Whether a value has a row per token.
    pub fn is_by_token(&self, value: usize) -> bool {
        match self.layers[value].layer {
            Layer::Sum { .. } => false,
            Layer::Embed { .. } => true,
            Layer::Linear { input, .. }
            | Layer::Norm { input }
            | Layer::Attention { input, .. }
            | Layer::Drop { input, .. }
            | Layer::Add { left: input, .. } => self.is_by_token(input),
        }
    }

    /// Names, shapes and first values of the parameters of a layer.
    fn shapes_of(&self, value: usize) -> Vec<(&'static str, [usize; 2], Start)> {
        let Listed { layer, size, .. } = self.layers[value];
        let space = &self.context.space;
        let scale = |fan_in: usize| Start::Uniform(1.0 / (fan_in as f32).sqrt());
        match layer {
            Layer::Sum { .. } => {
                let start = scale(space.n_tokens());
                vec![(".weight", [space.n_tokens(), size], start), (".bias", [1, size], start)]
            }
            Layer::Embed { .. } => {
                let rows = self.context.n_embeddings() + 2;
                vec![("", [rows, size], Start::Uniform(3f32.sqrt()))]
            }
            Layer::Linear { input, .. } => {
                let fan_in = self.layers[input].size;
                let start = scale(fan_in);
                vec![(".weight", [fan_in, size], start), (".bias", [1, size], start)]
            }
            Layer::Norm { .. } => vec![
                (".weight", [1, size], Start::Constant(1.0)),
                (".bias", [1, size], Start::Constant(0.0)),
            ],
            Layer::Attention { .. } => match self.context.n_relations() {
                0 => Vec::new(),
                n => vec![(".keys", [n, size], scale(size)), (".values", [n, size], scale(size))],
            },
            Layer::Add { .. } | Layer::Drop { .. } => Vec::new(),
        }
    }

    /// Declares all parameters in order, with first values drawn from `rng`: weights and biases
    /// uniform in ±1/√fan_in, as PyTorch's linear layers start, embeddings uniform with unit variance.
    pub fn init(&self, rng: &mut ChaCha8Rng) -> Vec<ParamInit> {
        let mut params = Vec::with_capacity(self.n_params);
        let mut add = |name: String, group: &str, shape: [usize; 2], start: Start| {
            let n = shape[0] * shape[1];
            let values = match start {
                Start::Constant(value) => vec![value; n],
                Start::Uniform(bound) => (0..n).map(|_| rng.random_range(-bound..bound)).collect(),
            };
            params.push(ParamInit { name, group: group.to_owned(), shape, values });
        };
        for (value, Listed { name, group, .. }) in self.layers.iter().enumerate() {
            for (what, shape, start) in self.shapes_of(value) {
                add(format!("{name}{what}"), group, shape, start);
            }
        }
        for plan in &self.heads {
            let (width, name) = (self.layers[plan.value].size, plan.head.name);
            let scale = Start::Uniform(1.0 / (width as f32).sqrt());
            let last = if plan.zero { Start::Constant(0.0) } else { scale };
            let mut linear = |what: &str, columns: usize, start: Start| {
                add(format!("{name}.{what}.weight"), name, [width, columns], start);
                add(format!("{name}.{what}.bias"), name, [1, columns], start);
            };
            linear("head", plan.n_first, last);
            for part in &plan.parts {
                match *part {
                    Part::First { .. } => {}
                    Part::Slots { name, size, .. } => linear(name, size, last),
                    Part::Pairs { name, size, .. } => {
                        linear(&format!("{name}.from"), size * PAIR_RANK, scale);
                        linear(&format!("{name}.to"), size * PAIR_RANK, last);
                    }
                }
            }
        }
        params
    }

    /// Number of weights of all layers and heads, as a number that cannot overflow.
    pub fn n_weights(&self) -> f64 {
        let of_layers = (0..self.layers.len()).flat_map(|value| self.shapes_of(value));
        let of_layers = of_layers.map(|(_, [rows, columns], _)| rows as f64 * columns as f64);
        let of_heads = self.heads.iter().map(|plan| {
            let width = self.layers[plan.value].size as f64;
            width * plan.parts.iter().fold(plan.n_first as f64, |sum, part| sum + part.columns())
        });
        of_layers.sum::<f64>() + of_heads.sum::<f64>()
    }

    /// The heads, in the order of the outputs.
    pub fn head_names(&self) -> &[Head] {
        &self.context.heads
    }
}
