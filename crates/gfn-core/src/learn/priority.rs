//! Which items of a replay buffer are drawn: all alike, or some more often than others.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyError;

/// How items are drawn from a replay buffer, with replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// All alike.
    #[default]
    Uniform,
    /// By their last loss (Schaul et al. 2016, arXiv:1511.05952).
    Loss(ByLoss),
    /// Some from the best by reward, the others from the rest (Shen et al. 2023, arXiv:2305.07170).
    Reward(ByReward),
}

/// One of N items is drawn with P(i) = (1 - u) p_i / Σ p + u / N, p_i = (loss_i + 1e-8)^alpha, and counts with
/// weight (N P(i))^-beta, which at beta = 1 makes the expected gradient that of uniform draws; no weight
/// exceeds u^-beta. What is new has the largest priority yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ByLoss {
    /// Power of the loss; 0 draws all alike.
    pub alpha: f64,
    /// Power of the weights, from 0 (none) to 1 (all of the bias taken back).
    pub beta: f64,
    /// u, the share of draws that are uniform: without, rare items of small loss weigh so much that gradients
    /// are all noise.
    pub uniform: f64,
    /// Iterations in which beta rises linearly to 1; 0: it stays.
    pub beta_steps: u64,
}

impl Default for ByLoss {
    fn default() -> Self {
        Self { alpha: 0.5, beta: 1.0, uniform: 0.1, beta_steps: 0 }
    }
}

impl ByLoss {
    /// beta at an iteration.
    fn beta_at(&self, step: u64) -> f64 {
        match self.beta_steps {
            0 => self.beta,
            steps => self.beta + (1.0 - self.beta) * (step as f64 / steps as f64).min(1.0),
        }
    }
}

/// A share of draws comes from the best items by reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ByReward {
    /// Which share of the buffer is the best.
    pub best: f64,
    /// Which share of draws comes from it.
    pub share: f64,
}

impl Default for ByReward {
    fn default() -> Self {
        Self { best: 0.1, share: 0.5 }
    }
}

impl Priority {
    /// Checks the numbers.
    ///
    /// # Errors
    /// When one is out of range; the key is `priority`.
    pub fn check(&self) -> Result<(), KeyError> {
        let numbers: &[(&str, f64)] = match self {
            Self::Uniform => &[],
            Self::Loss(by) => &[("alpha", by.alpha), ("beta", by.beta), ("uniform", by.uniform)],
            Self::Reward(by) => &[("best", by.best), ("share", by.share)],
        };
        match numbers.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            Some((key, value)) => {
                let message = format!("`{key}` must lie in [0, 1], not {value}");
                Err(KeyError::new("priority", message))
            }
            None => Ok(()),
        }
    }
}

/// Numbers at leaves, their sums above: one is set, or found in proportion to it, in log time. Every inner
/// sum is that of its two children, whatever came before: equal leaves make equal trees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumTree {
    /// The root at 1, children of i at 2 i and 2 i + 1; leaves fill the second half.
    nodes: Vec<f64>,
}

impl SumTree {
    /// The numbers, up to the last that was set or more.
    fn leaves(&self) -> &[f64] {
        &self.nodes[self.nodes.len() / 2..]
    }

    /// Makes room for a leaf, with zeros.
    fn reserve(&mut self, leaf: usize) {
        let n = self.leaves().len();
        if leaf < n {
            return;
        }
        let mut leaves = self.leaves().to_vec();
        leaves.resize((leaf + 1).next_power_of_two().max(2), 0.0);
        let n = leaves.len();
        self.nodes = vec![0.0; n];
        self.nodes.extend(leaves);
        for i in (1..n).rev() {
            self.nodes[i] = self.nodes[2 * i] + self.nodes[2 * i + 1];
        }
    }

    /// Sets a leaf, a number of at least 0.
    pub fn set(&mut self, leaf: usize, value: f64) {
        self.reserve(leaf);
        let mut i = self.nodes.len() / 2 + leaf;
        self.nodes[i] = value;
        while i > 1 {
            i /= 2;
            self.nodes[i] = self.nodes[2 * i] + self.nodes[2 * i + 1];
        }
    }

    /// The number at a leaf.
    pub fn get(&self, leaf: usize) -> f64 {
        self.leaves().get(leaf).copied().unwrap_or(0.0)
    }

    /// The sum of all.
    pub fn total(&self) -> f64 {
        self.nodes.get(1).copied().unwrap_or(0.0)
    }

    /// The leaf in which the running sum passes `at`, a number in [0, total); never one of 0.
    pub fn find(&self, mut at: f64) -> usize {
        let n = self.nodes.len() / 2;
        let mut i = 1;
        while i < n {
            let left = self.nodes[2 * i];
            // Rounding may leave `at` behind the last leaf that is not 0.
            let right = at >= left && self.nodes[2 * i + 1] > 0.0;
            if right {
                at -= left;
            }
            i = 2 * i + usize::from(right);
        }
        i - n
    }
}

