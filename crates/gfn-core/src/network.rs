//! Networks and their parameters: pure functions over a list of named, grouped tensors.
//!
//! A [`Network`] says which parameters it has and maps observations to [`Outputs`]; the values
//! live in a [`Model`](crate::model::Model), outside the network. Optimisers, target copies and checkpoints therefore
//! handle one flat list and know nothing about architectures.

use std::cell::OnceCell;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;

use crate::dropout::Dropout;
use crate::native::NativeNetwork;
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

/// Observations of `n` states, on the host and, once a device has asked for them, there.
#[derive(Clone, Debug)]
pub struct Observations {
    /// `n * n_active` token ids, row-major; [`NO_TOKEN`] in empty slots.
    pub ids: Vec<i32>,
    /// Number of states.
    pub n: usize,
    n_active: usize,
    n_tokens: usize,
    uploaded: OnceCell<Tokens>,
}

impl Observations {
    /// Observes every row of `states`.
    pub fn new(env: &dyn Environment, states: &States) -> Self {
        let mut ids = Vec::new();
        observe_into(env, states, &mut ids);
        Self::from_ids(ids, states.len(), &env.layout())
    }

    /// Observations of `n` states from their token ids.
    ///
    /// # Panics
    /// When there are not `n * n_active` ids.
    pub fn from_ids(ids: Vec<i32>, n: usize, layout: &Layout) -> Self {
        assert_eq!(ids.len(), n * layout.n_active);
        let (n_active, n_tokens) = (layout.n_active, layout.n_tokens);
        Self { ids, n, n_active, n_tokens, uploaded: OnceCell::new() }
    }

    /// The observations on a device; uploaded once.
    pub fn on(&self, device: &Device) -> &Tokens {
        self.uploaded.get_or_init(|| {
            let padding = self.n_tokens as i32;
            let fill = |&id: &i32| if id == NO_TOKEN { padding } else { id };
            Tokens {
                ids: upload_ints(self.ids.iter().map(fill).collect(), device),
                n: self.n,
                n_active: self.n_active,
                padded: self.ids.contains(&NO_TOKEN),
            }
        })
    }
}

/// Writes the token ids of every row of `states` to `ids`, whose content is replaced.
pub(crate) fn observe_into(env: &dyn Environment, states: &States, ids: &mut Vec<i32>) {
    let n_active = env.layout().n_active;
    ids.resize(states.len() * n_active, NO_TOKEN);
    for (row, slots) in states.rows().zip(ids.chunks_exact_mut(n_active.max(1))) {
        env.observe(row, slots);
    }
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

    /// Evaluates states. `params` are the values of [`init`](Self::init)'s list, in its order;
    /// with `dropout`, some activations are dropped.
    fn forward(&self, params: &[Tensor<2>], tokens: &Tokens, dropout: Option<Dropout>) -> Outputs;

    /// Probability with which activations are dropped when a loss is computed. Rollouts and
    /// evaluations drop nothing.
    fn dropout(&self) -> f32 {
        0.0
    }

    /// The same network in plain Rust, for the CPU; its parameters are those of `init`.
    fn native(&self) -> Option<Box<dyn NativeNetwork>> {
        None
    }
}

/// The `model` axis; networks are built for a layout.
pub struct ModelAxis;
impl Axis for ModelAxis {
    const NAME: &'static str = "model";
    type Product = dyn Network;
    type Context<'a> = Layout;
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
