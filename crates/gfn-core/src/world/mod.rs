//! What a GFlowNet lives in: environments, their states, rewards, and trajectories between them.

pub mod ancestors;
pub mod environment;
pub mod laws;
pub mod proposal;
pub mod reward;
pub mod row_index;
pub mod space;
pub mod states;
pub mod trajectories;
