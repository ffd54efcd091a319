//! Networks for GFlowNet policies, written in Burn, and the devices that they run on.

pub mod device;
pub mod mlp;
pub mod transformer;

use gfn_core::network::ModelAxis;
use gfn_core::registry::Entry;

/// Every network.
pub const MODELS: &[Entry<ModelAxis>] =
    &[Entry::of::<mlp::MlpSpec>(), Entry::of::<transformer::TransformerSpec>()];
