//! The subcommands, one file each.

mod check;
mod collect;
mod completions;
mod data;
mod describe;
mod eval;
mod exact;
mod list;
mod open;
mod plot;
mod proxy;
mod sample;
mod schema;
mod score;
mod sweep;
mod table;
mod train;

use std::io::Write;
use std::path::Path;

use crate::Registry;
use crate::args::{Args, Command, SpecArgs};
use crate::error::Failure;
use crate::run::directory::write_atomically;
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
        Command::Score(score) => score::run(registry, &score),
        Command::Exact(exact) => exact::run(registry, &exact),
        Command::Check(spec) => check::run(registry, &spec),
        Command::List { axis } => list::run(registry, axis.as_deref()),
        Command::Describe { what: Some(what) } => describe::run(registry, &what),
        Command::Describe { what: None } => describe::reference(registry),
        Command::Proxy(what) => proxy::run(registry, &what),
        Command::Data(what) => data::run(&what),
        Command::Sweep(args) => sweep::run(registry, &args),
        Command::Schema => schema::run(registry),
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { folder } => completions::man(&folder),
        Command::Collect(collect) => collect::run(&collect),
        Command::Plot(plot) => plot::run(registry, &plot),
        Command::Table(table) => table::run(&table),
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
    offer(text).map(drop)
}

/// Writes data to stdout; false where nobody reads it any more.
fn offer(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::write(Path::new("<stdout>"), &error)),
    }
}

/// Writes a file that was asked for with `-o` and prints its path, or prints the text without.
fn deliver(text: &str, out: Option<&Path>) -> Result<(), Failure> {
    match out {
        Some(path) => deliver_file(text.as_bytes(), path),
        None => print(text),
    }
}

/// Writes a file and prints its path.
fn deliver_file(bytes: &[u8], path: &Path) -> Result<(), Failure> {
    // A pipe or a device has no place beside it to write to first.
    let written = match path.metadata() {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            std::fs::write(path, bytes).map_err(|error| Failure::write(path, &error))
        }
        _ => write_atomically(path, bytes),
    };
    // Nothing is there to resume: unlike a run, the command just failed.
    written.map_err(|failure| {
        Failure::usage(failure.message())
            .help("choose another file with -o, in a folder that exists")
    })?;
    print(&format!("{}\n", path.display()))
}
