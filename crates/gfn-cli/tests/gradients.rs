//! Gradients against finite differences and between engines, losses against their equations, and no
//! gradient where none belongs.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::Trajectories;
use gfn_core::backward::BACKWARD;
use gfn_core::learn::Trainer;
use gfn_core::learn::batch::Batch;
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::objective::{OBJECTIVE, has_loss};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use rand::RngExt;

fn experiment(objective: &str, backward: &str, model: &str) -> Experiment {
    on_engine("native", objective, backward, model)
}

fn on_engine(engine: &str, objective: &str, backward: &str, model: &str) -> Experiment {
    trained(engine, objective, backward, model, "")
}

fn trained(engine: &str, objective: &str, backward: &str, model: &str, train: &str) -> Experiment {
    let built = tried(engine, objective, backward, model, train);
    built.unwrap_or_else(|failure| panic!("{}", failure.render()))
}

/// The pair, or why it is refused.
fn tried(
    engine: &str,
    objective: &str,
    backward: &str,
    model: &str,
    train: &str,
) -> Result<Experiment, gfn_cli::error::Failure> {
    // `model` is either of an MLP, or names the transformer itself.
    let kind = if model.contains("kind") { "" } else { "kind = 'mlp'\nhidden = 16" };
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\n{kind}\nzero_init_backward = false\n{model}\n\
         [objective]\n{objective}\n[backward]\nkind = '{backward}'\n\
         [train]\nengine = '{engine}'\n{train}\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[])?;
    Experiment::build(&registry, &spec)
}

/// Every kind on an axis, as `[objective]` or `[backward]` names it.
fn strategies() -> Vec<&'static str> {
    Registry::builtin().backwards.iter().map(|entry| entry.name).collect()
}

/// Every objective with a loss.
fn kinds() -> Vec<String> {
    let kinds = Registry::builtin().objectives;
    let kinds = kinds.iter().filter(|kind| has_loss(kind));
    kinds.map(|entry| format!("kind = '{}'", entry.name)).collect()
}

/// These, and variants of some.
fn objectives() -> Vec<String> {
    kinds().into_iter().chain(VARIANTS.map(str::to_owned)).collect()
}

