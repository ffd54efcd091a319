//! `gfn completions` and `gfn man`: what shells and manuals say of the command line.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::print;
use crate::args::Args;
use crate::error::Failure;

/// The completion script of a shell, to stdout.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "gfn", &mut script);
    print(&String::from_utf8(script).expect("scripts are UTF-8"))
}

/// Manual pages of all commands, into a folder.
pub fn man(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::write(folder, &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
    print(&format!("{}\n", folder.display()))
}
