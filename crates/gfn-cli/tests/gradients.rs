//! Gradients against finite differences, and no gradient where none belongs.

use burn::tensor::Tensor;
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::Trajectories;
use gfn_core::batch::Batch;
use gfn_core::network::Group;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::train::Trainer;
use rand::RngExt;

fn experiment(objective: &str, backward: &str, model: &str) -> Experiment {
    on_engine("native", objective, backward, model)
}

fn on_engine(engine: &str, objective: &str, backward: &str, model: &str) -> Experiment {
    trained(engine, objective, backward, model, "")
}

fn trained(engine: &str, objective: &str, backward: &str, model: &str, train: &str) -> Experiment {
    // `model` is either of an MLP, or names the transformer itself.
    let kind = if model.contains("kind") { "" } else { "kind = 'mlp'\nhidden = 16" };
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\n{kind}\nzero_init_backward = false\n{model}\n\
         [objective]\n{objective}\n[backward]\nkind = '{backward}'\n\
         [train]\nengine = '{engine}'\n{train}\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap()
}

fn sample(experiment: &Experiment, n: usize) -> Trajectories {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let policy = experiment.trainer.policy();
    let mut batch =
        Sampler::default().forward(&*experiment.env, &policy, Exploration::NONE, draw, n);
    let mut log_reward = vec![0.0; n];
    experiment.reward.log_reward(&batch.terminals(), &mut log_reward).unwrap();
    batch.log_reward = log_reward;
    batch
}

fn loss(trainer: &mut Trainer, batch: &Batch) -> Tensor<1> {
    trainer.objective_loss(batch)
}

fn loss_value(trainer: &mut Trainer, batch: &Batch) -> f64 {
    let value = f64::from(loss(trainer, batch).inner().into_scalar::<f32>());
    trainer.model_mut().clear();
    value
}

const ALL: [Group; 4] = [Group::Trunk, Group::Forward, Group::Backward, Group::LogZ];

/// The gradients of a loss for every parameter; none where it does not reach.
fn gradients_of(trainer: &mut Trainer, loss: Tensor<1>) -> Vec<Option<Vec<f32>>> {
    let gradients = trainer.model_mut().gradients(loss, &ALL);
    let n = trainer.model().infos().len();
    (0..n).map(|i| trainer.model().gradient(&gradients, i)).collect()
}

fn gradients(trainer: &mut Trainer, batch: &Batch) -> Vec<Option<Vec<f32>>> {
    let loss = loss(trainer, batch);
    gradients_of(trainer, loss)
}

const TRANSFORMERS: [&str; 2] = [
    "kind = 'transformer'\nwidth = 16\nheads = 2\nlayers = 3\nfeed_forward = 12",
    "kind = 'transformer'\nwidth = 12\nheads = 3\nlayers = 2\nfeed_forward = 4\nnorm = 'pre'",
];

/// The same with a layer that is the first and the last one.
fn one_layer_each() -> [String; 2] {
    let [post, pre] = TRANSFORMERS;
    [post.replace("layers = 3", "layers = 1"), pre.replace("layers = 2", "layers = 1")]
}

const OBJECTIVES: [&str; 9] = [
    "kind = 'tb'",
    "kind = 'tb'\npenalty = 'huber'\nlog_reward_min = -3.0",
    "kind = 'db'",
    "kind = 'subtb'\nlambda = 0.9",
    "kind = 'subtb'\nlambda = 1.9\nweighting = 'geometric'",
    "kind = 'subtb'\nweighting = 'equal_within'\npenalty = 'huber'",
    "kind = 'subtb'\nweighting = 'equal'",
    "kind = 'fm'",
    "kind = 'vargrad'",
];

