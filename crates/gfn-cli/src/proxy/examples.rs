//! A table of objects and their values.

use std::path::{Path, PathBuf};

use gfn_core::registry::Files;
use gfn_core::{Environment, KeyError, States};
use gfn_envs::reward::objects::{ObjectIndex, no_object, object_and_value, plain_lines};
use rayon::prelude::*;

use super::settings::ProxySettings;
use crate::data;

/// Distinct objects with their values.
#[derive(Debug)]
pub struct Examples {
    /// Terminal rows, all different.
    pub objects: States,
    /// The value of each; the mean where a table has several.
    pub values: Vec<f64>,
    /// Rows of the table.
    pub rows: usize,
    /// How many of them repeat an object.
    pub repeated: usize,
    /// How many hold an object that the environment cannot read.
    pub skipped: usize,
    /// The first of these, with its line.
    pub first_skipped: Option<(String, u64)>,
    /// The header of the values.
    pub value_name: String,
    /// The name of the file, without its folder.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// The file that is meant: a name of the catalogue stands for its file in the data directory.
fn file_of(path: &Path) -> PathBuf {
    let known = path.to_str().filter(|_| !path.exists()).and_then(data::find);
    known.map_or_else(|| path.to_owned(), |entry| entry.file.into())
}

impl Examples {
    /// Reads the table that `key` names.
    ///
    /// # Errors
    /// When it cannot be read, has other columns or values that are no numbers, or more objects that
    /// are none of the environment than the settings allow.
    pub fn read(
        env: &dyn Environment,
        files: &dyn Files,
        (key, path): (&'static str, &Path),
        settings: &ProxySettings,
    ) -> Result<Self, KeyError> {
        let path = file_of(path);
        let fail = |key: &str, message: String| {
            KeyError::new(key, format!("`{}` {message}", path.display()))
        };
        let bytes = files.read_for(key, &path)?;
        let sha256 = data::sha256(&bytes);
        let bytes = plain_lines(bytes);
        let tabs = path.extension().is_some_and(|extension| extension == "tsv");
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .delimiter(if tabs { b'\t' } else { b',' })
            .from_reader(&bytes[..]);
        let not_csv = |error| fail(key, format!("is not a CSV file: {error}"));
        let headers = reader.headers().map_err(not_csv)?;
        let columns = object_and_value(headers, &settings.object_columns, &settings.value_column);
        let (object_columns, value_column) =
            columns.map_err(|(column, message)| fail(column.unwrap_or(key), message))?;
        let value_name = headers[value_column].to_owned();

        let mut read: Vec<(String, f64, u64)> = Vec::new();
        for record in reader.records() {
            let record = record.map_err(not_csv)?;
            let line = record.position().map_or(0, csv::Position::line);
            let object: Vec<&str> = object_columns.iter().map(|&column| &record[column]).collect();
            let text = &record[value_column];
            let value = text.parse().ok().filter(|value: &f64| value.is_finite());
            let value = value.ok_or_else(|| {
                let message = format!("has the value `{text}` on line {line}; expected a number");
                fail(key, message)
            })?;
            read.push((object.join(" "), value * settings.value_scale, line));
        }
        if read.is_empty() {
            return Err(fail(key, "has no rows".to_owned()));
        }
        let parsed: Vec<Option<Vec<i32>>> =
            read.par_iter().map(|(object, ..)| env.parse(object)).collect();
        let first_skipped = parsed.iter().position(Option::is_none);
        let skipped = parsed.iter().filter(|row| row.is_none()).count();
        let share = skipped as f64 / read.len() as f64;
        if let Some(first) = first_skipped
            && (share > settings.max_skipped || skipped == read.len())
        {
            let (object, _, line) = &read[first];
            let message = format!(
                "has {skipped} of {} objects that are none of the environment, first `{object}` on \
                 line {line}, {}",
                read.len(),
                no_object(env, object)
            );
            let help = "check [env] and proxy.object_columns, or leave such rows out by a larger \
                        proxy.max_skipped";
            return Err(fail(key, message).help(help));
        }
        let mut all = States::with_capacity(env.space().width, read.len());
        let mut all_values = Vec::with_capacity(read.len());
        for (row, (_, value, _)) in parsed.iter().zip(&read) {
            if let Some(row) = row {
                all.push(row);
                all_values.push(*value);
            }
        }
        let (objects, values) = distinct(&all, &all_values);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(Self {
            rows: read.len(),
            repeated: all.len() - objects.len(),
            skipped,
            first_skipped: first_skipped.map(|i| (read[i].0.clone(), read[i].2)),
            value_name,
            file: name.to_owned(),
            sha256,
            objects,
            values,
        })
    }

    /// What is worth a note, in a sentence; empty if nothing is.
    pub fn note(&self) -> String {
        let mut notes = Vec::new();
        if let Some((object, line)) = &self.first_skipped {
            notes.push(format!(
                "{} of {} rows hold objects that are none of the environment and are left out, \
                 first `{object}` on line {line}",
                self.skipped, self.rows
            ));
        }
        if self.repeated > 0 {
            notes.push(format!("{} rows repeat an object: values are averaged", self.repeated));
        }
        match notes.is_empty() {
            true => String::new(),
            false => format!("`{}`: {}", self.file, notes.join("; ")),
        }
    }
}

/// Objects in the order of their first rows, each with the mean of its values.
fn distinct(all: &States, all_values: &[f64]) -> (States, Vec<f64>) {
    let (_, twice) = ObjectIndex::new(all);
    if twice.is_empty() {
        return (all.clone(), all_values.to_vec());
    }
    let mut sums: Vec<(f64, usize)> = all_values.iter().map(|&value| (value, 1)).collect();
    for (first, again) in twice {
        sums[first].0 += all_values[again];
        sums[first].1 += 1;
        sums[again].1 = 0;
    }
    let mut objects = States::with_capacity(all.width(), all.len());
    let mut values = Vec::with_capacity(all.len());
    for (row, (sum, n)) in all.rows().zip(sums).filter(|(_, (_, n))| *n > 0) {
        objects.push(row);
        values.push(sum / n as f64);
    }
    (objects, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_objects_have_the_mean_of_their_values() {
        let mut all = States::new(1);
        [3, 1, 3, 2, 1, 3].iter().for_each(|&cell| all.push(&[cell]));
        let (objects, values) = distinct(&all, &[1.0, 10.0, 2.0, 7.0, 20.0, 6.0]);
        assert_eq!(objects.rows().map(|row| row[0]).collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(values, [3.0, 15.0, 7.0]);
    }
}
