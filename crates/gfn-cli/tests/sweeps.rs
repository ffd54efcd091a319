//! Sweeps as a user has them: planned, extended, run, killed, halved, submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A small experiment that takes a moment, without its [sweep].
const BASE: &str = "name = 'demo'
[env]
kind = 'hypergrid'
dim = 2
side = 5
[model]
kind = 'mlp'
hidden = 8
[objective]
kind = 'tb'
[train]
trajectories = 960
batch = 16
[eval]
every = 20
samples = 20
metrics = ['distribution', 'log_z']
[checkpoint]
every = 10
";

const GRID: &str = "[sweep]
\"backward.kind\" = ['uniform', 'tlm']
\"train.lr\" = [1e-3, 1e-2]
seed = [1]
";

struct Workspace {
    dir: TempDir,
}

impl Workspace {
    fn new(sweep: &str) -> Self {
        let work = Self { dir: tempfile::tempdir().unwrap() };
        work.write(&format!("{BASE}{sweep}"));
        work
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("demo.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sweep(&self) -> PathBuf {
        self.path("results/demo")
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gfn"));
        command.args(args.split_whitespace()).current_dir(self.dir.path());
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    fn gfn(&self, args: &str) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    /// What is said on stderr by a command that ends with `code`.
    fn says(&self, args: &str, code: i32) -> String {
        let (ended, _, stderr) = self.gfn(args);
        assert_eq!(ended, code, "{stderr}");
        stderr
    }

    fn start(&self, args: &str) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn trials(&self) -> Vec<BTreeMap<String, String>> {
        rows(&self.sweep().join("trials.csv"))
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let (code, stdout, stderr) = self.gfn("sweep status results/demo --json");
        assert_eq!(code, 0, "{stderr}");
        let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let counts = status["counts"].as_object().unwrap();
        let counts = counts.iter().map(|(state, n)| (state.clone(), n.as_u64().unwrap()));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    fn assert_counts(&self, expected: &[(&str, u64)]) {
        let expected = expected.iter().map(|&(state, n)| (state.to_owned(), n)).collect();
        assert_eq!(self.counts(), expected);
    }
}

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let row = |record: csv::StringRecord| {
        assert_eq!(record.len(), header.len());
        header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// metrics.csv without clocks and the name of the run.
fn metrics(run: &Path) -> Vec<BTreeMap<String, String>> {
    let mut rows = rows(&run.join("metrics.csv"));
    for row in &mut rows {
        for clock in ["wall_s", "train_s", "name"] {
            assert!(row.remove(clock).is_some());
        }
    }
    rows
}

/// Every trial has run to its end once: its rows are those of a run that never stopped.
fn assert_all_done(work: &Workspace, reference: &Path, steps: &[&str]) {
    for trial in work.trials() {
        let run = work.sweep().join(&trial["trial"]);
        assert!(run.join("DONE").exists(), "{trial:?}");
        assert!(!run.join("FAILED").exists());
        let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
        assert!(text.ends_with('\n'));
        let rows = metrics(&run);
        let found: Vec<&str> = rows.iter().map(|row| row["step"].as_str()).collect();
        assert_eq!(found, steps, "{trial:?}");
        assert_eq!(rows, metrics(&reference.join(&trial["trial"])), "{trial:?}");
    }
}

#[test]
fn plans_are_products_and_grow_at_the_end() {
    let work = Workspace::new(GRID);
    let (code, stdout, stderr) = work.gfn("sweep plan demo.toml");
    assert_eq!((code, stdout.as_str()), (0, "results/demo\n"), "{stderr}");
    assert!(stderr.contains("4 trials (4 configurations)\n3840 trajectories in all"), "{stderr}");
    let table = std::fs::read_to_string(work.sweep().join("trials.csv")).unwrap();
    let expected = "index,trial,seed,trajectories,batch,overrides\n\
        0,\"backward.kind=uniform,train.lr=0.001/s1\",1,960,16,\"{ backward.kind = \"\"uniform\"\", train.lr = 0.001 }\"\n\
        1,\"backward.kind=uniform,train.lr=0.01/s1\",1,960,16,\"{ backward.kind = \"\"uniform\"\", train.lr = 0.01 }\"\n\
        2,\"backward.kind=tlm,train.lr=0.001/s1\",1,960,16,\"{ backward.kind = \"\"tlm\"\", train.lr = 0.001 }\"\n\
        3,\"backward.kind=tlm,train.lr=0.01/s1\",1,960,16,\"{ backward.kind = \"\"tlm\"\", train.lr = 0.01 }\"\n";
    assert_eq!(table, expected);

    assert!(work.says("sweep run results/demo --index 2 -q", 0).is_empty());
    // A value in front and a seed more: what was there keeps its numbers.
    let more =
        GRID.replace("['uniform'", "['naive', 'uniform'").replace("[1]", "{ range = [1, 2] }");
    work.write(&format!("{BASE}{more}"));
    let stderr = work.says("sweep plan demo.toml", 0);
    assert!(stderr.contains("12 trials (6 configurations), 8 of them new"), "{stderr}");
    let new = std::fs::read_to_string(work.sweep().join("trials.csv")).unwrap();
    assert!(new.starts_with(&table), "{new}");
    let indices: Vec<usize> =
        work.trials().iter().map(|trial| trial["index"].parse().unwrap()).collect();
    assert_eq!(indices, (0..12).collect::<Vec<_>>());

    // What has run must stay what it is; what has not may go.
    work.write(&format!("{BASE}{}", more.replace(", 'tlm'", "")));
    let stderr = work.says("sweep plan demo.toml", 2);
    assert!(stderr.contains("the trial 2 (backward.kind=tlm,train.lr=0.001/s1) would no longer"));
    work.write(&format!("{}{more}", BASE.replace("side = 5", "side = 6")));
    let stderr = work.says("sweep plan demo.toml", 2);
    assert!(stderr.contains("the trial 2 (backward.kind=tlm,train.lr=0.001/s1) has run already"));
    assert!(stderr.contains("env.side: 5 -> 6"), "{stderr}");
    assert_eq!(std::fs::read_to_string(work.sweep().join("trials.csv")).unwrap(), new);
    work.write(&format!("{}{more}", BASE.replace("= 960", "= 1280")));
    work.says("sweep plan demo.toml", 0);
    work.assert_counts(&[("waiting", 12)]);
    work.says("sweep run results/demo --index 2 -q", 0);
    let rows = metrics(&work.sweep().join("backward.kind=tlm,train.lr=0.001/s1"));
    assert_eq!(rows.last().unwrap()["trajectories"], "1280");
}

/// Labels name folders, and come too late for trials that have run.
#[test]
fn labels_do_not_make_other_trials() {
    let sweep = "[sweep]\nway = [{ backward.kind = 'uniform' }, { backward.kind = 'tlm' }]\n";
    let work = Workspace::new(sweep);
    work.says("sweep plan demo.toml", 0);
    work.says("sweep run results/demo --index 1 -q", 0);
    let labelled = sweep
        .replace("{ backward.kind = 'uniform'", "{ label = 'fixed', backward.kind = 'uniform'")
        .replace("{ backward.kind = 'tlm'", "{ label = 'learned', backward.kind = 'tlm'");
    work.write(&format!("{BASE}{labelled}"));
    work.says("sweep plan demo.toml", 0);
    let names: Vec<String> = work.trials().iter().map(|trial| trial["trial"].clone()).collect();
    assert_eq!(names, ["way=fixed/s0", "backward.kind=tlm/s0"]);
    work.says("sweep run results/demo -q", 0);
    work.assert_counts(&[("done", 2)]);
    // The same labels on other values would be other trials.
    let swapped = labelled.replace("'uniform'", "'naive'");
    work.write(&format!("{BASE}{swapped}"));
    let stderr = work.says("sweep plan demo.toml", 2);
    assert!(stderr.contains("the trial 0 (way=fixed/s0) would no longer"), "{stderr}");
    let twice = labelled.replace("'learned'", "'fixed'");
    work.write(&format!("{BASE}{twice}"));
    let stderr = work.says("sweep plan demo.toml --out elsewhere", 2);
    assert!(stderr.contains("two trials of the name `way=fixed/s0`"), "{stderr}");
}

#[test]
fn overrides_of_all_trials_are_part_of_the_plan() {
    let work = Workspace::new(GRID);
    work.says("sweep plan demo.toml -s train.trajectories=320 -s name=short", 0);
    let trials = rows(&work.path("results/short/trials.csv"));
    assert!(trials.iter().all(|trial| trial["trajectories"] == "320"));
    work.says("sweep run results/short --shard 1/4 -q", 0);
    let run = work.path("results/short").join(&trials[0]["trial"]);
    assert_eq!(metrics(&run).last().unwrap()["trajectories"], "320");
}

#[test]
fn bad_sweeps_are_refused_where_they_stand() {
    let work = Workspace::new("");
    for (sweep, expected) in [
        ("", vec!["the spec `demo.toml` has no table [sweep]"]),
        (
            "[sweep]\nenv.sidee = [4, 5]\n",
            vec![
                "unknown key `sidee` in [env]",
                "demo.toml:21:14",
                "did you mean `side`?",
                "set by the axis `env.sidee` in configuration 1 of the sweep: { env.sidee = 4 }",
            ],
        ),
        (
            "[sweep]\ntrain.batch = [16, 0]\n",
            vec!["demo.toml:21:20", "configuration 2 of the sweep"],
        ),
        ("[sweep]\nboth = [{ backwards.kind = 'tlm' }]\n", vec!["backwards", "demo.toml:21:9"]),
        ("[sweep]\n'backward.kind' = ['tlmm']\n", vec!["did you mean `tlm`?", "demo.toml:21:20"]),
        (
            "[sweep]\nmethod = [{ objective.kind = 'tb' }]\n",
            vec!["sweep.method is \"grid\", \"list\" or \"random\"", "an axis needs another name"],
        ),
        ("[sweep]\ntrain.lr = []\n", vec!["the axis `train.lr` has no values", "demo.toml:21:12"]),
        (
            "[sweep]\ntrain.lr = [0.1, 1e-1]\n",
            vec![
                "the configurations 1 and 2 of the sweep are the same: { train.lr = 0.1 }",
                "demo.toml:21:18",
            ],
        ),
        (
            "[sweep]\ntrain.lr = [1]\n[sweep.halving]\neta = 3\nfirst_trajectories = 1000\n\
             metric = 'tv_exact'\n",
            vec!["the first budget of 1000 trajectories is not below train.trajectories = 960"],
        ),
    ] {
        work.write(&format!("{BASE}{sweep}"));
        let stderr = work.says("sweep plan demo.toml", 2);
        for part in expected {
            assert!(stderr.contains(part), "{part}:\n{stderr}");
        }
        assert!(!work.path("results").exists());
    }
    let halving = "[sweep]\ntrain.lr = [1]\n[sweep.halving]\neta = 3\nfirst_trajectories = 100\n\
                   metric = 'tv_exact'\n";
    work.write(&format!("{}{halving}", BASE.replace("[eval]", "lr_schedule = 'cosine'\n[eval]")));
    let stderr = work.says("sweep plan demo.toml", 2);
    assert!(stderr.contains("how long training takes in all"), "{stderr}");
    // Nobody can make a folder in a file.
    work.write(&format!("{BASE}{GRID}"));
    std::fs::write(work.path("file"), "").unwrap();
    let stderr = work.says("sweep plan demo.toml --out file", 2);
    assert!(stderr.contains("cannot write to the sweep directory `file/demo`"), "{stderr}");
    let stderr = work.says("sweep status .", 2);
    assert!(stderr.contains("`.` is not a sweep"), "{stderr}");
    work.says("sweep plan demo.toml", 0);
    assert!(work.says("sweep run results/demo --index 4", 2).contains("has no trial 4"));
    assert!(work.says("sweep run results/demo --index env:NOWHERE", 2).contains("NOWHERE"));
    assert!(work.says("sweep run results/demo --shard 3/2", 2).contains("I/N"));
    assert!(work.says("sweep run results/demo -j 4096", 2).contains("--oversubscribe"));
    assert!(work.says("sweep run results/demo -s seed=3", 2).contains("its trials are fixed"));
    std::fs::write(work.sweep().join("trials.csv"), "index,trial\n").unwrap();
    assert!(work.says("sweep status results/demo", 2).contains("is no table of trials"));
}

#[test]
fn all_trials_run_and_are_those_of_train() {
    let work = Workspace::new(GRID);
    let (code, stdout, stderr) =
        work.gfn("sweep demo.toml -j 2 --threads-per-job 1 --oversubscribe");
    assert_eq!((code, stdout.as_str()), (0, "results/demo\n"), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.contains(": done  ")).count(), 4, "{stderr}");
    assert!(stderr.contains("/4] 3: done  backward.kind=tlm,train.lr=0.01/s1  "), "{stderr}");
    work.assert_counts(&[("done", 4)]);
    let (_, table, _) = work.gfn("sweep status demo.toml");
    assert!(table.contains("results/demo: 4 trials: 4 done, 0 running"), "{table}");
    let alone = "train demo.toml -s backward.kind=tlm -s train.lr=0.01 --seed 1 -q --out alone";
    work.says(alone, 0);
    let run = work.sweep().join("backward.kind=tlm,train.lr=0.01/s1");
    assert_eq!(metrics(&run), metrics(&work.path("alone/demo/s1")));
    assert_eq!(metrics(&run).last().unwrap()["step"], "60");
    // Once more: nothing is left to do.
    let before = std::fs::read_to_string(run.join("manifest.json")).unwrap();
    work.says("sweep run results/demo -j 1", 0);
    assert_eq!(std::fs::read_to_string(run.join("manifest.json")).unwrap(), before);
}

#[test]
fn failures_stop_nobody_else() {
    // No such file: every attempt fails.
    let sweep = "[sweep]\nkinds = [{ train.lr = 0.01 }, { eval.test_set = 'objects.csv' }, \
                 { train.lr = 0.02 }]\nseed = [1]\n";
    let work = Workspace::new("");
    let base = BASE.replace("'log_z'", "'log_z', 'correlation'");
    work.write(&format!("{base}{sweep}"));
    let stderr = work.says("sweep demo.toml -j 1 --retries 1", 5);
    assert!(stderr.contains("2 trials done, 1 failed, 0 to do"), "{stderr}");
    assert_eq!(stderr.matches("it is tried again").count(), 1, "{stderr}");
    work.assert_counts(&[("done", 2), ("failed", 1)]);
    let log = std::fs::read_to_string(work.sweep().join("logs/1.log")).unwrap();
    assert_eq!(log.matches("error: ").count(), 2, "{log}");
    // Once the reason is gone, the same command does the rest.
    std::fs::write(work.path("objects.csv"), "object\n0 0\n1 2\n4 4\n").unwrap();
    let (code, _, stderr) = work.gfn("sweep demo.toml -j 1");
    assert_eq!(
        code,
        0,
        "{stderr}{}",
        std::fs::read_to_string(work.sweep().join("logs/1.log")).unwrap()
    );
    work.assert_counts(&[("done", 3)]);
}

#[test]
fn indices_and_shards_are_parts_of_the_whole() {
    let work = Workspace::new(GRID);
    work.says("sweep plan demo.toml", 0);
    work.says("sweep run results/demo --shard 2/3 -q", 0);
    work.assert_counts(&[("done", 1), ("waiting", 3)]);
    let mut array = work.command("sweep run results/demo --index env:TASK -q");
    assert!(array.env("TASK", "3").output().unwrap().status.success());
    let done = |i: usize| work.sweep().join(&work.trials()[i]["trial"]).join("DONE").exists();
    assert_eq!((0..4).map(done).collect::<Vec<_>>(), [false, true, false, true]);
    work.says("sweep run results/demo --shard 1/3 -q", 0);
    work.says("sweep run results/demo --shard 3/3 -q", 0);
    work.assert_counts(&[("done", 4)]);
}

/// Long enough to be interrupted in.
const LONG: &str = "[sweep]\n\"train.lr\" = [1e-3, 2e-3, 3e-3, 4e-3]\nseed = [1]\n";

fn long_base() -> String {
    BASE.replace("= 960", "= 6400").replace("every = 20", "every = 100")
}

const LONG_STEPS: [&str; 5] = ["0", "100", "200", "300", "400"];

#[test]
fn signals_save_and_the_same_command_goes_on() {
    let work = Workspace::new("");
    work.write(&format!("{}{LONG}", long_base()));
    work.says("sweep demo.toml -q --out reference", 0);
    for signal in [Signal::INT, Signal::TERM, Signal::USR1] {
        let mut runner = work.start("sweep demo.toml -j 2 --oversubscribe");
        while trainers(&work).is_empty() && runner.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if runner.try_wait().unwrap().is_none() {
            // As Slurm does it: every process of a task is told, and its shell passes it on.
            for trainer in trainers(&work) {
                // One that has just ended needs no signal.
                let _ = kill_process(trainer, signal);
            }
            kill_process(Pid::from_child(&runner), signal).unwrap();
            kill_process(Pid::from_child(&runner), signal).unwrap();
        }
        let code = runner.wait().unwrap().code();
        // A fast machine may have been done.
        assert!(code == Some(75) || work.counts().get("done") == Some(&4), "{code:?}");
        assert!(!work.counts().contains_key("failed"));
    }
    work.says("sweep demo.toml -q", 0);
    assert_all_done(&work, &work.path("reference/demo"), &LONG_STEPS);
    // Nobody was ended before it had saved.
    for trial in work.trials() {
        let sessions = sessions(&work.sweep().join(&trial["trial"]));
        assert!(sessions.iter().all(|s| s["exit"] == 0 || s["exit"] == 75), "{sessions:?}");
    }
}

/// The sessions of a run.
fn sessions(run: &Path) -> Vec<serde_json::Value> {
    let manifest = std::fs::read(run.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["sessions"].as_array().unwrap().clone()
}

/// The trainers that work in a sweep, by their run directories' locks.
fn trainers(work: &Workspace) -> Vec<Pid> {
    let sweep = work.sweep();
    if !sweep.join("trials.csv").exists() {
        return Vec::new();
    }
    let processes = work.trials().into_iter().filter_map(|trial| {
        let lock = std::fs::read_to_string(sweep.join(&trial["trial"]).join(".lock")).ok()?;
        let pid: i32 = lock.trim().parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        // The directory is relative: the process must also be there.
        let place = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let ours = command.contains("train") && place == work.dir.path();
        Pid::from_raw(pid).filter(|_| ours)
    });
    processes.collect()
}

#[test]
fn killed_at_random_every_trial_is_done_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let reference = Workspace::new("");
    reference.write(&format!("{}{LONG}", long_base()));
    reference.says("sweep demo.toml -q", 0);
    let start = Instant::now();
    let mut kills = (0, 0);
    let mut rounds = 0;
    while rounds < 3 || (start.elapsed() < Duration::from_secs(15) && rounds < 40) {
        rounds += 1;
        let work = Workspace::new("");
        work.write(&format!("{}{LONG}", long_base()));
        work.says("sweep plan demo.toml", 0);
        for _ in 0..6 {
            // Two runners at once, now and then.
            let n = rng.random_range(1..3);
            let mut runners: Vec<Child> = (0..n)
                .map(|_| work.start("sweep run results/demo -j 2 --oversubscribe -q"))
                .collect();
            for _ in 0..rng.random_range(0..3) {
                std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
                let trainers = trainers(&work);
                if !trainers.is_empty() {
                    let victim = trainers[rng.random_range(0..trainers.len())];
                    kills.0 += usize::from(kill_process(victim, Signal::KILL).is_ok());
                }
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..100)));
            for runner in &mut runners {
                kills.1 += usize::from(runner.try_wait().unwrap().is_none());
                let _ = runner.kill();
                runner.wait().unwrap();
            }
        }
        let (code, _, stderr) = work.gfn("sweep run results/demo -j 2 --oversubscribe --retries 2");
        assert_eq!(code, 0, "{stderr}");
        assert_all_done(&work, &reference.sweep(), &LONG_STEPS);
        // No two sessions of a trial ended its run.
        for trial in work.trials() {
            let sessions = sessions(&work.sweep().join(&trial["trial"]));
            let ended = sessions.iter().filter(|session| session["exit"] == 0).count();
            assert!(ended <= 1, "{sessions:?}");
        }
    }
    assert!(kills.0 > 0 && kills.1 > 0, "{kills:?} in {rounds} rounds");
}

const HALVING: &str = "[sweep]
\"train.lr\" = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 2e-2, 0.3]
seed = [1, 2]
[sweep.halving]
eta = 3
first_trajectories = 800
metric = 'tv_exact'
";

fn halving_base() -> String {
    // Evaluated at the ends of rungs only where they fall on it: rows of rungs are not those of runs.
    let base = BASE.replace("= 960", "= 7200").replace("every = 20", "every = 150");
    // Flat enough that nothing collapses onto one corner, which would be luck.
    base.replace("[model]", "[reward]\nkind = 'hypergrid'\nr0 = 0.1\n[model]")
}

/// Configurations by their mean total variation at the end of runs; the best first.
fn ranking(sweep: &Path) -> Vec<(String, f64)> {
    let mut means: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for trial in rows(&sweep.join("trials.csv")) {
        let table = rows(&sweep.join(&trial["trial"]).join("metrics.csv"));
        let tv: f64 = table.last().unwrap()["tv_exact"].parse().unwrap();
        let mean = means.entry(trial["overrides"].clone()).or_default();
        *mean = (mean.0 + tv, mean.1 + 1.0);
    }
    let mut ranking: Vec<(String, f64)> =
        means.into_iter().map(|(name, (sum, n))| (name, sum / n)).collect();
    ranking.sort_by(|a, b| a.1.total_cmp(&b.1));
    ranking
}

#[test]
fn halving_finds_what_the_full_grid_finds() {
    let full = Workspace::new("");
    let (grid, _) = HALVING.split_once("[sweep.halving]").unwrap();
    full.write(&format!("{}{grid}", halving_base()));
    full.says("sweep demo.toml -q", 0);
    let best = ranking(&full.sweep())[0].0.clone();

    let work = Workspace::new("");
    work.write(&format!("{}{HALVING}", halving_base()));
    let stderr = work.says("sweep plan demo.toml", 0);
    // 18 * 800 + 6 * 1600 + 2 * 4800 of 18 * 7200.
    let plan = "rung 1: 18 trials to 800 trajectories\nrung 2: 6 trials to 2400 trajectories\n\
                rung 3: 2 trials to 7200 trajectories\n33600 trajectories in all, 25.9 % of the 129600";
    assert!(stderr.contains(plan), "{stderr}");
    let stderr = work.says("sweep run results/demo", 0);
    work.assert_counts(&[("done", 18)]);
    let reached = |trial: &BTreeMap<String, String>| {
        let table = rows(&work.sweep().join(&trial["trial"]).join("metrics.csv"));
        table.last().unwrap()["trajectories"].parse::<u64>().unwrap()
    };
    let trials = work.trials();
    let total: u64 = trials.iter().map(&reached).sum();
    assert_eq!(total, 33600);
    let winners: BTreeSet<&str> = trials
        .iter()
        .filter(|trial| reached(trial) == 7200)
        .map(|trial| trial["overrides"].as_str())
        .collect();
    assert_eq!(winners, BTreeSet::from([best.as_str()]));
    let winner = trials.iter().find(|trial| trial["overrides"] == best).unwrap();
    assert!(stderr.contains(&format!("best: {}", winner["trial"])), "{stderr}");
    // Trained on, a run is what it would have been without rungs.
    let run = |work: &Workspace| work.sweep().join(&winner["trial"]);
    assert_eq!(metrics(&run(&work)), metrics(&run(&full)));

    // Killed in the middle of rungs, it goes on to the same result.
    let killed = Workspace::new("");
    killed.write(&format!("{}{HALVING}", halving_base()));
    killed.says("sweep plan demo.toml", 0);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..8 {
        let mut runner = killed.start("sweep run results/demo -j 2 --oversubscribe -q");
        std::thread::sleep(Duration::from_millis(rng.random_range(20..400)));
        let _ = runner.kill();
        runner.wait().unwrap();
    }
    killed.says("sweep run results/demo -q", 0);
    for trial in &trials {
        let of = |work: &Workspace| metrics(&work.sweep().join(&trial["trial"]));
        assert_eq!(of(&work), of(&killed), "{trial:?}");
    }

    // A larger budget extends the finished search: one more rung for its best.
    let larger = halving_base().replace("= 7200", "= 9600");
    work.write(&format!("{larger}{HALVING}"));
    work.says("sweep demo.toml -q", 0);
    let total: u64 = trials.iter().map(&reached).sum();
    assert_eq!(total, 33600 + 2 * 2400);

    // A column that is none, or that ranks nothing.
    for (metric, why) in
        [("tv_exakt", "did you mean `tv_exact`?"), ("log_z", "improves neither way")]
    {
        let wrong = HALVING.replace("tv_exact", metric);
        killed.write(&format!("{}{wrong}", halving_base()));
        let stderr = killed.says("sweep demo.toml -q", 2);
        assert!(stderr.contains(why), "{stderr}");
    }
}

#[test]
fn clusters_get_what_is_missing() {
    let work = Workspace::new(GRID);
    work.says("sweep plan demo.toml", 0);
    // Slurm starts no task that cannot write where its output goes.
    work.says("sweep submit results/demo --engine slurm --print", 0);
    assert!(work.sweep().join("logs").is_dir());
    work.says("sweep run results/demo --index 1 -q", 0);
    let place = std::fs::canonicalize(work.dir.path()).unwrap();
    let printed = |args: &str| {
        let (code, stdout, stderr) = work.gfn(args);
        assert_eq!(code, 0, "{stderr}");
        let gfn = std::fs::canonicalize(env!("CARGO_BIN_EXE_gfn")).unwrap();
        stdout.replace(gfn.to_str().unwrap(), "GFN").replace(place.to_str().unwrap(), "HERE")
    };
    insta::assert_snapshot!(
        "slurm",
        printed(
            "sweep submit results/demo --engine slurm --print --parallel 2 --cpus 4 --mem 8G \
             --time 04:00:00 --partition short -- --account=lab --signal=B:USR1@300"
        )
    );
    let kubernetes = "sweep submit results/demo --engine kubernetes --print --parallel 2 --cpus 4 \
                      --mem 8Gi --image registry.example/gfn:0.2 --volume-claim runs";
    insta::assert_snapshot!("kubernetes", printed(kubernetes));
    let stderr = work.says("sweep submit results/demo --engine kubernetes --print", 2);
    assert!(stderr.contains("Kubernetes needs --image"), "{stderr}");
    // The script is one that the shell accepts, and the manifest is handed to a program.
    let script = printed("sweep submit results/demo --engine slurm --print");
    std::fs::write(work.path("script"), script).unwrap();
    assert!(Command::new("bash").arg("-n").arg(work.path("script")).status().unwrap().success());
    let sbatch = work.path("sbatch");
    std::fs::write(&sbatch, "#!/bin/sh\ngrep -- --array \"$1\"\n").unwrap();
    let mut permissions = std::fs::metadata(&sbatch).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&sbatch, permissions).unwrap();
    let path = format!("{}:{}", work.dir.path().display(), std::env::var("PATH").unwrap());
    let mut submit = work.command("sweep submit results/demo --engine slurm");
    let output = submit.env("PATH", path).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "#SBATCH --array=0,2-3\n");
    work.says("sweep run results/demo -q", 0);
    assert!(work.says("sweep submit results/demo --engine slurm", 0).contains("nothing is left"));
}
