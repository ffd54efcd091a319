//! Markov chains in the place of training: what they come to, what they spend, what is measured.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::metric::{
    Column, EvalContext, Metric, MetricContext, MetricEntry, MetricError, MetricKind, NoSettings,
    Observed,
};
use gfn_core::registry::{Entry, Kind, RewardAxis, RewardContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::{KeyError, Reward, RewardError, States};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

thread_local! {
    /// Rewards asked for in this test.
    static REWARDS: Cell<u64> = const { Cell::new(0) };
    /// log R of the objects that metrics have seen in this test, iteration by iteration.
    static SEEN: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
}

/// log R between -1.5 and 1.5, scattered, in any environment.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scattered {}

impl Kind<RewardAxis> for Scattered {
    const NAME: &'static str = "scattered";
    const SUMMARY: &'static str = "scattered";

    fn build(&self, _: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Reward for Scattered {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        REWARDS.set(REWARDS.get() + xs.len() as u64);
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let seed = row.iter().fold(1, |h: u64, &cell| (h ^ cell as u64).wrapping_mul(0x9E37));
            *out = Streams::new(seed).get(Purpose::Test, 0).random_range(-1.5..1.5);
        }
        Ok(())
    }
}

/// Sees, and measures nothing.
struct Recorder;

impl Metric for Recorder {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        assert_eq!(batch.terminals.len(), batch.log_reward.len());
        SEEN.with_borrow_mut(|seen| seen.push(batch.log_reward.to_vec()));
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        Ok(Vec::new())
    }
}

impl MetricKind for Recorder {
    const NAME: &'static str = "recorder";
    const SUMMARY: &'static str = "";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }
}

const GRID: &str = "kind = 'hypergrid'\ndim = 2\nside = 4";
const STRINGS: &str = "kind = 'sequence'\nlength = 4\nmin_length = 1\nsymbols = ['A', 'B']";
const DAGS: &str = "kind = 'dag'\nnodes = 3";

fn build(env: &str, objective: &str, train: &str, eval: &str) -> Experiment {
    let mut registry = Registry::builtin();
    registry.rewards.push(Entry::of::<Scattered>());
    registry.metrics.push(MetricEntry::of::<Recorder>());
    let all: Vec<&str> = registry.metrics.iter().map(|entry| entry.name).collect();
    let metrics = if eval.contains("metrics") { "" } else { &format!("metrics = {all:?}") };
    let text = format!(
        "[env]\n{env}\n[reward]\nkind = 'scattered'\n[objective]\nkind = 'mh'\n{objective}\n\
         [model]\nkind = 'mlp'\nhidden = 8\n[train]\n{train}\n[eval]\n{metrics}\n{eval}\n"
    );
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let experiment = Experiment::build(&registry, &spec);
    let experiment = experiment.unwrap_or_else(|failure| panic!("{}", failure.render()));
    REWARDS.set(0);
    SEEN.with_borrow_mut(Vec::clear);
    experiment
}

/// The cells that are not empty, by their columns.
fn cells(experiment: &mut Experiment) -> Vec<(String, f64)> {
    let values = experiment.trainer.evaluate().unwrap();
    let pairs = experiment.columns.iter().zip(values);
    pairs.filter_map(|(column, value)| Some((column.name.clone(), value?))).collect()
}

fn cell(cells: &[(String, f64)], name: &str) -> f64 {
    cells.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("{name}: {cells:?}")).1
}

/// Objects where the chains go from here.
fn draw(experiment: &Experiment, n: usize, seed: u64) -> Option<(States, Vec<f64>)> {
    let samples = experiment.trainer.draw_from_chains(Streams::new(seed), n).unwrap()?;
    Some((samples.terminals(), samples.log_reward))
}

fn steps(experiment: &mut Experiment, n: u64) {
    (0..n).for_each(|_| assert!(experiment.trainer.step().is_ok()));
}

