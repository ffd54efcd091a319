//! Networks for GFlowNet policies, and the engines and devices that they run on: everything that
//! knows tensors or SIMD.

pub mod device;
pub mod dropout;
pub mod engine;
pub mod mlp;
pub mod network;
pub mod transformer;

use gfn_core::registry::Entry;

use network::ModelAxis;

/// Every network.
pub const MODELS: &[Entry<ModelAxis>] =
    &[Entry::of::<mlp::MlpSpec>(), Entry::of::<transformer::TransformerSpec>()];
