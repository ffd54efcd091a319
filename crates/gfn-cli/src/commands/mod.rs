//! The subcommands, one file each.

mod check;
mod data;
mod describe;
mod eval;
mod exact;
mod list;
mod open;
mod proxy;
mod sample;
mod schema;
mod sweep;
mod train;

use std::io::Write;

use crate::Registry;
use crate::args::{Args, Command, SpecArgs};
use crate::error::Failure;
use crate::spec::Spec;

/// Runs the chosen subcommand.
///
/// # Errors
/// With the exit code and the message for the user.
pub fn run(registry: &Registry, args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Train(train) => train::run(registry, &train),
        Command::Eval(eval) => eval::run(registry, &eval),
        Command::Sample(sample) => sample::run(registry, &sample),
        Command::Exact(exact) => exact::run(registry, &exact),
        Command::Check(spec) => check::run(registry, &spec),
        Command::List { axis } => list::run(registry, axis.as_deref()),
        Command::Describe { what } => describe::run(registry, &what),
        Command::Proxy(what) => proxy::run(registry, &what),
        Command::Data(what) => data::run(&what),
        Command::Sweep(args) => sweep::run(registry, &args),
        Command::Schema => schema::run(registry),
    }
}

/// Loads a spec with the overrides of the command line.
fn load_spec(registry: &Registry, args: &SpecArgs) -> Result<Spec, Failure> {
    let mut overrides = args.set.clone();
    if let Some(seed) = args.seed {
        overrides.push(format!("seed={seed}"));
    }
    for (key, value) in [("device", &args.device), ("name", &args.name)] {
        if let Some(value) = value {
            overrides.push(format!("{key}={}", toml::Value::String(value.clone())));
        }
    }
    Spec::load(registry, &args.spec, &overrides)
}

/// Writes data to stdout. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::write(std::path::Path::new("<stdout>"), &error))
        }
        _ => Ok(()),
    }
}
