//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::plot::{Band, Kind};
use crate::stats::Statistic;

/// An experiment runner for Generative Flow Networks.
///
/// Every objective, backward policy and environment from one TOML file, exactly measured.
#[derive(Debug, Parser)]
#[command(
    name = "gfn",
    version,
    after_help = "Exit codes: 0 done; 1 bug; 2 usage or spec error; \
    3 data missing; 4 diverged; 5 some trials of a sweep failed; 75 interrupted, run again to resume."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train from a spec; the same command again resumes. Prints the run directory.
    Train(Train),
    /// Evaluate a checkpoint of a run; appends to RUN/eval.csv and prints the row.
    Eval(Eval),
    /// Sample objects from a checkpoint of a run.
    Sample(Sample),
    /// Print the rewards of given objects as CSV.
    Score(Score),
    /// Print what is exactly known of a spec's target, without training.
    Exact(Exact),
    /// Run many trials of one spec: grids, lists, random search, successive halving.
    Sweep(Sweep),
    /// Resolve a spec, check it and print it completely; writes nothing.
    Check(SpecArgs),
    /// List what specs can name.
    List {
        /// env, reward, model, objective, backward, metric or device.
        axis: Option<String>,
    },
    /// Describe a kind with its keys, for example `gfn describe backward.tlm`; without a name all of them,
    /// as Markdown.
    Describe {
        /// AXIS.KIND, or one of the tables train, eval, checkpoint, log, sweep, proxy.
        what: Option<String>,
    },
    /// Print the JSON schema of specs, for editors.
    Schema,
    /// Print the completions of a shell: `gfn completions bash > ~/.local/share/bash-completion/completions/gfn`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder: `gfn man ~/.local/share/man/man1`.
    Man {
        /// The folder; pages that are there are replaced.
        folder: PathBuf,
    },
    /// Collect the metrics of many runs into one tidy CSV table.
    Collect(Collect),
    /// Draw metrics of runs: curves, bars, scatters, heat maps; SVG, or a preview in the terminal.
    Plot(Plot),
    /// Summarise final metrics: the best settings of each method, mean ± std over seeds.
    Table(Table),
    /// Make surrogate rewards of your own: networks that learn the values of a table.
    #[command(subcommand)]
    Proxy(Proxy),
    /// List, fetch and import the data files of experiments.
    #[command(subcommand)]
    Data(Data),
}

/// The subcommands of `gfn data`. Files lie in $GFN_DATA, else in $XDG_DATA_HOME/gfn, else in
/// ~/.local/share/gfn.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// List the known files with their state, as CSV.
    List,
    /// Print the data directory, or where a file lies.
    Path {
        /// A name from `gfn data list`.
        name: Option<String>,
    },
    /// Fetch a file from its public source; the same command again resumes.
    Fetch {
        /// A name from `gfn data list`, or `all`.
        name: String,
        /// Fetch from this address instead, for example a mirror.
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// No bar.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Import a file that is at hand, as published or as converted.
    Import {
        /// A name from `gfn data list`.
        name: String,
        /// The file.
        file: PathBuf,
    },
}

/// Arguments of `gfn sweep`.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "A sweep is a spec with a table [sweep]:\n\n  \
    [sweep]\n  \
    \"objective.kind\" = [\"tb\", \"db\"]\n  \
    \"train.lr\" = [1e-3, 3e-4]\n  \
    seed = { range = [1, 5] }\n\n\
    `gfn sweep SWEEP.toml` plans and runs it; the same command again goes on. See docs/sweeps.md."
)]
pub struct Sweep {
    /// Which part of it.
    #[command(subcommand)]
    pub command: Option<SweepCommand>,
    #[command(flatten)]
    pub bare: SweepRun,
}

