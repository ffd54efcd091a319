//! Data files of experiments: which there are, where they lie and how they are got.
//!
//! The program ships none of them. Each is known by its SHA-256 ([`CATALOGUE`]), lies in a data
//! directory ([`data_dir`]), and gets there by [`fetch`] from its public source or by [`import`]
//! from a file that is at hand; both check the hash before the file appears under its name.

mod catalogue;
mod convert;
mod directory;
mod fetch;
mod import;
mod partial_file;
mod pickle;
mod seh;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use catalogue::{CATALOGUE, DataFile, find, find_by_file};
pub use convert::Convert;
pub use directory::{data_dir, data_dir_from};
pub use fetch::{FetchOptions, fetch};
pub use import::import;

/// The largest file that is fetched or imported, in bytes; files are converted in memory.
pub const LARGEST: u64 = 512 << 20;

/// What is wrong, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataErrorKind {
    /// A file is not there.
    Missing,
    /// No source could be reached, or the connection broke.
    Network,
    /// A file is not the expected one.
    Damaged,
    /// The data directory cannot be written.
    Write,
}

/// Why a data file could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DataError {
    /// What happened, with the file or the address.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// What is wrong, in one word.
    pub kind: DataErrorKind,
}

impl DataError {
    fn new(kind: DataErrorKind, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, kind }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    fn write(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot write `{}`: {error}", path.display());
        Self::new(DataErrorKind::Write, message)
            .help("make room or give access there, or name another data directory with GFN_DATA")
    }
}

/// How a file came to be in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already.
    Present(PathBuf),
    /// It was installed and is the expected file.
    Installed(PathBuf),
    /// It was installed, but no hash is known to compare this SHA-256 with.
    Unchecked(PathBuf, String),
}

impl Outcome {
    /// Where the file lies.
    pub fn path(&self) -> &Path {
        match self {
            Self::Present(path) | Self::Installed(path) | Self::Unchecked(path, _) => path,
        }
    }
}

/// The path of a file in the data directory, once its hash is checked.
///
/// # Errors
/// When it is missing or damaged, with the way to get it.
pub fn installed(entry: &DataFile, dir: &Path) -> Result<PathBuf, DataError> {
    let path = dir.join(entry.file);
    let shown = path.display();
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            DataError::new(DataErrorKind::Missing, format!("`{shown}` is missing"))
                .help(entry.remedy())
        }
        _ => DataError::new(DataErrorKind::Damaged, format!("cannot read `{shown}`: {error}"))
            .help(entry.remedy()),
    })?;
    let found = sha256(&bytes);
    match entry.sha256 {
        Some(expected) if expected != found => {
            let message = format!("`{shown}` is damaged: {}", differ(&found, expected));
            Err(DataError::new(DataErrorKind::Damaged, message).help(entry.remedy()))
        }
        _ => Ok(path),
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Both hashes in words.
fn differ(found: &str, expected: &str) -> String {
    format!("its SHA-256 is {found}, expected {expected}")
}

/// Creates the data directory.
fn create(dir: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(dir).map_err(|error| {
        let message = format!("cannot create the data directory `{}`: {error}", dir.display());
        DataError::new(DataErrorKind::Write, message)
            .help("name another data directory with GFN_DATA")
    })
}

/// Puts checked content into the data directory in one step: readers see all of it or nothing.
fn install(entry: &DataFile, dir: &Path, bytes: &[u8]) -> Result<Outcome, DataError> {
    let path = dir.join(entry.file);
    // The number of the process keeps two programs from writing into one file.
    let partial = dir.join(format!(".{}.{}.partial", entry.file, std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, &path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        DataError::write(&path, &error)
    })?;
    // The content is safe; folders cannot be synchronised everywhere.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(match entry.sha256 {
        Some(_) => Outcome::Installed(path),
        None => Outcome::Unchecked(path, sha256(bytes)),
    })
}