/// What a buffer knows of the priorities of its items.
#[derive(Clone, Debug, PartialEq)]
pub struct Priorities {
    /// How they are drawn.
    pub by: Priority,
    /// For `loss`, (loss + 1e-8)^alpha at every place.
    tree: SumTree,
    /// The largest of them yet.
    largest: f64,
}

/// Places that were drawn, and what each counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    /// Places in the buffer.
    pub of: Vec<usize>,
    /// Weight of each; none where all count alike.
    pub weights: Option<Vec<f64>>,
}

impl Priorities {
    /// Of an empty buffer.
    pub fn new(by: Priority) -> Self {
        Self { by, tree: SumTree::default(), largest: 1.0 }
    }

    /// A new item has come to a place.
    pub fn added(&mut self, place: usize) {
        if let Priority::Loss(_) = self.by {
            self.tree.set(place, self.largest);
        }
    }

    /// The losses of the items at some places, just computed.
    pub fn learned(&mut self, places: &[usize], losses: &[f64]) {
        let Priority::Loss(by) = self.by else { return };
        for (&place, loss) in places.iter().zip(losses) {
            let priority = (loss.abs() + 1e-8).powf(by.alpha);
            self.largest = self.largest.max(priority);
            self.tree.set(place, priority);
        }
    }

    /// Draws `n` of `len` places, with replacement; `log_reward` says that of the item at a place.
    ///
    /// # Panics
    /// When there is none.
    pub fn draw(
        &self,
        n: usize,
        len: usize,
        step: u64,
        log_reward: impl Fn(usize) -> f64,
        rng: &mut ChaCha8Rng,
    ) -> Places {
        let among = |len: usize, rng: &mut ChaCha8Rng| rng.random_range(0..len as u32) as usize;
        match self.by {
            Priority::Uniform => {
                Places { of: (0..n).map(|_| among(len, rng)).collect(), weights: None }
            }
            Priority::Loss(by) => {
                let (total, beta) = (self.tree.total(), by.beta_at(step));
                let mut place = || match by.uniform > 0.0 && rng.random::<f64>() < by.uniform {
                    true => among(len, rng),
                    false => self.tree.find(rng.random::<f64>() * total),
                };
                let of: Vec<usize> = (0..n).map(|_| place()).collect();
                let weight = |&place: &usize| {
                    let priority = len as f64 * self.tree.get(place) / total;
                    ((1.0 - by.uniform) * priority + by.uniform).powf(-beta)
                };
                let weights = (beta > 0.0).then(|| of.iter().map(weight).collect());
                Places { of, weights }
            }
            Priority::Reward(by) => {
                let mut order: Vec<(f64, usize)> = (0..len).map(|i| (log_reward(i), i)).collect();
                let n_best = ((by.best * len as f64).ceil() as usize).clamp(1, len);
                let better =
                    |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
                order.select_nth_unstable_by(n_best - 1, better);
                // The order within the parts is that of the buffer, not of the selection.
                let (best, rest) = order.split_at_mut(n_best);
                for part in [&mut *best, &mut *rest] {
                    part.sort_unstable_by_key(|(_, place)| *place);
                }
                let from_best = (by.share * n as f64).round() as usize;
                let draw = |i: usize| {
                    let part = if i < from_best || rest.is_empty() { &*best } else { &*rest };
                    part[among(part.len(), rng)].1
                };
                Places { of: (0..n).map(draw).collect(), weights: None }
            }
        }
    }

    /// Priorities of all places, for a checkpoint: the largest yet comes last.
    pub fn save(&self, len: usize) -> Vec<f64> {
        (0..len).map(|place| self.tree.get(place)).chain([self.largest]).collect()
    }

    /// Restores what [`save`](Self::save) returned.
    ///
    /// # Errors
    /// When it is of a buffer of another length, or damaged.
    pub fn load(&mut self, len: usize, saved: &[f64]) -> Result<(), String> {
        let Some((largest, priorities)) = saved.split_last() else {
            return Err("priorities of a replay buffer are missing".to_owned());
        };
        let fit = |value: &f64| value.is_finite() && *value >= 0.0;
        if priorities.len() != len || !saved.iter().all(fit) {
            return Err(format!("{} priorities of {len} replayed items", priorities.len()));
        }
        self.tree = SumTree::default();
        for (place, &priority) in priorities.iter().enumerate().rev() {
            self.tree.set(place, priority);
        }
        self.largest = *largest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};

    fn rng() -> ChaCha8Rng {
        Streams::new(4).get(Purpose::Test, 0)
    }

    /// Pearson's statistic of counts against probabilities.
    fn chi2(counts: &[u32], p: &[f64]) -> f64 {
        let n: u32 = counts.iter().sum();
        let term =
            |(&c, &p): (&u32, &f64)| (f64::from(c) - f64::from(n) * p).powi(2) / (f64::from(n) * p);
        counts.iter().zip(p).filter(|(_, p)| **p > 0.0).map(term).sum()
    }