#[test]
fn objectives_agree_with_finite_differences() {
    for objective in OBJECTIVES {
        let [post, pre] = TRANSFORMERS;
        for (backward, model) in [
            ("uniform", ""),
            ("naive", ""),
            ("naive", "shared = false"),
            ("tlm", ""),
            ("naive", post),
            ("tlm", pre),
        ] {
            if objective.contains("fm") && backward == "naive" {
                continue;
            }
            let mut experiment = experiment(objective, backward, model);
            let batch = experiment.trainer.batch_of(&sample(&experiment, 12));
            let trainer = &mut experiment.trainer;
            let analytic = gradients(trainer, &batch);
            let mut rng = Streams::new(9).get(Purpose::Test, 1);
            for (i, gradient) in analytic.iter().enumerate() {
                let info = trainer.model().infos()[i].clone();
                let here = trainer.model().value(i);
                let size = here.len();
                let direction: Vec<f32> =
                    (0..size).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
                let mut at = |step: f32| {
                    let moved = here.iter().zip(&direction).map(|(x, d)| x + d * step).collect();
                    trainer.model_mut().set_value(i, moved);
                    loss_value(trainer, &batch)
                };
                // In single precision a small step drowns in rounding, and a large one may cross
                // a kink of a ReLU: one of three must agree. A wrong gradient agrees with none.
                let numeric =
                    [4e-3f32, 1e-3, 2.5e-4].map(|h| (at(h) - at(-h)) / (2.0 * f64::from(h)));
                trainer.model_mut().set_value(i, here.clone());
                let zeros = vec![0.0; size];
                let gradient = gradient.as_ref().unwrap_or(&zeros);
                let product = |g: &f32, d: &f32| f64::from(*g) * f64::from(*d);
                let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| product(g, d)).sum();
                let scale = 1.0 + gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>();
                let error = numeric.map(|n| (n - exact).abs()).into_iter().fold(f64::MAX, f64::min);
                assert!(
                    error < 2e-3 * scale,
                    "{objective} {backward} {model} {}: {numeric:?} against {exact}",
                    info.name
                );
            }
        }
    }
}

fn is_zero(gradient: &Option<Vec<f32>>) -> bool {
    gradient.as_ref().is_none_or(|gradient| gradient.iter().all(|&g| g == 0.0))
}

