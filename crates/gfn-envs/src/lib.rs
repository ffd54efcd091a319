//! Environments and rewards for GFlowNets, in plain Rust.
//!
//! One file each; [`ENVIRONMENTS`], [`REWARDS`] and [`METRICS`] are the registries that everything else
//! (parsing, listing, documentation, contract tests) follows.

#![warn(unreachable_pub, clippy::float_cmp, clippy::iter_over_hash_type)]

pub mod bayes_net;
mod canonical;
pub mod chemistry;
pub mod dag;
pub mod fragments;
pub mod hypergrid;
mod metric;
pub mod molecule;
pub mod reward;
pub mod sequence;
pub mod symmetry;

pub use metric::METRICS;

use gfn_core::registry::{Entry, EnvAxis, RewardAxis};

/// Every environment.
pub const ENVIRONMENTS: &[Entry<EnvAxis>] = &[
    Entry::of::<hypergrid::HypergridSpec>(),
    Entry::of::<sequence::SequenceSpec>(),
    Entry::of::<sequence::BitSequenceSpec>(),
    Entry::of::<dag::DagSpec>(),
    Entry::of::<molecule::MoleculeSpec>(),
    Entry::of::<fragments::FragmentsSpec>(),
];

/// Every reward.
pub const REWARDS: &[Entry<RewardAxis>] = &[
    Entry::of::<reward::hypergrid::HypergridRewardSpec>(),
    Entry::of::<reward::separable::SeparableSpec>(),
    Entry::of::<reward::table::TableSpec>(),
    Entry::of::<reward::hamming::HammingSpec>(),
    Entry::of::<reward::gbt::GbtSpec>(),
    Entry::of::<reward::bayes_net::bge::BgeSpec>(),
    Entry::of::<reward::bayes_net::bde::BdeSpec>(),
    Entry::of::<reward::bayes_net::linear_gaussian::LinearGaussianSpec>(),
    Entry::of::<reward::bayes_net::local_scores::LocalScoresSpec>(),
    Entry::of::<reward::huckel::HuckelSpec>(),
    Entry::of::<reward::seh_proxy::SehProxySpec>(),
    Entry::of::<reward::command::CommandSpec>(),
];
