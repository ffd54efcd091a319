//! `gfn eval`: measure a checkpoint; append the row to eval.csv and print it.

use serde_json::json;

use super::open::OpenRun;
use super::print;
use crate::Registry;
use crate::args::Eval;
use crate::error::Failure;
use crate::run::metrics;
use crate::run::table::{append_merging, line};

pub fn run(registry: &Registry, args: &Eval) -> Result<(), Failure> {
    let OpenRun { spec, mut experiment, index } =
        OpenRun::open(registry, &args.run, &args.set, &args.checkpoint)?;
    let values = experiment.trainer.evaluate()?;
    let header = metrics::header(&experiment.columns);
    let clocks = metrics::clocks(&args.run, index.counters.step);
    let row = metrics::row(&spec, &index.counters, clocks, &values);
    let text = if args.json {
        let metrics = metrics::named(&experiment.columns, &values);
        let object = json!({
            "run": args.run.display().to_string(),
            "step": index.counters.step,
            "metrics": metrics,
        });
        format!("{object}\n")
    } else {
        line(&header) + &line(&row)
    };
    print(&text)?;
    append_merging(&args.run.join("eval.csv"), &header, &row)
}
