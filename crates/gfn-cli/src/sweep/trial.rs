//! A trial: what it sets, its seed, its place in the table of trials.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::Failure;
use crate::run::directory::write_atomically;
use crate::run::table::line;
use crate::spec::flatten;

/// Keys and values on top of a spec, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides(std::collections::BTreeMap<String, toml::Value>);

impl Overrides {
    /// One key.
    pub fn single(key: &str, value: toml::Value) -> Self {
        Self([(key.to_owned(), value)].into())
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    #[cfg(test)]
    pub fn get(&self, key: &str) -> Option<&toml::Value> {
        self.0.get(key)
    }

    /// Sets a key; returns what it was before.
    pub fn insert(&mut self, key: &str, value: toml::Value) -> Option<toml::Value> {
        self.0.insert(key.to_owned(), value)
    }

    /// Removes a key.
    pub fn take(&mut self, key: &str) -> Option<toml::Value> {
        self.0.remove(key)
    }

    /// As arguments of `-s`.
    pub fn arguments(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// Whether a word can stand in the name of a folder as it is.
    pub fn names(word: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        !word.is_empty() && !word.starts_with('.') && word.chars().all(plain)
    }

    /// The name of the folder of its runs: what it sets, readable; `fallback` if it sets nothing.
    pub fn folder(&self, fallback: &str) -> String {
        if self.is_empty() {
            return fallback.to_owned();
        }
        let part = |(key, value): (&String, &toml::Value)| match value {
            toml::Value::String(text) if key.is_empty() => text.clone(),
            toml::Value::String(text) => format!("{key}={text}"),
            value => format!("{key}={value}"),
        };
        let whole: Vec<String> = self.0.iter().map(part).collect();
        let whole = whole.join(",");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=,".contains(c);
        let mut name: String = whole.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        // Cut or changed names are told apart by a hash of everything.
        const LONGEST: usize = 120;
        if name != whole || name.len() > LONGEST {
            name.truncate(LONGEST - 20);
            let hash = Sha256::digest(self.to_string());
            name += "-";
            name.extend(hash.iter().take(5).map(|byte| format!("{byte:02x}")));
        }
        name
    }
}

impl IntoIterator for Overrides {
    type Item = (String, toml::Value);
    type IntoIter = std::collections::btree_map::IntoIter<String, toml::Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// An inline table of TOML.
impl fmt::Display for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        if parts.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", parts.join(", ")) }
    }
}

impl From<&toml::Table> for Overrides {
    fn from(table: &toml::Table) -> Self {
        Self(flatten(table).into_iter().map(|(key, value)| (key, value.clone())).collect())
    }
}

/// One run of a sweep. What it sets and its seed say which it is; its index never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Number in trials.csv.
    pub index: usize,
    /// Folder of its configuration, and name of its run.
    pub folder: String,
    /// Training seed.
    pub seed: u64,
    /// Training trajectories in all.
    pub trajectories: u64,
    /// Trajectories of an iteration.
    pub batch: u64,
    /// What it sets.
    pub overrides: Overrides,
}

impl Trial {
    /// Its run directory, relative to that of the sweep.
    pub fn run(&self) -> PathBuf {
        Path::new(&self.folder).join(format!("s{}", self.seed))
    }

    /// Its name for people: the run directory.
    pub fn name(&self) -> String {
        format!("{}/s{}", self.folder, self.seed)
    }
}

const HEADER: [&str; 6] = ["index", "trial", "seed", "trajectories", "batch", "overrides"];

/// Writes trials.csv.
///
/// # Errors
/// When it cannot be written.
pub fn write_table(path: &Path, trials: &[Trial]) -> Result<(), Failure> {
    let mut text = HEADER.join(",") + "\n";
    for trial in trials {
        text += &line(&[
            trial.index.to_string(),
            trial.name(),
            trial.seed.to_string(),
            trial.trajectories.to_string(),
            trial.batch.to_string(),
            trial.overrides.to_string(),
        ]);
    }
    write_atomically(path, text.as_bytes())
}

