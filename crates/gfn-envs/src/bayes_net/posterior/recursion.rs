//! The two sweeps over sets of nodes.

use rayon::prelude::*;

use super::wide::{Wide, power_of_two};
use super::{MAX_EXACT_NODES, members, squeeze};

/// For one U, the products R(U + T) prod over T of `sign` a_j(U), for all T among some free nodes.
///
/// Mantissas and exponents apart, so that the loops are plain ones over doubles and integers.
#[derive(Default)]
pub(super) struct Terms {
    mantissas: Vec<f64>,
    exponents: Vec<i32>,
}

impl Terms {
    /// Computes the terms for T = `top` + any subset of `nodes`, ascending, which is empty for
    /// term 0 and has `nodes[k]` where bit k of the term's number is set.
    pub(super) fn fill(
        &mut self,
        (sums, rest): (&[Vec<Wide>], &[Wide]),
        u: u32,
        top: u32,
        nodes: &[usize],
        sign: f64,
    ) {
        let n = 1usize << nodes.len();
        if self.mantissas.len() < n {
            self.mantissas.resize(n, 0.0);
            self.exponents.resize(n, 0);
        }
        let factor = |j: usize| sums[j][squeeze(u, j)];
        // Mantissas lie in [1, 2): even 20 of them leave no double.
        (self.mantissas[0], self.exponents[0]) = (1.0, 0);
        for j in members(top) {
            self.mantissas[0] *= sign * factor(j).mantissa();
            self.exponents[0] += factor(j).exponent();
        }
        for (k, &j) in nodes.iter().enumerate() {
            let (mantissa, exponent) = (sign * factor(j).mantissa(), factor(j).exponent());
            let (known, new) = self.mantissas[..2 << k].split_at_mut(1 << k);
            new.iter_mut().zip(known).for_each(|(new, known)| *new = *known * mantissa);
            let (known, new) = self.exponents[..2 << k].split_at_mut(1 << k);
            new.iter_mut().zip(known).for_each(|(new, known)| *new = *known + exponent);
        }
        let free = nodes.iter().fold(0u32, |mask, &j| mask | 1 << j);
        let mut set = 0u32;
        for (mantissa, exponent) in self.mantissas[..n].iter_mut().zip(&mut self.exponents[..n]) {
            let rest = rest[(u | top | set) as usize];
            *mantissa *= rest.mantissa();
            *exponent += rest.exponent();
            // The next subset in the order of the terms.
            set = set.wrapping_sub(free) & free;
        }
    }

    /// The largest exponent of the terms from `first` to below `n`.
    fn largest(&self, first: usize, n: usize) -> i32 {
        self.exponents[first..n].iter().copied().max().unwrap_or(i32::MIN)
    }

    /// Replaces the first `n` terms by multiples of 2^`exponent`, which none of them exceeds by
    /// much, as doubles.
    pub(super) fn scaled(&mut self, n: usize, exponent: i32) -> &mut [f64] {
        for (mantissa, own) in self.mantissas[..n].iter_mut().zip(&self.exponents[..n]) {
            *mantissa *= power_of_two(own - exponent);
        }
        &mut self.mantissas[..n]
    }
}

/// The nodes outside `u` that can be ready, in `nodes`.
pub(super) fn free_nodes(sums: &[Vec<Wide>], u: u32, among: u32, nodes: &mut Vec<usize>) {
    nodes.clear();
    nodes.extend(members(among & !u).filter(|&j| sums[j][squeeze(u, j)].is_positive()));
}

/// The sets of `size` out of `d` nodes.
fn layer(d: usize, size: usize) -> impl Iterator<Item = u32> {
    (0..1u32 << d).filter(move |set| set.count_ones() as usize == size)
}

/// R(U) for every U, and the probability that j alone is ready by node and squeezed set.
pub(super) fn sweep(sums: &[Vec<Wide>]) -> (Vec<Wide>, Vec<Vec<f64>>) {
    let d = sums.len();
    let mut rest = vec![Wide::ZERO; 1 << d];
    rest[(1 << d) - 1] = Wide::ONE;
    let mut alone = vec![vec![0.0; 1 << (d - 1)]; d];
    for size in (0..d).rev() {
        let sets: Vec<u32> = layer(d, size).collect();
        let results: Vec<_> = sets
            .par_iter()
            .map_init(Default::default, |(terms, nodes), &u| one(sums, &rest, u, terms, nodes))
            .collect();
        for (&u, (r, probabilities)) in sets.iter().zip(&results) {
            rest[u as usize] = *r;
            for j in members(!u & ((1 << d) - 1)) {
                alone[j][squeeze(u, j)] = probabilities[j];
            }
        }
    }
    (rest, alone)
}