/// The subcommands of `gfn sweep`.
#[derive(Debug, Subcommand)]
pub enum SweepCommand {
    /// Write the table of trials; prints the sweep's directory.
    ///
    /// Planned again with more seeds or values, the table grows and nothing is renumbered.
    Plan(SweepPlan),
    /// Run what is missing as child processes; a spec is planned first. Prints the directory.
    ///
    /// Keeps going after failures (exit code 5). Ctrl-C, SIGTERM or SIGUSR1 save checkpoints (exit code
    /// 75); the same command goes on. Any number of processes and machines may run the same sweep.
    Run(SweepRun),
    /// Say how a sweep stands, by its files.
    Status(SweepStatus),
    /// Hand the missing trials to a cluster, and exit.
    ///
    /// With halving, the trials of the present rung: submit again for the next.
    Submit(SweepSubmit),
}

/// Arguments of `gfn sweep plan`.
#[derive(Debug, ClapArgs)]
pub struct SweepPlan {
    /// The spec with a table [sweep]; or the directory of a planned sweep.
    #[arg(value_name = "SWEEP", required = true)]
    // An option, because a subcommand may stand in its place.
    pub spec: Option<PathBuf>,
    /// Override a key for all trials: `-s train.trajectories=1000`.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The sweep goes to DIR/<name>.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,
}

