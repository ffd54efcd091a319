//! Modes that are separated by Tanimoto similarity, as the papers on molecules count them, while
//! samples arrive.
//!
//! The papers count afterwards (Bengio et al. 2021; Tiapkin et al. 2024): samples are sorted by
//! descending reward, and each is a mode whose similarity to all modes before it lies below a
//! threshold. [`count`] does that. [`SeparatedModes`] keeps the best distinct molecules and gives the
//! same numbers at any time: whether a molecule is a mode depends only on those of higher reward, so
//! forgetting the lowest ones changes nothing above. What differs from the papers:
//!
//! * the pool is bounded: counts for thresholds at or below the best reward that was forgotten
//!   ([`SeparatedModes::forgotten`]) are lower bounds;
//! * equal rewards are ordered by key, not by the order of arrival, so that counts do not depend on
//!   batches.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;

/// How many separated modes there are with a reward of at least each threshold, exactly as the papers
/// count: equal rewards keep their order, and a sample is a mode if its similarity to each mode before
/// it lies below `similarity`. Samples of undefined reward are left out.
pub fn count(samples: &[(Fingerprint, f64)], similarity: f64, thresholds: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..samples.len()).filter(|&sample| !samples[sample].1.is_nan()).collect();
    order.sort_by(|&a, &b| samples[b].1.total_cmp(&samples[a].1));
    let mut modes: Vec<(Fingerprint, f64)> = Vec::new();
    for sample in order {
        let (fingerprint, reward) = samples[sample];
        if modes.iter().all(|(mode, _)| mode.tanimoto(&fingerprint) < similarity) {
            modes.push((fingerprint, reward));
        }
    }
    // Modes above a threshold are the same whether samples below it are looked at or not.
    let above = |&threshold: &f64| modes.iter().filter(|&&(_, reward)| reward >= threshold).count();
    thresholds.iter().map(above).collect()
}

/// The best distinct molecules so far, and the separated modes among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct SeparatedModes {
    similarity: f64,
    thresholds: Vec<f64>,
    capacity: usize,
    /// By descending reward, then by key.
    pool: BTreeMap<Rank, Member>,
    rewards: HashMap<String, f64>,
    forgotten: Option<f64>,
    /// Whether members have changed since modes were found.
    stale: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Rank {
    reward: f64,
    key: String,
}

impl Eq for Rank {}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        other.reward.total_cmp(&self.reward).then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    fingerprint: Fingerprint,
    is_mode: bool,
    /// A mode that was too similar when modes were found last: the first to look at next time.
    blocker: Option<Rank>,
}

impl SeparatedModes {
    /// No molecules yet. Modes have pairwise similarities below `similarity` (the papers: 0.7); they
    /// are counted for each of the reward thresholds, and molecules below the lowest are not kept.
    /// At most `capacity` molecules are, each some 400 bytes.
    pub fn new(similarity: f64, thresholds: Vec<f64>, capacity: usize) -> Self {
        Self {
            similarity,
            thresholds,
            capacity,
            pool: BTreeMap::new(),
            rewards: HashMap::new(),
            forgotten: None,
            stale: false,
        }
    }

    /// Whether a molecule with this key and reward would change anything: if not, its fingerprint
    /// need not be computed.
    pub fn wants(&self, key: &str, reward: f64) -> bool {
        let high_enough = self.thresholds.iter().any(|&threshold| reward >= threshold);
        let better = self.rewards.get(key).is_none_or(|&known| reward > known);
        let kept = self.pool.len() < self.capacity
            || self.rewards.contains_key(key)
            || self
                .pool
                .last_key_value()
                .is_some_and(|(last, _)| Rank { reward, key: key.to_owned() } < *last);
        // What is too low for a full pool is forgotten, which has to be noted.
        high_enough && better && (kept || self.forgotten.is_none_or(|known| reward > known))
    }

