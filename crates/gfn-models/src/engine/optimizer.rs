//! Burn's optimisers over a flat list of parameters, with gradient norms and exact checkpoints.
//!
//! Burn's per-parameter optimisers are stepped directly: its `ModuleOptimizer` serialises states
//! in the order of a hash map, so two checkpoints of the same run would differ in bytes.

use std::collections::BTreeMap;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdamConfig, AdamWConfig, Optimizer as BurnOptimizer, RecordState, RmsPropConfig, SgdConfig,
    StateSink, StateSource,
};
use burn::tensor::{Device, Tensor, TensorData};
use gfn_core::learn::engine::NamedTensor;
use gfn_core::learn::{Algorithm, OptimizerSettings};

use super::native::{AdamStep, PER_THREAD, adam, largest_first};

/// Copies a tensor to the host.
fn of_data(name: String, data: TensorData) -> NamedTensor {
    let shape = data.shape().to_vec();
    let values = data.convert::<f32>().try_into_vec().expect("converted to f32 above");
    NamedTensor { name, shape, values }
}

fn data_of(tensor: &NamedTensor) -> TensorData {
    TensorData::new(tensor.values.clone(), tensor.shape.clone())
}

/// What an optimiser does with a parameter that is a host array.
pub struct NativeStep<'a> {
    /// Which parameter.
    pub i: usize,
    /// Learning rate.
    pub lr: f64,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The value, row-major.
    pub value: &'a mut [f32],
    /// Its gradient.
    pub gradient: &'a [f32],
    /// Factor on the gradient (for clipping).
    pub scale: f32,
}

/// One optimiser with a state per parameter.
pub struct Optimizer {
    inner: Box<dyn Steps>,
    /// The same without weight decay, for parameters that are exempt from it.
    without_decay: Box<dyn Steps>,
    exempt: Vec<bool>,
    /// Adam's moments for host arrays; other algorithms go through Burn there too.
    native: Option<NativeAdam>,
}

/// Adam in one pass over host arrays: the arithmetic, and the saved state, of Burn's.
struct NativeAdam {
    settings: OptimizerSettings,
    exempt: Vec<bool>,
    states: Vec<Option<Moments>>,
}

struct Moments {
    time: u32,
    shape: [usize; 2],
    first: Vec<f32>,
    second: Vec<f32>,
}

/// Where Burn's records keep Adam's state of a parameter.
const FIRST: &str = "momentum.moment_1";
const SECOND: &str = "momentum.moment_2";
const ADAM_TIME: &str = "momentum.time";

impl NativeAdam {
    /// All parameters at once, cut into chunks for as many threads as there are.
    fn step(&mut self, steps: Vec<NativeStep<'_>>) {
        let OptimizerSettings { momentum, beta2, epsilon, weight_decay, .. } = self.settings;
        let (beta1, beta2) = (momentum as f32, beta2 as f32);
        let total: usize = steps.iter().map(|step| step.value.len()).sum();
        let mut states = self.states.iter_mut().enumerate();
        let mut work = Vec::new();
        for NativeStep { i, lr, shape, value, gradient, scale } in steps {
            let state = states.find(|(at, _)| *at == i).expect("parameters come in order").1;
            let state = state.get_or_insert_with(|| Moments {
                time: 0,
                shape,
                first: vec![0.0; value.len()],
                second: vec![0.0; value.len()],
            });
            state.time += 1;
            let step = AdamStep {
                lr: lr as f32,
                beta1,
                beta2,
                epsilon: epsilon as f32,
                l2: if self.exempt[i] { 0.0 } else { weight_decay as f32 },
                correction1: (1.0 - beta1.powi(state.time as i32)).recip(),
                correction2: (1.0 - beta2.powi(state.time as i32)).recip(),
                scale,
            };
            let moments =
                state.first.chunks_mut(PER_THREAD).zip(state.second.chunks_mut(PER_THREAD));
            let values = value.chunks_mut(PER_THREAD).zip(gradient.chunks(PER_THREAD));
            work.extend(values.zip(moments).map(|chunk| (chunk.0.0.len(), (step, chunk))));
        }
        let run = |(step, ((value, gradient), (first, second)))| {
            adam(step, value, gradient, first, second);
        };
        if total < 2 * PER_THREAD {
            work.into_iter().for_each(|(_, piece)| run(piece));
        } else {
            largest_first(work, run);
        }
    }

