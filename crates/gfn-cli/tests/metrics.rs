//! Columns of metrics.csv against values computed here: from logits and counts alone, by other sums
//! than those of the metrics. And what is said where something cannot be measured.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use gfn_cli::error::{Failure, USAGE};
use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::metric::{
    Column, EvalContext, METRICS, Metric, MetricContext, MetricEntry, MetricError, MetricKind,
    NoSettings, Observed,
};
use gfn_core::policy::{Direction, Policy};
use gfn_core::registry::{Entry, EnvAxis, EnvContext, Kind, RewardAxis, RewardContext};
use gfn_core::{
    Block, Environment, KeyError, Reward, RewardError, Space, States, Streams, Trajectories,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const SIDE: usize = 8;
const STEPS: usize = 60;
const WINDOW: usize = 300;
const TOP_K: usize = 10;

fn build(registry: &Registry, spec: &str) -> Experiment {
    let spec = Spec::parse(registry, "spec.toml", spec.to_owned(), "test", &[]);
    let spec = spec.unwrap_or_else(|failure| panic!("{}", failure.render()));
    Experiment::build(registry, &spec).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

/// The columns by name.
struct Row(Vec<(String, Option<f64>)>);

impl Row {
    fn measure(experiment: &mut Experiment) -> Self {
        let values = experiment.trainer.evaluate().unwrap();
        let names = experiment.columns.iter().map(|column| column.name.clone());
        Self(names.zip(values).collect())
    }

    fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(column, _)| column == name);
        found.unwrap_or_else(|| panic!("a column {name}")).1
    }

    fn assert(&self, name: &str, expected: f64) {
        let got = self.get(name).unwrap_or_else(|| panic!("{name} is empty"));
        let scale = 1e-9 * expected.abs().max(1.0);
        assert!((got - expected).abs() < scale, "{name}: {got} instead of {expected}");
    }
}

