//! Data files as libraries see them: looked for, checked, and remembered.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gfn_core::registry::Files;
use sha2::{Digest, Sha256};

use crate::data::{self, DataFile};

/// Reads data files, as named or from the data directory, and remembers what was read, for the
/// manifest.
#[derive(Debug)]
pub struct FileReader {
    data_dir: PathBuf,
    read: RefCell<Vec<(PathBuf, String)>>,
}

impl FileReader {
    /// A reader that looks for bare file names in `data_dir`, too.
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, read: RefCell::default() }
    }

    /// Absolute paths and SHA-256 of everything that has been read.
    pub fn into_read(self) -> Vec<(PathBuf, String)> {
        self.read.into_inner()
    }

    /// A file of the data directory is named without a folder.
    fn in_data_dir(&self, path: &Path) -> Option<PathBuf> {
        let bare = path.file_name() == Some(path.as_os_str());
        bare.then(|| self.data_dir.join(path))
    }
}

/// What is known of a file by its name.
fn known(path: &Path) -> Option<&'static DataFile> {
    data::find_by_file(path.file_name()?.to_str()?)
}

impl Files for FileReader {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let (path, bytes, expected) = match (std::fs::read(path), self.in_data_dir(path)) {
            (Err(error), Some(elsewhere)) if error.kind() == ErrorKind::NotFound => {
                // What lies in the data directory under a known name is what it says.
                let expected = known(path).and_then(|file| file.sha256);
                let bytes = std::fs::read(&elsewhere)?;
                (elsewhere, bytes, expected)
            }
            (read, _) => (path.to_owned(), read?, None),
        };
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        if let Some(expected) = expected.filter(|expected| *expected != hash) {
            let path = path.display();
            return Err(std::io::Error::other(format!(
                "`{path}` is damaged: its SHA-256 is {hash}, expected {expected}"
            )));
        }
        self.read.borrow_mut().push((std::path::absolute(path)?, hash));
        Ok(bytes)
    }

    fn remedy(&self, path: &Path) -> Option<String> {
        let file = known(path)?;
        let hash = file.sha256.map(|hash| format!("\nSHA-256: {hash}")).unwrap_or_default();
        let dir = self.data_dir.display();
        Some(format!("{}{hash}\ndata directory: {dir}", file.remedy()))
    }

    fn note(&self, message: &str) {
        tracing::warn!("{message}");
    }
}
