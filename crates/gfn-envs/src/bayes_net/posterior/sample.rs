//! Independent samples of the exact posterior.

use std::collections::BTreeMap;

use gfn_core::rng::{Purpose, Streams};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;

use super::recursion::{Terms, free_nodes};
use super::{Posterior, squeeze};

/// A graph whose parents are drawn layer by layer.
struct Sample {
    index: usize,
    rng: ChaCha8Rng,
    parents: Vec<u64>,
}

/// Samples by the nodes that have been placed, and those of them in the last layer.
type Groups = BTreeMap<u32, BTreeMap<u32, Vec<Sample>>>;

impl Posterior {
    /// `n` independent exact samples, as masks of parents; the same for one seed, whatever the
    /// number of threads.
    ///
    /// A DAG has one partition into layers: its roots, then what is ready once those are placed,
    /// and so on. Given the placed nodes U and the last layer L among them, the other nodes all
    /// have a parent outside U - L, since else they had been placed before. So the next layer is T
    /// with a probability proportional to
    ///
    ///   (weight of the ways in which exactly T is ready) x prod over T of (1 - a_j(U - L) / a_j(U))
    ///
    /// where the first factor is the alternating sum over supersets of T of the recursion's terms,
    /// and the parents of the nodes in T are independent of each other and of all that follows:
    /// any set in U that meets L, in proportion to its weight. Both factors are rounded relative
    /// to the weight of all ways that have U ancestral, so a draw is off by rounding in its
    /// probability, not relative to it.
    pub fn sample(&self, n: usize, seed: u64) -> Vec<Vec<u64>> {
        let streams = Streams::new(seed);
        let new = |index| {
            let rng = streams.at(Purpose::Sample, 0, index as u64);
            Sample { index, rng, parents: vec![0; self.d] }
        };
        let mut done = vec![Vec::new(); n];
        let mut groups = Groups::new();
        groups.entry(0).or_default().insert(0, (0..n).map(new).collect());
        while !groups.is_empty() {
            let placed: Vec<_> = std::mem::take(&mut groups).into_iter().collect();
            let moved: Vec<_> = placed
                .into_par_iter()
                .map_init(Terms::default, |terms, (u, layers)| self.advance(u, layers, terms))
                .collect();
            for (u, last, sample) in moved.into_iter().flatten() {
                if u == (1 << self.d) - 1 {
                    done[sample.index] = sample.parents;
                } else {
                    groups.entry(u).or_default().entry(last).or_default().push(sample);
                }
            }
        }
        done
    }

    /// Draws the next layer, and the parents of its nodes, of all samples that have placed `u`.
    fn advance(
        &self,
        u: u32,
        layers: BTreeMap<u32, Vec<Sample>>,
        terms: &mut Terms,
    ) -> Vec<(u32, u32, Sample)> {
        let mut nodes = Vec::new();
        free_nodes(&self.sums, u, (1 << self.d) - 1, &mut nodes);
        let n = 1usize << nodes.len();
        let whole = self.rest[u as usize];
        terms.fill((&self.sums, &self.rest), u, 0, &nodes, 1.0);
        let exactly = terms.scaled(n, whole.exponent());
        superset_differences(exactly);
        let mut moved = Vec::new();
        for (last, samples) in layers {
            let held = |j: usize| self.sums[j][squeeze(u & !last, j)];
            let fresh = |&j: &usize| match u {
                0 => 1.0,
                _ => (1.0 - held(j).ratio(self.sums[j][squeeze(u, j)])).max(0.0),
            };
            let cumulated = cumulate_products(exactly, nodes.iter().map(fresh));
            let mut drawn: Vec<(u32, Sample)> = Vec::with_capacity(samples.len());
            for mut sample in samples {
                match draw(&cumulated, &mut sample.rng) {
                    Some(t) => {
                        let chosen = (0..nodes.len()).filter(|k| t >> k & 1 == 1);
                        drawn.push((chosen.fold(0, |set, k| set | 1 << nodes[k]), sample));
                    }
                    // A state that only rounding reaches: the sample starts afresh.
                    None => moved.push((0, 0, sample)),
                }
            }
            for &j in &nodes {
                let mut concerned = drawn.iter_mut().filter(|(t, _)| t >> j & 1 == 1).peekable();
                if concerned.peek().is_some() {
                    let (sets, cumulated) = self.parent_sets(j, u, last);
                    for (_, sample) in concerned {
                        let drawn = draw(&cumulated, &mut sample.rng).unwrap_or(0);
                        sample.parents[j] = u64::from(sets[drawn]);
                    }
                }
            }
            moved.extend(drawn.into_iter().map(|(t, sample)| (u | t, t, sample)));
        }
        moved
    }

    /// The sets in `u` that meet `last` (or the empty set, if there is no layer yet), with their
    /// cumulated weights as parents of `j`.
    fn parent_sets(&self, j: usize, u: u32, last: u32) -> (Vec<u32>, Vec<f64>) {
        let subsets = || {
            let mut next = Some(u);
            std::iter::from_fn(move || {
                let set = next?;
                next = (set != 0).then(|| (set - 1) & u);
                Some(set)
            })
            .filter(move |set| set & last != 0 || u == 0)
        };
        let local = |set: u32| self.locals[j][squeeze(set, j)];
        let largest = subsets().map(local).fold(f64::NEG_INFINITY, f64::max);
        // Below e^-50 of the largest not even all sets together would be drawn.
        let likely = subsets().filter(|&set| local(set) > largest - 50.0);
        let mut total = 0.0;
        likely
            .map(|set| {
                total += (local(set) - largest).exp();
                (set, total)
            })
            .unzip()
    }
}

/// For every set the alternating sum over its supersets: from "at least" to "exactly".
fn superset_differences(numbers: &mut [f64]) {
    let mut half = 1;
    while half < numbers.len() {
        for block in numbers.chunks_exact_mut(2 * half) {
            let (without, with) = block.split_at_mut(half);
            without.iter_mut().zip(with).for_each(|(without, with)| *without -= *with);
        }
        half *= 2;
    }
}

/// Cumulated weights of all sets but the empty one: their entry, if positive, times the product
/// of their members' factors.
fn cumulate_products(entries: &[f64], factors: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut products = vec![1.0; entries.len()];
    for (k, factor) in factors.enumerate() {
        let (without, with) = products[..2 << k].split_at_mut(1 << k);
        with.iter_mut().zip(without).for_each(|(with, without)| *with = *without * factor);
    }
    products[0] = 0.0;
    let mut total = 0.0;
    for (product, entry) in products.iter_mut().zip(entries) {
        total += *product * entry.max(0.0);
        *product = total;
    }
    products
}

/// A number with probability proportional to its weight; none if all weights are 0.
fn draw(cumulated: &[f64], rng: &mut ChaCha8Rng) -> Option<usize> {
    let total = cumulated.last().copied().filter(|&total| total > 0.0)?;
    let point = rng.random::<f64>() * total;
    let place = cumulated.partition_point(|&sum| sum <= point);
    // Rounding may put the point at the end, behind everything.
    Some(place.min(cumulated.partition_point(|&sum| sum < total)))
}
