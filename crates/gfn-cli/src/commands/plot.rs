//! `gfn plot`: figures of runs.

use std::io::IsTerminal;

use super::{deliver, print};
use crate::Registry;
use crate::args::{AxisName, Plot};
use crate::collect::{load, select};
use crate::error::Failure;
use crate::plot::{Request, draw, preview, svg};

/// Characters in a line of the preview, where $COLUMNS says nothing.
const WIDTH: usize = 80;

pub fn run(registry: &Registry, args: &Plot) -> Result<(), Failure> {
    let extension = args.out.as_ref().and_then(|path| path.extension()?.to_str());
    let png = extension == Some("png");
    if let (Some(path), Some(extension)) = (&args.out, extension)
        && extension != "svg"
        && !(png && cfg!(feature = "png"))
    {
        let mut failure =
            Failure::usage(format!("`{}`: figures are written as SVG", path.display()));
        if png {
            failure = failure.help("build gfn with --features png to have it written");
        }
        return Err(failure
            .help("name it .svg; `rsvg-convert -z 2 -o fig.png fig.svg` or Inkscape converts it"));
    }
    let runs = load(&args.selection.paths, args.selection.skip_damaged)?;
    let runs = select(runs, &args.selection.filter)?;
    let unfinished = runs.iter().filter(|run| run.finished == Some(false)).count();
    if unfinished > 0 {
        tracing::warn!("{unfinished} of {} runs have not finished", runs.len());
    }
    let request = Request {
        kind: args.kind,
        x: args.x.clone(),
        y: args.y.clone(),
        by: args.by.clone(),
        facet: args.facet.clone(),
        stat: args.stat,
        band: args.band,
        log: [AxisName::X, AxisName::Y].map(|axis| args.log.contains(&axis)),
        free: args.free,
        partial: args.partial,
    };
    let figure = draw(registry, &runs, request)?;
    if args.terminal || (args.out.is_none() && std::io::stdout().is_terminal()) {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        print(&preview(&figure, columns.unwrap_or(WIDTH)))?;
        if args.out.is_none() {
            return Ok(());
        }
    }
    #[cfg(feature = "png")]
    if let Some(path) = args.out.as_ref().filter(|_| png) {
        return super::deliver_file(&crate::plot::png(&svg(&figure))?, path);
    }
    deliver(&svg(&figure), args.out.as_deref())
}
