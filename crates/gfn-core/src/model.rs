//! A network with its parameters, on one of two engines.
//!
//! *Burn* tracks every operation by autodiff and runs on every device. *Native* runs the
//! network's hand-written passes on the CPU: outputs enter Burn as leaves, objectives are computed
//! on them as ever, and the gradients of those leaves go through the hand-written backward pass. An
//! objective with derivatives by hand needs no tensors there ([`HostLoss`]).

mod passes;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;

use self::passes::{Native, Pass, Upstream, joined};
use crate::choices::Choices;
use crate::dropout::Dropout;
use crate::native::{OutputRows, Tape, Weights};
use crate::network::{Group, Network, Observations, Outputs, ParamInit};
use crate::optimizer::{NamedTensor, NativeStep, Optimizer};
use crate::policy::Direction;
use crate::sampler::parts_of_batch;
use crate::scored::HostLoss;
use crate::{Environment, Layout};

/// What is known of a parameter besides its value.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// See [`ParamInit::name`].
    pub name: String,
    /// See [`ParamInit::group`].
    pub group: Group,
    /// See [`ParamInit::shape`].
    pub shape: [usize; 2],
}

/// The parameters as a Burn module.
#[derive(Module, Debug)]
struct Params {
    tensors: Vec<Param<Tensor<2>>>,
}

enum Engine {
    Burn(Params),
    Native(Box<Native>),
}

/// A network with its parameters and log Z.
pub struct Model {
    network: Box<dyn Network>,
    infos: Vec<ParamInfo>,
    engine: Engine,
    device: Device,
    n_actions: usize,
    n_back_actions: usize,
}

/// Gradients of a loss for some parameters.
pub struct Gradients {
    /// The loss.
    pub loss: f64,
    /// The norm over all parameters but log Z.
    pub norm: f64,
    /// Which parameters have one; tensors on the Burn engine, buffers of the model on the native.
    kept: Vec<(usize, Option<Tensor<2>>)>,
}

/// Which outputs of a network are read. Trunks of their own do not run for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The logits of P_F.
    pub forward: bool,
    /// The logits of P_B.
    pub backward: bool,
    /// log F.
    pub log_flow: bool,
}

impl Reads {
    /// All outputs.
    pub const ALL: Self = Self { forward: true, backward: true, log_flow: true };
}

/// States that were evaluated for a loss, on the model's engine.
pub enum Evaluated {
    /// Tracked outputs.
    Burn(Box<Outputs>),
    /// Which of the native passes under construction.
    Native(usize),
}

/// The values of all network parameters at some time, on the model's engine.
#[derive(Clone)]
pub enum Values {
    /// Tensors without autodiff.
    Burn(Vec<Tensor<2>>),
    /// Row-major slices.
    Native(Weights),
}

impl Values {
    /// The values on the host, row-major.
    pub fn to_host(&self) -> Vec<Vec<f32>> {
        match self {
            Values::Native(weights) => weights.values.clone(),
            Values::Burn(values) => {
                values.iter().map(|value| NamedTensor::of("", value.clone()).values).collect()
            }
        }
    }
}

/// Rows that are evaluated at once without a tape, in units of what is worth a thread.
const BLOCKS_PER_THREAD: usize = 64;

/// Name of the parameter log Z.
pub const LOG_Z: &str = "log_z";

