//! Heat maps: samples of hypergrids in their first two dimensions, beside the target.

use super::Request;
use super::axis::{Axis, Scale};
use super::figure::{Figure, Mark, Panel};
use crate::collect::{Run, Samples, group};
use crate::error::Failure;
use crate::spec::Spec;
use crate::{Registry, World};

/// Up to so many states the target is enumerated.
const MOST_STATES: usize = 500_000;

/// Draws one panel per group of runs, all of one grid, with the target first where it is small
/// enough to be enumerated.
///
/// # Errors
/// When runs are not of one hypergrid of at least two dimensions, or have no samples.
pub fn draw(registry: &Registry, runs: &[Run], request: &Request) -> Result<Figure, Failure> {
    if request.x.is_some() || !request.y.is_empty() || request.log.contains(&true) {
        return Err(Failure::usage("a heat map shows samples: it has no -x, no -y and no --log"));
    }
    if let Some(other) = runs.iter().find(|run| run.value("env") != Some("hypergrid")) {
        let env = other.value("env").unwrap_or("unknown").to_owned();
        return Err(Failure::usage(format!("heat maps are of hypergrids, and not of {env}"))
            .help(format!("leave out `{}` with --where env=hypergrid", other.path.display())));
    }
    let shape =
        |run: &Run| ["env.dim", "env.side"].map(|key| run.value(key)?.parse::<usize>().ok());
    let [Some(dim), Some(side)] = shape(&runs[0]) else {
        return Err(Failure::usage("the size of the grid is not known from a table")
            .help("give run directories"));
    };
    if dim < 2 {
        return Err(Failure::usage("a heat map has two dimensions, the grid has one"));
    }
    if runs.iter().any(|run| shape(run) != shape(&runs[0])) {
        return Err(Failure::usage("the runs are of grids of different sizes")
            .help("choose one with --where env.side=8"));
    }
    let mut keys = request.by.clone();
    keys.extend(request.facet.iter().filter(|key| !request.by.contains(key)).cloned());
    let all: Vec<&Run> = runs.iter().collect();
    let mut maps: Vec<(String, Vec<Vec<f64>>)> = Vec::new();
    maps.extend(target(registry, runs, side)?.map(|map| ("target".to_owned(), map)));
    for group in group(&all, &keys) {
        maps.push((group.label(), frequencies(&group.runs, side)?));
    }
    let highest =
        maps.iter().flat_map(|(_, map)| map.iter().flatten()).copied().fold(0.0, f64::max);
    let scale = Scale { log: false, low: -0.5, high: side as f64 - 0.5 };
    let axis = |n: usize| Axis { label: format!("coordinate {n}"), scale, categories: Vec::new() };
    let panel = |(title, values): (String, Vec<Vec<f64>>)| Panel {
        title,
        row_title: String::new(),
        x: axis(1),
        y: axis(2),
        marks: vec![Mark::Cells { values, highest }],
    };
    Ok(Figure {
        columns: maps.len().div_ceil(maps.len().div_ceil(4)),
        panels: maps.into_iter().map(panel).collect(),
        caption: "shares of samples, seeds together; white: none".to_owned(),
        shades: Some((highest, "probability".to_owned())),
        ..Figure::default()
    })
}

/// Shares of samples by their first two coordinates.
fn frequencies(runs: &[&Run], side: usize) -> Result<Vec<Vec<f64>>, Failure> {
    let mut counts = vec![vec![0.0; side]; side];
    let mut total = 0.0;
    for run in runs {
        for object in Samples::read(run)?.objects {
            let mut coordinates = object.split(' ').map(str::parse::<usize>);
            let (Some(Ok(i)), Some(Ok(j))) = (coordinates.next(), coordinates.next()) else {
                return Err(strange(run, &object));
            };
            *counts
                .get_mut(i)
                .and_then(|c| c.get_mut(j))
                .ok_or_else(|| strange(run, &object))? += 1.0;
            total += 1.0;
        }
    }
    counts.iter_mut().flatten().for_each(|count| *count /= total);
    Ok(counts)
}

fn strange(run: &Run, object: &str) -> Failure {
    let path = run.path.join("samples.csv");
    Failure::usage(format!("`{}`: `{object}` is not a place of the grid", path.display()))
}

/// The exact marginal, where all runs have the same target and it is small enough.
fn target(
    registry: &Registry,
    runs: &[Run],
    side: usize,
) -> Result<Option<Vec<Vec<f64>>>, Failure> {
    let world = |run: &Run| {
        let of_world =
            |(key, _): &&(String, String)| key.starts_with("env.") || key.starts_with("reward.");
        run.keys.iter().filter(of_world).cloned().collect::<Vec<_>>()
    };
    if runs.iter().any(|run| world(run) != world(&runs[0])) {
        tracing::warn!("the runs have different targets: none is drawn");
        return Ok(None);
    }
    let limit = format!("eval.max_states={MOST_STATES}");
    let spec = Spec::load(registry, &runs[0].path.join("spec.toml"), &[limit])?;
    let Some(exact) = World::build(&spec)?.exact else { return Ok(None) };
    let mut map = vec![vec![0.0; side]; side];
    for (row, p) in exact.graph.objects().rows().zip(&exact.target.prob) {
        map[row[0] as usize][row[1] as usize] += p;
    }
    Ok(Some(map))
}
