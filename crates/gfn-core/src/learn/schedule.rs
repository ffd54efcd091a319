//! Scalar schedules over training: learning rates and exploration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shape of a decay from 1 at the first iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Stays at the initial value.
    #[default]
    Constant,
    /// Straight line to `end` at `steps`.
    Linear,
    /// Half a cosine to `end` at `steps`.
    Cosine,
    /// Multiplied by `decay` at every iteration, never below `end`.
    Exponential,
}

/// A scalar that changes with the iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Value at iteration 0.
    pub start: f64,
    /// Value at `steps` and after (a floor for exponential decay).
    pub end: f64,
    /// Iterations that linear and cosine schedules take.
    pub steps: u64,
    /// Factor per iteration of an exponential schedule.
    pub decay: f64,
    /// The shape of the way from `start` to `end`.
    pub shape: Shape,
}

impl Schedule {
    /// The value at iteration `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let progress = (step as f64 / self.steps.max(1) as f64).min(1.0);
        match self.shape {
            Shape::Constant => self.start,
            Shape::Linear => self.start + (self.end - self.start) * progress,
            Shape::Cosine => {
                let weight = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                self.end + (self.start - self.end) * weight
            }
            Shape::Exponential => (self.start * self.decay.powf(step as f64)).max(self.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_hit_their_ends() {
        let base = Schedule { start: 2.0, end: 0.5, steps: 10, decay: 0.9, shape: Shape::Linear };
        assert_eq!(base.at(0), 2.0);
        assert_eq!(base.at(5), 1.25);
        assert_eq!(base.at(10), 0.5);
        assert_eq!(base.at(99), 0.5);
        let cosine = Schedule { shape: Shape::Cosine, ..base };
        assert_eq!(cosine.at(0), 2.0);
        assert!((cosine.at(5) - 1.25).abs() < 1e-12);
        assert!((cosine.at(10) - 0.5).abs() < 1e-12);
        let exponential = Schedule { shape: Shape::Exponential, ..base };
        assert!((exponential.at(3) - 2.0 * 0.729).abs() < 1e-12);
        assert_eq!(exponential.at(1000), 0.5);
        assert_eq!(Schedule { shape: Shape::Constant, ..base }.at(7), 2.0);
    }
}
