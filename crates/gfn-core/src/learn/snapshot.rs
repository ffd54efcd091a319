//! Everything that a run needs to go on as if it had never stopped.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::engine::{NamedTensor, ParamInfo};
use super::replay::Buffer;
use super::substructures::Memory;
use super::trainer::{Counters, Trainer};
use crate::Trajectories;

/// The state of a [`Trainer`] between two iterations.
///
/// Random streams are addressed by iteration, so they need no state of their own. Two snapshots
/// of the same state are equal in every byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What has been spent so far.
    pub counters: Counters,
    /// Parameters, by name; none where there is no policy.
    pub model: Vec<NamedTensor>,
    /// Copies that updates keep, under `<copy>/<parameter>`.
    pub copies: Vec<NamedTensor>,
    /// States of the optimisers, under `<update>/<parameter>.<what>`.
    pub optimizers: Vec<NamedTensor>,
    /// Past batches, replay buffers and what metrics have gathered (postcard), then chains, priorities, and
    /// what a guide remembers.
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
    buffers: Vec<Option<Buffer>>,
    /// What metrics have gathered, by their names.
    metrics: BTreeMap<String, Vec<u8>>,
}

/// Tensors under a prefix.
fn under(prefix: &str, tensors: Vec<NamedTensor>) -> impl Iterator<Item = NamedTensor> {
    tensors.into_iter().map(move |mut tensor| {
        tensor.name = format!("{prefix}/{}", tensor.name);
        tensor
    })
}

/// Those that stand under a prefix, without it.
fn of_prefix(prefix: &str, tensors: &[NamedTensor]) -> Vec<NamedTensor> {
    let prefix = format!("{prefix}/");
    let without = |tensor: &NamedTensor| {
        let name = tensor.name.strip_prefix(&prefix)?.to_owned();
        Some(NamedTensor { name, ..tensor.clone() })
    };
    tensors.iter().filter_map(without).collect()
}

