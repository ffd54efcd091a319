//! What updates may be computed on: trajectory balance on every kind of data, those that no shipped
//! objective uses included, by an objective from outside.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::KeyError;
use gfn_core::learn::Snapshot;
use gfn_core::learn::expr::Var;
use gfn_core::learn::head::Head;
use gfn_core::learn::priority::{ByLoss, ByReward, Priority};
use gfn_core::learn::update::{Data, Kept, Update};
use gfn_core::learn::view::{BatchView, Loss};
use gfn_core::objective::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, TrajectoryBalance};
use gfn_core::registry::{Entry, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Trajectory balance on data of one's choice.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BalanceOn {
    data: Source,
}

#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    #[default]
    Current,
    Past,
    Backward,
    Trajectories,
    Objects,
    /// Fresh trajectories beside replayed ones, drawn by their losses.
    Prioritised,
    /// Beside new backward trajectories to objects, half of them the best.
    Best,
}

const SOURCES: [Source; 7] = [
    Source::Current,
    Source::Past,
    Source::Backward,
    Source::Trajectories,
    Source::Objects,
    Source::Prioritised,
    Source::Best,
];

impl Kind<ObjectiveAxis> for BalanceOn {
    const NAME: &'static str = "balance_on";
    const SUMMARY: &'static str = "trajectory balance on any data";

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Loss for BalanceOn {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        TrajectoryBalance::default().loss(batch)
    }
}

impl Objective for BalanceOn {
    fn updates(&self) -> Vec<Update> {
        let drawn = |of, priority| Data::Replay {
            of,
            capacity: 500,
            batch: 24,
            priority,
            with_current: priority != Priority::Uniform,
        };
        let replay = |of| drawn(of, Priority::Uniform);
        let data = match self.data {
            Source::Current => Data::Current,
            Source::Past => Data::Past { batches: 10 },
            Source::Backward => Data::Backward,
            Source::Trajectories => replay(Kept::Trajectories),
            Source::Objects => replay(Kept::Objects),
            Source::Prioritised => drawn(Kept::Trajectories, Priority::Loss(ByLoss::default())),
            Source::Best => drawn(Kept::Objects, Priority::Reward(ByReward::default())),
        };
        vec![Update::new(OBJECTIVE, self.clone()).on(data)]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Parameter(Head::LOG_Z)
    }
}

fn experiment(data: Source, backward: &str, train: &str) -> Experiment {
    let data = format!("{data:?}").to_lowercase();
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n\
         [model]\nkind = 'mlp'\nhidden = 32\n[objective]\nkind = 'balance_on'\ndata = '{data}'\n\
         [backward]\nkind = '{backward}'\n[train]\nbatch = 16\nepsilon = 0.2\n{train}\n\
         [eval]\nmetrics = ['distribution', 'log_z']\n"
    );
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<BalanceOn>());
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

#[test]
fn balance_is_reached_on_all_data() {
    for data in SOURCES {
        for backward in ["uniform", "tlm"] {
            let train = "trajectories = 24000\nlr = 5e-3\nlr_schedule = 'cosine'";
            let mut e = experiment(data, backward, train);
            let index = |name| e.columns.iter().position(|column| column.name == name).unwrap();
            let columns = [index("tv_exact"), index("log_z_error")];
            let before = e.trainer.evaluate().unwrap()[columns[0]].unwrap();
            for _ in 0..e.trainer.n_steps() {
                e.trainer.step().unwrap();
            }
            let row = e.trainer.evaluate().unwrap();
            let [tv, log_z] = columns.map(|column| row[column].unwrap());
            let what = format!("{data:?} {backward}");
            assert!(before > 0.1 && tv < 0.02 && log_z < 0.02, "{what}: {before} {tv} {log_z}");
        }
    }
}

