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

/// metrics.csv without the one column that is a clock.
fn metrics(run: &Path) -> String {
    let mut reader = csv::Reader::from_path(run.join("metrics.csv")).unwrap();
    let headers = reader.headers().unwrap().clone();
    let clock = headers.iter().position(|name| name == "wall_s").unwrap();
    let mut out = String::new();
    for record in std::iter::once(headers).chain(reader.records().map(Result::unwrap)) {
        let cells = record.iter().enumerate().filter(|(i, _)| *i != clock).map(|(_, c)| c);
        out += &cells.collect::<Vec<_>>().join(",");
        out.push('\n');
    }
    out
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
        // Without the last column, which is a clock.
        let cut = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
        text.lines().map(cut).collect::<Vec<_>>()
    };
    assert_eq!(log(a), log(b));
}

#[test]
fn interrupted_and_killed_runs_end_like_one_that_never_stopped() {
    let workspace = Workspace::new();
    let whole = workspace.train("whole", &[]);
    let broken = workspace.path("broken/run/s3");

    // Each signal once, at a different stage.
    for (i, signal) in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].into_iter().enumerate() {
        let child = workspace.start("broken", &[]);
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
        let mut child = workspace.start("broken", &[]);
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        kills += usize::from(child.wait().unwrap().signal() == Some(libc::SIGKILL));
    }
    assert!(kills > 0, "some run was killed");
    let resumed = workspace.train("broken", &[]);
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

    // Twice as long equals training that long from the start.
    let longer = [&flat[..], &["-s", "train.trajectories=9600"]].concat();
    workspace.train("out", &longer);
    let whole = workspace.train("whole", &longer);
    assert_eq!(metrics(&run), metrics(&whole));

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
    ]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("training diverged"));
    assert!(stderr(&output).contains("the last good checkpoint"));
    let run = workspace.path("out/run/s3");
    assert!(run.join("FAILED").exists() && !run.join("DONE").exists());
    let eval = workspace.gfn(&["eval", "out/run/s3", "--checkpoint", "0"]);
    assert_eq!(code(&eval), 0, "{}", stderr(&eval));
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
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let clock = trained.lines().next().unwrap().split(',').position(|n| n == "wall_s").unwrap();
    let without_clock = |line: &str| {
        let mut cells = cells(line);
        cells.remove(clock);
        cells
    };
    let (evaluated, last) = (text.lines().nth(1).unwrap(), trained.lines().last().unwrap());
    assert_eq!(without_clock(evaluated), without_clock(last));
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
    // 8 KiB hold everything but the states of the optimisers.
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' train spec.toml --out out",
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
    for (i, model) in [&mlp[..], &transformer].into_iter().enumerate() {
        let one = train(&format!("one{i}"), "1", model);
        assert_same(&one, &train(&format!("four{i}"), "4", model));
    }
}
