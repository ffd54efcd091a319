//! The `[proxy]` table: which table is learned, what is held out, and how to train.

use std::path::PathBuf;

use gfn_core::KeyError;
use gfn_core::learn::schedule::{Schedule, Shape};
use gfn_core::learn::{Algorithm, TrainSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is minimised: the mean over a batch of a function of the error in standard deviations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// The square.
    Mse,
    /// Half the square below one standard deviation, then a straight line.
    #[default]
    Huber,
    /// The absolute value.
    Mae,
}

impl Loss {
    /// The loss of an error, and its derivative.
    pub fn at(self, error: f64) -> (f64, f64) {
        let sign = if error == 0.0 { 0.0 } else { error.signum() };
        match self {
            Self::Mse => (error * error, 2.0 * error),
            Self::Huber if error.abs() > 1.0 => (error.abs() - 0.5, sign),
            Self::Huber => (0.5 * error * error, error),
            Self::Mae => (error.abs(), sign),
        }
    }
}

/// How the numbers of the weights are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are, in 4 bytes each.
    #[default]
    F32,
    /// Rounded to 2 bytes each. All errors in the card are those of the rounded weights.
    F16,
}

/// Which weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those after the epoch with the smallest mean absolute error on held-out objects. That error is
    /// then a little too good; one on a `test_table` is not.
    #[default]
    Best,
    /// Those after the last epoch.
    Last,
}

/// What a surrogate reward learns, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySettings {
    /// A CSV or TSV file with a header and an object with its value per row, or a name from
    /// `gfn data list`.
    pub table: PathBuf,
    /// Names of the columns that hold the object: its text in one, or one symbol per column.
    /// Default: all but the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub object_columns: Vec<String>,
    /// Name of the column that holds the value. Default: the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value_column: String,
    /// Values are multiplied by this, to have another unit than in the table.
    pub value_scale: f64,
    /// Unit of the values, after that, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// The largest share of rows that may hold objects which the environment cannot read: they are left
    /// out.
    pub max_skipped: f64,
    /// The share of objects, drawn at random, that is not trained on.
    pub held_out: f64,
    /// A classification of the environment's objects, such as `scaffold`: whole classes of it are held
    /// out besides, so that errors on objects unlike those trained on are known, too.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub held_out_by: String,
    /// The share of objects in these classes. A class that is larger than what is left of it stays in
    /// training.
    pub held_out_groups: f64,
    /// Another table with the same columns, which is only measured on.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_table: PathBuf,
    /// How often each object is trained on.
    pub epochs: usize,
    /// Objects per step.
    pub batch: usize,
    /// What is minimised.
    pub loss: Loss,
    /// Which optimiser.
    pub optimizer: Algorithm,
    /// Learning rate.
    pub lr: f64,
    /// Shape of the learning rate over training.
    pub lr_schedule: Shape,
    /// Fraction of the initial rate at the end of any schedule but a constant one.
    pub lr_end: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm. None does not clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Weights are averaged over steps by this factor (less at first), and the average is used; 0 for
    /// none.
    pub ema: f64,
    /// Which weights are kept.
    pub keep: Keep,
    /// How the numbers of the weights are written.
    pub precision: Precision,
    /// A substructure counts as known if this many objects trained on have it: objects with others are
    /// unlike them.
    pub known_from: usize,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            table: PathBuf::new(),
            object_columns: Vec::new(),
            value_column: String::new(),
            value_scale: 1.0,
            unit: String::new(),
            max_skipped: 0.05,
            held_out: 0.1,
            held_out_by: String::new(),
            held_out_groups: 0.1,
            test_table: PathBuf::new(),
            epochs: 30,
            batch: 256,
            loss: Loss::Huber,
            optimizer: Algorithm::Adam,
            lr: 1e-3,
            lr_schedule: Shape::Cosine,
            lr_end: 0.01,
            weight_decay: 0.0,
            clip_norm: None,
            ema: 0.999,
            keep: Keep::Best,
            precision: Precision::F32,
            known_from: 1,
        }
    }
}

pub(super) fn is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

impl ProxySettings {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first key that is out of range.
    pub fn check(&self) -> Result<(), KeyError> {
        if is_empty(&self.table) {
            return Err(KeyError::new("table", "no table is given")
                .help("name a CSV file of objects and values: -s proxy.table=FILE"));
        }
        for (key, value) in [("max_skipped", self.max_skipped), ("lr_end", self.lr_end)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in [0, 1], not {value}")));
            }
        }
        for (key, value) in [
            ("held_out", self.held_out),
            ("held_out_groups", self.held_out_groups),
            ("ema", self.ema),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in [0, 1), not {value}")));
            }
        }
        if !self.held_out_by.is_empty() && self.held_out + self.held_out_groups >= 1.0 {
            let message = "held_out and held_out_groups leave nothing to train on";
            return Err(KeyError::new("held_out_groups", message));
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(KeyError::new("lr", format!("must be above 0, not {}", self.lr)));
        }
        if self.clip_norm.is_some_and(|norm| !(norm > 0.0 && norm.is_finite())) {
            return Err(
                KeyError::new("clip_norm", "must be above 0").help("leave the key out not to clip")
            );
        }
        for (key, value) in
            [("epochs", self.epochs), ("batch", self.batch), ("known_from", self.known_from)]
        {
            if value == 0 {
                return Err(KeyError::new(key, "must be at least 1"));
            }
        }
        self.of_engine().check()
    }

    /// What the engine is told.
    pub(super) fn of_engine(&self) -> TrainSettings {
        TrainSettings {
            batch: self.batch,
            optimizer: self.optimizer,
            weight_decay: self.weight_decay,
            ..TrainSettings::default()
        }
    }

    /// The learning rate over `steps` steps.
    pub(super) fn rates(&self, steps: u64) -> Schedule {
        let (start, end) = (self.lr, self.lr * self.lr_end);
        let decay = self.lr_end.max(1e-12).powf(1.0 / steps.max(1) as f64);
        Schedule { start, end, steps, decay, shape: self.lr_schedule }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_have_their_derivatives() {
        for loss in [Loss::Mse, Loss::Huber, Loss::Mae] {
            for error in [-2.5, -0.7, 0.3, 1.7] {
                let h = 1e-6;
                let slope = (loss.at(error + h).0 - loss.at(error - h).0) / (2.0 * h);
                assert!((loss.at(error).1 - slope).abs() < 1e-8, "{loss:?} at {error}");
            }
        }
    }

    #[test]
    fn rates_end_where_they_say() {
        for lr_schedule in [Shape::Linear, Shape::Cosine, Shape::Exponential] {
            let settings =
                ProxySettings { lr: 0.5, lr_end: 0.1, lr_schedule, ..Default::default() };
            let rates = settings.rates(40);
            assert!((rates.at(0) - 0.5).abs() < 1e-12);
            assert!((rates.at(40) - 0.05).abs() < 1e-12, "{lr_schedule:?}");
        }
    }
}
