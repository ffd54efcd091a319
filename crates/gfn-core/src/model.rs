//! A network with its parameters, on one of two engines.
//!
//! *Burn* tracks every operation by autodiff and runs on every device. *Native* runs the
//! network's hand-written passes on the CPU: outputs enter Burn as leaves, objectives are computed
//! on them as ever, and the gradients of those leaves go through the hand-written backward pass.
//! Objectives therefore exist once, and know nothing of engines.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;

use crate::choices::Choices;
use crate::dropout::Dropout;
use crate::native::{NativeNetwork, Tape, Weights, sum_gradients};
use crate::network::{Group, Network, Observations, Outputs, ParamInit};
use crate::optimizer::{NamedTensor, Optimizer};
use crate::policy::Direction;
use crate::sampler::parts_of_batch;
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
    weights: Weights,
    /// Gradients by part of the batch; the sum ends up in the first.
    gradients: Vec<Vec<Vec<f32>>>,
    /// Passes of the loss under construction.
    passes: Vec<Pass>,
    /// Tapes to use again.
    spare: Mutex<Vec<Tape>>,
    log_z: Option<Tensor<1>>,
}

/// States evaluated for a loss, and what of them has become leaves of Burn's graph.
struct Pass {
    /// By part.
    tapes: Vec<Tape>,
    /// The outputs of all parts.
    output: Vec<f32>,
    /// log-probabilities, with the column at which their logits start.
    log_probs: Vec<(Tensor<1>, Arc<Choices>, usize)>,
    log_flow: Option<Tensor<1>>,
}

/// Into how many parts `n` states are cut, one thread each. It depends on the batch alone, so
/// results do not depend on how many threads there are.
fn parts_of_states(n: usize, per_thread: usize) -> usize {
    let mut parts = 1;
    // More parts need more buffers for gradients: their number grows with the root of the work.
    while parts < 16 && n >= 2 * per_thread * parts * parts {
        parts *= 2;
    }
    parts
}

impl Native {
    /// `n` empty tapes.
    fn tapes(&self, n: usize) -> Vec<Tape> {
        let mut spare = self.spare.lock().expect("no thread panics with it");
        let kept = spare.len().saturating_sub(n);
        let mut tapes = spare.split_off(kept);
        tapes.resize_with(n, Tape::default);
        for tape in &mut tapes {
            tape.clear();
        }
        tapes
    }

    /// The current values, or a copy.
    fn weights_of<'a>(&'a self, copy: Option<&'a Values>) -> &'a Weights {
        match copy {
            Some(Values::Native(weights)) => weights,
            _ => &self.weights,
        }
    }

    fn give_back(&self, tapes: Vec<Tape>) {
        self.spare.lock().expect("no thread panics with it").extend(tapes);
    }

    /// Evaluates `n` states in parts, side by side.
    fn forward(
        &self,
        weights: &Weights,
        ids: &[i32],
        n: usize,
        dropout: Option<Dropout>,
        columns: Option<Range<usize>>,
    ) -> Vec<Tape> {
        let n_parts = parts_of_states(n, self.network.rows_per_thread());
        let mut tapes = self.tapes(n_parts);
        let n_active = ids.len() / n.max(1);
        tapes.par_iter_mut().enumerate().for_each(|(i, tape)| {
            let (start, end) = (n * i / n_parts, n * (i + 1) / n_parts);
            let ids = &ids[start * n_active..end * n_active];
            tape.dropout = dropout.map(|dropout| dropout.after(start));
            tape.columns = columns.clone();
            self.network.forward(weights, ids, end - start, tape);
        });
        tapes
    }

    /// Adds the gradients of one pass, given that of its outputs.
    fn backward(&mut self, tapes: &mut [Tape], output_gradient: &[f32]) {
        let (network, weights) = (&*self.network, &self.weights);
        let mut rest = output_gradient;
        let mut work = Vec::with_capacity(tapes.len());
        for (tape, gradients) in tapes.iter_mut().zip(&mut self.gradients) {
            let (own, after) = rest.split_at(tape.rows * network.width());
            rest = after;
            work.push((tape, own, gradients));
        }
        work.into_par_iter().for_each(|(tape, output_gradient, gradients)| {
            network.backward(weights, tape, output_gradient, gradients);
        });
    }

