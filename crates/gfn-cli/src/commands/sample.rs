//! `gfn sample`: objects from a checkpoint, with their rewards.

use std::path::Path;

use super::open::OpenRun;
use super::print;
use crate::Registry;
use crate::args::{Format, Sample};
use crate::error::Failure;
use crate::run::directory::write_atomically;
use crate::run::samples::{artifacts, csv, draw, jsonl};

pub fn run(registry: &Registry, args: &Sample) -> Result<(), Failure> {
    let run = OpenRun::open(registry, &args.run, &[], &args.checkpoint)?;
    let samples = draw(&run.experiment, args.n, args.seed)?;
    let (name, text) = match args.format {
        Format::Csv => ("samples.csv", csv(&run.experiment, &samples)?),
        Format::Jsonl => ("samples.jsonl", jsonl(&run.experiment, &samples)?),
    };
    let Some(dir) = &args.out else { return print(&text) };
    let mut files = vec![(name, text)];
    files.extend(artifacts(&run.experiment, &samples));
    write_new(dir, &files)?;
    print(&format!("{}\n", dir.display()))
}

/// Writes all files, or none where one of them is there already.
fn write_new(dir: &Path, files: &[(&'static str, String)]) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::write(dir, &error))?;
    if let Some((name, _)) = files.iter().find(|(name, _)| dir.join(name).exists()) {
        return Err(Failure::usage(format!("`{}` exists already", dir.join(name).display()))
            .help("choose another folder with --out, or move it aside"));
    }
    files.iter().try_for_each(|(name, text)| write_atomically(&dir.join(name), text.as_bytes()))
}
