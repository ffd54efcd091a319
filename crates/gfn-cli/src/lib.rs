//! gfn: an experiment runner for Generative Flow Networks.
//!
//! The binary is `gfn_cli::run(&Registry::builtin())`. A crate with environments, rewards or
//! networks of its own builds the same tool with them:
//!
//! ```no_run
//! use gfn_cli::Registry;
//! use gfn_core::registry::Entry;
//!
//! let mut registry = Registry::builtin();
//! // Stands for an environment of your own.
//! registry.environments.push(Entry::of::<gfn_envs::hypergrid::HypergridSpec>());
//! gfn_cli::run(&registry);
//! ```
//!
//! `examples/own_environment.rs` and `examples/own_objective.rs` are complete; docs/ explains them.

#![warn(clippy::float_cmp, clippy::iter_over_hash_type)]

mod allocator;
mod args;
mod collect;
mod commands;
pub mod data;
pub mod error;
mod experiment;
mod files;
mod plot;
pub mod proxy;
mod registry;
mod run;
pub mod session;
pub mod signals;
pub mod spec;
mod stats;
mod sweep;
mod world;

use std::process::ExitCode;

pub use experiment::Experiment;
pub use files::FileReader;
pub use registry::Registry;
pub use world::World;

/// Parses the command line, runs the command and returns the documented exit code.
pub fn run(registry: &Registry) -> ExitCode {
    allocator::tune();
    let args = match <args::Args as clap::Parser>::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { error::USAGE } else { error::DONE };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    args.init_logging();
    match error::catch_bugs(|| commands::run(registry, args)) {
        Ok(()) => ExitCode::from(error::DONE),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code())
        }
    }
}