thread_local! {
    /// Coordinates of every object that training has sampled in this test, in order.
    static SAMPLED: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

struct Recorder;

impl Metric for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        SAMPLED.with_borrow_mut(|all| all.extend(batch.terminals.rows().map(cell)));
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

fn cell(row: &[i32]) -> (usize, usize) {
    (row[0] as usize, row[1] as usize)
}

/// The reward of the grid as the papers write it.
fn reward((i, j): (usize, usize)) -> f64 {
    let distance = |s: usize| (s as f64 / (SIDE - 1) as f64 - 0.5).abs();
    let both = |inside: fn(f64) -> bool| f64::from(inside(distance(i)) && inside(distance(j)));
    0.02 + 0.7 * both(|d| d > 0.25) + 1.3 * both(|d| d > 0.3 && d < 0.4)
}

fn cells() -> impl Iterator<Item = (usize, usize)> {
    (0..SIDE).flat_map(|i| (0..SIDE).map(move |j| (i, j)))
}

/// P_F and P_B of a policy at every cell: along the first axis, along the second, and stopping.
struct Walks {
    forward: Vec<[f64; 3]>,
    backward: Vec<[f64; 2]>,
}

impl Walks {
    fn of(experiment: &Experiment) -> Self {
        let mut rows = States::new(3);
        cells().for_each(|(i, j)| rows.push(&[i as i32, j as i32, 0]));
        let policy = experiment.trainer.policy();
        let mut logits = vec![0f32; 3 * rows.len()];
        let mut softmax = |direction, legal: fn(usize, usize) -> [bool; 3]| {
            policy.logits(&*experiment.env, direction, &rows, &mut logits);
            let of_cell = |((i, j), logits): ((usize, usize), &[f32])| {
                let legal = legal(i, j);
                let weight = |a: usize| if legal[a] { f64::from(logits[a]).exp() } else { 0.0 };
                let weights = [0, 1, 2].map(weight);
                weights.map(|weight| weight / weights.iter().sum::<f64>())
            };
            cells().zip(logits.chunks_exact(3)).map(of_cell).collect::<Vec<_>>()
        };
        let forward = softmax(Direction::Forward, |i, j| [i + 1 < SIDE, j + 1 < SIDE, true]);
        let backward = softmax(Direction::Backward, |i, j| [i > 0, j > 0, false]);
        Self { forward, backward: backward.iter().map(|&[a, b, _]| [a, b]).collect() }
    }

    fn p_f(&self, (i, j): (usize, usize), action: usize) -> f64 {
        self.forward[i * SIDE + j][action]
    }

    fn p_b(&self, (i, j): (usize, usize), axis: usize) -> f64 {
        self.backward[i * SIDE + j][axis]
    }

    /// P_T of every cell.
    fn terminal(&self) -> Vec<f64> {
        let mut visits = vec![0.0; SIDE * SIDE];
        visits[0] = 1.0;
        for (i, j) in cells().skip(1) {
            let up = if i > 0 { visits[(i - 1) * SIDE + j] * self.p_f((i - 1, j), 0) } else { 0.0 };
            let left = if j > 0 { visits[i * SIDE + j - 1] * self.p_f((i, j - 1), 1) } else { 0.0 };
            visits[i * SIDE + j] = up + left;
        }
        cells().zip(visits).map(|(cell, visits)| visits * self.p_f(cell, 2)).collect()
    }

    /// E of log R + log P_B - log P_F over what is left of a trajectory that is at `at`.
    fn lower(&self, at: (usize, usize), known: &mut [Option<f64>]) -> f64 {
        let index = at.0 * SIDE + at.1;
        if let Some(known) = known[index] {
            return known;
        }
        let stop = self.p_f(at, 2);
        let mut sum = stop * (reward(at).ln() - stop.ln());
        for (axis, next) in [(at.0 + 1, at.1), (at.0, at.1 + 1)].into_iter().enumerate() {
            if next.0 < SIDE && next.1 < SIDE {
                let p = self.p_f(at, axis);
                sum += p * (self.p_b(next, axis).ln() - p.ln() + self.lower(next, known));
            }
        }
        known[index] = Some(sum);
        sum
    }

    /// E of log P_B - log P_F over trajectories from s0 to `at`, drawn backwards.
    fn upper(&self, at: (usize, usize)) -> f64 {
        let from = |axis: usize, parent: (usize, usize)| {
            let p = self.p_b(at, axis);
            p * (p.ln() - self.p_f(parent, axis).ln() + self.upper(parent))
        };
        let up = if at.0 > 0 { from(0, (at.0 - 1, at.1)) } else { 0.0 };
        let left = if at.1 > 0 { from(1, (at.0, at.1 - 1)) } else { 0.0 };
        up + left
    }
}

fn grid(eval: &str) -> Experiment {
    let mut registry = Registry::builtin();
    registry.metrics.push(MetricEntry::of::<Recorder>());
    let metrics: Vec<&str> = registry.metrics.iter().map(|entry| entry.name).collect();
    let mut experiment = build(
        &registry,
        &format!(
            "[env]\nkind = 'hypergrid'\ndim = 2\nside = {SIDE}\n\
             [reward]\nkind = 'hypergrid'\nr0 = 0.02\nr1 = 0.7\nr2 = 1.3\n\
             [model]\nkind = 'mlp'\nhidden = 16\n[objective]\nkind = 'tb'\n\
             [backward]\nkind = 'naive'\n[train]\nepsilon = 0.2\nbatch = 16\nlr = 0.01\n\
             [eval]\nmetrics = {metrics:?}\nsettings.empirical.window = {WINDOW}\nsettings.samples.top_k = {TOP_K}\nsamples = 200\n\
             seed = 4\n{eval}\n"
        ),
    );
    SAMPLED.with_borrow_mut(Vec::clear);
    for _ in 0..STEPS {
        experiment.trainer.step().unwrap();
    }
    experiment
}

/// E|X/n - p| of a binomial X, term by term.
fn mean_deviation(n: usize, p: f64) -> f64 {
    let mut mass = (1.0 - p).powi(n as i32);
    let mut sum = 0.0;
    for k in 0..=n {
        sum += mass * (k as f64 / n as f64 - p).abs();
        mass *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
    }
    sum
}

fn distribution(row: &Row, prob: &[f64], target: &[f64]) {
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        prob.iter().zip(target).map(|(&p, &q)| of(p, q)).sum()
    };
    let l1 = sum(&|p, q| (p - q).abs());
    row.assert("l1_exact", l1);
    row.assert("tv_exact", l1 / 2.0);
    row.assert("kl_exact", sum(&|p, q| p * (p / q).ln()));
    // The entropy of the mean less the mean entropy.
    let entropy = |p: f64| -p * p.ln();
    let jsd = sum(&|p, q| entropy(0.5 * (p + q)) - 0.5 * (entropy(p) + entropy(q)));
    row.assert("jsd_exact", jsd);
    assert!(l1 > 0.1 && jsd > 0.01, "there is something to measure");
}

