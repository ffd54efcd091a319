//! The engine on Burn: autodiff, on every device.

mod layers;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use gfn_core::learn::engine::{
    ActionsTaken, Ask, Engine, NamedTensor, ParamInfo, Pass, Readout, Recording, Rows, Upstream,
    Values, observe_into,
};
use gfn_core::learn::head::Head;
use gfn_core::{Environment, States};

use super::Common;
use crate::dropout::Dropout;
use crate::layers::LayerList;
use crate::stop::{into_logits, is_choice};
use layers::{Observed, upload_ints};

/// Fill value for logits of illegal actions. Not -infinity: NaN times zero poisons gradients.
const ILLEGAL: f32 = -1e9;

/// A network whose values are tensors.
pub(super) struct Burn {
    network: LayerList,
    common: Common,
    device: Device,
    /// Tracked.
    values: Vec<Tensor<2>>,
    copies: Vec<(&'static str, Vec<Tensor<2>>)>,
    /// The outputs of each pass of the loss under construction, by head.
    passes: Vec<Vec<(Head, Tensor<2>)>>,
    gradients: Vec<Option<Tensor<2>>>,
    rollouts: u64,
}

fn tracked(tensor: Tensor<2>) -> Tensor<2> {
    Tensor::from_inner(tensor).require_grad()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32 above")
}

impl Burn {
    pub(super) fn new(
        network: LayerList,
        common: Common,
        values: Vec<Vec<f32>>,
        device: &Device,
    ) -> Self {
        let upload = |(info, value): (&ParamInfo, Vec<f32>)| {
            tracked(Tensor::from_data(TensorData::new(value, info.shape), device))
        };
        Self {
            network,
            values: common.infos.iter().zip(values).map(upload).collect(),
            copies: Vec::new(),
            passes: Vec::new(),
            gradients: vec![None; common.infos.len()],
            rollouts: 0,
            device: device.clone(),
            common,
        }
    }

    fn upload(&self, i: usize, value: Vec<f32>) -> Tensor<2> {
        let shape = self.common.infos[i].shape;
        Tensor::from_data(TensorData::new(value, shape), &self.device)
    }

    /// Values without autodiff.
    fn plain(&self) -> Vec<Tensor<2>> {
        self.values.iter().map(|value| value.clone().inner()).collect()
    }

    fn copy_of(&self, name: &str) -> &Vec<Tensor<2>> {
        let named = self.copies.iter().find(|(other, _)| *other == name);
        &named.expect("updates keep what losses read").1
    }

    fn asked(&self, heads: &[Head]) -> Vec<bool> {
        self.common.context.heads.iter().map(|head| heads.contains(head)).collect()
    }

    /// What a readout makes of the output of a head.
    fn readout(&self, head: Head, output: Tensor<2>, readout: &Readout) -> Tensor<1> {
        let device = output.device();
        let rows = |of: &ActionsTaken| {
            upload_ints(of.rows.iter().map(|&row| row as i32).collect(), &device)
        };
        let taken = |of: &ActionsTaken| {
            let taken = of.taken.iter().map(|&action| action as i32).collect();
            upload_ints(taken, &device).reshape([of.len(), 1])
        };
        let masked = |output: Tensor<2>, of: &ActionsTaken| {
            let illegal: Vec<bool> = of.legal.iter().map(|&legal| !legal).collect();
            let illegal = TensorData::new(illegal, [of.len(), of.n_actions]);
            let illegal = Tensor::<2, Bool>::from_data(illegal, &device);
            output.select(0, rows(of)).mask_fill(illegal, ILLEGAL)
        };
        // log P of every action, of any number where it is illegal.
        let log_probs = |output: Tensor<2>, of: &ActionsTaken| {
            let Some(stop) = self.common.stop_first_of(head) else {
                return log_softmax(masked(output, of), 1);
            };
            // log σ(±z) where there is a choice, and the softmax of all but stopping.
            let m = of.len();
            let choice = |i: usize| f32::from(u8::from(is_choice(of.legal_at(i), stop)));
            let choice = TensorData::new((0..m).map(choice).collect::<Vec<_>>(), [m, 1]);
            let choice = Tensor::<2>::from_data(choice, &device);
            let z = output.clone().select(0, rows(of)).narrow(1, stop, 1);
            let pair = log_softmax(Tensor::cat(vec![z, Tensor::zeros([m, 1], &device)], 1), 1);
            let [stops, goes_on] = [0, 1].map(|i| pair.clone().narrow(1, i, 1) * choice.clone());
            let mut others = of.clone();
            others.legal.chunks_exact_mut(of.n_actions).for_each(|legal| legal[stop] = false);
            let others = log_softmax(masked(output, &others), 1) + goes_on;
            others.slice_assign([0..m, stop..stop + 1], stops)
        };
        // Entries of what is legal, one choice after the other.
        let legal_of = |all: Tensor<2>, of: &ActionsTaken| {
            let legal = of.legal.iter().enumerate().filter(|(_, legal)| **legal);
            let places = upload_ints(legal.map(|(i, _)| i as i32).collect(), &device);
            all.reshape([of.len() * of.n_actions]).select(0, places)
        };
        match readout {
            Readout::LogProb(of) => log_probs(output, of).gather(1, taken(of)).reshape([of.len()]),
            Readout::LogProbs(of) => legal_of(log_probs(output, of), of),
            Readout::Taken(of) => {
                output.select(0, rows(of)).gather(1, taken(of)).reshape([of.len()])
            }
            Readout::Numbers(of) => legal_of(output.select(0, rows(of)), of),
            Readout::LogSumExp(of) => {
                let logits = masked(output, of);
                let max = logits.clone().detach().max_dim(1);
                let sum = (logits - max.clone()).exp().sum_dim(1).log();
                (sum + max).reshape([of.len()])
            }
            Readout::Scalar => {
                let [n, _] = output.dims();
                output.reshape([n])
            }
        }
    }

