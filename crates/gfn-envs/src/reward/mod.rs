//! Rewards, one file each.

pub mod hypergrid;
pub mod table;
