//! Noise on the rewards that losses see: which rewards they see, what that does to the fixed point, and
//! that interrupted runs go on to the same bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::learn::Snapshot;
use gfn_core::learn::expr::Var;
use gfn_core::learn::head::Head;
use gfn_core::learn::update::Update;
use gfn_core::learn::view::{BatchView, Loss};
use gfn_core::metric::{
    Column, EvalContext, Metric, MetricContext, MetricEntry, MetricError, MetricKind, NoSettings,
    Observed,
};
use gfn_core::objective::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, TrajectoryBalance};
use gfn_core::registry::{Entry, Kind};
use gfn_core::{KeyError, States, Streams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

thread_local! {
    /// log R that losses have seen, and objects with the log R that metrics have seen, in this test.
    static BY_LOSSES: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
    static BY_METRICS: RefCell<Vec<(Vec<i32>, f64)>> = const { RefCell::new(Vec::new()) };
}

/// Trajectory balance that writes down the rewards it sees.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Watching {}

impl Kind<ObjectiveAxis> for Watching {
    const NAME: &'static str = "watching";
    const SUMMARY: &'static str = "trajectory balance that is watched";

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Loss for Watching {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        BY_LOSSES.with_borrow_mut(|seen| seen.extend(&batch.batch.log_reward));
        TrajectoryBalance::default().loss(batch)
    }
}

impl Objective for Watching {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter(Head::LOG_Z)
    }
}

struct Watch;

impl Metric for Watch {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        let seen = batch.terminals.rows().map(<[i32]>::to_vec).zip(batch.log_reward.to_vec());
        BY_METRICS.with_borrow_mut(|all| all.extend(seen));
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        Ok(Vec::new())
    }
}

impl MetricKind for Watch {
    const NAME: &'static str = "watch";
    const SUMMARY: &'static str = "";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }
}

fn experiment(objective: &str, backward: &str, train: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n[reward]\nkind = 'hypergrid'\nr0 = 0.2\n\
         [model]\nkind = 'mlp'\nhidden = 32\n[objective]\n{objective}\n\
         [backward]\nkind = '{backward}'\n[train]\nbatch = 16\n{train}\n\
         [eval]\nmetrics = ['distribution', 'log_z', 'samples', 'watch']\n"
    );
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<Watching>());
    registry.metrics.push(MetricEntry::of::<Watch>());
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

fn noise(sigma: f64, per: &str) -> String {
    format!("reward_noise = {{ sigma = {sigma}, per = '{per}' }}")
}

/// What was added to the log R of every object of some iterations, in their order.
fn added(e: &mut Experiment, steps: usize) -> Vec<(Vec<i32>, f64)> {
    BY_LOSSES.with_borrow_mut(Vec::clear);
    BY_METRICS.with_borrow_mut(Vec::clear);
    for _ in 0..steps {
        e.trainer.step().unwrap();
    }
    let seen = BY_METRICS.with_borrow(Clone::clone);
    let by_losses = BY_LOSSES.with_borrow(Clone::clone);
    assert_eq!(seen.len(), by_losses.len());
    let added = seen.into_iter().zip(by_losses).map(|((row, log_r), by_loss)| {
        let mut known = [0.0];
        let mut object = States::new(row.len());
        object.push(&row);
        e.reward.log_reward(&object, &mut known).unwrap();
        assert_eq!(log_r, known[0], "metrics see the reward itself");
        (row, by_loss - log_r)
    });
    added.collect()
}

