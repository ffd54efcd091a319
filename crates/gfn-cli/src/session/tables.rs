//! The sinks metrics.csv and train.csv.

use gfn_core::metric::Column;

use super::sink::{Evaluation, Iteration, Sink};
use crate::error::Failure;
use crate::run::directory::RunDirectory;
use crate::run::metrics;
use crate::run::table::{Table, cell};

/// metrics.csv: a row per evaluation.
pub struct MetricTable(Table);

impl MetricTable {
    /// Opens or creates it.
    ///
    /// # Errors
    /// When it cannot be written, or has other columns.
    pub fn open(directory: &RunDirectory, columns: &[Column]) -> Result<Self, Failure> {
        Ok(Self(Table::open(&directory.file(metrics::TABLE), &metrics::header(columns))?))
    }
}

impl Sink for MetricTable {
    fn evaluation(&mut self, evaluation: &Evaluation<'_>) -> Result<(), Failure> {
        let Evaluation { counters, clocks, values, spec, .. } = *evaluation;
        self.0.row(&metrics::row(spec, counters, clocks, values))
    }
}

/// train.csv: a row per recorded iteration.
pub struct TrainTable(Table);

/// Its file.
pub const TRAIN_TABLE: &str = "train.csv";

/// The numbers of a recorded iteration, by their names.
pub fn numbers(iteration: &Iteration<'_>) -> [(&'static str, Option<f64>); 7] {
    let Iteration { report, log_z, .. } = iteration;
    [
        ("loss", report.loss),
        ("backward_loss", report.backward_loss),
        ("log_z", *log_z),
        ("grad_norm", report.grad_norm),
        ("lr", report.lr),
        ("backward_lr", report.backward_lr),
        ("epsilon", report.epsilon),
    ]
}

impl TrainTable {
    /// Opens or creates it.
    ///
    /// # Errors
    /// When it cannot be written, or has other columns.
    pub fn open(directory: &RunDirectory) -> Result<Self, Failure> {
        let header = [
            "step",
            "loss",
            "backward_loss",
            "log_z",
            "grad_norm",
            "lr",
            "backward_lr",
            "epsilon",
            "seconds",
            "train_s",
        ];
        let header = header.map(str::to_owned);
        Ok(Self(Table::open(&directory.file(TRAIN_TABLE), &header)?))
    }
}

impl Sink for TrainTable {
    fn iteration(&mut self, iteration: &Iteration<'_>) -> Result<(), Failure> {
        if !iteration.recorded {
            return Ok(());
        }
        let mut row = vec![iteration.step().to_string()];
        row.extend(numbers(iteration).map(|(_, value)| cell(value)));
        let seconds = [iteration.clocks.wall_s, iteration.clocks.train_s];
        row.extend(seconds.map(|seconds| format!("{seconds:.3}")));
        self.0.row(&row)
    }
}
