//! A reward on the hypergrid that is a product over dimensions, so that all of its target is known in
//! closed form in any number of them.

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::special::log_sum_exp;
use gfn_core::{ExactTarget, KeyError, Modes, Reward, RewardError, States, TargetEstimate};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hypergrid::mode_number;
use crate::hypergrid::Hypergrid;

/// Settings of [`SeparableReward`]: R(x) = Π_d r_d(x_d), r_d(s) = floor + Σ_k h_k exp(-((s - p_k) / w)²/2)
/// with two peaks k, of the same heights in dimensions 0, 2, 4, …, exchanged in the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeparableSpec {
    /// r_d far from both peaks, above 0.
    pub floor: f64,
    /// Where the peaks p_k are, as parts of the way from coordinate 0 to side - 1: rounded to the
    /// nearest coordinates, which must differ.
    pub peaks: [f64; 2],
    /// Their heights h_k above the floor, above 0.
    pub heights: [f64; 2],
    /// Their width w, as a part of side - 1, above 0.
    pub width: f64,
}

impl Default for SeparableSpec {
    fn default() -> Self {
        Self { floor: 0.01, peaks: [0.2, 0.8], heights: [1.0, 0.5], width: 0.05 }
    }
}

impl Kind<RewardAxis> for SeparableSpec {
    const NAME: &'static str = "separable";
    const SUMMARY: &'static str =
        "product over dimensions of the hypergrid, two peaks in each: exactly known for any dim";

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        for (key, value) in [("floor", self.floor), ("width", self.width)] {
            if !above_zero(value) {
                return Err(KeyError::new(key, format!("must be above 0, not {value}")));
            }
        }
        if !self.heights.into_iter().all(above_zero) {
            return Err(KeyError::new("heights", "both heights must be above 0"));
        }
        if !self.peaks.iter().all(|peak| (0.0..=1.0).contains(peak)) {
            return Err(KeyError::new("peaks", "both peaks must lie in [0, 1]")
                .help("they are parts of the way from coordinate 0 to side - 1"));
        }
        let grid = context.env_as::<Hypergrid>().ok_or_else(|| {
            let message = "the reward `separable` is defined on the environment `hypergrid`";
            KeyError::new("kind", message)
                .help("choose env.kind = \"hypergrid\", or another reward")
        })?;
        let [low, high] = self.peaks_of(grid);
        if low == high {
            let message = format!("both peaks are at the coordinate {low} of {}", grid.side);
            return Err(KeyError::new("peaks", message).help("set them apart, or raise env.side"));
        }
        Ok(Box::new(SeparableReward::new(grid, self)))
    }
}

impl SeparableSpec {
    /// The coordinates of the peaks.
    fn peaks_of(&self, grid: &Hypergrid) -> [i32; 2] {
        self.peaks.map(|peak| (peak * (grid.side - 1) as f64).round() as i32)
    }
}

/// The target of one dimension.
#[derive(Clone, Debug)]
struct Factor {
    /// log r of each coordinate.
    log_r: Vec<f64>,
    /// log Σ r.
    log_z: f64,
    /// r / Σ r.
    prob: Vec<f64>,
}

impl Factor {
    fn new(log_r: Vec<f64>) -> Self {
        let log_z = log_sum_exp(log_r.iter().copied());
        let prob = log_r.iter().map(|log_r| (log_r - log_z).exp()).collect();
        Self { log_r, log_z, prob }
    }

    /// E of log r.
    fn mean_log_r(&self) -> f64 {
        self.prob.iter().zip(&self.log_r).map(|(p, log_r)| p * log_r).sum()
    }
}

/// R(x) = Π_d r_d(x_d): see [`SeparableSpec`]. A mode is a choice of a peak in every dimension, 2^dim of
/// them; it is found by an object whose coordinates are all within the half width of its peaks, where
/// exp(-((s - p_k) / w)²/2) is at least 1/2, and nearer to them than to the other peaks.
#[derive(Clone, Debug)]
pub struct SeparableReward {
    dim: usize,
    /// Of dimensions 0, 2, 4, … and of the others.
    factors: [Factor; 2],
    /// The peak that a coordinate belongs to.
    peak: Vec<Option<u64>>,
}

