//! Optimisers against their closed forms, and snapshots of every optimiser and strategy.

use burn::tensor::{Device, Tensor};
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::optimizer::{Algorithm, NativeStep, Optimizer, OptimizerSettings};

const GRADIENTS: [f32; 3] = [0.5, -2.0, 1e-3];
const START: [f32; 3] = [1.0, 2.0, -3.0];
const LR: f64 = 0.1;

/// Values after steps with the same gradient.
fn after(algorithm: Algorithm, momentum: f64, weight_decay: f64, steps: usize) -> Vec<f64> {
    let burn = on_tensors(algorithm, momentum, weight_decay, steps);
    let native = on_arrays(algorithm, momentum, weight_decay, steps);
    for (a, b) in burn.iter().zip(&native) {
        assert!((a - b).abs() < 1e-6, "{algorithm:?}: {a} against {b}");
    }
    native
}

fn on_arrays(algorithm: Algorithm, momentum: f64, weight_decay: f64, steps: usize) -> Vec<f64> {
    let settings =
        OptimizerSettings { algorithm, momentum, beta2: 0.99, epsilon: 1e-8, weight_decay };
    let mut optimizer = Optimizer::new(&settings, 1, true);
    let mut value = START.to_vec();
    let halved = GRADIENTS.map(|g| g / 2.0);
    for _ in 0..steps {
        let (value, gradient) = (&mut value[..], &halved[..]);
        let step = NativeStep { i: 0, lr: LR, shape: [1, 3], value, gradient, scale: 2.0 };
        optimizer.step_native(vec![step]);
    }
    value.into_iter().map(f64::from).collect()
}

fn on_tensors(algorithm: Algorithm, momentum: f64, weight_decay: f64, steps: usize) -> Vec<f64> {
    let settings =
        OptimizerSettings { algorithm, momentum, beta2: 0.99, epsilon: 1e-8, weight_decay };
    let device = Device::flex();
    let mut optimizer = Optimizer::new(&settings, 1, false);
    let mut value = Tensor::<2>::from_floats([START], &device);
    for _ in 0..steps {
        value = optimizer.step(0, LR, value, Tensor::from_floats([GRADIENTS], &device));
    }
    let values: Vec<f32> = value.into_data().try_into_vec().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn assert_close(got: &[f64], expected: impl Fn(f64, f64) -> f64) {
    for ((&got, start), gradient) in got.iter().zip(START).zip(GRADIENTS) {
        let expected = expected(f64::from(start), f64::from(gradient));
        assert!((got - expected).abs() < 1e-5, "{got} against {expected}");
    }
}

#[test]
fn steps_equal_their_closed_forms() {
    // With a constant gradient the bias-corrected moments of Adam are g and g² exactly.
    let adam = after(Algorithm::Adam, 0.9, 0.0, 3);
    assert_close(&adam, |x, g| x - 3.0 * LR * g / (g.abs() + 1e-8));
    // Decoupled decay multiplies by 1 − lr·wd; an L2 penalty changes the gradient instead.
    let adamw = after(Algorithm::AdamW, 0.9, 0.5, 1);
    assert_close(&adamw, |x, g| x * (1.0 - LR * 0.5) - LR * g.signum());
    let adam_l2 = after(Algorithm::Adam, 0.9, 0.5, 1);
    assert_close(&adam_l2, |x, g| x - LR * (g + 0.5 * x).signum());
    let sgd = after(Algorithm::Sgd, 0.0, 0.0, 2);
    assert_close(&sgd, |x, g| x - 2.0 * LR * g);
    // Velocities g and 1.9 g.
    let heavy_ball = after(Algorithm::Sgd, 0.9, 0.0, 2);
    assert_close(&heavy_ball, |x, g| x - LR * (1.0 + 1.9) * g);
    // The running square is (1 − β) g².
    let rmsprop = after(Algorithm::RmsProp, 0.0, 0.0, 1);
    assert_close(&rmsprop, |x, g| x - LR * g / (0.01f64.sqrt() * g.abs() + 1e-8));
}

fn experiment(engine: &str, algorithm: &str, backward: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n[model]\nkind = 'mlp'\nhidden = 8\n\
         [objective]\nkind = 'tb'\n[backward]\nkind = '{backward}'\n\
         [train]\ntrajectories = 400\nbatch = 8\nengine = '{engine}'\noptimizer = '{algorithm}'\n\
         clip_norm = 1.0\nweight_decay = 1e-4\nepsilon = 0.1\n[eval]\nsamples = 10\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap()
}

#[test]
fn snapshots_continue_exactly() {
    for (engine, algorithm) in [
        ("native", "adam"),
        ("native", "adamw"),
        ("burn", "adam"),
        ("burn", "adamw"),
        ("burn", "rmsprop"),
        ("burn", "sgd"),
    ] {
        for backward in ["uniform", "naive", "maxent", "tlm", "pessimistic"] {
            let mut whole = experiment(engine, algorithm, backward).trainer;
            for _ in 0..12 {
                whole.step().unwrap();
            }
            let middle = whole.snapshot();
            let mut resumed = experiment(engine, algorithm, backward).trainer;
            resumed.restore(&middle).unwrap();
            assert_eq!(resumed.snapshot(), middle, "{algorithm} {backward}");
            for _ in 0..12 {
                assert_eq!(whole.step().unwrap(), resumed.step().unwrap());
            }
            assert_eq!(whole.snapshot(), resumed.snapshot(), "{algorithm} {backward}");
            assert_eq!(whole.evaluate().unwrap(), resumed.evaluate().unwrap());
        }
    }
}

/// A checkpoint made on one engine goes on on the other.
#[test]
fn engines_read_each_other() {
    for algorithm in ["adam", "sgd"] {
        let mut burn = experiment("burn", algorithm, "tlm").trainer;
        for _ in 0..8 {
            burn.step().unwrap();
        }
        let mut native = experiment("native", algorithm, "tlm").trainer;
        native.restore(&burn.snapshot()).unwrap();
        assert_eq!(native.snapshot(), burn.snapshot());
        for _ in 0..5 {
            let (a, b) = (burn.step().unwrap().loss, native.step().unwrap().loss);
            assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{algorithm}: {a} against {b}");
        }
    }
}
