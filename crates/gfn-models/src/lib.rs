//! Networks for GFlowNet policies, and the engines and devices that they run on: everything that
//! knows tensors or SIMD.

pub mod device;
pub mod dropout;
pub mod engine;
pub mod graph_transformer;
pub mod heads;
pub mod layers;
pub mod mlp;
pub mod network;
mod stop;
pub mod transformer;

use gfn_core::registry::Entry;
use gfn_core::{KeyError, Space};

use network::ModelAxis;

/// Every network.
pub const MODELS: &[Entry<ModelAxis>] = &[
    Entry::of::<mlp::MlpSpec>(),
    Entry::of::<transformer::TransformerSpec>(),
    Entry::of::<graph_transformer::GraphTransformerSpec>(),
];

/// Beyond this, parameters and optimiser states do not fit into the memory of a workstation.
const MAX_WEIGHTS: f64 = 1e9;
/// Beyond this, layers take minutes to set up, however narrow they are.
const MAX_LAYERS: usize = 1024;

/// Beyond this, attention over all pairs of tokens is not what anybody wants to wait for.
const MAX_TOKENS: usize = 1024;

/// Refuses sizes that no layer can have, by their keys.
fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<(), KeyError> {
    for &(key, value) in sizes {
        if value == 0 {
            return Err(KeyError::new(key, "must be at least 1"));
        }
        if value > 1 << 14 {
            return Err(KeyError::new(key, format!("{value} is more than fits into memory")));
        }
    }
    Ok(())
}

/// Refuses more slots than attention can have as tokens.
fn check_slots(space: &Space) -> Result<(), KeyError> {
    if space.slots >= MAX_TOKENS {
        let message = format!("{} slots per state are too many", space.slots);
        return Err(KeyError::new("kind", message).help("use `mlp`"));
    }
    Ok(())
}

/// Refuses networks that nobody can train; `width` is the key that sets the size of a layer.
fn check_size(layers: usize, width: &str, weights: f64) -> Result<(), KeyError> {
    if layers > MAX_LAYERS {
        let message = format!("must lie in 1..={MAX_LAYERS}, not {layers}");
        return Err(KeyError::new("layers", message));
    }
    if weights > MAX_WEIGHTS {
        let message = format!("the network would have {weights:.1e} weights");
        return Err(KeyError::new(width, message)
            .help(format!("keep it below {MAX_WEIGHTS:.0e}: fewer layers, or narrower ones")));
    }
    Ok(())
}
