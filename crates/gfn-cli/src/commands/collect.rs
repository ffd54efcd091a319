//! `gfn collect`: one tidy table of many runs.

use std::path::Path;

use super::deliver;
use crate::args::Collect;
use crate::collect::{Tidy, load, tidy};
use crate::error::Failure;

pub fn run(args: &Collect) -> Result<(), Failure> {
    if let Some(file) = args.dirs.iter().find(|path| path.is_file()) {
        return Err(Failure::usage(format!("`{}` is not a folder", file.display()))
            .help("give run directories, or folders above them"));
    }
    let runs = load(&args.dirs, args.skip_damaged)?;
    let options = Tidy { last: args.last, all_keys: args.all_keys };
    let table = tidy(&runs, options);
    match args.out.as_deref() {
        Some(path) if path.extension().is_some_and(|extension| extension == "parquet") => {
            parquet(&table, path)
        }
        out => deliver(&table, out),
    }
}

#[cfg(feature = "parquet")]
fn parquet(table: &str, path: &Path) -> Result<(), Failure> {
    super::deliver_file(&crate::collect::parquet(table)?, path)
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &str, path: &Path) -> Result<(), Failure> {
    Err(Failure::usage(format!("`{}`: this build does not write Parquet", path.display()))
        .help("name it .csv, or build gfn with --features parquet"))
}
