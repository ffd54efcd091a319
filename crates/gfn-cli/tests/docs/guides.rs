//! The documentation does what it says: specs are legal, commands run, code is that of files which are
//! compiled, links lead somewhere.
//!
//! What stands behind the fence of a block says what is done with it:
//!
//! * `toml`: a whole spec, which is checked as `gfn check` does. `toml NAME.toml`: it also lies in the
//!   page's folder, where its commands run. `toml proxy NAME.toml`: of `gfn proxy train`. `toml fragment`:
//!   some tables of a spec, parsed beside a minimal rest. `toml cargo`: of a Cargo.toml, parsed.
//! * `sh`: run by a shell, all blocks of a page in one folder, in their order, on small budgets.
//! * `python NAME.py`: lies in the page's folder.
//! * `rust PATH`: quotes that file. Quotes of a file in `examples/` are all of it.
//! * `sh not-run (why)`, `python not-run (why)`.
//! * `text`, or nothing: what is printed, or a diagram; no commands of `gfn`. `math`: an equation.

#[path = "markdown.rs"]
mod markdown;
#[allow(dead_code)]
#[path = "../../examples/own_environment.rs"]
mod own_environment;
#[allow(dead_code)]
#[path = "../../examples/own_objective.rs"]
mod own_objective;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use gfn_cli::proxy::ProxySpec;
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};

use markdown::Block;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Markdown files of the repository, by their paths in it.
fn pages() -> BTreeMap<String, String> {
    fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, out);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                out.push(path);
            }
        }
    }
    let (root, mut paths) = (root(), Vec::new());
    walk(&root, &mut paths);
    let page = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(page).collect()
}

/// README and guides with their blocks.
fn guides() -> BTreeMap<String, Vec<Block>> {
    let is_guide =
        |name: &str| name == "README.md" || name == "CONTRIBUTING.md" || name.starts_with("docs/");
    let pages = pages().into_iter().filter(|(name, _)| is_guide(name));
    pages.map(|(name, text)| (name, markdown::split(&text).0)).collect()
}

/// Why a block is not run, if it says so.
fn not_run(page: &str, block: &Block) -> bool {
    let Some(why) = block.mark.strip_prefix("not-run") else { return false };
    let why = why.trim();
    let said = why.len() > 4 && why.starts_with('(') && why.ends_with(')');
    assert!(said, "{page}:{}: say why, as in `not-run (hours)`", block.line);
    true
}

/// All kinds, with those of the guides.
fn registry() -> Registry {
    let mut registry = own_environment::registry();
    let objective = own_objective::registry().objectives.pop().unwrap();
    registry.objectives.push(objective);
    registry
}

/// The same spec with a budget of moments.
fn small(spec: &str) -> String {
    let line = |line: &str| match line.split_once('=').map(|(key, _)| key.trim()) {
        Some("trajectories") => "trajectories = 640".to_owned(),
        Some("first_trajectories") => "first_trajectories = 160".to_owned(),
        Some("side") => "side = 6".to_owned(),
        _ => line.to_owned() + "\n",
    };
    spec.lines().map(|text| line(text).trim_end().to_owned() + "\n").collect()
}

/// A folder for the commands of a page: small copies of shipped specs, the scripts, and the page's files.
fn folder(blocks: &[Block]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for part in ["configs", "configs/sweeps", "configs/proxies", "scripts", "bin"] {
        std::fs::create_dir(path.join(part)).unwrap();
    }
    for part in ["configs", "configs/sweeps", "configs/proxies"] {
        for entry in std::fs::read_dir(root().join(part)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                let text = small(&std::fs::read_to_string(entry.path()).unwrap());
                std::fs::write(path.join(part).join(entry.file_name()), text).unwrap();
            }
        }
    }
    std::fs::copy(root().join("scripts/scorer.py"), path.join("scripts/scorer.py")).unwrap();
    // What pages call a file of the reader's: observations of three variables.
    let rows = (0..30).map(|i| format!("{},{},{}\n", i % 7, i % 5 + i % 7, i % 3));
    let observations = "a,b,c\n".to_owned() + &rows.collect::<String>();
    std::fs::write(path.join("mine.csv"), observations).unwrap();
    for block in blocks {
        let name = block.mark.rsplit(' ').next().unwrap_or_default();
        let text = match &block.language[..] {
            "toml" if name.ends_with(".toml") => small(&block.text),
            "python" if name.ends_with(".py") => block.text.clone(),
            _ => continue,
        };
        std::fs::write(path.join(name), text).unwrap();
    }
    dir
}

/// Runs a script in a page's folder, where `gfn` is the program under test.
fn run(dir: &Path, script: &str) -> Result<(), String> {
    let program = Path::new(env!("CARGO_BIN_EXE_gfn"));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-eu", "-c", script])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("GFN_DATA", dir.join("data"))
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{said}", output.status)) }
}

