//! Networks and their parameters: pure functions over a list of named, grouped tensors.
//!
//! A [`Network`] says which parameters it has and maps observations to [`Outputs`]; the values
//! live in a [`Model`], outside the network. Optimisers, target copies and checkpoints therefore
//! handle one flat list and know nothing about architectures.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;

use crate::registry::Axis;
use crate::{Environment, KeyError, Layout, NO_TOKEN, States};

/// Which updates may change a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Shared by P_F, P_B and log F: changed by the objective and by P_B's own loss.
    Trunk,
    /// Of P_F or log F only.
    Forward,
    /// Of P_B only.
    Backward,
    /// The scalar log Z.
    LogZ,
}

/// A parameter as a network declares it. Vectors are rows: shape `[1, n]`.
#[derive(Clone, Debug)]
pub struct ParamInit {
    /// Unique name, also in checkpoints.
    pub name: String,
    /// Which updates may change it.
    pub group: Group,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Initial values, row-major.
    pub values: Vec<f32>,
}

/// Observations of `n` states on a device.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `n * n_active` token ids, row-major; an empty slot holds `n_tokens`.
    pub ids: Tensor<1, Int>,
    /// Number of states.
    pub n: usize,
    /// Token slots per state.
    pub n_active: usize,
    /// Whether some slot is empty.
    pub padded: bool,
}

impl Tokens {
    /// Observes every row of `states` and uploads the result.
    pub fn observe(env: &dyn Environment, states: &States, device: &Device) -> Self {
        let layout = env.layout();
        let mut ids = vec![0i32; states.len() * layout.n_active];
        for (row, slots) in states.rows().zip(ids.chunks_exact_mut(layout.n_active.max(1))) {
            env.observe(row, slots);
        }
        let mut padded = false;
        for id in &mut ids {
            if *id == NO_TOKEN {
                *id = layout.n_tokens as i32;
                padded = true;
            }
        }
        Self { ids: upload_ints(ids, device), n: states.len(), n_active: layout.n_active, padded }
    }
}

/// Integers as a tensor.
pub(crate) fn upload_ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// What a network computes for each of `n` states.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Logits of P_F, `[n, n_actions]`, unmasked.
    pub forward: Tensor<2>,
    /// Logits of P_B, `[n, n_back_actions]`, unmasked.
    pub backward: Tensor<2>,
    /// log F, `[n]`.
    pub log_flow: Tensor<1>,
}

/// An architecture for P_F, P_B and log F.
pub trait Network: Send + Sync {
    /// Declares the parameters, initialised from `rng`.
    fn init(&self, rng: &mut ChaCha8Rng) -> Vec<ParamInit>;

    /// Evaluates states. `params` are the values of [`init`](Self::init)'s list, in its order.
    fn forward(&self, params: &[Tensor<2>], tokens: &Tokens) -> Outputs;
}

/// The `model` axis; networks are built for a layout.
pub struct ModelAxis;
impl Axis for ModelAxis {
    const NAME: &'static str = "model";
    type Product = dyn Network;
    type Context<'a> = Layout;
}

/// What is known of a parameter besides its value.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// See [`ParamInit::name`].
    pub name: String,
    /// See [`ParamInit::group`].
    pub group: Group,
    /// See [`ParamInit::shape`].
    pub shape: [usize; 2],
}

/// The parameters as a Burn module.
#[derive(Module, Debug)]
pub struct Params {
    tensors: Vec<Param<Tensor<2>>>,
}

/// A network with its parameters on a device, tracked by autodiff, and log Z.
pub struct Model {
    network: Box<dyn Network>,
    infos: Vec<ParamInfo>,
    params: Params,
    device: Device,
}

/// Name of the parameter log Z.
pub const LOG_Z: &str = "log_z";

impl Model {
    /// Initialises `network` on `device` (without autodiff; the model adds it).
    pub fn new(
        network: Box<dyn Network>,
        rng: &mut ChaCha8Rng,
        log_z: f64,
        device: &Device,
    ) -> Self {
        let mut inits = network.init(rng);
        inits.push(ParamInit {
            name: LOG_Z.to_owned(),
            group: Group::LogZ,
            shape: [1, 1],
            values: vec![log_z as f32],
        });
        let device = device.clone();
        let mut model =
            Self { network, infos: Vec::new(), params: Params { tensors: Vec::new() }, device };
        for (i, init) in inits.into_iter().enumerate() {
            let data = TensorData::new(init.values, init.shape);
            let tensor = Tensor::from_data(data, &model.device);
            model.params.tensors.push(model.tracked(i, tensor));
            let ParamInit { name, group, shape, .. } = init;
            model.infos.push(ParamInfo { name, group, shape });
        }
        model
    }

    fn tracked(&self, i: usize, tensor: Tensor<2>) -> Param<Tensor<2>> {
        let tensor = Tensor::from_inner(tensor).require_grad();
        Param::initialized(ParamId::from(i as u64 + 1), tensor)
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names, groups and shapes of all parameters; log Z is the last.
    pub fn infos(&self) -> &[ParamInfo] {
        &self.infos
    }

    /// The architecture.
    pub fn network(&self) -> &dyn Network {
        &*self.network
    }

    /// Parameter `i`, tracked by autodiff.
    pub fn param(&self, i: usize) -> Tensor<2> {
        self.params.tensors[i].val()
    }

    /// Replaces the value of parameter `i` by an untracked tensor of the same shape.
    pub fn set_param(&mut self, i: usize, tensor: Tensor<2>) {
        self.params.tensors[i] = self.tracked(i, tensor);
    }

    /// The current values, without autodiff, log Z included.
    pub fn values(&self) -> Vec<Tensor<2>> {
        self.params.tensors.iter().map(|param| param.val().inner()).collect()
    }

    /// Evaluates states with gradients to the parameters.
    pub fn outputs(&self, tokens: &Tokens) -> Outputs {
        let params: Vec<_> = self.params.tensors.iter().map(Param::val).collect();
        self.network.forward(&params, tokens)
    }

    /// The parameter log Z, `[1]`, tracked.
    pub fn log_z(&self) -> Tensor<1> {
        self.param(self.infos.len() - 1).reshape([1])
    }

    /// Number of scalars in all parameters.
    pub fn n_params(&self) -> usize {
        self.infos.iter().map(|info| info.shape[0] * info.shape[1]).sum()
    }
}

/// Checks that a network can be built for a layout at all.
///
/// # Errors
/// When an environment offers nothing to observe.
pub fn check_layout(layout: &Layout) -> Result<(), KeyError> {
    if layout.n_active == 0 || layout.n_tokens == 0 {
        return Err(KeyError::part("this network needs an environment that observes tokens"));
    }
    Ok(())
}
