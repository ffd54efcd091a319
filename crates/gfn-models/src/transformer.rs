//! A transformer encoder over the tokens of an observation.

use gfn_core::KeyError;
use gfn_core::learn::head::Head;
use gfn_core::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layers::{Layer, LayerList};
use crate::network::{ModelAxis, NetworkContext, check_space};
use crate::{check_size, check_sizes, check_slots};

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

/// A transformer encoder (Vaswani et al. 2017, arXiv:1706.03762) with ReLU over the slots of a state,
/// after a first token that stands for the whole.
///
/// Relations of slots enter attention (see [`Layer::Attention`]); heads are read by the blocks of the
/// space: numbers of the whole off the first token, those of slots and pairs off theirs (see
/// [`Part`](crate::heads::Part)).
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
    /// Whether P_F first decides, by the logistic function of one number, whether to stop, and then
    /// chooses among all other actions; else all actions share one softmax.
    pub hierarchical_stop: bool,
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
            hierarchical_stop: false,
        }
    }
}

impl Kind<ModelAxis> for TransformerSpec {
    const NAME: &'static str = "transformer";
    const SUMMARY: &'static str =
        "transformer encoder over slots and their relations, heads on the tokens they belong to";

    fn build(&self, context: NetworkContext) -> Result<Box<LayerList>, KeyError> {
        check_space(&context.space)?;
        let sizes = [
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
        ];
        check_sizes(&sizes)?;
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("{} is not a multiple of heads = {}", self.width, self.heads);
            return Err(KeyError::new("width", message)
                .help("every head sees width / heads features; the papers use 64 and 8"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let message = format!("a probability from 0 to below 1, not {}", self.dropout);
            return Err(KeyError::new("dropout", message));
        }
        check_slots(&context.space)?;
        // Before anything is made that might not fit into memory.
        let [width, hidden] = [self.width, self.feed_forward].map(|size| size as f64);
        let per_layer = width * (4.0 * width + 2.0 * hidden);
        check_size(self.layers, "width", self.layers as f64 * per_layer)?;
        let mut list = self.list(context);
        check_size(self.layers, "width", list.n_weights())?;
        list.decide_to_stop(self.hierarchical_stop)?;
        Ok(Box::new(list))
    }
}

impl TransformerSpec {
    pub(crate) fn list(&self, context: NetworkContext) -> LayerList {
        let Self { width, heads, norm, .. } = *self;
        let n_heads = context.heads.len();
        let mut list = LayerList::new(context);
        list.dropout = self.dropout;
        let mut places = 0;
        let mut drop = |list: &mut LayerList, input: usize| {
            places += 1;
            match self.dropout > 0.0 {
                true => list.push("", Layer::Drop { input, place: places - 1 }),
                false => input,
            }
        };
        let x = list.push("embedding", Layer::Embed { size: width });
        let mut x = drop(&mut list, x);
        for i in 0..self.layers {
            let name = |what: &str| format!("layers.{i}.{what}");
            let linear = |list: &mut LayerList, what: &str, input: usize, size: usize| {
                let rectify = what == "feed_forward.in";
                list.push(name(what), Layer::Linear { input, size, rectify, bias: true })
            };
            let input = match norm {
                NormPlace::Post => x,
                NormPlace::Pre => list.push(name("norm1"), Layer::Norm { input: x }),
            };
            let qkv = linear(&mut list, "attention.in", input, 3 * width);
            let mixed = list.push(name("relation"), Layer::Attention { input: qkv, heads });
            let mixed = linear(&mut list, "attention.out", mixed, width);
            let left = drop(&mut list, mixed);
            x = list.push("", Layer::Add { left, right: x });
            if norm == NormPlace::Post {
                x = list.push(name("norm1"), Layer::Norm { input: x });
            }
            let input = match norm {
                NormPlace::Post => x,
                NormPlace::Pre => list.push(name("norm2"), Layer::Norm { input: x }),
            };
            let hidden = linear(&mut list, "feed_forward.in", input, self.feed_forward);
            let hidden = drop(&mut list, hidden);
            let out = linear(&mut list, "feed_forward.out", hidden, width);
            let left = drop(&mut list, out);
            x = list.push("", Layer::Add { left, right: x });
            if norm == NormPlace::Post {
                x = list.push(name("norm2"), Layer::Norm { input: x });
            }
        }
        if norm == NormPlace::Pre {
            x = list.push("norm", Layer::Norm { input: x });
        }
        for head in 0..n_heads {
            let zero = self.zero_init_backward && list.context.heads[head] == Head::BACKWARD;
            list.read(x, zero);
        }
        list
    }
}
