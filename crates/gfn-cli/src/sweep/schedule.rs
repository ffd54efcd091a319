//! What every trial has to do next, by what all have reached.

use super::SweepDirectory;
use super::halving::{Score, configurations};
use super::state::{self, Reached};
use crate::error::Failure;

/// What a trial has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Train to so many trajectories.
    Train(u64),
    /// Wait until others are as far; so many trajectories are done.
    Wait(u64),
    /// Nothing: it is at the end, or others were better.
    Done(u64),
    /// Nothing: it has failed.
    Failed,
}

/// What all trials have reached.
pub struct Observed {
    reached: Vec<Vec<Reached>>,
    failed: Vec<bool>,
    sign: Option<f64>,
}

/// A rung of a search: who is on it, and who has its budget behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Trajectories.
    pub budget: u64,
    /// Trials on it.
    pub trials: usize,
    /// Of these, those that have come to its end or failed.
    pub settled: usize,
}

/// Tasks of all trials.
pub struct Schedule {
    /// By position in the table.
    pub tasks: Vec<Task>,
    /// Rungs that have been entered; empty without halving.
    pub rungs: Vec<Rung>,
    /// The trial that a finished search has found.
    pub best: Option<usize>,
}

impl Observed {
    /// Reads the files of all trials.
    pub fn read(sweep: &SweepDirectory) -> Self {
        let n = sweep.trials.len();
        let mut all = Self { reached: vec![Vec::new(); n], failed: vec![false; n], sign: None };
        all.refresh_all(sweep);
        all
    }

    /// Reads the files of all trials again.
    pub fn refresh_all(&mut self, sweep: &SweepDirectory) {
        (0..sweep.trials.len()).for_each(|i| self.refresh(sweep, i));
    }

    /// Reads the files of a trial again.
    pub fn refresh(&mut self, sweep: &SweepDirectory, i: usize) {
        let trial = &sweep.trials[i];
        let run = sweep.run(trial);
        self.reached[i] = if sweep.halving.is_some() {
            state::reached(&run)
        } else {
            state::finished(&run).into_iter().collect()
        };
        self.failed[i] = sweep.failed(trial).exists() || run.join("FAILED").exists();
    }

    /// What a trial has reached last.
    pub fn last(&self, i: usize) -> Option<&Reached> {
        self.reached[i].last()
    }

    /// Whether a trial's last attempt failed.
    pub fn has_failed(&self, i: usize) -> bool {
        self.failed[i]
    }

    /// The most that a trial has come to.
    fn trajectories(&self, i: usize) -> u64 {
        self.reached[i].iter().map(|reached| reached.trajectories).max().unwrap_or(0)
    }

