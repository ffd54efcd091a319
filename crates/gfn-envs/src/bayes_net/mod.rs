//! Bayesian networks: graphs, data, local scores and the exact posterior over structures.

pub mod graph;
