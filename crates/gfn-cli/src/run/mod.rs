//! The run directory: its files, its lock, its checkpoints.

pub mod checkpoint;
pub mod directory;
pub mod manifest;
pub mod metrics;
pub mod samples;
pub mod table;