#[test]
fn no_gradient_crosses_groups() {
    for objective in ["tb", "db", "subtb", "vargrad", "fm"] {
        for backward in ["uniform", "naive", "maxent", "tlm", "pessimistic"] {
            if (objective, backward) == ("fm", "naive") {
                continue;
            }
            for model in ["shared = true", "shared = false"] {
                let mut experiment = experiment(&format!("kind = '{objective}'"), backward, model);
                let batch = experiment.trainer.batch_of(&sample(&experiment, 8));
                let trainer = &mut experiment.trainer;
                let what = format!("{objective} {backward} {model}");
                // The objective reaches P_B exactly if the strategy is naive.
                let mut reached = false;
                let found = gradients(trainer, &batch);
                for (info, gradient) in trainer.model().infos().iter().zip(found) {
                    if info.group == Group::Backward {
                        reached |= !is_zero(&gradient);
                    }
                }
                assert_eq!(reached, backward == "naive", "{what}");
                assert_eq!(
                    trainer.objective_groups().contains(&Group::Backward),
                    backward == "naive",
                    "{what}"
                );
                // P_B's own loss reaches P_B (and a shared trunk), never P_F, log F or log Z.
                let Some(own) = trainer.parts().backward.own_update() else { continue };
                let loss = trainer.backward_loss(own, &batch);
                let found = gradients_of(trainer, loss);
                for (info, gradient) in trainer.model().infos().iter().zip(found) {
                    match info.group {
                        Group::Forward | Group::LogZ => {
                            assert!(is_zero(&gradient), "{what}: {}", info.name);
                        }
                        Group::Backward if info.name.ends_with("head.weight") => {
                            assert!(!is_zero(&gradient), "{what}: {}", info.name);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// What the native engine trains with, against autodiff over the same losses as tensors.
#[test]
fn derivatives_by_hand_are_those_of_tensors() {
    for objective in OBJECTIVES {
        for backward in ["uniform", "naive", "maxent", "tlm", "pessimistic"] {
            if objective.contains("fm") && backward == "naive" {
                continue;
            }
            let what = format!("{objective} {backward}");
            let mut experiment = experiment(objective, backward, "");
            let batch = experiment.trainer.batch_of(&sample(&experiment, 7));
            let trainer = &mut experiment.trainer;
            let tensors = loss(trainer, &batch);
            let by_tensors = trainer.model_mut().gradients(tensors, &ALL);
            let expected: Vec<_> = (0..trainer.model().infos().len())
                .map(|i| trainer.model().gradient(&by_tensors, i).unwrap())
                .collect();
            let by_hand = trainer.objective_gradients(&batch);
            assert_close(&[by_hand.loss as f32], &[by_tensors.loss as f32], &what);
            for (i, expected) in expected.iter().enumerate() {
                match trainer.model().gradient(&by_hand, i) {
                    Some(gradient) => assert_close(&gradient, expected, &what),
                    None => assert!(expected.iter().all(|&g| g == 0.0), "{what}"),
                }
            }

            let Some(own) = trainer.parts().backward.own_update() else { continue };
            let tensors = trainer.backward_loss(own, &batch);
            let expected = gradients_of(trainer, tensors);
            let by_hand = trainer.backward_gradients(own, &batch);
            for (i, expected) in expected.iter().enumerate() {
                if let Some(gradient) = trainer.model().gradient(&by_hand, i) {
                    assert_close(&gradient, expected.as_ref().unwrap(), &what);
                }
            }
        }
    }
}

/// Whole iterations: what the native engine does not evaluate because no loss reads it makes no
/// difference.
#[test]
fn engines_train_alike() {
    for objective in ["tb", "db", "subtb", "fm", "vargrad"] {
        for backward in ["uniform", "naive", "tlm", "pessimistic"] {
            if (objective, backward) == ("fm", "naive") {
                continue;
            }
            for model in ["shared = true", "shared = false", TRANSFORMERS[0]] {
                let what = format!("{objective} {backward} {model}");
                let objective = format!("kind = '{objective}'");
                let [native, burn] = ["native", "burn"].map(|engine| {
                    // Adam would make much of gradients that differ by rounding alone.
                    let train = "optimizer = 'sgd'\nlr = 0.01\nbatch = 6";
                    let experiment = trained(engine, &objective, backward, model, train);
                    let mut trainer = experiment.trainer;
                    let losses: Vec<_> = (0..5)
                        .map(|_| trainer.step().unwrap())
                        .map(|report| [report.loss, report.backward_loss.unwrap_or(0.0)])
                        .collect();
                    let model = trainer.model();
                    let values: Vec<_> =
                        (0..model.infos().len()).flat_map(|i| model.value(i)).collect();
                    (losses, values)
                });
                for (native, burn) in native.0.iter().flatten().zip(burn.0.iter().flatten()) {
                    assert!((native - burn).abs() < 1e-4 * (1.0 + burn.abs()), "{what}");
                }
                for (native, burn) in native.1.iter().zip(&burn.1) {
                    assert!((native - burn).abs() < 1e-4, "{what}: {native} against {burn}");
                }
            }
        }
    }
}

/// To 1e-5 of the largest.
fn assert_close(values: &[f32], expected: &[f32], what: &str) {
    let scale = expected.iter().fold(1e-3f32, |max, x| max.max(x.abs()));
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-5 * scale, "{what}: {value} against {expected}");
    }
}

/// P_B is read at the child: TB's loss by hand, from exact log-probabilities of each step.
#[test]
fn losses_equal_their_equations() {
    let mut experiment = experiment("kind = 'tb'", "naive", "");
    let trajectories = sample(&experiment, 6);
    let batch = experiment.trainer.batch_of(&trajectories);
    let got = loss_value(&mut experiment.trainer, &batch);

    let env = &*experiment.env;
    let outputs = experiment.trainer.model().outputs_of(None, &batch.observations);
    let log_prob = |logits: &Tensor<2>, row: usize, legal: Vec<bool>, action: u32| {
        let logits: Vec<f32> = logits.clone().narrow(0, row, 1).into_data().try_into_vec().unwrap();
        let mut out = vec![0.0; logits.len()];
        gfn_core::policy::log_softmax(&logits, &legal, &mut out);
        out[action as usize]
    };
    let mut expected = 0.0;
    for i in 0..trajectories.len() {
        let mut residual = -trajectories.log_reward[i];
        let first = trajectories.rows(i).start;
        for (t, transition) in trajectories.transitions(i).enumerate() {
            let (parent, child) = (first + t, first + t + 1);
            let row = |state: usize| batch.rows.of_state[state] as usize;
            let mut legal = vec![false; env.layout().n_actions];
            env.legal(trajectories.states.row(parent), &mut legal);
            residual +=
                log_prob(&outputs.forward, row(parent), legal, trajectories.actions[transition]);
            let mut legal = vec![false; env.layout().n_back_actions];
            env.legal_back(trajectories.states.row(child), &mut legal);
            residual -= log_prob(
                &outputs.backward,
                row(child),
                legal,
                trajectories.back_actions[transition],
            );
        }
        expected += residual * residual / trajectories.len() as f64;
    }
    assert!((got - expected).abs() < 1e-4 * expected, "{got} against {expected}");
}

#[test]
fn naive_trains_p_b_and_fixed_strategies_leave_it() {
    for (backward, moves) in
        [("naive", true), ("tlm", true), ("pessimistic", true), ("uniform", false)]
    {
        let mut experiment = experiment("kind = 'db'", backward, "");
        let head = |trainer: &Trainer| {
            let i = trainer.model().infos().iter().position(|p| p.name == "backward.head.weight");
            trainer.model().value(i.unwrap())
        };
        let before = head(&experiment.trainer);
        experiment.trainer.step().unwrap();
        assert_eq!(before != head(&experiment.trainer), moves, "{backward}");
    }
}

/// The gradients of one batch on both engines, to single precision.
fn assert_same_gradients(native: &mut Trainer, burn: &mut Trainer, batch: &Batch, what: &str) {
    let (a, b) = (gradients(native, batch), gradients(burn, batch));
    for ((info, a), b) in native.model().infos().iter().zip(a).zip(b) {
        let a = a.unwrap_or_default();
        let b = b.unwrap_or_else(|| vec![0.0; a.len()]);
        let scale = b.iter().fold(1.0f32, |scale, g| scale.max(g.abs()));
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-5 * scale, "{what} {}: {a} {b}", info.name);
        }
    }
}

/// The hand-written passes against Burn's autodiff: same loss, same gradients.
#[test]
fn native_and_burn_agree() {
    let [post, pre] = TRANSFORMERS;
    // The first and the last layer of a transformer have paths of their own: also when they are one.
    let single = one_layer_each();
    let mlps = ["", "shared = false", "layers = 1", "layers = 3\nshared = false"];
    let transformers = [post, pre, &single[0], &single[1]];
    let models = [&mlps[..], &transformers].concat();
    for objective in OBJECTIVES {
        for backward in ["uniform", "naive", "tlm", "pessimistic"] {
            if objective.contains("fm") && backward == "naive" {
                continue;
            }
            for &model in &models {
                let what = format!("{objective} {backward} {model}");
                let mut native = on_engine("native", objective, backward, model);
                let mut burn = on_engine("burn", objective, backward, model);
                assert!(native.trainer.model().is_native() && !burn.trainer.model().is_native());
                // Enough states that the native engine cuts them into parts, and those of a
                // transformer's into chunks; or not.
                let n = if model.is_empty() || model == post { 100 } else { 12 };
                let trajectories = sample(&native, n);
                assert_eq!(trajectories, sample(&burn, n), "{what}: the same rollouts");
                let batch = native.trainer.batch_of(&trajectories);
                let (a, b) = (
                    loss_value(&mut native.trainer, &batch),
                    loss_value(&mut burn.trainer, &batch),
                );
                assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{what}: {a} against {b}");
                assert_same_gradients(&mut native.trainer, &mut burn.trainer, &batch, &what);
                // And a few whole iterations, target copies and optimisers included.
                for _ in 0..3 {
                    let (a, b) = (native.trainer.step().unwrap(), burn.trainer.step().unwrap());
                    assert!((a.loss - b.loss).abs() < 1e-4 * b.loss.abs().max(1.0), "{what}");
                }
            }
        }
    }
}

/// The same at sizes from which on the native engine cuts its work into pieces: weights into
/// stretches of rows, and choices among thousands of actions.
#[test]
fn native_and_burn_agree_on_large_batches() {
    let words = "[env]\nkind = 'bit_sequence'\nbits = 120\nword_bits = 8\n\
                 [reward]\nkind = 'hamming'\nn_modes = 5\n";
    let grid = "[env]\nkind = 'hypergrid'\ndim = 4\nside = 8\n";
    let transformer = TRANSFORMERS[0];
    for (world, model, n) in [
        (grid, "kind = 'mlp'\nhidden = 256", 100),
        (words, "kind = 'mlp'\nhidden = 32", 6),
        (words, transformer, 6),
    ] {
        let build = |engine: &str| {
            let text = format!(
                "{world}[model]\n{model}\nzero_init_backward = false\n[objective]\nkind = 'tb'\n\
                 [backward]\nkind = 'naive'\n[train]\nengine = '{engine}'\n"
            );
            let registry = Registry::builtin();
            let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
            Experiment::build(&registry, &spec).unwrap()
        };
        let (mut native, mut burn) = (build("native"), build("burn"));
        let trajectories = sample(&native, n);
        let batch = native.trainer.batch_of(&trajectories);
        let what = format!("{world} {model}");
        assert_same_gradients(&mut native.trainer, &mut burn.trainer, &batch, &what);
    }
}

/// The same on observations with empty slots.
#[test]
fn native_and_burn_agree_on_padded_observations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    std::fs::write(&path, "object,value\nAA,1\nAC,2\nCA,3\nCC,4\n").unwrap();
    let build = |engine: &str, model: &str, build_by: &str| {
        let text = format!(
            "[env]\nkind = 'sequence'\nlength = 2\nsymbols = ['A', 'C']\nbuild = '{build_by}'\n\
             [reward]\nkind = 'table'\npath = '{}'\n[model]\n{model}\n\
             [objective]\nkind = 'db'\n[backward]\nkind = 'naive'\n\
             [train]\nengine = '{engine}'\nbatch = 8\n",
            path.display()
        );
        let registry = Registry::builtin();
        let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
        Experiment::build(&registry, &spec).unwrap()
    };
    for build_by in ["prepend_append", "fill"] {
        let single = one_layer_each();
        let dropping = TRANSFORMERS.map(|t| format!("{t}\ndropout = 0.3"));
        let dropping = [&dropping[0], &dropping[1], &format!("{}\ndropout = 0.3", single[0])];
        let mlp = "kind = 'mlp'\nhidden = 8";
        let models = [mlp, TRANSFORMERS[0], TRANSFORMERS[1], &single[0], &single[1]];
        // Gradients with dropout show in the losses that follow. Masks belong to rows, whose order
        // is the same on both engines for batches that are not cut into parts.
        for model in models.into_iter().chain(dropping.map(String::as_str)) {
            let what = format!("{build_by} {model}");
            let mut native = build("native", model, build_by);
            let mut burn = build("burn", model, build_by);
            let trajectories = sample(&native, 12);
            assert_eq!(trajectories, sample(&burn, 12), "{what}: the same rollouts");
            let batch = native.trainer.batch_of(&trajectories);
            assert_same_gradients(&mut native.trainer, &mut burn.trainer, &batch, &what);
            for _ in 0..20 {
                let (a, b) = (native.trainer.step().unwrap(), burn.trainer.step().unwrap());
                assert!((a.loss - b.loss).abs() < 1e-4 * b.loss.abs().max(1.0), "{what}");
            }
        }
    }
}

/// Losses drop, rollouts and evaluations do not.
#[test]
fn dropout_is_for_losses_alone() {
    let plain = TRANSFORMERS[0];
    let mut with = on_engine("native", "kind = 'tb'", "naive", &format!("{plain}\ndropout = 0.5"));
    let mut without = on_engine("native", "kind = 'tb'", "naive", plain);
    assert_eq!(sample(&with, 20), sample(&without, 20));
    assert_eq!(with.trainer.evaluate().unwrap(), without.trainer.evaluate().unwrap());
    let (a, b) = (with.trainer.step().unwrap(), without.trainer.step().unwrap());
    assert!((a.loss - b.loss).abs() > 1e-3, "{} {}", a.loss, b.loss);
    assert_ne!(sample(&with, 500), sample(&without, 500), "they have learned differently");
}
