//! How well predictions agree with values.

use std::collections::BTreeMap;

use gfn_core::metric::spearman;
use gfn_core::{Environment, States};
use serde::{Deserialize, Serialize};

/// Agreement over some objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of objects.
    pub n: usize,
    /// Mean absolute error.
    pub mae: f64,
    /// Root mean squared error.
    pub rmse: f64,
    /// 1 - mean squared error / variance of the values; none where these are all equal.
    pub r2: Option<f64>,
    /// Spearman's rank correlation; none where one side is all equal.
    pub spearman: Option<f64>,
}

impl Scores {
    /// Of predictions and values, in the same order; none if there are none.
    pub fn of(predicted: &[f64], values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = |numbers: &mut dyn Iterator<Item = f64>| numbers.sum::<f64>() / n as f64;
        let errors = || predicted.iter().zip(values).map(|(predicted, value)| predicted - value);
        let squared = mean(&mut errors().map(|error| error * error));
        let centre = mean(&mut values.iter().copied());
        let variance = mean(&mut values.iter().map(|value| (value - centre).powi(2)));
        Some(Self {
            n,
            mae: mean(&mut errors().map(f64::abs)),
            rmse: squared.sqrt(),
            r2: (variance > 0.0).then(|| 1.0 - squared / variance),
            spearman: spearman(predicted, values),
        })
    }
}

/// Classes with fewer held-out objects are not reported: their errors would say little.
pub const LEAST_PER_CLASS: usize = 50;

/// The scores of each class of each classification that is large enough, in the order of the names;
/// classes that are numbers in that of the numbers.
pub fn by_class(
    env: &dyn Environment,
    objects: &States,
    predicted: &[f64],
    values: &[f64],
) -> Vec<(String, Vec<(String, Scores)>)> {
    type Class = (Vec<f64>, Vec<f64>);
    let mut classes: BTreeMap<&'static str, BTreeMap<String, Class>> = BTreeMap::new();
    for (i, row) in objects.rows().enumerate() {
        for (name, class) in env.strata(row) {
            let class = classes.entry(name).or_default().entry(class).or_default();
            class.0.push(predicted[i]);
            class.1.push(values[i]);
        }
    }
    let scored = classes.into_iter().map(|(name, classes)| {
        let large = classes.into_iter().filter(|(_, (_, values))| values.len() >= LEAST_PER_CLASS);
        let mut scored: Vec<(String, Scores)> =
            large.filter_map(|(class, (p, v))| Some((class, Scores::of(&p, &v)?))).collect();
        scored.sort_by(|(a, _), (b, _)| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        });
        (name.to_owned(), scored)
    });
    scored.filter(|(_, scored)| !scored.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        // Errors 0, 1, -1, 2 on values of variance 5.
        let scores = Scores::of(&[1.0, 4.0, 4.0, 9.0], &[1.0, 3.0, 5.0, 7.0]).unwrap();
        assert_eq!((scores.n, scores.mae), (4, 1.0));
        assert!((scores.rmse - 1.5f64.sqrt()).abs() < 1e-15);
        assert!((scores.r2.unwrap() - (1.0 - 1.5 / 5.0)).abs() < 1e-15);
        // Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
        assert!((scores.spearman.unwrap() - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(Scores::of(&[], &[]), None);
        assert_eq!(Scores::of(&[1.0, 2.0], &[3.0, 3.0]).unwrap().r2, None);
    }
}
