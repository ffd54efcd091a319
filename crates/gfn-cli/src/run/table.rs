//! CSV tables that grow row by row and are cut back to a checkpoint when a run resumes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// An append-only CSV file with a header on line 1. Every row is flushed as it is written.
pub struct Table {
    path: PathBuf,
    file: File,
}

/// A cell of a metric: empty if it does not apply.
pub fn cell(value: Option<f64>) -> String {
    value.map(|value| format!("{value}")).unwrap_or_default()
}

impl Table {
    /// Opens a table for appending, and creates it with its header if it does not exist.
    ///
    /// # Errors
    /// When it cannot be written, or exists with another header.
    pub fn open(path: &Path, header: &[String]) -> Result<Self, Failure> {
        let failed = |error: &std::io::Error| Failure::write(path, error);
        let existing = std::fs::read_to_string(path).unwrap_or_default();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| failed(&error))?;
        let mut table = Self { path: path.to_owned(), file };
        match existing.lines().next() {
            None => table.row(header)?,
            Some(first) if first == line(header).trim_end() => {}
            Some(_) => {
                return Err(Failure::usage(format!(
                    "`{}` has other columns than this evaluation",
                    path.display()
                ))
                .help("move that file aside, or evaluate the same metrics again"));
            }
        }
        Ok(table)
    }

    /// Appends one row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn row(&mut self, cells: &[String]) -> Result<(), Failure> {
        self.file
            .write_all(line(cells).as_bytes())
            .and_then(|()| self.file.flush())
            .map_err(|error| Failure::write(&self.path, &error))
    }
}

/// The value of `column` in the last row whose `step` is at most `last`.
pub fn last_value(path: &Path, column: &str, last: u64) -> Option<f64> {
    let mut reader = csv::Reader::from_path(path).ok()?;
    let headers = reader.headers().ok()?.clone();
    let position = |name: &str| headers.iter().position(|header| header == name);
    let (step, column) = (position("step")?, position(column)?);
    let rows = reader.records().filter_map(Result::ok);
    let early =
        rows.filter(|row| row.get(step).is_some_and(|s| s.parse().is_ok_and(|s: u64| s <= last)));
    early.last()?.get(column)?.parse().ok()
}

/// Appends a row to a table that may have other columns: those that are new are added at the
/// end, and cells that a row does not have stay empty.
///
/// # Errors
/// When the table cannot be read or replaced.
pub fn append_merging(path: &Path, header: &[String], row: &[String]) -> Result<(), Failure> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<csv::StringRecord> = Vec::new();
    if path.exists() {
        let read = || -> Result<_, csv::Error> {
            let mut reader = csv::Reader::from_path(path)?;
            let columns = reader.headers()?.iter().map(str::to_owned).collect();
            Ok((columns, reader.records().collect::<Result<_, _>>()?))
        };
        (columns, rows) = read().map_err(|error| {
            Failure::usage(format!("`{}` cannot be read: {error}", path.display()))
                .help("move that file aside")
        })?;
    }
    let new: Vec<_> = header.iter().filter(|name| !columns.contains(name)).cloned().collect();
    columns.extend(new);
    let mut text = line(&columns);
    for record in &rows {
        let mut cells: Vec<String> = record.iter().map(str::to_owned).collect();
        cells.resize(columns.len(), String::new());
        text += &line(&cells);
    }
    let cell = |name: &String| {
        let position = header.iter().position(|own| own == name);
        position.map(|i| row[i].clone()).unwrap_or_default()
    };
    text += &line(&columns.iter().map(cell).collect::<Vec<_>>());
    super::directory::write_atomically(path, text.as_bytes())
}

/// One line of CSV.
pub fn line(cells: &[String]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).expect("memory can be written");
    let bytes = writer.into_inner().expect("memory can be flushed");
    String::from_utf8(bytes).expect("cells are UTF-8")
}

/// Drops the rows whose `step` is above `last`, and an unfinished last line.
///
/// # Errors
/// When the file cannot be read or replaced.
pub fn cut_back(path: &Path, last: u64) -> Result<(), Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::usage(format!("cannot read `{}`: {error}", path.display())));
        }
    };
    let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let Some(header) = lines.next() else {
        return std::fs::remove_file(path).map_err(|error| Failure::write(path, &error));
    };
    let column = header.trim_end().split(',').position(|name| name == "step").unwrap_or(0);
    let mut kept = header.to_owned();
    for line in lines {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let record = reader.records().next().and_then(Result::ok);
        let step = record.as_ref().and_then(|record| record.get(column)?.parse::<u64>().ok());
        if step.is_some_and(|step| step <= last) {
            kept.push_str(line);
        }
    }
    if kept != text {
        super::directory::write_atomically(path, kept.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_other_columns_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.csv");
        let own = |cells: &[&str]| cells.iter().map(|&c| c.to_owned()).collect::<Vec<_>>();
        append_merging(&path, &own(&["step", "tv"]), &own(&["1", "0.5"])).unwrap();
        append_merging(&path, &own(&["step", "elbo"]), &own(&["2", "3"])).unwrap();
        append_merging(&path, &own(&["step", "tv"]), &own(&["3", "0.1"])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,tv,elbo\n1,0.5,\n2,,3\n3,0.1,\n");
    }

    #[test]
    fn tables_are_cut_back_to_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        std::fs::write(
            &path,
            "name,step,tv\n\"a,b\",0,1\n\"a,b\",5,0.5\n\"a,b\",10,0.2\n\"a,b\",1",
        )
        .unwrap();
        cut_back(&path, 5).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "name,step,tv\n\"a,b\",0,1\n\"a,b\",5,0.5\n");
        let header = ["name", "step", "tv"].map(str::to_owned);
        let mut table = Table::open(&path, &header).unwrap();
        table.row(&["c".into(), "6".into(), cell(None)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\nc,6,\n"));
        assert_eq!(last_value(&path, "tv", 5), Some(0.5));
        assert_eq!(last_value(&path, "tv", 3), Some(1.0));
        assert_eq!(last_value(&path, "tv", 6), None);
        assert_eq!(last_value(&path, "elbo", 6), None);
        assert!(Table::open(&path, &header[..2]).is_err());
    }
}
