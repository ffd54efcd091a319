//! The exact posterior over DAGs, without enumerating them: a recursion over sets of nodes.
//!
//! Write w_j(P) for the exponential of a local term and a_j(U) for its sum over P in U. Call U
//! *ancestral* if its nodes have no parents outside, and let R(U) be the weight of all ways to
//! choose the parents of the other nodes, acyclic, once U is ancestral. The nodes whose parents
//! all lie in U are *ready*; every DAG has some, so by inclusion and exclusion over sets T of them
//!
//!   R(V) = 1,   R(U) = sum over non-empty T outside U of (-1)^(|T| + 1) R(U + T) prod_T a_j(U)
//!
//! and Z = R(empty), relative to the base graph (Tian and He, 2009, from the other end). That is
//! 3^d terms and d 2^d numbers.
//!
//! **Precision.** A term of R(U) is the weight of the DAGs in which T is ready, at most R(U). Their
//! magnitudes add up to R(U) times the mean of 2^(number of ready nodes) - 1, which bounds what the
//! alternating signs cost: few digits for informative data, d bits at worst.
//!
//! **Marginals.** With one node j singled out, the same terms give the probability that j alone is
//! ready, given that U is ancestral: that U is exactly the set of j's non-descendants. Times the
//! probability of U being ancestral, from a second sweep that starts at the empty set, these are
//! exact marginals of edges, parent sets and paths: sums without any sign.
//!
//! **Samples** go from layer to layer: see [`Posterior::sample`].

mod marginals;
mod recursion;
mod sample;
pub mod wide;

use gfn_core::KeyError;
use rayon::prelude::*;

pub use marginals::Marginals;
use wide::Wide;

use super::score::modular::Modular;

/// The most nodes that a [`Posterior`] is computed for: 3.5e9 terms.
pub const MAX_EXACT_NODES: usize = 20;
/// Beyond this range of log rewards, in nats, exponents of two might not fit into 32 bits with room for
/// sums and differences.
const MAX_RANGE: f64 = 1e8;

/// The exact posterior exp(log R(G)) / Z over the DAGs that a [`Modular`] allows.
pub struct Posterior {
    d: usize,
    /// log w_j(P), by node and [squeezed](squeeze) set.
    locals: Vec<Vec<f64>>,
    /// a_j(U), likewise.
    sums: Vec<Vec<Wide>>,
    /// R(U).
    rest: Vec<Wide>,
    /// P(j alone is ready | U is ancestral), by node and squeezed set.
    alone: Vec<Vec<f64>>,
}

/// A set without the bit of node `j`, which it does not have: sets of the other nodes, numbered
/// without gaps.
#[inline]
fn squeeze(set: u32, j: usize) -> usize {
    let low = (1 << j) - 1;
    (set & low | set >> 1 & !low) as usize
}

/// The inverse of [`squeeze`].
#[inline]
fn spread(index: usize, j: usize) -> u32 {
    let (index, low) = (index as u32, (1 << j) - 1);
    index & low | (index & !low) << 1
}

/// The nodes of a set.
fn members(set: u32) -> impl Iterator<Item = usize> {
    super::graph::nodes_of(u64::from(set))
}

impl Posterior {
    /// The posterior of `modular`, by O(3^d) work on all threads.
    ///
    /// # Errors
    /// When there are more than [`MAX_EXACT_NODES`] nodes, more than `memory_limit` bytes would be
    /// needed, or no DAG is allowed.
    pub fn new(modular: &Modular, memory_limit: u64) -> Result<Self, KeyError> {
        let local = |node: usize, parents: u32| modular.relative(node, u64::from(parents));
        Self::of(modular.n_nodes(), local, memory_limit)
    }

    /// ln of the number of DAGs that `modular` allows.
    ///
    /// # Errors
    /// As [`Posterior::new`].
    pub fn log_n_allowed(modular: &Modular, memory_limit: u64) -> Result<f64, KeyError> {
        let local = |node: usize, parents: u32| match modular.local(node, u64::from(parents)) {
            f64::NEG_INFINITY => f64::NEG_INFINITY,
            _ => 0.0,
        };
        Ok(Self::of(modular.n_nodes(), local, memory_limit)?.log_z())
    }