    fn output(&self, pass: Pass, head: Head) -> Tensor<2> {
        let outputs = &self.passes[pass.0];
        outputs.iter().find(|(other, _)| *other == head).expect("it was asked for").1.clone()
    }
}

fn is_empty(readout: &Readout) -> bool {
    match readout {
        Readout::LogProb(of)
        | Readout::LogProbs(of)
        | Readout::Taken(of)
        | Readout::Numbers(of)
        | Readout::LogSumExp(of) => of.is_empty(),
        Readout::Scalar => false,
    }
}

impl Engine for Burn {
    fn name(&self) -> &'static str {
        "burn"
    }

    fn params(&self) -> &[ParamInfo] {
        &self.common.infos
    }

    fn value(&self, i: usize) -> Vec<f32> {
        host(self.values[i].clone().inner())
    }

    fn set_value(&mut self, i: usize, value: Vec<f32>) {
        self.values[i] = tracked(self.upload(i, value));
    }

    fn drops(&self) -> bool {
        self.network.dropout > 0.0
    }

    fn begin_rollout(&mut self, _: usize, _: &[Head]) -> (usize, Recording) {
        self.rollouts += 1;
        (1, Recording(self.rollouts))
    }

    fn logits(&self, ask: Ask, env: &dyn Environment, states: &States, out: &mut [f32]) {
        let mut ids = Vec::new();
        observe_into(env, states, &mut ids);
        let observed = Observed { ids: &ids, n: states.len(), device: &self.device };
        let current;
        let values = match ask.values {
            Values::Copy(name) => self.copy_of(name),
            Values::Current => {
                current = self.plain();
                &current
            }
        };
        let asked = self.asked(&[ask.head]);
        let outputs = layers::forward(&self.network, values, &observed, None, &asked);
        let logits = outputs.into_iter().flatten().next().expect("one head is asked for");
        out.copy_from_slice(&host(logits));
        if let Some(stop) = self.common.stop_first_of(ask.head) {
            into_logits(env, states, stop, out);
        }
    }

    fn evaluate(
        &mut self,
        env: &dyn Environment,
        rows: &Rows,
        heads: &[Head],
        values: Values,
        dropout: Option<u64>,
    ) -> Pass {
        let observed = Observed { ids: rows.ids(env), n: rows.states.len(), device: &self.device };
        let rate = self.network.dropout;
        let dropout = dropout.map(|key| Dropout { rate, key, first_row: 0 });
        let asked = self.asked(heads);
        let copied: Vec<_>;
        let values = match values {
            Values::Current => &self.values,
            Values::Copy(name) => {
                let tracked = |value: &Tensor<2>| Tensor::from_inner(value.clone());
                copied = self.copy_of(name).iter().map(tracked).collect();
                &copied
            }
        };
        let outputs = layers::forward(&self.network, values, &observed, dropout, &asked);
        let named = self.common.context.heads.iter().zip(outputs);
        let outputs = named.filter_map(|(&head, output)| Some((head, output?)));
        self.passes.push(outputs.collect());
        Pass(self.passes.len() - 1)
    }

