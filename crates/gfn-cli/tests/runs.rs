//! Runs as a user has them: interrupted, killed, resumed, evaluated, sampled, damaged.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A small experiment with everything that a checkpoint must hold: target copy, past batches,
/// empirical window, modes, schedules.
const SPEC: &str = "
name = 'run'
seed = 3
[env]
kind = 'hypergrid'
dim = 2
side = 6
[model]
kind = 'mlp'
hidden = 16
[objective]
kind = 'subtb'
[backward]
kind = 'pessimistic'
target_tau = 0.25
batches = 5
[train]
trajectories = 4800
batch = 8
lr_schedule = 'cosine'
epsilon = 0.1
epsilon_schedule = 'linear'
log_every = 10
[eval]
every = 50
window = 500
samples = 50
[checkpoint]
every = 40
keep = 3
[log]
json_lines = true
tensorboard = true
";

struct Workspace {
    dir: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spec.toml"), SPEC).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gfn"));
        command.args(args).current_dir(self.dir.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn gfn(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Trains to the end into `out` and returns the run directory.
    fn train(&self, out: &str, more: &[&str]) -> PathBuf {
        let mut args = vec!["train", "spec.toml", "--out", out];
        args.extend(more);
        let output = self.gfn(&args);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        self.path(String::from_utf8(output.stdout).unwrap().trim())
    }

    fn start(&self, out: &str, more: &[&str]) -> Child {
        let mut args = vec!["train", "spec.toml", "--out", out, "-q"];
        args.extend(more);
        let mut command = self.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `condition` holds; a run that never gets there fails the test.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rows(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.csv")).map_or(0, |text| text.lines().count())
}

/// Columns that are clocks.
const CLOCKS: [&str; 2] = ["wall_s", "train_s"];

/// metrics.csv without clocks.
fn metrics(run: &Path) -> String {
    without_clocks(&std::fs::read_to_string(run.join("metrics.csv")).unwrap())
}

fn without_clocks(table: &str) -> String {
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let is_clock: Vec<bool> = headers.iter().map(|name| CLOCKS.contains(&name)).collect();
    assert_eq!(is_clock.iter().filter(|&&clock| clock).count(), CLOCKS.len());
    let mut out = String::new();
    for record in std::iter::once(headers).chain(reader.records().map(Result::unwrap)) {
        let cells = record.iter().zip(&is_clock).filter(|(_, clock)| !**clock).map(|(c, _)| c);
        out += &cells.collect::<Vec<_>>().join(",");
        out.push('\n');
    }
    out
}

/// The cells of a column of a CSV table.
fn column(table: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let column = headers.iter().position(|header| header == name);
    let column = column.unwrap_or_else(|| panic!("a column {name}"));
    reader.records().map(|record| record.unwrap()[column].to_owned()).collect()
}

fn column_of(run: &Path, name: &str) -> Vec<String> {
    column(&std::fs::read_to_string(run.join("metrics.csv")).unwrap(), name)
}

fn last_checkpoint(run: &Path) -> PathBuf {
    let steps = std::fs::read_dir(run.join("checkpoints")).unwrap();
    let steps = steps.filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u64>().ok());
    run.join("checkpoints").join(steps.max().unwrap().to_string())
}

/// The bytes of everything in a checkpoint.
fn checkpoint(run: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = last_checkpoint(run);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut files: Vec<_> = files.map(|path| (name(&path), std::fs::read(path).unwrap())).collect();
    files.sort();
    assert_eq!(files.len(), 5);
    files
}

fn assert_same(a: &Path, b: &Path) {
    assert_eq!(metrics(a), metrics(b));
    assert_eq!(last_checkpoint(a).file_name(), last_checkpoint(b).file_name());
    for ((name, a), (_, b)) in checkpoint(a).iter().zip(&checkpoint(b)) {
        assert!(a == b, "{name} differs");
    }
    let log = |run: &Path| {
        let text = std::fs::read_to_string(run.join("train.csv")).unwrap();
        // Without the last two columns, which are clocks.
        let cut = |line: &str| line.rsplitn(3, ',').last().unwrap().to_owned();
        text.lines().map(cut).collect::<Vec<_>>()
    };
    assert_eq!(log(a), log(b));
    assert_eq!(json_lines(a), json_lines(b));
}

/// The lines of log.jsonl without clocks.
fn json_lines(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let line = |line: &str| {
        let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
        for clock in CLOCKS {
            assert!(object.as_object_mut().unwrap().remove(clock).is_some());
        }
        object
    };
    text.lines().map(line).collect()
}

/// Soft Q-learning on a buffer that begins to forget within the run.
const REPLAY: [&str; 10] = [
    "-s",
    "objective.kind=soft_dqn",
    "-s",
    "objective.replay_capacity=400",
    "-s",
    "objective.replay_batch=64",
    "-s",
    "objective.start=3",
    "-s",
    "objective.updates=2",
];

#[test]
fn interrupted_and_killed_runs_end_like_one_that_never_stopped() {
    ends_like_one_that_never_stopped(&[]);
}

#[test]
fn so_do_those_with_a_replay_buffer() {
    ends_like_one_that_never_stopped(&REPLAY);
}

/// Chains that are shown after some iterations, a few proposals each.
const CHAINS: [&str; 12] = [
    "-s",
    "objective.kind=mh",
    "-s",
    "backward.kind=uniform",
    "-s",
    "objective.thin=40",
    "-s",
    "objective.burn_in=60",
    "-s",
    "env.side=12",
    "-s",
    "train.trajectories=4804",
];

#[test]
fn so_do_chains() {
    ends_like_one_that_never_stopped(&CHAINS);
}

fn ends_like_one_that_never_stopped(more: &[&str]) {
    let workspace = Workspace::new();
    let whole = workspace.train("whole", more);
    let broken = workspace.path("broken/run/s3");

    // Each signal once, at a different stage.
    for (i, signal) in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].into_iter().enumerate() {
        let child = workspace.start("broken", more);
        wait_for("rows are written", || rows(&broken) >= 2 + 2 * i);
        unsafe_kill(child.id(), signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 75, "{}", stderr(&output));
        assert!(stderr(&output).contains("run the same command to resume"));
        assert!(!broken.join("DONE").exists());
    }
    // Killed without warning, many times, at any moment.
    let mut kills = 0;
    for delay in [0, 30, 1, 60, 5, 15, 45, 90, 120, 25] {
        let mut child = workspace.start("broken", more);
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        kills += usize::from(child.wait().unwrap().signal() == Some(libc::SIGKILL));
    }
    assert!(kills > 0, "some run was killed");
    let resumed = workspace.train("broken", more);
    assert_same(&whole, &resumed);
}

/// A scorer that dies while a file lies about, after so many objects.
const SCORER: &str = "
n=0
while read x; do
  [ -z \"$x\" ] && continue
  n=$((n + 1))
  if [ -e broken ] && [ $n -gt $(cat broken) ]; then echo 'out of licences' >&2; exit 9; fi
  y=${x%%[!0-9]*}
  echo $((y + 1))
done
";

#[test]
fn nothing_is_lost_when_a_scorer_dies() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path("scorer.sh"), SCORER).unwrap();
    let reward = [
        "reward.kind=command",
        "reward.command=['sh', 'scorer.sh']",
        "reward.restarts=0",
        "eval.metrics=['samples', 'log_z']",
        "train.trajectories=1600",
    ];
    let reward: Vec<&str> = reward.into_iter().flat_map(|change| ["-s", change]).collect();
    let whole = workspace.train("whole", &reward);
    let chains =
        ["-s", "objective.kind=mh", "-s", "objective.thin=9", "-s", "backward.kind=uniform"];
    nothing_is_lost_when_chains_lose_it(&workspace, &[&reward[..], &chains].concat());
    // It dies in the first evaluation, in an update, and in the evaluation at iteration 50.
    for objects in ["20", "90", "360"] {
        std::fs::write(workspace.path("broken"), objects).unwrap();
        let output =
            workspace.gfn(&[&["train", "spec.toml", "--out", "out"], &reward[..]].concat());
        let text = stderr(&output);
        assert_eq!(code(&output), 3, "{text}");
        assert!(text.contains("`sh scorer.sh` ended (exit status: 9) after"), "{text}");
        assert!(text.contains("out of licences") && text.contains("nothing is lost"), "{text}");
    }
    let failed = std::fs::read_to_string(workspace.path("out/run/s3/FAILED")).unwrap();
    assert!(failed.contains("scorer.sh"), "{failed}");
    std::fs::remove_file(workspace.path("broken")).unwrap();
    assert_same(&whole, &workspace.train("out", &reward));
    let manifest = std::fs::read_to_string(whole.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    // 200 iterations of 8, 50 samples at each of 5 evaluations, 50 in samples.csv.
    assert_eq!(manifest["sessions"][0]["rewards_computed"], 200 * 8 + 5 * 50 + 50);
}

/// Within the start, or the proposals of an iteration: the run goes on from the iteration before.
fn nothing_is_lost_when_chains_lose_it(workspace: &Workspace, spec: &[&str]) {
    let whole = workspace.train("whole_chains", spec);
    let args = [&["train", "spec.toml", "--out", "chains"], spec].concat();
    for objects in ["3", "60", "500"] {
        std::fs::write(workspace.path("broken"), objects).unwrap();
        assert_eq!(code(&workspace.gfn(&args)), 3);
    }
    std::fs::remove_file(workspace.path("broken")).unwrap();
    assert_same(&whole, &workspace.train("chains", spec));
    let manifest = std::fs::read_to_string(whole.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    // Evaluations compute none; samples.csv goes on by iterations of 8 chains.
    let computed = manifest["sessions"][0]["rewards_computed"].as_u64().unwrap();
    let counted: u64 = column_of(&whole, "reward_calls").pop().unwrap().parse().unwrap();
    assert!(counted <= computed && computed <= counted + 7 * 9 * 8, "{computed} {counted}");
}

#[allow(unsafe_code)]
fn unsafe_kill(process: u32, signal: i32) {
    // SAFETY: sends a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
}

#[test]
fn a_finished_run_is_left_alone_and_longer_training_goes_on() {
    let workspace = Workspace::new();
    let flat = ["-s", "train.lr_schedule=constant", "-s", "train.epsilon_schedule=constant"];
    let run = workspace.train("out", &flat);
    let before = std::fs::read(run.join("metrics.csv")).unwrap();
    let again = workspace.gfn(&[&["train", "spec.toml", "--out", "out"], &flat[..]].concat());
    assert_eq!(code(&again), 0);
    assert!(stderr(&again).contains("done already"), "{}", stderr(&again));
    assert_eq!(std::fs::read(run.join("metrics.csv")).unwrap(), before);

    // Longer, at first to where no row is due, equals training that long from the start.
    workspace.train("out", &[&flat[..], &["-s", "train.trajectories=4936"]].concat());
    assert_eq!(column_of(&run, "step").pop().unwrap(), "617");
    let longer = [&flat[..], &["-s", "train.trajectories=9600"]].concat();
    workspace.train("out", &longer);
    let whole = workspace.train("whole", &longer);
    assert_eq!(metrics(&run), metrics(&whole));
    let steps =
        |run: &Path| column(&std::fs::read_to_string(run.join("train.csv")).unwrap(), "step");
    assert_eq!(steps(&run), steps(&whole));

    // The resolved spec repeats the run.
    std::fs::copy(run.join("spec.toml"), workspace.path("spec.toml")).unwrap();
    let repeated = workspace.train("repeated", &[]);
    assert_same(&whole, &repeated);
}

#[test]
fn another_spec_is_refused_and_fresh_moves_the_run_aside() {
    let workspace = Workspace::new();
    let run = workspace.train("out", &[]);
    let before = metrics(&run);
    let output = workspace.gfn(&["train", "spec.toml", "--out", "out", "-s", "train.lr=0.5"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("train.lr: 0.001 -> 0.5"), "{}", stderr(&output));
    assert_eq!(metrics(&run), before);
    workspace.train("out", &["-s", "train.lr=0.01", "--fresh"]);
    assert_eq!(metrics(&run.with_file_name("s3.old-1")), before);
    assert_ne!(metrics(&run), before);
}

#[test]
fn one_trainer_per_run_directory() {
    let workspace = Workspace::new();
    let long = ["-s", "train.trajectories=80000000"];
    let mut first = workspace.start("out", &long);
    let run = workspace.path("out/run/s3");
    wait_for("the first trainer works", || rows(&run) >= 2);
    let second = workspace.gfn(&[&["train", "spec.toml", "--out", "out"], &long[..]].concat());
    assert_eq!(code(&second), 2);
    assert!(stderr(&second).contains("another `gfn train`"), "{}", stderr(&second));
    assert!(stderr(&second).contains(&first.id().to_string()));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn damaged_checkpoints_are_skipped_or_refused() {
    let workspace = Workspace::new();
    let whole = workspace.train("whole", &[]);
    let run = workspace.train("out", &[]);
    std::fs::remove_file(run.join("DONE")).unwrap();
    let damage = |folder: &Path| {
        let file = folder.join("optimizer.safetensors");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(file, bytes).unwrap();
    };
    damage(&last_checkpoint(&run));
    let output = workspace.gfn(&["eval", "out/run/s3"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("optimizer.safetensors is damaged"), "{}", stderr(&output));
    // Training goes back to the one before and repeats what was lost.
    let output = workspace.gfn(&["train", "spec.toml", "--out", "out"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("is not used"), "{}", stderr(&output));
    assert_same(&whole, &run);

    for entry in std::fs::read_dir(run.join("checkpoints")).unwrap() {
        damage(&entry.unwrap().path());
    }
    std::fs::remove_file(run.join("DONE")).unwrap();
    let output = workspace.gfn(&["train", "spec.toml", "--out", "out"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--fresh"), "{}", stderr(&output));
    assert_eq!(metrics(&whole), metrics(&run), "nothing is lost");
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let workspace = Workspace::new();
    let run = workspace.train("out", &[]);
    let wide = workspace.train("wide", &["-s", "model.hidden=24"]);
    let (from, to) = (last_checkpoint(&wide), last_checkpoint(&run));
    for entry in std::fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(run.join("DONE")).unwrap();
    for args in [&["train", "spec.toml", "--out", "out"][..], &["sample", "out/run/s3"]] {
        let output = workspace.gfn(args);
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(stderr(&output).contains("of shape"), "{}", stderr(&output));
    }
}

#[test]
fn divergence_keeps_the_last_good_checkpoint() {
    let workspace = Workspace::new();
    let output = workspace.gfn(&[
        "train",
        "spec.toml",
        "--out",
        "out",
        "-s",
        "train.lr=1e30",
        "-s",
        "checkpoint.every=1",
        // The first update goes through: it is the next loss that is not finite.
        "-s",
        "backward.kind=uniform",
    ]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("training diverged"));
    let run = workspace.path("out/run/s3");
    assert!(run.join("FAILED").exists() && !run.join("DONE").exists());
    evaluates(&workspace, &good_checkpoint(&output));
}

/// The checkpoint that a failure names as the last good one.
fn good_checkpoint(output: &Output) -> String {
    let text = stderr(output);
    let (_, named) = text.split_once("the last good checkpoint is that of iteration ").unwrap();
    named.split_whitespace().next().unwrap().to_owned()
}

/// A checkpoint really is good: every metric that applies is a finite number.
fn evaluates(workspace: &Workspace, step: &str) {
    let eval = workspace.gfn(&["eval", "out/run/s3", "--checkpoint", step, "--json"]);
    assert_eq!(code(&eval), 0, "{}", stderr(&eval));
    let row: serde_json::Value = serde_json::from_slice(&eval.stdout).unwrap();
    assert_eq!(row["step"].to_string(), step);
    let metrics = row["metrics"].as_object().unwrap();
    for name in ["tv_exact", "jsd_exact", "elbo"] {
        assert!(metrics.contains_key(name), "{name}");
    }
    // JSON has no word for what is not finite.
    assert!(metrics.values().all(serde_json::Value::is_number), "{row}");
}

/// An evaluation that finds a broken policy is a divergence, before a row or a checkpoint of it is
/// written.
#[test]
fn broken_evaluations_are_not_saved() {
    let workspace = Workspace::new();
    let every = ["-s", "eval.every=1", "-s", "checkpoint.every=1", "-s", "backward.kind=uniform"];
    // With metrics that show it, and with one that knows nothing of the policy.
    for metrics in ["['distribution', 'elbo_eubo']", "['modes']"] {
        let metrics = format!("eval.metrics={metrics}");
        let more = [&every[..], &["-s", "train.lr=1e30", "-s", &metrics, "--fresh"]].concat();
        let output = workspace.gfn(&[&["train", "spec.toml", "--out", "out"], &more[..]].concat());
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        let run = workspace.path("out/run/s3");
        let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let last = column(&text, "step").pop().unwrap();
        assert_eq!(last, good_checkpoint(&output));
        assert_eq!(last_checkpoint(&run).file_name().unwrap().to_str(), Some(last.as_str()));
        assert!(last.parse::<u64>().unwrap() < 5, "{last}");
    }
}

/// What a run has gathered belongs to its metrics by name, whichever of them are measured later.
#[test]
fn evaluations_with_other_metrics_take_what_the_run_gathered() {
    let workspace = Workspace::new();
    let grid = ["-s", "env.side=8", "-s", "reward.variant=hard"];
    let two = [&grid[..], &["-s", "eval.metrics=['empirical', 'modes']"]].concat();
    let run = workspace.train("out", &two);
    let last = |name: &str| column_of(&run, name).pop().unwrap();
    let (modes, l1) = (last("modes"), last("l1_empirical"));
    assert_eq!((modes.as_str(), last("n_empirical").as_str()), ("4", "500"));
    let eval = |run: &str, changes: &[&str]| {
        let changes = changes.iter().flat_map(|change| ["-s", change]);
        let output = workspace.gfn(&["eval", run].into_iter().chain(changes).collect::<Vec<_>>());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for metrics in [
        "eval.metrics=['modes']",
        "eval.metrics=['distribution', 'modes', 'empirical']",
        "eval.metrics=['modes', 'log_z']",
        "eval.metrics=['modes', 'empirical']",
    ] {
        let row = eval("out/run/s3", &[metrics]);
        assert_eq!(column(&row, "modes"), [modes.as_str()], "{metrics}");
        if metrics.contains("empirical") {
            assert_eq!(column(&row, "l1_empirical"), [l1.as_str()], "{metrics}");
        }
    }
    // A shorter window is the end of the one that was remembered; a longer one is not there.
    for (window, n) in [(100, "100"), (5000, "500")] {
        let window = &format!("eval.settings.empirical.window={window}");
        let row = eval("out/run/s3", &[window]);
        assert_eq!(column(&row, "n_empirical"), [n]);
    }

    // A run that did not look for modes knows of none: an empty cell, not 0.
    let blind = [&grid[..], &["-s", "eval.metrics=['log_z']", "--name", "blind"]].concat();
    workspace.train("out", &blind);
    let row = eval("out/blind/s3", &["eval.metrics=['modes', 'empirical', 'log_z']"]);
    for name in ["modes", "l1_empirical", "n_empirical"] {
        assert_eq!(column(&row, name), [""], "{name}");
    }
    assert!(!column(&row, "log_z")[0].is_empty());
}

/// Modes that were found before an interruption stay found, on a grid that has 16 of them.
#[test]
fn modes_are_remembered_across_sessions() {
    let workspace = Workspace::new();
    let grid = ["-s", "env.dim=4", "-s", "env.side=8", "-s", "train.trajectories=16000"];
    let grid = [&grid[..], &["-s", "eval.metrics=['modes', 'empirical', 'samples']"]].concat();
    let whole = workspace.train("whole", &grid);
    let found: Vec<u64> =
        column_of(&whole, "modes").iter().map(|count| count.parse().unwrap()).collect();
    assert!(found.is_sorted() && found[0] == 0);
    assert!(found.iter().any(|&count| 0 < count && count < 16), "{found:?}");
    let broken = workspace.path("broken/run/s3");
    for stage in 1..=3 {
        let child = workspace.start("broken", &grid);
        wait_for("rows are written", || rows(&broken) >= 2 + 4 * stage);
        unsafe_kill(child.id(), libc::SIGTERM);
        assert_eq!(code(&child.wait_with_output().unwrap()), 75);
        // The checkpoint of the interruption says what the last row before it says, or more.
        let output = workspace.gfn(&["eval", "broken/run/s3"]);
        let row = String::from_utf8(output.stdout).unwrap();
        let evaluated: u64 = column(&row, "modes")[0].parse().unwrap();
        let before: u64 = column_of(&broken, "modes").pop().unwrap().parse().unwrap();
        assert!(before <= evaluated && evaluated <= 16, "{before} {evaluated}");
    }
    assert_same(&whole, &workspace.train("broken", &grid));
}

/// `train_s` counts on over sessions and never exceeds `wall_s`.
#[test]
fn training_time_is_counted_over_sessions() {
    let workspace = Workspace::new();
    let run = workspace.path("out/run/s3");
    let child = workspace.start("out", &[]);
    wait_for("rows are written", || rows(&run) >= 4);
    unsafe_kill(child.id(), libc::SIGTERM);
    child.wait_with_output().unwrap();
    let before = column_of(&run, "train_s");
    workspace.train("out", &[]);
    let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let header = text.lines().next().unwrap();
    assert!(header.contains(",wall_s,train_s,"), "{header}");
    let seconds = |name: &str| -> Vec<f64> {
        column(&text, name).iter().map(|cell| cell.parse().unwrap()).collect()
    };
    let (wall, train) = (seconds("wall_s"), seconds("train_s"));
    assert_eq!(column(&text, "train_s")[..before.len()], before);
    assert!(train.is_sorted() && train[0] == 0.0 && train[train.len() - 1] > 0.0, "{train:?}");
    assert!(train.iter().zip(&wall).all(|(train, wall)| train <= wall), "{train:?} {wall:?}");
}

/// Keys that a reward declares not to matter may differ between sessions; others may not.
#[test]
fn neutral_keys_of_a_reward_may_change() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path("scorer.sh"), SCORER).unwrap();
    let scorer = ["-s", "reward.kind=command", "-s", "reward.command=['sh', 'scorer.sh']"];
    let short = ["-s", "train.trajectories=160", "-s", "eval.metrics=['log_z']"];
    let spec = [&scorer[..], &short].concat();
    let run = workspace.train("out", &spec);
    let before = metrics(&run);
    let neutral = ["-s", "reward.timeout_s=5", "-s", "reward.cache=10", "-s", "reward.workers=2"];
    workspace.train("out", &[&spec[..], &neutral].concat());
    assert_eq!(metrics(&run), before);
    let other = [&["train", "spec.toml", "--out", "out"], &spec[..]].concat();
    let output = workspace.gfn(&[&other[..], &["-s", "reward.format=jsonl"]].concat());
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("reward.format"), "{}", stderr(&output));
}

#[test]
fn eval_repeats_the_training_row_and_appends() {
    let workspace = Workspace::new();
    let run = workspace.train("out", &[]);
    let output = workspace.gfn(&["eval", "out/run/s3"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let trained = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(text.lines().next(), trained.lines().next());
    // Clocks apart: a checkpoint is saved a moment after its evaluation.
    let (evaluated, trained) = (without_clocks(&text), without_clocks(&trained));
    assert_eq!(evaluated.lines().nth(1), trained.lines().last());
    workspace.gfn(&["eval", "out/run/s3", "--checkpoint", "best"]);
    let eval = std::fs::read_to_string(run.join("eval.csv")).unwrap();
    assert_eq!(eval.lines().count(), 3);

    let json = workspace.gfn(&["eval", "out/run/s3", "--json", "-s", "eval.samples=10"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["step"], 600);
    assert!(json["metrics"]["tv_exact"].as_f64().unwrap() < 0.5);
}

#[test]
fn samples_follow_the_policy_and_their_seed() {
    let workspace = Workspace::new();
    let run = workspace.train("out", &[]);
    let sample = |args: &[&str]| {
        let output = workspace.gfn(&[&["sample", "out/run/s3"], args].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let a = sample(&["-n", "200"]);
    assert_eq!(a.lines().count(), 201);
    assert_eq!(a.lines().next(), Some("object,log_reward,reward"));
    assert_eq!(a, sample(&["-n", "200"]));
    assert_ne!(a, sample(&["-n", "200", "--seed", "1"]));
    let line = sample(&["-n", "1", "--format", "jsonl"]);
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (log_r, r) = (object["log_reward"].as_f64().unwrap(), object["reward"].as_f64().unwrap());
    assert!((log_r.exp() - r).abs() < 1e-12);
    let samples = std::fs::read_to_string(run.join("samples.csv")).unwrap();
    assert_eq!(samples.lines().count(), 51);
}

/// Where there is no policy, samples are objects that the chains go on to: once they are past burn-in.
#[test]
fn samples_of_chains() {
    let workspace = Workspace::new();
    let run = workspace.train("out", &[&CHAINS[..], &["-s", "checkpoint.keep=30"]].concat());
    let sample = |args: &[&str]| {
        let output = workspace.gfn(&[&["sample", "out/run/s3"], args].concat());
        (code(&output), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let (_, a, _) = sample(&["-n", "50"]);
    assert_eq!(a, std::fs::read_to_string(run.join("samples.csv")).unwrap());
    assert_ne!(a, sample(&["-n", "50", "--seed", "1"]).1);
    assert_eq!(sample(&["-n", "50", "--checkpoint", "80"]).0, 0);
    let (code, out, said) = sample(&["-n", "50", "--checkpoint", "40"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(said.contains("show no object yet at iteration 40"), "{said}");
    for column in ["loss", "log_z", "grad_norm", "lr", "epsilon"] {
        let log = std::fs::read_to_string(run.join("train.csv")).unwrap();
        assert!(self::column(&log, column).iter().all(String::is_empty), "{column}");
    }
}

#[test]
fn run_directories_are_complete() {
    let workspace = Workspace::new();
    let output = workspace.gfn(&["train", "spec.toml", "--out", "out", "--json"]);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["step"], 600);
    let run = workspace.path("out/run/s3");
    for file in
        ["spec.toml", "manifest.json", "metrics.csv", "metrics.schema.json", "train.csv", "DONE"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
    // log.jsonl says what the tables say.
    let tables = [("metrics.csv", "evaluation"), ("train.csv", "iteration")];
    for (table, kind) in tables {
        let lines = json_lines(&run).into_iter().filter(|line| line["kind"] == kind);
        let mut reader = csv::Reader::from_path(run.join(table)).unwrap();
        let headers = reader.headers().unwrap().clone();
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let lines: Vec<serde_json::Value> = lines.collect();
        assert!(lines.len() == records.len() && lines.len() > 10);
        for (line, record) in lines.iter().zip(&records) {
            let keys = line.as_object().unwrap().keys().filter(|key| *key != "kind");
            assert!(keys.clone().count() > 4);
            for key in keys {
                let place = headers.iter().position(|header| header == key).unwrap();
                let given = line[key].as_f64().unwrap();
                let written: f64 = record[place].parse().unwrap();
                // Reading JSON may be off by one in the last place; clocks have fewer digits in tables.
                let digits =
                    if CLOCKS.contains(&key.as_str()) { 1e-3 } else { 1e-15 * written.abs() };
                assert!((given - written).abs() <= digits, "{key}: {given}, {written}");
            }
        }
    }
    let schema: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(run.join("metrics.schema.json")).unwrap()).unwrap();
    let declared: Vec<&str> = schema.iter().map(|c| c["name"].as_str().unwrap()).collect();
    let mut reader = csv::Reader::from_path(run.join("metrics.csv")).unwrap();
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), declared);
    let last = reader.records().last().unwrap().unwrap();
    let tv = declared.iter().position(|&name| name == "tv_exact").unwrap();
    // By its digits: reading JSON may be off by one in the last place.
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("\"tv_exact\":{},", &last[tv])), "{text} {}", &last[tv]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["sessions"][0]["exit"], 0);
    assert_eq!(manifest["citations"]["objective.subtb"], "arXiv:2209.12782");
}

#[test]
fn unwritable_places_are_refused_before_training() {
    let workspace = Workspace::new();
    // A file where a folder is needed refuses even the superuser.
    std::fs::write(workspace.path("file"), "").unwrap();
    let output = workspace.gfn(&["train", "spec.toml", "--out", "file"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("cannot write to the run directory"), "{}", stderr(&output));
    let output = workspace.gfn(&["train", "spec.toml", "--out", "/proc/gfn"]);
    assert_eq!(code(&output), 2);
}

/// Writes fail in the middle of training, as on a full disk: a limit on the size of files.
#[test]
fn a_full_disk_loses_nothing() {
    let workspace = Workspace::new();
    let whole = workspace.train("whole", &[]);
    // 10 KiB hold everything but the states of the optimisers.
    let script = format!(
        "trap '' XFSZ; ulimit -f 10; exec '{}' train spec.toml --out out",
        env!("CARGO_BIN_EXE_gfn")
    );
    let mut shell = Command::new("bash");
    let output = shell.args(["-c", &script]).current_dir(workspace.dir.path()).output().unwrap();
    assert_eq!(code(&output), 75, "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
    assert!(stderr(&output).contains("run the same command again to resume"));
    assert_eq!(last_checkpoint(&workspace.path("out/run/s3")).file_name().unwrap(), "0");
    let run = workspace.train("out", &[]);
    assert_same(&whole, &run);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let workspace = Workspace::new();
    let train = |out: &str, threads: &str, model: &[&str]| {
        // Batches large enough to be cut into parts.
        let large = ["-s", "train.batch=64", "-s", "train.trajectories=6400"];
        let args = [&["train", "spec.toml", "--out", out], &large[..], model].concat();
        let mut command = workspace.command(&args);
        let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        workspace.path(out).join("run/s3")
    };
    let mlp = ["-s", "model.hidden=64"];
    let transformer = ["-s", "model.kind=transformer", "-s", "model.width=16"];
    for (i, model) in [&mlp[..], &transformer, &REPLAY, &CHAINS].into_iter().enumerate() {
        let one = train(&format!("one{i}"), "1", model);
        assert_same(&one, &train(&format!("four{i}"), "4", model));
    }
}