fn pearson(xs: &[f64], ys: &[f64]) -> f64 {
    let n = xs.len() as f64;
    let mean = |of: &dyn Fn(usize) -> f64| (0..xs.len()).map(of).sum::<f64>() / n;
    let covariance =
        |a: &[f64], b: &[f64]| mean(&|i| a[i] * b[i]) - mean(&|i| a[i]) * mean(&|i| b[i]);
    covariance(xs, ys) / (covariance(xs, xs) * covariance(ys, ys)).sqrt()
}

/// Half the ties count as smaller.
fn ranks(xs: &[f64]) -> Vec<f64> {
    let below = |x: f64| -> f64 {
        xs.iter()
            .map(|&y| {
                if y < x {
                    1.0
                } else if y == x {
                    0.5
                } else {
                    0.0
                }
            })
            .sum()
    };
    xs.iter().map(|&x| below(x)).collect()
}

#[test]
fn every_column_is_what_it_says() {
    let mut experiment = grid("");
    let sampled = SAMPLED.with_borrow(Clone::clone);
    let row = Row::measure(&mut experiment);
    let walks = Walks::of(&experiment);
    let rewards: Vec<f64> = cells().map(reward).collect();
    let z: f64 = rewards.iter().sum();
    let target: Vec<f64> = rewards.iter().map(|r| r / z).collect();
    let log_r: Vec<f64> = rewards.iter().map(|r| r.ln()).collect();
    let prob = walks.terminal();
    assert!((prob.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let over = |mass: &[f64], of: &[f64]| mass.iter().zip(of).map(|(p, x)| p * x).sum::<f64>();

    distribution(&row, &prob, &target);

    assert_eq!(sampled.len(), 16 * STEPS);
    let mut counts = vec![0u32; SIDE * SIDE];
    sampled[sampled.len() - WINDOW..].iter().for_each(|(i, j)| counts[i * SIDE + j] += 1);
    let share = |count: &u32| f64::from(*count) / WINDOW as f64;
    let l1: f64 = counts.iter().zip(&target).map(|(count, q)| (share(count) - q).abs()).sum();
    row.assert("l1_empirical", l1);
    row.assert("n_empirical", WINDOW as f64);
    row.assert("l1_floor", target.iter().map(|&q| mean_deviation(WINDOW, q)).sum());

    let log_z = experiment.trainer.log_z().unwrap();
    row.assert("log_z", log_z);
    row.assert("log_z_exact", z.ln());
    row.assert("log_z_error", (log_z - z.ln()).abs());

    let elbo = walks.lower((0, 0), &mut vec![None; SIDE * SIDE]);
    let upper = cells().map(|at| reward(at).ln() - walks.p_f(at, 2).ln() + walks.upper(at));
    let eubo = over(&target, &upper.collect::<Vec<_>>());
    row.assert("elbo", elbo);
    row.assert("eubo", eubo);
    assert_eq!(row.get("elbo_error"), None);
    assert!(elbo < z.ln() && z.ln() < eubo, "{elbo} {eubo}");

    // Both coordinates of fresh samples, and those of P*.
    let policy = experiment.trainer.policy();
    let fixed = &experiment.trainer.parts().context;
    let eval = EvalContext::new(fixed, &policy, None, Streams::new(4), STEPS as u64);
    let fresh: Vec<_> = eval.samples().unwrap().terminals().rows().map(cell).collect();
    let (mut tv, mut floor) = (0.0, 0.0);
    for of in [|(i, _): (usize, usize)| i, |(_, j): (usize, usize)| j] {
        for s in 0..SIDE {
            let p = fresh.iter().filter(|&&at| of(at) == s).count() as f64 / 200.0;
            let q: f64 = cells().zip(&target).filter(|&(at, _)| of(at) == s).map(|(_, q)| q).sum();
            tv += (p - q).abs() / 4.0;
            floor += mean_deviation(200, q) / 4.0;
        }
    }
    row.assert("marginal_tv", tv);
    row.assert("marginal_tv_floor", floor);
    assert!(tv > 1.5 * floor, "there is something to measure");

    let peaks: BTreeSet<_> =
        sampled.iter().filter(|(i, j)| [1, 6].contains(i) && [1, 6].contains(j)).collect();
    assert!(!peaks.is_empty(), "some mode was found");
    row.assert("modes", peaks.len() as f64);

    let ratio = over(&prob, &rewards) / over(&target, &rewards);
    assert!(ratio < 1.0);
    row.assert("reward_ratio", ratio);
    row.assert("accuracy", ratio);

    row.assert("target_log_z", z.ln());
    row.assert("target_log_z_error", 0.0);
    row.assert("target_mean_log_reward", over(&target, &log_r));
    row.assert("target_mean_error", 0.0);

    let log_p: Vec<f64> = prob.iter().map(|p| p.ln()).collect();
    row.assert("pearson", pearson(&log_r, &log_p));
    row.assert("spearman", pearson(&ranks(&log_r), &ranks(&log_p)));
    // Only the order of log R counts: any that refines it.
    let refined: Vec<f64> = log_r.iter().enumerate().map(|(i, r)| r + 1e-9 * i as f64).collect();
    row.assert("spearman_max", pearson(&ranks(&log_r), &ranks(&refined)));
    for name in ["n_backward", "log_p_error", "log_p_ess"] {
        assert_eq!(row.get(name), None, "{name}");
    }
    row.assert("n_exact", log_p.len() as f64);
}

/// The columns of fresh samples, and bounds where nothing is enumerated.
#[test]
fn columns_of_samples_are_what_they_say() {
    let mut experiment = grid("max_states = 1");
    let row = Row::measure(&mut experiment);
    let walks = Walks::of(&experiment);
    let policy = experiment.trainer.policy();
    let fixed = &experiment.trainer.parts().context;
    let eval = EvalContext::new(fixed, &policy, None, Streams::new(4), STEPS as u64);
    let samples = eval.samples().unwrap();
    assert_eq!(samples.len(), 200);
    let objects: Vec<_> = (0..200).map(|i| cell(samples.terminal(i))).collect();
    let mean = |of: &dyn Fn(usize) -> f64| (0..200).map(of).sum::<f64>() / 200.0;
    row.assert("mean_reward", mean(&|i| reward(objects[i])));
    row.assert("mean_log_reward", mean(&|i| reward(objects[i]).ln()));

    let mut best: Vec<_> = objects.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    row.assert("n_distinct", best.len() as f64);
    assert!(best.len() > TOP_K);
    best.sort_by(|&a, &b| reward(b).total_cmp(&reward(a)));
    row.assert(
        "top_k_reward",
        best[..TOP_K].iter().map(|&x| reward(x)).sum::<f64>() / TOP_K as f64,
    );

    let log_weight = |i: usize| {
        let states = &samples.states;
        let mut sum = reward(objects[i]).ln();
        for step in samples.rows(i).collect::<Vec<_>>().windows(2) {
            let (from, to) = (states.row(step[0]), states.row(step[1]));
            let action = (0..3).find(|&d| from[d] != to[d]).unwrap();
            sum -= walks.p_f(cell(from), action).ln();
            sum += if action < 2 { walks.p_b(cell(to), action).ln() } else { 0.0 };
        }
        sum
    };
    let elbo = mean(&log_weight);
    row.assert("elbo", elbo);
    let variance = 200.0 / 199.0 * mean(&|i| (log_weight(i) - elbo).powi(2));
    row.assert("elbo_error", (variance / 200.0).sqrt());
    let unknown = ["tv_exact", "l1_empirical", "n_empirical", "eubo", "eubo_error", "accuracy"];
    for name in unknown.into_iter().chain(["marginal_tv", "marginal_tv_floor"]) {
        assert_eq!(row.get(name), None, "{name}");
    }
}

fn separable(dim: usize, more: &str) -> Experiment {
    build(
        &Registry::builtin(),
        &format!(
            "[env]\nkind = 'hypergrid'\ndim = {dim}\nside = 6\n[reward]\nkind = 'separable'\n\
             [model]\nkind = 'mlp'\nhidden = 16\n[objective]\nkind = 'tb'\n\
             [backward]\nkind = 'naive'\n[train]\nepsilon = 0.2\nbatch = 16\nlr = 0.01\n\
             [eval]\nmetrics = ['marginals', 'elbo_eubo', 'log_z', 'target']\n{more}\n"
        ),
    )
}

/// EUBO by exact samples of the target where nothing is enumerated, against the exact one.
#[test]
fn eubo_by_samples_of_the_target() {
    let train = |mut experiment: Experiment| {
        for _ in 0..STEPS {
            experiment.trainer.step().unwrap();
        }
        Row::measure(&mut experiment)
    };
    let exact = train(separable(2, ""));
    let sampled = train(separable(2, "max_states = 1\nsamples = 4000"));
    assert_eq!(exact.get("eubo_error"), None);
    let error = sampled.get("eubo_error").unwrap();
    let (got, expected) = (sampled.get("eubo").unwrap(), exact.get("eubo").unwrap());
    assert!(error > 1e-4 && error < 0.1, "{error}");
    assert!((got - expected).abs() < 4.0 * error, "{got} {expected} {error}");
    // Marginals and log Z in closed form and by enumeration.
    let floors = [&exact, &sampled].map(|row| row.get("marginal_tv_floor").unwrap());
    assert!((floors[0] / floors[1] - 2.0).abs() < 0.1, "with four times the samples: {floors:?}");
    sampled.assert("log_z_exact", exact.get("log_z_exact").unwrap());
    let mean = sampled.get("target_mean_log_reward").unwrap();
    exact.assert("target_mean_log_reward", mean);
}

/// In many dimensions: bounds enclose log Z, and samples of the target itself have marginals at their floor.
#[test]
fn what_is_known_in_a_hundred_dimensions() {
    let mut experiment = separable(100, "samples = 300");
    let row = Row::measure(&mut experiment);
    let get = |name: &str| row.get(name).unwrap();
    assert!(get("elbo") < get("log_z_exact") && get("log_z_exact") < get("eubo"));
    assert!(get("marginal_tv") > 5.0 * get("marginal_tv_floor"));
    let fixed = &experiment.trainer.parts().context;
    let mut exact = Trajectories::new(101);
    for row in experiment.reward.exact_samples(300, 8).unwrap().rows() {
        exact.push(row, &[], &[]);
    }
    let eval = EvalContext::without_policy(fixed, exact, Streams::new(0), 0);
    let entry = METRICS.iter().find(|entry| entry.name == "marginals").unwrap();
    let values = eval.measure(&mut *(entry.build)(fixed).unwrap()).unwrap();
    let ratio = values[0].unwrap() / values[1].unwrap();
    assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
}

/// With fewer distinct objects than `top_k` a mean over those that there are would be better the
/// more a policy has collapsed.
#[test]
fn too_few_distinct_objects_have_no_top_k() {
    let mut experiment = build(
        &Registry::builtin(),
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n[eval]\nmetrics = ['samples']\nsettings.samples.top_k = 10\n",
    );
    let row = Row::measure(&mut experiment);
    row.assert("n_distinct", 9.0);
    assert_eq!((row.get("top_k_reward"), row.get("diversity")), (None, None));
}

/// Strings that grow at one end have one trajectory each: the divergence is what the lower bound
/// falls short by. log R spans -16,000 to 0 here.
#[test]
fn divergences_hold_where_probabilities_underflow() {
    let mut experiment = build(
        &Registry::builtin(),
        "[env]\nkind = 'bit_sequence'\nbits = 8\nword_bits = 1\nbuild = 'append'\n\
         [reward]\nkind = 'hamming'\nn_modes = 2\nexponent = 2000\n\
         [eval]\nmetrics = ['distribution', 'elbo_eubo', 'log_z']\n",
    );
    let row = Row::measure(&mut experiment);
    let kl = row.get("log_z_exact").unwrap() - row.get("elbo").unwrap();
    assert!(kl > 1000.0, "{kl}");
    row.assert("kl_exact", kl);
}

/// A policy whose logits are broken at some states.
struct Broken {
    logit: f32,
    everywhere: bool,
}

impl Policy for Broken {
    fn logits(&self, env: &dyn Environment, to: Direction, states: &States, out: &mut [f32]) {
        let space = env.space();
        let n = if to == Direction::Forward { space.n_actions } else { space.n_back_actions };
        for (row, out) in states.rows().zip(out.chunks_exact_mut(n)) {
            let broken = self.everywhere || row[..2] == [1, 1];
            out.fill(if broken { self.logit } else { 0.0 });
        }
    }
}

#[test]
fn broken_policies_are_never_measured_as_good() {
    for eval in ["", "max_states = 1\nmax_streamed_states = 1000"] {
        let experiment = grid(eval);
        let fixed = &experiment.trainer.parts().context;
        let measure = |policy: &dyn Policy| {
            let eval = EvalContext::new(fixed, policy, Some(0.0), Streams::new(0), 0);
            let mut row = Vec::new();
            for entry in METRICS {
                let mut metric = (entry.build)(fixed).unwrap();
                let names = metric.columns().into_iter().map(|column| column.name);
                row.extend(names.zip(metric.evaluate(&eval).unwrap()));
            }
            (Row(row), eval.policy_is_finite())
        };
        for logit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for everywhere in [true, false] {
                let (row, finite) = measure(&Broken { logit, everywhere });
                assert!(!finite, "{logit}");
                let exact = ["tv_exact", "l1_exact", "jsd_exact", "kl_exact"];
                for name in [&exact[..], &["elbo", "reward_ratio", "accuracy"]].concat() {
                    let value = row.get(name).unwrap();
                    assert!(value.is_nan(), "{logit}: {name} is {value}");
                }
                assert_eq!((row.get("pearson"), row.get("spearman")), (None, None));
                assert!(row.get("eubo").is_none_or(f64::is_nan));
            }
        }
        let (row, finite) = measure(&gfn_core::policy::UniformPolicy);
        assert!(finite && row.get("tv_exact").unwrap() > 0.0);
    }
}

/// From 0 to 3 by one or two at a time; with `cycle` from 2 back to 0.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Hops {
    cycle: bool,
}

