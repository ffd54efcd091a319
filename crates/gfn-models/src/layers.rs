//! A network as a list of layers: what it computes, said once. Engines interpret the list: Burn on
//! every device, by hand on the CPU.

use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::{Block, KeyError};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::heads::{ByBlock, HeadPlan, Meet, PAIR_RANK, Part};
use crate::network::{NetworkContext, ParamInit};

/// What a layer computes, from the values of earlier layers: these are numbered by their places in
/// the list. A value is a matrix with a row per state, or a row per *token* of a state: the first
/// token, which stands for the whole, then one for each slot that is there (in a
/// [growing](gfn_core::Space::growing) space not all are). Or it has a row per kind of edge, whatever
/// the states are.
///
/// *Edges* make a graph of a state: they join two slots that have a relation, one edge kind for each, and
/// the first token to all slots. Tokens are neighbours of those that they are joined to, and of themselves.
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
        /// Whether there is a b.
        bias: bool,
    },
    /// LeakyReLU: max(x, x / 100).
    Leaky {
        /// x, which nothing else reads.
        input: usize,
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
    /// A learned row for each kind of edge between slots; then, for the edges of the first token, one that
    /// is 1 in its first place and 0 in all others.
    Edges {
        /// Number of features.
        size: usize,
    },
    /// All features of all tokens of a state less their mean, by √(variance + 1e-5): layer normalisation
    /// of a graph.
    Standardise {
        /// What is normalised.
        input: usize,
    },
    /// For each token i its own value and the sum of max(x_j + e, 0) + 1e-7 over its neighbours j, with e
    /// the row of the edge: GENConv of Li et al. 2020 (arXiv:2006.07739), which a linear map completes.
    /// The edge of a token to itself has the mean row of its other edges, 0 if there are none.
    Messages {
        /// x.
        input: usize,
        /// Rows of edges, of the same size.
        edges: usize,
    },
    /// Multi-head attention of tokens to their neighbours, with the row of the edge added to the key and
    /// to the value (Shi et al. 2021, arXiv:2009.03509). Edges of tokens to themselves are as in
    /// [`Messages`](Self::Messages).
    Neighbours {
        /// Queries, keys and values, side by side.
        input: usize,
        /// Rows of edges, of the size of a value.
        edges: usize,
        /// Number of heads.
        heads: usize,
    },
    /// For each state, the mean over the slots that are there (0 if none is), then the first token's row.
    Summary {
        /// What is summed up.
        input: usize,
    },
    /// Two values side by side.
    Concat {
        /// The first features.
        left: usize,
        /// The others.
        right: usize,
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

/// LeakyReLU's slope below 0.
pub(crate) const LEAK: f64 = 0.01;
/// Added to every message.
pub(crate) const MESSAGE_FLOOR: f64 = 1e-7;

/// A layer in its list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The layer.
    pub layer: Layer,
    /// Features of its value.
    pub size: usize,
    /// The number of its first parameter: of a linear layer the weight, then any bias; of a norm gain
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
            Layer::Sum { size }
            | Layer::Embed { size }
            | Layer::Edges { size }
            | Layer::Linear { size, .. } => size,
            Layer::Norm { input }
            | Layer::Leaky { input }
            | Layer::Standardise { input }
            | Layer::Messages { input, .. }
            | Layer::Drop { input, .. } => of(input),
            Layer::Add { left, .. } => of(left),
            Layer::Concat { left, right } => of(left) + of(right),
            Layer::Summary { input } => 2 * of(input),
            Layer::Attention { input, .. } | Layer::Neighbours { input, .. } => of(input) / 3,
        };
        let (param, group) = (self.n_params, group.to_owned());
        self.layers.push(Listed { layer, size, param, name: name.into(), group });
        let value = self.layers.len() - 1;
        self.n_params += self.shapes_of(value).len();
        value
    }

    /// Reads the next head of the context off a value; with `zero` its outputs start at 0.
    pub fn read(&mut self, value: usize, zero: bool) {
        let by_block = |_: &Block| (value, Meet::Product);
        let by_block = self.is_by_token(value).then_some(&by_block as ByBlock<'_>);
        self.add_head(value, by_block, zero);
    }

    /// Reads the next head of the context block by block: numbers of the whole off one value, with a row
    /// per state or token, those of slots and pairs off the value that is named for their block. With
    /// `zero` its outputs start at 0.
    pub fn read_by_block(
        &mut self,
        whole: usize,
        by_block: impl Fn(&Block) -> (usize, Meet),
        zero: bool,
    ) {
        self.add_head(whole, Some(&by_block), zero);
    }

    fn add_head(&mut self, value: usize, by_block: Option<ByBlock<'_>>, zero: bool) {
        let head = self.context.heads[self.heads.len()];
        let plan = HeadPlan::new(&self.context, head, value, by_block, zero, self.n_params);
        self.n_params += plan.n_params();
        self.heads.push(plan);
    }

    /// The number of the head whose group a layer belongs to, if it is not part of the trunk.
    pub fn head_of(&self, value: usize) -> Option<usize> {
        let group = &self.layers[value].group;
        self.context.heads.iter().position(|head| head.name == group)
    }

    /// Whether a value has a row per token.
    pub fn is_by_token(&self, value: usize) -> bool {
        match self.layers[value].layer {
            Layer::Sum { .. } | Layer::Edges { .. } | Layer::Summary { .. } => false,
            Layer::Embed { .. } => true,
            Layer::Linear { input, .. }
            | Layer::Leaky { input }
            | Layer::Norm { input }
            | Layer::Attention { input, .. }
            | Layer::Standardise { input }
            | Layer::Messages { input, .. }
            | Layer::Neighbours { input, .. }
            | Layer::Drop { input, .. }
            | Layer::Concat { left: input, .. }
            | Layer::Add { left: input, .. } => self.is_by_token(input),
        }
    }

    /// What a value is computed from: earlier ones.
    pub fn inputs(&self, value: usize) -> [Option<usize>; 2] {
        match self.layers[value].layer {
            Layer::Sum { .. } | Layer::Embed { .. } | Layer::Edges { .. } => [None; 2],
            Layer::Linear { input, .. }
            | Layer::Leaky { input }
            | Layer::Norm { input }
            | Layer::Attention { input, .. }
            | Layer::Standardise { input }
            | Layer::Summary { input }
            | Layer::Drop { input, .. } => [Some(input), None],
            Layer::Messages { input, edges } | Layer::Neighbours { input, edges, .. } => {
                [Some(input), Some(edges)]
            }
            Layer::Add { left, right } | Layer::Concat { left, right } => [Some(left), Some(right)],
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
            Layer::Linear { input, bias, .. } => {
                let fan_in = self.layers[input].size;
                let start = scale(fan_in);
                let mut shapes = vec![(".weight", [fan_in, size], start)];
                shapes.extend(bias.then_some((".bias", [1, size], start)));
                shapes
            }
            Layer::Edges { .. } => {
                vec![("", [self.context.n_edges() - 1, size], Start::Uniform(3f32.sqrt()))]
            }
            Layer::Norm { .. } => vec![
                (".weight", [1, size], Start::Constant(1.0)),
                (".bias", [1, size], Start::Constant(0.0)),
            ],
            Layer::Attention { .. } => match self.context.n_relations() {
                0 => Vec::new(),
                n => vec![(".keys", [n, size], scale(size)), (".values", [n, size], scale(size))],
            },
            Layer::Leaky { .. }
            | Layer::Standardise { .. }
            | Layer::Messages { .. }
            | Layer::Neighbours { .. }
            | Layer::Summary { .. }
            | Layer::Concat { .. }
            | Layer::Add { .. }
            | Layer::Drop { .. } => Vec::new(),
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
            let name = plan.head.name;
            let mut map = |what: &str, width: usize, columns: usize, last: bool, bias: bool| {
                let start = match last && plan.zero {
                    true => Start::Constant(0.0),
                    false => Start::Uniform(1.0 / (width as f32).sqrt()),
                };
                add(format!("{name}.{what}.weight"), name, [width, columns], start);
                if bias {
                    add(format!("{name}.{what}.bias"), name, [1, columns], start);
                }
            };
            map("head", self.layers[plan.value].size, plan.n_first, true, true);
            for part in &plan.parts {
                match *part {
                    Part::First { .. } => {}
                    Part::Slots { name, value, size, .. } => {
                        map(name, self.layers[value].size, size, true, true);
                    }
                    Part::Pairs { name, value, size, meet: Meet::Product, relations, .. } => {
                        let width = self.layers[value].size;
                        map(&format!("{name}.from"), width, size * PAIR_RANK, false, true);
                        map(&format!("{name}.to"), width, size * PAIR_RANK, true, true);
                        if relations.is_some() {
                            let n = self.context.n_pair_relations();
                            map(&format!("{name}.relations"), n, size, true, false);
                        }
                    }
                    Part::Pairs { name, value, size, meet: Meet::Sum, ordered, .. } => {
                        let width = self.layers[value].size / if ordered { 2 } else { 1 };
                        map(name, width, size, true, true);
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
            let width = |value: usize| self.layers[value].size as f64;
            let of_part = |part: &Part| part.columns() * width(part.value().unwrap_or(plan.value));
            width(plan.value) * plan.n_first as f64 + plan.parts.iter().map(of_part).sum::<f64>()
        });
        of_layers.sum::<f64>() + of_heads.sum::<f64>()
    }

    /// The heads, in the order of the outputs.
    pub fn head_names(&self) -> &[Head] {
        &self.context.heads
    }
}
