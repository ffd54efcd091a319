//! Bayesian networks: graphs, data, local scores and the exact posterior over structures.

pub mod data;
pub mod file_error;
pub mod generate;
pub mod graph;
mod header;
pub mod named;
pub mod posterior;
pub mod score;
