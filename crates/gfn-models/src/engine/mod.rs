//! Engines: what computes networks, gradients and optimiser steps.
//!
//! *Burn* tracks every operation by autodiff and runs on every device: the reference. *Native* runs
//! hand-written passes on the CPU. Losses are the same for both: they are computed on the host, on
//! numbers that an engine has read off its outputs.

mod burn;
pub mod native;
mod optimizer;

use ::burn::tensor::Device;
use gfn_core::learn::engine::{Engine, ParamInfo};
use gfn_core::learn::head::Head;
use gfn_core::learn::{EngineKind, TrainSettings};
use rand::rngs::ChaCha8Rng;

use crate::layers::LayerList;
use crate::network::{NetworkContext, ParamInit};

pub use optimizer::{NativeStep, Optimizer};

/// A model: `network`, initialised from `rng`, with the parameters of their own among `heads`.
pub fn new(
    network: Box<LayerList>,
    context: NetworkContext,
    heads: &[Head],
    settings: &TrainSettings,
    device: &Device,
    rng: &mut ChaCha8Rng,
) -> Box<dyn Engine> {
    let mut inits = network.init(rng);
    for head in heads.iter().filter(|head| head.is_parameter()) {
        let value = if *head == Head::LOG_Z { settings.log_z_init as f32 } else { 0.0 };
        let (name, group) = (head.name.to_owned(), head.name.to_owned());
        inits.push(ParamInit { name, group, shape: [1, 1], values: vec![value] });
    }
    let common = Common {
        infos: inits
            .iter()
            .map(|ParamInit { name, group, shape, .. }| ParamInfo {
                name: name.clone(),
                group: group.clone(),
                shape: *shape,
            })
            .collect(),
        exempt: inits
            .iter()
            .map(|init| heads.iter().any(|head| head.is_parameter() && head.name == init.group))
            .collect(),
        optimizer: settings.optimizer_settings(),
        optimizers: Vec::new(),
        stop_first: network.stop_first,
        context,
    };
    let native = settings.engine == EngineKind::Native && *device == Device::flex();
    let values = inits.into_iter().map(|init| init.values).collect();
    match native.then(|| native::network(&network)).flatten() {
        Some(native) => Box::new(native::Native::new(native, network.dropout, common, values)),
        None => Box::new(burn::Burn::new(*network, common, values, device)),
    }
}

/// What engines have in common: names, and the states of optimisers.
struct Common {
    context: NetworkContext,
    /// See [`LayerList::stop_first`].
    stop_first: Option<usize>,
    infos: Vec<ParamInfo>,
    /// Which parameters weight decay, clipping and norms of gradients leave alone.
    exempt: Vec<bool>,
    optimizer: gfn_core::learn::OptimizerSettings,
    /// By the names of updates.
    optimizers: Vec<(String, Optimizer)>,
}

impl Common {
    /// The action that is decided on before all others of a head.
    fn stop_first_of(&self, head: Head) -> Option<usize> {
        self.stop_first.filter(|_| head == Head::FORWARD)
    }

    /// The parameters of some groups.
    fn in_groups(&self, groups: &[&str]) -> Vec<bool> {
        self.infos.iter().map(|info| groups.contains(&info.group.as_str())).collect()
    }

    /// The optimiser of that name, made when it is first needed.
    fn optimizer(&mut self, name: &str, native: bool) -> &mut Optimizer {
        let position = self.optimizers.iter().position(|(other, _)| other == name);
        let position = position.unwrap_or_else(|| {
            let optimizer = Optimizer::new(&self.optimizer, self.exempt.clone(), native);
            self.optimizers.push((name.to_owned(), optimizer));
            self.optimizers.len() - 1
        });
        &mut self.optimizers[position].1
    }

    fn names(&self) -> Vec<String> {
        self.infos.iter().map(|info| info.name.clone()).collect()
    }

    /// See [`Engine::save_optimizer`].
    fn save_optimizer(&self, name: &str) -> Vec<gfn_core::learn::engine::NamedTensor> {
        let named = self.optimizers.iter().find(|(other, _)| other == name);
        named.map(|(_, optimizer)| optimizer.save(&self.names())).unwrap_or_default()
    }
}
