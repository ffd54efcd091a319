//! Optimisers against their closed forms.

use burn::tensor::{Device, Tensor};
use gfn_core::learn::{Algorithm, OptimizerSettings};
use gfn_models::engine::{NativeStep, Optimizer};

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
    let mut optimizer = Optimizer::new(&settings, vec![false], true);
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
    let mut optimizer = Optimizer::new(&settings, vec![false], false);
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

/// A parameter that is exempt is stepped as without decay, on both kinds of parameters.
#[test]
fn exempt_parameters_do_not_decay() {
    let device = Device::flex();
    for algorithm in [Algorithm::Adam, Algorithm::AdamW, Algorithm::RmsProp, Algorithm::Sgd] {
        let settings = OptimizerSettings {
            algorithm,
            momentum: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.5,
        };
        let without = OptimizerSettings { weight_decay: 0.0, ..settings };
        let step = |settings: &OptimizerSettings, exempt: bool, i: usize, native: bool| {
            let mut optimizer = Optimizer::new(settings, vec![false, exempt], native);
            let mut value = START.to_vec();
            if native {
                let (value, gradient) = (&mut value[..], &GRADIENTS[..]);
                let step = NativeStep { i, lr: LR, shape: [1, 3], value, gradient, scale: 1.0 };
                optimizer.step_native(vec![step]);
            } else {
                let [value_of, gradient] =
                    [START, GRADIENTS].map(|values| Tensor::<2>::from_floats([values], &device));
                let stepped = optimizer.step(i, LR, value_of, gradient);
                value = stepped.into_data().try_into_vec().unwrap();
            }
            let names = ["a".to_owned(), "b".to_owned()];
            let saved = optimizer.save(&names);
            let mut again = Optimizer::new(settings, vec![false, exempt], native);
            again.load(&names, saved.clone(), &device);
            assert_eq!(again.save(&names), saved, "{algorithm:?}");
            value
        };
        for native in [true, false] {
            let plain = step(&without, false, 1, native);
            assert_eq!(step(&settings, true, 1, native), plain, "{algorithm:?}");
            assert_ne!(step(&settings, true, 0, native), plain, "{algorithm:?}");
        }
    }
}
