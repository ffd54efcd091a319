//! `gfn sweep`: plan, run, status, submit.

use std::path::Path;

use super::print;
use crate::Registry;
use crate::args::{Sweep, SweepCommand, SweepPlan, SweepRun, SweepStatus, SweepSubmit};
use crate::error::{Failure, say};
use crate::sweep::{self, Options, Resources, Selection, Submitted, SweepDirectory, share_cores};

pub fn run(registry: &Registry, args: &Sweep) -> Result<(), Failure> {
    match &args.command {
        Some(SweepCommand::Plan(args)) => plan(registry, args),
        Some(SweepCommand::Run(args)) => run_trials(registry, args),
        Some(SweepCommand::Status(args)) => status(args),
        Some(SweepCommand::Submit(args)) => submit(args),
        None => run_trials(registry, &args.bare),
    }
}

/// The spec or directory that is named.
fn named(args: &SweepPlan) -> Result<&Path, Failure> {
    args.spec.as_deref().ok_or_else(|| {
        Failure::usage("no sweep is given").help("for example: gfn sweep SWEEP.toml")
    })
}

fn plan(registry: &Registry, args: &SweepPlan) -> Result<(), Failure> {
    let plan = sweep::plan(registry, named(args)?, &args.set, &args.out)?;
    say(&plan.summary());
    print(&format!("{}\n", plan.sweep.path().display()))
}

/// A planned sweep, by its directory or by its spec.
fn open(path: &Path, out: &Path) -> Result<SweepDirectory, Failure> {
    match SweepDirectory::of(path) {
        Some(directory) => SweepDirectory::open(&directory),
        None => SweepDirectory::open(&sweep::place(path, out)?),
    }
}

fn run_trials(registry: &Registry, args: &SweepRun) -> Result<(), Failure> {
    let given = named(&args.plan)?;
    let sweep = match SweepDirectory::of(given) {
        Some(directory) => {
            if !args.plan.set.is_empty() {
                return Err(Failure::usage("-s beside the directory of a planned sweep").help(
                    "its trials are fixed: give the spec with -s, and --name or --out of its own",
                ));
            }
            SweepDirectory::open(&directory)?
        }
        None => {
            let plan = sweep::plan(registry, given, &args.plan.set, &args.plan.out)?;
            if !args.quiet {
                say(&plan.summary());
            }
            plan.sweep
        }
    };
    sweep::check_finished(registry, &sweep)?;
    let selection = selection(args)?;
    let n = match selection {
        Selection::All => sweep.trials.len(),
        Selection::Index(_) => 1,
        Selection::Shard(_, of) => sweep.trials.len().div_ceil(of),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (jobs, threads) =
        share_cores(args.jobs, args.threads_per_job, args.oversubscribe, n, cores)?;
    let options = Options { jobs, threads, retries: args.retries, selection, quiet: args.quiet };
    sweep::run(&sweep, options)?;
    print(&format!("{}\n", sweep.path().display()))
}

/// Which trials, by `--index` and `--shard`.
fn selection(args: &SweepRun) -> Result<Selection, Failure> {
    if let Some(index) = &args.index {
        let (text, whence) = match index.strip_prefix("env:") {
            Some(name) => {
                let value = std::env::var(name).map_err(|_| {
                    Failure::usage(format!("--index {index}: {name} is not in the environment"))
                })?;
                (value, format!(" ({name})"))
            }
            None => (index.clone(), String::new()),
        };
        return text.trim().parse().map(Selection::Index).map_err(|_| {
            Failure::usage(format!("--index: `{text}`{whence} is not the number of a trial"))
                .help("for example: --index 7, or --index env:SLURM_ARRAY_TASK_ID")
        });
    }
    if let Some(shard) = &args.shard {
        let parts = shard.split_once('/').and_then(|(i, n)| {
            Some((i.trim().parse::<usize>().ok()?, n.trim().parse::<usize>().ok()?))
        });
        return match parts {
            Some((i, n)) if (1..=n).contains(&i) => Ok(Selection::Shard(i - 1, n)),
            _ => Err(Failure::usage(format!("--shard: `{shard}` is not of the form I/N"))
                .help("for example, on three machines: --shard 1/3, --shard 2/3, --shard 3/3")),
        };
    }
    Ok(Selection::All)
}

fn status(args: &SweepStatus) -> Result<(), Failure> {
    let sweep = open(&args.sweep, &args.out)?;
    let status = sweep::status(&sweep)?;
    print(&if args.json { status.json() } else { status.table() })
}

fn submit(args: &SweepSubmit) -> Result<(), Failure> {
    let sweep = open(&args.sweep, &args.out)?;
    let resources = Resources {
        parallel: args.parallel,
        cpus: args.cpus,
        mem: args.mem.clone(),
        time: args.time.clone(),
        partition: args.partition.clone(),
        image: args.image.clone(),
        volume_claim: args.volume_claim.clone(),
        mount_path: args.mount_path.clone(),
        more: args.more.clone(),
    };
    match sweep::submit(&sweep, args.engine, &resources, args.print)? {
        Submitted::Nothing => {
            say("nothing is left to do");
            Ok(())
        }
        Submitted::Printed(text) => print(&text),
        Submitted::Handed(answer) => print(&format!("{answer}\n")),
    }
}