    /// Takes note of a molecule. `key` tells molecules apart (a canonical SMILES); if one comes again
    /// with another reward, the higher one counts.
    pub fn observe(&mut self, key: &str, fingerprint: &Fingerprint, reward: f64) {
        if !self.wants(key, reward) {
            return;
        }
        if let Some(known) = self.rewards.insert(key.to_owned(), reward) {
            self.pool.remove(&Rank { reward: known, key: key.to_owned() });
        }
        let member = Member { fingerprint: *fingerprint, is_mode: false, blocker: None };
        self.pool.insert(Rank { reward, key: key.to_owned() }, member);
        self.stale = true;
        while self.pool.len() > self.capacity {
            if let Some((last, _)) = self.pool.pop_last() {
                self.rewards.remove(&last.key);
                let forgotten = self.forgotten.map_or(last.reward, |known| known.max(last.reward));
                self.forgotten = Some(forgotten);
            }
        }
    }

    /// The number of separated modes with a reward of at least each threshold.
    pub fn counts(&mut self) -> Vec<usize> {
        let rewards: Vec<f64> = self.modes().map(|(_, reward)| reward).collect();
        let above =
            |&threshold: &f64| rewards.iter().filter(|&&reward| reward >= threshold).count();
        self.thresholds.iter().map(above).collect()
    }

    /// The keys and rewards of separated modes, by descending reward.
    pub fn modes(&mut self) -> impl Iterator<Item = (&str, f64)> {
        self.find_modes();
        let modes = self.pool.iter().filter(|(_, member)| member.is_mode);
        modes.map(|(rank, _)| (rank.key.as_str(), rank.reward))
    }

    /// The number of distinct molecules that are kept.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// The highest reward of a molecule that there was no room for: counts for thresholds at or below
    /// it are lower bounds, those above exact.
    pub fn forgotten(&self) -> Option<f64> {
        self.forgotten
    }

    fn find_modes(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let mut modes: BTreeMap<Rank, (Fingerprint, u32)> = BTreeMap::new();
        for (rank, member) in &mut self.pool {
            // All modes so far rank higher.
            let blocked = member.blocker.as_ref().is_some_and(|mode| modes.contains_key(mode));
            if !blocked {
                let n_bits = member.fingerprint.n_bits();
                let near = modes.iter().find(|(_, (mode, bits))| {
                    // The smaller of two sets over the larger bounds their similarity.
                    let (small, large) = (n_bits.min(*bits), n_bits.max(*bits));
                    f64::from(small) >= self.similarity * f64::from(large)
                        && mode.tanimoto(&member.fingerprint) >= self.similarity
                });
                member.blocker = near.map(|(mode, _)| mode.clone());
                if member.blocker.is_none() {
                    modes.insert(rank.clone(), (member.fingerprint, n_bits));
                }
            }
            member.is_mode = member.blocker.is_none();
        }
    }
}

/// What is written: modes are found again.
#[derive(Serialize, Deserialize)]
struct Stored {
    similarity: f64,
    thresholds: Vec<f64>,
    capacity: usize,
    forgotten: Option<f64>,
    pool: Vec<(String, f64, Fingerprint)>,
}

impl From<SeparatedModes> for Stored {
    fn from(modes: SeparatedModes) -> Self {
        let SeparatedModes { similarity, thresholds, capacity, pool, forgotten, .. } = modes;
        let pool = pool.into_iter();
        let pool = pool.map(|(Rank { reward, key }, member)| (key, reward, member.fingerprint));
        Self { similarity, thresholds, capacity, forgotten, pool: pool.collect() }
    }
}