    /// Tasks of all trials; `again` says which of those that have failed are tried again.
    ///
    /// # Errors
    /// When the metric of a search cannot rank.
    pub fn schedule(
        &mut self,
        sweep: &SweepDirectory,
        again: impl Fn(usize) -> bool,
    ) -> Result<Schedule, Failure> {
        let lost = |all: &Self, i: usize| all.failed[i] && !again(i);
        let Some(halving) = &sweep.halving else {
            let task = |(i, trial): (usize, &super::trial::Trial)| {
                let done = self.trajectories(i);
                if done >= trial.trajectories {
                    Task::Done(done)
                } else if lost(self, i) {
                    Task::Failed
                } else {
                    Task::Train(trial.trajectories)
                }
            };
            let tasks = sweep.trials.iter().enumerate().map(task).collect();
            return Ok(Schedule { tasks, rungs: Vec::new(), best: None });
        };

        let groups = configurations(&sweep.trials);
        let mut tasks: Vec<Task> = vec![Task::Wait(0); sweep.trials.len()];
        let mut rungs = Vec::new();
        let mut entrants: Vec<usize> = (0..groups.len()).collect();
        let budgets: Vec<Vec<u64>> =
            sweep.trials.iter().map(|trial| halving.budgets(trial)).collect();
        let n_rungs = budgets.iter().map(Vec::len).max().unwrap_or(0);
        let mut best = None;
        for rung in 0..n_rungs {
            let budget = |i: usize| budgets[i][rung.min(budgets[i].len() - 1)];
            let members: Vec<usize> = entrants.iter().flat_map(|&g| groups[g].clone()).collect();
            for &i in &members {
                let at = |reached: &Reached| reached.trajectories == budget(i);
                tasks[i] = if self.reached[i].iter().any(at) {
                    Task::Done(budget(i))
                } else if lost(self, i) {
                    Task::Failed
                } else {
                    Task::Train(budget(i))
                };
            }
            let open = |i: &&usize| matches!(tasks[**i], Task::Train(_));
            let n_open = members.iter().filter(open).count();
            rungs.push(Rung {
                budget: members.first().map_or(0, |&i| budget(i)),
                trials: members.len(),
                settled: members.len() - n_open,
            });
            if n_open > 0 {
                // Who goes on is not known yet.
                for &i in &members {
                    if let Task::Done(done) = tasks[i] {
                        tasks[i] = Task::Wait(done);
                    }
                }
                break;
            }
            let Some(sign) = self.sign(sweep)? else { break };
            let mean = |group: usize| -> Option<f64> {
                let values = groups[group].iter().map(|&i| {
                    let at = self.reached[i].iter().find(|r| r.trajectories == budget(i))?;
                    halving.value(at, sign)
                });
                let values: Vec<f64> = values.collect::<Option<_>>()?;
                Some(values.iter().sum::<f64>() / values.len() as f64)
            };
            let scores: Vec<Score> = entrants
                .iter()
                .map(|&configuration| Score { mean: mean(configuration), configuration })
                .collect();
            if scores.iter().all(|score| score.mean.is_none()) {
                let measured = members.iter().any(|&i| matches!(tasks[i], Task::Done(_)));
                if measured && rung + 1 < n_rungs {
                    return Err(Failure::usage(format!(
                        "sweep.halving.metric: `{}` has no value in any configuration at {} \
                         trajectories",
                        halving.metric(),
                        budget(members[0])
                    ))
                    .help("choose a metric that applies to this environment"));
                }
                break;
            }
            if rung + 1 == n_rungs {
                let first = |&(a, _): &(usize, f64), &(b, _): &(usize, f64)| a.cmp(&b);
                let found = scores.iter().filter_map(|s| Some((s.configuration, s.mean?)));
                let found = found.min_by(|a, b| a.1.total_cmp(&b.1).then(first(a, b)));
                best = found.map(|(group, _)| groups[group][0]);
            } else {
                entrants = halving.choose(scores);
            }
        }
        Ok(Schedule { tasks, rungs, best })
    }

    /// Which way the metric of a search improves; `None` before anything has been measured.
    fn sign(&mut self, sweep: &SweepDirectory) -> Result<Option<f64>, Failure> {
        if self.sign.is_none()
            && let Some(halving) = &sweep.halving
        {
            let columns = sweep.trials.iter().find_map(|t| state::columns(&sweep.run(t)));
            self.sign = columns.map(|columns| halving.sign(&columns)).transpose()?;
        }
        Ok(self.sign)
    }

