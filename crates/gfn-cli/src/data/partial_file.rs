//! The file that a download grows in.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{DataError, DataErrorKind};

/// `<file>.part`, locked, and `<file>.part.etag`, which says what it is a part of.
pub struct PartialFile {
    path: PathBuf,
    origin: PathBuf,
    file: File,
    length: u64,
}

/// Where a download can go on.
pub struct Resume {
    /// Bytes that are there.
    pub start: u64,
    /// The server's mark of the version that they belong to, where it gave one.
    pub etag: String,
}

impl PartialFile {
    /// Opens the part of that file, which may be empty.
    ///
    /// # Errors
    /// When it cannot be written, or another program downloads it.
    pub fn open(target: &Path) -> Result<Self, DataError> {
        let path = beside(target, "part");
        let refuse = |error| DataError::write(&path, &error);
        let mut options = File::options();
        let file = options.create(true).read(true).append(true).open(&path).map_err(refuse)?;
        // A file system without locks is no reason to refuse.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let message = format!("another program is downloading `{}`", target.display());
            return Err(DataError::new(DataErrorKind::Write, message).help("wait for it"));
        }
        let length = file.metadata().map_err(refuse)?.len();
        Ok(Self { origin: beside(&path, "etag"), path, file, length })
    }

    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Where a download from that address can go on, if it began there.
    pub fn resume(&self, url: &str) -> Option<Resume> {
        let origin = std::fs::read_to_string(&self.origin).ok()?;
        let (begun, etag) = origin.split_once('\n')?;
        let resume = Resume { start: self.length, etag: etag.trim_end().to_owned() };
        (begun == url && self.length > 0).then_some(resume)
    }

    /// Empties the file for a new download.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restart(&mut self, url: &str, etag: &str) -> Result<(), DataError> {
        // In this order: bytes never lie beside the mark of another version.
        self.file.set_len(0).map_err(|error| DataError::write(&self.path, &error))?;
        self.length = 0;
        std::fs::write(&self.origin, format!("{url}\n{etag}\n"))
            .map_err(|error| DataError::write(&self.origin, &error))
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(|error| DataError::write(&self.path, &error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let read =
            self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_end(&mut bytes));
        read.map_err(|error| {
            let message = format!("cannot read `{}`: {error}", self.path.display());
            DataError::new(DataErrorKind::Damaged, message)
        })?;
        Ok(bytes)
    }

    /// Removes both files.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.origin);
        let _ = std::fs::remove_file(&self.path);
    }

    /// Moves it aside, to `<file>.rejected`.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn reject(self, target: &Path) -> Result<PathBuf, DataError> {
        let rejected = beside(target, "rejected");
        let _ = std::fs::remove_file(&self.origin);
        std::fs::rename(&self.path, &rejected)
            .map_err(|error| DataError::write(&rejected, &error))?;
        Ok(rejected)
    }
}

/// The path with one more extension.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
