//! The summary of many runs: per method the setting whose mean is best, mean ± std over its seeds.

use std::path::Path;

use super::group::{Group, group};
use super::run::Run;
use crate::args::TableFormat;
use crate::error::Failure;
use crate::run::table::line;
use crate::stats::{mean, significant, std};

/// What is summarised.
#[derive(Clone, Debug)]
pub struct Request {
    /// Keys that tell methods apart: a row for each of their values.
    pub by: Vec<String>,
    /// Hyperparameters: of each method the best setting is shown.
    pub over: Vec<String>,
    /// Metrics, of the last row of each run; the first decides.
    pub metrics: Vec<String>,
    /// Which way the first metric is better, if it was said.
    pub lower_is_better: Option<bool>,
}

/// Mean and deviation of a metric over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    mean: f64,
    std: Option<f64>,
    n: usize,
}

/// A table of methods.
#[derive(Clone, Debug)]
pub struct Summary {
    keys: Vec<String>,
    metrics: Vec<String>,
    /// Values of the keys, and a cell per metric where there is one.
    rows: Vec<(Vec<String>, Vec<Option<Cell>>)>,
}

/// Summarises runs. Of settings with equal means the first wins: the smaller number.
///
/// # Errors
/// When it is not known which way the metric is better, and there is something to choose.
pub fn summarise(runs: &[Run], request: &Request) -> Result<Summary, Failure> {
    let all: Vec<&Run> = runs.iter().collect();
    let first = &request.metrics[0];
    let mut rows = Vec::new();
    for method in group(&all, &request.by) {
        let settings = group(&method.runs, &request.over);
        let chosen = match &settings[..] {
            [only] => only,
            several => best(several, &method, first, runs, request)?,
        };
        if chosen.runs.iter().any(|run| ends_early(run, &chosen.runs)) {
            tracing::warn!("{}: runs end at different steps", name(&method, chosen));
        }
        let cells = request.metrics.iter().map(|metric| cell(&chosen.runs, metric));
        rows.push(([method.values.clone(), chosen.values.clone()].concat(), cells.collect()));
    }
    let keys = [request.by.clone(), request.over.clone()].concat();
    Ok(Summary { keys, metrics: request.metrics.clone(), rows })
}

fn name(method: &Group<'_>, setting: &Group<'_>) -> String {
    let values = [&method.values[..], &setting.values[..]].concat();
    Group { values, runs: Vec::new() }.label()
}

fn ends_early(run: &Run, among: &[&Run]) -> bool {
    let end = |run: &Run| run.last("step");
    among.iter().any(|other| end(other) > end(run))
}

fn cell(runs: &[&Run], metric: &str) -> Option<Cell> {
    let values: Vec<f64> = runs.iter().filter_map(|run| run.last(metric)).collect();
    let n = values.len();
    (n > 0).then(|| Cell { mean: mean(&values), std: std(&values), n })
}

