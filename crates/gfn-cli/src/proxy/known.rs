//! The substructures that a surrogate reward has been trained on.

use std::collections::HashMap;

use gfn_core::{Environment, States};

/// Substructures that are known, as numbers of 32 bits in ascending order. Two substructures share one
/// by chance about once in 2^32 / n times, and the unknown one then passes for known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(Vec<u32>);

/// A substructure's number in half as many bits.
fn folded(feature: u64) -> u32 {
    // Multiplied first (by the golden ratio's bits), so that every bit counts.
    (feature.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// Those of an object, some of them several times.
fn features(env: &dyn Environment, row: &[i32]) -> impl Iterator<Item = u32> {
    env.features_of(row).into_iter().map(folded)
}

impl Known {
    /// Those that at least `least` objects have.
    pub fn of(env: &dyn Environment, objects: &States, least: usize) -> Self {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for row in objects.rows() {
            let mut features: Vec<u32> = features(env, row).collect();
            features.sort_unstable();
            features.dedup();
            for feature in features {
                *counts.entry(feature).or_default() += 1;
            }
        }
        let often = counts.into_iter().filter(|&(_, count)| count >= least);
        Self::from_numbers(often.map(|(feature, _)| feature).collect())
    }

    /// The numbers as they were stored.
    pub fn from_numbers(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        Self(numbers)
    }

    /// The numbers to store.
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }

    /// Whether nothing is known, as where the environment knows no substructures.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many substructures of an object are not known.
    pub fn missing(&self, env: &dyn Environment, row: &[i32]) -> u32 {
        let unknown = |feature: &u32| self.0.binary_search(feature).is_err();
        features(env, row).filter(unknown).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gfn_core::registry::{EnvContext, Kind};
    use gfn_envs::sequence::SequenceSpec;

    #[test]
    fn objects_with_a_new_substructure_are_told() {
        let symbols = ["a", "b", "c"].map(str::to_owned).to_vec();
        let spec = SequenceSpec { length: 4, symbols, ..Default::default() };
        let env = spec.build(EnvContext::NO_FILES).unwrap();
        let row = |text: &str| env.parse(text).unwrap();
        let mut objects = States::new(4);
        ["abab", "baba", "aabb"].iter().for_each(|text| objects.push(&row(text)));
        let missing = |known: &Known, text: &str| known.missing(&*env, &row(text));
        let lacks = |known: &Known, text: &str| missing(known, text) > 0;
        let once = Known::of(&*env, &objects, 1);
        assert!(!lacks(&once, "abab") && !lacks(&once, "baba") && !lacks(&once, "aabb"));
        // `caab`: a new symbol; `aaab`: a new run of three.
        assert!(lacks(&once, "caab") && lacks(&once, "aaab"));
        // Known from two objects on: `aab` is in one only.
        let twice = Known::of(&*env, &objects, 2);
        assert!(!lacks(&twice, "abab") && lacks(&twice, "aabb"));
        // Each time it is there: `ab` twice and `ba` of what nobody knows, besides longer runs.
        let all = Known::default();
        assert_eq!(missing(&all, "abab") as usize, env.features_of(&row("abab")).len());
        assert!(missing(&once, "caaa") > missing(&once, "caab"));
        assert!(Known::default().is_empty() && !twice.is_empty());
        assert_eq!(Known::from_numbers(twice.numbers().to_vec()), twice);
    }
}
