//! Small multiples: which runs go into which panel, and axes that panels share.

use std::collections::BTreeMap;

use super::axis::{Axis, Scale};
use super::figure::Figure;
use crate::collect::{Run, group};
use crate::error::Failure;
use crate::run::metrics::identity_columns;

/// Panels of one kind in a row, when nothing says how many.
const WRAP: usize = 4;

/// What goes into one panel.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    /// Above the panel.
    pub title: String,
    /// Beside the row, on its last panel.
    pub row_title: String,
    /// The metric.
    pub metric: String,
    /// The runs.
    pub runs: Vec<&'a Run>,
}

/// The panels, row by row, and how many there are in a row: one per metric and value of the first
/// key, or by two keys for rows and columns.
///
/// # Errors
/// When there are more ways to go than rows and columns.
pub fn cells<'a>(
    runs: &'a [Run],
    metrics: &[String],
    facet: &[String],
) -> Result<(Vec<Cell<'a>>, usize), Failure> {
    let all: Vec<&Run> = runs.iter().collect();
    let cell = |title: String, row_title: String, metric: &String, runs: Vec<&'a Run>| Cell {
        title,
        row_title,
        metric: metric.clone(),
        runs,
    };
    let groups = |runs: &[&'a Run], key: &String| group(runs, std::slice::from_ref(key));
    Ok(match (metrics, facet) {
        (metrics, []) => {
            let columns = wrapped(metrics.len());
            let panel = |metric| cell(String::new(), String::new(), metric, all.clone());
            (metrics.iter().map(panel).collect(), columns)
        }
        ([metric], [key]) => {
            let groups = groups(&all, key);
            let columns = wrapped(groups.len());
            let panels = groups
                .into_iter()
                .map(|group| cell(named(key, &group.values[0]), String::new(), metric, group.runs));
            (panels.collect(), columns)
        }
        (metrics, [key]) => {
            let groups = groups(&all, key);
            let panels = metrics.iter().enumerate().flat_map(|(r, metric)| {
                groups.iter().map(move |group| {
                    // The columns are named once, on top.
                    let title = if r == 0 { named(key, &group.values[0]) } else { String::new() };
                    cell(title, String::new(), metric, group.runs.clone())
                })
            });
            (panels.collect(), groups.len())
        }
        ([metric], [rows, columns]) => {
            let (by_row, by_column) = (groups(&all, rows), groups(&all, columns));
            let mut panels = Vec::new();
            for (r, row) in by_row.iter().enumerate() {
                for (c, column) in by_column.iter().enumerate() {
                    let title =
                        if r == 0 { named(columns, &column.values[0]) } else { String::new() };
                    let last = c + 1 == by_column.len();
                    let side = if last { named(rows, &row.values[0]) } else { String::new() };
                    let here =
                        |run: &&Run| run.value(columns).unwrap_or_default() == column.values[0];
                    let runs = row.runs.iter().copied().filter(here).collect();
                    panels.push(cell(title, side, metric, runs));
                }
            }
            (panels, by_column.len())
        }
        _ => {
            return Err(Failure::usage(
                "several metrics and two facets do not fit into one figure",
            )
            .help("give one -y, or one --facet"));
        }
    })
}

/// So many panels in a row that rows are about equally full.
fn wrapped(n: usize) -> usize {
    n.div_ceil(n.div_ceil(WRAP).max(1)).max(1)
}

/// What a panel says of itself: names speak for themselves, numbers do not.
fn named(key: &str, value: &str) -> String {
    match value {
        "" => format!("no {key}"),
        value if identity_columns().any(|column| column == key) && key != "seed" => {
            value.to_owned()
        }
        value => format!("{key} = {value}"),
    }
}

/// Gives every panel the scales of what it shows: along x one for all, along y one per metric, or
/// with `free` axes its own.
///
/// # Errors
/// When nothing can be drawn on an axis.
pub fn scale(
    figure: &mut Figure,
    metrics: &[&str],
    log: [bool; 2],
    margins: [f64; 2],
) -> Result<(), Failure> {
    let free = figure.free;
    let extents: Vec<_> = figure
        .panels
        .iter()
        .map(|panel| {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for (of_x, of_y) in panel.marks.iter().map(super::figure::Mark::extent) {
                x.extend(of_x);
                y.extend(of_y);
            }
            (x, y)
        })
        .collect();
    for (axis, is_x) in [(0, true), (1, false)] {
        let mut shared: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
        let place = |i: usize| (if free { i } else { 0 }, if is_x { "" } else { metrics[i] });
        for (i, (x, y)) in extents.iter().enumerate() {
            shared.entry(place(i)).or_default().extend(if is_x { x } else { y });
        }
        let scales: BTreeMap<_, Option<Scale>> = shared
            .into_iter()
            .map(|(key, values)| (key, Scale::of(values.into_iter(), log[axis], margins[axis])))
            .collect();
        if scales.values().all(Option::is_none) {
            let why = match log.contains(&true) {
                true => "no positive value for a logarithmic axis",
                false => "no value",
            };
            let name = metrics.first().copied().unwrap_or("y");
            return Err(Failure::usage(format!("nothing to draw of `{name}`: {why}"))
                .help("choose other columns with -x and -y, or leave out --log"));
        }
        for (i, panel) in figure.panels.iter_mut().enumerate() {
            let fallback = Scale { log: log[axis], low: 0.1, high: 1.0 };
            let on: &mut Axis = if is_x { &mut panel.x } else { &mut panel.y };
            on.scale = scales.get(&place(i)).copied().flatten().unwrap_or(fallback);
        }
    }
    Ok(())
}