    fn read(&mut self, pass: Pass, head: Head, readout: &Readout) -> Vec<f64> {
        if is_empty(readout) {
            return Vec::new();
        }
        // Without autodiff: it would keep operations that no gradient passes through.
        let output = self.output(pass, head).inner();
        host(self.readout(head, output, readout)).into_iter().map(f64::from).collect()
    }

    fn gradients(
        &mut self,
        upstream: Vec<Upstream>,
        parameters: &[(&'static str, f64)],
        groups: &[&str],
    ) -> f64 {
        let mut surrogate: Option<Tensor<1>> = None;
        for Upstream { pass, head, readout, derivatives } in upstream {
            if is_empty(&readout) {
                continue;
            }
            let read = self.readout(head, self.output(pass, head), &readout);
            let derivatives: Vec<f32> = derivatives.into_iter().map(|d| d as f32).collect();
            let n = derivatives.len();
            let derivatives = Tensor::from_data(TensorData::new(derivatives, [n]), &read.device());
            let term = (read * derivatives).sum();
            surrogate = Some(match surrogate {
                Some(sum) => sum + term,
                None => term,
            });
        }
        self.passes.clear();
        let mut tracked = surrogate.map(|surrogate| surrogate.backward());
        let in_groups = self.common.in_groups(groups);
        let mut squares = Vec::new();
        for (i, in_groups) in in_groups.into_iter().enumerate() {
            self.gradients[i] = in_groups.then(|| {
                if self.common.exempt[i] {
                    let group = &self.common.infos[i].group;
                    let by_name = parameters.iter().filter(|(name, _)| name == group);
                    let gradient = by_name.map(|(_, derivative)| *derivative as f32).sum();
                    return self.upload(i, vec![gradient]);
                }
                let gradient =
                    tracked.as_mut().and_then(|tracked| self.values[i].grad_remove(tracked));
                let shape = self.common.infos[i].shape;
                let gradient = gradient.unwrap_or_else(|| Tensor::zeros(shape, &self.device));
                squares.push(gradient.clone().square().sum());
                gradient
            });
        }
        if squares.is_empty() {
            return 0.0;
        }
        // One read-back.
        host(Tensor::cat(squares, 0)).into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    fn gradient(&self, i: usize) -> Option<Vec<f32>> {
        self.gradients[i].clone().map(host)
    }

    fn forget(&mut self) {
        self.passes.clear();
    }

    fn step(&mut self, optimizer: &str, rates: &[(&str, f64)], scale: f64) {
        for i in 0..self.values.len() {
            let group = self.common.infos[i].group.as_str();
            let rate = rates.iter().find(|(name, _)| *name == group);
            let (Some(&(_, lr)), Some(gradient)) = (rate, self.gradients[i].clone()) else {
                continue;
            };
            let scaled = scale != 1.0 && !self.common.exempt[i];
            let gradient = if scaled { gradient * scale } else { gradient };
            let value = self.values[i].clone().inner();
            let stepped = self.common.optimizer(optimizer, false).step(i, lr, value, gradient);
            self.values[i] = tracked(stepped);
        }
    }

    fn copy(&mut self, name: &'static str) {
        self.copies.retain(|(other, _)| *other != name);
        self.copies.push((name, self.plain()));
    }

    fn move_copy(&mut self, name: &'static str, tau: f64) {
        let current = self.plain();
        let named = self.copies.iter_mut().find(|(other, _)| *other == name);
        let copy = &mut named.expect("it was made before").1;
        for (copy, value) in copy.iter_mut().zip(current) {
            *copy = copy.clone() * (1.0 - tau) + value * tau;
        }
    }

    fn copied(&self, name: &'static str) -> Vec<Vec<f32>> {
        self.copy_of(name).iter().map(|value| host(value.clone())).collect()
    }

    fn set_copy(&mut self, name: &'static str, values: Vec<Vec<f32>>) {
        let uploaded = values.into_iter().enumerate().map(|(i, value)| self.upload(i, value));
        let uploaded = uploaded.collect();
        self.copies.retain(|(other, _)| *other != name);
        self.copies.push((name, uploaded));
    }

    fn save_optimizer(&self, name: &str) -> Vec<NamedTensor> {
        self.common.save_optimizer(name)
    }

    fn load_optimizer(&mut self, name: &str, state: Vec<NamedTensor>) {
        let (names, device) = (self.common.names(), self.device.clone());
        self.common.optimizer(name, false).load(&names, state, &device);
    }
}