    /// Checks the metric of a search as soon as a run says what it measures.
    ///
    /// # Errors
    /// When it cannot rank.
    pub fn check_metric(&mut self, sweep: &SweepDirectory) -> Result<(), Failure> {
        self.sign(sweep).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::halving::Halving;
    use crate::sweep::settings::HalvingSettings;
    use crate::sweep::trial::{Overrides, Trial, write_table};

    /// A sweep of configurations by seeds, whose runs are files written by hand.
    struct Workspace {
        dir: tempfile::TempDir,
        sweep: SweepDirectory,
    }

    impl Workspace {
        fn new(configurations: usize, seeds: u64, trajectories: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let spec = "[sweep]\nseed = [0]\n[sweep.halving]\neta = 3\nfirst_trajectories = 10\n\
                        metric = 'elbo'\n";
            std::fs::write(dir.path().join("sweep.toml"), spec).unwrap();
            let mut trials = Vec::new();
            for seed in 0..seeds {
                for c in 0..configurations {
                    let overrides = Overrides::single("train.lr", (c as i64).into());
                    let folder = overrides.folder("");
                    let index = trials.len();
                    trials.push(Trial { index, folder, seed, trajectories, batch: 1, overrides });
                }
            }
            write_table(&dir.path().join("trials.csv"), &trials).unwrap();
            let sweep = SweepDirectory::open(dir.path()).unwrap();
            Self { dir, sweep }
        }

        fn finish(&self, i: usize, trajectories: u64, elbo: f64) {
            let run = self.sweep.run(&self.sweep.trials[i]);
            std::fs::create_dir_all(&run).unwrap();
            state::keep(&run).unwrap();
            let columns = "[{\"name\": \"elbo\", \"better\": \"higher\"}]";
            std::fs::write(run.join("metrics.schema.json"), columns).unwrap();
            let done =
                format!("{{\"trajectories\": {trajectories}, \"metrics\": {{\"elbo\": {elbo}}}}}");
            std::fs::write(run.join("DONE"), done).unwrap();
        }

        fn schedule(&self) -> Schedule {
            Observed::read(&self.sweep).schedule(&self.sweep, |_| false).unwrap()
        }
    }

    #[test]
    fn means_over_seeds_decide_who_goes_on() {
        let work = Workspace::new(4, 2, 90);
        assert!(work.schedule().tasks.iter().all(|&task| task == Task::Train(10)));
        // The best single run is that of configuration 0; the best mean that of 2.
        let elbo = [9.0, 3.0, 6.0, 4.0, 0.0, 3.0, 6.0, 4.0];
        for (i, &elbo) in elbo.iter().enumerate().skip(1) {
            work.finish(i, 10, elbo);
        }
        let schedule = work.schedule();
        assert_eq!(schedule.tasks[..2], [Task::Train(10), Task::Wait(10)]);
        assert_eq!(schedule.rungs, [Rung { budget: 10, trials: 8, settled: 7 }]);
        work.finish(0, 10, elbo[0]);
        let tasks = work.schedule().tasks;
        let on: Vec<usize> = (0..8).filter(|&i| tasks[i] == Task::Train(30)).collect();
        assert_eq!(on, [2, 6]);
        assert_eq!(tasks[0], Task::Done(10));
        for budget in [30, 90] {
            work.finish(2, budget, 7.0);
            work.finish(6, budget, 7.0);
        }
        let schedule = work.schedule();
        assert_eq!((schedule.best, schedule.rungs.len()), (Some(2), 3));
        assert!(schedule.tasks.iter().all(|task| matches!(task, Task::Done(_))));
    }

    #[test]
    fn failed_trials_rank_last_and_a_larger_budget_goes_on() {
        let mut work = Workspace::new(3, 1, 30);
        work.finish(0, 10, 1.0);
        work.finish(1, 10, 5.0);
        std::fs::create_dir_all(work.dir.path().join("logs")).unwrap();
        std::fs::write(work.dir.path().join("logs/2.failed"), "").unwrap();
        let mut observed = Observed::read(&work.sweep);
        let again = observed.schedule(&work.sweep, |i| i == 2).unwrap().tasks;
        assert_eq!(again, [Task::Wait(10), Task::Wait(10), Task::Train(10)]);
        assert_eq!(work.schedule().tasks, [Task::Done(10), Task::Train(30), Task::Failed]);
        work.finish(1, 30, 6.0);
        assert_eq!(work.schedule().best, Some(1));
        work.sweep.trials.iter_mut().for_each(|trial| trial.trajectories = 90);
        assert_eq!(work.schedule().tasks, [Task::Done(10), Task::Train(90), Task::Failed]);
        work.sweep.halving = Some(Halving::new(HalvingSettings {
            eta: 3,
            first_trajectories: 10,
            metric: "elbow".to_owned(),
        }));
        let failure = Observed::read(&work.sweep).schedule(&work.sweep, |_| false).err().unwrap();
        assert!(failure.render().contains("did you mean `elbo`?"), "{}", failure.render());
    }
}
