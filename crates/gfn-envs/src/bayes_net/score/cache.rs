//! A cache of local scores by node and set of parents, for many threads at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::LocalScore;
use crate::bayes_net::graph::bit;

/// Up to this many nodes, values lie in a table of all sets.
const MAX_DENSE: usize = 20;
/// Values that such a table allocates at a time.
const CHUNK: usize = 1 << 12;
/// Slots of a node's first level; every further level has eight times as many.
const FIRST: usize = 1 << 12;
/// Levels of a node. What finds no place in the last, of two million slots, is computed anew each
/// time.
const LEVELS: usize = 4;
/// Slots that are looked at in a level.
const PROBES: usize = 8;

/// A [`LocalScore`] that remembers its values.
///
/// Without locks, but for allocations. Up to 20 nodes, every set has its place in a table, which is
/// allocated in parts as they are asked for: 4 MB a node at most. Beyond, a node has a chain of
/// open-addressed tables, each allocated when the one before gets crowded, 38 MB at most; a slot is
/// taken once and for all, so whoever finds a key there can trust the value, and computes it where
/// none has been written yet.
pub struct Cached<S> {
    score: S,
    nodes: Vec<Store>,
    misses: AtomicU64,
}

enum Store {
    Dense(Vec<OnceLock<Box<[AtomicU64]>>>),
    Hashed([OnceLock<Box<[Slot]>>; LEVELS]),
}

/// All words are complements, so that 0 stands for nothing: no mask of parents has all bits, and
/// the number with all bits is no score.
#[derive(Default)]
struct Slot {
    key: AtomicU64,
    value: AtomicU64,
}

impl<S: LocalScore> Cached<S> {
    /// An empty cache of `score`.
    pub fn new(score: S) -> Self {
        let d = score.n_nodes();
        let store = |_| match d {
            0..=MAX_DENSE => {
                let chunks = (1usize << d.saturating_sub(1)).div_ceil(CHUNK);
                Store::Dense((0..chunks).map(|_| OnceLock::new()).collect())
            }
            _ => Store::Hashed(Default::default()),
        };
        Self { nodes: (0..d).map(store).collect(), score, misses: AtomicU64::new(0) }
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

    /// The value of a cell, computed if there is none yet.
    fn of_cell(&self, cell: &AtomicU64, node: usize, parents: u64) -> f64 {
        let value = cell.load(Relaxed);
        if value != 0 {
            return f64::from_bits(!value);
        }
        let score = self.compute(node, parents);
        cell.store(!score.to_bits(), Relaxed);
        score
    }
}

/// The cell of a set among those without `node`.
fn dense_cell(chunks: &[OnceLock<Box<[AtomicU64]>>], node: usize, parents: u64) -> &AtomicU64 {
    let below = bit(node) - 1;
    let place = (parents & below | parents >> 1 & !below) as usize;
    let new = || (0..CHUNK).map(|_| AtomicU64::new(0)).collect();
    &chunks[place / CHUNK].get_or_init(new)[place % CHUNK]
}

/// The cell of a set in the first level that has it or has room for it.
fn hashed_cell(levels: &[OnceLock<Box<[Slot]>>; LEVELS], parents: u64) -> Option<&AtomicU64> {
    let key = !parents;
    // Fibonacci hashing: the upper bits of the product depend on all bits of the mask.
    let hash = parents.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    levels.iter().enumerate().find_map(|(k, level)| {
        let new = || (0..FIRST << (3 * k)).map(|_| Slot::default()).collect();
        let slots = level.get_or_init(new);
        let start = (hash >> (64 - slots.len().trailing_zeros())) as usize;
        (start..start + PROBES).find_map(|place| {
            let slot = &slots[place & (slots.len() - 1)];
            let mut found = slot.key.load(Relaxed);
            if found == 0 {
                let taken = slot.key.compare_exchange(0, key, Relaxed, Relaxed);
                found = taken.map_or_else(|other| other, |_| key);
            }
            (found == key).then_some(&slot.value)
        })
    })
}

impl<S: LocalScore> LocalScore for Cached<S> {
    fn n_nodes(&self) -> usize {
        self.score.n_nodes()
    }

    fn max_parents(&self) -> Option<usize> {
        self.score.max_parents()
    }

    fn score(&self, node: usize, parents: u64) -> f64 {
        let cell = match &self.nodes[node] {
            Store::Dense(chunks) => Some(dense_cell(chunks, node, parents)),
            Store::Hashed(levels) => hashed_cell(levels, parents),
        };
        match cell {
            Some(cell) => self.of_cell(cell, node, parents),
            None => self.compute(node, parents),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rayon::prelude::*;

    use super::*;
    use crate::bayes_net::graph::all_nodes;

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
        for d in [3, 14, 20, 21, 64] {
            let cached = Cached::new(Exact(d));
            assert_eq!(cached.max_parents(), Some(7));
            for round in 1..3 {
                let mut n = 0;
                for node in [0, d / 2, d - 1] {
                    // Also sparse masks, far apart, as large networks have them.
                    let spread = |set: u64| [set, set << 50, set.reverse_bits()];
                    let sets = (0..20_000).flat_map(spread);
                    let fits = |set: &u64| set & bit(node) == 0 && set & !all_nodes(d) == 0;
                    let sets: BTreeSet<u64> = sets.filter(fits).collect();
                    for &parents in &sets {
                        let value = cached.score(node, parents);
                        assert_eq!(value.to_bits(), Exact(d).score(node, parents).to_bits());
                    }
                    n += sets.len() as u64;
                }
                assert_eq!(cached.misses(), n, "{d} nodes, round {round}");
            }
        }
    }

    #[test]
    fn threads_agree() {
        for d in [20, 30] {
            threads_agree_on(&Cached::new(Exact(d)));
        }
    }

    fn threads_agree_on(cached: &Cached<Exact>) {
        let wrong = || {
            let differs = |i: &u64| {
                let (node, parents) = ((i & 1) as usize, (i / 2).wrapping_mul(7) % 10_007 * 4);
                let exact = cached.inner().score(node, parents);
                cached.score(node, parents).to_bits() != exact.to_bits()
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
        let cached = Cached::new(Exact(64));
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
                    Exact(64).score(0, parents).to_bits()
                );
            }
            assert_eq!(cached.misses(), 1000 + round * (1000 - room));
        }
    }
}
