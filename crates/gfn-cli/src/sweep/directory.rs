//! The folder of a sweep.

use std::path::{Path, PathBuf};

use super::halving::Halving;
use super::settings::SweepSettings;
use super::trial::{Trial, read_table};
use crate::error::Failure;
use crate::spec::{Source, read_text};

/// A planned sweep.
pub struct SweepDirectory {
    path: PathBuf,
    /// Its trials, in the order of their indices.
    pub trials: Vec<Trial>,
    /// Who is trained on, if not everybody.
    pub halving: Option<Halving>,
}

impl SweepDirectory {
    /// Opens a planned sweep.
    ///
    /// # Errors
    /// When the folder is none.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let spec = path.join("sweep.toml");
        let table = path.join("trials.csv");
        if !spec.is_file() || !table.is_file() {
            return Err(Failure::usage(format!(
                "`{}` is not a sweep: it has no sweep.toml and trials.csv",
                path.display()
            ))
            .help("`gfn sweep plan SWEEP.toml` makes one and prints its directory"));
        }
        let (text, _) = read_text(&spec)?;
        let source = Source::new(&spec.display().to_string(), text, &[])?;
        let settings = SweepSettings::take(&source, &mut source.table()?)?;
        let trials = read_table(&table)?;
        let halving = settings.halving.map(Halving::new);
        Ok(Self { path: path.to_owned(), trials, halving })
    }

    /// The sweep that a path means, if it is one: the folder, or a file in it.
    pub fn of(path: &Path) -> Option<PathBuf> {
        if path.is_dir() {
            return Some(path.to_owned());
        }
        let parent = path.parent()?;
        let planned = path.file_name()? == "sweep.toml" && parent.join("trials.csv").is_file();
        planned.then(|| if parent.as_os_str().is_empty() { ".".into() } else { parent.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The spec of its trials.
    pub fn spec(&self) -> PathBuf {
        self.path.join("sweep.toml")
    }

    /// The name of the sweep: that of its folder.
    pub fn name(&self) -> String {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        path.file_name().map_or("sweep".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The run directory of a trial.
    pub fn run(&self, trial: &Trial) -> PathBuf {
        self.path.join(trial.run())
    }

    /// What a trial said.
    pub fn log(&self, trial: &Trial) -> PathBuf {
        self.path.join("logs").join(format!("{}.log", trial.index))
    }

    /// Why the last attempt at a trial failed, if it did.
    pub fn failed(&self, trial: &Trial) -> PathBuf {
        self.path.join("logs").join(format!("{}.failed", trial.index))
    }

    /// What is locked while a trial is run.
    pub fn claim(&self, trial: &Trial) -> PathBuf {
        self.path.join(".claims").join(trial.index.to_string())
    }
}
