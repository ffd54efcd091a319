//! The folder of one run: created, locked, compared with the spec, moved aside.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::spec::flatten;

/// An open run directory; nobody else can train in it meanwhile.
pub struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = ".lock";

impl RunDirectory {
    /// Creates the folder if needed and locks it.
    ///
    /// # Errors
    /// When it cannot be written, or another trainer uses it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |error: std::io::Error| {
            Failure::usage(format!(
                "cannot write to the run directory `{}`: {error}",
                path.display()
            ))
            .help("choose another place with --out DIR")
        };
        std::fs::create_dir_all(path.join("checkpoints")).map_err(refuse)?;
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join(LOCK))
            .map_err(refuse)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(path.join(LOCK)).unwrap_or_default();
                return Err(Failure::usage(format!(
                    "another `gfn train` (process {}) is using `{}`",
                    owner.trim(),
                    path.display()
                ))
                .help("wait for it, stop it, or choose another --name, --seed or --out"));
            }
            // File systems without locks: go on rather than refuse to work at all.
            Err(TryLockError::Error(error)) => {
                tracing::warn!("`{}` cannot be locked: {error}", path.display());
            }
        }
        let process = format!("{}\n", std::process::id());
        lock.set_len(0).and_then(|()| lock.write_all(process.as_bytes())).map_err(refuse)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Replaces a file in one step.
    ///
    /// # Errors
    /// When it cannot be written; the old content is then still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        write_atomically(&self.file(name), bytes)
    }

    /// Removes a marker, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = std::fs::remove_file(self.file(name));
    }
}

/// Writes beside the file, then renames: readers see the old content or the new, never half.
///
/// # Errors
/// When it cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let partial = path.with_file_name(format!(".{name}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        Failure::write(path, &error)
    })
}

/// Makes renames in a folder durable.
///
/// # Errors
/// When the folder cannot be synchronised.
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Moves an existing run aside, to the first free `<name>.old-<n>`.
///
/// # Errors
/// When it cannot be moved.
pub fn move_aside(path: &Path) -> Result<Option<PathBuf>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    // A trainer that is still writing would go on writing into the moved folder.
    drop(RunDirectory::open(path)?);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("run");
    let aside = (1..)
        .map(|n| path.with_file_name(format!("{name}.old-{n}")))
        .find(|aside| !aside.exists())
        .expect("some number is free");
    std::fs::rename(path, &aside).map_err(|error| {
        Failure::usage(format!("cannot move `{}` aside: {error}", path.display()))
    })?;
    Ok(Some(aside))
}

/// The dotted keys in which two resolved specs differ, with both values.
pub fn differences(old: &toml::Table, new: &toml::Table) -> Vec<(String, String, String)> {
    let texts = |table| -> BTreeMap<String, String> {
        flatten(table).into_iter().map(|(key, value)| (key, value.to_string())).collect()
    };
    let (old, new) = (texts(old), texts(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "(absent)".to_owned());
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| (key.clone(), show(old.get(key)), show(new.get(key))))
        .collect()
}

/// The spec of the run in `path`.
///
/// # Errors
/// When there is no run.
pub fn spec_of_run(path: &Path) -> Result<PathBuf, Failure> {
    let spec = path.join("spec.toml");
    if spec.is_file() {
        return Ok(spec);
    }
    Err(Failure::usage(format!("`{}` is not a run directory: it has no spec.toml", path.display()))
        .help("give the directory that `gfn train` printed, for example results/quickstart/s0"))
}
