//! Everything that specs can name, in one place.

use gfn_core::backward::{BACKWARDS, BackwardAxis};
use gfn_core::metric::{METRICS, MetricEntry};
use gfn_core::objective::{OBJECTIVES, ObjectiveAxis};
use gfn_core::registry::{Axis, Descriptor, Entry, EnvAxis, RewardAxis};
use gfn_envs::{ENVIRONMENTS, REWARDS};
use gfn_models::MODELS;
use gfn_models::device::{DEVICES, DeviceEntry};
use gfn_models::network::ModelAxis;

use crate::proxy::{GapSpec, ProxyRewardSpec};

/// The kinds on every axis.
#[derive(Clone)]
pub struct Registry {
    /// `env.kind`.
    pub environments: Vec<Entry<EnvAxis>>,
    /// `reward.kind`.
    pub rewards: Vec<Entry<RewardAxis>>,
    /// `model.kind`.
    pub models: Vec<Entry<ModelAxis>>,
    /// `objective.kind`.
    pub objectives: Vec<Entry<ObjectiveAxis>>,
    /// `backward.kind`.
    pub backwards: Vec<Entry<BackwardAxis>>,
    /// `eval.metrics`.
    pub metrics: Vec<MetricEntry>,
    /// `device`.
    pub devices: Vec<DeviceEntry>,
}

impl Registry {
    /// The axes whose kinds a spec chooses, each with what is known of its kinds, in the order of a spec.
    pub fn axes(&self) -> [(&'static str, Vec<Descriptor>); 5] {
        fn of<A: Axis>(entries: &[Entry<A>]) -> (&'static str, Vec<Descriptor>) {
            (A::NAME, entries.iter().map(|entry| entry.about).collect())
        }
        [
            of(&self.environments),
            of(&self.rewards),
            of(&self.models),
            of(&self.objectives),
            of(&self.backwards),
        ]
    }

    /// What this crate ships.
    pub fn builtin() -> Self {
        Self {
            environments: ENVIRONMENTS.to_vec(),
            rewards: [REWARDS, &[Entry::of::<ProxyRewardSpec>(), Entry::of::<GapSpec>()]].concat(),
            models: MODELS.to_vec(),
            objectives: OBJECTIVES.to_vec(),
            backwards: BACKWARDS.to_vec(),
            metrics: [METRICS, gfn_envs::METRICS].concat(),
            devices: DEVICES.to_vec(),
        }
    }
}
