//! Says at compile time whether the reference data is there, so that tests which need it are
//! reported as ignored where it is not.

use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(reference_data)");
    println!("cargo::rerun-if-env-changed=GFN_REFERENCE_DATA");
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("GFN_REFERENCE_DATA").map_or(default, PathBuf::from);
    println!("cargo::rerun-if-changed={}", folder.display());
    if folder.join("qm9str_rewards.csv").is_file() {
        println!("cargo::rustc-cfg=reference_data");
    }
    println!("cargo::rustc-env=GFN_REFERENCE_DATA={}", folder.display());
}
