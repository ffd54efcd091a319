//! Random subsets of numbered objects, for metrics on a few at a time.

use rand::RngExt;
use rustc_hash::FxHashSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rng::{Purpose, Streams};

/// How many subsets, and how large: settings of a metric.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Subsets {
    /// Number of subsets, at least 1.
    pub(super) subsets: usize,
    /// Objects per subset, at least 2.
    pub(super) size: usize,
}

impl Default for Subsets {
    fn default() -> Self {
        Self { subsets: 128, size: 32 }
    }
}

impl Subsets {
    /// Different numbers below n, as many as a subset has objects, or all of them once if there are no
    /// more; none if there are not two. Subset k is drawn from stream k: the same at every evaluation.
    pub(super) fn draw(self, streams: Streams, n: usize) -> Vec<Vec<usize>> {
        let size = self.size;
        if n <= size {
            return if n < 2 { Vec::new() } else { vec![(0..n).collect()] };
        }
        let draw = |k: usize| {
            let mut rng = streams.at(Purpose::Subset, 0, k as u64);
            // Floyd's way: every subset has the same probability.
            let (mut taken, mut subset) = (FxHashSet::default(), Vec::with_capacity(size));
            for last in n - size..n {
                let drawn = rng.random_range(0..=last as u64) as usize;
                let new = if taken.contains(&drawn) { last } else { drawn };
                taken.insert(new);
                subset.push(new);
            }
            subset
        };
        (0..self.subsets).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs out of four: each of the six as often as the others.
    #[test]
    fn subsets_are_uniform() {
        let (streams, pairs) = (Streams::new(2), Subsets { subsets: 6000, size: 2 });
        let mut counts = [0.0; 16];
        for subset in pairs.draw(streams, 4) {
            assert!(subset[0] != subset[1]);
            counts[1 << subset[0] | 1 << subset[1]] += 1.0;
        }
        let bits: Vec<usize> = (0..16usize).filter(|bits| bits.count_ones() == 2).collect();
        let chi2: f64 = bits.iter().map(|&p| (counts[p] - 1000.0f64).powi(2) / 1000.0).sum();
        // 5 degrees of freedom exceed 20.5 with probability 0.001.
        assert!(chi2 < 20.5, "{chi2}");
        let default = Subsets::default();
        assert_eq!(default.draw(streams, 32), [(0..32).collect::<Vec<_>>()]);
        assert_eq!(default.draw(streams, 2), [[0, 1]]);
        assert!(default.draw(streams, 1).is_empty());
    }
}
