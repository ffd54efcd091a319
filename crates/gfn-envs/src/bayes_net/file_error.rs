//! Faults of data files, with their place and a remedy.

use std::fmt;
use std::path::Path;

use gfn_core::KeyError;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct FileError {
    /// The line, counted from 1, if the fault lies in one.
    pub line: Option<u64>,
    /// The column or node that is concerned.
    pub column: Option<String>,
    /// What is wrong, to be read after the file's name; names the line and the column.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl FileError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line: None, column: None, message: message.into(), help: help.into() }
    }

    pub(super) fn on(mut self, line: u64) -> Self {
        self.line = Some(line);
        self.message += &format!(", on line {line}");
        self
    }

    pub(super) fn of(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }

    /// As the error of the key that names the file.
    pub fn for_key(&self, key: &str, path: &Path) -> KeyError {
        KeyError::data(key, format!("`{}` {}", path.display(), self.message)).help(&self.help)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file {}; {}", self.message, self.help)
    }
}

impl std::error::Error for FileError {}