impl Model {
    /// Initialises `network` on `device` (a plain device). `native` asks for the native engine,
    /// which is used if the network has one.
    pub fn new(
        network: Box<dyn Network>,
        layout: &Layout,
        rng: &mut ChaCha8Rng,
        log_z: f64,
        device: &Device,
        native: bool,
    ) -> Self {
        let mut inits = network.init(rng);
        inits.push(ParamInit {
            name: LOG_Z.to_owned(),
            group: Group::LogZ,
            shape: [1, 1],
            values: vec![log_z as f32],
        });
        let engine = match network.native().filter(|_| native) {
            Some(native) => {
                let values = inits.iter().map(|init| init.values.clone()).collect();
                let mut weights = Weights { values, ..Weights::default() };
                native.prepare(&mut weights);
                let zeros = |value: &Vec<f32>| vec![0.0; value.len()];
                Engine::Native(Box::new(Native {
                    network: native,
                    gradients: weights.values.iter().map(zeros).collect(),
                    weights,
                    passes: Vec::new(),
                    spare: Mutex::default(),
                    log_z: None,
                }))
            }
            None => {
                let tensor = |(i, init): (usize, &ParamInit)| {
                    let data = TensorData::new(init.values.clone(), init.shape);
                    tracked(i, Tensor::from_data(data, device))
                };
                let tensors = inits.iter().enumerate().map(tensor).collect();
                Engine::Burn(Params { tensors })
            }
        };
        let info = |ParamInit { name, group, shape, .. }| ParamInfo { name, group, shape };
        Self {
            network,
            infos: inits.into_iter().map(info).collect(),
            engine,
            device: device.clone(),
            n_actions: layout.n_actions,
            n_back_actions: layout.n_back_actions,
        }
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names, groups and shapes of all parameters; log Z is the last.
    pub fn infos(&self) -> &[ParamInfo] {
        &self.infos
    }

    /// See [`Network::dropout`].
    pub fn dropout(&self) -> f32 {
        self.network.dropout()
    }

    /// Whether the native engine runs.
    pub fn is_native(&self) -> bool {
        matches!(self.engine, Engine::Native(_))
    }

    /// Number of scalars in all parameters.
    pub fn n_params(&self) -> usize {
        self.infos.iter().map(|info| info.shape[0] * info.shape[1]).sum()
    }

    /// The value of parameter `i`, on the host.
    pub fn value(&self, i: usize) -> Vec<f32> {
        match &self.engine {
            Engine::Native(native) => native.weights.values[i].clone(),
            Engine::Burn(params) => NamedTensor::of("", params.tensors[i].val().inner()).values,
        }
    }

    /// Replaces the value of parameter `i` (row-major, of its shape).
    ///
    /// # Panics
    /// When the length is not that of the shape.
    pub fn set_value(&mut self, i: usize, value: Vec<f32>) {
        let shape = self.infos[i].shape;
        assert_eq!(value.len(), shape[0] * shape[1]);
        match &mut self.engine {
            Engine::Native(native) => {
                native.weights.values[i] = value;
                native.network.prepare(&mut native.weights);
            }
            Engine::Burn(params) => {
                let data = TensorData::new(value, shape);
                params.tensors[i] = tracked(i, Tensor::from_data(data, &self.device));
            }
        }
    }

    /// The learned log Z.
    pub fn log_z_value(&self) -> f64 {
        f64::from(self.value(self.infos.len() - 1)[0])
    }

    /// A copy of the current values of the network's parameters, without log Z.
    pub fn copy_values(&self) -> Values {
        let n = self.infos.len() - 1;
        match &self.engine {
            Engine::Native(native) => {
                let mut weights = native.weights.clone();
                weights.values.truncate(n);
                Values::Native(weights)
            }
            Engine::Burn(params) => {
                Values::Burn(params.tensors[..n].iter().map(|p| p.val().inner()).collect())
            }
        }
    }

    /// Copies made from host values, in the order of the parameters.
    pub fn values_from(&self, values: Vec<Vec<f32>>) -> Values {
        match &self.engine {
            Engine::Native(native) => {
                let mut weights = Weights { values, ..Weights::default() };
                native.network.prepare(&mut weights);
                Values::Native(weights)
            }
            Engine::Burn(_) => {
                let upload = |(value, info): (Vec<f32>, &ParamInfo)| {
                    Tensor::from_data(TensorData::new(value, info.shape), &self.device)
                };
                Values::Burn(values.into_iter().zip(&self.infos).map(upload).collect())
            }
        }
    }

    /// Moves a copy towards the current values: copy ← (1 − tau) copy + tau current.
    pub fn lerp(&self, copy: &mut Values, tau: f64) {
        match (copy, &self.engine) {
            (Values::Native(copy), Engine::Native(native)) => {
                for (copy, value) in copy.values.iter_mut().zip(&native.weights.values) {
                    crate::kernels::lerp(copy, value, tau as f32);
                }
                native.network.prepare(copy);
            }
            (Values::Burn(copy), Engine::Burn(params)) => {
                for (copy, param) in copy.iter_mut().zip(&params.tensors) {
                    *copy = copy.clone() * (1.0 - tau) + param.val().inner() * tau;
                }
            }
            _ => unreachable!("copies are made by the model's own engine"),
        }
    }

    /// Evaluates states for a loss that [`gradients`](Self::gradients) is called on next.
    pub fn evaluate(&mut self, observations: &Observations) -> Evaluated {
        self.evaluate_with(observations, None, Reads::ALL)
    }

    /// The same for a loss that reads some outputs alone, with some activations dropped.
    pub fn evaluate_with(
        &mut self,
        observations: &Observations,
        dropout: Option<Dropout>,
        reads: Reads,
    ) -> Evaluated {
        let columns = self.columns_of(reads);
        match &mut self.engine {
            Engine::Burn(params) => {
                let params: Vec<_> = params.tensors.iter().map(Param::val).collect();
                let tokens = observations.on(&self.device);
                Evaluated::Burn(Box::new(self.network.forward(&params, tokens, dropout)))
            }
            Engine::Native(native) => {
                let ids = &observations.ids;
                let (weights, n) = (&native.weights, observations.n);
                let tapes = native.forward(weights, ids, n, dropout, &columns);
                self.evaluated_on(tapes)
            }
        }
    }

    /// Empty tapes for a rollout of `n` trajectories whose activations
    /// [`evaluated_on`](Self::evaluated_on) can use again for a loss; none if the engine is Burn.
    pub fn recorders(&self, n: usize, reads: Reads) -> Option<Vec<Tape>> {
        let Engine::Native(native) = &self.engine else { return None };
        let mut tapes = native.tapes(parts_of_batch(n));
        let columns = self.columns_of(Reads { forward: true, ..reads });
        tapes.iter_mut().for_each(|tape| tape.columns.extend_from_slice(&columns));
        Some(tapes)
    }

    /// The columns of some outputs.
    fn columns_of(&self, reads: Reads) -> Vec<Range<usize>> {
        let log_flow = self.n_actions + self.n_back_actions;
        let columns = [
            (reads.forward, self.columns(Direction::Forward)),
            (reads.backward, self.columns(Direction::Backward)),
            (reads.log_flow, log_flow..log_flow + 1),
        ];
        columns.into_iter().filter(|(read, _)| *read).map(|(_, columns)| columns).collect()
    }

    /// Takes back tapes that are not needed any more.
    pub fn give_back(&self, tapes: Vec<Tape>) {
        if let Engine::Native(native) = &self.engine {
            native.give_back(tapes);
        }
    }

    /// The rows that were evaluated onto `tapes` **with the current values**, as
    /// [`evaluate`](Self::evaluate) would evaluate them again.
    ///
    /// # Panics
    /// On the Burn engine, which has no tapes.
    pub fn evaluated_on(&mut self, tapes: Vec<Tape>) -> Evaluated {
        let Engine::Native(native) = &mut self.engine else { panic!("tapes are native") };
        native.passes.push(Pass { tapes, log_probs: Vec::new(), log_flow: None });
        Evaluated::Native(native.passes.len() - 1)
    }

    /// First column of a direction's logits in a merged row.
    fn column(&self, direction: Direction) -> usize {
        match direction {
            Direction::Forward => 0,
            Direction::Backward => self.n_actions,
        }
    }

    /// The columns of a direction's logits.
    fn columns(&self, direction: Direction) -> Range<usize> {
        let n = match direction {
            Direction::Forward => self.n_actions,
            Direction::Backward => self.n_back_actions,
        };
        self.column(direction)..self.column(direction) + n
    }

    /// log-probabilities of choices made at evaluated states, on the host.
    ///
    /// # Panics
    /// On the Burn engine.
    pub(crate) fn log_probs_on_host(
        &self,
        evaluated: &Evaluated,
        direction: Direction,
        choices: &Choices,
    ) -> Vec<f32> {
        let (native, pass) = self.pass(evaluated);
        let outputs = OutputRows::new(&pass.tapes, native.network.width());
        choices.log_probs_on_host(&outputs, self.column(direction))
    }

    /// log F of evaluated states, on the host.
    ///
    /// # Panics
    /// On the Burn engine.
    pub(crate) fn log_flow_on_host(&self, evaluated: &Evaluated) -> Vec<f32> {
        let (native, pass) = self.pass(evaluated);
        let width = native.network.width();
        let outputs = pass.tapes.iter().map(|tape| tape.outputs(0, width));
        let rows = outputs.flat_map(|outputs| outputs.chunks_exact(width));
        rows.map(|row| row[width - 1]).collect()
    }

    fn pass(&self, evaluated: &Evaluated) -> (&Native, &Pass) {
        match (&self.engine, evaluated) {
            (Engine::Native(native), Evaluated::Native(pass)) => (native, &native.passes[*pass]),
            _ => unreachable!("asked of the native engine alone"),
        }
    }

    /// The native pass under construction that an evaluation is.
    fn pass_mut(&mut self, pass: usize) -> &mut Pass {
        let Engine::Native(native) = &mut self.engine else { unreachable!("one engine per model") };
        &mut native.passes[pass]
    }

    /// log-probabilities of choices made at evaluated states, `[m]`, tracked.
    pub fn log_probs(
        &mut self,
        evaluated: &Evaluated,
        direction: Direction,
        choices: &Arc<Choices>,
    ) -> Tensor<1> {
        match evaluated {
            Evaluated::Burn(outputs) => choices.log_probs(match direction {
                Direction::Forward => outputs.forward.clone(),
                Direction::Backward => outputs.backward.clone(),
            }),
            Evaluated::Native(pass) => {
                let values = self.log_probs_on_host(evaluated, direction, choices);
                let (leaf, column) = (leaf(values, &self.device), self.column(direction));
                self.pass_mut(*pass).log_probs.push((leaf.clone(), choices.clone(), column));
                leaf
            }
        }
    }

    /// The same, cut off from its gradients.
    pub fn detached_log_probs(
        &self,
        evaluated: &Evaluated,
        direction: Direction,
        choices: &Choices,
    ) -> Tensor<1> {
        match evaluated {
            Evaluated::Burn(outputs) => choices.log_probs(match direction {
                Direction::Forward => outputs.forward.clone().detach(),
                Direction::Backward => outputs.backward.clone().detach(),
            }),
            Evaluated::Native(_) => {
                let values = self.log_probs_on_host(evaluated, direction, choices);
                Tensor::from_inner(upload(values, &self.device))
            }
        }
    }

    /// log F of evaluated states, `[n]`, tracked.
    pub fn log_flow(&mut self, evaluated: &Evaluated) -> Tensor<1> {
        match evaluated {
            Evaluated::Burn(outputs) => outputs.log_flow.clone(),
            Evaluated::Native(pass) => {
                let leaf = leaf(self.log_flow_on_host(evaluated), &self.device);
                self.pass_mut(*pass).log_flow = Some(leaf.clone());
                leaf
            }
        }
    }

    /// log F of the first evaluated state.
    pub fn first_log_flow(&self, evaluated: &Evaluated) -> f64 {
        match evaluated {
            Evaluated::Burn(outputs) => {
                let first = outputs.log_flow.clone().narrow(0, 0, 1).inner();
                f64::from(first.into_scalar::<f32>())
            }
            Evaluated::Native(_) => {
                let (native, pass) = self.pass(evaluated);
                f64::from(pass.tapes[0].output[native.network.width() - 1])
            }
        }
    }

    /// log-probabilities of choices with a copy of the values, `[m]`, without gradients.
    pub fn log_probs_of(
        &self,
        copy: &Values,
        observations: &Observations,
        direction: Direction,
        choices: &Choices,
    ) -> Tensor<1> {
        if self.is_native() {
            let values = self.log_probs_of_on_host(copy, observations, direction, choices);
            return upload(values, &self.device);
        }
        let outputs = self.outputs_of(Some(copy), observations);
        choices.log_probs(match direction {
            Direction::Forward => outputs.forward,
            Direction::Backward => outputs.backward,
        })
    }

    /// The same on the host.
    ///
    /// # Panics
    /// On the Burn engine.
    pub(crate) fn log_probs_of_on_host(
        &self,
        copy: &Values,
        observations: &Observations,
        direction: Direction,
        choices: &Choices,
    ) -> Vec<f32> {
        let Engine::Native(native) = &self.engine else {
            panic!("asked of the native engine alone")
        };
        let (ids, n) = (&observations.ids, observations.n);
        let columns = [self.columns(direction)];
        let tapes = native.forward(native.weights_of(Some(copy)), ids, n, None, &columns);
        let outputs = OutputRows::new(&tapes, native.network.width());
        let values = choices.log_probs_on_host(&outputs, self.column(direction));
        native.give_back(tapes);
        values
    }

    /// Evaluates states without gradients, with the current values or a copy.
    pub fn outputs_of(&self, copy: Option<&Values>, observations: &Observations) -> Outputs {
        if let Engine::Native(native) = &self.engine {
            let n = observations.n;
            let tapes = native.forward(native.weights_of(copy), &observations.ids, n, None, &[]);
            let width = native.network.width();
            let data = TensorData::new(joined(&tapes, width), [n, width]);
            native.give_back(tapes);
            let output = Tensor::from_data(data, &self.device);
            return split(output, self.n_actions, self.n_back_actions);
        }
        let current;
        let values = match copy {
            Some(Values::Burn(values)) => values,
            _ => {
                current = self.copy_values();
                let Values::Burn(values) = &current else { unreachable!("not native") };
                values
            }
        };
        self.network.forward(values, observations.on(&self.device), None)
    }

    /// Evaluates `n` states natively without tensors: `use_rows` gets consecutive rows of the
    /// output, each of [`NativeNetwork::width`] columns, of which those of
    /// `direction` hold. With a tape, which is then appended to, all is done on this thread. False if the engine is Burn.
    pub(crate) fn native_rows(
        &self,
        copy: Option<&Values>,
        direction: Direction,
        ids: &[i32],
        n: usize,
        record: Option<&mut Tape>,
        mut use_rows: impl FnMut(usize, &[f32]),
    ) -> bool {
        let Engine::Native(native) = &self.engine else { return false };
        let (weights, width) = (native.weights_of(copy), native.network.width());
        match record {
            Some(tape) => {
                let start = tape.rows;
                native.network.forward(weights, ids, n, tape);
                use_rows(width, tape.outputs(start, width));
            }
            None => {
                // Activations of many rows at once would take up much memory for nothing.
                let block = BLOCKS_PER_THREAD * native.network.rows_per_thread();
                let n_active = ids.len() / n.max(1);
                for start in (0..n).step_by(block) {
                    let end = n.min(start + block);
                    let ids = &ids[start * n_active..end * n_active];
                    let columns = [self.columns(direction)];
                    let tapes = native.forward(weights, ids, end - start, None, &columns);
                    for tape in &tapes {
                        use_rows(width, tape.outputs(0, width));
                    }
                    native.give_back(tapes);
                }
            }
        }
        true
    }

    /// The parameter log Z, `[1]`, tracked.
    pub fn log_z(&mut self) -> Tensor<1> {
        match &mut self.engine {
            Engine::Burn(params) => {
                params.tensors.last().expect("log Z is the last").val().reshape([1])
            }
            Engine::Native(native) => {
                let value = native.weights.values.last().expect("log Z is the last");
                let leaf = leaf(value.clone(), &self.device);
                native.log_z = Some(leaf.clone());
                leaf
            }
        }
    }

    /// The gradients of a loss for the parameters of `groups` alone. One read-back.
    pub fn gradients(&mut self, loss: Tensor<1>, groups: &[Group]) -> Gradients {
        let mut tracked = loss.backward();
        match &mut self.engine {
            Engine::Burn(params) => {
                let mut kept = Vec::new();
                let mut scalars = vec![loss.inner()];
                for (i, info) in self.infos.iter().enumerate() {
                    if !groups.contains(&info.group) {
                        continue;
                    }
                    if let Some(gradient) = params.tensors[i].val().grad_remove(&mut tracked) {
                        if info.group != Group::LogZ {
                            scalars.push(gradient.clone().square().sum());
                        }
                        kept.push((i, Some(gradient)));
                    }
                }
                let read = NamedTensor::of("", Tensor::cat(scalars, 0)).values;
                let norm = read[1..].iter().map(|&square| f64::from(square)).sum::<f64>().sqrt();
                Gradients { loss: f64::from(read[0]), norm, kept }
            }
            Engine::Native(native) => {
                let loss = f64::from(loss.inner().into_scalar::<f32>());
                let mut upstream_of = |leaf: Tensor<1>| leaf.grad_remove(&mut tracked).map(on_host);
                let mut passes = Vec::new();
                for Pass { tapes, log_probs, log_flow } in std::mem::take(&mut native.passes) {
                    let log_probs = log_probs.into_iter().filter_map(|(leaf, choices, column)| {
                        upstream_of(leaf).map(|upstream| (choices, column, upstream))
                    });
                    let log_probs = log_probs.collect();
                    let log_flow = log_flow.and_then(&mut upstream_of);
                    passes.push((tapes, Upstream { log_probs, log_flow }));
                }
                let of_log_z = native.log_z.take().and_then(upstream_of);
                native.backward(passes, of_log_z.map_or(0.0, |gradient| gradient[0]));
                native.kept(loss, &self.infos, groups)
            }
        }
    }

    /// The gradients of a loss whose derivatives are known, for the parameters of `groups` alone.
    /// `backward` are the choices of P_B, if the loss reaches it.
    ///
    /// # Panics
    /// On the Burn engine.
    pub(crate) fn gradients_by_hand(
        &mut self,
        evaluated: Evaluated,
        loss: HostLoss,
        [forward, backward]: [Option<&Arc<Choices>>; 2],
        groups: &[Group],
    ) -> Gradients {
        let columns = [Direction::Forward, Direction::Backward].map(|to| self.column(to));
        let Engine::Native(native) = &mut self.engine else { panic!("tapes are native") };
        let Evaluated::Native(pass) = evaluated else { unreachable!("one engine per model") };
        let read = [(forward, loss.log_pf), (backward, loss.log_pb)];
        let log_probs =
            read.into_iter().zip(columns).filter_map(|((choices, upstream), column)| {
                Some((choices?.clone(), column, upstream?))
            });
        let upstream = Upstream { log_probs: log_probs.collect(), log_flow: loss.log_flow };
        let pass = native.passes.swap_remove(pass);
        native.backward(vec![(pass.tapes, upstream)], loss.log_z);
        native.kept(loss.loss, &self.infos, groups)
    }

    /// The gradient of parameter `i` as a host array, if there is one.
    pub fn gradient(&self, gradients: &Gradients, i: usize) -> Option<Vec<f32>> {
        let (_, tensor) = gradients.kept.iter().find(|(kept, _)| *kept == i)?;
        match (tensor, &self.engine) {
            (Some(tensor), _) => Some(NamedTensor::of("", tensor.clone()).values),
            (None, Engine::Native(native)) => Some(native.gradients[i].clone()),
            (None, Engine::Burn(_)) => None,
        }
    }

    /// Applies the last gradients, scaled down to `clip_norm` (log Z is exempt): each parameter by
    /// the optimiser and at the rate that `choose` gives for its group.
    pub fn apply(
        &mut self,
        gradients: Gradients,
        clip_norm: Option<f64>,
        optimizers: &mut [Optimizer],
        choose: impl Fn(Group) -> (usize, f64),
    ) {
        let scale = match clip_norm {
            Some(limit) if gradients.norm > limit => limit / gradients.norm,
            _ => 1.0,
        };
        let infos = &self.infos;
        let scale_of = |group: Group| if group == Group::LogZ { 1.0 } else { scale };
        match &mut self.engine {
            Engine::Burn(params) => {
                for (i, gradient) in gradients.kept {
                    let (group, Some(gradient)) = (infos[i].group, gradient) else { continue };
                    let (scale, (which, lr)) = (scale_of(group), choose(group));
                    let gradient = if scale == 1.0 { gradient } else { gradient * scale };
                    let value = params.tensors[i].val().inner();
                    params.tensors[i] = tracked(i, optimizers[which].step(i, lr, value, gradient));
                }
            }
            Engine::Native(native) => {
                let mut steps: Vec<Vec<_>> = optimizers.iter().map(|_| Vec::new()).collect();
                let mut values = native.weights.values.iter_mut().enumerate();
                for (i, _) in gradients.kept {
                    let value = values.find(|(at, _)| *at == i).expect("they come in order").1;
                    let (group, shape) = (infos[i].group, infos[i].shape);
                    let (scale, (which, lr)) = (scale_of(group) as f32, choose(group));
                    let gradient = &native.gradients[i];
                    steps[which].push(NativeStep { i, lr, shape, value, gradient, scale });
                }
                for (optimizer, steps) in optimizers.iter_mut().zip(steps) {
                    optimizer.step_native(steps);
                }
                native.network.prepare(&mut native.weights);
            }
        }
    }

    /// Forgets passes whose loss was never differentiated.
    pub fn clear(&mut self) {
        if let Engine::Native(native) = &mut self.engine {
            for pass in std::mem::take(&mut native.passes) {
                native.give_back(pass.tapes);
            }
            native.log_z = None;
        }
    }

    /// log F(s0) under the current values.
    pub fn log_flow_initial(&self, env: &dyn Environment) -> f64 {
        let mut row = vec![0; env.layout().width];
        env.reset(&mut row);
        let mut states = crate::States::new(row.len());
        states.push(&row);
        let outputs = self.outputs_of(None, &Observations::new(env, &states));
        f64::from(outputs.log_flow.into_scalar::<f32>())
    }
}

fn tracked(i: usize, tensor: Tensor<2>) -> Param<Tensor<2>> {
    let tensor = Tensor::from_inner(tensor).require_grad();
    Param::initialized(ParamId::from(i as u64 + 1), tensor)
}

fn leaf(values: Vec<f32>, device: &Device) -> Tensor<1> {
    Tensor::from_inner(upload(values, device)).require_grad()
}

fn upload(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

fn on_host(tensor: Tensor<1>) -> Vec<f32> {
    NamedTensor::of("", tensor.reshape([1, -1])).values
}

/// The three outputs of a merged row.
fn split(output: Tensor<2>, n_actions: usize, n_back_actions: usize) -> Outputs {
    let [n, _] = output.dims();
    Outputs {
        forward: output.clone().narrow(1, 0, n_actions),
        backward: output.clone().narrow(1, n_actions, n_back_actions),
        log_flow: output.narrow(1, n_actions + n_back_actions, 1).reshape([n]),
    }
}
