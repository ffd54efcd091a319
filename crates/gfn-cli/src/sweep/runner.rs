//! Runs trials as child processes, `gfn train` each, until nothing is left to do.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::SweepDirectory;
use super::claim::Claim;
use super::progress::{Progress, short};
use super::schedule::{Observed, Schedule, Task};
use super::state;
use crate::error::{BUG, Failure, INTERRUPTED, TRIALS_FAILED, say};
use crate::signals::{STOP, Stop};

/// Between looks at children; what a trial waits at most for its successor.
const POLL: Duration = Duration::from_millis(5);
/// Between looks at a trial that somebody else runs.
const HELD: Duration = Duration::from_millis(250);

/// Which trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// The one with this index.
    Index(usize),
    /// Those whose place in the table has this remainder, of so many shards.
    Shard(usize, usize),
}

/// How to run a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Trials at a time.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// Further attempts at a trial that fails.
    pub retries: u32,
    /// Which trials.
    pub selection: Selection,
    /// No lines, no table.
    pub quiet: bool,
}

/// A trial that is being run.
struct Running {
    i: usize,
    child: Child,
    target: u64,
    start: Instant,
    // Given back when the child has ended.
    _claim: Claim,
}

struct Runner<'a> {
    sweep: &'a SweepDirectory,
    options: Options,
    observed: Observed,
    selected: Vec<bool>,
    /// Attempts of this process.
    attempts: Vec<u32>,
    /// Trials that have failed and are tried again.
    again: Vec<bool>,
    /// Trials that were asked to stop by somebody else: left for another time.
    interrupted: Vec<bool>,
    /// Trials of others, and when to look again.
    held: Vec<Option<Instant>>,
    running: Vec<Running>,
    progress: Progress,
}

/// Runs what is missing.
///
/// # Errors
/// Exit code 5 if trials have failed, 75 if it was interrupted; or when nothing can be run.
pub fn run(sweep: &SweepDirectory, options: Options) -> Result<(), Failure> {
    let stop = Stop::listen()
        .map_err(|error| Failure::new(BUG, format!("cannot listen to signals: {error}")))?;
    let n = sweep.trials.len();
    let selected: Vec<bool> = match options.selection {
        Selection::All => vec![true; n],
        Selection::Shard(shard, of) => (0..n).map(|i| i % of == shard).collect(),
        Selection::Index(index) => {
            if !sweep.trials.iter().any(|trial| trial.index == index) {
                let last = sweep.trials.last().map_or(0, |trial| trial.index);
                return Err(Failure::usage(format!(
                    "`{}` has no trial {index}",
                    sweep.path().display()
                ))
                .help(format!("its trials.csv has {n}, the last is {last}")));
            }
            sweep.trials.iter().map(|trial| trial.index == index).collect()
        }
    };
    let observed = Observed::read(sweep);
    let again = (0..n).map(|i| selected[i] && observed.has_failed(i)).collect();
    let mut runner = Runner {
        sweep,
        options,
        observed,
        selected,
        attempts: vec![0; n],
        again,
        interrupted: vec![false; n],
        held: vec![None; n],
        running: Vec::new(),
        progress: Progress::Quiet,
    };
    let outcome = runner.all(&stop);
    runner.progress.finish();
    runner.report(&outcome?, stop.requested())
}

