//! Generated files in docs/ are what the program says; `BLESS=1` writes them anew. What guides say is true.

#[path = "docs/guides.rs"]
mod guides;

use std::path::Path;
use std::process::Command;

fn gfn(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gfn")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn generated_files_are_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (file, args) in [("reference.md", ["describe"]), ("spec.schema.json", ["schema"])] {
        let (path, text) = (docs.join(file), gfn(&args));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "`just bless` writes docs/{file} anew");
    }
}

/// Every shipped spec, by the schema that editors check it with: its tables and kinds.
#[test]
fn the_schema_knows_the_keys_of_shipped_specs() {
    let schema: serde_json::Value = serde_json::from_str(&gfn(&["schema"])).unwrap();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut checked = 0;
    let folders = ["", "sweeps", "proxies"].map(|folder| configs.join(folder));
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let spec: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        for (name, value) in &spec {
            let known = &schema["properties"][name];
            assert!(known.is_object(), "{name} of {}", path.display());
            let Some(table) = value.as_table().filter(|_| name != "sweep") else { continue };
            let kind = table.get("kind").and_then(|kind| kind.as_str());
            let of_kind = match kind {
                None => known.clone(),
                Some(kind) => {
                    let mut kinds = known["oneOf"].as_array().unwrap().iter();
                    let is_it = |known: &&serde_json::Value| {
                        let names = known["properties"]["kind"]["enum"].as_array().unwrap();
                        names.iter().any(|name| name == kind)
                    };
                    kinds.find(is_it).unwrap_or_else(|| panic!("{name}.{kind}")).clone()
                }
            };
            for key in table.keys() {
                assert!(
                    of_kind["properties"][key].is_object(),
                    "{name}.{key} of {}",
                    path.display()
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
}

#[test]
fn shells_and_manuals_are_served() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = gfn(&["completions", shell]);
        assert!(script.contains("gfn") && script.contains("train"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    gfn(&["man", folder.to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.join("gfn-train.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("spec, a TOML file"));
    assert!(folder.join("gfn.1").is_file() && folder.join("gfn-data-fetch.1").is_file());
}
