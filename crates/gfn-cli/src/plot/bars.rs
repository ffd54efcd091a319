//! Bars: final values of a metric, one per group of seeds, with intervals.

use super::axis::{Axis, Scale};
use super::facets::{Cell, cells, scale};
use super::figure::{Figure, Mark, Panel};
use super::{Request, metrics};
use crate::collect::{Run, group};
use crate::error::Failure;

/// Draws the last row of every run.
///
/// # Errors
/// When columns are missing or have no numbers.
pub fn draw(runs: &[Run], request: &Request) -> Result<Figure, Failure> {
    if request.x.is_some() {
        return Err(Failure::usage("bars show the last row of runs: they have no -x")
            .help("choose the metric with -y"));
    }
    if request.log[1] {
        return Err(Failure::usage("bars lie along x, where values are: --log x"));
    }
    let metrics = metrics(runs, &request.y)?;
    let all: Vec<&Run> = runs.iter().collect();
    let groups = group(&all, &request.by);
    let (cells, columns) = cells(runs, &metrics, &request.facet)?;
    let categories: Vec<String> = groups.iter().map(|group| group.label()).collect();
    let mut counts = Vec::new();
    let panel = |cell: &Cell<'_>| {
        let mut marks = Vec::new();
        for part in group(&cell.runs, &request.by) {
            let category = groups.iter().position(|group| group.values == part.values).unwrap_or(0);
            let values: Vec<f64> =
                part.runs.iter().filter_map(|run| run.last(&cell.metric)).collect();
            if values.len() < part.runs.len() {
                let (label, metric) = (part.label(), &cell.metric);
                let missing = part.runs.len() - values.len();
                tracing::warn!("{label}: {missing} runs have no `{metric}` in their last row");
            }
            if values.is_empty() {
                continue;
            }
            counts.push(values.len());
            let value = request.stat.of(&mut values.clone());
            let interval = request.band.around(&values, request.stat, value);
            marks.push(Mark::Bar { category, value, interval });
        }
        Panel {
            title: cell.title.clone(),
            row_title: cell.row_title.clone(),
            x: Axis { label: cell.metric.clone(), ..Axis::default() },
            y: Axis { categories: categories.clone(), ..Axis::default() },
            marks,
        }
    };
    let panels: Vec<Panel> = cells.iter().map(panel).collect();
    let caption = request.caption(&counts);
    let mut figure = Figure { panels, columns, caption, free: request.free, ..Figure::default() };
    scale_bars(&mut figure, &cells, request)?;
    Ok(figure)
}

/// Lengths of bars start at 0, so that axis has to show it.
fn scale_bars(figure: &mut Figure, cells: &[Cell<'_>], request: &Request) -> Result<(), Failure> {
    // Metrics lie along x here: what panels share is found as for y of other figures.
    for panel in &mut figure.panels {
        std::mem::swap(&mut panel.x, &mut panel.y);
    }
    let metrics: Vec<&str> = cells.iter().map(|cell| &*cell.metric).collect();
    scale(figure, &metrics, [false, request.log[0]], [0.0, 0.04])?;
    for panel in &mut figure.panels {
        std::mem::swap(&mut panel.x, &mut panel.y);
        if !panel.x.scale.log {
            panel.x.scale.low = panel.x.scale.low.min(0.0);
            panel.x.scale.high = panel.x.scale.high.max(0.0);
        }
        // The first category is on top.
        let low = panel.y.categories.len() as f64 - 0.5;
        panel.y.scale = Scale { log: false, low, high: -0.5 };
    }
    Ok(())
}
