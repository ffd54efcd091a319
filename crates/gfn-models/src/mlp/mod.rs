//! The multilayer perceptron of the papers.

mod native;

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::linear;
use gfn_core::dropout::Dropout;
use gfn_core::native::NativeNetwork;
use gfn_core::network::{Group, ModelAxis, Network, Outputs, ParamInit, Tokens, check_layout};
use gfn_core::registry::Kind;
use gfn_core::{KeyError, Layout};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check_size;

/// Settings of [`Mlp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlpSpec {
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Number of hidden layers, at least 1.
    pub layers: usize,
    /// Whether P_F, P_B and log F share the hidden layers, or have separate ones each.
    pub shared: bool,
    /// Whether the output layer of P_B starts at zero, so that P_B starts uniform.
    pub zero_init_backward: bool,
}

impl Default for MlpSpec {
    fn default() -> Self {
        Self { hidden: 256, layers: 2, shared: true, zero_init_backward: true }
    }
}

impl Kind<ModelAxis> for MlpSpec {
    const NAME: &'static str = "mlp";
    const SUMMARY: &'static str = "multilayer perceptron with ReLU, shared or separate trunks";

    fn build(&self, layout: Layout) -> Result<Box<dyn Network>, KeyError> {
        check_layout(&layout)?;
        for (key, value) in [("hidden", self.hidden), ("layers", self.layers)] {
            if value == 0 {
                return Err(KeyError::new(key, "must be at least 1"));
            }
        }
        let trunks = if self.shared { 1.0 } else { HEADS.len() as f64 };
        let (hidden, inputs) = (self.hidden as f64, layout.n_tokens as f64);
        let heads = hidden * (layout.n_actions + layout.n_back_actions + 1) as f64;
        let weights = trunks * hidden * (inputs + hidden * (self.layers - 1) as f64) + heads;
        check_size(self.layers, "hidden", weights)?;
        Ok(Box::new(Mlp { spec: self.clone(), layout }))
    }
}

/// Hidden layers with ReLU over the one-hot code of the observation, and one linear output each
/// for P_F, P_B and log F.
///
/// The first layer sums the weight rows of the active tokens, which equals multiplying by the
/// dense one-hot vector. With shared layers the three outputs are computed by one matrix
/// product. Weights and biases start uniform in ±1/√fan_in, as PyTorch's linear layers do, with
/// the fan-in of the dense one-hot code.
pub struct Mlp {
    spec: MlpSpec,
    layout: Layout,
}

/// The outputs: name, and group where the trunk is shared.
const HEADS: [(&str, Group); 3] =
    [("forward", Group::Forward), ("backward", Group::Backward), ("flow", Group::Forward)];

impl Mlp {
    fn head_sizes(&self) -> [usize; 3] {
        [self.layout.n_actions, self.layout.n_back_actions, 1]
    }

    /// The hidden layers from `params`, starting with the sparse first one.
    fn trunk(&self, params: &[Tensor<2>], tokens: &Tokens) -> Tensor<2> {
        let (weight, bias) = (params[0].clone(), params[1].clone());
        let hidden = self.spec.hidden;
        let table = if tokens.padded {
            // Empty slots read a row of zeros.
            let zeros = Tensor::zeros([1, hidden], &weight.device());
            Tensor::cat(vec![weight, zeros], 0)
        } else {
            weight
        };
        let rows = table.select(0, tokens.ids.clone());
        let sum = rows.reshape([tokens.n, tokens.n_active, hidden]).sum_dim(1);
        let mut x = relu(sum.reshape([tokens.n, hidden]) + bias);
        for layer in params[2..].chunks_exact(2) {
            let bias = layer[1].clone().reshape([hidden]);
            x = relu(linear(x, layer[0].clone(), Some(bias)));
        }
        x
    }
}

impl Network for Mlp {
    fn init(&self, rng: &mut ChaCha8Rng) -> Vec<ParamInit> {
        let MlpSpec { hidden, layers, shared, zero_init_backward } = self.spec;
        let mut params = Vec::new();
        let mut layer = |name: String, group, [fan_in, fan_out]: [usize; 2], zero: bool| {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let mut uniform = |n: usize| -> Vec<f32> {
                (0..n).map(|_| if zero { 0.0 } else { rng.random_range(-bound..bound) }).collect()
            };
            let (weight, bias) = (uniform(fan_in * fan_out), uniform(fan_out));
            let shape = [fan_in, fan_out];
            params.push(ParamInit { name: format!("{name}.weight"), group, shape, values: weight });
            let shape = [1, fan_out];
            params.push(ParamInit { name: format!("{name}.bias"), group, shape, values: bias });
        };
        let trunks: &[(&str, Group)] = if shared { &[("trunk", Group::Trunk)] } else { &HEADS };
        for &(name, group) in trunks {
            for i in 0..layers {
                let fan_in = if i == 0 { self.layout.n_tokens } else { hidden };
                let name = if shared { format!("trunk.{i}") } else { format!("{name}.trunk.{i}") };
                layer(name, group, [fan_in, hidden], false);
            }
        }
        for ((name, group), size) in HEADS.into_iter().zip(self.head_sizes()) {
            let zero = zero_init_backward && group == Group::Backward;
            layer(format!("{name}.head"), group, [hidden, size], zero);
        }
        params
    }

    fn forward(&self, params: &[Tensor<2>], tokens: &Tokens, _: Option<Dropout>) -> Outputs {
        let per_trunk = 2 * self.spec.layers;
        let n_trunks = if self.spec.shared { 1 } else { HEADS.len() };
        let heads = &params[n_trunks * per_trunk..][..2 * HEADS.len()];
        let [na, nb, nf] = self.head_sizes();
        let [forward, backward, flow] = if self.spec.shared {
            let x = self.trunk(&params[..per_trunk], tokens);
            let part =
                |which: usize| (0..HEADS.len()).map(|h| heads[2 * h + which].clone()).collect();
            let weight = Tensor::cat(part(0), 1);
            let bias = Tensor::cat(part(1), 1).reshape([na + nb + nf]);
            let merged = linear(x, weight, Some(bias));
            [
                merged.clone().narrow(1, 0, na),
                merged.clone().narrow(1, na, nb),
                merged.narrow(1, na + nb, nf),
            ]
        } else {
            std::array::from_fn(|h| {
                let x = self.trunk(&params[h * per_trunk..(h + 1) * per_trunk], tokens);
                let bias = heads[2 * h + 1].clone().reshape([self.head_sizes()[h]]);
                linear(x, heads[2 * h].clone(), Some(bias))
            })
        };
        Outputs { forward, backward, log_flow: flow.reshape([tokens.n]) }
    }

    fn native(&self) -> Option<Box<dyn NativeNetwork>> {
        Some(Box::new(native::NativeMlp::new(self)))
    }
}