/// Commands that install something, which is another test's matter: a line that starts with one is left
/// out.
const INSTALLERS: &[&str] = &["cargo install", "cargo test", "pip install", "pipx ", "uv ", "apt "];

/// What a page needs that its own commands do not make: the runs whose figures it draws.
fn before(page: &str) -> &'static str {
    match page {
        "docs/plots.md" => {
            "gfn sweep configs/sweeps/tlm_hypergrid.toml -s name=some -s sweep.seed=[1] \
             -s 'sweep.objective=[{ objective.kind = \"tb\" }, { objective.kind = \"db\" }]' \
             -s 'sweep.backward=[{ backward.kind = \"uniform\" }, { backward.kind = \"tlm\" }]' \
             -s 'sweep.train.lr=[1e-3, 1e-2]' -s env.side=8 --oversubscribe --jobs 2"
        }
        _ => ":",
    }
}

#[test]
fn commands_run() {
    let mut n = 0;
    for (page, blocks) in guides() {
        let mut script = before(&page).to_owned() + "\n";
        let mut n_page = 0;
        for block in blocks.iter().filter(|block| ["sh", "console"].contains(&&block.language[..]))
        {
            if not_run(&page, block) {
                continue;
            }
            assert!(block.mark.is_empty(), "{page}:{}: `{}`", block.line, block.mark);
            // Also where there are fewer cores than the text asks for.
            let text = block.text.replace("--jobs ", "--oversubscribe --jobs ");
            let text = text.replace("cargo run --release -- ", "gfn ");
            let installs = |line: &&str| INSTALLERS.iter().any(|first| line.starts_with(first));
            for line in text.lines().filter(|line| !installs(line)) {
                n_page += usize::from(line.starts_with("gfn "));
                writeln!(script, "{line}").unwrap();
            }
            writeln!(script, "echo '{page}:{} is done' >&2", block.line).unwrap();
        }
        if n_page > 0 {
            let dir = folder(&blocks);
            run(dir.path(), &script).unwrap_or_else(|said| panic!("{page}: {said}"));
        }
        n += n_page;
    }
    assert!(n >= 40, "{n} commands");
}

/// No command of `gfn` hides in a block that nothing is done with.
#[test]
fn blocks_say_what_they_are() {
    let mut n = 0;
    for (page, blocks) in guides() {
        for block in &blocks {
            let place = format!("{page}:{}", block.line);
            match &block.language[..] {
                "toml" | "sh" | "console" | "rust" | "python" => n += 1,
                "" | "text" => {
                    let command = block.text.lines().find(|line| line.starts_with("gfn "));
                    assert_eq!(command, None, "{place}: make it `sh`");
                }
                "math" => {}
                other => panic!("{place}: `{other}` is tested by nothing"),
            }
            if block.language == "python" {
                let known = block.mark.ends_with(".py") || not_run(&page, block);
                assert!(known, "{place}: name a file, or say why it is not run");
            }
        }
    }
    assert!(n >= 40, "{n} blocks");
}

/// What a part of a spec is parsed beside, if it has none of its own.
fn completed(fragment: &str) -> String {
    let mut spec: toml::Table = fragment.parse().unwrap_or_else(|error| panic!("{error}"));
    let env = toml::toml! { kind = "hypergrid" };
    spec.entry("env").or_insert(env.into());
    toml::to_string(&spec).unwrap()
}

