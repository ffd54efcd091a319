//! `gfn collect`: one tidy table of many runs.

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
    deliver(&tidy(&runs, options), args.out.as_deref())
}
