//! Snapshots of every optimiser, objective and strategy continue exactly.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::objective::has_loss;

fn experiment(engine: &str, algorithm: &str, backward: &str) -> Experiment {
    of("kind = 'tb'", engine, algorithm, backward)
}

fn of(objective: &str, engine: &str, algorithm: &str, backward: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n[model]\nkind = 'mlp'\nhidden = 8\n\
         [objective]\n{objective}\n[backward]\nkind = '{backward}'\n\
         [train]\ntrajectories = 400\nbatch = 8\nengine = '{engine}'\noptimizer = '{algorithm}'\n\
         clip_norm = 1.0\nweight_decay = 1e-4\nepsilon = 0.1\n[eval]\nsamples = 10\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap()
}

fn continues_exactly(what: &str, build: impl Fn() -> Experiment) {
    let mut whole = build().trainer;
    for _ in 0..12 {
        whole.step().unwrap();
    }
    let middle = whole.snapshot();
    let mut resumed = build().trainer;
    resumed.restore(&middle).unwrap();
    assert_eq!(resumed.snapshot(), middle, "{what}");
    for _ in 0..12 {
        assert_eq!(whole.step().unwrap(), resumed.step().unwrap());
    }
    assert_eq!(whole.snapshot(), resumed.snapshot(), "{what}");
    assert_eq!(whole.evaluate().unwrap(), resumed.evaluate().unwrap());
}

#[test]
fn snapshots_of_optimisers_and_strategies_continue_exactly() {
    for (engine, algorithm) in [
        ("native", "adam"),
        ("native", "adamw"),
        ("burn", "adam"),
        ("burn", "adamw"),
        ("burn", "rmsprop"),
        ("burn", "sgd"),
    ] {
        for entry in Registry::builtin().backwards {
            let what = format!("{engine} {algorithm} {}", entry.name);
            continues_exactly(&what, || experiment(engine, algorithm, entry.name));
        }
    }
}

/// Also those with a replay buffer that has begun to forget, and with a target that is set now and
/// then.
#[test]
fn snapshots_of_objectives_continue_exactly() {
    let small = "kind = 'soft_dqn'\nstart = 3\nreplay_capacity = 50\nreplay_batch = 16\n\
                 updates = 2\ntarget_every = 5";
    let kinds = Registry::builtin().objectives;
    let kinds = kinds.iter().filter(|kind| has_loss(kind));
    let kinds = kinds.map(|entry| format!("kind = '{}'", entry.name));
    for objective in kinds.chain([small.to_owned()]) {
        continues_exactly(&objective, || of(&objective, "native", "adam", "tlm"));
    }
}

/// A checkpoint made on one engine goes on on the other.
#[test]
fn engines_read_each_other() {
    for algorithm in ["adam", "sgd"] {
        let mut burn = experiment("burn", algorithm, "tlm").trainer;
        for _ in 0..8 {
            burn.step().unwrap();
        }
        let mut native = experiment("native", algorithm, "tlm").trainer;
        native.restore(&burn.snapshot()).unwrap();
        assert_eq!(native.snapshot(), burn.snapshot());
        for _ in 0..5 {
            let [a, b] = [&mut burn, &mut native].map(|t| t.step().unwrap().loss.unwrap());
            assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{algorithm}: {a} against {b}");
        }
    }
}
