//! Records the git commit and the compiler, for manifests, and says whether the reference data is
//! there, so that tests which need it are reported as ignored where it is not.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    // The log of HEAD changes with every commit; the sources decide whether the tree is clean.
    for path in ["build.rs", "../../.git/HEAD", "../../.git/logs/HEAD", "../../crates"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let changes = output("git", &["status", "--porcelain", "--", "../../crates"]);
    let dirty = if changes.is_some_and(|changes| !changes.is_empty()) { "-dirty" } else { "" };
    println!("cargo::rustc-env=GFN_GIT_COMMIT={commit}{dirty}");
    println!("cargo::rustc-check-cfg=cfg(reference_data)");
    println!("cargo::rerun-if-env-changed=GFN_REFERENCE_DATA");
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("GFN_REFERENCE_DATA").map_or(default, PathBuf::from);
    println!("cargo::rerun-if-changed={}", folder.display());
    if folder.join("qm9str_rewards.csv").is_file() {
        println!("cargo::rustc-cfg=reference_data");
    }
    println!("cargo::rustc-env=GFN_REFERENCE_DATA={}", folder.display());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!("cargo::rustc-env=GFN_RUSTC={}", output(&rustc, &["--version"]).unwrap_or_default());
}
