//! A graph transformer: that of the papers on molecules, or a smaller one.

use gfn_core::learn::head::{Head, HeadSize};
use gfn_core::registry::Kind;
use gfn_core::space::Scope;
use gfn_core::{Block, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::heads::Meet;
use crate::layers::{Layer, LayerList};
use crate::network::{ModelAxis, NetworkContext, check_space};
use crate::transformer::{NormPlace, TransformerSpec};
use crate::{check_size, check_sizes, check_slots};

/// What the layers of a graph transformer are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Attention of all tokens to each other, with a learned row in keys and values by what two slots are
    /// to each other, and a feed-forward part, both normalised before: the model `transformer` with
    /// `norm = "pre"`, and its heads.
    #[default]
    Attention,
    /// That of the papers on molecules: messages of neighbours and attention to neighbours, with a
    /// perceptron for each block of actions.
    Papers,
}

/// A graph transformer over the slots of a state and their relations, after a first token that stands for
/// the whole and is joined to all.
///
/// The papers' network is that of recursionpharma/gflownet, which the QM9 experiments of Gritsaev et al.
/// 2025 (arXiv:2410.15474) use: `block = "papers"`, `layers = 8`, `width = 128`, `heads = 2`,
/// `feed_forward = 512`, `head_hidden = 128`. It is written here with fewer parameters for the same
/// functions, where it is given no condition on objects:
///
/// * the perceptron on the one-hot code of an edge's kind is a free row for each kind;
/// * the first layer on the one-hot codes of a node's features is the sum of a row for each, and the
///   embedding of the constant condition, where the first token starts, is that perceptron of a free row:
///   its square matrices can be inverted;
/// * scale and shift of a layer's output by the constant condition are part of the linear map before them;
/// * the first layer of a perceptron on the sum of two nodes is the sum of its maps of them.
///
/// So optimisers see other parameters than in the papers. Numbers of the whole share one perceptron per
/// head; in the papers the first atom is placed by the perceptron that places all others, on a node that
/// stands for the empty graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GraphTransformerSpec {
    /// What every layer is.
    pub block: BlockKind,
    /// Number of features per token; with `block = "attention"` a multiple of `heads`.
    pub width: usize,
    /// Number of layers, at least 1.
    pub layers: usize,
    /// Number of attention heads: of `width / heads` features each with `block = "attention"`, of `width`
    /// each with `block = "papers"`.
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward part.
    pub feed_forward: usize,
    /// Width of the hidden layer of the perceptrons of heads, with `block = "papers"`.
    pub head_hidden: usize,
    /// Whether the output layers of P_B start at zero, so that P_B starts uniform.
    pub zero_init_backward: bool,
    /// Whether P_F first decides, by the logistic function of one number, whether to stop, and then
    /// chooses among all other actions; else all actions share one softmax.
    pub hierarchical_stop: bool,
}

impl Default for GraphTransformerSpec {
    fn default() -> Self {
        Self {
            block: BlockKind::Attention,
            width: 64,
            layers: 3,
            heads: 4,
            feed_forward: 128,
            head_hidden: 64,
            zero_init_backward: true,
            hierarchical_stop: false,
        }
    }
}

impl Kind<ModelAxis> for GraphTransformerSpec {
    const NAME: &'static str = "graph_transformer";
    const SUMMARY: &'static str =
        "graph transformer over slots and their relations; or that of the papers on molecules";

    fn build(&self, context: NetworkContext) -> Result<Box<LayerList>, KeyError> {
        if self.block == BlockKind::Attention {
            return self.transformer().build(context);
        }
        check_space(&context.space)?;
        check_sizes(&[
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("head_hidden", self.head_hidden),
        ])?;
        check_slots(&context.space)?;
        if context.space.relation.is_none() {
            let message = "\"papers\" needs edges, and here slots have no relation";
            return Err(KeyError::new("block", message).help("use block = \"attention\""));
        }
        // Before anything is made that might not fit into memory.
        let [width, heads, hidden] =
            [self.width, self.heads, self.feed_forward].map(|size| size as f64);
        let per_layer = width * (width * (1.0 + 10.0 * heads) + 2.0 * hidden);
        check_size(self.layers, "width", self.layers as f64 * per_layer)?;
        let mut list = self.papers(context);
        check_size(self.layers, "width", list.n_weights())?;
        list.decide_to_stop(self.hierarchical_stop)?;
        Ok(Box::new(list))
    }
}

