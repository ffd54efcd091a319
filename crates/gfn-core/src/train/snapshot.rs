//! Everything that a run needs to go on as if it had never stopped.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Counters, Trainer};
use crate::Trajectories;
use crate::optimizer::NamedTensor;

/// The state of a [`Trainer`] between two iterations.
///
/// Random streams are addressed by iteration, so they need no state of their own. Two snapshots
/// of the same state are equal in every byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What has been spent so far.
    pub counters: Counters,
    /// Parameters, by name.
    pub model: Vec<NamedTensor>,
    /// The target copy, if the strategy has one.
    pub target: Vec<NamedTensor>,
    /// States of all optimisers.
    pub optimizers: Vec<NamedTensor>,
    /// Past batches and what metrics have gathered (postcard).
    pub state: Vec<u8>,
}

/// Why a snapshot does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SnapshotError(String);

#[derive(Serialize, Deserialize)]
struct State {
    counters: Counters,
    history: VecDeque<Trajectories>,
    metrics: Vec<Vec<u8>>,
}

/// Prefixes under which the optimisers' states are stored.
const OPTIMIZERS: [&str; 3] = ["network", "log_z", "backward"];

impl Trainer {
    /// The complete state.
    pub fn snapshot(&self) -> Snapshot {
        let names: Vec<String> = self.model.infos().iter().map(|info| info.name.clone()).collect();
        let named = |values: &[burn::tensor::Tensor<2>]| {
            names.iter().zip(values).map(|(name, value)| NamedTensor::of(name, value.clone())).collect()
        };
        let mut optimizers = Vec::new();
        for (prefix, optimizer) in OPTIMIZERS.iter().zip(self.optimizers()) {
            for mut tensor in optimizer.save(&names) {
                tensor.name = format!("{prefix}/{}", tensor.name);
                optimizers.push(tensor);
            }
        }
        let state = State {
            counters: self.counters,
            history: self.history.clone(),
            metrics: self.parts.metrics.iter().map(|metric| metric.save()).collect(),
        };
        Snapshot {
            counters: self.counters,
            model: named(&self.model.values()),
            target: self.target.as_deref().map(named).unwrap_or_default(),
            optimizers,
            state: postcard::to_stdvec(&state).expect("the state serialises"),
        }
    }

    fn optimizers(&self) -> [&crate::optimizer::Optimizer; 3] {
        [&self.optimizer, &self.log_z_optimizer, &self.backward_optimizer]
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// When the snapshot is of a different experiment.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.restore_model(snapshot)?;
        let names: Vec<String> = self.model.infos().iter().map(|info| info.name.clone()).collect();
        let device = self.model.device().clone();
        let optimizers =
            [&mut self.optimizer, &mut self.log_z_optimizer, &mut self.backward_optimizer];
        for (prefix, optimizer) in OPTIMIZERS.iter().zip(optimizers) {
            let prefix = format!("{prefix}/");
            let tensors: BTreeMap<String, NamedTensor> = snapshot
                .optimizers
                .iter()
                .filter_map(|tensor| {
                    Some((tensor.name.strip_prefix(&prefix)?.to_owned(), tensor.clone()))
                })
                .collect();
            optimizer.load(&names, &tensors, &device);
        }
        let state: State = postcard::from_bytes(&snapshot.state)
            .map_err(|error| SnapshotError(format!("the state cannot be read: {error}")))?;
        if state.metrics.len() != self.parts.metrics.len() {
            return Err(SnapshotError("it was made with other metrics".to_owned()));
        }
        for (metric, bytes) in self.parts.metrics.iter_mut().zip(&state.metrics) {
            metric
                .load(bytes)
                .map_err(|error| SnapshotError(format!("a metric cannot be read: {error}")))?;
        }
        self.counters = state.counters;
        self.history = state.history;
        Ok(())
    }

    /// Takes the parameters (and the target copy) of a snapshot, and nothing else: enough to
    /// evaluate and sample.
    ///
    /// # Errors
    /// When the snapshot is of a different network.
    pub fn restore_model(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let device = self.model.device().clone();
        let check = |tensors: &[NamedTensor], n: usize, what: &str| {
            if tensors.len() != n {
                let found = tensors.len();
                return Err(SnapshotError(format!("{what} has {found} tensors instead of {n}")));
            }
            for (tensor, info) in tensors.iter().zip(self.model.infos()) {
                if tensor.name != info.name || tensor.shape != info.shape {
                    return Err(SnapshotError(format!(
                        "{what} has `{}` of shape {:?} where this spec has `{}` of shape {:?}",
                        tensor.name, tensor.shape, info.name, info.shape
                    )));
                }
            }
            Ok(())
        };
        let n = self.model.infos().len();
        check(&snapshot.model, n, "the model")?;
        let n_target = if self.target.is_some() { n - 1 } else { 0 };
        check(&snapshot.target, n_target, "the target copy")?;
        for (i, tensor) in snapshot.model.iter().enumerate() {
            self.model.set_param(i, tensor.tensor(&device));
        }
        if let Some(target) = &mut self.target {
            *target = snapshot.target.iter().map(|tensor| tensor.tensor(&device)).collect();
        }
        self.counters = snapshot.counters;
        Ok(())
    }
}
