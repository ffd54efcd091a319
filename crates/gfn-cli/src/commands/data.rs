//! `gfn data`: which data files there are, where they lie, and how to get them.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::print;
use crate::args::Data;
use crate::data::{
    self, CATALOGUE, DataError, DataErrorKind, DataFile, FetchOptions, Outcome, data_dir,
};
use crate::error::{DATA, Failure, INTERRUPTED, say};
use crate::run::table::line;

pub fn run(what: &Data) -> Result<(), Failure> {
    let dir = data_dir();
    match what {
        Data::List => print(&list(&dir)),
        Data::Path { name: None } => print(&format!("{}\n", dir.display())),
        Data::Path { name: Some(name) } => {
            print(&format!("{}\n", dir.join(find(name)?.file).display()))
        }
        Data::Fetch { name, from, quiet } if name == "all" => match from {
            Some(_) => Err(Failure::usage("--from gives one file, not all")
                .help("name the file that the address gives")),
            None => fetch_all(&dir, *quiet),
        },
        Data::Fetch { name, from, quiet } => {
            report(&fetch(find(name)?, &dir, from.as_deref(), *quiet)?)
        }
        Data::Import { name, file } => {
            report(&data::import(find(name)?, file, &dir).map_err(failure)?)
        }
    }
}

fn list(dir: &Path) -> String {
    let header = ["name", "file", "state", "bytes", "licence", "source"];
    let mut text = line(&header.map(str::to_owned));
    for entry in CATALOGUE {
        let state = match data::installed(entry, dir) {
            Ok(_) => "present",
            Err(error) if error.kind == DataErrorKind::Missing => "missing",
            Err(_) => "damaged",
        };
        let bytes = entry.bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let source: &str = entry.sources.first().unwrap_or(&entry.note);
        text += &line(
            &[entry.name, entry.file, state, &bytes, entry.licence, source].map(str::to_owned),
        );
    }
    text
}

fn find(name: &str) -> Result<&'static DataFile, Failure> {
    data::find(name).ok_or_else(|| {
        let names = || CATALOGUE.iter().map(|entry| entry.name);
        let failure =
            Failure::usage(format!("no data file is called `{name}`")).did_you_mean(name, names());
        failure.help(format!("data files: {}", names().collect::<Vec<_>>().join(", ")))
    })
}

fn fetch(
    entry: &DataFile,
    dir: &Path,
    from: Option<&str>,
    quiet: bool,
) -> Result<Outcome, Failure> {
    let bar =
        if quiet || !std::io::stderr().is_terminal() { ProgressBar::hidden() } else { bar(entry) };
    let mut progress = |done, total: Option<u64>| {
        if let Some(total) = total.or(entry.source_bytes) {
            bar.set_length(total);
        }
        bar.set_position(done);
    };
    let options = FetchOptions { url_override: from, ..FetchOptions::new(&mut progress) };
    let outcome = data::fetch(entry, dir, options);
    bar.finish_and_clear();
    outcome.map_err(failure)
}

fn bar(entry: &DataFile) -> ProgressBar {
    let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style).with_message(entry.name)
}

/// Everything that has a source; one failure does not keep the others from being fetched.
fn fetch_all(dir: &Path, quiet: bool) -> Result<(), Failure> {
    let mut failed: Vec<(&str, Failure)> = Vec::new();
    for entry in CATALOGUE {
        if entry.sources.is_empty() {
            if data::installed(entry, dir).is_err() {
                say(&format!("{}: {}", entry.name, entry.note));
            }
            continue;
        }
        match fetch(entry, dir, None, quiet) {
            Ok(outcome) => report(&outcome)?,
            // A directory that cannot be written fails for all alike.
            Err(failure) if failure.exit_code() == INTERRUPTED => return Err(failure),
            Err(failure) => failed.push((entry.name, failure)),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    for (_, failure) in &failed {
        failure.report();
    }
    let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
    Err(Failure::new(DATA, format!("could not fetch {}", names.join(", "))))
}

/// The path on stdout; what is to be known about it on stderr.
fn report(outcome: &Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Present(_) => say("already there, and checked"),
        Outcome::Installed(_) => {}
        Outcome::Unchecked(_, sha256) => {
            say(&format!("accepted without a check: no hash is known; its SHA-256 is {sha256}"));
        }
    }
    print(&format!("{}\n", outcome.path().display()))
}

fn failure(error: DataError) -> Failure {
    let code = match error.kind {
        DataErrorKind::Missing | DataErrorKind::Network | DataErrorKind::Damaged => DATA,
        DataErrorKind::Write => INTERRUPTED,
    };
    let failure = Failure::new(code, error.message);
    match error.help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
