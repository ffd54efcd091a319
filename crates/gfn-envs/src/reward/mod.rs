//! Rewards, one file each.

pub mod hamming;
pub mod hypergrid;
pub mod table;
