//! A network with its parameters, on one of two engines.
//!
//! *Burn* tracks every operation by autodiff and runs on every device. *Native* runs the
//! network's hand-written passes on the CPU: outputs enter Burn as leaves, objectives are computed
//! on them as ever, and the gradients of those leaves go through the hand-written backward pass.
//! Objectives therefore exist once, and know nothing of engines.

use std::cell::RefCell;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;

use crate::kernels::sum_of_squares;
use crate::native::{NativeNetwork, Tape};
use crate::network::{Group, Network, Observations, Outputs, ParamInit};
use crate::optimizer::{NamedTensor, Optimizer};
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

/// Parameters and buffers of the native engine.
struct Native {
    network: Box<dyn NativeNetwork>,
    /// All parameters, log Z last.
    values: Vec<Vec<f32>>,
    /// Gradients by half of the batch; the sum ends up in the first.
    gradients: [Vec<Vec<f32>>; 2],
    /// Passes of the loss under construction, with the ids that they evaluated.
    passes: Vec<(Tensor<2>, Vec<i32>)>,
    /// Tapes of both halves per pass, kept from loss to loss.
    tapes: Vec<[Tape; 2]>,
    log_z: Option<Tensor<2>>,
}

/// How many of `n` states the first of two threads evaluates. It depends on the batch alone, so
/// results do not depend on how many threads there are.
fn first_half(n: usize) -> usize {
    const WORTH_A_THREAD: usize = 192;
    if n < WORTH_A_THREAD { n } else { n.div_ceil(2) }
}

impl Native {
    /// Runs the forward pass of the loss under construction; the outputs of all `n` states.
    fn forward(&mut self, ids: &[i32], n: usize) -> Vec<f32> {
        let slot = self.passes.len();
        if self.tapes.len() == slot {
            self.tapes.push(Default::default());
        }
        let [a, b] = &mut self.tapes[slot];
        let half = first_half(n);
        let (ids_a, ids_b) = ids.split_at(ids.len() / n.max(1) * half);
        let (network, values) = (&*self.network, &self.values);
        rayon::join(
            || network.forward(values, ids_a, half, a),
            || network.forward(values, ids_b, n - half, b),
        );
        let mut output = Vec::with_capacity(n * network.width());
        output.extend_from_slice(&a.output);
        output.extend_from_slice(&b.output);
        output
    }

    /// Adds the gradients of one pass, given that of its outputs.
    fn backward(&mut self, slot: usize, ids: &[i32], n: usize, output_gradient: &[f32]) {
        let [a, b] = &mut self.tapes[slot];
        let [gradients_a, gradients_b] = &mut self.gradients;
        let half = first_half(n);
        let (ids_a, ids_b) = ids.split_at(ids.len() / n.max(1) * half);
        let (dy_a, dy_b) = output_gradient.split_at(output_gradient.len() / n.max(1) * half);
        let (network, values) = (&*self.network, &self.values);
        rayon::join(
            || network.backward(values, ids_a, half, a, dy_a, gradients_a),
            || {
                if n > half {
                    network.backward(values, ids_b, n - half, b, dy_b, gradients_b);
                }
            },
        );
    }
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

/// The values of all network parameters at some time, on the model's engine.
#[derive(Clone)]
pub enum Values {
    /// Tensors without autodiff.
    Burn(Vec<Tensor<2>>),
    /// Row-major slices.
    Native(Vec<Vec<f32>>),
}

impl Values {
    /// The values on the host, row-major.
    pub fn to_host(&self) -> Vec<Vec<f32>> {
        match self {
            Values::Native(values) => values.clone(),
            Values::Burn(values) => {
                values.iter().map(|value| NamedTensor::of("", value.clone()).values).collect()
            }
        }
    }
}

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
                let values: Vec<_> = inits.iter().map(|init| init.values.clone()).collect();
                Engine::Native(Box::new(Native {
                    network: native,
                    gradients: [(); 2]
                        .map(|()| values.iter().map(|value| vec![0.0; value.len()]).collect()),
                    values,
                    passes: Vec::new(),
                    tapes: Vec::new(),
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
            Engine::Native(native) => native.values[i].clone(),
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
            Engine::Native(native) => native.values[i] = value,
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
            Engine::Native(native) => Values::Native(native.values[..n].to_vec()),
            Engine::Burn(params) => {
                Values::Burn(params.tensors[..n].iter().map(|p| p.val().inner()).collect())
            }
        }
    }

    /// Copies made from host values, in the order of the parameters.
    pub fn values_from(&self, values: Vec<Vec<f32>>) -> Values {
        match &self.engine {
            Engine::Native(_) => Values::Native(values),
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
                for (copy, value) in copy.iter_mut().zip(&native.values) {
                    crate::kernels::lerp(copy, value, tau as f32);
                }
            }
            (Values::Burn(copy), Engine::Burn(params)) => {
                for (copy, param) in copy.iter_mut().zip(&params.tensors) {
                    *copy = copy.clone() * (1.0 - tau) + param.val().inner() * tau;
                }
            }
            _ => unreachable!("copies are made by the model's own engine"),
        }
    }

