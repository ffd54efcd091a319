//! Soft reinforcement learning beside closed forms on a small grid: what Q means at the optimum, and where
//! variants that do not sample P ∝ R settle instead.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::learn::batch::{Batch, End, Transitions};
use gfn_core::learn::engine::Engine;
use gfn_core::learn::expr::Var;
use gfn_core::learn::head::Head;
use gfn_core::learn::update::{Follows, Update, ValueCopy};
use gfn_core::learn::view::{BatchView, Loss};
use gfn_core::objective::{LogZ, OBJECTIVE, Objective, ObjectiveAxis};
use gfn_core::policy::{Direction, Policy};
use gfn_core::registry::{Entry, Kind};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{KeyError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const SIDE: usize = 5;
/// The action that stops, after one for each coordinate.
const STOP: usize = 2;

/// R of a cell, by the formula of the papers with the constants of `standard`.
fn log_reward((i, j): (usize, usize)) -> f64 {
    let distance = |s: usize| (s as f64 / (SIDE - 1) as f64 - 0.5).abs();
    let both = |inside: fn(f64) -> bool| f64::from(inside(distance(i)) && inside(distance(j)));
    (1e-3 + 0.5 * both(|d| d > 0.25) + 2.0 * both(|d| d > 0.3 && d < 0.4)).ln()
}

/// Cells from the last to the first: children before their parents.
fn backwards() -> impl Iterator<Item = (usize, usize)> {
    (0..SIDE * SIDE).rev().map(|cell| (cell / SIDE, cell % SIDE))
}

fn log_sum_exp(xs: &[f64]) -> f64 {
    let max = xs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + xs.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// Steps out of a cell: the coordinate that grows, and where they lead.
fn children((i, j): (usize, usize)) -> impl Iterator<Item = (usize, (usize, usize))> {
    [(i + 1, j), (i, j + 1)].into_iter().enumerate().filter(|&(_, (i, j))| i < SIDE && j < SIDE)
}

/// G(s, a) of the legal actions, stopping first: log R, and log P_B + V(s') with uniform P_B.
fn gains(value: &[Vec<f64>], cell: (usize, usize)) -> Vec<(usize, f64)> {
    let parents = |(i, j): (usize, usize)| f64::from(u8::from(i > 0) + u8::from(j > 0));
    let step =
        |(action, to): (usize, (usize, usize))| (action, value[to.0][to.1] - parents(to).ln());
    std::iter::once((STOP, log_reward(cell))).chain(children(cell).map(step)).collect()
}

/// Values of all cells with V(s) = c log Σ exp(G/c), and P_T of the policy ∝ exp(G/k).
fn solve(c: f64, k: f64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut value = vec![vec![0.0; SIDE]; SIDE];
    let mut policies = vec![vec![Vec::new(); SIDE]; SIDE];
    for cell in backwards() {
        let gains: Vec<f64> = gains(&value, cell).into_iter().map(|(_, gain)| gain).collect();
        let scaled = |by: f64| gains.iter().map(|gain| gain / by).collect::<Vec<_>>();
        value[cell.0][cell.1] = c * log_sum_exp(&scaled(c));
        let (logits, norm) = (scaled(k), log_sum_exp(&scaled(k)));
        policies[cell.0][cell.1] = logits.iter().map(|logit| (logit - norm).exp()).collect();
    }
    let (mut mass, mut ends) = (vec![vec![0.0; SIDE]; SIDE], vec![vec![0.0; SIDE]; SIDE]);
    mass[0][0] = 1.0;
    for (i, j) in backwards().collect::<Vec<_>>().into_iter().rev() {
        let policy = policies[i][j].clone();
        ends[i][j] = mass[i][j] * policy[0];
        for ((_, to), p) in children((i, j)).zip(&policy[1..]) {
            mass[to.0][to.1] += mass[i][j] * p;
        }
    }
    (value, ends)
}

/// Total variation of a distribution over cells from R / Z.
fn from_target(p: &[Vec<f64>]) -> f64 {
    let z: f64 = backwards().map(|cell| log_reward(cell).exp()).sum();
    let terms = backwards().map(|(i, j)| (p[i][j] - log_reward((i, j)).exp() / z).abs());
    terms.sum::<f64>() / 2.0
}

/// Not trained yet.
fn untrained(registry: &Registry, objective: &str, model: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = {SIDE}\n[model]\nkind = 'mlp'\n{model}\n\
         [objective]\n{objective}\n[train]\ntrajectories = 96_000\nbatch = 32\nlr = 3e-3\n\
         lr_schedule = 'cosine'\nepsilon = 0.2\n[eval]\nmetrics = ['distribution', 'log_z']\n"
    );
    let spec = Spec::parse(registry, "spec.toml", text, "test", &[]);
    let spec = spec.unwrap_or_else(|failure| panic!("{}", failure.render()));
    let built = Experiment::build(registry, &spec);
    built.unwrap_or_else(|failure| panic!("{}", failure.render()))
}

/// Trained to the end of its budget; with its exact total variation from R / Z.
fn trained(registry: &Registry, objective: &str) -> (Experiment, f64) {
    let mut experiment = untrained(registry, objective, "hidden = 64");
    while experiment.trainer.counters().step < experiment.trainer.n_steps() {
        experiment.trainer.step().unwrap();
    }
    let column = experiment.columns.iter().position(|c| c.name == "tv_exact").unwrap();
    let tv = experiment.trainer.evaluate().unwrap()[column].unwrap();
    (experiment, tv)
}

/// Munchausen's Q at the optimum: tau log Σ exp(Q/tau) is log F, and its learned log Z is that of s0.
#[test]
fn soft_values_are_log_flows() {
    let (flows, target) = solve(1.0, 1.0);
    assert!(from_target(&target) < 1e-12, "the recursion is that of flows");
    let registry = Registry::builtin();
    for settings in ["", "alpha = 0.15", "alpha = 0.15\ndouble = true"] {
        let (mut experiment, tv) = trained(&registry, &format!("kind = 'soft_dqn'\n{settings}"));
        assert!(tv < 0.01, "{settings}: {tv}");
        let tau = if settings.contains("alpha") { 1.0 / 0.85 } else { 1.0 };
        let log_z = experiment.trainer.log_z().unwrap();
        assert!((log_z - flows[0][0]).abs() < 0.03, "{settings}: {log_z} {}", flows[0][0]);
        let env = experiment.env.clone();
        let n = env.space().n_actions;
        for (i, j) in backwards() {
            let mut states = States::new(3);
            states.push(&[i as i32, j as i32, 0]);
            let mut logits = vec![0.0; n];
            experiment.trainer.policy().logits(&*env, Direction::Forward, &states, &mut logits);
            let mut legal = vec![false; n];
            env.legal(states.row(0), &mut legal);
            let legal: Vec<f64> =
                (0..n).filter(|&a| legal[a]).map(|a| f64::from(logits[a])).collect();
            let value = tau * log_sum_exp(&legal);
            assert!(
                (value - flows[i][j]).abs() < 0.1,
                "{settings} {i} {j}: {value} {}",
                flows[i][j]
            );
        }
    }
}

/// Dueling as the papers' code has it: Q = V + log softmax(A) at temperature 1, Munchausen's term at tau,
/// actions drawn from softmax(A/tau). Logits of P_F are A/tau here.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PublishedDueling {}

const ALPHA: f64 = 0.15;
const TAU: f64 = 1.0 / (1.0 - ALPHA);

impl Kind<ObjectiveAxis> for PublishedDueling {
    const NAME: &'static str = "published_dueling";
    const SUMMARY: &'static str = "";

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

/// log softmax(A)[a] of every transition.
fn log_softmax_of_a<'t>(values: &BatchView<'_, 't>) -> Var<'t> {
    let all = TAU * values.all(End::From, Head::FORWARD);
    let norm = all.log_sum_exp_segments(&values.batch.choices(End::From).offsets[..]);
    TAU * values.taken(Head::FORWARD) - norm
}

impl Loss for PublishedDueling {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let target = batch.copy("target");
        let next = batch.log_pb() + target.to(Head::FLOW);
        let goal = batch.unless_at_end(next, batch.log_reward_at_ends(None));
        let goal = goal + ALPHA * (TAU * log_softmax_of_a(&target)).clamp(-500.0, 0.0);
        let error = batch.from(Head::FLOW) + log_softmax_of_a(batch) - goal;
        (error * error).mean()
    }
}

impl Objective for PublishedDueling {
    fn updates(&self) -> Vec<Update> {
        let copy = ValueCopy { name: "target", follows: Follows::Slowly(0.25) };
        vec![Update::new(OBJECTIVE, self.clone()).keeping(Some(copy))]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Initial(Head::FLOW)
    }
}

/// It settles where V = c log Σ exp(G/c) with c = 1 - alpha tau and a policy ∝ exp(G/(c tau)); ours at P ∝ R.
#[test]
fn the_published_dueling_samples_something_else() {
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<PublishedDueling>());
    let c = 1.0 - ALPHA * TAU;
    let elsewhere = from_target(&solve(c, c * TAU).1);
    assert!(elsewhere > 0.03, "{elsewhere}");
    let (_, tv) = trained(&registry, "kind = 'published_dueling'");
    assert!((tv - elsewhere).abs() < 0.01, "{tv} {elsewhere}");
    let (_, tv) = trained(&registry, "kind = 'soft_dqn'\nalpha = 0.15\ndueling = true");
    assert!(tv < 0.01, "{tv}");
}

