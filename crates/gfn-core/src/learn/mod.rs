//! Learning: an algorithm is a list of updates; losses read like their equations; an engine computes
//! networks and gradients behind a trait.

pub mod batch;
mod chains;
mod data;
mod differentiated;
pub mod engine;
pub mod expr;
mod gradient_sample;
pub mod head;
mod plan;
mod policy;
pub mod priority;
mod replay;
mod reward_noise;
pub mod schedule;
mod settings;
mod snapshot;
mod substructures;
mod trainer;
pub(crate) mod trust_region;
pub mod update;
pub mod view;

pub use chains::{ChainSettings, Moves};
pub(crate) use plan::walks;
pub use plan::{Plan, Planned, check_stops};
pub use policy::EnginePolicy;
pub use replay::{Buffer, Drawn};
pub use reward_noise::{Per, RewardNoise};
pub use settings::{Algorithm, EngineKind, OptimizerSettings, TrainSettings};
pub use snapshot::{Snapshot, SnapshotError};
pub use substructures::Substructures;
pub use trainer::{Components, Counters, Report, TrainError, Trainer};
pub use trust_region::TrustRegion;