/// R(U) and, by node, the probability that it alone is ready, from all R(U + T).
fn one(
    sums: &[Vec<Wide>],
    rest: &[Wide],
    u: u32,
    terms: &mut Terms,
    nodes: &mut Vec<usize>,
) -> (Wide, [f64; MAX_EXACT_NODES]) {
    let mut alone = [0.0; MAX_EXACT_NODES];
    free_nodes(sums, u, (1 << sums.len()) - 1, nodes);
    let n = 1usize << nodes.len();
    terms.fill((sums, rest), u, 0, nodes, -1.0);
    let exponent = terms.largest(1, n);
    let scaled = terms.scaled(n, exponent);
    // The term of the empty set would be R(U) itself.
    scaled[0] = 0.0;
    // Folding adds in pairs, which keeps rounding small, and meets the sum over all T with node k
    // on its way.
    for (k, &j) in nodes.iter().enumerate().rev() {
        let (without, with) = scaled[..2 << k].split_at_mut(1 << k);
        alone[j] = sum_in_pairs(with);
        without.iter_mut().zip(with).for_each(|(without, with)| *without += *with);
    }
    let total = scaled[0];
    // Nothing but rounding can make this 0 or positive while a term is there.
    if total >= 0.0 {
        return (Wide::ZERO, [0.0; MAX_EXACT_NODES]);
    }
    alone.iter_mut().for_each(|share| *share = (*share / total).clamp(0.0, 1.0));
    (Wide::new(-total, exponent), alone)
}

/// The sum, by blocks of 64.
fn sum_in_pairs(numbers: &[f64]) -> f64 {
    if numbers.len() <= 64 {
        return numbers.iter().sum();
    }
    let (low, high) = numbers.split_at(numbers.len() / 2);
    sum_in_pairs(low) + sum_in_pairs(high)
}

/// The probability of every set to be ancestral.
///
/// The recursion read backwards: P(S) is the sum over non-empty T in S of (-1)^(|T| + 1) times the
/// probability that S - T is ancestral and T is ready. Sets whose upper nodes agree are written by
/// one thread, so the order of additions does not depend on the number of threads.
pub(super) fn ancestral(sums: &[Vec<Wide>], rest: &[Wide]) -> Vec<f64> {
    let d = sums.len();
    let low = d - (d / 2).min(6);
    let below = (1u32 << low) - 1;
    let mut ancestral = vec![0.0; 1 << d];
    ancestral[0] = 1.0;
    for size in 0..d {
        let known: Vec<(u32, f64)> = layer(d, size)
            .map(|u| (u, ancestral[u as usize]))
            .filter(|&(u, p)| p > 0.0 && rest[u as usize].is_positive())
            .collect();
        ancestral.par_chunks_mut(1 << low).enumerate().for_each(|(upper, chunk)| {
            let upper = (upper as u32) << low;
            let (mut terms, mut nodes) = (Terms::default(), Vec::new());
            for &(u, p) in known.iter().filter(|(u, _)| u & !below & !upper == 0) {
                let top = upper & !u;
                if members(top).any(|j| !sums[j][squeeze(u, j)].is_positive()) {
                    continue;
                }
                free_nodes(sums, u, below, &mut nodes);
                let n = 1usize << nodes.len();
                terms.fill((sums, rest), u, top, &nodes, -1.0);
                let free = nodes.iter().fold(0u32, |mask, &j| mask | 1 << j);
                let whole = rest[u as usize];
                let scale = -p / whole.mantissa();
                let mut set = 0u32;
                for (t, term) in terms.scaled(n, whole.exponent()).iter().enumerate() {
                    if t > 0 || top != 0 {
                        chunk[(u & below | set) as usize] += scale * term;
                    }
                    set = set.wrapping_sub(free) & free;
                }
            }
        });
        for set in layer(d, size + 1) {
            let p = &mut ancestral[set as usize];
            *p = p.clamp(0.0, 1.0);
        }
    }
    ancestral
}