impl From<Stored> for SeparatedModes {
    fn from(stored: Stored) -> Self {
        let Stored { similarity, thresholds, capacity, forgotten, pool } = stored;
        let mut modes = Self::new(similarity, thresholds, capacity);
        for (key, reward, fingerprint) in pool {
            modes.observe(&key, &fingerprint, reward);
        }
        modes.forgotten = forgotten;
        modes
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Fingerprints in clusters, rewards with ties.
    fn samples(seed: u64, n: usize) -> Vec<(String, Fingerprint, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let centers: Vec<[u64; 32]> = (0..12).map(|_| rng.random()).collect();
        (0..n)
            .map(|_| {
                let id = rng.random_range(0..n / 2);
                let mut of_id = ChaCha8Rng::seed_from_u64(1000 + id as u64);
                let mut words = centers[of_id.random_range(0..centers.len())];
                for word in &mut words {
                    *word ^= of_id.random::<u64>() & of_id.random::<u64>() & of_id.random::<u64>();
                }
                (format!("m{id:04}"), Fingerprint(words), f64::from(of_id.random_range(0..40_u8)))
            })
            .collect()
    }

    /// The papers' count on distinct molecules, ordered by key first so that ties agree.
    fn offline(samples: &[(String, Fingerprint, f64)], thresholds: &[f64]) -> Vec<usize> {
        let distinct: BTreeMap<_, _> =
            samples.iter().map(|(key, print, reward)| (key, (*print, *reward))).collect();
        count(&distinct.into_values().collect::<Vec<_>>(), 0.7, thresholds)
    }

    #[test]
    fn counts_online_are_those_offline_for_any_order_and_cuts() {
        let thresholds = vec![5.0, 20.0, 35.0];
        let mut samples = samples(0, 600);
        let expected = offline(&samples, &thresholds);
        assert!(expected[0] > 20 && expected[0] < 250 && expected[2] > 2, "{expected:?}");
        for every in [1, 7, 1000] {
            let mut modes = SeparatedModes::new(0.7, thresholds.clone(), 1000);
            for (index, (key, fingerprint, reward)) in samples.iter().enumerate() {
                modes.observe(key, fingerprint, *reward);
                if index % every == 0 {
                    let now = offline(&samples[..=index], &thresholds);
                    assert_eq!(modes.counts(), now, "after {index}");
                }
            }
            assert_eq!(modes.counts(), expected);
            assert_eq!(modes.forgotten(), None);
            samples.reverse();
        }
    }

    #[test]
    fn a_bounded_pool_is_exact_above_what_it_forgot_and_goes_on_after_being_stored() {
        let thresholds = vec![0.0, 10.0, 30.0, 36.0];
        let samples = samples(1, 800);
        let expected = offline(&samples, &thresholds);
        let mut modes = SeparatedModes::new(0.7, thresholds.clone(), 60);
        let mut other = modes.clone();
        for (index, (key, fingerprint, reward)) in samples.iter().enumerate() {
            modes.observe(key, fingerprint, *reward);
            assert!(modes.len() <= 60);
            if index == 400 {
                modes.counts();
                let text = serde_json::to_string(&modes).unwrap();
                modes = serde_json::from_str(&text).unwrap();
            }
        }
        for (key, fingerprint, reward) in samples.iter().rev() {
            other.observe(key, fingerprint, *reward);
        }
        let counts = modes.counts();
        assert_eq!(counts, other.counts());
        assert_eq!(modes.forgotten(), other.forgotten());
        let forgotten = modes.forgotten().unwrap();
        assert!(forgotten > 10.0 && forgotten < 36.0, "{forgotten}");
        for ((&threshold, &count), &exact) in thresholds.iter().zip(&counts).zip(&expected) {
            assert!(count <= exact);
            assert!(threshold <= forgotten || count == exact, "{counts:?} {expected:?}");
        }
    }

    #[test]
    fn a_second_reward_counts_if_it_is_higher() {
        let mut modes = SeparatedModes::new(0.7, vec![1.0], 10);
        let fingerprint = Fingerprint([1; 32]);
        modes.observe("a", &fingerprint, 2.0);
        modes.observe("a", &fingerprint, 3.0);
        modes.observe("a", &fingerprint, 1.5);
        modes.observe("b", &fingerprint, f64::NAN);
        modes.observe("c", &fingerprint, 0.5);
        assert_eq!(modes.modes().collect::<Vec<_>>(), [("a", 3.0)]);
        assert_eq!(modes.counts(), [1]);
    }
}
