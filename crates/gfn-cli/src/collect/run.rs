//! One run as data: what it is called, its spec's keys, and its rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::StringRecord;

use crate::error::Failure;
use crate::run::metrics::identity_columns;
use crate::spec::flatten;

/// A run, from its directory or from rows of a table.
#[derive(Clone, Debug)]
pub struct Run {
    /// The run directory, or the table.
    pub path: PathBuf,
    /// Keys of its spec, dotted, with their values (or what a table says of it beside its columns).
    pub keys: Vec<(String, String)>,
    /// Names of the columns.
    pub header: Arc<[String]>,
    /// Rows, all as long as the header.
    pub rows: Vec<StringRecord>,
    /// Whether it has run to its end, where that can be known.
    pub finished: Option<bool>,
}

impl Run {
    /// Reads a run directory. Of metrics.csv only complete lines count: the run may be going on.
    ///
    /// # Errors
    /// With the damaged file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let spec_path = path.join("spec.toml");
        let spec: toml::Table =
            read_text(&spec_path)?.parse().map_err(|error: toml::de::Error| {
                damaged(&spec_path, &format!("it is not TOML: {}", error.message()))
            })?;
        // `sweep` says how this run came about, not what it is.
        let own = flatten(&spec).into_iter().filter(|(key, _)| !key.starts_with("sweep."));
        let text =
            |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let keys = own.map(|(key, value)| (key, text(value))).collect();
        let table = path.join("metrics.csv");
        let text = read_text(&table)?;
        let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
        let (header, rows) = parse(&table, complete)?;
        if !header.is_empty() && !header.iter().any(|name| name == "step") {
            return Err(damaged(&table, "it has no column `step`"));
        }
        let finished = Some(path.join("DONE").is_file());
        Ok(Self { path: path.to_owned(), keys, header: header.into(), rows, finished })
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|found| found == name)
    }

    /// The finite number in a cell, if it is one.
    pub fn number(&self, row: usize, column: usize) -> Option<f64> {
        number(self.rows.get(row)?.get(column)?)
    }

    /// What a key of the spec, or a column that never changes, is in this run. `backward.kind` is
    /// the column `backward`.
    pub fn value(&self, key: &str) -> Option<&str> {
        let column = column_of_key(key).unwrap_or(key);
        if let Some(column) = self.column(column) {
            let first = self.rows.first()?.get(column)?;
            let constant = self.rows.iter().all(|row| row.get(column) == Some(first));
            return (constant && !first.is_empty()).then_some(first);
        }
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// Names that [`value`](Self::value) may know: columns and keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.iter().chain(self.keys.iter().map(|(name, _)| name)).map(String::as_str)
    }

    /// The last finite number of a column, with its row.
    pub fn last(&self, column: &str) -> Option<f64> {
        self.number(self.rows.len().checked_sub(1)?, self.column(column)?)
    }
}

/// The finite number that a cell is, if it is one.
pub fn number(cell: &str) -> Option<f64> {
    cell.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// The identity column that says the same as a key of the spec.
pub fn column_of_key(key: &str) -> Option<&'static str> {
    let kind_of = key.strip_suffix(".kind");
    identity_columns().find(|&column| column == kind_of.unwrap_or(key))
}

/// A file as text.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|_| damaged(path, "it is not UTF-8 text"))
}

/// The header and rows of a table.
///
/// # Errors
/// When rows are not as long as the header, or a name occurs twice.
pub fn parse(path: &Path, text: &str) -> Result<(Vec<String>, Vec<StringRecord>), Failure> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let why = |error: csv::Error| damaged(path, &error.to_string());
    let header: Vec<String> =
        reader.headers().map_err(why)?.iter().map(|name| name.trim().to_owned()).collect();
    if let Some((i, name)) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name))
    {
        return Err(damaged(path, &format!("column {} is called `{name}` like another", i + 1)));
    }
    let rows = reader.records().collect::<Result<_, _>>().map_err(why)?;
    Ok((header, rows))
}

fn damaged(path: &Path, why: &str) -> Failure {
    Failure::usage(format!("`{}` cannot be used: {why}", path.display()))
        .help("move it aside, or leave such runs out with --skip-damaged")
}
