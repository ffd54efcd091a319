//! How far a trial is, by the files of its run directory alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::run::directory::write_atomically;

/// What a run had reached at some budget.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Reached {
    /// Training trajectories.
    pub trajectories: u64,
    /// Seconds.
    #[serde(default)]
    pub wall_s: f64,
    /// The last evaluation; `null` where a metric does not apply.
    #[serde(default)]
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// Results at the ends of rungs, in the run directory: a run that is trained on forgets them.
const RUNGS: &str = "rungs.jsonl";

/// Everything that a run has reached: ends of rungs, then its own end.
pub fn reached(run: &Path) -> Vec<Reached> {
    let text = std::fs::read_to_string(run.join(RUNGS)).unwrap_or_default();
    let mut all: Vec<Reached> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if let Some(end) = finished(run)
        && !all.iter().any(|other| other.trajectories == end.trajectories)
    {
        all.push(end);
    }
    all
}

/// What a run has reached, if it is over.
pub fn finished(run: &Path) -> Option<Reached> {
    serde_json::from_slice(&std::fs::read(run.join("DONE")).ok()?).ok()
}

/// Keeps what a run has reached, before it is trained on.
///
/// # Errors
/// When it cannot be written.
pub fn keep(run: &Path) -> Result<(), Failure> {
    let path = run.join(RUNGS);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let Some(end) = finished(run) else { return Ok(()) };
    let kept = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Reached>(line).ok())
        .any(|other| other.trajectories == end.trajectories);
    if kept {
        return Ok(());
    }
    let line = serde_json::to_string(&end).expect("numbers are JSON");
    write_atomically(&path, format!("{text}{line}\n").as_bytes())
}

/// Which way a column of a run improves, as its metrics.schema.json says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Header.
    pub name: String,
    /// `lower`, `higher` or `neither`.
    pub better: String,
    /// Its place among the columns that sum a run up, if it is one of them.
    pub headline: Option<u8>,
}

/// The columns of a run's metrics.csv; none if it has not started.
pub fn columns(run: &Path) -> Option<Vec<Column>> {
    serde_json::from_slice(&std::fs::read(run.join("metrics.schema.json")).ok()?).ok()
}

/// The last value of the metric that sums a run up: the preferred one, or else the first that improves
/// one way and has a value.
pub fn headline(run: &Path, preferred: Option<&str>) -> Option<(String, f64)> {
    let table = run.join("metrics.csv");
    if let Some(name) = preferred {
        return Some((name.to_owned(), last_cell(&table, name)?));
    }
    let mut columns = columns(run)?;
    columns.retain(|column| column.better != "neither");
    // Runs of earlier versions do not say what sums them up: the order of their columns is left.
    columns.sort_by_key(|column| column.headline.unwrap_or(u8::MAX));
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let values = last_cells(&table, &names);
    let mut named = names.into_iter().zip(values);
    named.find_map(|(name, value)| Some((name.to_owned(), value?)))
}

/// Training trajectories behind a run, by its tables.
pub fn trajectories(run: &Path, batch: u64) -> u64 {
    let steps = last_cell(&run.join("train.csv"), "step").unwrap_or(0.0) as u64;
    let evaluated = last_cell(&run.join("metrics.csv"), "trajectories").unwrap_or(0.0) as u64;
    evaluated.max(steps.saturating_mul(batch))
}

/// The last value of a column of a table of a run, reading no more than its ends.
pub fn last_cell(table: &Path, column: &str) -> Option<f64> {
    last_cells(table, &[column]).pop()?
}

/// The last values of columns of a table of a run.
pub fn last_cells(table: &Path, columns: &[&str]) -> Vec<Option<f64>> {
    let none = || vec![None; columns.len()];
    let Ok((header, last)) = ends(table) else { return none() };
    let cells = |line: &str| -> Option<csv::StringRecord> {
        let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        reader.into_records().next()?.ok()
    };
    let (Some(header), Some(last)) = (cells(&header), cells(&last)) else { return none() };
    let value = |column: &&str| {
        let i = header.iter().position(|name| name == *column)?;
        last.get(i)?.parse().ok()
    };
    columns.iter().map(value).collect()
}

/// The first line and the last complete one.
fn ends(table: &Path) -> std::io::Result<(String, String)> {
    use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
    const TAIL: u64 = 16 << 10;
    let mut reader = BufReader::new(std::fs::File::open(table)?);
    let mut header = String::new();
    let start = reader.read_line(&mut header)? as u64;
    let length = reader.get_ref().metadata()?.len();
    reader.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL))))?;
    let mut tail = Vec::new();
    reader.read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    // What stands after the last line break is being written.
    let whole = tail.rfind('\n').map_or("", |end| &tail[..end]);
    let last = whole.rsplit('\n').next().unwrap_or("").to_owned();
    Ok((header, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_rungs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        assert!(reached(run).is_empty());
        keep(run).unwrap();
        let end = |n: u64, tv: f64| {
            let text = format!(
                "{{ \"run\": \"x\", \"step\": 1, \"trajectories\": {n}, \"wall_s\": 0.5, \
                 \"metrics\": {{ \"tv_exact\": {tv}, \"modes\": null }} }}"
            );
            std::fs::write(run.join("DONE"), text).unwrap();
        };
        end(100, 0.5);
        keep(run).unwrap();
        keep(run).unwrap();
        std::fs::remove_file(run.join("DONE")).unwrap();
        assert_eq!(reached(run).len(), 1);
        end(300, 0.25);
        let all = reached(run);
        let values: Vec<_> = all.iter().map(|r| (r.trajectories, r.metrics["tv_exact"])).collect();
        assert_eq!(values, [(100, Some(0.5)), (300, Some(0.25))]);
        assert_eq!(all[0].metrics["modes"], None);
    }

    #[test]
    fn last_rows_are_found_and_unfinished_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.csv");
        let mut text = "step,loss,note\n".to_owned();
        (0..5000).for_each(|i| text += &format!("{i},0.5,\"a,b\"\n"));
        std::fs::write(&path, text + "5000,0.2").unwrap();
        assert_eq!(last_cell(&path, "step"), Some(4999.0));
        assert_eq!(last_cells(&path, &["loss", "note", "other"]), [Some(0.5), None, None]);
        std::fs::write(&path, "step,loss\n").unwrap();
        assert_eq!(last_cell(&path, "step"), None);
        assert_eq!(last_cell(&dir.path().join("absent"), "step"), None);
    }
}