/// The histogram of the last objects is as near to R / Z as that of independent samples, by every
/// proposal; at the start it is not.
#[test]
fn the_last_objects_come_to_the_target() {
    for (env, proposal) in [
        (GRID, "proposal = 'back_and_forth'"),
        (GRID, "steps_back = 4"),
        (STRINGS, "steps_back = 3"),
        (STRINGS, ""),
        (DAGS, ""),
        (DAGS, "proposal = 'local'"),
    ] {
        let (train, eval) =
            ("trajectories = 30000\nbatch = 500", "settings.empirical.window = 20000");
        let ratio = |experiment: &mut Experiment| {
            let cells = cells(experiment);
            cell(&cells, "l1_empirical") / cell(&cells, "l1_floor")
        };
        let mut early = build(env, "", train, eval);
        steps(&mut early, 2);
        let before = ratio(&mut early);
        let mut late = build(env, &format!("{proposal}\nburn_in = 20\nthin = 20"), train, eval);
        steps(&mut late, 60);
        let after = ratio(&mut late);
        assert!(before > 2.0, "{env} {proposal}: {before}");
        assert!(after < 1.3, "{env} {proposal}: {after}");
    }
}

/// Cells of a policy are empty; those of the target and of objects are there, whatever is measured.
#[test]
fn nothing_of_an_untrained_policy_is_measured() {
    let train = "trajectories = 1000\nbatch = 50";
    let mut experiment = build(GRID, "", train, "samples = 100\nsettings.samples.top_k = 5");
    let target = ["log_z_exact", "target_log_z", "target_log_z_error"];
    let target = [&target[..], &["target_mean_error", "target_mean_log_reward"]].concat();
    let of = |cells: Vec<(String, f64)>| cells.into_iter().map(|(name, _)| name);
    let mut before: Vec<_> = of(cells(&mut experiment)).collect();
    before.sort();
    assert_eq!(before, target);
    steps(&mut experiment, 20);
    let objects = ["l1_empirical", "n_empirical", "l1_floor"];
    let samples = ["mean_reward", "mean_log_reward", "top_k_reward", "diversity", "n_distinct"];
    let marginals = ["marginal_tv", "marginal_tv_floor"];
    let mut expected = [&target[..], &objects, &samples, &marginals].concat();
    expected.sort_unstable();
    let mut after: Vec<_> = of(cells(&mut experiment)).collect();
    after.sort();
    assert_eq!(after, expected);
    assert_eq!(experiment.n_params(), 0);
    assert!(experiment.trainer.snapshot().model.is_empty());
}

/// Fresh samples are the last objects after burn-in, fewer at first; and the empirical distribution sees
/// the same.
#[test]
fn samples_are_the_last_objects() {
    let (train, eval) = ("trajectories = 1234\nbatch = 50", "samples = 120");
    let mut experiment = build(STRINGS, "burn_in = 4\nthin = 2", train, eval);
    let mut last: VecDeque<f64> = VecDeque::new();
    for step in 0..25 {
        steps(&mut experiment, 1);
        let seen = SEEN.with_borrow_mut(std::mem::take);
        assert_eq!(seen.len(), usize::from(step >= 4), "{step}");
        for batch in &seen {
            assert_eq!(batch.len(), if step < 24 { 50 } else { 34 });
            last.extend(batch);
        }
        last.drain(..last.len().saturating_sub(120));
        // In between, all is put aside and taken up again.
        if step % 3 == 0 {
            let snapshot = experiment.trainer.snapshot();
            experiment = build(STRINGS, "burn_in = 4\nthin = 2", train, eval);
            experiment.trainer.restore(&snapshot).unwrap();
            assert_eq!(experiment.trainer.snapshot(), snapshot);
        }
        let cells = cells(&mut experiment);
        if step < 4 {
            assert!(cells.iter().all(|(name, _)| name != "mean_log_reward"), "{cells:?}");
            assert_eq!(draw(&experiment, 3, 0).is_some(), step == 3);
            continue;
        }
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        assert!((cell(&cells, "mean_log_reward") - mean).abs() < 1e-12, "{step}");
        let n = if step < 24 { (step - 3) * 50 } else { 20 * 50 + 34 };
        assert_eq!(cell(&cells, "n_empirical"), n as f64);
    }
    assert_eq!(experiment.trainer.counters().trajectories, 1234);
}

