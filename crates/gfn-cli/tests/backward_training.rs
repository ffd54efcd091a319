//! Where training takes P_B: to the posterior of P_F, or to path counts. P_F is given back its values
//! after every iteration, so that the place is known exactly.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::Direction;
use gfn_core::backward::BACKWARD;
use gfn_core::learn::Trainer;
use gfn_core::learn::engine::{Ask, Values};
use gfn_core::learn::head::Head;
use gfn_core::objective::OBJECTIVE;
use gfn_core::policy::Policy;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Environment, States};

const ITERATIONS: u64 = 1200;

fn experiment(objective: &str, backward: &str, reward: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n[reward]\n{reward}\n\
         [model]\nkind = 'mlp'\nhidden = 32\nshared = false\n\
         [objective]\n{objective}\n[backward]\n{backward}\n\
         [train]\nlr = 0.01\nlr_schedule = 'linear'\nbatch = 64\ntrajectories = {}\n\
         [eval]\nmetrics = []\n",
        64 * ITERATIONS
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let built = Experiment::build(&registry, &spec);
    let mut experiment = built.unwrap_or_else(|failure| panic!("{}", failure.render()));
    // A P_F with likes and dislikes.
    for (i, values) in values_of(&experiment.trainer, Head::FORWARD.name) {
        if experiment.trainer.engine().params()[i].name.ends_with("head.weight") {
            let louder = values.iter().map(|value| 4.0 * value).collect();
            experiment.trainer.engine_mut().set_value(i, louder);
        }
    }
    experiment
}

const GRID: &str = "kind = 'hypergrid'";

/// The parameters of a group.
fn values_of(trainer: &Trainer, group: &str) -> Vec<(usize, Vec<f32>)> {
    let engine = trainer.engine();
    let infos = engine.params().iter().enumerate().filter(|(_, info)| info.group == group);
    infos.map(|(i, _)| (i, engine.value(i))).collect()
}

/// All iterations, P_F staying as it is. Returns the last losses.
fn train(experiment: &mut Experiment) -> gfn_core::learn::Report {
    let trainer = &mut experiment.trainer;
    let fixed = values_of(trainer, Head::FORWARD.name);
    let mut last = None;
    for _ in 0..ITERATIONS {
        last = Some(trainer.step().unwrap());
        for (i, values) in &fixed {
            trainer.engine_mut().set_value(*i, values.clone());
        }
    }
    last.unwrap()
}

/// P_B of the values that are trained, whatever objectives read.
struct Online<'a>(&'a Trainer);

impl Policy for Online<'_> {
    fn logits(
        &self,
        env: &dyn Environment,
        direction: Direction,
        states: &States,
        out: &mut [f32],
    ) {
        assert_eq!(direction, Direction::Backward);
        let ask = Ask { values: Values::Current, head: Head::BACKWARD, record: None };
        self.0.engine().logits(ask, env, states, out);
    }
}

/// P_B of every edge s → s' with a choice, beside P_F(s|s') = F(s) P_F(s'|s)/F(s') and the share of
/// paths n(s)/n(s'): of the states that P_F visits at least now and then.
fn edges(experiment: &Experiment, policy: &dyn Policy) -> Vec<[f64; 3]> {
    let graph = &experiment.exact.as_ref().unwrap().graph;
    let log_probs = |policy: &dyn Policy, way| graph.log_probs(&*experiment.env, policy, way, 4096);
    let log_pf = log_probs(&experiment.trainer.policy(), Direction::Forward);
    let log_pb = log_probs(policy, Direction::Backward);
    let visits = graph.visits(&log_pf);
    let mut edges = Vec::new();
    for i in 0..graph.states().len() {
        for e in graph.edge_range(i) {
            let child = graph.edges(i)[e - graph.edge_range(i).start].child as usize;
            let [from, to] = [i, child].map(|state| graph.states().row(state));
            let choice = to[2] == 0 && to[0] > 0 && to[1] > 0;
            if choice && visits[child] > 0.05 {
                let posterior = visits[i] * log_pf[e].exp() / visits[child];
                // Of the paths to (x, y), x in x + y end with a step of x.
                let step = if from[0] < to[0] { to[0] } else { to[1] };
                let share = f64::from(step) / f64::from(to[0] + to[1]);
                edges.push([log_pb[e].exp(), posterior, share]);
            }
        }
    }
    assert!(edges.len() >= 8, "{} edges", edges.len());
    edges
}

fn largest(edges: &[[f64; 3]], goal: usize) -> f64 {
    edges.iter().map(|edge| (edge[0] - edge[goal]).abs()).fold(0.0, f64::max)
}

const POSTERIOR: usize = 1;
const SHARE: usize = 2;

