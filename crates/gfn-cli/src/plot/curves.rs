//! Curves: a metric over what was spent, one per group of seeds.

use super::aggregate::{Aggregate, aggregate, at_equal_x, curve};
use super::axis::Axis;
use super::facets::{Cell, cells, scale};
use super::figure::{Figure, Mark, Panel};
use super::{Request, check_numeric, metrics};
use crate::collect::{Run, group};
use crate::error::Failure;

/// Draws curves.
///
/// # Errors
/// When columns are missing or have no numbers.
pub fn draw(runs: &[Run], request: &Request) -> Result<Figure, Failure> {
    let x = match &request.x {
        Some(x) => x.clone(),
        None => default_x(runs)?,
    };
    check_numeric(runs, &x)?;
    let metrics = metrics(runs, &request.y)?;
    let all: Vec<&Run> = runs.iter().collect();
    let groups = group(&all, &request.by);
    let (cells, columns) = cells(runs, &metrics, &request.facet)?;
    let mut counts = Vec::new();
    let panel = |cell: &Cell<'_>| {
        let (mut bands, mut lines) = (Vec::new(), Vec::new());
        for part in group(&cell.runs, &request.by) {
            let series = groups.iter().position(|group| group.values == part.values).unwrap_or(0);
            let aggregate = of_runs(&part.runs, &x, &cell.metric, request);
            warn_of_gaps(&aggregate, &part.label(), part.runs.len(), &x, cell, request);
            let visible =
                |p: &&[f64; 2]| (!request.log[0] || p[0] > 0.0) && (!request.log[1] || p[1] > 0.0);
            let points: Vec<[f64; 2]> = aggregate.points.iter().filter(visible).copied().collect();
            if points.is_empty() {
                continue;
            }
            counts.push(aggregate.n);
            let seen = |b: &&[f64; 3]| !request.log[0] || b[0] > 0.0;
            let band: Vec<[f64; 3]> = aggregate.band.iter().filter(seen).copied().collect();
            if band.len() > 1 {
                bands.push(Mark::Curve { series, points: Vec::new(), band });
            }
            lines.push(Mark::Curve { series, points, band: Vec::new() });
        }
        // Bands lie behind all curves.
        bands.extend(lines);
        Panel {
            title: cell.title.clone(),
            row_title: cell.row_title.clone(),
            x: Axis { label: x.clone(), ..Axis::default() },
            y: Axis { label: cell.metric.clone(), ..Axis::default() },
            marks: bands,
        }
    };
    let panels: Vec<Panel> = cells.iter().map(panel).collect();
    let mut figure = Figure {
        panels,
        columns,
        legend_title: request.by.join(", "),
        legend: groups.iter().map(|group| group.label()).collect(),
        caption: request.caption(&counts),
        free: request.free,
        ..Figure::default()
    };
    let of_panels: Vec<&str> = cells.iter().map(|cell| &*cell.metric).collect();
    scale(&mut figure, &of_panels, request.log, [0.0, 0.04])?;
    // A first evaluation takes a moment: clocks nearly start at 0.
    for scale in figure.panels.iter_mut().map(|panel| &mut panel.x.scale) {
        if !scale.log && (0.0..0.1 * scale.high).contains(&scale.low) {
            scale.low = 0.0;
        }
    }
    Ok(figure)
}

/// What runs are compared by where nobody says: the trajectories that they have sampled.
fn default_x(runs: &[Run]) -> Result<String, Failure> {
    let known = |name: &&str| runs.iter().any(|run| run.column(name).is_some());
    ["trajectories", "step"].iter().copied().find(known).map(str::to_owned).ok_or_else(|| {
        Failure::usage("the table has neither `trajectories` nor `step`")
            .help("choose a column with -x")
    })
}

fn of_runs(runs: &[&Run], x: &str, y: &str, request: &Request) -> Aggregate {
    let curves: Vec<Vec<[f64; 2]>> = runs.iter().map(|run| curve(run, x, y)).collect();
    // Rows of a table that says nothing about runs: what has the same x is repeated.
    if runs.iter().all(|run| run.rows.len() == 1 && run.column("step").is_none()) {
        return at_equal_x(curves.concat(), request.stat, request.band);
    }
    aggregate(&curves, request.stat, request.band, request.partial)
}

/// Says which runs a curve is not of, and where it stops because some do.
fn warn_of_gaps(
    aggregate: &Aggregate,
    label: &str,
    runs: usize,
    x: &str,
    cell: &Cell<'_>,
    request: &Request,
) {
    let metric = &cell.metric;
    if aggregate.n > 0 && aggregate.n < runs && aggregate.ends.is_none() && !aggregate.repeated {
        tracing::warn!("{label}: {} of {runs} runs have no `{metric}`", runs - aggregate.n);
    }
    // Clocks of different runs never end together.
    let Some((shortest, longest)) = aggregate.ends.filter(|(a, b)| b - a > 0.05 * b.abs()) else {
        return;
    };
    if x.ends_with("_s") {
        return;
    }
    match request.partial {
        true => tracing::warn!(
            "{label}: runs end between {x} {shortest} and {longest}; beyond the first the curve is of \
             those that are left"
        ),
        false => tracing::warn!(
            "{label}: runs end between {x} {shortest} and {longest}; the curve stops where the first \
             does (--partial goes on with those that are left)"
        ),
    }
}