/// The setting with the best mean of the first metric.
fn best<'g, 'a>(
    settings: &'g [Group<'a>],
    method: &Group<'a>,
    metric: &str,
    runs: &[Run],
    request: &Request,
) -> Result<&'g Group<'a>, Failure> {
    let lower = match request.lower_is_better {
        Some(lower) => lower,
        None => direction(runs, metric)?,
    };
    let mut chosen: Option<(&Group<'a>, Cell)> = None;
    let mut most = 0;
    for setting in settings {
        let Some(cell) = cell(&setting.runs, metric) else { continue };
        most = most.max(cell.n);
        let better = |old: &Cell| if lower { cell.mean < old.mean } else { cell.mean > old.mean };
        if chosen.as_ref().is_none_or(|(_, old)| better(old)) {
            chosen = Some((setting, cell));
        }
    }
    let Some((setting, cell)) = chosen else { return Ok(&settings[0]) };
    if cell.n < most {
        let name = name(method, setting);
        tracing::warn!("{name}: the best setting has {} seeds, another one {most}", cell.n);
    }
    Ok(setting)
}

/// Whether lower is better, by the schemas of the runs.
fn direction(runs: &[Run], metric: &str) -> Result<bool, Failure> {
    let said = runs.iter().find_map(|run| better(&run.path.join("metrics.schema.json"), metric));
    match said.as_deref() {
        Some("lower") => Ok(true),
        Some("higher") => Ok(false),
        other => {
            let why = match other {
                Some(_) => "neither way is better",
                None => "no metrics.schema.json says which way is better",
            };
            Err(Failure::usage(format!("`{metric}`: {why}")).help("say --best min or --best max"))
        }
    }
}

fn better(schema: &Path, metric: &str) -> Option<String> {
    let text = std::fs::read(schema).ok()?;
    let columns: Vec<serde_json::Value> = serde_json::from_slice(&text).ok()?;
    let column = columns.into_iter().find(|column| column["name"] == metric)?;
    column["better"].as_str().map(str::to_owned)
}

impl Summary {
    /// The table as text.
    pub fn write(&self, format: TableFormat) -> String {
        if format == TableFormat::Csv {
            return self.csv();
        }
        let mut lines =
            vec![[self.keys.clone(), self.metrics.clone(), vec!["n".to_owned()]].concat()];
        for (values, cells) in &self.rows {
            let values =
                values.iter().map(|v| if v.is_empty() { "–".to_owned() } else { v.clone() });
            let n: Vec<usize> = cells.iter().map(|cell| cell.map_or(0, |cell| cell.n)).collect();
            let same = n.iter().all(|&count| count == n[0]);
            let n = match same {
                true => n[0].to_string(),
                false => n.iter().map(usize::to_string).collect::<Vec<_>>().join("/"),
            };
            let mut row: Vec<String> = values.collect();
            row.extend(cells.iter().map(|cell| cell.map_or_else(|| "–".to_owned(), said)));
            row.push(n);
            lines.push(row);
        }
        if format == TableFormat::Markdown {
            let rule: Vec<String> = lines[0].iter().map(|_| "---".to_owned()).collect();
            lines.insert(1, rule);
            let escaped = |cell: &String| cell.replace('|', "\\|");
            let row = |row: &Vec<String>| {
                format!("| {} |\n", row.iter().map(escaped).collect::<Vec<_>>().join(" | "))
            };
            return lines.iter().map(row).collect();
        }
        let width =
            |column: usize| lines.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let padded = |row: &Vec<String>| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        lines.iter().map(padded).collect()
    }

    fn csv(&self) -> String {
        let columns =
            self.metrics.iter().flat_map(|m| ["mean", "std", "n"].map(|s| format!("{m}_{s}")));
        let mut text = line(&self.keys.iter().cloned().chain(columns).collect::<Vec<_>>());
        for (values, cells) in &self.rows {
            let mut row = values.clone();
            for cell in cells {
                row.push(cell.map(|cell| cell.mean.to_string()).unwrap_or_default());
                row.push(
                    cell.and_then(|cell| cell.std).map(|std| std.to_string()).unwrap_or_default(),
                );
                row.push(cell.map_or(0, |cell| cell.n).to_string());
            }
            text += &line(&row);
        }
        text
    }
}

/// Mean ± std, to the digit that the deviation leaves.
fn said(cell: Cell) -> String {
    let Cell { mean, std, .. } = cell;
    let Some(std) = std.filter(|&std| std > 0.0) else {
        let mean = significant(mean, 4);
        let mean = match mean.contains(['.', 'e']) {
            true if !mean.contains('e') => mean.trim_end_matches('0').trim_end_matches('.'),
            _ => &mean,
        };
        return mean.to_owned() + if std.is_some() { " ± 0" } else { "" };
    };
    let place = std.log10().floor() as i32;
    match (-6..6).contains(&place) && mean.abs() < 1e6 {
        true => {
            let decimals = (1 - place).max(0) as usize;
            format!("{mean:.decimals$} ± {std:.decimals$}")
        }
        false => format!("{} ± {}", significant(mean, 4), significant(std, 2)),
    }
}
