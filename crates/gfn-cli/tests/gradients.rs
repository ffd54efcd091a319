//! Gradients against finite differences, and no gradient where none belongs.

use burn::tensor::{Tensor, TensorData};
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
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\n{model}\n\
         [objective]\n{objective}\n[backward]\nkind = '{backward}'\n"
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

fn loss(trainer: &Trainer, batch: &Batch) -> Tensor<1> {
    let outputs = trainer.model().outputs(&batch.tokens);
    trainer.objective_loss(batch, &outputs)
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The gradients of the objective for every parameter; none where it does not reach.
fn gradients(trainer: &Trainer, batch: &Batch) -> Vec<Option<Vec<f32>>> {
    let gradients = loss(trainer, batch).backward();
    let n = trainer.model().infos().len();
    (0..n).map(|i| trainer.model().param(i).grad(&gradients).map(values)).collect()
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
        for (backward, model) in
            [("uniform", ""), ("naive", ""), ("naive", "shared = false"), ("tlm", "")]
        {
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
                let here = trainer.model().param(i).inner();
                let size = info.shape[0] * info.shape[1];
                let direction: Vec<f32> =
                    (0..size).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
                let device = trainer.model().device().clone();
                let data = TensorData::new(direction.clone(), info.shape);
                let direction_tensor = Tensor::<2>::from_data(data, &device);
                let mut at = |step: f64| {
                    let moved = here.clone() + direction_tensor.clone() * step;
                    trainer.model_mut().set_param(i, moved);
                    f64::from(loss(trainer, &batch).inner().into_scalar::<f32>())
                };
                // In single precision a small step drowns in rounding, and a large one may cross
                // a kink of a ReLU: one of three must agree. A wrong gradient agrees with none.
                let numeric = [4e-3, 1e-3, 2.5e-4].map(|h| (at(h) - at(-h)) / (2.0 * h));
                trainer.model_mut().set_param(i, here.clone());
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
                let experiment = experiment(&format!("kind = '{objective}'"), backward, model);
                let trainer = &experiment.trainer;
                let batch = trainer.batch_of(&sample(&experiment, 8));
                let what = format!("{objective} {backward} {model}");
                // The objective reaches P_B exactly if the strategy is naive.
                let mut reached = false;
                for (info, gradient) in
                    trainer.model().infos().iter().zip(gradients(trainer, &batch))
                {
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
                let gradients = trainer.backward_loss(own, &batch).backward();
                for (i, info) in trainer.model().infos().iter().enumerate() {
                    let gradient = trainer.model().param(i).grad(&gradients).map(values);
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

/// P_B is read at the child: TB's loss by hand, from exact log-probabilities of each step.
#[test]
fn losses_equal_their_equations() {
    let experiment = experiment("kind = 'tb'", "naive", "");
    let trajectories = sample(&experiment, 6);
    let trainer = &experiment.trainer;
    let batch = trainer.batch_of(&trajectories);
    let got = f64::from(loss(trainer, &batch).inner().into_scalar::<f32>());

    let (env, policy) = (&*experiment.env, trainer.policy());
    let outputs = policy.outputs(env, &trajectories.states);
    let log_prob = |logits: &Tensor<2>, row: usize, legal: Vec<bool>, action: u32| {
        let logits = values(logits.clone().narrow(0, row, 1));
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
            let mut legal = vec![false; env.layout().n_actions];
            env.legal(trajectories.states.row(parent), &mut legal);
            residual += log_prob(&outputs.forward, parent, legal, trajectories.actions[transition]);
            let mut legal = vec![false; env.layout().n_back_actions];
            env.legal_back(trajectories.states.row(child), &mut legal);
            residual -=
                log_prob(&outputs.backward, child, legal, trajectories.back_actions[transition]);
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
            values(trainer.model().param(i.unwrap()).inner())
        };
        let before = head(&experiment.trainer);
        experiment.trainer.step().unwrap();
        assert_eq!(before != head(&experiment.trainer), moves, "{backward}");
    }
}
