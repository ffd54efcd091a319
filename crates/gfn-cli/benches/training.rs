//! Where an iteration's time goes, on the papers' 20^4 hypergrid (batch 16, MLP 2×256):
//! `cargo bench -p gfn-cli --bench training`. Compare rows of one run only; machines are noisy.
//! What the arithmetic could cost at least is in `kernels.rs`.

use std::sync::Arc;

use divan::Bencher;
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::learn::engine::{ActionsTaken, Engine, Readout, Rows, Upstream, Values};
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::learn::{EngineKind, TrainSettings};
use gfn_core::objective::OBJECTIVE;
use gfn_core::policy::UniformPolicy;
use gfn_core::registry::Kind;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::space::At;
use gfn_core::{Block, Environment, Space, StateGraph, States, Trajectories};
use gfn_models::network::NetworkContext;
use gfn_models::transformer::TransformerSpec;

fn main() {
    divan::main();
}

/// A trainer that has made `warm` iterations: trajectories grow as the policy learns.
fn experiment(engine: &str, objective: &str, backward: &str, warm: u64) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 4\nside = 20\n[objective]\nkind = '{objective}'\n\
         [backward]\nkind = '{backward}'\n[train]\nengine = '{engine}'\n\
         [eval]\nmetrics = ['distribution']\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "bench", &[])
        .unwrap_or_else(|failure| panic!("{}", failure.render()));
    let mut experiment = Experiment::build(&registry, &spec)
        .unwrap_or_else(|failure| panic!("{}", failure.render()));
    for _ in 0..warm {
        experiment.trainer.step().expect("training goes on");
    }
    experiment
}

const OBJECTIVES: [&str; 5] = ["tb", "db", "subtb", "fm", "vargrad"];
const WARM: u64 = 300;

/// A whole iteration with uniform P_B on the native engine.
#[divan::bench(args = OBJECTIVES, max_time = 3)]
fn iteration_native(bencher: Bencher<'_, '_>, objective: &str) {
    let mut experiment = experiment("native", objective, "uniform", WARM);
    bencher.bench_local(|| experiment.trainer.step().expect("training goes on"));
}

/// The same on Burn, the reference.
#[divan::bench(args = OBJECTIVES, max_time = 3)]
fn iteration_burn(bencher: Bencher<'_, '_>, objective: &str) {
    let mut experiment = experiment("burn", objective, "uniform", WARM);
    bencher.bench_local(|| experiment.trainer.step().expect("training goes on"));
}

/// A whole iteration of detailed balance with each backward strategy.
#[divan::bench(args = ["uniform", "naive", "maxent", "tlm", "pessimistic"], max_time = 3)]
fn iteration_by_strategy(bencher: Bencher<'_, '_>, backward: &str) {
    let mut experiment = experiment("native", "db", backward, WARM);
    bencher.bench_local(|| experiment.trainer.step().expect("training goes on"));
}

fn rollout(experiment: &Experiment, sampler: &mut Sampler, step: u64) -> Trajectories {
    let draw = Draw { streams: Streams::new(0), purpose: Purpose::Test, step };
    let policy = experiment.trainer.policy();
    sampler.forward(&*experiment.env, &policy, Exploration::NONE, draw, 16)
}

/// Of that, sampling 16 trajectories.
#[divan::bench(args = ["native", "burn"], max_time = 3)]
fn part_rollout(bencher: Bencher<'_, '_>, engine: &str) {
    let experiment = experiment(engine, "db", "uniform", WARM);
    let (mut sampler, mut step) = (Sampler::default(), 0);
    bencher.bench_local(|| {
        step += 1;
        rollout(&experiment, &mut sampler, step)
    });
}

/// Of that, without a network: environment and draws alone.
#[divan::bench(max_time = 3)]
fn part_environment(bencher: Bencher<'_, '_>) {
    let experiment = experiment("native", "db", "uniform", WARM);
    let trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    let (mut sampler, mut step) = (Sampler::default(), 0);
    let n = trajectories.len();
    bencher.bench_local(|| {
        step += 1;
        let draw = Draw { streams: Streams::new(0), purpose: Purpose::Test, step };
        sampler.forward(&*experiment.env, &UniformPolicy, Exploration::NONE, draw, n)
    });
}

/// Observing every state of a batch.
#[divan::bench(max_time = 3)]
fn part_observation(bencher: Bencher<'_, '_>) {
    let experiment = experiment("native", "db", "uniform", WARM);
    let trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    bencher.bench_local(|| Rows::new(trajectories.states.clone()).ids(&*experiment.env).len());
}

