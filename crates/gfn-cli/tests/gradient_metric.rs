//! The metric `gradient` against sums over gradients that are computed here, one batch at a time; and that
//! training does not notice it.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::objective::OBJECTIVE;
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Purpose, Streams};

const BATCHES: usize = 5;
const EVAL_SEED: u64 = 11;

fn experiment(objective: &str, backward: &str, more: &str, metrics: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 5\n\
         [objective]\n{objective}\n[backward]\nkind = '{backward}'\n\
         [eval]\nmetrics = [{metrics}]\nsamples = 50\nseed = {EVAL_SEED}\n\
         settings.gradient.batches = {BATCHES}\n{more}\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

const NETWORK: &str =
    "[model]\nkind = 'mlp'\nhidden = 16\n[train]\nbatch = 6\nepsilon = 0.3\nlr = 0.01";

/// Gradients by the trunk and P_F of one batch after the other, and the mean length of trajectories.
fn gradients(e: &mut Experiment) -> (Vec<Vec<f64>>, f64) {
    let (mut all, mut length) = (Vec::new(), 0);
    let step = e.trainer.counters().step;
    for k in 0..BATCHES as u64 {
        let draw = Draw {
            streams: Streams::new(EVAL_SEED),
            purpose: Purpose::GradientEvaluation,
            step: step * BATCHES as u64 + k,
        };
        let policy = e.trainer.policy();
        let mut drawn = Sampler::default().forward(&*e.env, &policy, Exploration::NONE, draw, 6);
        drawn.log_reward = vec![0.0; 6];
        e.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
        length += drawn.n_transitions();
        let batch = e.trainer.batch_of(&drawn);
        e.trainer.gradients(OBJECTIVE, &batch);
        let engine = e.trainer.engine();
        let params = engine.params().iter().enumerate();
        let of_policy = params.filter(|(_, info)| ["trunk", "forward"].contains(&&*info.group));
        let gradient = of_policy.flat_map(|(i, _)| engine.gradient(i).expect("of the loss"));
        all.push(gradient.map(f64::from).collect());
    }
    (all, length as f64 / (6 * BATCHES) as f64)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean<'a>(vectors: impl Iterator<Item = &'a Vec<f64>> + Clone) -> Vec<f64> {
    let n = vectors.clone().count() as f64;
    let mut mean = vec![0.0; vectors.clone().next().unwrap().len()];
    vectors.for_each(|vector| mean.iter_mut().zip(vector).for_each(|(m, x)| *m += x / n));
    mean
}

#[test]
fn columns_are_what_they_say() {
    for (objective, backward, model) in [
        ("kind = 'tb'", "uniform", ""),
        ("kind = 'tb'", "naive", "shared = false"),
        ("kind = 'subtb'", "tlm", "shared = true"),
        ("kind = 'pg'", "uniform", "shared = false"),
        ("kind = 'vargrad'", "naive", ""),
        ("kind = 'fl_db'", "uniform", ""),
        ("kind = 'mdb'", "uniform", "shared = true"),
        ("kind = 'ppo'", "uniform", "shared = false"),
        ("kind = 'trpo'", "naive", "shared = true"),
    ] {
        let network = NETWORK.replace("[train]", &format!("{model}\n[train]"));
        let mut e = experiment(objective, backward, &network, "'gradient'");
        for _ in 0..8 {
            e.trainer.step().unwrap();
        }
        let before = e.trainer.counters();
        let row = e.trainer.evaluate().unwrap();
        assert_eq!(e.trainer.counters(), before, "calls are counted nowhere");
        if ["ppo", "trpo"].iter().any(|kind| objective.contains(kind)) {
            // What an iteration of the policy as it is begins with.
            e.trainer.engine_mut().copy("old_policy");
        }
        let (all, length) = gradients(&mut e);
        let centre = mean(all.iter());
        let norm = dot(&centre, &centre).sqrt();
        let deviation = |gradient: &Vec<f64>| {
            gradient.iter().zip(&centre).map(|(g, m)| (g - m).powi(2)).sum::<f64>()
        };
        let variance = 6.0 * all.iter().map(deviation).sum::<f64>() / (BATCHES - 1) as f64;
        let cosine = |i: usize| {
            let others = mean(all.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, g)| g));
            dot(&all[i], &others) / (dot(&all[i], &all[i]) * dot(&others, &others)).sqrt()
        };
        let cosine = (0..BATCHES).map(cosine).sum::<f64>() / BATCHES as f64;
        let names: Vec<&str> = e.columns.iter().map(|column| &*column.name).collect();
        let expected = [
            ("gradient_norm", norm),
            ("gradient_variance", variance),
            ("gradient_variance_step", variance / length),
            ("gradient_cosine", cosine),
        ];
        assert_eq!(names, expected.map(|(name, _)| name));
        for ((name, expected), got) in expected.into_iter().zip(row) {
            let got = got.unwrap();
            let close = (got - expected).abs() < 1e-6 * expected.abs();
            assert!(close, "{objective} {name}: {got} {expected}");
        }
        assert!(variance > 0.0 && cosine.abs() < 1.0);
    }
}

/// Where the main loss is not on current trajectories alone, or there is none.
#[test]
fn columns_are_empty_with_replay() {
    for (objective, empty) in [
        ("kind = 'soft_dqn'", true),
        ("kind = 'soft_dqn'\nreplay_capacity = 0", false),
        ("kind = 'tb'\nreplay = { capacity = 100, batch = 4 }", true),
        ("kind = 'mh'", true),
    ] {
        let mut e = experiment(objective, "uniform", NETWORK, "'gradient'");
        e.trainer.step().unwrap();
        let row = e.trainer.evaluate().unwrap();
        assert!(row.iter().all(|value| value.is_none() == empty), "{objective}: {row:?}");
    }
}

/// Losses and states are those of a run without the metric, to the bit.
#[test]
fn training_does_not_notice() {
    for (objective, backward, more) in [
        ("kind = 'tb'", "naive", ""),
        ("kind = 'pg'", "uniform", "reward_noise = { sigma = 0.5 }"),
        ("kind = 'fl_db'", "tlm", "reward_noise = { sigma = 0.5, per = 'object' }"),
        ("kind = 'db'", "pessimistic", "engine = 'burn'"),
        ("kind = 'ppo'", "uniform", ""),
        ("kind = 'trpo'", "tlm", ""),
        ("kind = 'soft_dqn'", "uniform", ""),
    ] {
        let run = |metrics: &str| {
            let network = format!("{NETWORK}\n{more}");
            let mut e = experiment(objective, backward, &network, metrics);
            let mut losses = Vec::new();
            for step in 0..12 {
                if step % 3 == 0 {
                    e.trainer.evaluate().unwrap();
                }
                losses.push(e.trainer.step().unwrap().loss.map(f64::to_bits));
            }
            (losses, e.trainer.snapshot())
        };
        let (with, without) = (run("'gradient', 'log_z'"), run("'log_z'"));
        assert_eq!(with.0, without.0, "{objective}");
        assert!(with.1 == without.1, "{objective}");
    }
}

/// Fresh noise adds to the variance, as there is more of it.
#[test]
fn noise_of_rewards_shows_in_the_variance() {
    let variance = |sigma: f64| {
        let noise = format!("{NETWORK}\nreward_noise = {{ sigma = {sigma} }}");
        let mut e = experiment("kind = 'tb'", "uniform", &noise, "'gradient'");
        e.trainer.evaluate().unwrap()[1].unwrap()
    };
    let (none, much) = (variance(0.0), variance(20.0));
    assert!(much > 3.0 * none, "{none} {much}");
}
