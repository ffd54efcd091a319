//! Objects whose symmetries make several actions one are sampled in proportion to their rewards.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::metric::{
    Better, Column, EvalContext, Metric, MetricContext, MetricEntry, MetricError, MetricKind,
    NoSettings, Observed,
};
use gfn_core::registry::{Entry, EnvAxis, EnvContext, Kind, RewardAxis, RewardContext};
use gfn_core::space::At;
use gfn_core::{Block, Environment, KeyError, Reward, RewardError, Space, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Up to four balls in three boxes without names: numbers of balls in descending order, then whether
/// the walk has stopped. Boxes that hold as many are alike.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BallsSpec {
    /// Whether losses are not to know of symmetries.
    uncorrected: bool,
}

struct Balls {
    uncorrected: bool,
    space: Space,
}

const BOXES: usize = 3;
const MOST: i32 = 4;

impl Kind<EnvAxis> for BallsSpec {
    const NAME: &'static str = "balls";
    const SUMMARY: &'static str = "balls in boxes without names";

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        let space = Space::new(BOXES + 1, MOST as usize + 1)
            .named_slots(BOXES, &[MOST as usize + 1])
            .forward(&[Block::slot("add", At::Any, 1), Block::stop()])
            .backward(&[Block::slot("take", At::Any, 1), Block::whole("go_on", 1)]);
        Ok(Box::new(Balls { uncorrected: self.uncorrected, space }))
    }
}

/// Changes a box, and returns the first that then holds as many.
fn change(row: &mut [i32], of: usize, by: i32) -> usize {
    row[of] += by;
    let after = row[of];
    if of < BOXES {
        row[..BOXES].sort_unstable_by(|a, b| b.cmp(a));
        return row.iter().position(|&balls| balls == after).unwrap();
    }
    of
}

fn n_symmetries(row: &[i32]) -> f64 {
    let groups = row[..BOXES].chunk_by(|a, b| a == b);
    groups.map(|group| (1..=group.len()).product::<usize>() as f64).product()
}

impl Environment for Balls {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        mask[..BOXES].fill(row[BOXES] == 0 && row[..BOXES].iter().sum::<i32>() < MOST);
        mask[BOXES] = row[BOXES] == 0;
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        let going = row[BOXES] == 0;
        mask.iter_mut().zip(row).for_each(|(legal, &balls)| *legal = going && balls > 0);
        mask[BOXES] = !going;
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        change(row, action, 1)
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        change(row, back_action, -1)
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        cells.copy_from_slice(&row[..BOXES]);
    }

    fn render(&self, row: &[i32]) -> String {
        format!("{row:?}")
    }

    fn edges_are_actions(&self) -> bool {
        false
    }

    fn log_symmetry(&self, row: &[i32]) -> f64 {
        if self.uncorrected { 0.0 } else { (n_symmetries(row) / 6.0).ln() }
    }
}

/// R grows with the fullest box.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Fullest {}

impl Kind<RewardAxis> for Fullest {
    const NAME: &'static str = "fullest";
    const SUMMARY: &'static str = "grows with the fullest box";

    fn build(&self, _: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Reward for Fullest {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        out.iter_mut().zip(xs.rows()).for_each(|(out, row)| *out = 0.3 * f64::from(row[0]));
        Ok(())
    }
}

/// Sees in training what metrics see.
#[derive(Default)]
struct Sees(u64);

impl MetricKind for Sees {
    const NAME: &'static str = "sees";
    const SUMMARY: &'static str = "objects seen";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self::default())
    }
}

impl Metric for Sees {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::new("seen", "objects", Better::Neither, "objects with their own rewards")]
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        let mut log_reward = vec![0.0; batch.terminals.len()];
        Fullest {}.log_reward(batch.terminals, &mut log_reward).unwrap();
        self.0 += u64::from(log_reward == batch.log_reward);
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        Ok(vec![Some(self.0 as f64)])
    }
}