/// Of that, building the batch: observations, masks, P_B, upload.
#[divan::bench(max_time = 3)]
fn part_batch(bencher: Bencher<'_, '_>) {
    let experiment = experiment("native", "db", "uniform", WARM);
    let mut trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    trajectories.log_reward = vec![0.0; trajectories.len()];
    bencher.bench_local(|| experiment.trainer.batch_of(&trajectories));
}

/// Of that, forward pass, loss and its gradients, without the optimiser. The forward pass is
/// spared in training where a batch has just been sampled.
#[divan::bench(args = ["native", "burn"], max_time = 3)]
fn part_gradients(bencher: Bencher<'_, '_>, engine: &str) {
    let mut experiment = experiment(engine, "db", "uniform", WARM);
    let mut trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    trajectories.log_reward = vec![0.0; trajectories.len()];
    let batch = experiment.trainer.batch_of(&trajectories);
    bencher.bench_local(|| experiment.trainer.gradients(OBJECTIVE, &batch));
}

/// Exact evaluation: P_F of 320,000 states and dynamic programming over them.
#[divan::bench(args = ["native", "burn"], max_time = 5)]
fn exact_evaluation(bencher: Bencher<'_, '_>, engine: &str) {
    let mut experiment = experiment(engine, "db", "uniform", 0);
    bencher.bench_local(|| experiment.trainer.evaluate().expect("rewards are known"));
}

/// Enumerating the state graph.
#[divan::bench(max_time = 3)]
fn enumeration(bencher: Bencher<'_, '_>) {
    let experiment = experiment("native", "db", "uniform", 0);
    bencher.bench_local(|| StateGraph::explore(&*experiment.env, 1 << 20));
}

/// States of tokens, all given: nothing but observations of them.
struct Tokens(Space);

impl Environment for Tokens {
    fn space(&self) -> &Space {
        &self.0
    }
    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }
    fn legal(&self, _: &[i32], mask: &mut [bool]) {
        mask.fill(true);
    }
    fn legal_back(&self, _: &[i32], mask: &mut [bool]) {
        mask.fill(true);
    }
    fn step(&self, _: &mut [i32], action: usize) -> usize {
        action
    }
    fn unstep(&self, _: &mut [i32], back_action: usize) -> usize {
        back_action
    }
    fn observe(&self, row: &[i32], tokens: &mut [i32]) {
        tokens.copy_from_slice(row);
    }
    fn render(&self, row: &[i32]) -> String {
        format!("{row:?}")
    }
}

/// Forward, backward and Adam of a transformer (3 × 64 × 8 heads, feed-forward 256) on 256
/// sequences of 15 synthetic tokens.
#[divan::bench(args = ["native", "burn"], max_time = 5)]
fn transformer_step(bencher: Bencher<'_, '_>, engine: &str) {
    let space = Space::new(14, 14)
        .named_slots(14, &[256])
        .forward(&[Block::whole("any", 64)])
        .backward(&[Block::slot("any", At::Any, 1)]);
    let env = Tokens(space);
    let context = NetworkContext::new(env.space(), &[Head::FORWARD, Head::BACKWARD, Head::FLOW]);
    let spec = TransformerSpec { feed_forward: 256, ..Default::default() };
    let network = spec.build(context.clone()).expect("legal settings");
    let mut rng = Streams::new(0).get(Purpose::Init, 0);
    let device = gfn_models::device::open("flex").expect("the default");
    let engine = if engine == "native" { EngineKind::Native } else { EngineKind::Burn };
    let settings = TrainSettings { engine, ..Default::default() };
    let mut model: Box<dyn Engine> =
        gfn_models::engine::new(network, context, &[], &settings, &device, &mut rng);
    let cells: Vec<i32> = (0..256 * 14).map(|i| (i * 37) % 256).collect();
    let mut states = States::new(14);
    states.push(&cells);
    let rows = Rows::new(states);
    let mut taken = ActionsTaken::with_capacity(64, 256);
    for row in 0..256 {
        taken.push(row, &[true; 64], row % 64);
    }
    let readout = Readout::LogProb(Arc::new(taken));
    bencher.bench_local(|| {
        let head = Head::FORWARD;
        let pass = model.evaluate(&env, &rows, &[head], Values::Current, None);
        let log_probs = model.read(pass, head, &readout);
        let derivatives = vec![-1.0 / 256.0; log_probs.len()];
        let upstream = Upstream { pass, head, readout: readout.clone(), derivatives };
        model.gradients(vec![upstream], &[], &[TRUNK, head.name]);
        model.step("bench", &[(TRUNK, 1e-3), (head.name, 1e-3)], 1.0);
    });
}