    /// Bytes that the posterior of `d` nodes takes at most.
    pub fn memory(d: usize) -> u64 {
        if d > 40 {
            return u64::MAX;
        }
        let (sets, per_node, d) = (1u64 << d, 1u64 << d.saturating_sub(1), d as u64);
        let tables = d * per_node * (8 + 16 + 8) + sets * (16 + 8);
        // The widest layer of a sweep, and what every thread works on.
        let layer = sets / 3 * 8 * (MAX_EXACT_NODES as u64 + 3);
        tables + layer + rayon::current_num_threads() as u64 * sets * 12
    }

    fn of(
        d: usize,
        local: impl Fn(usize, u32) -> f64 + Sync,
        memory_limit: u64,
    ) -> Result<Self, KeyError> {
        let help = "learn it by sampling instead, or choose fewer variables";
        if d > MAX_EXACT_NODES {
            let message = format!(
                "the exact posterior is out of reach for {d} nodes; {MAX_EXACT_NODES} is the most"
            );
            return Err(KeyError::part(message).help(help));
        }
        let needed = Self::memory(d);
        if needed > memory_limit {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let (needed, limit) = (mib(needed), mib(memory_limit));
            let message = format!(
                "the exact posterior of {d} nodes takes {needed} MiB; the limit is {limit}"
            );
            return Err(KeyError::part(message).help("raise the limit, or ".to_owned() + help));
        }
        let sets = 1usize << (d - 1);
        let column = |j: usize| -> Vec<f64> {
            (0..sets).into_par_iter().map(|index| local(j, spread(index, j))).collect()
        };
        let locals: Vec<Vec<f64>> = (0..d).map(column).collect();
        let largest = |locals: &Vec<f64>| {
            let finite = locals.iter().filter(|local| **local != f64::NEG_INFINITY);
            let size = |local: &f64| if local.is_nan() { f64::INFINITY } else { local.abs() };
            finite.map(size).fold(0.0, f64::max)
        };
        let range: f64 = locals.iter().map(largest).sum();
        if range > MAX_RANGE {
            let message =
                format!("scores differ by {range:.1e} nats, too much for an exact posterior");
            return Err(
                KeyError::part(message).help("standardise the data, or choose a smaller beta")
            );
        }
        let sums: Vec<Vec<Wide>> = locals.par_iter().map(|locals| subset_sums(locals)).collect();
        let (rest, alone) = recursion::sweep(&sums);
        if !rest[0].is_positive() {
            let message = "no DAG is allowed: some nodes have no parents that form one";
            return Err(KeyError::part(message).help("relax the constraints, or list more sets"));
        }
        Ok(Self { d, locals, sums, rest, alone })
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.d
    }

    /// ln of the sum of R(G) over all DAGs; R of the base graph is 1.
    pub fn log_z(&self) -> f64 {
        self.rest[0].ln()
    }
}