#[test]
fn specs_are_legal() {
    let registry = registry();
    let (mut whole, mut parts) = (0, 0);
    for (page, blocks) in guides() {
        let dir = folder(&blocks);
        for block in blocks.iter().filter(|block| block.language == "toml") {
            let place = format!("{page}:{}", block.line);
            let parse = |text: String| {
                Spec::parse(&registry, &place, text, "test", &[])
                    .unwrap_or_else(|failure| panic!("{place}: {}", failure.render()))
            };
            let kind = block.mark.split(' ').next().unwrap_or_default();
            match kind {
                "cargo" => {
                    let parsed = block.text.parse::<toml::Table>();
                    parsed.unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                "fragment" => {
                    parse(completed(&block.text));
                    parts += 1;
                }
                "proxy" => {
                    let file = dir.path().join(block.mark.split(' ').nth(1).unwrap());
                    ProxySpec::load(&registry, &file, &[])
                        .unwrap_or_else(|failure| panic!("{place}: {}", failure.render()));
                    whole += 1;
                }
                _ => {
                    whole += 1;
                    let spec = parse(block.text.clone());
                    // Kinds of the guides are not among those of the binary, and need no files.
                    let own = ["kind = \"subsets\"", "kind = \"end_weighted_db\""];
                    if own.iter().any(|kind| block.text.contains(kind)) {
                        Experiment::build(&registry, &spec)
                            .unwrap_or_else(|failure| panic!("{place}: {}", failure.render()));
                    } else {
                        std::fs::write(dir.path().join("checked.toml"), &block.text).unwrap();
                        run(dir.path(), "gfn check checked.toml")
                            .unwrap_or_else(|said| panic!("{place}: {said}"));
                    }
                }
            }
        }
    }
    assert!(whole >= 8 && parts >= 3, "{whole} specs, {parts} parts");
}

/// The guide's environment and reward: sums over sets are Stirling numbers, 1 + 36 + 546 + 4,536.
#[test]
fn the_environment_of_the_guide_is_learned() {
    let blocks = &guides()["docs/your_environment.md"];
    let spec = blocks.iter().find(|block| block.mark == "subsets.toml").unwrap();
    let registry = registry();
    let spec = Spec::parse(&registry, "subsets.toml", spec.text.clone(), "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    let exact = experiment.exact.as_ref().unwrap();
    assert_eq!(exact.graph.objects().len(), 1 + 8 + 28 + 56);
    let by_formula = experiment.reward.log_partition().unwrap();
    for log_z in [exact.target.log_z, by_formula] {
        assert!((log_z - 5119f64.ln()).abs() < 1e-12, "{log_z}");
    }
    let column = experiment.columns.iter().position(|c| c.name == "tv_exact").unwrap();
    for _ in 0..experiment.trainer.n_steps() {
        experiment.trainer.step().unwrap();
    }
    let tv = experiment.trainer.evaluate().unwrap()[column].unwrap();
    assert!(tv < 0.05, "total variation {tv}");
}

/// Lines that are not empty, without white space behind them.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

#[test]
fn code_is_that_of_files() {
    let mut quoted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (page, blocks) in guides() {
        for block in blocks.iter().filter(|block| block.language == "rust") {
            let place = format!("{page}:{}", block.line);
            let path = root().join(&block.mark);
            assert!(path.is_file(), "{place}: name the file that is quoted, not `{}`", block.mark);
            let text = std::fs::read_to_string(path).unwrap();
            let text = text.replace("\r\n", "\n");
            assert!(text.contains(block.text.trim_end()), "{place}: not in {}", block.mark);
            let of_page = quoted.entry(format!("{page} {}", block.mark)).or_default();
            of_page.extend(lines(&block.text).into_iter().map(str::to_owned));
        }
    }
    assert!(quoted.len() >= 3, "{}", quoted.len());
    for (place, quotes) in quoted {
        let (page, path) = place.split_once(' ').unwrap();
        if path.contains("/examples/") {
            let text = std::fs::read_to_string(root().join(path)).unwrap();
            assert_eq!(quotes, lines(&text), "{page} has all of {path}, in order");
        }
    }
}

#[test]
fn every_column_is_explained() {
    let pages = pages();
    let dir = folder(&[]);
    run(dir.path(), "gfn train configs/quickstart.toml").unwrap();
    let schema = dir.path().join("results/quickstart/s0/metrics.schema.json");
    let columns: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let columns = columns.as_array().unwrap();
    assert!(columns.len() > 30);
    for column in columns {
        let name = column["name"].as_str().unwrap();
        assert!(pages["docs/first_run.md"].contains(&format!("`{name}`")), "{name}");
    }
}

/// Every law by the name that a message gives it.
#[test]
fn every_law_is_explained() {
    let source = std::fs::read_to_string(root().join("crates/gfn-core/src/world/laws.rs")).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let page = &pages()["docs/your_environment.md"];
    let mut n = 0;
    // Texts of code are laws, but for those of `expect`.
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let texts = line.split('"').skip(1).step_by(2);
        for law in texts.filter(|_| !line.contains("expect(")) {
            assert!(page.contains(law), "explain `{law}`");
            n += 1;
        }
    }
    assert!(n >= 20, "{n} laws");
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let (mut files, mut places) = (0, 0);
    for (page, text) in &pages {
        let (_, prose) = markdown::split(text);
        for (line, target) in markdown::links(&prose) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = root().join(page).parent().unwrap().to_owned();
            let path = if file.is_empty() { root().join(page) } else { folder.join(file) };
            assert!(path.exists(), "{page}:{line}: there is no {target}");
            files += 1;
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(path).unwrap();
                let anchors = markdown::anchors(&markdown::split(&text).1);
                let known = anchors.iter().any(|known| known == anchor);
                assert!(known, "{page}:{line}: {target} is none of {anchors:?}");
                places += 1;
            }
        }
    }
    assert!(files >= 40 && places >= 2, "{files} links, {places} with anchors");
}
