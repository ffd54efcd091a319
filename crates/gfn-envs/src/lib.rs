//! Environments and rewards for GFlowNets, in plain Rust.
//!
//! One file each; [`ENVIRONMENTS`] and [`REWARDS`] are the registries that everything else
//! (parsing, listing, documentation, contract tests) follows.

#![warn(unreachable_pub, clippy::float_cmp, clippy::iter_over_hash_type)]

pub mod bayes_net;
pub mod dag;
pub mod hypergrid;
pub mod reward;
pub mod sequence;

use gfn_core::registry::{Entry, EnvAxis, RewardAxis};

/// Every environment.
pub const ENVIRONMENTS: &[Entry<EnvAxis>] = &[
    Entry::of::<hypergrid::HypergridSpec>(),
    Entry::of::<sequence::SequenceSpec>(),
    Entry::of::<sequence::BitSequenceSpec>(),
    Entry::of::<dag::DagSpec>(),
];

/// Every reward.
pub const REWARDS: &[Entry<RewardAxis>] = &[
    Entry::of::<reward::hypergrid::HypergridRewardSpec>(),
    Entry::of::<reward::table::TableSpec>(),
    Entry::of::<reward::hamming::HammingSpec>(),
    Entry::of::<reward::gbt::GbtSpec>(),
    Entry::of::<reward::command::CommandSpec>(),
];