/// Objects that a user asks for are where the chains go from the checkpoint: of the target, repeatable,
/// and no part of the run.
#[test]
fn chains_go_on_for_a_user() {
    let train = "trajectories = 20000\nbatch = 500";
    let mut experiment = build(DAGS, "proposal = 'local'\nthin = 10", train, "");
    assert!(draw(&experiment, 10, 0).is_none(), "they have not begun");
    steps(&mut experiment, 20);
    let before = experiment.trainer.snapshot();
    let (objects, log_reward) = draw(&experiment, 20_100, 3).unwrap();
    assert_eq!((objects.len(), log_reward.len()), (20_100, 20_100));
    let mut again = vec![0.0; objects.len()];
    experiment.reward.log_reward(&objects, &mut again).unwrap();
    assert_eq!(log_reward, again);
    assert_eq!(draw(&experiment, 700, 3).unwrap().0, objects.slice(0..700));
    assert_ne!(draw(&experiment, 700, 4).unwrap().0, objects.slice(0..700));
    assert_eq!(experiment.trainer.snapshot(), before);
    let mean = log_reward.iter().sum::<f64>() / log_reward.len() as f64;
    let expected = cell(&cells(&mut experiment), "target_mean_log_reward");
    // Six standard errors of half as many independent objects.
    assert!((mean - expected).abs() < 6.0 * 0.9 / 100.0, "{mean} {expected}");
}

/// Budget columns against counts that are known: one step back and one forth per proposal, one per
/// local move, and all rewards that are asked for, if nothing is measured.
#[test]
fn what_is_spent_is_counted() {
    let append = "kind = 'sequence'\nlength = 4\nsymbols = ['A', 'B', 'C']\nbuild = 'append'";
    let (train, eval) = ("trajectories = 130\nbatch = 20", "metrics = []");
    let (chains, iterations, thin) = (20, 7, 5);
    let mut strings = build(append, "steps_back = 1\nthin = 5", train, eval);
    steps(&mut strings, iterations);
    let counters = strings.trainer.counters();
    assert_eq!((counters.step, counters.trajectories), (iterations, 130));
    assert_eq!(counters.env_steps, chains * (4 + 2 * iterations * thin));
    assert_eq!((counters.reward_calls, counters.grad_steps), (REWARDS.get(), 0));
    // Two of three proposals are another string.
    let proposed = (counters.reward_calls - chains) as f64 / (chains * iterations * thin) as f64;
    assert!((proposed - 2.0 / 3.0).abs() < 0.1, "{proposed}");

    let mut dags = build(DAGS, "proposal = 'local'\nthin = 5\nburn_in = 6", train, eval);
    steps(&mut dags, 1);
    let start = dags.trainer.counters();
    steps(&mut dags, iterations - 1);
    let counters = dags.trainer.counters();
    // A local move is always another graph.
    let moves = |iterations| chains * iterations * thin;
    assert_eq!(counters.env_steps - start.env_steps, moves(iterations - 1));
    assert_eq!(counters.reward_calls, chains + moves(iterations));
    assert_eq!((counters.reward_calls, counters.trajectories), (REWARDS.get(), 130));
}

#[test]
fn checkpoints_of_other_chains_are_refused() {
    let of = |env: &str, batch: usize| {
        build(env, "", &format!("trajectories = 1000\nbatch = {batch}"), "")
    };
    let mut experiment = of(GRID, 20);
    steps(&mut experiment, 2);
    let snapshot = experiment.trainer.snapshot();
    for (mut other, why) in [(of(GRID, 30), "20 chains"), (of(DAGS, 20), "20 chains of 3 cells")] {
        let error = other.trainer.restore(&snapshot).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