    fn save(&self, names: &[String]) -> Vec<NamedTensor> {
        let mut out = Vec::new();
        for (name, state) in names.iter().zip(&self.states) {
            let Some(state) = state else { continue };
            for (leaf, values) in [(FIRST, &state.first), (SECOND, &state.second)] {
                let (shape, values) = (state.shape.to_vec(), values.clone());
                out.push(NamedTensor { name: format!("{name}.{leaf}"), shape, values });
            }
            out.push(pack_time(format!("{name}.{ADAM_TIME}"), state.time));
        }
        out
    }

    fn load(&mut self, names: &[String], tensors: &BTreeMap<String, NamedTensor>) {
        for (name, state) in names.iter().zip(&mut self.states) {
            let get = |leaf: &str| tensors.get(&format!("{name}.{leaf}"));
            *state = match (get(FIRST), get(SECOND), get(ADAM_TIME)) {
                (Some(first), Some(second), Some(time)) => Some(Moments {
                    time: unpack_time(time),
                    shape: [first.shape[0], first.shape[1]],
                    first: first.values.clone(),
                    second: second.values.clone(),
                }),
                _ => None,
            };
        }
    }
}

/// A step count, split so that single precision holds it exactly.
fn pack_time(name: String, time: u32) -> NamedTensor {
    NamedTensor { name, shape: vec![2], values: vec![(time >> 16) as f32, (time & 0xffff) as f32] }
}

fn unpack_time(tensor: &NamedTensor) -> u32 {
    (tensor.values[0] as u32) << 16 | tensor.values[1] as u32
}

trait Steps: Send + Sync {
    fn step(&mut self, i: usize, lr: f64, value: Tensor<2>, gradient: Tensor<2>) -> Tensor<2>;
    fn save(&self, names: &[String]) -> Vec<NamedTensor>;
    fn load(&mut self, names: &[String], tensors: &BTreeMap<String, NamedTensor>, device: &Device);
}

struct PerParameter<O: BurnOptimizer> {
    optimizer: O,
    states: Vec<Option<O::State<2>>>,
}

/// The only scalar in the states of the optimisers above.
const TIME: &str = "time";

impl<O: BurnOptimizer> Steps for PerParameter<O> {
    fn step(&mut self, i: usize, lr: f64, value: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        let state = self.states[i].take();
        let (value, state) = self.optimizer.step(lr, value, gradient, state);
        self.states[i] = state;
        value
    }

    fn save(&self, names: &[String]) -> Vec<NamedTensor> {
        let mut out = Vec::new();
        for (name, state) in names.iter().zip(&self.states) {
            let Some(state) = state else { continue };
            let mut sink = StateSink::default();
            state.state_flatten(name, &mut sink);
            for (name, data) in sink.tensors {
                out.push(of_data(name, data));
            }
            for (name, scalar) in sink.scalars {
                let time: u32 = scalar.try_into().expect("step counts are the only scalars");
                out.push(pack_time(name, time));
            }
        }
        out
    }

    fn load(&mut self, names: &[String], tensors: &BTreeMap<String, NamedTensor>, device: &Device) {
        for (name, state) in names.iter().zip(&mut self.states) {
            let prefix = format!("{name}.");
            let mut scalars = BTreeMap::new();
            let mut matrices = Vec::new();
            for (key, tensor) in tensors.range(prefix.clone()..) {
                if !key.starts_with(&prefix) {
                    break;
                }
                if key.ends_with(TIME) {
                    scalars.insert(key.clone(), u64::from(unpack_time(tensor)).into());
                } else {
                    matrices.push((key.clone(), data_of(tensor)));
                }
            }
            if matrices.is_empty() {
                *state = None;
                continue;
            }
            let mut source = StateSource::new(scalars);
            for (key, data) in matrices {
                source.insert_tensor(key, data);
            }
            *state = O::State::<2>::state_unflatten(name, &mut source, device);
        }
    }
}

