//! Scatters: two metrics of finished runs, or how often objects were sampled over their rewards.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::facets::{Cell, cells, scale};
use super::figure::{Figure, Mark, Panel};
use super::{Request, check_numeric};
use crate::collect::{Run, Samples, group};
use crate::error::Failure;

/// Draws points.
///
/// # Errors
/// When columns are missing or have no numbers, or runs have no samples.
pub fn draw(runs: &[Run], request: &Request) -> Result<Figure, Failure> {
    match (&request.x, &request.y[..]) {
        (None, []) => of_samples(runs, request),
        (Some(x), metrics) if !metrics.is_empty() => of_runs(runs, x, metrics, request),
        _ => Err(Failure::usage("a scatter has both -x and -y, or neither")
            .help("with neither, it shows how often objects were sampled, over their log rewards")),
    }
}

fn of_runs(
    runs: &[Run],
    x: &str,
    metrics: &[String],
    request: &Request,
) -> Result<Figure, Failure> {
    check_numeric(runs, x)?;
    metrics.iter().try_for_each(|column| check_numeric(runs, column))?;
    let points = |cell: &Cell<'_>, runs: &[&Run]| {
        Ok(runs.iter().filter_map(|run| Some([run.last(x)?, run.last(&cell.metric)?])).collect())
    };
    let caption = "a point per run, of its last row".to_owned();
    assemble(runs, metrics, x, caption, request, points)
}

fn of_samples(runs: &[Run], request: &Request) -> Result<Figure, Failure> {
    const Y: &str = "log frequency among samples";
    let points = |_: &Cell<'_>, runs: &[&Run]| {
        let mut counts: BTreeMap<String, (f64, u64)> = BTreeMap::new();
        let mut total = 0;
        for run in runs {
            let samples = Samples::read(run)?;
            total += samples.objects.len();
            for (object, log_reward) in samples.objects.into_iter().zip(samples.log_reward) {
                counts.entry(object).or_insert((log_reward, 0)).1 += 1;
            }
        }
        let point = |(log_reward, n): (f64, u64)| [log_reward, (n as f64 / total as f64).ln()];
        Ok(counts.into_values().filter(|(r, _)| r.is_finite()).map(point).collect())
    };
    let caption = "a point per sampled object, seeds together".to_owned();
    let metrics = [Y.to_owned()];
    let mut figure = assemble(runs, &metrics, "log R", caption, request, points)?;
    // A perfect sampler: ln P = log R - log Z.
    let log_z: Vec<f64> = runs.iter().filter_map(|run| run.last("log_z_exact")).collect();
    let agree = log_z.iter().all(|z| (z - log_z[0]).abs() < 1e-6);
    if log_z.len() == runs.len() && agree && !request.log.contains(&true) {
        for panel in &mut figure.panels {
            let ends = [panel.x.scale.low, panel.x.scale.high].map(|x| [x, x - log_z[0]]);
            panel.marks.insert(0, Mark::Reference { ends });
        }
        figure.caption += "; dashed: ln P* = log R − log Z";
    }
    Ok(figure)
}

/// A figure of the points of every group.
fn assemble(
    runs: &[Run],
    metrics: &[String],
    x: &str,
    caption: String,
    request: &Request,
    points: impl Fn(&Cell<'_>, &[&Run]) -> Result<Vec<[f64; 2]>, Failure>,
) -> Result<Figure, Failure> {
    let all: Vec<&Run> = runs.iter().collect();
    let groups = group(&all, &request.by);
    let (cells, columns) = cells(runs, metrics, &request.facet)?;
    let mut panels = Vec::new();
    for cell in &cells {
        let mut marks = Vec::new();
        for part in group(&cell.runs, &request.by) {
            let series = groups.iter().position(|group| group.values == part.values).unwrap_or(0);
            let mut points = points(cell, &part.runs)?;
            points.retain(|p| p.iter().zip(request.log).all(|(&value, log)| !log || value > 0.0));
            marks.push(Mark::Points { series, points });
        }
        panels.push(Panel {
            title: cell.title.clone(),
            row_title: cell.row_title.clone(),
            x: Axis { label: x.to_owned(), ..Axis::default() },
            y: Axis { label: cell.metric.clone(), ..Axis::default() },
            marks,
        });
    }
    let mut figure = Figure {
        panels,
        columns,
        legend_title: request.by.join(", "),
        legend: groups.iter().map(|group| group.label()).collect(),
        caption,
        free: request.free,
        ..Figure::default()
    };
    let of_panels: Vec<&str> = cells.iter().map(|cell| &*cell.metric).collect();
    scale(&mut figure, &of_panels, request.log, [0.05, 0.05])?;
    Ok(figure)
}