#[test]
fn losses_see_noise_and_metrics_do_not() {
    let watched = |train: &str| added(&mut experiment("kind = 'watching'", "uniform", train), 120);
    assert!(watched("").iter().all(|(_, eps)| *eps == 0.0));
    assert!(watched(&noise(0.0, "call")).iter().all(|(_, eps)| *eps == 0.0));
    // A batch that is partly found by local search, too.
    for search in ["", "local_search = { rounds = 3 }"] {
        let per_call = watched(&format!("{}\n{search}", noise(0.5, "call")));
        let n = per_call.len() as f64;
        let mean = per_call.iter().map(|(_, eps)| eps).sum::<f64>() / n;
        let variance = per_call.iter().map(|(_, eps)| eps * eps).sum::<f64>() / n;
        assert!(mean.abs() < 4.0 * 0.5 / n.sqrt(), "{mean}");
        assert!((variance / 0.25 - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{variance}");
        let mut bits: Vec<u64> = per_call.iter().map(|(_, eps)| eps.to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        assert!(bits.len() as f64 > 0.99 * n, "each call has its own");

        let per_object = watched(&format!("{}\n{search}", noise(0.5, "object")));
        let mut known = BTreeMap::new();
        for (row, eps) in per_object {
            let first = *known.entry(row).or_insert(eps);
            assert!((eps - first).abs() < 1e-12, "an object keeps its own");
        }
        assert!(known.len() > 5);
    }
}

fn column(e: &Experiment, name: &str) -> usize {
    e.columns.iter().position(|column| column.name == name).unwrap()
}

const LONG: &str = "trajectories = 64000\nlr = 5e-3\nlr_schedule = 'cosine'\nepsilon = 0.1";

/// Fresh noise has mean 0 in the gradient of trajectory balance: the target stays, and the loss keeps the
/// variance of the noise.
#[test]
fn noise_per_call_does_not_move_the_fixed_point() {
    let train = format!("{LONG}\n{}", noise(0.5, "call"));
    let mut e = experiment("kind = 'tb'", "uniform", &train);
    let n = e.trainer.n_steps();
    let losses: Vec<f64> = (0..n).map(|_| e.trainer.step().unwrap().loss.unwrap()).collect();
    let row = e.trainer.evaluate().unwrap();
    let (tv, log_z) =
        (row[column(&e, "tv_exact")].unwrap(), row[column(&e, "log_z_error")].unwrap());
    assert!(tv < 0.03 && log_z < 0.05, "{tv} {log_z}");
    let last = &losses[losses.len() - 500..];
    let floor = last.iter().sum::<f64>() / 500.0;
    // 8,000 squares, and what there is left to learn.
    assert!((0.23..0.29).contains(&floor), "{floor}");
}

/// Noise that stays with objects is another target, R(x) exp(sigma eps(x)), which is reached.
#[test]
fn noise_per_object_is_another_target() {
    let train = format!("{LONG}\n{}", noise(0.7, "object"));
    let mut e = experiment("kind = 'watching'", "uniform", &train);
    let n = e.trainer.n_steps() as usize;
    let noise: BTreeMap<Vec<i32>, f64> = added(&mut e, n).into_iter().collect();
    let exact = e.exact.clone().unwrap();
    let objects = exact.graph.objects();
    assert_eq!(noise.len(), objects.len(), "all objects are found");
    let r = |(row, log_r): (&[i32], &f64)| (log_r + noise[row]).exp();
    let r: Vec<f64> = objects.rows().zip(&exact.target.log_reward).map(r).collect();
    let z: f64 = r.iter().sum();
    let policy = e.trainer.policy();
    let eval = EvalContext::new(&e.trainer.parts().context, &policy, None, Streams::new(0), 0);
    let p = exact.graph.terminal_probs(eval.log_pf(&exact));
    let tv = |q: &dyn Fn(usize) -> f64| -> f64 {
        p.iter().enumerate().map(|(i, p)| 0.5 * (p - q(i)).abs()).sum()
    };
    let (of_noisy, of_true) = (tv(&|i| r[i] / z), tv(&|i| exact.target.prob[i]));
    assert!(of_noisy < 0.01 && of_true > 0.1, "{of_noisy} {of_true}");
    let log_z = e.trainer.log_z().unwrap();
    assert!((log_z - z.ln()).abs() < 0.02, "{log_z} {}", z.ln());
}

/// With every kind of data and rewards along trajectories: found again from a snapshot, and noise of one
/// kind is told from the other and from none.
#[test]
fn noise_belongs_to_its_iteration() {
    let replay = "replay = { of = 'objects', capacity = 200, batch = 8 }";
    for (objective, backward, train) in [
        ("kind = 'tb'".to_owned(), "naive", ""),
        (format!("kind = 'db'\n{replay}"), "tlm", ""),
        (format!("kind = 'subtb'\n{replay}"), "uniform", "local_search = { rounds = 3 }"),
        ("kind = 'fl_db'".to_owned(), "pessimistic", ""),
        ("kind = 'mdb'".to_owned(), "uniform", ""),
        ("kind = 'soft_dqn'\nstart = 2".to_owned(), "uniform", ""),
    ] {
        let run = |noise: &str, resumed: bool| -> (Vec<f64>, Snapshot) {
            let build = || experiment(&objective, backward, &format!("{train}\n{noise}"));
            let mut e = build();
            let mut losses = Vec::new();
            for step in 0..10 {
                if step % 4 == 0 {
                    // Evaluation draws numbers of its own.
                    e.trainer.evaluate().unwrap();
                }
                if resumed && step == 6 {
                    let snapshot = e.trainer.snapshot();
                    e = build();
                    e.trainer.restore(&snapshot).unwrap();
                }
                losses.extend(e.trainer.step().unwrap().loss);
            }
            (losses, e.trainer.snapshot())
        };
        let kinds = [String::new(), noise(0.5, "object"), noise(0.5, "call")];
        let all: Vec<_> = kinds.iter().map(|noise| run(noise, false)).collect();
        for (noise, whole) in kinds.iter().zip(&all) {
            assert!(*whole == run(noise, true), "{objective} {noise}");
        }
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            assert_ne!(all[i].0, all[j].0, "{objective}");
        }
        assert_eq!(all[0].0, run(&noise(0.0, "call"), false).0, "{objective}");
    }
}