impl SeparableReward {
    /// The reward on `grid`, for settings whose ranges have been checked.
    pub fn new(grid: &Hypergrid, spec: &SeparableSpec) -> Self {
        let peaks = spec.peaks_of(grid);
        let width = spec.width * (grid.side - 1) as f64;
        let bumps = |s: i32| peaks.map(|peak| (-0.5 * (f64::from(s - peak) / width).powi(2)).exp());
        let coordinates = 0..grid.side as i32;
        let factor = |[low, high]: [f64; 2]| {
            let log_r = |s| {
                let [a, b] = bumps(s);
                (spec.floor + low * a + high * b).ln()
            };
            Factor::new(coordinates.clone().map(log_r).collect())
        };
        let [low, high] = spec.heights;
        let factors = [factor([low, high]), factor([high, low])];
        let peak = |s| {
            let [a, b] = bumps(s);
            match a > b {
                true if a >= 0.5 => Some(0),
                false if b >= 0.5 && b > a => Some(1),
                _ => None,
            }
        };
        Self { dim: grid.dim, factors, peak: coordinates.clone().map(peak).collect() }
    }

    fn factor(&self, d: usize) -> &Factor {
        &self.factors[d % 2]
    }

    /// The sum of a quantity over dimensions.
    fn sum(&self, of: impl Fn(&Factor) -> f64) -> f64 {
        let odd = self.dim / 2;
        (self.dim - odd) as f64 * of(&self.factors[0]) + odd as f64 * of(&self.factors[1])
    }
}

impl Reward for SeparableReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let coordinates = row[..self.dim].iter().enumerate();
            *out = coordinates.map(|(d, &s)| self.factor(d).log_r[s as usize]).sum();
        }
        Ok(())
    }

    /// Σ_d log Σ_s r_d(s).
    fn log_partition(&self) -> Option<f64> {
        Some(self.sum(|factor| factor.log_z))
    }

    fn target_estimate(&self) -> Option<TargetEstimate> {
        let (log_z, mean_log_reward) = (self.log_partition()?, self.sum(Factor::mean_log_r));
        Some(TargetEstimate { log_z, log_z_error: 0.0, mean_log_reward, mean_error: 0.0 })
    }

    fn exact_target(&self) -> Option<ExactTarget> {
        let TargetEstimate { log_z, mean_log_reward, .. } = self.target_estimate()?;
        Some(ExactTarget {
            method: "the product over dimensions",
            log_n_objects: self.sum(|factor| (factor.log_r.len() as f64).ln()),
            log_z,
            mean_log_reward,
            entropy: log_z - mean_log_reward,
            expectations: Vec::new(),
            marginals: Vec::new(),
        })
    }

    /// Every coordinate on its own.
    fn exact_samples(&self, n: usize, seed: u64) -> Option<States> {
        let streams = Streams::new(seed);
        let mut samples = States::with_capacity(self.dim + 1, n);
        let mut row = vec![1; self.dim + 1];
        for i in 0..n {
            let mut rng = streams.at(Purpose::ExactSample, 0, i as u64);
            for (d, s) in row[..self.dim].iter_mut().enumerate() {
                let mut left: f64 = rng.random();
                let passed = |p: &&f64| {
                    left -= **p;
                    left >= 0.0
                };
                let prob = &self.factor(d).prob;
                // Rounding may leave a hair behind the last one.
                *s = prob.iter().take_while(passed).count().min(prob.len() - 1) as i32;
            }
            samples.push(&row);
        }
        Some(samples)
    }

    fn cell_marginals(&self) -> Option<Vec<Vec<f64>>> {
        Some((0..self.dim).map(|d| self.factor(d).prob.clone()).collect())
    }

    fn modes(&self) -> Option<&dyn Modes> {
        Some(self)
    }
}

impl Modes for SeparableReward {
    fn definition(&self) -> String {
        "a choice of a peak in every dimension, found by an object whose coordinates are all within \
         the half width at half maximum of these peaks"
            .to_owned()
    }

    fn count(&self) -> Option<u64> {
        2u64.checked_pow(u32::try_from(self.dim).ok()?)
    }

    fn modes_of(&self, row: &[i32], _log_reward: f64) -> Vec<u64> {
        let peaks = row[..self.dim].iter().map(|&s| self.peak[s as usize]);
        mode_number(peaks, 2, self.dim).into_iter().collect()
    }
}