/// Burn's optimisers for `n` parameters.
fn steps(settings: &OptimizerSettings, n: usize) -> Box<dyn Steps> {
    fn boxed<O: BurnOptimizer>(optimizer: O, n: usize) -> Box<dyn Steps> {
        Box::new(PerParameter { optimizer, states: (0..n).map(|_| None).collect() })
    }
    let OptimizerSettings { algorithm, momentum, beta2, epsilon, weight_decay } = *settings;
    let (momentum, beta2, epsilon) = (momentum as f32, beta2 as f32, epsilon as f32);
    let l2 = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
    match algorithm {
        Algorithm::Adam => boxed(
            AdamConfig::new()
                .with_beta_1(momentum)
                .with_beta_2(beta2)
                .with_epsilon(epsilon)
                .with_weight_decay(l2)
                .build(),
            n,
        ),
        Algorithm::AdamW => boxed(
            AdamWConfig::new()
                .with_beta_1(momentum)
                .with_beta_2(beta2)
                .with_epsilon(epsilon)
                .with_weight_decay(weight_decay as f32)
                .build(),
            n,
        ),
        Algorithm::RmsProp => boxed(
            RmsPropConfig::new()
                .with_alpha(beta2)
                .with_momentum(momentum)
                .with_epsilon(epsilon)
                .with_weight_decay(l2)
                .build(),
            n,
        ),
        Algorithm::Sgd => {
            let momentum = (momentum > 0.0).then(|| {
                MomentumConfig::new().with_momentum(f64::from(momentum) as _).with_dampening(0.0)
            });
            boxed(SgdConfig::new().with_weight_decay(l2).with_momentum(momentum).build(), n)
        }
    }
}

impl Optimizer {
    /// An optimiser for as many parameters as `exempt` has entries, which says which of them weight
    /// decay leaves alone. They are host arrays if `native`, else tensors.
    pub fn new(settings: &OptimizerSettings, exempt: Vec<bool>, native: bool) -> Self {
        let n = exempt.len();
        let native = native && settings.algorithm == Algorithm::Adam;
        let adam = || NativeAdam {
            settings: *settings,
            exempt: exempt.clone(),
            states: (0..n).map(|_| None).collect(),
        };
        let without = OptimizerSettings { weight_decay: 0.0, ..*settings };
        Self {
            inner: steps(settings, n),
            without_decay: steps(&without, n),
            native: native.then(adam),
            exempt,
        }
    }

    fn steps(&mut self, i: usize) -> &mut dyn Steps {
        if self.exempt[i] { &mut *self.without_decay } else { &mut *self.inner }
    }

    /// Steps parameters that are host arrays, in ascending order.
    pub fn step_native(&mut self, steps: Vec<NativeStep<'_>>) {
        if let Some(adam) = &mut self.native {
            return adam.step(steps);
        }
        let device = Device::flex();
        for NativeStep { i, lr, shape, value, gradient, scale } in steps {
            let upload =
                |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), &device);
            let scaled = gradient.iter().map(|g| g * scale).collect();
            let (before, scaled) = (upload(value.to_vec()), upload(scaled));
            let stepped = self.steps(i).step(i, lr, before, scaled).into_data();
            value.copy_from_slice(stepped.as_slice().expect("single precision"));
        }
    }

    /// The new value of parameter `i`; all tensors without autodiff.
    pub fn step(&mut self, i: usize, lr: f64, value: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        self.steps(i).step(i, lr, value, gradient)
    }

    /// All states; `names` are those of the parameters.
    pub fn save(&self, names: &[String]) -> Vec<NamedTensor> {
        match &self.native {
            Some(adam) => adam.save(names),
            None => [self.inner.save(names), self.without_decay.save(names)].concat(),
        }
    }

    /// Restores what [`save`](Self::save) returned.
    pub fn load(&mut self, names: &[String], state: Vec<NamedTensor>, device: &Device) {
        let tensors: BTreeMap<String, NamedTensor> =
            state.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        if let Some(adam) = &mut self.native {
            return adam.load(names, &tensors);
        }
        for (steps, exempt) in [(&mut self.inner, false), (&mut self.without_decay, true)] {
            // Nothing is stored under no name.
            let own = |(name, &is_exempt): (&String, &bool)| {
                if is_exempt == exempt { name.clone() } else { String::new() }
            };
            let names: Vec<String> = names.iter().zip(&self.exempt).map(own).collect();
            steps.load(&names, &tensors, device);
        }
    }
}
