//! The `gfn` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gfn_cli::run(&gfn_cli::Registry::builtin())
}