impl Trainer {
    fn copies(&self) -> Vec<&'static str> {
        let updates = self.parts.plan.updates.iter();
        updates.filter_map(|planned| Some(planned.update.copy?.name)).collect()
    }

    /// The parameters that a snapshot holds: those of a network that nothing trains would mislead.
    fn trained_params(&self) -> &[ParamInfo] {
        if self.has_policy() { self.engine.params() } else { &[] }
    }

    /// The complete state.
    pub fn snapshot(&self) -> Snapshot {
        let infos = self.trained_params();
        let named = |(info, values): (&ParamInfo, Vec<f32>)| NamedTensor {
            name: info.name.clone(),
            shape: info.shape.to_vec(),
            values,
        };
        let model = infos.iter().enumerate().map(|(i, info)| named((info, self.engine.value(i))));
        let copies = self.copies().into_iter().flat_map(|copy| {
            let values = self.engine.copied(copy);
            under(copy, infos.iter().zip(values).map(named).collect())
        });
        let optimizers = self.parts.plan.updates.iter().flat_map(|planned| {
            let name = planned.update.name;
            under(name, self.engine.save_optimizer(name))
        });
        let gathered = self.parts.metrics.iter();
        let gathered =
            gathered.filter_map(|metric| Some((metric.name().to_owned(), metric.save()?)));
        let state = State {
            counters: self.counters,
            history: self.history.clone(),
            buffers: self.buffers.clone(),
            metrics: gathered.collect(),
        };
        let mut state = postcard::to_stdvec(&state).expect("the state serialises");
        state.extend(self.save_walk());
        let priorities: Vec<Vec<f64>> =
            self.buffers.iter().flatten().filter_map(Buffer::save_priorities).collect();
        if !priorities.is_empty() {
            state.extend(postcard::to_stdvec(&priorities).expect("numbers serialise"));
        }
        state.extend(self.memory.iter().flat_map(Memory::save));
        Snapshot {
            counters: self.counters,
            model: model.collect(),
            copies: copies.collect(),
            optimizers: optimizers.collect(),
            state,
        }
    }

    /// Goes back to a snapshot. Metrics that the snapshot knows nothing of do not apply any more.
    ///
    /// # Errors
    /// When the snapshot is of a different experiment.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.restore_model(snapshot)?;
        for planned in &self.parts.plan.updates {
            let name = planned.update.name;
            self.engine.load_optimizer(name, of_prefix(name, &snapshot.optimizers));
        }
        let unreadable = |error| SnapshotError(format!("the state cannot be read: {error}"));
        let (mut state, rest): (State, _) =
            postcard::take_from_bytes(&snapshot.state).map_err(unreadable)?;
        self.load_walk(rest).map_err(SnapshotError)?;
        let (buffers, rest) = self.restored_buffers(std::mem::take(&mut state.buffers), rest)?;
        let memory = match &self.memory {
            Some(own) => Some(own.restored(self.parts.env(), rest).map_err(|error| {
                SnapshotError(format!("what a guide remembers cannot be read: {error}"))
            })?),
            None => None,
        };
        for metric in &mut self.parts.metrics {
            let name = metric.name();
            metric.load(state.metrics.get(name).map(Vec::as_slice)).map_err(|error| {
                SnapshotError(format!("what the metric `{name}` gathered cannot be read: {error}"))
            })?;
        }
        self.counters = state.counters;
        self.history = state.history;
        self.buffers = buffers;
        self.memory = memory;
        Ok(())
    }

    /// Buffers of a snapshot, with the priorities that stand behind it; also the rest after these.
    fn restored_buffers<'b>(
        &self,
        mut buffers: Vec<Option<Buffer>>,
        rest: &'b [u8],
    ) -> Result<(Vec<Option<Buffer>>, &'b [u8]), SnapshotError> {
        let damaged =
            |error: String| SnapshotError(format!("replay buffers cannot be read: {error}"));
        let (saved, rest) =
            match self.buffers.iter().flatten().any(|own| own.save_priorities().is_some()) {
                true => postcard::take_from_bytes::<Vec<Vec<f64>>>(rest)
                    .map_err(|error| damaged(error.to_string()))?,
                false => (Vec::new(), rest),
            };
        let mut saved = saved.into_iter();
        if buffers.len() != self.buffers.len() {
            return Err(damaged(format!("{} instead of {}", buffers.len(), self.buffers.len())));
        }
        for (own, restored) in self.buffers.iter().zip(&mut buffers) {
            match (own, restored) {
                (None, None) => {}
                (Some(own), Some(restored)) => {
                    let known = match own.save_priorities() {
                        Some(_) => saved.next().unwrap_or_default(),
                        None => Vec::new(),
                    };
                    restored.restore_priorities(own, &known).map_err(damaged)?;
                }
                _ => return Err(damaged("they are of another objective".to_owned())),
            }
        }
        Ok((buffers, rest))
    }

    /// Takes the parameters (and the copies) of a snapshot, and nothing else: enough to
    /// evaluate and sample.
    ///
    /// # Errors
    /// When the snapshot is of a different network.
    pub fn restore_model(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let infos = self.trained_params();
        let model = in_order(&snapshot.model, infos, "the model")?;
        let copies: Vec<_> = self
            .copies()
            .into_iter()
            .map(|name| {
                let tensors = of_prefix(name, &snapshot.copies);
                let ordered = in_order(&tensors, infos, &format!("the copy `{name}`"))?;
                Ok((name, ordered.into_iter().map(|tensor| tensor.values.clone()).collect()))
            })
            .collect::<Result<_, SnapshotError>>()?;
        for (name, values) in copies {
            self.engine.set_copy(name, values);
        }
        for (i, tensor) in model.into_iter().enumerate() {
            self.engine.set_value(i, tensor.values.clone());
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
