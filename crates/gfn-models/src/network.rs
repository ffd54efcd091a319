//! Networks and their parameters: pure functions over a list of named, grouped tensors.
//!
//! A [`Network`] says which parameters it has and maps observations to its heads; the values live
//! in an engine. Optimisers, copies and checkpoints therefore handle one flat list and know nothing
//! about architectures.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use gfn_core::learn::head::{Head, HeadSize, TRUNK};
use gfn_core::registry::Axis;
use gfn_core::space::{At, Block, Scope};
use gfn_core::{KeyError, NO_TOKEN, Space};
use rand::rngs::ChaCha8Rng;

use crate::dropout::Dropout;
use crate::engine::native::NativeNetwork;

/// What a network is built for: an environment, and the heads that some loss reads.
#[derive(Clone, Debug)]
pub struct NetworkContext {
    /// What observations and actions consist of.
    pub space: Space,
    /// The heads that the network has, in the order of its outputs.
    pub heads: Vec<Head>,
}

impl NetworkContext {
    /// For all of these heads that are not parameters of their own.
    pub fn new(space: &Space, heads: &[Head]) -> Self {
        let heads = heads.iter().copied().filter(|head| !head.is_parameter()).collect();
        Self { space: space.clone(), heads }
    }

    /// Where every forward action puts one of k symbols into an empty slot: k; else 0.
    pub fn symbols(&self) -> usize {
        match self.space.forward[..] {
            [Block { scope: Scope::Slot(At::Empty), size, .. }] => size,
            _ => 0,
        }
    }

    /// Numbers that a head gives for each state.
    pub fn size(&self, head: Head) -> usize {
        match head.size {
            HeadSize::Actions(direction) => self.space.n_actions_in(direction),
            HeadSize::Scalar => 1,
            HeadSize::Parameter => 0,
        }
    }

    /// Numbers that all heads give for each state.
    pub fn width(&self) -> usize {
        self.heads.iter().map(|&head| self.size(head)).sum()
    }

    /// Where a head stands among the outputs of a state.
    ///
    /// # Panics
    /// When the network has no such head.
    pub fn columns(&self, head: Head) -> Range<usize> {
        let position = self.heads.iter().position(|&other| other == head);
        let before = &self.heads[..position.expect("the network has what losses read")];
        let start = before.iter().map(|&head| self.size(head)).sum();
        start..start + self.size(head)
    }
}

/// A parameter as a network declares it. Vectors are rows: shape `[1, n]`.
#[derive(Clone, Debug)]
pub struct ParamInit {
    /// Unique name, also in checkpoints.
    pub name: String,
    /// The head that it belongs to, or the trunk that heads share.
    pub group: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Initial values, row-major.
    pub values: Vec<f32>,
}

impl ParamInit {
    /// A parameter that all heads share.
    pub fn shared(name: String, shape: [usize; 2], values: Vec<f32>) -> Self {
        Self { name, group: TRUNK.to_owned(), shape, values }
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

impl Tokens {
    /// Uploads the token ids of `n` states.
    pub fn new(ids: &[i32], n: usize, space: &Space, device: &Device) -> Self {
        let padding = space.n_tokens() as i32;
        let fill = |&id: &i32| if id == NO_TOKEN { padding } else { id };
        Self {
            ids: upload_ints(ids.iter().map(fill).collect(), device),
            n,
            n_active: space.n_cells(),
            padded: ids.contains(&NO_TOKEN),
        }
    }
}

/// Integers as a tensor.
pub(crate) fn upload_ints(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// An architecture.
pub trait Network: Send + Sync {
    /// Declares the parameters, initialised from `rng`.
    fn init(&self, rng: &mut ChaCha8Rng) -> Vec<ParamInit>;

    /// Evaluates states: one tensor, `[n, size]`, for each of the network's heads that is asked
    /// for. `params` are the values of [`init`](Self::init)'s list, in its order; with `dropout`,
    /// some activations are dropped.
    fn forward(
        &self,
        params: &[Tensor<2>],
        tokens: &Tokens,
        dropout: Option<Dropout>,
        asked: &[bool],
    ) -> Vec<Option<Tensor<2>>>;

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

/// The `model` axis.
pub struct ModelAxis;
impl Axis for ModelAxis {
    const NAME: &'static str = "model";
    type Product = dyn Network;
    type Context<'a> = NetworkContext;
}

/// Checks that a network can be built for a space at all.
///
/// # Errors
/// When an environment offers nothing to observe.
pub fn check_space(space: &Space) -> Result<(), KeyError> {
    if space.n_tokens() == 0 {
        return Err(KeyError::part("this network needs an environment that observes tokens"));
    }
    Ok(())
}
