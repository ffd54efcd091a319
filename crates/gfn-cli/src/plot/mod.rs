//! Figures of runs. Each kind of picture turns runs into a [`figure::Figure`] (panels, axes, marks in
//! data coordinates), which is written as SVG or previewed in a terminal.
//!
//! The SVG is written here and not by a library. kuva 0.6 gave panels that share an axis different
//! ranges, let labels of ticks run into each other and takes a minute to compile; plotters 0.3 rounds
//! to whole pixels, cuts dashed curves into hundreds of pieces and has no legend for several panels.
//! Curves with bands, shared axes and a legend need a few hundred lines.

mod aggregate;
mod axis;
mod bars;
mod curves;
mod facets;
mod figure;
mod heatmap;
#[cfg(feature = "png")]
mod png;
mod scatter;
mod style;
mod svg;
mod terminal;

use clap::ValueEnum;

pub use aggregate::Band;
pub use figure::Figure;
#[cfg(feature = "png")]
pub use png::png;
pub use svg::svg;
pub use terminal::preview;

use crate::collect::{Run, check_key, telling_keys};
use crate::error::{Failure, closest};
use crate::run::metrics::{budget_columns, identity_columns};
use crate::stats::Statistic;

/// Kinds of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A column over another, a curve per group.
    Curves,
    /// Points: one per run, or one per sampled object.
    Scatter,
    /// Samples of hypergrids in their first two dimensions.
    Heatmap,
    /// Final values, a bar per group.
    Bars,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Request {
    /// Kind of picture.
    pub kind: Kind,
    /// Column along x, if it was said.
    pub x: Option<String>,
    /// Columns along y, if they were said.
    pub y: Vec<String>,
    /// Keys that tell curves apart, if they were said.
    pub by: Vec<String>,
    /// Keys that tell panels apart.
    pub facet: Vec<String>,
    /// What is drawn of several seeds.
    pub stat: Statistic,
    /// The band around it.
    pub band: Band,
    /// Logarithmic axes, x and y.
    pub log: [bool; 2],
    /// Axes of their own for every panel.
    pub free: bool,
    /// Curves go on past the end of their shortest run.
    pub partial: bool,
}

impl Request {
    /// What is shown of groups of so many runs each.
    fn caption(&self, counts: &[usize]) -> String {
        let (fewest, most) =
            (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        if most < 2 {
            return String::new();
        }
        let runs = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
        let band = self.band.name().map(|band| format!("; {band}")).unwrap_or_default();
        format!("{} of {runs} runs{band}", self.stat.name())
    }
}

/// Draws runs.
///
/// # Errors
/// With the column or key that is missing or has no numbers, or what the runs lack.
pub fn draw(registry: &crate::Registry, runs: &[Run], request: Request) -> Result<Figure, Failure> {
    let mut request = request;
    for key in request.by.iter().chain(&request.facet) {
        check_key(runs, key)?;
    }
    if request.facet.len() > 2 {
        return Err(Failure::usage("--facet takes one key, or two for rows and columns"));
    }
    if request.by.is_empty() {
        request.by = telling_keys(runs);
        if request.by != ["name"] {
            request.by.retain(|key| !request.facet.contains(key));
        }
    }
    match request.kind {
        Kind::Curves => curves::draw(runs, &request),
        Kind::Bars => bars::draw(runs, &request),
        Kind::Scatter => scatter::draw(runs, &request),
        Kind::Heatmap => heatmap::draw(registry, runs, &request),
    }
}

/// Refuses a column that no run has, or that nowhere has a number.
///
/// # Errors
/// With a suggestion.
pub fn check_numeric(runs: &[Run], column: &str) -> Result<(), Failure> {
    let mut names: Vec<&str> =
        runs.iter().flat_map(|run| run.header.iter()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if !names.contains(&column) {
        let failure = Failure::usage(format!("no run has a column `{column}`"));
        return Err(match closest(column, names.iter().copied()) {
            Some(meant) => failure.help(format!("did you mean `{meant}`?")),
            None => failure.help(format!("columns: {}", names.join(", "))),
        });
    }
    let mut word = None;
    for run in runs {
        let Some(place) = run.column(column) else { continue };
        if (0..run.rows.len()).any(|row| run.number(row, place).is_some()) {
            return Ok(());
        }
        word = word.or_else(|| run.rows.iter().map(|row| &row[place]).find(|c| !c.is_empty()));
    }
    Err(match word {
        Some(word) => Failure::usage(format!("the column `{column}` has no numbers, but `{word}`")),
        None => Failure::usage(format!("no run has a value of `{column}`"))
            .help("a metric that does not apply to an experiment is empty"),
    })
}

/// The metrics that were asked for, or the first one that has values.
///
/// # Errors
/// As [`check_numeric`], or when there is no metric.
pub fn metrics(runs: &[Run], asked: &[String]) -> Result<Vec<String>, Failure> {
    if !asked.is_empty() {
        asked.iter().try_for_each(|column| check_numeric(runs, column))?;
        return Ok(asked.to_vec());
    }
    let leading =
        |name: &str| identity_columns().chain(budget_columns()).any(|known| known == name);
    let mut names = runs.iter().flat_map(|run| run.header.iter());
    let first = names
        .find(|name| !leading(name) && !name.contains('.') && check_numeric(runs, name).is_ok());
    let first = first.ok_or_else(|| {
        Failure::usage("no run has a metric with values").help("choose a column with -y")
    })?;
    Ok(vec![first.clone()])
}