#[test]
fn p_b_becomes_the_posterior_of_p_f() {
    for (objective, backward) in [
        ("kind = 'tb'", "kind = 'tlm'"),
        ("kind = 'db'", "kind = 'tlm'\norder = 'forward_first'"),
        ("kind = 'tb'", "kind = 'pessimistic'"),
        // The likelihood is what policy gradients train P_B by.
        ("kind = 'pg'", "kind = 'naive'"),
    ] {
        let mut experiment = experiment(objective, backward, GRID);
        let before = largest(&edges(&experiment, &experiment.trainer.policy()), POSTERIOR);
        train(&mut experiment);
        let after = edges(&experiment, &experiment.trainer.policy());
        let error = largest(&after, POSTERIOR);
        assert!(before > 0.1, "{backward}: there is something to learn: {before}");
        assert!(error < 0.02, "{objective} {backward}: {error}");
        assert!(largest(&after, SHARE) > 0.05, "{backward}: the posterior is not that of paths");
    }
}

/// The check notices a P_B that is not trained, and a copy that does not follow.
#[test]
fn a_p_b_that_stays_is_noticed() {
    let mut still = experiment("kind = 'tb'", "kind = 'tlm'\nlr = 1e-9", GRID);
    train(&mut still);
    let error = largest(&edges(&still, &still.trainer.policy()), POSTERIOR);
    assert!(error > 0.1, "{error}");
    let mut experiment = experiment("kind = 'tb'", "kind = 'tlm'\ntarget_tau = 1e-9", GRID);
    train(&mut experiment);
    let copied = edges(&experiment, &experiment.trainer.policy());
    assert!(largest(&copied, POSTERIOR) > 0.1);
    assert!(copied.iter().all(|edge| (edge[0] - 0.5).abs() < 1e-3), "the copy is still uniform");
    let online = largest(&edges(&experiment, &Online(&experiment.trainer)), POSTERIOR);
    assert!(online < 0.02, "{online}");
}

/// Where R is what P_F samples, balance over trajectories holds for its posterior alone.
#[test]
fn naive_balance_finds_the_posterior_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    // Any table serves to find what P_F samples: its values come with the seed.
    let reward = format!("kind = 'table'\npath = '{}'", path.display());
    let mut text = String::from("object,value\n");
    {
        let first = experiment("kind = 'tb'", "kind = 'naive'", GRID);
        let graph = &first.exact.as_ref().unwrap().graph;
        let policy = first.trainer.policy();
        let log_pf = graph.log_probs(&*first.env, &policy, Direction::Forward, 4096);
        for (row, prob) in graph.objects().rows().zip(graph.terminal_probs(&log_pf)) {
            text.push_str(&format!("{},{}\n", first.env.render(row), 7.0 * prob));
        }
    }
    std::fs::write(&path, text).unwrap();
    let mut experiment = experiment("kind = 'tb'", "kind = 'naive'", &reward);
    let report = train(&mut experiment);
    let error = largest(&edges(&experiment, &experiment.trainer.policy()), POSTERIOR);
    assert!(error < 0.02, "{error}");
    assert!(report.loss.unwrap() < 1e-3, "{report:?}");
    let log_z = experiment.trainer.log_z().unwrap();
    assert!((log_z - 7f64.ln()).abs() < 0.02, "{log_z}");
}

#[test]
fn learned_maxent_becomes_the_share_of_paths() {
    let mut experiment = experiment("kind = 'tb'", "kind = 'learned_maxent'", GRID);
    let before = largest(&edges(&experiment, &experiment.trainer.policy()), SHARE);
    train(&mut experiment);
    let after = edges(&experiment, &experiment.trainer.policy());
    let error = largest(&after, SHARE);
    assert!(before > 0.1 && error < 0.02, "{before} {error}");
    assert!(largest(&after, POSTERIOR) > 0.05, "paths, whatever P_F does");
}

/// P_B's gradient by policy gradients is that of the likelihood, on any batch.
#[test]
fn policy_gradients_train_p_b_by_its_likelihood() {
    let mut naive = experiment("kind = 'pg'", "kind = 'naive'", GRID);
    let mut tlm = experiment("kind = 'pg'", "kind = 'tlm'\ntarget_tau = 1", GRID);
    for _ in 0..5 {
        naive.trainer.step().unwrap();
    }
    for i in 0..naive.trainer.engine().params().len() {
        let value = naive.trainer.engine().value(i);
        assert_eq!(naive.trainer.engine().params()[i], tlm.trainer.engine().params()[i]);
        tlm.trainer.engine_mut().set_value(i, value);
    }
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let exploration = Exploration { epsilon: 0.3, temperature: 1.0 };
    let policy = naive.trainer.policy();
    let mut drawn = Sampler::default().forward(&*naive.env, &policy, exploration, draw, 20);
    drawn.log_reward = vec![0.0; 20];
    naive.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
    let batch = naive.trainer.batch_of(&drawn);
    naive.trainer.gradients(OBJECTIVE, &batch);
    tlm.trainer.gradients(BACKWARD, &tlm.trainer.batch_of(&drawn));
    let mut largest = 0f32;
    for (i, _) in values_of(&naive.trainer, Head::BACKWARD.name) {
        let [a, b] = [&naive, &tlm].map(|e| e.trainer.engine().gradient(i).unwrap());
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
            largest = largest.max(a.abs());
        }
    }
    assert!(largest > 1e-2, "there is a gradient");
}
