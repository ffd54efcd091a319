//! A cache of local scores by node and set of parents, for many threads at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::LocalScore;

/// Slots of a node's first level; every further level has four times as many.
const FIRST: usize = 1 << 8;
/// Levels of a node. What finds no place in the last is computed anew each time; it has four
/// million slots.
const LEVELS: usize = 8;
/// Slots that are looked at in a level.
const PROBES: usize = 16;

/// A [`LocalScore`] that remembers its values.
///
/// Without locks: a node has a chain of open-addressed tables, each allocated when the one before
/// gets crowded. A slot is taken once and for all, so whoever finds a key there can trust the value,
/// and computes it where none has been written yet.
pub struct Cached<S> {
    score: S,
    nodes: Vec<[OnceLock<Box<[Slot]>>; LEVELS]>,
    misses: AtomicU64,
}

/// Both words are complements, so that 0 stands for nothing: no mask of parents has all bits, and
/// the number with all bits is no score.
#[derive(Default)]
struct Slot {
    key: AtomicU64,
    value: AtomicU64,
}

impl<S: LocalScore> Cached<S> {
    /// An empty cache of `score`.
    pub fn new(score: S) -> Self {
        let nodes = (0..score.n_nodes()).map(|_| Default::default()).collect();
        Self { score, nodes, misses: AtomicU64::new(0) }
    }

    /// How often a score was computed.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    /// What is cached.
    pub fn inner(&self) -> &S {
        &self.score
    }

    fn compute(&self, node: usize, parents: u64) -> f64 {
        self.misses.fetch_add(1, Relaxed);
        self.score.score(node, parents)
    }
}

/// The slots of a level in the order in which they are tried.
fn probes(level: &[Slot], parents: u64) -> impl Iterator<Item = &Slot> {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the mask.
    let hash = parents.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let start = (hash >> (64 - level.len().trailing_zeros())) as usize;
    (0..PROBES).map(move |k| &level[(start + k) & (level.len() - 1)])
}

impl<S: LocalScore> LocalScore for Cached<S> {
    fn n_nodes(&self) -> usize {
        self.score.n_nodes()
    }

    fn max_parents(&self) -> Option<usize> {
        self.score.max_parents()
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        let key = !parents;
        for (k, level) in self.nodes[node].iter().enumerate() {
            let new = || (0..FIRST << (2 * k)).map(|_| Slot::default()).collect();
            for slot in probes(level.get_or_init(new), parents) {
                let mut found = slot.key.load(Relaxed);
                if found == 0 {
                    let taken = slot.key.compare_exchange(0, key, Relaxed, Relaxed);
                    found = taken.map_or_else(|other| other, |_| key);
                }
                if found == key {
                    let value = slot.value.load(Relaxed);
                    if value != 0 {
                        return f64::from_bits(!value);
                    }
                    let score = self.compute(node, parents);
                    slot.value.store(!score.to_bits(), Relaxed);
                    return score;
                }
            }
        }
        self.compute(node, parents)
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    /// Different for every node and set.
    struct Exact(usize);

    impl LocalScore for Exact {
        fn n_nodes(&self) -> usize {
            self.0
        }

        fn score(&self, node: usize, parents: u64) -> f64 {
            if parents == 1 { f64::NEG_INFINITY } else { node as f64 * 1e-3 - parents as f64 }
        }

        fn max_parents(&self) -> Option<usize> {
            Some(7)
        }
    }

    #[test]
    fn values_are_those_of_the_score() {
        let cached = Cached::new(Exact(3));
        assert_eq!(cached.max_parents(), Some(7));
        for round in 1..3 {
            for node in 0..3 {
                for set in 0..5000u64 {
                    // Also sparse masks, far apart, as large networks have them.
                    for parents in [set, set << 50, set.reverse_bits()] {
                        let value = cached.score(node, parents);
                        assert_eq!(value.to_bits(), Exact(3).score(node, parents).to_bits());
                    }
                }
            }
            // The empty set is asked for three times over, the rest once.
            let distinct: std::collections::BTreeSet<u64> =
                (0..5000u64).flat_map(|set| [set, set << 50, set.reverse_bits()]).collect();
            assert_eq!(cached.misses(), 3 * distinct.len() as u64, "round {round}");
        }
    }

    #[test]
    fn threads_agree() {
        let cached = Cached::new(Exact(2));
        let wrong = || {
            let differs = |i: &u64| {
                let (node, parents) = ((i & 1) as usize, (i / 2).wrapping_mul(7) % 10_007);
                cached.score(node, parents).to_bits() != Exact(2).score(node, parents).to_bits()
            };
            (0..200_000u64).into_par_iter().filter(differs).count()
        };
        assert_eq!(wrong(), 0);
        // Two threads may compute the same score at once.
        let misses = cached.misses();
        assert!(misses >= 2 * 10_007, "{misses}");
        assert_eq!((wrong(), cached.misses()), (0, misses));
    }

    /// Keys that collide everywhere still get their values.
    #[test]
    fn a_full_cache_computes() {
        let cached = Cached::new(Exact(1));
        // Products of the multiplier's inverse and small numbers all hash to 0.
        let mut inverse = 1u64;
        for _ in 0..6 {
            let product = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(inverse);
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(product));
        }
        let sets: Vec<u64> = (0..1000).map(|k| inverse.wrapping_mul(k)).collect();
        let room = (LEVELS * PROBES) as u64;
        for round in 0..2 {
            for &parents in &sets {
                assert_eq!(
                    cached.score(0, parents).to_bits(),
                    Exact(1).score(0, parents).to_bits()
                );
            }
            assert_eq!(cached.misses(), 1000 + round * (1000 - room));
        }
    }
}