/// Without log P_B, an object counts once for each of its trajectories: binomial coefficients.
#[test]
fn maximising_the_reward_samples_something_else() {
    let registry = Registry::builtin();
    let mut p = vec![vec![0.0; SIDE]; SIDE];
    let mut n = vec![vec![1.0; SIDE]; SIDE];
    for i in 1..SIDE {
        for j in 1..SIDE {
            n[i][j] = n[i - 1][j] + n[i][j - 1];
        }
    }
    let z: f64 = backwards().map(|(i, j)| n[i][j] * log_reward((i, j)).exp()).sum();
    backwards().for_each(|(i, j)| p[i][j] = n[i][j] * log_reward((i, j)).exp() / z);
    let elsewhere = from_target(&p);
    assert!(elsewhere > 0.1, "{elsewhere}");
    let (mut experiment, tv) = trained(&registry, "kind = 'sac'\nmaximise_reward = true");
    assert!((tv - elsewhere).abs() < 0.02, "{tv} {elsewhere}");
    assert_eq!(experiment.trainer.log_z(), None);
}

/// A number of a cell for every action, or for the cell itself.
type Table<'a> = &'a dyn Fn((usize, usize)) -> Vec<f64>;

/// A network that is a table: one hidden unit for each cell, 1 there and 0 elsewhere, so that the weights of heads
/// are the numbers of cells. The target copy has them as well.
fn tabular(registry: &Registry, objective: &str, heads: &[(&str, Table<'_>)]) -> Experiment {
    let n = SIDE * SIDE;
    let mut experiment = untrained(registry, objective, &format!("hidden = {n}\nlayers = 1"));
    let engine = experiment.trainer.engine_mut();
    let set = |engine: &mut dyn Engine, name: &str, values: Vec<f32>| {
        let i = engine.params().iter().position(|info| info.name == name).unwrap();
        assert_eq!(engine.params()[i].shape.iter().product::<usize>(), values.len(), "{name}");
        engine.set_value(i, values);
    };
    // Both coordinates of a cell say 1, and 1 is taken away.
    let says = |token: usize, cell: usize| token == cell / SIDE || token == SIDE + cell % SIDE;
    let weights = (0..2 * SIDE).flat_map(|token| (0..n).map(move |cell| (token, cell)));
    let weights = weights.map(|(token, cell)| f32::from(u8::from(says(token, cell)))).collect();
    set(engine, "trunk.0.weight", weights);
    set(engine, "trunk.0.bias", vec![-1.0; n]);
    for (head, table) in heads {
        let rows: Vec<Vec<f64>> = (0..n).map(|cell| table((cell / SIDE, cell % SIDE))).collect();
        set(engine, &format!("{head}.head.bias"), vec![0.0; rows[0].len()]);
        let values = rows.concat().into_iter().map(|value| value as f32).collect();
        set(engine, &format!("{head}.head.weight"), values);
    }
    engine.copy("target");
    experiment
}

/// The loss on every transition of the grid, each once.
fn loss_of_all_transitions(experiment: &mut Experiment) -> f64 {
    let env = experiment.env.clone();
    let mut all = Transitions::new(3);
    for (i, j) in backwards() {
        let mut legal = [false; 3];
        let from = [i as i32, j as i32, 0];
        env.legal(&from, &mut legal);
        for action in (0..3).filter(|&action| legal[action]) {
            let mut to = from;
            let back = env.step(&mut to, action) as u32;
            let end = (action == STOP).then(|| log_reward((i, j)));
            all.push(&from, &to, action as u32, back, end);
        }
    }
    assert_eq!(all.actions.len(), SIDE * SIDE + 2 * SIDE * (SIDE - 1));
    let batch = Batch::of_transitions(&*env, &experiment.trainer.parts().pb(), &all);
    experiment.trainer.gradients(OBJECTIVE, &batch).0
}

/// The loss on trajectories of the uniform policy.
fn loss_of_walks(experiment: &mut Experiment) -> f64 {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let exploration = Exploration { epsilon: 1.0, temperature: 1.0 };
    let policy = experiment.trainer.policy();
    let mut walks = Sampler::default().forward(&*experiment.env, &policy, exploration, draw, 300);
    let cell = |row: &[i32]| (row[0] as usize, row[1] as usize);
    walks.log_reward = walks.terminals().rows().map(|row| log_reward(cell(row))).collect();
    let batch = experiment.trainer.batch_of(&walks);
    experiment.trainer.gradients(OBJECTIVE, &batch).0
}

/// With exact flows in place no residual is left: losses are means of squares or of Huber's penalty, so each of
/// them is small where the mean is. Forms that settle elsewhere leave some, and none at their own fixed point.
#[test]
fn exact_flows_are_consistent_along_every_path() {
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<PublishedDueling>());
    let (flows, _) = solve(1.0, 1.0);
    let flow = |(i, j): (usize, usize)| flows[i][j];
    // log P_F of all actions, anything where they are illegal.
    let log_pf = |cell: (usize, usize)| {
        let mut row = vec![7.0; 3];
        gains(&flows, cell).into_iter().for_each(|(action, gain)| row[action] = gain - flow(cell));
        row
    };
    let shifted =
        |cell: (usize, usize), by: f64| log_pf(cell).into_iter().map(|x| x + by).collect();
    let scalar: Table<'_> = &|cell| vec![flow(cell)];
    let none = 1e-9;

    let heads: [(&str, Table<'_>); 2] =
        [("forward", &|cell| shifted(cell, (cell.0 * 3 + cell.1) as f64)), ("flow", scalar)];
    let off: Table<'_> = &|cell| vec![flow(cell) + if cell == (2, 1) { 0.1 } else { 0.0 }];
    for weighting in ["geometric_within", "geometric", "equal_within", "equal"] {
        let objective = format!("kind = 'subtb'\nweighting = '{weighting}'");
        let loss = loss_of_walks(&mut tabular(&registry, &objective, &heads));
        assert!(loss < none, "{weighting}: {loss}");
        let loss = loss_of_walks(&mut tabular(&registry, &objective, &[heads[0], ("flow", off)]));
        assert!(loss > 1e-4, "{weighting}, one flow is wrong: {loss}");
    }

    // Q = log F + tau log P_F is tau times the logits.
    let of_tau = |tau: f64| move |cell: (usize, usize)| shifted(cell, flow(cell) / tau);
    let [plain, munchausen] = [1.0, TAU].map(of_tau);
    let plain: [(&str, Table<'_>); 1] = [("forward", &plain)];
    let munchausen: [(&str, Table<'_>); 1] = [("forward", &munchausen)];
    let loss = |objective: &str, heads: &[(&str, Table<'_>)]| {
        loss_of_all_transitions(&mut tabular(&registry, objective, heads))
    };
    for double in [false, true] {
        let form = |alpha: f64, rest: &str| {
            format!("kind = 'soft_dqn'\nalpha = {alpha}\ndouble = {double}\n{rest}")
        };
        for (objective, heads) in [
            (form(0.0, ""), &plain[..]),
            (form(ALPHA, ""), &munchausen[..]),
            (form(0.0, "dueling = true"), &heads[..]),
            (form(ALPHA, "dueling = true"), &heads[..]),
        ] {
            let loss = loss(&objective, heads);
            assert!(loss < none, "{objective}: {loss}");
        }
        // Values of another temperature, and a clip of Munchausen's term that is active.
        for (objective, heads) in [
            (form(ALPHA, ""), &plain[..]),
            (form(0.0, ""), &munchausen[..]),
            (form(ALPHA, "l0 = -0.5"), &munchausen[..]),
        ] {
            let loss = loss(&objective, heads);
            assert!(loss > 1e-3, "{objective}: {loss}");
        }
    }

    let published = "kind = 'published_dueling'";
    let at_ours = loss(published, &heads);
    assert!(at_ours > 1e-3, "{at_ours}");
    // Where it settles itself, its logits are G / (c tau).
    let c = 1.0 - ALPHA * TAU;
    let (value, _) = solve(c, c * TAU);
    let own: Table<'_> = &|cell| {
        let mut row = vec![7.0; 3];
        gains(&value, cell).into_iter().for_each(|(a, gain)| row[a] = gain / (c * TAU));
        row
    };
    let own: [(&str, Table<'_>); 2] = [("forward", own), ("flow", &|(i, j)| vec![value[i][j]])];
    let at_its_own = loss(published, &own);
    assert!(at_its_own < none, "{at_its_own}");
    let ours = loss(&format!("kind = 'soft_dqn'\nalpha = {ALPHA}\ndueling = true"), &own);
    assert!(ours > 1e-3, "{ours}");
}