/// The legal pairs of these.
fn pairs(objectives: &[String], strategies: &[&'static str]) -> Vec<(String, &'static str)> {
    let all = objectives.iter().flat_map(|o| strategies.iter().map(move |&s| (o.clone(), s)));
    all.filter(|(objective, strategy)| match tried("native", objective, strategy, "", "") {
        Ok(_) => true,
        Err(refusal) => {
            assert!(refusal.message().contains("would never be trained"), "{}", refusal.render());
            false
        }
    })
    .collect()
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

fn loss_value(trainer: &mut Trainer, batch: &Batch) -> f64 {
    trainer.gradients(OBJECTIVE, batch).0
}

/// The gradients of an update for every parameter; none where it steps nothing.
fn gradients_of(trainer: &mut Trainer, update: &str, batch: &Batch) -> Vec<Option<Vec<f32>>> {
    trainer.gradients(update, batch);
    (0..trainer.engine().params().len()).map(|i| trainer.engine().gradient(i)).collect()
}

fn gradients(trainer: &mut Trainer, batch: &Batch) -> Vec<Option<Vec<f32>>> {
    gradients_of(trainer, OBJECTIVE, batch)
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

const VARIANTS: [&str; 10] = [
    "kind = 'tb'\npenalty = 'huber'\nlog_reward_min = -3.0",
    "kind = 'tb'\npenalty = { linex = 0.5 }",
    "kind = 'db'\npenalty = { linex = -0.5 }",
    "kind = 'subtb'\nlambda = 1.9\nweighting = 'geometric'",
    "kind = 'subtb'\nweighting = 'equal_within'\npenalty = 'huber'",
    "kind = 'subtb'\nweighting = 'equal'",
    "kind = 'vargrad'\npenalty = { linex = 1 }",
    "kind = 'soft_dqn'\nalpha = 0.15\nl0 = -0.8\nleaf_coefficient = 5\npenalty = 'squared'",
    "kind = 'soft_dqn'\nalpha = 0.15\ndueling = true",
    "kind = 'soft_dqn'\nalpha = 0.15\ndueling = true\nl0 = -0.8\npenalty = 'squared'",
];

/// Whether an objective's loss is a surrogate: its value has other derivatives than its gradient.
fn is_surrogate(objective: &str) -> bool {
    // Actors follow critics that do not follow them.
    ["'pg'", "'ppo'", "'trpo'", "'sac'"].iter().any(|kind| objective.contains(kind))
}

#[test]
fn objectives_agree_with_finite_differences() {
    for objective in objectives().iter().filter(|objective| !is_surrogate(objective)) {
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
            let value = loss_value(trainer, &batch);
            let analytic = gradients(trainer, &batch);
            let mut rng = Streams::new(9).get(Purpose::Test, 1);
            for (i, gradient) in analytic.iter().enumerate() {
                let info = trainer.engine().params()[i].clone();
                let here = trainer.engine().value(i);
                let size = here.len();
                let direction: Vec<f32> =
                    (0..size).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
                let mut at = |step: f32| {
                    let moved = here.iter().zip(&direction).map(|(x, d)| x + d * step).collect();
                    trainer.engine_mut().set_value(i, moved);
                    loss_value(trainer, &batch)
                };
                // In single precision a small step drowns in rounding, and a large one may cross
                // a kink of a ReLU: one of three must agree. A wrong gradient agrees with none.
                let numeric =
                    [4e-3f32, 1e-3, 2.5e-4].map(|h| (at(h) - at(-h)) / (2.0 * f64::from(h)));
                trainer.engine_mut().set_value(i, here.clone());
                let zeros = vec![0.0; size];
                let gradient = gradient.as_ref().unwrap_or(&zeros);
                let product = |g: &f32, d: &f32| f64::from(*g) * f64::from(*d);
                let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| product(g, d)).sum();
                let sum = gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>();
                // And what rounding of the outputs does to differences of the loss.
                let limit = 2e-3 * sum + 3e-4 * value.abs().max(0.1);
                let error = numeric.map(|n| (n - exact).abs()).into_iter().fold(f64::MAX, f64::min);
                assert!(
                    error < limit,
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
    for (objective, backward) in pairs(&objectives(), &strategies()) {
        for model in ["shared = true", "shared = false"] {
            let mut experiment = experiment(&objective, backward, model);
            let batch = experiment.trainer.batch_of(&sample(&experiment, 8));
            let trainer = &mut experiment.trainer;
            let what = format!("{objective} {backward} {model}");
            // The objective reaches P_B exactly if the strategy is naive.
            let natural = objective.contains("trpo");
            let found = gradients_of(trainer, if natural { "value" } else { OBJECTIVE }, &batch);
            let infos = trainer.engine().params().to_vec();
            let mut of_pb = Vec::new();
            for (info, gradient) in infos.iter().zip(&found) {
                if info.group == Head::BACKWARD.name {
                    of_pb.push(gradient);
                }
            }
            let reached = of_pb.iter().any(|gradient| !is_zero(gradient));
            let stepped = of_pb.iter().any(|gradient| gradient.is_some());
            assert_eq!([reached, stepped], [backward == "naive"; 2], "{what}");
            // P_B's own loss reaches P_B (and a shared trunk) and what it learns besides, never P_F, log F or
            // log Z.
            let besides = ["log_paths", "backward_value", "evaluation"];
            let updates = &trainer.parts().plan.updates;
            let own = updates.iter().any(|planned| planned.update.name == BACKWARD);
            if !own {
                continue;
            }
            for (info, gradient) in infos.iter().zip(gradients_of(trainer, BACKWARD, &batch)) {
                if info.group == Head::BACKWARD.name {
                    if info.name.ends_with("head.weight") {
                        assert!(!is_zero(&gradient), "{what}: {}", info.name);
                    }
                } else if info.group != TRUNK && !besides.contains(&&*info.group) {
                    assert!(gradient.is_none(), "{what}: {}", info.name);
                }
            }
        }
    }
}

/// Whole iterations: what the native engine does not evaluate because no loss reads it makes no
/// difference.
#[test]
fn engines_train_alike() {
    let mut objectives = kinds();
    // Natural steps make much of rounding.
    objectives.retain(|objective| !objective.contains("trpo"));
    for (objective, backward) in pairs(&objectives, &["uniform", "naive", "tlm", "pessimistic"]) {
        for model in ["shared = true", "shared = false", TRANSFORMERS[0]] {
            let what = format!("{objective} {backward} {model}");
            // From the first iteration on.
            let objective = if ["soft_dqn", "sac"].iter().any(|kind| objective.contains(kind)) {
                format!("{objective}\nstart = 0\nreplay_batch = 20")
            } else if objective.contains("ppo") {
                // More steps at this rate leave nothing that is finite.
                format!("{objective}\nepochs = 1")
            } else {
                objective.clone()
            };
            let [native, burn] = ["native", "burn"].map(|engine| {
                // Adam would make much of gradients that differ by rounding alone. Decay reaches
                // parameters without a gradient, too.
                let train = "optimizer = 'sgd'\nlr = 0.01\nbatch = 6\nweight_decay = 0.01";
                let experiment = trained(engine, &objective, backward, model, train);
                let mut trainer = experiment.trainer;
                let losses: Vec<_> = (0..5)
                    .map(|_| trainer.step().unwrap())
                    .map(|report| [report.loss.unwrap(), report.backward_loss.unwrap_or(0.0)])
                    .collect();
                let engine = trainer.engine();
                let values: Vec<_> =
                    (0..engine.params().len()).flat_map(|i| engine.value(i)).collect();
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

#[test]
fn naive_trains_p_b_and_fixed_strategies_leave_it() {
    for (backward, moves) in
        [("naive", true), ("tlm", true), ("pessimistic", true), ("uniform", false)]
    {
        let mut experiment = experiment("kind = 'db'", backward, "");
        let head = |trainer: &Trainer| {
            let infos = trainer.engine().params();
            let i = infos.iter().position(|p| p.name == "backward.head.weight");
            i.map(|i| trainer.engine().value(i))
        };
        let before = head(&experiment.trainer);
        experiment.trainer.step().unwrap();
        assert_eq!(before != head(&experiment.trainer), moves, "{backward}");
    }
}

/// The gradients of one batch on both engines, to single precision.
fn assert_same_gradients(native: &mut Trainer, burn: &mut Trainer, batch: &Batch, what: &str) {
    let (a, b) = (gradients(native, batch), gradients(burn, batch));
    // Residuals cancel in it: what is left carries the rounding of their size, that of the root of the
    // loss.
    let residual = loss_value(burn, batch).abs().sqrt() as f32;
    let scale =
        b.iter().flatten().flatten().fold(residual.max(1e-2), |scale, g| scale.max(g.abs()));
    for ((info, a), b) in native.engine().params().iter().zip(a).zip(b) {
        let (Some(a), Some(b)) = (&a, &b) else {
            assert_eq!(a, b, "{what} {}", info.name);
            continue;
        };
        for (a, b) in a.iter().zip(b) {
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
    for (objective, backward) in
        pairs(&objectives(), &["uniform", "naive", "tlm", "learned_maxent"])
    {
        for &model in &models {
            let what = format!("{objective} {backward} {model}");
            let mut native = on_engine("native", &objective, backward, model);
            let mut burn = on_engine("burn", &objective, backward, model);
            // Enough states that the native engine cuts them into parts, and those of a
            // transformer's into chunks; or not.
            assert_eq!([&native, &burn].map(|e| e.trainer.engine().name()), ["native", "burn"]);
            let n = if model.is_empty() || model == post { 100 } else { 12 };
            let trajectories = sample(&native, n);
            assert_eq!(trajectories, sample(&burn, n), "{what}: the same rollouts");
            let batch = native.trainer.batch_of(&trajectories);
            let (a, b) =
                (loss_value(&mut native.trainer, &batch), loss_value(&mut burn.trainer, &batch));
            assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{what}: {a} against {b}");
            assert_same_gradients(&mut native.trainer, &mut burn.trainer, &batch, &what);
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
    let graphs = "[env]\nkind = 'dag'\nnodes = 5\n[reward]\nkind = 'bge'\n\
                  generate = { graph = 'erdos_renyi', edges = 5.0, rows = 9, noise = 1.0, seed = 0 }\n";
    let transformer = TRANSFORMERS[0];
    let papers = "kind = 'graph_transformer'\nblock = 'papers'\nwidth = 24\nlayers = 3\nheads = 2";
    for (world, model, n) in [
        (grid, "kind = 'mlp'\nhidden = 256", 100),
        (words, "kind = 'mlp'\nhidden = 32", 6),
        (words, transformer, 6),
        (graphs, papers, 40),
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
                let step =
                    |experiment: &mut Experiment| experiment.trainer.step().unwrap().loss.unwrap();
                let (a, b) = (step(&mut native), step(&mut burn));
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{what}");
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
    assert!((a.loss.unwrap() - b.loss.unwrap()).abs() > 1e-3, "{a:?} {b:?}");
    assert_ne!(sample(&with, 500), sample(&without, 500), "they have learned differently");
}
