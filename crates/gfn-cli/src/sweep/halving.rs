//! Successive halving on resumable runs (Jamieson & Talwalkar 2016, arXiv:1502.07943).
//!
//! All configurations are trained to a first budget; the best 1/eta of them are trained on to eta
//! times that budget, from their checkpoints; and so on to the whole budget. What is decided is a
//! function of what the runs have reached, so it is the same whenever and wherever it is computed.

use super::settings::HalvingSettings;
use super::state::{Column, Reached};
use super::trial::Trial;
use crate::error::Failure;

/// The rule.
#[derive(Clone, Debug)]
pub struct Halving {
    settings: HalvingSettings,
}

/// A configuration on a rung: its mean over seeds, and the number of its first trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Lower is better; `None` if a seed failed or has no value.
    pub mean: Option<f64>,
    /// Which configuration, in the order of the table.
    pub configuration: usize,
}

impl Halving {
    /// With settings that have been checked.
    pub fn new(settings: HalvingSettings) -> Self {
        Self { settings }
    }

    /// The column that ranks.
    pub fn metric(&self) -> &str {
        &self.settings.metric
    }

    /// Budgets of the rungs in trajectories, the whole budget last. All but the last are whole
    /// batches: runs end there and go on.
    pub fn budgets(&self, trial: &Trial) -> Vec<u64> {
        let mut budgets = Vec::new();
        let mut budget = self.settings.first_trajectories;
        while budget < trial.trajectories {
            let whole = budget.div_ceil(trial.batch).saturating_mul(trial.batch);
            budgets.push(whole.min(trial.trajectories));
            budget = budget.saturating_mul(self.settings.eta);
        }
        budgets.push(trial.trajectories);
        budgets
    }

    /// How many of `n` configurations go on.
    pub fn kept(&self, n: usize) -> usize {
        (n / usize::try_from(self.settings.eta).unwrap_or(usize::MAX)).max(1)
    }

    /// Which configurations go on: the best, in their order; ties go to the first.
    pub fn choose(&self, mut scores: Vec<Score>) -> Vec<usize> {
        let kept = self.kept(scores.len());
        scores.retain(|score| score.mean.is_some());
        let value = |score: &Score| score.mean.unwrap_or(f64::INFINITY);
        scores.sort_by(|a, b| {
            value(a).total_cmp(&value(b)).then(a.configuration.cmp(&b.configuration))
        });
        scores.truncate(kept);
        let mut chosen: Vec<usize> = scores.iter().map(|score| score.configuration).collect();
        chosen.sort_unstable();
        chosen
    }

    /// The value of the metric with its sign such that lower is better.
    pub fn value(&self, reached: &Reached, sign: f64) -> Option<f64> {
        let value = (*reached.metrics.get(self.metric())?)?;
        (!value.is_nan()).then_some(sign * value)
    }

    /// 1 if the metric improves downwards, -1 if upwards.
    ///
    /// # Errors
    /// When the runs do not measure it, or it cannot rank.
    pub fn sign(&self, columns: &[Column]) -> Result<f64, Failure> {
        let metric = self.metric();
        let ranking = columns.iter().filter(|column| column.better != "neither");
        let names: Vec<&str> = ranking.clone().map(|column| column.name.as_str()).collect();
        let found = ranking.clone().find(|column| column.name == metric);
        let Some(column) = found else {
            let known = columns.iter().any(|column| column.name == metric);
            let why = if known { "improves neither way" } else { "is no column of metrics.csv" };
            let failure = Failure::usage(format!("sweep.halving.metric: `{metric}` {why}"))
                .did_you_mean(metric, names.iter().copied());
            return Err(failure.help(format!("columns that rank: {}", names.join(", "))));
        };
        Ok(if column.better == "higher" { -1.0 } else { 1.0 })
    }

