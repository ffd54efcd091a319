//! Where a run tells what it does: tables, logs, a terminal.

use gfn_core::learn::{Counters, Report};
use gfn_core::metric::Column;

use crate::error::Failure;
use crate::run::metrics::Clocks;
use crate::spec::Spec;

/// An iteration that is done.
#[derive(Clone, Copy)]
pub struct Iteration<'a> {
    /// What was done.
    pub report: &'a Report,
    /// The learned log Z after it, if the objective has one.
    pub log_z: Option<f64>,
    /// Seconds spent until then.
    pub clocks: Clocks,
    /// Whether `train.log_every` asks for a record of it.
    pub recorded: bool,
}

impl Iteration<'_> {
    /// How many iterations are done.
    pub fn step(&self) -> u64 {
        self.report.step + 1
    }
}

/// The values of all metrics at an iteration.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// What was spent until then.
    pub counters: &'a Counters,
    /// Seconds among it.
    pub clocks: Clocks,
    /// What is measured.
    pub columns: &'a [Column],
    /// A value per column; none where it does not apply.
    pub values: &'a [Option<f64>],
    /// The iteration before, if it was of this session.
    pub report: Option<&'a Report>,
    /// What is run.
    pub spec: &'a Spec,
}

impl<'a> Evaluation<'a> {
    /// Columns with the values that apply.
    pub fn named(&self) -> impl Iterator<Item = (&'a Column, f64)> {
        self.columns.iter().zip(self.values).filter_map(|(column, value)| Some((column, (*value)?)))
    }
}

/// Something that a run tells what it does. All sinks of a run hear the same, in one order.
pub trait Sink: Send {
    /// Hears of an iteration.
    ///
    /// # Errors
    /// When it cannot be written.
    fn iteration(&mut self, _iteration: &Iteration<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Hears of an evaluation.
    ///
    /// # Errors
    /// When it cannot be written.
    fn evaluation(&mut self, _evaluation: &Evaluation<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// The session is over, whether the run is or not.
    fn finish(&mut self) {}
}