    /// Evaluates states with gradients to the parameters, for a loss that
    /// [`gradients`](Self::gradients) is called on next.
    pub fn outputs(&mut self, observations: &Observations) -> Outputs {
        match &mut self.engine {
            Engine::Burn(params) => {
                let params: Vec<_> = params.tensors.iter().map(Param::val).collect();
                self.network.forward(&params, observations.on(&self.device))
            }
            Engine::Native(native) => {
                let n = observations.n;
                let output = native.forward(&observations.ids, n);
                let leaf = leaf(output, [n, native.network.width()], &self.device);
                native.passes.push((leaf.clone(), observations.ids.clone()));
                split(leaf, self.n_actions, self.n_back_actions)
            }
        }
    }

    /// Evaluates states without gradients, with the current values or a copy.
    pub fn outputs_of(&self, copy: Option<&Values>, observations: &Observations) -> Outputs {
        if let Engine::Native(_) = &self.engine {
            let tape = RefCell::new(Tape::default());
            let n = observations.n;
            let shape = self.native_forward(copy, &observations.ids, n, &tape).expect("native");
            let data = TensorData::new(tape.into_inner().output, shape);
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
        self.network.forward(values, observations.on(&self.device))
    }

    /// Runs the native forward pass into `tape`; the shape of its output, or none if the engine
    /// is Burn.
    pub fn native_forward(
        &self,
        copy: Option<&Values>,
        ids: &[i32],
        n: usize,
        tape: &RefCell<Tape>,
    ) -> Option<[usize; 2]> {
        let Engine::Native(native) = &self.engine else { return None };
        let values = match copy {
            Some(Values::Native(values)) => values,
            _ => &native.values,
        };
        native.network.forward(values, ids, n, &mut tape.borrow_mut());
        Some([n, native.network.width()])
    }

    /// The parameter log Z, `[1]`, tracked.
    pub fn log_z(&mut self) -> Tensor<1> {
        match &mut self.engine {
            Engine::Burn(params) => {
                params.tensors.last().expect("log Z is the last").val().reshape([1])
            }
            Engine::Native(native) => {
                let value = native.values.last().expect("log Z is the last");
                let leaf = leaf(value.clone(), [1, 1], &self.device);
                native.log_z = Some(leaf.clone());
                leaf.reshape([1])
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
                for gradient in native.gradients.iter_mut().flatten() {
                    gradient.fill(0.0);
                }
                let passes = std::mem::take(&mut native.passes);
                for (slot, (leaf, ids)) in passes.into_iter().enumerate() {
                    let Some(gradient) = leaf.grad_remove(&mut tracked) else { continue };
                    let [n, _] = gradient.dims();
                    let data = gradient.into_data().convert::<f32>();
                    let data = data.as_slice().expect("converted to f32 above");
                    native.backward(slot, &ids, n, data);
                }
                let [sum, second] = &mut native.gradients;
                for (sum, second) in sum.iter_mut().zip(second) {
                    crate::kernels::add(sum, second);
                }
                let log_z = native.log_z.take().and_then(|leaf| leaf.grad_remove(&mut tracked));
                if let (Some(gradient), Some(buffer)) = (log_z, native.gradients[0].last_mut()) {
                    buffer[0] = gradient.into_scalar::<f32>();
                }
                let (mut kept, mut squares) = (Vec::new(), 0.0);
                for (i, info) in self.infos.iter().enumerate() {
                    if groups.contains(&info.group) {
                        if info.group != Group::LogZ {
                            squares += sum_of_squares(&native.gradients[0][i]);
                        }
                        kept.push((i, None));
                    }
                }
                Gradients { loss, norm: squares.sqrt(), kept }
            }
        }
    }

    /// The gradient of parameter `i` as a host array, if there is one.
    pub fn gradient(&self, gradients: &Gradients, i: usize) -> Option<Vec<f32>> {
        let (_, tensor) = gradients.kept.iter().find(|(kept, _)| *kept == i)?;
        match (tensor, &self.engine) {
            (Some(tensor), _) => Some(NamedTensor::of("", tensor.clone()).values),
            (None, Engine::Native(native)) => Some(native.gradients[0][i].clone()),
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
        for (i, gradient) in gradients.kept {
            let (group, shape) = (self.infos[i].group, self.infos[i].shape);
            let scale = if group == Group::LogZ { 1.0 } else { scale };
            let (which, lr) = choose(group);
            let optimizer = &mut optimizers[which];
            match (&mut self.engine, gradient) {
                (Engine::Burn(params), Some(gradient)) => {
                    let gradient = if scale == 1.0 { gradient } else { gradient * scale };
                    let value = params.tensors[i].val().inner();
                    params.tensors[i] = tracked(i, optimizer.step(i, lr, value, gradient));
                }
                (Engine::Native(native), _) => {
                    let (value, gradient) = (&mut native.values[i], &native.gradients[0][i]);
                    optimizer.step_native(i, lr, shape, value, gradient, scale as f32);
                }
                (Engine::Burn(_), None) => {}
            }
        }
    }

    /// Forgets passes whose loss was never differentiated.
    pub fn clear(&mut self) {
        if let Engine::Native(native) = &mut self.engine {
            native.passes.clear();
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

fn leaf(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let data = TensorData::new(values, shape);
    Tensor::from_inner(Tensor::from_data(data, device)).require_grad()
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
