//! Rewards, one file each, and what they share.

pub mod bayes_net;
pub mod command;
pub mod gbt;
pub mod hamming;
pub mod huckel;
pub mod hypergrid;
pub mod modes;
pub mod molecules;
mod npy;
pub mod objects;
pub mod remembered;
pub mod seh_proxy;
pub mod separable;
mod separated;
pub mod table;
mod tensors;
pub mod transform;
pub mod value;