fn trained(env: &str, objective: &str, backward: &str) -> (Experiment, Vec<Option<f64>>) {
    let mut registry = Registry::builtin();
    registry.environments.push(Entry::of::<BallsSpec>());
    registry.rewards.push(Entry::of::<Fullest>());
    registry.metrics.push(MetricEntry::of::<Sees>());
    let text = format!(
        "[env]\nkind = 'balls'\n{env}\n[reward]\nkind = 'fullest'\n\
         [model]\nkind = 'mlp'\nhidden = 32\n\
         [objective]\nkind = '{objective}'\n[backward]\nkind = '{backward}'\n\
         [train]\ntrajectories = 48000\nbatch = 32\nlr = 4e-3\nlr_schedule = 'cosine'\n\
         epsilon = 0.1\n[eval]\nmetrics = ['distribution', 'elbo_eubo', 'log_z', 'samples', 'sees']\n"
    );
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec)
        .unwrap_or_else(|failure| panic!("{}", failure.render()));
    for _ in 0..experiment.trainer.n_steps() {
        experiment.trainer.step().unwrap();
    }
    let values = experiment.trainer.evaluate().unwrap();
    (experiment, values)
}

fn value(experiment: &Experiment, values: &[Option<f64>], name: &str) -> f64 {
    let column = experiment.columns.iter().position(|column| column.name == name);
    values[column.unwrap()].unwrap()
}

/// Losses on whole trajectories, on transitions and replayed ones, along trajectories, and by flows.
#[test]
fn corrected_losses_reach_the_target() {
    for (objective, backward) in [
        ("tb", "uniform"),
        ("db", "maxent"),
        ("subtb", "uniform"),
        ("soft_dqn", "uniform"),
        ("mdb", "uniform"),
        ("fl_db", "uniform"),
        ("vargrad", "maxent"),
    ] {
        let (e, values) = trained("", objective, backward);
        let of = |name: &str| value(&e, &values, name);
        assert!(of("tv_exact") < 0.01, "{objective} {backward}: {}", of("tv_exact"));
        // Bounds up to what P_F tells apart that is alike.
        for bound in ["elbo", "eubo"] {
            let gap = of(bound) - of("log_z_exact");
            assert!(gap.abs() < 0.01, "{objective} {backward}: {bound} {gap}");
        }
        if let Some(error) = e.columns.iter().position(|column| column.name == "log_z_error") {
            assert!(values[error].is_none_or(|error| error.abs() < 0.05), "{objective} {backward}");
        }
        // Metrics see the reward itself, in training as well.
        assert_eq!(of("seen"), e.trainer.n_steps() as f64);
        let exact = e.exact.as_ref().unwrap();
        let mean: f64 =
            exact.target.prob.iter().zip(&exact.target.log_reward).map(|(p, r)| p * r).sum();
        assert!((of("mean_log_reward") - mean).abs() < 0.1);
    }
}

/// Without a correction P_T is R / |Aut|, by as much as that differs from R.
#[test]
fn uncorrected_losses_divide_by_symmetries() {
    let (e, values) = trained("uncorrected = true", "tb", "uniform");
    let exact = e.exact.as_ref().unwrap();
    let (objects, policy) = (exact.graph.objects(), e.trainer.policy());
    let log_pf = exact.graph.log_probs(&*e.env, &policy, gfn_core::Direction::Forward, 64);
    let probs = exact.graph.terminal_probs(&log_pf);
    let expected: Vec<f64> = objects
        .rows()
        .zip(&exact.target.log_reward)
        .map(|(row, log_r)| log_r.exp() / n_symmetries(row))
        .collect();
    let sum: f64 = expected.iter().sum();
    let distance = |to: &dyn Fn(usize) -> f64| {
        0.5 * (0..probs.len()).map(|i| (probs[i] - to(i)).abs()).sum::<f64>()
    };
    assert!(distance(&|i| expected[i] / sum) < 0.01);
    assert!(distance(&|i| exact.target.prob[i]) > 0.1);
    assert!(value(&e, &values, "tv_exact") > 0.1);
}
