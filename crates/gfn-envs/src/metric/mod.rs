//! Metrics about particular environments, one file each.

mod edges;
mod ranking;
mod sampled_graphs;

use gfn_core::metric::MetricEntry;

/// Every metric of this crate.
pub const METRICS: &[MetricEntry] = &[MetricEntry::of::<edges::Edges>()];
