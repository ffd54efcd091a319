//! The first line of a CSV file: names of variables, and how fields are separated.

use std::collections::BTreeSet;

use super::file_error::FileError;
use super::graph::MAX_NODES;

/// A reader with the separator of the first line.
pub(super) fn reader_of(bytes: &[u8]) -> csv::Reader<&[u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let header = bytes.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let separator = [b',', b';', b'\t', b' '].into_iter().find(|byte| header.contains(byte));
    csv::ReaderBuilder::new()
        .delimiter(separator.unwrap_or(b','))
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(bytes)
}

/// The first line of a file.
pub(super) struct Header {
    /// All its fields.
    pub(super) headers: Vec<String>,
    /// Which of them has the targets of interventions.
    pub(super) target: Option<usize>,
    /// Which are variables.
    pub(super) variables: Vec<usize>,
    /// Names of the variables.
    pub(super) names: Vec<String>,
}

impl Header {
    pub(super) fn read(
        reader: &mut csv::Reader<&[u8]>,
        interventions: Option<&str>,
    ) -> Result<Self, FileError> {
        let headers = reader.headers().map_err(|error| not_csv(&error))?;
        let headers: Vec<String> = headers.iter().map(str::to_owned).collect();
        check_header(&headers)?;
        let target = interventions.map(|name| find_target(&headers, name)).transpose()?;
        let variables: Vec<usize> = (0..headers.len()).filter(|&k| Some(k) != target).collect();
        let names: Vec<String> = variables.iter().map(|&k| headers[k].clone()).collect();
        if !(1..=MAX_NODES).contains(&names.len()) {
            let message = format!("has {} variables; expected 1 to {MAX_NODES}", names.len());
            return Err(FileError::new(message, "keep only the columns to learn a network of"));
        }
        Ok(Self { headers, target, variables, names })
    }
}

pub(super) fn not_csv(error: &csv::Error) -> FileError {
    FileError::new(format!("is not a CSV file: {error}"), "save it as UTF-8 text with a header")
}

fn check_header(headers: &[String]) -> Result<(), FileError> {
    let mut seen = BTreeSet::new();
    for (k, name) in headers.iter().enumerate() {
        if name.is_empty() {
            let message = format!("has no name for column {}", k + 1);
            return Err(FileError::new(
                message,
                "name every column in the header; if it counts rows, leave it out",
            )
            .on(1));
        }
        if !seen.insert(name.as_str()) {
            let message = format!("has two columns named `{name}`");
            return Err(FileError::new(message, "give every column its own name").of(name).on(1));
        }
    }
    if !headers.is_empty() && headers.iter().all(|name| name.parse::<f64>().is_ok()) {
        let message = "has numbers where the names of the columns are expected";
        return Err(FileError::new(message, "add a header with names that are no numbers").on(1));
    }
    Ok(())
}

fn find_target(headers: &[String], name: &str) -> Result<usize, FileError> {
    headers.iter().position(|header| header == name).ok_or_else(|| {
        let message = format!("has no column `{name}` with the targets of interventions");
        FileError::new(message, format!("its columns are {}", headers.join(", "))).of(name)
    })
}
