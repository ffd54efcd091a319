//! The multilayer perceptron of the papers.

use gfn_core::KeyError;
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check_size;
use crate::layers::{Layer, LayerList};
use crate::network::{ModelAxis, NetworkContext, check_space};

/// Hidden layers with ReLU over the one-hot code of the observation, and one linear output for each
/// head.
///
/// The first layer sums the weight rows of the observed values, which equals multiplying by the dense
/// one-hot vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlpSpec {
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Number of hidden layers, at least 1.
    pub layers: usize,
    /// Whether P_F, P_B, log F and other heads share the hidden layers, or have separate ones each.
    pub shared: bool,
    /// Whether the output layer of P_B starts at zero, so that P_B starts uniform.
    pub zero_init_backward: bool,
    /// Whether P_F first decides, by the logistic function of one number, whether to stop, and then
    /// chooses among all other actions; else all actions share one softmax.
    pub hierarchical_stop: bool,
}

impl Default for MlpSpec {
    fn default() -> Self {
        Self {
            hidden: 256,
            layers: 2,
            shared: true,
            zero_init_backward: true,
            hierarchical_stop: false,
        }
    }
}

impl Kind<ModelAxis> for MlpSpec {
    const NAME: &'static str = "mlp";
    const SUMMARY: &'static str = "multilayer perceptron with ReLU, shared or separate trunks";

    fn build(&self, context: NetworkContext) -> Result<Box<LayerList>, KeyError> {
        check_space(&context.space)?;
        for (key, value) in [("hidden", self.hidden), ("layers", self.layers)] {
            if value == 0 {
                return Err(KeyError::new(key, "must be at least 1"));
            }
        }
        let trunks = if self.shared { 1.0 } else { context.heads.len() as f64 };
        let (hidden, inputs) = (self.hidden as f64, context.space.n_tokens() as f64);
        let heads = hidden * context.width() as f64;
        let weights = trunks * hidden * (inputs + hidden * (self.layers - 1) as f64) + heads;
        check_size(self.layers, "hidden", weights)?;

        let heads = context.heads.clone();
        let mut list = LayerList::new(context);
        let size = self.hidden;
        let mut trunk = |group: &str, name: &str| {
            let mut x = list.push_of(group, format!("{name}.0"), Layer::Sum { size });
            for i in 1..self.layers {
                let layer = Layer::Linear { input: x, size, rectify: true, bias: true };
                x = list.push_of(group, format!("{name}.{i}"), layer);
            }
            x
        };
        let tops: Vec<usize> = if self.shared {
            vec![trunk(TRUNK, "trunk"); heads.len()]
        } else {
            let own = |head: &Head| trunk(head.name, &format!("{}.trunk", head.name));
            heads.iter().map(own).collect()
        };
        for (head, top) in heads.iter().zip(tops) {
            list.read(top, self.zero_init_backward && *head == Head::BACKWARD);
        }
        list.decide_to_stop(self.hierarchical_stop)?;
        Ok(Box::new(list))
    }
}