impl Runner<'_> {
    fn schedule(&mut self) -> Result<Schedule, Failure> {
        let again = &self.again;
        self.observed.schedule(self.sweep, |i| again[i])
    }

    /// Selected trials that are over, one way or the other.
    fn over(&self, schedule: &Schedule) -> usize {
        let over = |i: &usize| matches!(schedule.tasks[*i], Task::Done(_) | Task::Failed);
        (0..self.selected.len()).filter(|&i| self.selected[i]).filter(over).count()
    }

    fn all(&mut self, stop: &Stop) -> Result<Schedule, Failure> {
        let mut schedule = self.schedule()?;
        let total = self.selected.iter().filter(|&&selected| selected).count();
        self.progress = Progress::new(self.options.quiet, self.over(&schedule), total);
        // After a failure of our own, the children are stopped before it is said.
        let mut failure = None;
        let mut asked = false;
        loop {
            if (stop.requested() || failure.is_some()) && !asked {
                asked = true;
                self.ask_to_stop();
            }
            let ended = match self.reap(asked) {
                Ok(ended) => ended,
                Err(error) => {
                    failure.get_or_insert(error);
                    true
                }
            };
            if asked {
                if self.running.is_empty() {
                    break;
                }
                std::thread::sleep(POLL);
                continue;
            }
            if ended {
                match self.schedule() {
                    Ok(new) => schedule = new,
                    Err(error) => {
                        failure.get_or_insert(error);
                        continue;
                    }
                }
            }
            match self.fill(&mut schedule) {
                Ok(()) => {}
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            }
            if self.running.is_empty() && self.candidates(&schedule).next().is_none() {
                break;
            }
            self.progress.tick(self.sweep);
            std::thread::sleep(POLL);
        }
        match failure {
            Some(failure) => Err(failure),
            None => self.schedule(),
        }
    }

    /// Selected trials that have something to do and that we are not running.
    fn candidates(&self, schedule: &Schedule) -> impl Iterator<Item = (usize, u64)> {
        let ours = |i: usize| self.running.iter().any(|running| running.i == i);
        let target = |i: usize| match schedule.tasks[i] {
            Task::Train(target) => Some((i, target)),
            _ => None,
        };
        let selected = (0..self.selected.len()).filter(|&i| self.selected[i]);
        let open = selected.filter(move |&i| !self.interrupted[i] && !ours(i));
        open.filter_map(target)
    }

    /// Starts trials as long as there is room.
    fn fill(&mut self, schedule: &mut Schedule) -> Result<(), Failure> {
        while self.running.len() < self.options.jobs {
            let now = Instant::now();
            let free = |&(i, _): &(usize, u64)| self.held[i].is_none_or(|until| until <= now);
            let Some((i, target)) = self.candidates(schedule).find(free) else { return Ok(()) };
            if !self.start(i, target)? {
                *schedule = self.schedule()?;
            }
        }
        Ok(())
    }

    /// Starts a trial; `false` if there was no need to, or somebody else runs it.
    fn start(&mut self, i: usize, target: u64) -> Result<bool, Failure> {
        let trial = &self.sweep.trials[i];
        let run = self.sweep.run(trial);
        let Some(claim) = Claim::take(&self.sweep.claim(trial), &run)? else {
            self.held[i] = Some(Instant::now() + HELD);
            return Ok(false);
        };
        self.held[i] = None;
        // Somebody else may have run it since we looked: we only know now that nobody does.
        let failed = self.observed.has_failed(i);
        self.observed.refresh(self.sweep, i);
        let theirs = !failed && self.observed.has_failed(i);
        if theirs || self.schedule()?.tasks[i] != Task::Train(target) {
            return Ok(false);
        }
        if self.sweep.halving.is_some() {
            state::keep(&run)?;
        }
        let failed = self.sweep.failed(trial);
        let prepare = || -> std::io::Result<(Stdio, File)> {
            let log = self.sweep.log(trial);
            if let Some(parent) = log.parent() {
                std::fs::create_dir_all(parent)?;
            }
            match std::fs::remove_file(&failed) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let log = File::options().create(true).append(true).open(log)?;
            Ok((claim.share()?, log))
        };
        let (stdin, log) = prepare().map_err(|error| Failure::write(&failed, &error))?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(BUG, format!("cannot find this program: {error}")))?;
        let mut command = Command::new(program);
        command
            .arg("train")
            .arg(self.sweep.spec())
            .args(trial.overrides.arguments().iter().flat_map(|set| ["-s", set]))
            .args(["--seed", &trial.seed.to_string(), "--name", &trial.folder, "--out"])
            .arg(self.sweep.path());
        if self.sweep.halving.is_some() {
            command.args(["-s", &format!("train.trajectories={target}")]);
        }
        command
            .env("RAYON_NUM_THREADS", self.options.threads.to_string())
            .env("NO_COLOR", "1")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for us: children are asked to stop once, not twice.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| Failure::usage(format!("cannot start a trial: {error}")))?;
        self.attempts[i] += 1;
        self.progress.started(self.sweep, i, target);
        self.running.push(Running { i, child, target, start: Instant::now(), _claim: claim });
        Ok(true)
    }

    /// Children save a checkpoint and exit.
    fn ask_to_stop(&mut self) {
        for running in &self.running {
            let pid = rustix::process::Pid::from_child(&running.child);
            // One that has just ended needs no signal.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Takes note of children that have ended; whether there were any.
    fn reap(&mut self, stopping: bool) -> Result<bool, Failure> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].child.try_wait() {
                Ok(None) => at += 1,
                Ok(Some(status)) => ended.push((self.running.remove(at), status)),
                Err(error) => {
                    return Err(Failure::new(BUG, format!("cannot wait for a trial: {error}")));
                }
            }
        }
        let any = !ended.is_empty();
        for (running, status) in ended {
            self.ended(&running, status, stopping)?;
        }
        if any {
            self.observed.check_metric(self.sweep)?;
        }
        Ok(any)
    }

    fn ended(
        &mut self,
        running: &Running,
        status: ExitStatus,
        stopping: bool,
    ) -> Result<(), Failure> {
        let i = running.i;
        let trial = &self.sweep.trials[i];
        let run = self.sweep.run(trial);
        let seconds = running.start.elapsed().as_secs_f64();
        let reached = state::finished(&run).is_some_and(|end| end.trajectories >= running.target);
        let interrupted = status.code() == Some(INTERRUPTED.into());
        // A signal that came before the child listened, from us or from who signals all processes; or
        // a second one.
        let killed_to_stop =
            status.signal().is_some_and(|signal| stopping || STOP.contains(&signal));
        let what = if status.success() && reached {
            self.again[i] = false;
            let metric = self.sweep.halving.as_ref().map(|halving| halving.metric());
            let headline = state::headline(&run, metric);
            let headline = headline.map(|(name, value)| format!("  {name} {}", short(value)));
            format!("done  {}{}  {seconds:.1} s", trial.name(), headline.unwrap_or_default())
        } else if interrupted || killed_to_stop {
            self.interrupted[i] = true;
            format!("interrupted  {}", trial.name())
        } else {
            let why = match (status.code(), status.signal()) {
                (Some(0), _) => "it ended without reaching its budget".to_owned(),
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
            };
            let log = self.sweep.log(trial);
            let failed = self.sweep.failed(trial);
            std::fs::write(&failed, format!("{why}\n"))
                .map_err(|error| Failure::write(&failed, &error))?;
            self.again[i] = self.attempts[i] <= self.options.retries && !stopping;
            let next = if self.again[i] { "; it is tried again" } else { "" };
            format!("failed  {}  {why}, see {}{next}", trial.name(), log.display())
        };
        self.observed.refresh(self.sweep, i);
        let schedule = self.schedule()?;
        let (done, total) = (self.over(&schedule), self.selected.iter().filter(|&&s| s).count());
        self.progress.ended(i, done, &format!("[{done}/{total}] {}: {what}", trial.index));
        Ok(())
    }

    /// How it went.
    fn report(&self, schedule: &Schedule, stopped: bool) -> Result<(), Failure> {
        let count = |task: fn(&Task) -> bool| {
            (0..self.selected.len())
                .filter(|&i| self.selected[i] && task(&schedule.tasks[i]))
                .count()
        };
        let done = count(|task| matches!(task, Task::Done(_)));
        let waiting = count(|task| matches!(task, Task::Train(_) | Task::Wait(_)));
        let failed: Vec<String> = (0..self.selected.len())
            .filter(|&i| self.selected[i] && schedule.tasks[i] == Task::Failed)
            .map(|i| self.sweep.trials[i].index.to_string())
            .collect();
        let counts = format!("{done} trials done, {} failed, {waiting} to do", failed.len());
        if stopped || self.interrupted.iter().any(|&interrupted| interrupted) {
            return Err(Failure::new(INTERRUPTED, format!("interrupted: {counts}"))
                .help("run the same command again to go on"));
        }
        if !failed.is_empty() {
            let (first, more) = failed.split_at(failed.len().min(10));
            let more = if more.is_empty() { "" } else { ", …" };
            let logs = self.sweep.path().join("logs");
            return Err(Failure::new(TRIALS_FAILED, counts)
                .help(format!(
                    "failed: {}{more}; what they said is in {}",
                    first.join(", "),
                    logs.display()
                ))
                .help("run the same command again to try them again"));
        }
        if !self.options.quiet {
            say(&counts);
            if let Some(best) = schedule.best {
                say(&format!("best: {}", self.sweep.trials[best].name()));
            }
        }
        Ok(())
    }
}

