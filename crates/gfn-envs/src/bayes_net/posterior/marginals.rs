//! Marginals of the exact posterior.

use rayon::prelude::*;

use super::wide::Wide;
use super::{Posterior, members, recursion, spread};

/// Exact marginals and expectations. Matrices have row i, column j for i -> j.
#[derive(Clone, Debug, PartialEq)]
pub struct Marginals {
    /// P(i -> j).
    pub edges: Vec<Vec<f64>>,
    /// P(there is a directed path from i to j); 0 on the diagonal.
    pub paths: Vec<Vec<f64>>,
    /// E[number of edges].
    pub expected_edges: f64,
    /// E[log R(G)], relative to the base graph.
    pub expected_log_reward: f64,
    /// Entropy of the posterior, in nats.
    pub entropy: f64,
}

impl Posterior {
    /// The marginals, by as much work again as the posterior itself.
    pub fn marginals(&self) -> Marginals {
        let ancestral = recursion::ancestral(&self.sums, &self.rest);
        let columns: Vec<Column> =
            (0..self.d).into_par_iter().map(|j| self.column(j, &ancestral)).collect();
        let matrix = |entry: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..self.d).map(|i| (0..self.d).map(|j| entry(i, j)).collect()).collect()
        };
        let edges = matrix(&|i, j| columns[j].edges[i]);
        let expected_log_reward = columns.iter().map(|column| column.log_reward).sum();
        Marginals {
            expected_edges: edges.iter().flatten().sum(),
            edges,
            paths: matrix(&|i, j| columns[i].paths[j]),
            expected_log_reward,
            entropy: self.log_z() - expected_log_reward,
        }
    }

    /// What the posterior says of node `j`, from the probabilities of sets to be ancestral.
    fn column(&self, j: usize, ancestral: &[f64]) -> Column {
        let (mut edges, mut paths) = (vec![0.0; self.d], vec![0.0; self.d]);
        let everyone = (1u32 << self.d) - 1;
        // By parent set P, the sum over U of P(U are the non-descendants) / a_j(U), P in U.
        let mut weights = vec![Wide::ZERO; 1 << (self.d - 1)];
        for (index, weight) in weights.iter_mut().enumerate() {
            let u = spread(index, j);
            let p = self.alone[j][index] * ancestral[u as usize];
            if p > 0.0 {
                members(everyone & !u & !(1 << j)).for_each(|k| paths[k] += p);
                let sum = self.sums[j][index];
                *weight = Wide::new(p / sum.mantissa(), -sum.exponent());
            }
        }
        superset_sums(&mut weights);
        let mut log_reward = 0.0;
        for (index, (&weight, &local)) in weights.iter().zip(&self.locals[j]).enumerate() {
            let p = (Wide::exp(local) * weight).ratio(Wide::ONE);
            if p > 0.0 {
                members(spread(index, j)).for_each(|i| edges[i] += p);
                log_reward += p * local;
            }
        }
        let clamp = |ps: &mut Vec<f64>| ps.iter_mut().for_each(|p| *p = p.min(1.0));
        clamp(&mut edges);
        clamp(&mut paths);
        Column { edges, paths, log_reward }
    }
}

/// Of one node: P(i -> j) and P(path from j to k) by the other node, and its share of E[log R].
struct Column {
    edges: Vec<f64>,
    paths: Vec<f64>,
    log_reward: f64,
}

/// For every set, in place, the sum over its supersets.
fn superset_sums(numbers: &mut [Wide]) {
    let mut half = 1;
    while half < numbers.len() {
        for block in numbers.chunks_exact_mut(2 * half) {
            let (without, with) = block.split_at_mut(half);
            without.iter_mut().zip(with).for_each(|(without, with)| *without = *without + *with);
        }
        half *= 2;
    }
}
