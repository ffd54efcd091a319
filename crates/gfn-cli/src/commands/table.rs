//! `gfn table`: final metrics of methods, each with its best hyperparameters.

use super::deliver;
use crate::args::{Best, Table};
use crate::collect::{check_key, load, select, summary, telling_keys};
use crate::error::Failure;
use crate::plot::metrics;

pub fn run(args: &Table) -> Result<(), Failure> {
    let runs = load(&args.selection.paths, args.selection.skip_damaged)?;
    let runs = select(runs, &args.selection.filter)?;
    args.by.iter().chain(&args.over).try_for_each(|key| check_key(&runs, key))?;
    let metrics = metrics(&runs, &args.y)?;
    let mut by = args.by.clone();
    if by.is_empty() {
        by = telling_keys(&runs);
        by.retain(|key| !args.over.contains(key));
    }
    let request = summary::Request {
        by,
        over: args.over.clone(),
        lower_is_better: args.best.map(|best| best == Best::Min),
        metrics,
    };
    let table = summary::summarise(&runs, &request)?;
    deliver(&table.write(args.format), args.out.as_deref())
}