/// Jobs and threads per job for `n` trials on so many cores.
///
/// # Errors
/// When that would be more threads than cores, unless allowed.
pub fn share_cores(
    jobs: Option<usize>,
    threads: Option<usize>,
    oversubscribe: bool,
    n: usize,
    cores: usize,
) -> Result<(usize, usize), Failure> {
    let (cores, n) = (cores.max(1), n.max(1));
    let (jobs, threads) = match (jobs, threads) {
        (Some(jobs), Some(threads)) => (jobs, threads),
        (Some(jobs), None) => (jobs, (cores / jobs.max(1)).max(1)),
        (None, Some(threads)) => ((cores / threads.max(1)).clamp(1, n), threads),
        (None, None) => (cores.min(n), (cores / cores.min(n)).max(1)),
    };
    if jobs == 0 || threads == 0 {
        return Err(Failure::usage("--jobs and --threads-per-job must be at least 1"));
    }
    if jobs.saturating_mul(threads) > cores && !oversubscribe {
        return Err(Failure::usage(format!("{jobs} jobs of {threads} threads on {cores} cores"))
            .help("ask for fewer, or add --oversubscribe"));
    }
    Ok((jobs, threads))
}

#[cfg(test)]
mod tests {
    use super::share_cores;

    #[test]
    fn threads_never_exceed_cores_unless_asked() {
        let share = |jobs, threads, n| share_cores(jobs, threads, false, n, 8).unwrap();
        assert_eq!(share(None, None, 100), (8, 1));
        assert_eq!(share(None, None, 3), (3, 2));
        assert_eq!(share(None, None, 1), (1, 8));
        assert_eq!(share(Some(2), None, 100), (2, 4));
        assert_eq!(share(None, Some(3), 100), (2, 3));
        assert_eq!(share(None, Some(1), 0), (1, 1));
        assert!(share_cores(Some(9), None, false, 10, 8).is_err());
        assert!(share_cores(Some(3), Some(3), false, 10, 8).is_err());
        assert!(share_cores(None, Some(9), false, 10, 8).is_err());
        assert!(share_cores(Some(0), None, true, 10, 8).is_err());
        assert_eq!(share_cores(Some(3), Some(3), true, 10, 8).unwrap(), (3, 3));
    }
}
