//! Where an iteration's time goes, on the papers' 20^4 hypergrid (batch 16, MLP 2×256):
//! `cargo bench -p gfn-cli --bench training`. Compare rows of one run only; machines are noisy.
//! What the arithmetic could cost at least is in `kernels.rs`.

use std::sync::Arc;

use burn::tensor::Device;
use divan::Bencher;
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::choices::Choices;
use gfn_core::model::Model;
use gfn_core::network::{Group, Observations};
use gfn_core::optimizer::{Algorithm, Optimizer, OptimizerSettings};
use gfn_core::policy::UniformPolicy;
use gfn_core::registry::Kind;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Direction, Layout, StateGraph, Trajectories};
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
    bencher.bench_local(|| Observations::new(&*experiment.env, &trajectories.states));
}

/// The forward pass, which training spares where it has just sampled the batch.
#[divan::bench(args = ["native", "burn"], max_time = 3)]
fn part_forward(bencher: Bencher<'_, '_>, engine: &str) {
    let mut experiment = experiment(engine, "db", "uniform", WARM);
    let trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    let observations = Observations::new(&*experiment.env, &trajectories.states);
    let model = experiment.trainer.model_mut();
    bencher.bench_local(|| {
        let evaluated = model.evaluate(&observations);
        let value = model.first_log_flow(&evaluated);
        drop(evaluated);
        model.clear();
        value
    });
}

/// Forward pass and loss, without gradients.
#[divan::bench(args = OBJECTIVES, max_time = 3)]
fn part_forward_and_loss(bencher: Bencher<'_, '_>, objective: &str) {
    let mut experiment = experiment("native", objective, "uniform", WARM);
    let mut trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    trajectories.log_reward = vec![0.0; trajectories.len()];
    let batch = experiment.trainer.batch_of(&trajectories);
    let trainer = &mut experiment.trainer;
    bencher.bench_local(|| {
        let loss = trainer.objective_loss(&batch).inner().into_scalar::<f32>();
        trainer.model_mut().clear();
        loss
    });
}

/// Of that, building the batch: observations, masks, P_B, upload.
#[divan::bench(max_time = 3)]
fn part_batch(bencher: Bencher<'_, '_>) {
    let experiment = experiment("native", "db", "uniform", WARM);
    let mut trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    trajectories.log_reward = vec![0.0; trajectories.len()];
    bencher.bench_local(|| experiment.trainer.batch_of(&trajectories));
}

/// Of that, forward pass, loss and its gradients, without the optimiser.
#[divan::bench(args = ["native", "burn"], max_time = 3)]
fn part_gradients(bencher: Bencher<'_, '_>, engine: &str) {
    let mut experiment = experiment(engine, "db", "uniform", WARM);
    let mut trajectories = rollout(&experiment, &mut Sampler::default(), 0);
    trajectories.log_reward = vec![0.0; trajectories.len()];
    let batch = experiment.trainer.batch_of(&trajectories);
    let trainer = &mut experiment.trainer;
    bencher.bench_local(|| trainer.objective_gradients(&batch).norm);
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

/// Forward, backward and Adam of a transformer (3 × 64 × 8 heads, feed-forward 256) on 256
/// sequences of 15 synthetic tokens.
#[divan::bench(args = ["native", "burn"], max_time = 5)]
fn transformer_step(bencher: Bencher<'_, '_>, engine: &str) {
    let layout = Layout {
        width: 1,
        n_actions: 64,
        n_back_actions: 14,
        n_tokens: 256,
        n_active: 14,
        max_len: 14,
        symbols_per_slot: 0,
    };
    let spec = TransformerSpec { feed_forward: 256, ..Default::default() };
    let network = spec.build(layout).expect("legal settings");
    let (streams, device) = (Streams::new(0), Device::flex());
    let mut rng = streams.get(Purpose::Init, 0);
    let mut model = Model::new(network, &layout, &mut rng, 0.0, &device, engine == "native");
    let n = model.infos().len();
    let settings = OptimizerSettings {
        algorithm: Algorithm::Adam,
        momentum: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    let mut adam = [Optimizer::new(&settings, n, model.is_native())];
    let ids = (0..256 * 14).map(|i| (i * 37) % 256).collect();
    let observations = Observations::from_ids(ids, 256, &layout);
    let mut choices = Choices::with_capacity(64, 256, &device);
    for row in 0..256 {
        choices.push(row, &[true; 64], row % 64);
    }
    let choices = Arc::new(choices);
    let groups = [Group::Trunk, Group::Forward];
    bencher.bench_local(|| {
        let evaluated = model.evaluate(&observations);
        let loss = model.log_probs(&evaluated, Direction::Forward, &choices).mean().neg();
        let gradients = model.gradients(loss, &groups);
        model.apply(gradients, None, &mut adam, |_| (0, 1e-3));
    });
}