/// Arguments of `gfn sweep run`.
#[derive(Debug, ClapArgs)]
pub struct SweepRun {
    #[command(flatten)]
    pub plan: SweepPlan,
    /// Trials at a time [default: as many as there are cores].
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<usize>,
    /// Threads of each trial [default: the cores that its job has to itself].
    #[arg(long, value_name = "M")]
    pub threads_per_job: Option<usize>,
    /// Allow more threads than there are cores.
    #[arg(long)]
    pub oversubscribe: bool,
    /// Further attempts at a trial that fails.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Only the trial with this number, or with that in an environment variable: `env:NAME`.
    #[arg(long, value_name = "INDEX", conflicts_with = "shard")]
    pub index: Option<String>,
    /// Only every N-th trial, from the I-th on: `1/3`, `2/3`, `3/3`.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
    /// No table, no lines.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `gfn sweep status`.
#[derive(Debug, ClapArgs)]
pub struct SweepStatus {
    /// The directory of a planned sweep, or its spec.
    pub sweep: PathBuf,
    /// Where the sweep of a spec lies.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `gfn sweep submit`.
#[derive(Debug, ClapArgs)]
pub struct SweepSubmit {
    /// The directory of a planned sweep, or its spec.
    pub sweep: PathBuf,
    /// Where the sweep of a spec lies.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,
    /// Who runs it.
    #[arg(long, value_enum)]
    pub engine: crate::sweep::Engine,
    /// Print the script or manifest instead of handing it over.
    #[arg(long)]
    pub print: bool,
    /// Trials at a time [default: no limit].
    #[arg(long, value_name = "P")]
    pub parallel: Option<usize>,
    /// Cores, and threads, of a trial.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: usize,
    /// Memory of a trial, such as 4G (Slurm) or 4Gi (Kubernetes).
    #[arg(long)]
    pub mem: Option<String>,
    /// Slurm: time limit of a stretch of a trial, such as 04:00:00; it goes on in the next one.
    #[arg(long)]
    pub time: Option<String>,
    /// Slurm: partition.
    #[arg(long)]
    pub partition: Option<String>,
    /// Kubernetes: container image with gfn in its PATH.
    #[arg(long)]
    pub image: Option<String>,
    /// Kubernetes: PersistentVolumeClaim with the sweep's directory.
    #[arg(long, value_name = "NAME")]
    pub volume_claim: Option<String>,
    /// Kubernetes: where that is mounted; the sweep's directory is relative to it.
    #[arg(long, value_name = "PATH", default_value = "/runs")]
    pub mount_path: String,
    /// Slurm: more options of sbatch.
    #[arg(last = true, value_name = "SBATCH-OPTION")]
    pub more: Vec<String>,
}

/// The subcommands of `gfn proxy`.
#[derive(Debug, Subcommand)]
pub enum Proxy {
    /// Train a network on a table of objects and values; writes it with a card of its errors.
    ///
    /// The spec has the tables env, model and proxy (`gfn describe proxy`). The file is the `weights`
    /// of the reward `proxy`.
    Train(ProxyTrain),
}

/// Arguments of `gfn proxy train`.
#[derive(Debug, ClapArgs)]
pub struct ProxyTrain {
    /// The spec, a TOML file.
    pub spec: PathBuf,
    /// The file to write, in safetensors; its card is written beside it, as `.md`.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: PathBuf,
    /// Override a key: `-s proxy.epochs=10`; the value is TOML, a bare word is a string.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Override the seed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Say nothing while it trains.
    #[arg(long, short)]
    pub quiet: bool,
}

/// A spec with overrides.
#[derive(Clone, Debug, ClapArgs)]
pub struct SpecArgs {
    /// The spec, a TOML file.
    pub spec: PathBuf,
    /// Override a key: `-s env.side=8`; the value is TOML, a bare word is a string.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Override the seed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Override the device.
    #[arg(long)]
    pub device: Option<String>,
    /// Override the name.
    #[arg(long)]
    pub name: Option<String>,
}

/// Arguments of `gfn exact`.
#[derive(Debug, ClapArgs)]
pub struct Exact {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `gfn score`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Columns: object, the line as it was given; log_reward, in nats; and what the \
    reward knows besides, as in samples.csv. A row for every line, in their order; blank lines are \
    skipped. Lines that are no objects are named on stderr, have empty cells, and make the exit code 2 \
    once all others are scored."
)]
pub struct Score {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// A file with an object per line, as the environment writes them: SMILES of molecules, say. Without it,
    /// or for `-`, stdin.
    pub file: Option<PathBuf>,
}

/// Arguments of `gfn train`.
#[derive(Debug, ClapArgs)]
pub struct Train {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Runs go to DIR/<name>/s<seed>.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,
    /// Move an existing run aside and start anew.
    #[arg(long)]
    pub fresh: bool,
    /// No bar, no lines.
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more.
    #[arg(long, short)]
    pub verbose: bool,
    /// Print one JSON object with the final metrics instead of the run directory.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `gfn eval`.
#[derive(Debug, ClapArgs)]
pub struct Eval {
    /// The run directory.
    pub run: PathBuf,
    /// Override a key of the table eval.
    #[arg(short = 's', long = "set", value_name = "eval.KEY=VALUE")]
    pub set: Vec<String>,
    /// Which checkpoint: an iteration, `last` or `best`.
    #[arg(long, default_value = "last")]
    pub checkpoint: String,
    /// Print one JSON object instead of CSV.
    #[arg(long)]
    pub json: bool,
}

/// Formats of `gfn sample`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// Arguments of `gfn sample`.
#[derive(Debug, ClapArgs)]
pub struct Sample {
    /// The run directory.
    pub run: PathBuf,
    /// How many objects.
    #[arg(short = 'n', default_value_t = 100)]
    pub n: usize,
    /// Seed of the draws; independent of the training seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,
    /// Write the samples, and what they show together (of graphs: edge probabilities, arcs, drawings),
    /// into files in DIR instead, and print DIR.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Which checkpoint: an iteration, `last` or `best`.
    #[arg(long, default_value = "last")]
    pub checkpoint: String,
}

/// Arguments of `gfn collect`.
#[derive(Debug, ClapArgs)]
pub struct Collect {
    /// Folders; every run directory in or below them is taken.
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Write to FILE, and print its name.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Only the last row of each run.
    #[arg(long)]
    pub last: bool,
    /// A column for every key of the specs, not only for those whose values differ.
    #[arg(long)]
    pub all_keys: bool,
    /// Leave out runs whose files are damaged, with a warning, instead of refusing.
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Which runs a figure or table is made of.
#[derive(Debug, ClapArgs)]
pub struct Selection {
    /// Folders with run directories in or below them, or CSV tables (from `gfn collect`, or
    /// metrics.csv files).
    #[arg(required = true, value_name = "DIR|CSV")]
    pub paths: Vec<PathBuf>,
    /// Only runs with this value of a column or spec key; several must all hold.
    #[arg(long = "where", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Leave out runs whose files are damaged, with a warning, instead of refusing.
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Arguments of `gfn plot`.
#[derive(Debug, ClapArgs)]
pub struct Plot {
    #[command(flatten)]
    pub selection: Selection,
    /// Column along x: step, trajectories, reward_calls, wall_s, … [default: trajectories].
    #[arg(short = 'x', value_name = "COL")]
    pub x: Option<String>,
    /// Columns along y, a panel (or row of panels) each [default: the first metric that has values].
    #[arg(short = 'y', value_name = "COL", value_delimiter = ',')]
    pub y: Vec<String>,
    /// One curve per value of these columns or spec keys, over all seeds [default: those that tell
    /// methods apart].
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub by: Vec<String>,
    /// Small multiples: a panel per value of KEY, or rows and columns of panels by ROW,COLUMN.
    #[arg(long, value_name = "KEY", value_delimiter = ',', num_args = 1)]
    pub facet: Vec<String>,
    /// What is drawn of several seeds: `iqm` is the mean of the middle half.
    #[arg(long, value_enum, default_value_t = Statistic::Mean)]
    pub stat: Statistic,
    /// The band around it: `ci` is the 95 % percentile bootstrap interval of the statistic.
    #[arg(long, value_enum, default_value_t = Band::Ci)]
    pub band: Band,
    /// Logarithmic axes.
    #[arg(long, value_name = "x,y", value_delimiter = ',')]
    pub log: Vec<AxisName>,
    /// The kind of picture. `scatter` without -y: log-probability of samples against log R; `heatmap`:
    /// samples of hypergrids in their first two dimensions.
    #[arg(long, value_enum, default_value_t = Kind::Curves)]
    pub kind: Kind,
    /// Axes of their own for every panel.
    #[arg(long)]
    pub free: bool,
    /// Draw curves on past the end of their shortest run, of the runs that are left.
    #[arg(long)]
    pub partial: bool,
    /// Preview in the terminal; also what happens without -o on a terminal.
    #[arg(long)]
    pub terminal: bool,
    /// Write the SVG to FILE and print its name; without it, SVG goes to stdout.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// An axis of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AxisName {
    /// The horizontal one.
    X,
    /// The vertical one.
    Y,
}

/// Arguments of `gfn table`.
#[derive(Debug, ClapArgs)]
pub struct Table {
    #[command(flatten)]
    pub selection: Selection,
    /// One row per value of these columns or spec keys [default: those that tell methods apart].
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub by: Vec<String>,
    /// Hyperparameters: of each row the setting is shown whose mean is best.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub over: Vec<String>,
    /// Metrics of the last row of each run; the first decides what is best [default: the first that
    /// has values].
    #[arg(short = 'y', value_name = "COL", value_delimiter = ',')]
    pub y: Vec<String>,
    /// Which way the first metric is better [default: by metrics.schema.json of the runs].
    #[arg(long, value_enum)]
    pub best: Option<Best>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    pub format: TableFormat,
    /// Write to FILE, and print its name.
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Best {
    /// Lower is better.
    Min,
    /// Higher is better.
    Max,
}

/// Formats of `gfn table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Aligned columns.
    Text,
    /// A Markdown table.
    Markdown,
    /// Comma-separated values, mean, standard deviation and number of seeds in columns of their own.
    Csv,
}

impl Args {
    /// Sends log messages to stderr, filtered by `-v`, `--quiet` or `GFN_LOG`.
    pub fn init_logging(&self) {
        let level = match &self.command {
            Command::Train(train) if train.quiet => "error",
            Command::Train(train) if train.verbose => "gfn_cli=debug,gfn_core=debug,info",
            _ => "info",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("GFN_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
            && std::env::var_os("NO_COLOR").is_none();
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colour)
            .with_target(false)
            .without_time()
            // Nobody listening on stderr is no failure.
            .log_internal_errors(false)
            .try_init();
    }
}