/// Losses of the first iterations tell one kind of data from another; each is drawn again alike, also
/// from a snapshot in between.
#[test]
fn draws_belong_to_their_iterations() {
    let run = |data, resumed: bool| -> (Vec<f64>, Snapshot) {
        let mut trainer = experiment(data, "naive", "").trainer;
        let mut losses = Vec::new();
        for step in 0..8 {
            if resumed && step == 5 {
                let snapshot = trainer.snapshot();
                trainer = experiment(data, "naive", "").trainer;
                trainer.restore(&snapshot).unwrap();
            }
            losses.push(trainer.step().unwrap().loss.unwrap());
        }
        (losses, trainer.snapshot())
    };
    let all: Vec<_> = SOURCES.iter().map(|&data| run(data, false)).collect();
    for (i, data) in SOURCES.into_iter().enumerate() {
        assert_eq!(all[i], run(data, true), "{data:?}");
        for (j, other) in SOURCES.iter().enumerate().skip(i + 1) {
            assert_ne!(all[i].0[4..], all[j].0[4..], "{data:?} {other:?}");
        }
    }
}

/// Priorities stand behind everything else in a snapshot; without them it is refused, and nothing changes.
#[test]
fn snapshots_without_priorities_are_refused() {
    let mut trainer = experiment(Source::Prioritised, "naive", "").trainer;
    for _ in 0..3 {
        trainer.step().unwrap();
    }
    let whole = trainer.snapshot();
    let mut cut = whole.clone();
    cut.state.truncate(cut.state.len() - 9);
    let mut other = experiment(Source::Prioritised, "naive", "").trainer;
    let error = other.restore(&cut).unwrap_err().to_string();
    assert!(error.contains("replay buffers cannot be read"), "{error}");
    other.restore(&whole).unwrap();
    assert_eq!(other.snapshot(), whole);
}

/// What local search finds belongs to the budget of its iteration, and is found again from a snapshot.
#[test]
fn searched_batches_are_whole_and_found_again() {
    for accept in ["better", "metropolis"] {
        let train =
            format!("trajectories = 120\nlocal_search = {{ rounds = 3, accept = '{accept}' }}");
        let run = |resumed: bool| {
            let mut trainer = experiment(Source::Objects, "naive", &train).trainer;
            let mut losses = Vec::new();
            for step in 0..trainer.n_steps() {
                if resumed && step == 5 {
                    let snapshot = trainer.snapshot();
                    trainer = experiment(Source::Objects, "naive", &train).trainer;
                    trainer.restore(&snapshot).unwrap();
                }
                losses.push(trainer.step().unwrap().loss.unwrap());
            }
            // Seven batches of 16, and one of 8.
            let counters = trainer.counters();
            assert_eq!(
                [counters.step, counters.trajectories, counters.reward_calls],
                [8, 120, 120]
            );
            (losses, trainer.snapshot())
        };
        assert_eq!(run(false), run(true), "{accept}");
    }
}

/// What a guide of P_B remembers stands last in a snapshot, and P_B goes on from it to the same bits.
#[test]
fn what_a_guide_remembers_is_found_again() {
    let text = "[env]\nkind = 'hypergrid'\ndim = 2\nside = 6\n[objective]\nkind = 'tb'\n\
                [backward]\nkind = 'pg'\nguide = { substructures = { capacity = 16 } }\n\
                [train]\nbatch = 4\n[eval]\nmetrics = []\n";
    let new = || {
        let registry = Registry::builtin();
        let spec = Spec::parse(&registry, "spec.toml", text.to_owned(), "test", &[]).unwrap();
        Experiment::build(&registry, &spec).unwrap().trainer
    };
    let run = |resumed: bool| {
        let mut trainer = new();
        let mut losses = Vec::new();
        for step in 0..12 {
            if resumed && step == 7 {
                let snapshot = trainer.snapshot();
                trainer = new();
                trainer.restore(&snapshot).unwrap();
            }
            losses.push(trainer.step().unwrap().backward_loss.unwrap());
        }
        (losses, trainer.snapshot())
    };
    let (losses, whole) = run(false);
    assert_eq!((losses, whole.clone()), run(true));

    let mut cut = whole.clone();
    cut.state.truncate(cut.state.len() - 9);
    let mut other = new();
    let error = other.restore(&cut).unwrap_err().to_string();
    assert!(error.contains("what a guide remembers cannot be read"), "{error}");
    other.restore(&whole).unwrap();
    assert_eq!(other.snapshot(), whole);
}
