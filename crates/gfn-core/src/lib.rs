//! The core of gfn: what a GFlowNet is, how it is sampled, trained and measured exactly.
//!
//! Without features this crate is plain Rust on the host: the [`Environment`] and [`Reward`]
//! contracts, packed [`Trajectories`], the [`sampler`], exact evaluation on a [`StateGraph`] and
//! the [metrics](metric). The feature `train` adds everything that needs tensors: batches,
//! [objectives](objective), [backward policies](backward) and the [trainer](train).
//!
//! Nothing here names a concrete environment, reward or network; those are registered from
//! outside through [`registry::Entry`].

pub mod environment;
pub mod graph;
pub mod layers;
pub mod metric;
pub mod policy;
pub mod registry;
pub mod reward;
pub mod rng;
pub mod sampler;
pub mod schedule;
pub mod special;
pub mod states;
pub mod trajectories;
pub mod transpose;
pub mod vector;

#[cfg(feature = "train")]
mod awake;
#[cfg(feature = "train")]
pub mod backward;
#[cfg(feature = "train")]
pub mod batch;
#[cfg(feature = "train")]
pub mod choices;
#[cfg(feature = "train")]
pub mod dropout;
#[cfg(feature = "train")]
pub mod kernels;
#[cfg(feature = "train")]
pub mod model;
#[cfg(feature = "train")]
pub mod native;
#[cfg(feature = "train")]
pub mod network;
#[cfg(feature = "train")]
pub mod objective;
#[cfg(feature = "train")]
pub mod optimizer;
#[cfg(feature = "train")]
pub mod panels;
#[cfg(feature = "train")]
pub mod scored;
#[cfg(feature = "train")]
pub mod train;
#[cfg(feature = "train")]
pub mod work;

pub use environment::{BrokenLaw, Environment, Layout, NO_TOKEN};
pub use graph::StateGraph;
pub use layers::Layers;
pub use policy::{Direction, Policy};
pub use registry::{Entry, KeyError};
pub use reward::{Modes, Reward, RewardError, TargetEstimate};
pub use rng::{Purpose, Streams};
pub use states::States;
pub use trajectories::{NetworkRows, Trajectories};
