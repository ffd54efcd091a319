//! Rewards, one file each, and what they share.

pub mod bayes_net;
pub mod command;
pub mod gbt;
pub mod hamming;
pub mod huckel;
pub mod hypergrid;
pub mod modes;
mod npy;
pub mod objects;
pub mod remembered;
pub mod separable;
mod separated;
pub mod table;
pub mod transform;
pub mod value;
