//! Everything that a run needs to go on as if it had never stopped.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Counters, Trainer};
use crate::Trajectories;
use crate::model::{ParamInfo, Values};
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

impl Snapshot {
    /// The name of a parameter that is not finite, if there is one.
    pub fn non_finite(&self) -> Option<&str> {
        let broken = |tensor: &&NamedTensor| tensor.values.iter().any(|value| !value.is_finite());
        self.model.iter().find(broken).map(|tensor| tensor.name.as_str())
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    counters: Counters,
    history: VecDeque<Trajectories>,
    /// What metrics have gathered, by their names.
    metrics: BTreeMap<String, Vec<u8>>,
}

/// Prefixes under which the optimisers' states are stored.
const OPTIMIZERS: [&str; 3] = ["network", "log_z", "backward"];

impl Trainer {
    /// The complete state.
    pub fn snapshot(&self) -> Snapshot {
        let names: Vec<String> = self.model.infos().iter().map(|info| info.name.clone()).collect();
        let named = |(info, values): (&ParamInfo, Vec<f32>)| NamedTensor {
            name: info.name.clone(),
            shape: info.shape.to_vec(),
            values,
        };
        let infos = self.model.infos();
        let model = infos.iter().enumerate().map(|(i, info)| named((info, self.model.value(i))));
        let target = self.target.as_ref().map(Values::to_host).unwrap_or_default();
        let mut optimizers = Vec::new();
        for (prefix, optimizer) in OPTIMIZERS.iter().zip(&self.optimizers) {
            for mut tensor in optimizer.save(&names) {
                tensor.name = format!("{prefix}/{}", tensor.name);
                optimizers.push(tensor);
            }
        }
        let gathered = self.parts.metrics.iter();
        let gathered =
            gathered.filter_map(|metric| Some((metric.name().to_owned(), metric.save()?)));
        let state = State {
            counters: self.counters,
            history: self.history.clone(),
            metrics: gathered.collect(),
        };
        Snapshot {
            counters: self.counters,
            model: model.collect(),
            target: infos.iter().zip(target).map(named).collect(),
            optimizers,
            state: postcard::to_stdvec(&state).expect("the state serialises"),
        }
    }

    /// Goes back to a snapshot. Metrics that the snapshot knows nothing of do not apply any more.
    ///
    /// # Errors
    /// When the snapshot is of a different experiment.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.restore_model(snapshot)?;
        let names: Vec<String> = self.model.infos().iter().map(|info| info.name.clone()).collect();
        let device = self.model.device().clone();
        for (prefix, optimizer) in OPTIMIZERS.iter().zip(&mut self.optimizers) {
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
        for metric in &mut self.parts.metrics {
            let name = metric.name();
            metric.load(state.metrics.get(name).map(Vec::as_slice)).map_err(|error| {
                SnapshotError(format!("what the metric `{name}` gathered cannot be read: {error}"))
            })?;
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
        let infos = self.model.infos();
        let n_target = if self.target.is_some() { infos.len() - 1 } else { 0 };
        let model = in_order(&snapshot.model, infos, "the model")?;
        let target = in_order(&snapshot.target, &infos[..n_target], "the target copy")?;
        if self.target.is_some() {
            let values = target.into_iter().map(|tensor| tensor.values.clone()).collect();
            self.target = Some(self.model.values_from(values));
        }
        for (i, tensor) in model.into_iter().enumerate() {
            self.model.set_value(i, tensor.values.clone());
        }
        self.counters = snapshot.counters;
        Ok(())
    }
}

/// The tensors in the order of the parameters, found by name.
fn in_order<'a>(
    tensors: &'a [NamedTensor],
    infos: &[ParamInfo],
    what: &str,
) -> Result<Vec<&'a NamedTensor>, SnapshotError> {
    if tensors.len() != infos.len() {
        let (found, wanted) = (tensors.len(), infos.len());
        return Err(SnapshotError(format!("{what} has {found} tensors instead of {wanted}")));
    }
    let find = |info: &ParamInfo| {
        let tensor = tensors
            .iter()
            .find(|tensor| tensor.name == info.name)
            .ok_or_else(|| SnapshotError(format!("{what} has no `{}`", info.name)))?;
        if tensor.shape != info.shape {
            return Err(SnapshotError(format!(
                "{what} has `{}` of shape {:?} instead of {:?}",
                info.name, tensor.shape, info.shape
            )));
        }
        Ok(tensor)
    };
    infos.iter().map(find).collect()
}
