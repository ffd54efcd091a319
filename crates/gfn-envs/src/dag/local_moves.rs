//! The moves of structure MCMC (Madigan & York 1995; Giudici & Castelo 2003): add, remove or reverse
//! one edge, any of the legal ones with the same probability.

use gfn_core::Environment;
use gfn_core::proposal::Proposal;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::{Dag, MAX_NODES, bits};

/// The legal moves of a graph.
struct Moves {
    /// For every node, those that an edge can be added to.
    add: [u64; MAX_NODES],
    /// For every node, the parents whose edge can be removed.
    remove: [u64; MAX_NODES],
    /// For every node, the parents whose edge can be reversed.
    reverse: [u64; MAX_NODES],
}

impl Moves {
    fn of(dag: &Dag, row: &[i32]) -> Self {
        let (mut remove, mut reverse) = ([0; MAX_NODES], [0; MAX_NODES]);
        for j in 0..dag.n_nodes() {
            let parents = dag.parents(row, j);
            remove[j] = parents & !dag.parent_sets[j].required;
            for i in bits(remove[j] & dag.children[j]) {
                // What leads from i to j in another way would close a cycle.
                let mut others = bits(parents & !(1 << i));
                let detour = others.any(|parent| dag.ancestors(row, parent) >> i & 1 == 1);
                let room = (dag.parents(row, i).count_ones() as usize) < dag.parent_sets[i].most;
                reverse[j] |= u64::from(room && !detour) << i;
            }
        }
        Self { add: dag.addable(row), remove, reverse }
    }

    fn count(&self) -> u32 {
        let words = self.add.iter().chain(&self.remove).chain(&self.reverse);
        words.map(|word| word.count_ones()).sum()
    }

    /// Makes the move with this number.
    fn make(&self, dag: &Dag, row: &mut [i32], mut number: u32) {
        let mut pick = |sets: &[u64; MAX_NODES]| {
            sets.iter().enumerate().find_map(|(node, &set)| {
                let n = set.count_ones();
                if number < n {
                    return bits(set).nth(number as usize).map(|other| (node, other));
                }
                number -= n;
                None
            })
        };
        if let Some((i, j)) = pick(&self.add) {
            dag.add(row, i, j);
        } else if let Some((j, i)) = pick(&self.remove) {
            dag.remove(row, i, j);
        } else if let Some((j, i)) = pick(&self.reverse) {
            dag.remove(row, i, j);
            dag.add(row, j, i);
        }
    }
}

/// Every move has exactly one that undoes it: q(x | x′) / q(x′ | x) is the number of moves of x over
/// that of x′.
impl Proposal for Dag {
    fn propose(
        &self,
        _: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
    ) -> Option<f64> {
        let moves = Moves::of(self, object);
        let n = moves.count();
        if n == 0 {
            return None;
        }
        proposed.copy_from_slice(object);
        moves.make(self, proposed, rng.random_range(0..n));
        let n_back = Moves::of(self, proposed).count();
        Some(f64::from(n).ln() - f64::from(n_back).ln())
    }
}