    /// Sets the gradients of the first parts to zero.
    fn clear_gradients(&mut self, n_parts: usize) {
        let empty = || self.weights.values.iter().map(|value| vec![0.0; value.len()]).collect();
        let kept = self.gradients.len();
        self.gradients.resize_with(n_parts.max(kept), empty);
        // Each by the thread that is to add to it, as likely as not.
        self.gradients[..n_parts.min(kept)].par_iter_mut().for_each(|gradients| {
            gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        });
    }
}

/// The outputs of all parts, one after the other.
fn joined(tapes: &[Tape], width: usize) -> Vec<f32> {
    let n_rows: usize = tapes.iter().map(|tape| tape.rows).sum();
    let mut output = Vec::with_capacity(n_rows * width);
    for tape in tapes {
        output.extend_from_slice(tape.outputs(0, width));
    }
    output
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
                Engine::Native(Box::new(Native {
                    network: native,
                    weights,
                    gradients: Vec::new(),
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
        self.evaluate_with(observations, None)
    }

    /// The same, with some activations dropped.
    pub fn evaluate_with(
        &mut self,
        observations: &Observations,
        dropout: Option<Dropout>,
    ) -> Evaluated {
        match &mut self.engine {
            Engine::Burn(params) => {
                let params: Vec<_> = params.tensors.iter().map(Param::val).collect();
                let tokens = observations.on(&self.device);
                Evaluated::Burn(Box::new(self.network.forward(&params, tokens, dropout)))
            }
            Engine::Native(native) => {
                let ids = &observations.ids;
                let tapes = native.forward(&native.weights, ids, observations.n, dropout, None);
                self.evaluated_on(tapes)
            }
        }
    }

    /// Empty tapes for a rollout of `n` trajectories whose activations
    /// [`evaluated_on`](Self::evaluated_on) can use again; none if the engine is Burn.
    pub fn recorders(&self, n: usize) -> Option<Vec<Tape>> {
        match &self.engine {
            Engine::Native(native) => Some(native.tapes(parts_of_batch(n))),
            Engine::Burn(_) => None,
        }
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
        let output = joined(&tapes, native.network.width());
        native.passes.push(Pass { tapes, output, log_probs: Vec::new(), log_flow: None });
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

    /// log-probabilities of choices made at evaluated states, `[m]`, tracked.
    pub fn log_probs(
        &mut self,
        evaluated: &Evaluated,
        direction: Direction,
        choices: &Arc<Choices>,
    ) -> Tensor<1> {
        let column = self.column(direction);
        match (evaluated, &mut self.engine) {
            (Evaluated::Burn(outputs), _) => choices.log_probs(match direction {
                Direction::Forward => outputs.forward.clone(),
                Direction::Backward => outputs.backward.clone(),
            }),
            (Evaluated::Native(pass), Engine::Native(native)) => {
                let pass = &mut native.passes[*pass];
                let width = native.network.width();
                let values = choices.log_probs_on_host(&pass.output, width, column);
                let leaf = leaf(values, &self.device);
                pass.log_probs.push((leaf.clone(), choices.clone(), column));
                leaf
            }
            (Evaluated::Native(_), Engine::Burn(_)) => unreachable!("one engine per model"),
        }
    }

    /// The same, cut off from its gradients.
    pub fn detached_log_probs(
        &self,
        evaluated: &Evaluated,
        direction: Direction,
        choices: &Choices,
    ) -> Tensor<1> {
        match (evaluated, &self.engine) {
            (Evaluated::Burn(outputs), _) => choices.log_probs(match direction {
                Direction::Forward => outputs.forward.clone().detach(),
                Direction::Backward => outputs.backward.clone().detach(),
            }),
            (Evaluated::Native(pass), Engine::Native(native)) => {
                let (output, width) = (&native.passes[*pass].output, native.network.width());
                let values = choices.log_probs_on_host(output, width, self.column(direction));
                Tensor::from_inner(upload(values, &self.device))
            }
            (Evaluated::Native(_), Engine::Burn(_)) => unreachable!("one engine per model"),
        }
    }

    /// log F of evaluated states, `[n]`, tracked.
    pub fn log_flow(&mut self, evaluated: &Evaluated) -> Tensor<1> {
        match (evaluated, &mut self.engine) {
            (Evaluated::Burn(outputs), _) => outputs.log_flow.clone(),
            (Evaluated::Native(pass), Engine::Native(native)) => {
                let pass = &mut native.passes[*pass];
                let rows = pass.output.chunks_exact(native.network.width());
                let leaf = leaf(rows.map(|row| row[row.len() - 1]).collect(), &self.device);
                pass.log_flow = Some(leaf.clone());
                leaf
            }
            (Evaluated::Native(_), Engine::Burn(_)) => unreachable!("one engine per model"),
        }
    }

    /// log F of the first evaluated state.
    pub fn first_log_flow(&self, evaluated: &Evaluated) -> f64 {
        match (evaluated, &self.engine) {
            (Evaluated::Burn(outputs), _) => {
                let first = outputs.log_flow.clone().narrow(0, 0, 1).inner();
                f64::from(first.into_scalar::<f32>())
            }
            (Evaluated::Native(pass), Engine::Native(native)) => {
                f64::from(native.passes[*pass].output[native.network.width() - 1])
            }
            (Evaluated::Native(_), Engine::Burn(_)) => unreachable!("one engine per model"),
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
        match &self.engine {
            Engine::Native(native) => {
                let weights = native.weights_of(Some(copy));
                let (width, column) = (native.network.width(), self.column(direction));
                let columns = self.columns(direction);
                let (ids, n) = (&observations.ids, observations.n);
                let tapes = native.forward(weights, ids, n, None, Some(columns));
                let values = choices.log_probs_on_host(&joined(&tapes, width), width, column);
                native.give_back(tapes);
                upload(values, &self.device)
            }
            Engine::Burn(_) => {
                let outputs = self.outputs_of(Some(copy), observations);
                choices.log_probs(match direction {
                    Direction::Forward => outputs.forward,
                    Direction::Backward => outputs.backward,
                })
            }
        }
    }

    /// Evaluates states without gradients, with the current values or a copy.
    pub fn outputs_of(&self, copy: Option<&Values>, observations: &Observations) -> Outputs {
        if let Engine::Native(native) = &self.engine {
            let n = observations.n;
            let tapes = native.forward(native.weights_of(copy), &observations.ids, n, None, None);
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
                    let columns = Some(self.columns(direction));
                    let tapes = native.forward(weights, ids, end - start, None, columns);
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
                let passes = std::mem::take(&mut native.passes);
                let n_parts = passes.iter().map(|pass| pass.tapes.len()).max().unwrap_or(0);
                native.clear_gradients(n_parts.max(1));
                for mut pass in passes {
                    let width = native.network.width();
                    let mut output_gradient = vec![0.0; pass.output.len()];
                    let mut reached = false;
                    for (leaf, choices, column) in pass.log_probs {
                        let Some(upstream) = leaf.grad_remove(&mut tracked) else { continue };
                        reached = true;
                        let upstream = on_host(upstream);
                        let gradient = &mut output_gradient;
                        choices.add_gradient(&pass.output, width, column, &upstream, gradient);
                    }
                    let log_flow = pass.log_flow.and_then(|leaf| leaf.grad_remove(&mut tracked));
                    if let Some(upstream) = log_flow {
                        reached = true;
                        let rows = output_gradient.chunks_exact_mut(width);
                        for (row, upstream) in rows.zip(on_host(upstream)) {
                            row[width - 1] += upstream;
                        }
                    }
                    if reached {
                        native.backward(&mut pass.tapes, &output_gradient);
                    }
                    native.give_back(pass.tapes);
                }
                let squares_of = sum_gradients(&mut native.gradients[..n_parts.max(1)]);
                let log_z = native.log_z.take().and_then(|leaf| leaf.grad_remove(&mut tracked));
                if let (Some(gradient), Some(buffer)) = (log_z, native.gradients[0].last_mut()) {
                    buffer[0] = gradient.into_scalar::<f32>();
                }
                let (mut kept, mut squares) = (Vec::new(), 0.0);
                for (i, info) in self.infos.iter().enumerate() {
                    if groups.contains(&info.group) {
                        if info.group != Group::LogZ {
                            squares += squares_of[i];
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
                    let value = &mut native.weights.values[i];
                    let gradient = &native.gradients[0][i];
                    optimizer.step_native(i, lr, shape, value, gradient, scale as f32);
                }
                (Engine::Burn(_), None) => {}
            }
        }
        if let Engine::Native(native) = &mut self.engine {
            native.network.prepare(&mut native.weights);
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
