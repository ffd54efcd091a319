//! Statistics over seeds: what is drawn of several runs, and how sure one can be of it.
//!
//! The interquartile mean and percentile bootstrap intervals are those of Agarwal et al. 2021, "Deep
//! Reinforcement Learning at the Edge of the Statistical Precipice".

use clap::ValueEnum;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Bootstrap resamples per interval.
const RESAMPLES: usize = 2000;
/// All intervals are of the same draws, so that pictures repeat to the byte.
const SEED: u64 = 0;

/// One number for several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Statistic {
    /// The mean.
    Mean,
    /// The interquartile mean.
    Iqm,
    /// The median.
    Median,
}

impl Statistic {
    /// The statistic of at least one value; sorts them.
    pub fn of(self, values: &mut [f64]) -> f64 {
        values.sort_by(f64::total_cmp);
        match self {
            Self::Mean => mean(values),
            Self::Iqm => interquartile_mean(values),
            Self::Median => quantile(values, 0.5),
        }
    }

    /// Its name in captions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Iqm => "interquartile mean",
            Self::Median => "median",
        }
    }
}

/// The mean; NaN of no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation (divided by n - 1), of at least two values.
pub fn std(values: &[f64]) -> Option<f64> {
    let n = values.len();
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (n >= 2).then(|| (squares / (n - 1) as f64).sqrt())
}

/// The mean without the lowest and the highest ⌊n/4⌋ of sorted values (rliable's 25 % trimmed mean):
/// with fewer than four it is the mean.
fn interquartile_mean(sorted: &[f64]) -> f64 {
    let cut = sorted.len() / 4;
    mean(&sorted[cut..sorted.len() - cut])
}

/// The quantile of at least one sorted value, interpolated linearly between order statistics (type 7
/// of Hyndman and Fan 1996, the default of NumPy and R).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (place - place.floor()) * (sorted[above] - sorted[below])
}

/// The percentile bootstrap interval of a statistic at a confidence `level`, of at least two values.
/// Deterministic: equal values in equal order give equal intervals.
pub fn bootstrap(values: &[f64], statistic: Statistic, level: f64) -> Option<[f64; 2]> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut resample = vec![0.0; n];
    let mut statistics: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample.fill_with(|| values[rng.random_range(0..n as u64) as usize]);
            statistic.of(&mut resample)
        })
        .collect();
    statistics.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some([quantile(&statistics, tail), quantile(&statistics, 1.0 - tail)])
}

/// A number with so many significant digits, without exponent where that is short.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let exponent = value.abs().log10().floor() as i32;
    match exponent {
        -5..6 => {
            let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.0$e}", digits - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    /// Hand values; those of the trimmed mean are scipy.stats.trim_mean(x, 0.25).
    #[test]
    fn statistics_have_their_known_values() {
        close(mean(&[1.0, 2.0, 6.0]), 3.0);
        close(std(&[1.0, 2.0, 6.0]).unwrap(), 7f64.sqrt());
        assert_eq!(std(&[1.0]), None);
        close(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        close(quantile(&[1.0, 2.0, 4.0, 8.0], 0.25), 1.75);
        close(quantile(&[5.0], 0.9), 5.0);
        close(Statistic::Median.of(&mut [9.0, 1.0, 4.0]), 4.0);
        close(Statistic::Iqm.of(&mut [100.0, 1.0, 2.0, 3.0]), 2.5);
        close(Statistic::Iqm.of(&mut [0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 99.0, 99.0]), 4.6);
        close(Statistic::Iqm.of(&mut [1.0, 2.0, 6.0]), 3.0);
    }

    /// The mean of two draws from {0, 1} is 0 or 1 with probability 1/4 each: both tails end there. Of
    /// three values the lowest mean has probability 1/27 > 0.025.
    #[test]
    fn intervals_of_few_values_are_their_range() {
        assert_eq!(bootstrap(&[1.0, 0.0], Statistic::Mean, 0.95), Some([0.0, 1.0]));
        assert_eq!(bootstrap(&[1.0, 0.0, 5.0], Statistic::Mean, 0.95), Some([0.0, 5.0]));
        assert_eq!(bootstrap(&[2.0; 4], Statistic::Iqm, 0.95), Some([2.0, 2.0]));
        assert_eq!(bootstrap(&[2.0], Statistic::Mean, 0.95), None);
    }

    /// Of many values: mean ± 1.96 σ/√n, with σ the standard deviation divided by n.
    #[test]
    fn intervals_of_many_values_are_normal() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let [low, high] = bootstrap(&values, Statistic::Mean, 0.95).unwrap();
        let half = 1.96 * ((20.0f64 * 20.0 - 1.0) / 12.0).sqrt() / 20.0;
        assert!((low - (9.5 - half)).abs() < 0.06, "{low}");
        assert!((high - (9.5 + half)).abs() < 0.06, "{high}");
        assert_eq!(bootstrap(&values, Statistic::Mean, 0.95), Some([low, high]));
    }
}