impl Kind<EnvAxis> for Hops {
    const NAME: &'static str = "hops";
    const SUMMARY: &'static str = "breaks laws";

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Environment for Hops {
    fn space(&self) -> &Space {
        static SPACE: LazyLock<Space> = LazyLock::new(|| {
            let actions = [Block::whole("hop", 2)];
            Space::new(1, 3).named_slots(1, &[4]).forward(&actions).backward(&actions)
        });
        &SPACE
    }

    fn reset(&self, row: &mut [i32]) {
        row[0] = 0;
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        mask.copy_from_slice(&[row[0] < 3, row[0] < 2 || self.cycle && row[0] == 2]);
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        mask.copy_from_slice(&[row[0] > 0, row[0] > 1]);
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        row[0] = (row[0] + action as i32 + 1) % 4;
        action
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        row[0] -= back_action as i32 + 1;
        back_action
    }

    fn observe(&self, row: &[i32], tokens: &mut [i32]) {
        tokens[0] = row[0];
    }

    fn render(&self, row: &[i32]) -> String {
        row[0].to_string()
    }

    fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
        let of_cell = 0..4;
        Some(vec![of_cell])
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Flat {}

impl Kind<RewardAxis> for Flat {
    const NAME: &'static str = "flat";
    const SUMMARY: &'static str = "1 everywhere";

    fn build(&self, _: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        Ok(Box::new(Flat {}))
    }
}

impl Reward for Flat {
    fn log_reward(&self, _: &States, out: &mut [f64]) -> Result<(), RewardError> {
        out.fill(0.0);
        Ok(())
    }
}

/// A bug of somebody's environment is reported as such, with the law: no bug of gfn, no panic.
#[test]
fn environments_that_break_a_law_are_told_which() {
    let mut registry = Registry::builtin();
    registry.environments.push(Entry::of::<Hops>());
    registry.rewards.push(Entry::of::<Flat>());
    let spec = |more: &str| {
        let text = format!("[env]\nkind = 'hops'\n{more}\n[reward]\nkind = 'flat'\n");
        text + "[eval]\nmetrics = ['distribution']\nmax_streamed_states = 100\n"
    };
    let text = spec("cycle = true");
    let cyclic = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let failure = Experiment::build(&registry, &cyclic).err().unwrap();
    assert_eq!(failure.exit_code(), USAGE);
    let message = failure.message();
    assert!(message.contains("breaks a law: no state is reached from itself"), "{message}");

    let mut uneven = build(&registry, &(spec("") + "max_states = 1\n"));
    let failure = Failure::from(uneven.trainer.evaluate().unwrap_err());
    assert_eq!(failure.exit_code(), USAGE);
    let message = failure.message();
    assert!(message.contains("paths from s0 to a state have one length"), "{message}");
    assert!(message.contains("[2]"), "{message}");
}