impl GraphTransformerSpec {
    fn transformer(&self) -> TransformerSpec {
        TransformerSpec {
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            feed_forward: self.feed_forward,
            norm: NormPlace::Pre,
            dropout: 0.0,
            zero_init_backward: self.zero_init_backward,
            hierarchical_stop: self.hierarchical_stop,
        }
    }

    fn papers(&self, context: NetworkContext) -> LayerList {
        let Self { width, heads, .. } = *self;
        let mut list = LayerList::new(context);
        let embedded = list.push("embedding", Layer::Embed { size: width });
        let hidden = list.push("", Layer::Leaky { input: embedded });
        let hidden = list.push("nodes.0", linear(hidden, width));
        let hidden = list.push("", Layer::Leaky { input: hidden });
        let mut x = list.push("nodes.1", linear(hidden, width));
        let edges = list.push("edges", Layer::Edges { size: width });
        for i in 0..self.layers {
            let name = |what: &str| format!("layers.{i}.{what}");
            let normal = list.push("", Layer::Standardise { input: x });
            let sent = list.push("", Layer::Messages { input: normal, edges });
            let sent = list.push(name("messages"), without_bias(sent, width));
            let both = list.push("", Layer::Concat { left: normal, right: sent });
            let qkv = list.push(name("attention.in"), linear(both, 3 * heads * width));
            let rows = list.push(name("attention.edges"), without_bias(edges, heads * width));
            let left = list.push("", Layer::Neighbours { input: qkv, edges: rows, heads });
            let right = list.push(name("attention.skip"), linear(both, heads * width));
            let mixed = list.push("", Layer::Add { left, right });
            let left = list.push(name("attention.out"), linear(mixed, width));
            x = list.push("", Layer::Add { left, right: x });
            let normal = list.push("", Layer::Standardise { input: x });
            let hidden = list.push(name("feed_forward.in"), linear(normal, self.feed_forward));
            let hidden = list.push("", Layer::Leaky { input: hidden });
            let left = list.push(name("feed_forward.out"), linear(hidden, width));
            x = list.push("", Layer::Add { left, right: x });
        }
        let summary = list.push("", Layer::Summary { input: x });
        let heads = list.context.heads.clone();
        let of_head = |&head: &Head| self.perceptrons(&mut list, head, summary, x);
        let perceptrons: Vec<_> = heads.iter().map(of_head).collect();
        for (head, (whole, by_block)) in heads.into_iter().zip(perceptrons) {
            let of = |block: &Block| {
                let named = by_block.iter().find(|(name, _)| *name == block.name);
                (named.expect("all blocks of slots and pairs have one").1, Meet::Sum)
            };
            list.read_by_block(whole, of, self.zero_init_backward && head == Head::BACKWARD);
        }
        list
    }

    /// The hidden layers of a head: for numbers of the whole, and of each block of slots or pairs. That of
    /// a pair of slots is rectified once they have met.
    fn perceptrons(
        &self,
        list: &mut LayerList,
        head: Head,
        summary: usize,
        x: usize,
    ) -> (usize, Vec<(&'static str, usize)>) {
        let (group, size) = (head.name, self.head_hidden);
        let blocks = match head.size {
            HeadSize::Actions(direction) => list.context.space.blocks(direction).to_vec(),
            _ => Vec::new(),
        };
        let mut hidden = |what: &str, input: usize, size: usize, rectified: bool| {
            let hidden = list.push_of(group, format!("{group}.hidden.{what}"), linear(input, size));
            match rectified {
                true => list.push_of(group, "", Layer::Leaky { input: hidden }),
                false => hidden,
            }
        };
        let whole = hidden("whole", summary, size, true);
        let mut by_block = Vec::new();
        for Block { name, scope, .. } in blocks {
            let value = match scope {
                Scope::Whole => continue,
                Scope::Slot(_) => hidden(name, x, size, true),
                Scope::Unordered => hidden(name, x, size, false),
                // That of the one and of the other slot, side by side.
                Scope::Ordered => hidden(name, x, 2 * size, false),
            };
            by_block.push((name, value));
        }
        (whole, by_block)
    }
}

/// W x + b.
fn linear(input: usize, size: usize) -> Layer {
    Layer::Linear { input, size, rectify: false, bias: true }
}

/// W x.
fn without_bias(input: usize, size: usize) -> Layer {
    Layer::Linear { input, size, rectify: false, bias: false }
}
