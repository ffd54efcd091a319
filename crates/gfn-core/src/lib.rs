//! The core of gfn: what a GFlowNet is, how it is sampled, trained and measured exactly.
//!
//! Plain Rust on the host: the [`Environment`] and [`Reward`] contracts, packed [`Trajectories`], the
//! [`sampler`], exact evaluation on a [`StateGraph`], the [metrics](metric), and [learning](learn):
//! [objectives](objective) and [backward strategies](backward) as lists of updates. What computes
//! networks and gradients stands behind a trait, [`learn::engine::Engine`].
//!
//! Nothing here names a concrete environment, reward or network; those are registered from
//! outside through [`registry::Entry`].

pub mod backward;
pub mod exact;
pub mod learn;
pub mod metric;
pub mod objective;
pub mod registry;
pub mod sample;
pub mod vector;
pub mod world;

pub use exact::graph::StateGraph;
pub use exact::layers::Layers;
pub use exact::{graph, layers, special};
pub use registry::{Entry, KeyError};
pub use sample::policy::{Direction, Policy};
pub use sample::rng::{Purpose, Streams};
pub use sample::{local_search, metropolis, normal, policy, rng, sampler};
pub use world::ancestors::Ancestors;
pub use world::environment::{BrokenLaw, Environment};
pub use world::proposal::Proposal;
pub use world::reward::{
    ExactTarget, Marginals, ModeCount, ModeCounter, Modes, Reward, RewardError, TargetEstimate,
};
pub use world::space::{Block, NO_TOKEN, Space};
pub use world::states::States;
pub use world::trajectories::{RowPlan, Trajectories};
pub use world::{
    ancestors, environment, laws, proposal, reward, row_index, space, states, trajectories,
};
