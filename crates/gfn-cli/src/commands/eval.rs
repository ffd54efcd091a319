//! `gfn eval`: measure a checkpoint; append the row to eval.csv and print it.

use serde_json::json;

use super::open::OpenRun;
use super::print;
use super::train::{identity, leading_columns, named};
use crate::Registry;
use crate::args::Eval;
use crate::error::{DATA, Failure};
use crate::run::table::{Table, cell, line};

pub fn run(registry: &Registry, args: &Eval) -> Result<(), Failure> {
    let OpenRun { spec, mut experiment, index } =
        OpenRun::open(registry, &args.run, &args.set, &args.checkpoint)?;
    let values =
        experiment.trainer.evaluate().map_err(|error| Failure::new(DATA, error.to_string()))?;
    let mut header = leading_columns();
    header.extend(experiment.columns.iter().map(|column| column.name.clone()));
    let counters = index.counters;
    let mut row = identity(&spec);
    let budget = [
        counters.step,
        counters.trajectories,
        counters.reward_calls,
        counters.env_steps,
        counters.grad_steps,
    ];
    row.extend(budget.map(|value| value.to_string()));
    row.push(format!("{:.3}", index.wall_s));
    row.extend(values.iter().map(|&value| cell(value)));

    let text = if args.json {
        let metrics = named(&experiment.columns, &values);
        let object = json!({
            "run": args.run.display().to_string(),
            "step": counters.step,
            "metrics": metrics,
        });
        format!("{object}\n")
    } else {
        line(&header) + &line(&row)
    };
    print(&text)?;
    Table::open(&args.run.join("eval.csv"), &header)?.row(&row)
}
