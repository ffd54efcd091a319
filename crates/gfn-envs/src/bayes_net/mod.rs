//! Bayesian networks: graphs, data, local scores and the exact posterior over structures.

pub mod data;
pub mod file_error;
pub mod generate;
pub mod graph;
pub mod posterior;
pub mod score;