    #[test]
    fn sums_do_not_depend_on_the_past() {
        let (mut grown, mut filled) = (SumTree::default(), SumTree::default());
        let values: Vec<f64> = (0..37).map(|i| f64::from(i * i % 11) * 0.1).collect();
        for (i, &value) in values.iter().enumerate() {
            grown.set(i, 5.0 - value);
        }
        (0..37).rev().for_each(|i| filled.set(i, values[i]));
        values.iter().enumerate().for_each(|(i, &value)| grown.set(i, value));
        assert_eq!(grown, filled);
        assert!((grown.total() - values.iter().sum::<f64>()).abs() < 1e-12);
        let mut sum = 0.0;
        for (i, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            assert_eq!(grown.find(sum + value / 2.0), i);
            sum += value;
        }
        // Behind the end by rounding: the last that is not 0.
        let last = values.iter().rposition(|&value| value > 0.0).unwrap();
        assert_eq!(grown.find(grown.total()), last);
    }

    /// Two numbers for each place, whose number is rounded up to a power of two.
    #[test]
    fn trees_have_no_more_room_than_they_need() {
        let mut tree = SumTree::default();
        for (n, places) in [(1, 2), (100, 128), (129, 256), (1000, 1024)] {
            (0..n).for_each(|place| tree.set(place, 1.0));
            assert_eq!([tree.nodes.len(), tree.nodes.capacity()], [2 * places; 2], "{n}");
        }
    }

    /// Frequencies follow (loss + 1e-8)^alpha and the uniform share; weighted by (N P)^-1 they are uniform in expectation.
    #[test]
    fn draws_follow_losses_and_weights_take_that_back() {
        let by = ByLoss { alpha: 0.7, beta: 1.0, uniform: 0.1, beta_steps: 0 };
        let mut priorities = Priorities::new(Priority::Loss(by));
        let losses = [4.0, 0.5, 0.0, 1.0, 9.0];
        (0..5).for_each(|place| priorities.added(place));
        priorities.learned(&[0, 1, 2, 3, 4], &losses);
        let raw = losses.map(|loss: f64| (loss + 1e-8).powf(0.7));
        let total: f64 = raw.iter().sum();
        let p = raw.map(|raw| 0.9 * raw / total + 0.1 / 5.0);
        let drawn = priorities.draw(20_000, 5, 0, |_| 0.0, &mut rng());
        let mut counts = [0; 5];
        let mut weighted = [0.0; 5];
        for (&place, weight) in drawn.of.iter().zip(drawn.weights.as_ref().unwrap()) {
            counts[place] += 1;
            weighted[place] += weight;
        }
        // 4 degrees of freedom exceed 18.5 with probability 0.001.
        assert!(chi2(&counts, &p) < 18.5, "{counts:?}");
        for (count, weighted) in counts.iter().zip(weighted) {
            // A fifth of the draws each, within five standard errors.
            let error = f64::from(*count).sqrt() / f64::from(*count);
            assert!((weighted / 4000.0 - 1.0).abs() < 5.0 * error, "{counts:?} {weighted}");
        }
        // With 0 for beta there are no weights; it rises to 1.
        let rising = ByLoss { beta: 0.2, beta_steps: 10, ..by };
        for (step, beta) in [(0, 0.2), (5, 0.6), (10, 1.0), (99, 1.0)] {
            assert!((rising.beta_at(step) - beta).abs() < 1e-12);
        }
    }

    #[test]
    fn the_best_are_drawn_in_their_share() {
        let by = ByReward { best: 0.2, share: 0.5 };
        let priorities = Priorities::new(Priority::Reward(by));
        // The best two of ten are 3 and 7.
        let log_reward =
            |place: usize| if place == 3 || place == 7 { 1.0 } else { -(place as f64) };
        let drawn = priorities.draw(20_000, 10, 0, log_reward, &mut rng()).of;
        let mut counts = [0; 10];
        drawn.iter().for_each(|&place| counts[place] += 1);
        assert_eq!(counts[3] + counts[7], 10_000);
        let p: Vec<f64> =
            (0..10).map(|place| if place == 3 || place == 7 { 0.25 } else { 0.5 / 8.0 }).collect();
        // 8 degrees of freedom exceed 26.1 with probability 0.001.
        assert!(chi2(&counts, &p) < 26.1, "{counts:?}");
        // One item is the best and the rest.
        assert_eq!(priorities.draw(3, 1, 0, |_| 0.0, &mut rng()).of, [0, 0, 0]);
    }

    #[test]
    fn priorities_are_restored() {
        let mut priorities = Priorities::new(Priority::Loss(ByLoss::default()));
        (0..5).for_each(|place| priorities.added(place));
        priorities.learned(&[1, 3], &[0.3, 400.0]);
        let saved = priorities.save(5);
        let mut restored = Priorities::new(priorities.by);
        restored.load(5, &saved).unwrap();
        assert_eq!(restored, priorities);
        assert!(restored.load(4, &saved).is_err());
        assert!(restored.load(0, &[]).is_err());
        assert!(restored.load(1, &[f64::NAN, 1.0]).is_err());
        let bad = Priority::Loss(ByLoss { alpha: 1.5, ..ByLoss::default() });
        assert!(bad.check().is_err());
    }
}
