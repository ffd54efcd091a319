//! The `[train]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::learn::reward_noise::RewardNoise;
use crate::learn::schedule::{Schedule, Shape};
use crate::local_search::LocalSearch;

/// What computes the network's passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Hand-written passes and optimiser, on the device `flex` and where the network has them;
    /// else Burn.
    #[default]
    Native,
    /// Burn and its autodiff, on every device: the reference.
    Burn,
}

/// Which optimiser steps the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Adam; `weight_decay` is an L2 penalty.
    #[default]
    Adam,
    /// AdamW; `weight_decay` is decoupled.
    AdamW,
    /// RMSprop; `weight_decay` is an L2 penalty.
    RmsProp,
    /// Stochastic gradient descent; `weight_decay` is an L2 penalty.
    Sgd,
}

/// The constants of an optimiser. Learning rates are passed with every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Which optimiser.
    pub algorithm: Algorithm,
    /// First-moment decay of Adam and AdamW; momentum of RMSprop and SGD.
    pub momentum: f64,
    /// Second-moment decay of Adam and AdamW; smoothing of RMSprop.
    pub beta2: f64,
    /// Added to denominators.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// How long and how to train. Defaults are those of the papers' hypergrids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Trajectories to sample in all.
    pub trajectories: u64,
    /// Trajectories per iteration.
    pub batch: usize,
    /// What computes the network's passes.
    pub engine: EngineKind,
    /// Which optimiser.
    pub optimizer: Algorithm,
    /// Learning rate of the network.
    pub lr: f64,
    /// Learning rate of the parameter log Z.
    pub log_z_lr: f64,
    /// Initial log Z.
    pub log_z_init: f64,
    /// Shape of all learning rates over training.
    pub lr_schedule: Shape,
    /// Fraction of the initial rate at the end of a linear or cosine schedule.
    pub lr_end: f64,
    /// Factor per iteration of an exponential schedule.
    pub lr_decay: f64,
    /// First-moment decay of Adam and AdamW; momentum of RMSprop and SGD (set 0 for none).
    pub momentum: f64,
    /// Second-moment decay of Adam and AdamW; smoothing of RMSprop.
    pub beta2: f64,
    /// Added to the optimiser's denominators.
    pub adam_epsilon: f64,
    /// Weight decay; log Z is exempt.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; log Z is exempt. None does not clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Probability of drawing a uniform legal action while training.
    pub epsilon: f64,
    /// Its value at the end of a linear or cosine schedule, or the floor of an exponential one.
    pub epsilon_end: f64,
    /// Shape of epsilon over training.
    pub epsilon_schedule: Shape,
    /// Factor per iteration of an exponential epsilon.
    pub epsilon_decay: f64,
    /// The part of training after which a linear or cosine epsilon has reached its end.
    pub epsilon_until: f64,
    /// Logits are divided by this when training trajectories are drawn.
    pub temperature: f64,
    /// Part of each batch is found by local search from the objects of the rest; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_search: Option<LocalSearch>,
    /// Noise on the log R that losses see, to ask how an objective bears it: `{ sigma = 0.5, per = "call" }`
    /// adds normal numbers of that standard deviation in nats, fresh at every call, or with "object"
    /// always the same to an object; none by default. Metrics and samples see rewards without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_noise: Option<RewardNoise>,
    /// A row of train.csv is written every so many iterations.
    pub log_every: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            trajectories: 1_000_000,
            batch: 16,
            engine: EngineKind::Native,
            optimizer: Algorithm::Adam,
            lr: 1e-3,
            log_z_lr: 0.1,
            log_z_init: 0.0,
            lr_schedule: Shape::Constant,
            lr_end: 0.0,
            lr_decay: 1.0,
            momentum: 0.9,
            beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: None,
            epsilon: 0.0,
            epsilon_end: 0.0,
            epsilon_schedule: Shape::Constant,
            epsilon_decay: 1.0,
            epsilon_until: 1.0,
            temperature: 1.0,
            local_search: None,
            reward_noise: None,
            log_every: 100,
        }
    }
}

/// More trajectories than this do not fit into memory at once.
const MAX_BATCH: usize = 1 << 22;