/// Reads trials.csv.
///
/// # Errors
/// When it is not a table of trials, with the line.
pub fn read_table(path: &Path) -> Result<Vec<Trial>, Failure> {
    let damaged = |what: String| {
        Failure::usage(format!("`{}` is no table of trials: {what}", path.display()))
            .help("`gfn sweep plan SWEEP.toml` writes it; move a damaged one aside")
    };
    let mut reader = csv::Reader::from_path(path).map_err(|error| damaged(error.to_string()))?;
    let header = reader.headers().map_err(|error| damaged(error.to_string()))?;
    if header != HEADER.as_slice() {
        return Err(damaged(format!("its columns are not {}", HEADER.join(","))));
    }
    let mut trials: Vec<Trial> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let number = |i: usize| record[i].parse::<u64>().ok();
        let trial = || {
            let seed = number(2)?;
            let folder = record[1].strip_suffix(&format!("/s{seed}"))?;
            let table: toml::Table = toml::from_str(&format!("all = {}", &record[5])).ok()?;
            let overrides = Overrides::from(table.get("all")?.as_table()?);
            let index = usize::try_from(number(0)?).ok()?;
            // A name that leads out of the sweep is nobody's trial.
            let plain = !folder.is_empty() && !folder.contains('/') && !folder.starts_with('.');
            plain.then(|| Trial {
                index,
                folder: folder.to_owned(),
                seed,
                trajectories: 0,
                batch: 0,
                overrides,
            })
        };
        let line = record.position().map_or(0, csv::Position::line);
        let mut trial = trial().ok_or_else(|| damaged(format!("line {line}")))?;
        let (Some(trajectories), Some(batch @ 1..)) = (number(3), number(4)) else {
            return Err(damaged(format!("line {line}")));
        };
        (trial.trajectories, trial.batch) = (trajectories, batch);
        if trials.last().is_some_and(|last| last.index >= trial.index) {
            return Err(damaged(format!("line {line}: indices must increase")));
        }
        trials.push(trial);
    }
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(text: &str) -> Overrides {
        Overrides::from(&toml::from_str(text).unwrap())
    }

    #[test]
    fn folders_are_readable_and_distinct() {
        let tlm = overrides("train.lr = 1e-3\nbackward.kind = 'tlm'");
        assert_eq!(tlm.folder("base"), "backward.kind=tlm,train.lr=0.001");
        assert_eq!(Overrides::default().folder("base"), "base");
        let names: Vec<String> = ["a/b", "a b", "a_b", &"x".repeat(300), &"x".repeat(301)]
            .iter()
            .map(|text| Overrides::single("reward.path", (*text).into()).folder("base"))
            .collect();
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() <= 120, "{name}");
            assert!(!name.contains(['/', ' ']), "{name}");
            assert!(!names[..i].contains(name), "{name}");
        }
    }

    #[test]
    fn tables_are_read_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trials.csv");
        let trial = |index, text: &str| {
            let overrides = overrides(text);
            let folder = overrides.folder("base");
            Trial { index, folder, seed: 3, trajectories: 100, batch: 8, overrides }
        };
        let all = [
            trial(0, ""),
            trial(1, "reward.path = 'a, \"b\" = {c}'\ntrain.lr = 1e-9"),
            trial(4, "eval.metrics = ['a', 'b']\nenv.side = 3\nmodel.shared = true"),
        ];
        write_table(&path, &all).unwrap();
        assert_eq!(read_table(&path).unwrap(), all);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\n4,", "\n1,")).unwrap();
        let failure = read_table(&path).unwrap_err();
        assert!(
            failure.message().contains("line 4: indices must increase"),
            "{}",
            failure.message()
        );
        std::fs::write(&path, "index,trial\n0,x\n").unwrap();
        assert!(read_table(&path).is_err());
    }
}
