//! Sweeps: many trials of one spec.
//!
//! A sweep is a directory, a trial is an index, an engine is anything that can run a command with
//! an index: there is no service and no database.
//!
//! ```text
//! results/<name>/
//!   sweep.toml            the spec with its [sweep], as planned
//!   trials.csv            index, trial, seed, trajectories, batch, overrides
//!   <what it sets>/s<seed>/   the run directories, as `gfn train` makes them
//!   logs/<index>.log      what the trial said; <index>.failed: why its last attempt failed
//!   .claims/<index>       locked while somebody runs the trial
//! ```
//!
//! `settings` reads `[sweep]` with its axes (`axis`); `plan` makes `trials.csv` from it; `state` says how far a run is, by
//! its files alone; `schedule` says from that what every trial has to do next (`halving` decides who
//! goes on); `claim` sees to it that only one process runs a trial; `runner` runs them as child
//! processes; `submit` writes what a cluster needs to do so.

mod axis;
mod claim;
mod directory;
mod halving;
mod plan;
mod progress;
mod runner;
mod schedule;
mod schema;
mod settings;
mod state;
mod status;
mod submit;
mod trial;

pub use directory::SweepDirectory;
pub use plan::{place, plan};
pub use runner::{Options, Selection, run, share_cores};
pub use schema::{axis_schema, table_schema};
pub use status::status;
pub use submit::{Engine, Resources, Submitted, submit};