    /// Trials of each rung with their budgets, and the trajectories of everything, if nothing fails.
    pub fn cost(&self, trials: &[Trial]) -> (Vec<(u64, usize)>, u64) {
        let configurations = configurations(trials);
        let Some(first) = trials.first() else { return (Vec::new(), 0) };
        let seeds = trials.len().div_ceil(configurations.len().max(1));
        let (mut n, mut rungs, mut total, mut before) = (configurations.len(), vec![], 0, 0);
        for budget in self.budgets(first) {
            rungs.push((budget, n * seeds));
            total += (budget - before) * (n * seeds) as u64;
            before = budget;
            n = self.kept(n);
        }
        (rungs, total)
    }
}

/// Positions of trials that differ in their seeds only, in the order of the table.
pub fn configurations(trials: &[Trial]) -> Vec<Vec<usize>> {
    let mut place = std::collections::HashMap::new();
    let mut all: Vec<Vec<usize>> = Vec::new();
    for (i, trial) in trials.iter().enumerate() {
        let at = *place.entry(trial.folder.as_str()).or_insert(all.len());
        if at == all.len() {
            all.push(Vec::new());
        }
        all[at].push(i);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::trial::Overrides;

    fn halving(eta: u64, first: u64) -> Halving {
        Halving::new(HalvingSettings {
            eta,
            first_trajectories: first,
            metric: "tv_exact".to_owned(),
        })
    }

    fn trials(n: usize, trajectories: u64, batch: u64) -> Vec<Trial> {
        let trial = |index| Trial {
            index,
            folder: format!("lr={index}"),
            seed: 0,
            trajectories,
            batch,
            overrides: Overrides::default(),
        };
        (0..n).map(trial).collect()
    }

    #[test]
    fn budgets_are_whole_batches_up_to_everything() {
        let of = |eta, first, trajectories, batch| {
            halving(eta, first).budgets(&trials(1, trajectories, batch)[0])
        };
        assert_eq!(of(3, 100, 900, 10), [100, 300, 900]);
        assert_eq!(of(3, 100, 2700, 10), [100, 300, 900, 2700]);
        assert_eq!(of(3, 100, 500, 16), [112, 304, 500]);
        assert_eq!(of(2, 1000, 500, 16), [500]);
    }

    #[test]
    fn the_cost_of_the_textbook_search() {
        // 27 configurations, eta 3, 1 to 27 units: 27 + 9 * 2 + 3 * 6 + 1 * 18 = 81 of 729.
        let (rungs, cost) = halving(3, 1).cost(&trials(27, 27, 1));
        assert_eq!(rungs, [(1, 27), (3, 9), (9, 3), (27, 1)]);
        assert_eq!(cost, 81);
    }

    #[test]
    fn the_best_go_on_and_ties_go_to_the_first() {
        let score = |configuration, mean| Score { mean, configuration };
        let scores = vec![
            score(0, Some(0.3)),
            score(1, None),
            score(2, Some(0.1)),
            score(3, Some(0.2)),
            score(4, Some(0.2)),
            score(5, Some(f64::INFINITY)),
        ];
        assert_eq!(halving(3, 1).choose(scores.clone()), [2, 3]);
        assert_eq!(halving(2, 1).choose(scores), [2, 3, 4]);
        assert_eq!(halving(2, 1).choose(vec![score(0, None), score(1, None)]), [0; 0]);
    }

    #[test]
    fn directions_come_from_the_schema() {
        let column = |name: &str, better: &str| Column {
            name: name.into(),
            better: better.into(),
            headline: None,
        };
        let sign = |better| halving(3, 1).sign(&[column("tv_exact", better)]);
        assert_eq!((sign("lower").unwrap(), sign("higher").unwrap()), (1.0, -1.0));
        let message = sign("neither").unwrap_err();
        assert_eq!(message.message(), "sweep.halving.metric: `tv_exact` improves neither way");
        assert!(halving(3, 1).sign(&[column("elbo", "higher")]).is_err());
    }
}
