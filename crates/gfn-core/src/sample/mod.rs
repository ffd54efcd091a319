//! Sampling: policies, rollouts in both directions, Markov chains, addressed random streams.

pub mod local_search;
pub mod metropolis;
pub mod normal;
pub mod policy;
pub mod rng;
pub mod sampler;
