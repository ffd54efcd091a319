//! The samples of a finished run.

use super::run::{Run, number, parse, read_text};
use crate::error::Failure;

/// samples.csv: fresh samples of the final policy.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The objects, as the environment writes them.
    pub objects: Vec<String>,
    /// log R of each.
    pub log_reward: Vec<f64>,
}

impl Samples {
    /// Reads the samples of a run.
    ///
    /// # Errors
    /// When the run is a row of a table, has none, or they are damaged.
    pub fn read(run: &Run) -> Result<Self, Failure> {
        let path = run.path.join("samples.csv");
        if !path.is_file() {
            return Err(Failure::usage(format!("`{}` has no samples.csv", run.path.display()))
                .help("give run directories whose training has finished"));
        }
        let (header, rows) = parse(&path, &read_text(&path)?)?;
        let column = |name: &str| {
            header.iter().position(|found| found == name).ok_or_else(|| {
                Failure::usage(format!("`{}` has no column `{name}`", path.display()))
            })
        };
        let (object, log_reward) = (column("object")?, column("log_reward")?);
        let mut samples = Self::default();
        for row in rows {
            // A reward of 0 has the logarithm -inf.
            samples.log_reward.push(number(&row[log_reward]).unwrap_or(f64::NEG_INFINITY));
            samples.objects.push(row[object].to_owned());
        }
        Ok(samples)
    }
}
