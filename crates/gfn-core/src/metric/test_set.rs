//! Objects to measure correlations on, and where they come from if nobody names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;

use super::backward_estimate::trajectories_at_once;
use crate::policy::UniformPolicy;
use crate::rng::Purpose;
use crate::row_index::RowIndex;
use crate::sampler::{Draw, Exploration, Sampler};
use crate::{Environment, States, Streams};

/// Objects to measure correlations on.
#[derive(Clone, Debug)]
pub struct TestSet {
    /// Their terminal rows.
    pub objects: Arc<States>,
    /// What they are, in words that follow their number.
    pub origin: &'static str,
}

/// Walks per object that is wanted, before there are fewer.
const WALKS: usize = 16;
/// Different objects per object that is wanted, to choose from.
const CHOICE: usize = 4;

impl TestSet {
    /// `n` objects drawn uniformly with replacement, where the environment numbers its objects.
    pub fn uniform(env: &dyn Environment, n: usize, seed: u64) -> Option<Self> {
        // A number that is too large saturates.
        let n_objects = env.n_objects().filter(|&n_objects| n_objects < u64::MAX)?;
        let mut rng = Streams::new(seed).get(Purpose::TestSet, 0);
        let mut objects = States::with_capacity(env.space().width, n);
        for _ in 0..n {
            objects.push(&env.object_at(rng.random_range(0..n_objects))?);
        }
        Some(Self { objects: Arc::new(objects), origin: "objects drawn uniformly" })
    }

    /// Up to `n` different objects at the ends of trajectories of uniform actions, of as many different
    /// lengths as these have: one of each length that is found, then a second of each, and so on.
    pub fn walks(env: &dyn Environment, n: usize, seed: u64) -> Self {
        let (streams, purpose) = (Streams::new(seed), Purpose::TestSet);
        let at_once = trajectories_at_once(env).clamp(1, n.max(1));
        let (mut sampler, mut index) = (Sampler::default(), RowIndex::default());
        let mut found = States::new(env.space().width);
        // For each, how many of its length were found before.
        let (mut ranks, mut of_length) = (Vec::new(), BTreeMap::new());
        for step in 0..(WALKS * n).div_ceil(at_once) as u64 {
            if found.len() >= CHOICE * n {
                break;
            }
            let draw = Draw { streams, purpose, step };
            let walks = sampler.forward(env, &UniformPolicy, Exploration::NONE, draw, at_once);
            for i in 0..walks.len() {
                let place = index.place_or_push(&mut found, walks.terminal(i)) as usize;
                if place == ranks.len() {
                    let rank = of_length.entry(walks.transitions(i).len()).or_insert(0usize);
                    ranks.push(*rank);
                    *rank += 1;
                }
            }
        }
        let mut chosen: Vec<usize> = (0..found.len()).collect();
        chosen.sort_by_key(|&i| ranks[i]);
        chosen.truncate(n);
        let mut objects = States::with_capacity(found.width(), chosen.len());
        chosen.into_iter().for_each(|i| objects.push(found.row(i)));
        let origin = "different objects at the ends of uniform actions, spread over their lengths";
        Self { objects: Arc::new(objects), origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Balls;

    #[test]
    fn walks_find_different_objects_of_all_lengths() {
        let env = Balls::new(4, 6);
        let of = |n, seed| TestSet::walks(&env, n, seed).objects;
        // One of no balls and one of a single one; two to nine of the others.
        let few = of(12, 1);
        let mut per_sum = [0; 7];
        few.rows().for_each(|row| per_sum[row[..4].iter().sum::<i32>() as usize] += 1);
        assert_eq!(per_sum, [1, 1, 2, 2, 2, 2, 2]);
        let mut rows: Vec<_> = few.rows().collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 12);
        assert_eq!(few, of(12, 1));
        assert_ne!(few, of(12, 2));
        assert_eq!(of(1000, 1).len(), 27, "all there are");
    }
}
