//! Conventions of the repository that the compiler does not know.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files(&path, extension, out);
        } else if path.extension().is_some_and(|found| found == extension) {
            out.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files(&root().join("crates"), "rs", &mut paths);
    assert!(paths.len() > 40, "the walk found the sources");
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{}: starts with a module comment", path.display());
        let lines = text.lines().count();
        assert!(lines <= 800, "{}: {lines} lines; one concept, one file", path.display());
    }
}

#[test]
fn settings_keep_their_positions() {
    // serde's flatten, untagged and internal tags lose the line of an error in a spec.
    for (path, text) in sources() {
        for line in text.lines().filter(|line| line.trim_start().starts_with("#[serde(")) {
            for word in ["flatten", "untagged", "tag ="] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

/// Burn and gemm are a matter of gfn-models alone: neither is among the dependencies of the other crates.
#[test]
fn tensors_stay_in_gfn_models() {
    for name in ["gfn-core", "gfn-envs", "gfn-cli"] {
        let path = root().join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        for foreign in ["burn", "gemm"] {
            assert!(!dependencies.contains_key(foreign), "{name} depends on {foreign}");
        }
        let of_models = dependencies.contains_key("gfn-models");
        assert_eq!(of_models, name == "gfn-cli", "{name}");
    }
}

/// Every shipped spec resolves, is named after its file, and has a comment on top.
#[test]
fn shipped_specs_resolve() {
    let registry = gfn_cli::Registry::builtin();
    let mut specs = Vec::new();
    files(&root().join("configs"), "toml", &mut specs);
    assert!(specs.len() >= 14);
    for path in specs {
        let name = if path.parent().is_some_and(|folder| folder.ends_with("proxies")) {
            gfn_cli::proxy::ProxySpec::load(&registry, &path, &[]).map(|spec| spec.name)
        } else {
            gfn_cli::spec::Spec::load(&registry, &path, &[]).map(|spec| spec.name)
        };
        let name = name.unwrap_or_else(|failure| panic!("{}", failure.render()));
        assert_eq!(Some(name.as_str()), path.file_stem().and_then(|s| s.to_str()));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# "));
    }
}
