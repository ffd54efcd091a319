//! The multilayer perceptron of the papers.

mod native;

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::linear;
use gfn_core::KeyError;
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::registry::Kind;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check_size;
use crate::dropout::Dropout;
use crate::engine::native::NativeNetwork;
use crate::network::{ModelAxis, Network, NetworkContext, ParamInit, Tokens, check_space};

/// Settings of [`Mlp`].
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
}

impl Default for MlpSpec {
    fn default() -> Self {
        Self { hidden: 256, layers: 2, shared: true, zero_init_backward: true }
    }
}

impl Kind<ModelAxis> for MlpSpec {
    const NAME: &'static str = "mlp";
    const SUMMARY: &'static str = "multilayer perceptron with ReLU, shared or separate trunks";

    fn build(&self, context: NetworkContext) -> Result<Box<dyn Network>, KeyError> {
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
        Ok(Box::new(Mlp { spec: self.clone(), context }))
    }
}

/// Hidden layers with ReLU over the one-hot code of the observation, and one linear output for
/// each head.
///
/// The first layer sums the weight rows of the active tokens, which equals multiplying by the
/// dense one-hot vector. With shared layers all outputs are computed by one matrix
/// product. Weights and biases start uniform in ±1/√fan_in, as PyTorch's linear layers do, with
/// the fan-in of the dense one-hot code.
pub struct Mlp {
    spec: MlpSpec,
    context: NetworkContext,
}

impl Mlp {
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
        let mut layer = |name: String, group: &str, [fan_in, fan_out]: [usize; 2], zero: bool| {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let mut uniform = |n: usize| -> Vec<f32> {
                (0..n).map(|_| if zero { 0.0 } else { rng.random_range(-bound..bound) }).collect()
            };
            let (weight, bias) = (uniform(fan_in * fan_out), uniform(fan_out));
            for (what, shape, values) in
                [("weight", [fan_in, fan_out], weight), ("bias", [1, fan_out], bias)]
            {
                let (name, group) = (format!("{name}.{what}"), group.to_owned());
                params.push(ParamInit { name, group, shape, values });
            }
        };
        let heads = &self.context.heads;
        let trunks: Vec<&str> = match shared {
            true => vec![TRUNK],
            false => heads.iter().map(|head| head.name).collect(),
        };
        for group in trunks {
            for i in 0..layers {
                let fan_in = if i == 0 { self.context.space.n_tokens() } else { hidden };
                let name = match shared {
                    true => format!("trunk.{i}"),
                    false => format!("{group}.trunk.{i}"),
                };
                layer(name, group, [fan_in, hidden], false);
            }
        }
        for &head in heads {
            let zero = zero_init_backward && head == Head::BACKWARD;
            let shape = [hidden, self.context.size(head)];
            layer(format!("{}.head", head.name), head.name, shape, zero);
        }
        params
    }

    fn forward(
        &self,
        params: &[Tensor<2>],
        tokens: &Tokens,
        _: Option<Dropout>,
        asked: &[bool],
    ) -> Vec<Option<Tensor<2>>> {
        let NetworkContext { heads, .. } = &self.context;
        let per_trunk = 2 * self.spec.layers;
        let n_trunks = if self.spec.shared { 1 } else { heads.len() };
        let of_heads = &params[n_trunks * per_trunk..][..2 * heads.len()];
        if self.spec.shared {
            let x = self.trunk(&params[..per_trunk], tokens);
            let part =
                |which: usize| (0..heads.len()).map(|h| of_heads[2 * h + which].clone()).collect();
            let weight = Tensor::cat(part(0), 1);
            let bias = Tensor::cat(part(1), 1).reshape([self.context.width()]);
            let merged = linear(x, weight, Some(bias));
            let of = |(&head, &asked): (&Head, &bool)| {
                let columns = self.context.columns(head);
                asked.then(|| merged.clone().narrow(1, columns.start, columns.len()))
            };
            return heads.iter().zip(asked).map(of).collect();
        }
        let of = |(h, &head): (usize, &Head)| {
            asked[h].then(|| {
                let x = self.trunk(&params[h * per_trunk..(h + 1) * per_trunk], tokens);
                let bias = of_heads[2 * h + 1].clone().reshape([self.context.size(head)]);
                linear(x, of_heads[2 * h].clone(), Some(bias))
            })
        };
        heads.iter().enumerate().map(of).collect()
    }

    fn native(&self) -> Option<Box<dyn NativeNetwork>> {
        Some(Box::new(native::NativeMlp::new(self)))
    }
}
