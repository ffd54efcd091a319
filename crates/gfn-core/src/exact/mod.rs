//! Exact evaluation: whole state graphs, large ones layer by layer, and the functions they need.

mod ancestral;
pub mod graph;
pub mod layers;
pub mod special;

/// The enumerated graph of an environment and its target distribution.
#[derive(Debug)]
pub struct Exact {
    /// All states and edges.
    pub graph: graph::StateGraph,
    /// P* and log Z by enumeration.
    pub target: graph::Target,
}