/// For every set the sum of exp(x) over its subsets.
fn subset_sums(logs: &[f64]) -> Vec<Wide> {
    let mut sums: Vec<Wide> = logs.iter().map(|&x| Wide::exp(x)).collect();
    let mut half = 1;
    while half < sums.len() {
        for block in sums.chunks_exact_mut(2 * half) {
            let (without, with) = block.split_at_mut(half);
            with.iter_mut().zip(without).for_each(|(with, without)| *with = *with + *without);
        }
        half *= 2;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use gfn_core::special::log_sum_exp;
    use rand::RngExt;

    use super::super::graph::{ancestors, for_each_dag};
    use super::super::score::LocalScore;
    use super::super::score::modular::Constraints;
    use super::super::score::prior::Prior;
    use super::*;

    const LIMIT: u64 = 1 << 30;

    /// Independent scores of all sets, over a wide range; a third of the sets may be missing.
    struct Random {
        d: usize,
        spread: f64,
        holes: bool,
    }

    impl LocalScore for Random {
        fn n_nodes(&self) -> usize {
            self.d
        }

        fn score(&self, node: usize, parents: u64) -> f64 {
            let streams = gfn_core::Streams::new(parents);
            let mut rng = streams.get(gfn_core::Purpose::Test, node as u64);
            let score = -500.0 + self.spread * rng.random::<f64>();
            let hole = self.holes && parents != 0 && rng.random::<f64>() < 0.3;
            if hole { f64::NEG_INFINITY } else { score }
        }
    }

    fn modulars() -> Vec<Modular> {
        let mut modulars = Vec::new();
        for d in 1..=5usize {
            for (spread, holes) in [(0.0, false), (8.0, false), (300.0, false), (8.0, true)] {
                let required = (0..d).map(|i| if i == 2 { 0b1 } else { 0 }).collect();
                let forbidden = (0..d).map(|i| if i == 3 { 0b110 } else { 0 }).collect();
                let tight = Constraints { required, forbidden, max_parents: Some(2) };
                let tiers: Vec<usize> = (0..d).map(|i| usize::from(i == 4)).collect();
                for constraints in [Constraints::default(), tight.clone(), tight.with_tiers(&tiers)]
                {
                    let score = Arc::new(Random { d, spread, holes });
                    modulars
                        .push(Modular::new(score, Prior::Fair, None, 0.7, constraints).unwrap());
                }
            }
        }
        modulars
    }

    fn enumerate(modular: &Modular) -> Vec<(Vec<u64>, f64)> {
        let mut dags = Vec::new();
        for_each_dag(modular.n_nodes(), |dag| {
            let log_reward = modular.log_reward(dag);
            if log_reward > f64::NEG_INFINITY {
                dags.push((dag.to_vec(), log_reward));
            }
        });
        dags
    }

    #[test]
    fn the_recursion_is_enumeration() {
        for modular in modulars() {
            let d = modular.n_nodes();
            let dags = enumerate(&modular);
            let posterior = Posterior::new(&modular, LIMIT).unwrap();
            let log_z = log_sum_exp(dags.iter().map(|(_, log_reward)| *log_reward));
            assert!((posterior.log_z() - log_z).abs() < 1e-10 * log_z.abs().max(1.0));
            let n = Posterior::log_n_allowed(&modular, LIMIT).unwrap();
            assert!((n - (dags.len() as f64).ln()).abs() < 1e-12, "{n}");
            let marginals = posterior.marginals();
            let (mut edges, mut paths) = (vec![vec![0.0; d]; d], vec![vec![0.0; d]; d]);
            let (mut expected_edges, mut expected_log_reward, mut entropy) = (0.0, 0.0, 0.0);
            for (dag, log_reward) in &dags {
                let p = (log_reward - log_z).exp();
                let above = ancestors(dag);
                for j in 0..d {
                    members(dag[j] as u32).for_each(|i| edges[i][j] += p);
                    members(above[j] as u32).for_each(|i| paths[i][j] += p);
                    expected_edges += p * f64::from(dag[j].count_ones());
                }
                expected_log_reward += p * log_reward;
                entropy -= p * (log_reward - log_z);
            }
            for i in 0..d {
                for j in 0..d {
                    let gap = (marginals.edges[i][j] - edges[i][j]).abs();
                    assert!(gap < 1e-11, "{i} -> {j}: {gap}");
                    let gap = (marginals.paths[i][j] - paths[i][j]).abs();
                    assert!(gap < 1e-11, "{i} ... {j}: {gap}");
                }
            }
            assert!((marginals.expected_edges - expected_edges).abs() < 1e-10);
            assert!((marginals.expected_log_reward - expected_log_reward).abs() < 1e-8);
            assert!((marginals.entropy - entropy).abs() < 1e-8);
        }
    }

    /// Five groups of three nodes without edges between them: far beyond enumeration, but a product
    /// of five that are not. Many nodes are ready at once, so most of the digits cancel.
    #[test]
    fn separate_groups_multiply() {
        let d = 15;
        let forbidden = (0..d).map(|i| !(0b111 << (i / 3 * 3)) & 0x7fff).collect();
        let constraints = Constraints { forbidden, ..Constraints::default() };
        let score = Arc::new(Random { d, spread: 3.0, holes: false });
        let prior = Prior::EdgePenalty { beta: 0.05 };
        let modular = Modular::new(score, prior, None, 1.0, constraints).unwrap();
        let posterior = Posterior::new(&modular, LIMIT).unwrap();
        let marginals = posterior.marginals();
        let mut log_z = 0.0;
        for first in (0..d).step_by(3) {
            let (mut z, mut edge) = (0.0, 0.0);
            for_each_dag(3, |dag| {
                let locals = (0..3).map(|i| modular.relative(first + i, dag[i] << first));
                let weight = locals.sum::<f64>().exp();
                z += weight;
                edge += weight * (dag[1] & 1) as f64;
            });
            log_z += f64::ln(z);
            assert!((marginals.edges[first][first + 1] - edge / z).abs() < 1e-11);
        }
        assert!((posterior.log_z() - log_z).abs() < 1e-11);
        assert!(marginals.edges[0][3] < 1e-11);
    }

    /// Robinson's recurrence (1973), in numbers that hold them.
    /// Exponents of two that would not fit are not computed with.
    #[test]
    fn enormous_scores_have_no_exact_posterior() {
        for (spread, known) in [(1e6, true), (1e9, false), (1e300, false), (f64::NAN, false)] {
            let score = Arc::new(Random { d: 3, spread, holes: false });
            let posterior = Posterior::new(&Modular::of(score).unwrap(), LIMIT);
            assert_eq!(posterior.is_ok(), known, "{spread}");
        }
    }

    #[test]
    fn numbers_of_dags() {
        struct Zero(usize);
        impl LocalScore for Zero {
            fn n_nodes(&self) -> usize {
                self.0
            }
            fn score(&self, _node: usize, _parents: u64) -> f64 {
                0.0
            }
        }
        let mut counts = vec![1i128];
        for d in 1..=9usize {
            let (mut count, mut binomial) = (0i128, 1i128);
            for k in 1..=d {
                binomial = binomial * (d + 1 - k) as i128 / k as i128;
                let sign = if k % 2 == 1 { 1 } else { -1 };
                count += sign * binomial * (1i128 << (k * (d - k))) * counts[d - k];
            }
            counts.push(count);
        }
        assert_eq!(counts[..=6], [1, 1, 3, 25, 543, 29281, 3_781_503]);
        for (d, &count) in counts.iter().enumerate().skip(1) {
            let modular = Modular::of(Arc::new(Zero(d))).unwrap();
            let n = Posterior::log_n_allowed(&modular, LIMIT).unwrap();
            assert!((n - (count as f64).ln()).abs() < 1e-12, "{d}");
        }
    }

    /// Pearson's statistic over all DAGs, those expected less than 10 times pooled.
    #[test]
    fn samples_follow_the_posterior() {
        let n = 30_000;
        for (k, modular) in modulars().into_iter().enumerate() {
            if modular.n_nodes() < 3 {
                continue;
            }
            let posterior = Posterior::new(&modular, LIMIT).unwrap();
            let mut counts = BTreeMap::new();
            for dag in posterior.sample(n, k as u64) {
                *counts.entry(dag).or_insert(0.0) += 1.0;
            }
            let (mut statistic, mut cells, mut pool) = (0.0, 0.0, [0.0; 2]);
            for (dag, log_reward) in enumerate(&modular) {
                let expected = n as f64 * (log_reward - posterior.log_z()).exp();
                let found = counts.remove(&dag).unwrap_or(0.0);
                if expected < 10.0 {
                    pool[0] += expected;
                    pool[1] += found;
                } else {
                    statistic += (found - expected) * (found - expected) / expected;
                    cells += 1.0;
                }
            }
            assert!(counts.is_empty(), "graphs that are not allowed");
            assert!((pool[1] - pool[0]).abs() < 5.0 * pool[0].sqrt() + 5.0, "{pool:?}");
            let z = (statistic - cells + 1.0) / (2.0 * cells).sqrt();
            assert!(z < 5.0, "{k}: {statistic} over {cells}");
        }
    }

    #[test]
    fn samples_do_not_depend_on_their_number() {
        let modular = modulars().pop().unwrap();
        let posterior = Posterior::new(&modular, LIMIT).unwrap();
        let many = posterior.sample(500, 3);
        assert_eq!(posterior.sample(20, 3), many[..20]);
        assert_ne!(posterior.sample(500, 4), many);
    }

    #[test]
    fn refusals() {
        let of = |d| Modular::of(Arc::new(Random { d, spread: 1.0, holes: false })).unwrap();
        let error = Posterior::new(&of(21), u64::MAX).err().unwrap();
        assert!(error.message.contains("21 nodes"), "{error}");
        let error = Posterior::new(&of(12), 1 << 18).err().unwrap();
        assert!(error.message.contains("MiB; the limit is 1"), "{error}");
        assert_eq!(Posterior::memory(64), u64::MAX);

        /// Two nodes that both need the other.
        struct Stuck;
        impl LocalScore for Stuck {
            fn n_nodes(&self) -> usize {
                2
            }
            fn score(&self, _node: usize, parents: u64) -> f64 {
                if parents == 0 { f64::NEG_INFINITY } else { 0.0 }
            }
        }
        let error = Posterior::new(&Modular::of(Arc::new(Stuck)).unwrap(), LIMIT).err().unwrap();
        assert!(error.message.contains("no DAG is allowed"), "{error}");
    }
}
