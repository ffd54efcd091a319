//! Sampling: policies, rollouts in both directions, addressed random streams.

pub mod policy;
pub mod rng;
pub mod sampler;
