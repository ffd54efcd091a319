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
pub mod environment;
pub mod graph;
pub mod layers;
pub mod learn;
pub mod metric;
pub mod objective;
pub mod policy;
pub mod registry;
pub mod reward;
pub mod rng;
pub mod sampler;
pub mod schedule;
pub mod special;
pub mod states;
pub mod trajectories;
pub mod vector;

pub use environment::{BrokenLaw, Environment, Layout, NO_TOKEN};
pub use graph::StateGraph;
pub use layers::Layers;
pub use policy::{Direction, Policy};
pub use registry::{Entry, KeyError};
pub use reward::{Modes, Reward, RewardError, TargetEstimate};
pub use rng::{Purpose, Streams};
pub use states::States;
pub use trajectories::{RowPlan, Trajectories};