impl TrainSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first key that is out of range.
    pub fn check(&self) -> Result<(), KeyError> {
        let positive = [
            ("lr", self.lr),
            ("log_z_lr", self.log_z_lr),
            ("adam_epsilon", self.adam_epsilon),
            ("temperature", self.temperature),
        ];
        for (key, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(KeyError::new(key, format!("must be above 0, not {value}")));
            }
        }
        let fractions =
            [("lr_end", self.lr_end), ("epsilon", self.epsilon), ("epsilon_end", self.epsilon_end)];
        for (key, value) in fractions {
            if !(0.0..=1.0).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in [0, 1], not {value}")));
            }
        }
        for (key, value) in [
            ("lr_decay", self.lr_decay),
            ("epsilon_decay", self.epsilon_decay),
            ("epsilon_until", self.epsilon_until),
        ] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(KeyError::new(key, format!("must lie in (0, 1], not {value}")));
            }
        }
        for (key, value) in [("momentum", self.momentum), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(KeyError::new(key, format!("must lie in [0, 1), not {value}")));
            }
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(KeyError::new("weight_decay", "must be at least 0"));
        }
        if self.clip_norm.is_some_and(|norm| !(norm > 0.0 && norm.is_finite())) {
            return Err(
                KeyError::new("clip_norm", "must be above 0").help("leave the key out not to clip")
            );
        }
        if !self.log_z_init.is_finite() {
            return Err(KeyError::new("log_z_init", "must be a finite number"));
        }
        for (key, value) in [
            ("batch", self.batch as u64),
            ("trajectories", self.trajectories),
            ("log_every", self.log_every),
        ] {
            if value == 0 {
                return Err(KeyError::new(key, "must be at least 1"));
            }
        }
        if self.batch > MAX_BATCH {
            return Err(KeyError::new("batch", format!("must not exceed {MAX_BATCH}")));
        }
        if let Some(search) = &self.local_search {
            search.check(self.batch)?;
        }
        if let Some(noise) = &self.reward_noise {
            noise.check()?;
        }
        Ok(())
    }

    /// Iterations in all: the last batch may be smaller.
    pub fn n_steps(&self) -> u64 {
        self.trajectories.div_ceil(self.batch as u64)
    }

    /// Trajectories of iteration `step`.
    pub fn batch_at(&self, step: u64) -> usize {
        let left = self.trajectories.saturating_sub(step * self.batch as u64);
        (self.batch as u64).min(left) as usize
    }

    /// Whether some schedule depends on how long training takes in all.
    pub fn depends_on_horizon(&self) -> bool {
        [self.lr_schedule, self.epsilon_schedule]
            .iter()
            .any(|shape| matches!(shape, Shape::Linear | Shape::Cosine))
    }

    pub(crate) fn lr_schedule(&self, start: f64) -> Schedule {
        let end = match self.lr_schedule {
            Shape::Exponential => 0.0,
            _ => start * self.lr_end,
        };
        let (steps, decay, shape) = (self.n_steps(), self.lr_decay, self.lr_schedule);
        Schedule { start, end, steps, decay, shape }
    }

    pub(crate) fn epsilon_schedule(&self) -> Schedule {
        Schedule {
            start: self.epsilon,
            end: self.epsilon_end,
            steps: (self.n_steps() as f64 * self.epsilon_until).ceil() as u64,
            decay: self.epsilon_decay,
            shape: self.epsilon_schedule,
        }
    }

    /// The constants of the optimisers.
    pub fn optimizer_settings(&self) -> OptimizerSettings {
        OptimizerSettings {
            algorithm: self.optimizer,
            momentum: self.momentum,
            beta2: self.beta2,
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DAG-GFlowNet's: from 1 to 0.1 over the first half of training.
    #[test]
    fn exploration_ends_where_it_says() {
        let settings = TrainSettings {
            trajectories: 1000,
            batch: 10,
            epsilon: 1.0,
            epsilon_end: 0.1,
            epsilon_schedule: Shape::Linear,
            epsilon_until: 0.5,
            ..TrainSettings::default()
        };
        let schedule = settings.epsilon_schedule();
        for (step, epsilon) in [(0, 1.0), (25, 0.55), (50, 0.1), (99, 0.1)] {
            assert!((schedule.at(step) - epsilon).abs() < 1e-12, "{step}");
        }
        let constant = TrainSettings { epsilon_until: 0.0, ..TrainSettings::default() };
        assert_eq!(constant.check().unwrap_err().key.as_deref(), Some("epsilon_until"));
    }
}
