//! A guide that remembers: P_G prefers states that are parts of objects with large rewards (Shen et al. 2023,
//! arXiv:2305.07170; Niu et al. 2024, arXiv:2408.05885).

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::row_index::RowIndex;
use crate::special::{log_add_exp, log_sum_exp};
use crate::{Ancestors, Environment, KeyError, States, Trajectories};

/// P_G(a|s, x) ∝ (mean R over the remembered objects that s' = a(s) is a part of)^`exponent`, over the actions
/// whose s' is a part of x. A state is a part of every object that can be built through it; an object counts once
/// in a mean, however often it is sampled. Of objects with too many parts, P_G counts as 1: P_B then spreads
/// over their ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Substructures {
    /// How many different objects are remembered at most: when half as many are new, those from before
    /// the last time are forgotten. Memory grows with their different parts: 40 bytes each, and 4 for every cell
    /// of a state's row.
    pub capacity: usize,
    /// Exponent of the mean reward.
    pub exponent: f64,
    /// The most parts of an object, itself included: sequences of length L that are filled in any order have
    /// 2^L, of those that grow at both ends at most L (L + 1) / 2 + 1.
    pub max_parts: usize,
}

impl Default for Substructures {
    fn default() -> Self {
        Self { capacity: 100_000, exponent: 1.0, max_parts: 4096 }
    }
}

impl Substructures {
    /// Checks the settings.
    ///
    /// # Errors
    /// With the key `guide`.
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        let fail = |message: String| Err(KeyError::new("guide", message));
        if self.capacity < 2 {
            return fail(format!("`capacity` must be at least 2, not {}", self.capacity));
        }
        if !(self.exponent >= 0.0 && self.exponent.is_finite()) {
            return fail(format!("`exponent` must be 0 or more, not {}", self.exponent));
        }
        if self.max_parts < 2 {
            return fail(format!("`max_parts` must be at least 2, not {}", self.max_parts));
        }
        Ok(())
    }

    /// Checks that the objects of trajectories do not have too many parts.
    ///
    /// # Errors
    /// With the key `guide`.
    pub(crate) fn check_parts(
        &self,
        env: &dyn Environment,
        walks: &Trajectories,
    ) -> Result<(), KeyError> {
        let too_many = |i: usize| Ancestors::of(env, walks.terminal(i), self.max_parts).is_none();
        match (0..walks.len()).find(|&i| too_many(i)) {
            None => Ok(()),
            Some(i) => {
                let (object, most) = (env.render(walks.terminal(i)), self.max_parts);
                let message = format!(
                    "objects such as {object} can be built through more than {most} states"
                );
                let help = "raise `max_parts`, or use the guide `stop` or none";
                Err(KeyError::new("guide", message).help(help))
            }
        }
    }
}

/// Objects in the order in which they came, and sums over them by their parts.
#[derive(Debug)]
struct Generation {
    objects: States,
    log_reward: Vec<f64>,
    index: RowIndex,
    parts: States,
    parts_index: RowIndex,
    /// log Σ R over the objects that a part belongs to.
    log_sum: Vec<f64>,
    /// Their number.
    n: Vec<u32>,
}

impl Generation {
    fn new(width: usize) -> Self {
        let (index, parts_index) = (RowIndex::default(), RowIndex::default());
        let (objects, parts) = (States::new(width), States::new(width));
        let (log_reward, log_sum, n) = Default::default();
        Self { objects, log_reward, index, parts, parts_index, log_sum, n }
    }

    fn holds(&self, object: &[i32]) -> bool {
        self.index.get(&self.objects, object).is_some()
    }

    fn add(&mut self, object: &[i32], log_reward: f64, parts: Option<&Ancestors>) {
        self.objects.push(object);
        self.index.insert_last(&self.objects);
        self.log_reward.push(log_reward);
        for part in parts.into_iter().flat_map(|parts| parts.states().rows()) {
            if let Some(place) = self.parts_index.get(&self.parts, part) {
                let place = place as usize;
                self.log_sum[place] = log_add_exp(self.log_sum[place], log_reward);
                self.n[place] += 1;
            } else {
                self.parts.push(part);
                self.parts_index.insert_last(&self.parts);
                self.log_sum.push(log_reward);
                self.n.push(1);
            }
        }
    }

    /// log Σ R over objects that a state is a part of, and their number.
    fn sum(&self, part: &[i32]) -> (f64, u32) {
        let place = self.parts_index.get(&self.parts, part);
        place.map_or((f64::NEG_INFINITY, 0), |place| {
            (self.log_sum[place as usize], self.n[place as usize])
        })
    }
}

/// What is remembered. What comes is only ever added, so that sums are the same to the last bit when they are
/// made anew from a checkpoint.
#[derive(Debug)]
pub(super) struct Memory {
    settings: Substructures,
    young: Generation,
    old: Generation,
}

/// Cells of objects in their order, and log R of each.
#[derive(Serialize, Deserialize)]
struct Saved([(States, Vec<f64>); 2]);

impl Memory {
    pub(super) fn new(settings: Substructures, width: usize) -> Self {
        Self { settings, young: Generation::new(width), old: Generation::new(width) }
    }

    fn parts(&self, env: &dyn Environment, objects: &States) -> Vec<Option<Ancestors>> {
        let of = |i| Ancestors::of(env, objects.row(i), self.settings.max_parts);
        (0..objects.len()).into_par_iter().map(of).collect()
    }

    /// Remembers the objects that are new.
    pub(super) fn extend(&mut self, env: &dyn Environment, objects: &States, log_reward: &[f64]) {
        let (mut new, mut rewards) = (States::new(objects.width()), Vec::new());
        // What is old now may be forgotten before its turn comes.
        let forgets = 2 * (self.young.objects.len() + objects.len()) > self.settings.capacity;
        for (object, &log_reward) in objects.rows().zip(log_reward) {
            if !self.young.holds(object) && (forgets || !self.old.holds(object)) {
                new.push(object);
                rewards.push(log_reward);
            }
        }
        let parts = self.parts(env, &new);
        for ((object, log_reward), parts) in new.rows().zip(rewards).zip(&parts) {
            // An object may come twice at once.
            if !self.young.holds(object) && !self.old.holds(object) {
                if 2 * (self.young.objects.len() + 1) > self.settings.capacity {
                    let empty = Generation::new(objects.width());
                    self.old = std::mem::replace(&mut self.young, empty);
                }
                self.young.add(object, log_reward, parts.as_ref());
            }
        }
    }

    /// log of the mean reward of the objects that a state is a part of; −∞ where none is known.
    fn log_mean(&self, part: &[i32]) -> f64 {
        let ((young, n_young), (old, n_old)) = (self.young.sum(part), self.old.sum(part));
        match n_young + n_old {
            0 => f64::NEG_INFINITY,
            n => log_add_exp(young, old) - f64::from(n).ln(),
        }
    }

    /// log P_G of every transition of trajectories.
    pub(super) fn log_probs(&self, env: &dyn Environment, of: &Trajectories) -> Vec<f64> {
        let one = |i| self.log_probs_of(env, of, i);
        (0..of.len()).into_par_iter().flat_map_iter(one).collect()
    }

    fn log_probs_of(&self, env: &dyn Environment, of: &Trajectories, i: usize) -> Vec<f64> {
        let object = of.terminal(i);
        let parts = Ancestors::of(env, object, self.settings.max_parts);
        let mut legal = vec![false; env.space().n_actions];
        let mut row = vec![0; object.len()];
        let mut scores = Vec::new();
        let mut step = |(state, t): (usize, usize)| {
            let (from, taken) = (of.states.row(state), of.actions[t] as usize);
            let Some(parts) = &parts else { return 0.0 };
            env.legal(from, &mut legal);
            scores.clear();
            let mut chosen = 0;
            for action in (0..legal.len()).filter(|&action| legal[action]) {
                row.copy_from_slice(from);
                env.step(&mut row, action);
                if parts.contain(&row) {
                    if action == taken {
                        chosen = scores.len();
                    }
                    scores.push(self.settings.exponent * self.log_mean(&row));
                }
            }
            let log_sum = log_sum_exp(scores.iter().copied());
            match scores.get(chosen) {
                Some(score) if score.is_finite() && log_sum.is_finite() => score - log_sum,
                _ => -(scores.len().max(1) as f64).ln(),
            }
        };
        of.rows(i).zip(of.transitions(i)).map(&mut step).collect()
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let of =
            |generation: &Generation| (generation.objects.clone(), generation.log_reward.clone());
        let saved = Saved([of(&self.old), of(&self.young)]);
        postcard::to_stdvec(&saved).expect("objects serialise")
    }

    /// What a checkpoint has kept.
    ///
    /// # Errors
    /// When it is damaged, or of other objects.
    pub(super) fn restored(&self, env: &dyn Environment, bytes: &[u8]) -> Result<Self, String> {
        let Saved(saved) = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let width = env.space().width;
        let mut made = Self::new(self.settings.clone(), width);
        let mut generations = [&mut made.old, &mut made.young];
        for (generation, (objects, log_reward)) in generations.iter_mut().zip(&saved) {
            if objects.width() != width || objects.len() != log_reward.len() {
                let (n, cells) = (log_reward.len(), objects.width());
                return Err(format!("{n} rewards for {} rows of {cells} cells", objects.len()));
            }
            let parts = self.parts(env, objects);
            for ((object, &log_reward), parts) in objects.rows().zip(log_reward).zip(&parts) {
                generation.add(object, log_reward, parts.as_ref());
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::Balls;
    use crate::policy::UniformPolicy;
    use crate::rng::{Purpose, Streams};
    use crate::sampler::{Draw, Exploration, Sampler};

    fn walks(env: &Balls, step: u64) -> Trajectories {
        let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step };
        let mut drawn =
            Sampler::default().forward(env, &UniformPolicy, Exploration::NONE, draw, 16);
        drawn.log_reward = drawn.terminals().rows().map(log_reward).collect();
        drawn
    }

    fn log_reward(row: &[i32]) -> f64 {
        row.iter()
            .enumerate()
            .map(|(i, &n)| f64::from(n) * (0.3 - 0.2 * i as f64))
            .sum::<f64>()
            .sin()
    }

    /// Whether balls can be added to `part` so that it becomes `object`: box by box, as both are in descending order.
    fn is_part(part: &[i32], object: &[i32]) -> bool {
        let stopped = part.len() - 1;
        part == object
            || part[stopped] == 0 && part[..stopped].iter().zip(object).all(|(a, b)| a <= b)
    }

    /// P_G of every transition from a list of known objects alone.
    fn expected(env: &Balls, known: &[Vec<i32>], of: &Trajectories, exponent: f64) -> Vec<f64> {
        let mut log_probs = Vec::new();
        for i in 0..of.len() {
            let object = of.terminal(i);
            for (state, t) in of.rows(i).zip(of.transitions(i)) {
                let mut legal = vec![false; env.space().n_actions];
                env.legal(of.states.row(state), &mut legal);
                let score = |action: usize| {
                    let mut row = of.states.row(state).to_vec();
                    env.step(&mut row, action);
                    let with: Vec<f64> = known
                        .iter()
                        .filter(|x| is_part(&row, x))
                        .map(|x| log_reward(x).exp())
                        .collect();
                    let mean = with.iter().sum::<f64>() / with.len() as f64;
                    if legal[action] && is_part(&row, object) { mean.powf(exponent) } else { 0.0 }
                };
                let total: f64 = (0..legal.len()).filter(|&action| legal[action]).map(score).sum();
                log_probs.push((score(of.actions[t] as usize) / total).ln());
            }
        }
        log_probs
    }

    fn differ(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn parts_with_larger_mean_rewards_are_preferred_and_objects_forgotten_by_halves() {
        let env = Balls::new(4, 8);
        let settings = Substructures { capacity: 30, exponent: 2.0, max_parts: 100 };
        let mut memory = Memory::new(settings, 5);
        let (mut old, mut young): (Vec<Vec<i32>>, Vec<Vec<i32>>) = Default::default();
        let mut forgotten = 0;
        for step in 0..12 {
            let drawn = walks(&env, step);
            let objects = drawn.terminals();
            memory.extend(&env, &objects, &drawn.log_reward);
            for object in objects.rows() {
                let known = |x: &Vec<i32>| x == object;
                if !old.iter().any(known) && !young.iter().any(known) {
                    if young.len() == 15 {
                        forgotten += old.len();
                        old = std::mem::take(&mut young);
                    }
                    young.push(object.to_vec());
                }
            }
            // Those that have just been forgotten again have no own score.
            let known = [old.clone(), young.clone()].concat();
            let mut kept = Trajectories::new(5);
            for i in 0..drawn.len() {
                if known.iter().any(|x| x == drawn.terminal(i)) {
                    kept.push_of(&drawn, i);
                }
            }
            let log_probs = memory.log_probs(&env, &kept);
            let exact = expected(&env, &known, &kept, 2.0);
            assert!(differ(&log_probs, &exact) < 1e-12, "step {step}");
            assert!(log_probs.iter().any(|&log_prob| log_prob < -0.1), "it prefers nothing");

            let restored = memory.restored(&env, &memory.save()).unwrap();
            assert_eq!(restored.log_probs(&env, &kept), log_probs);
        }
        assert!(forgotten > 0 && !old.is_empty(), "nothing was forgotten");
    }

    #[test]
    fn what_is_not_known_leaves_all_ways_alike() {
        let env = Balls::new(2, 3);
        let drawn = walks(&env, 0);
        let of = |max_parts| {
            let settings = Substructures { max_parts, ..Substructures::default() };
            Memory::new(settings, 3).log_probs(&env, &drawn)
        };
        for i in 0..drawn.len() {
            for (state, t) in drawn.rows(i).zip(drawn.transitions(i)) {
                let ways = (0..3).filter(|&action| {
                    let mut legal = [false; 3];
                    env.legal(drawn.states.row(state), &mut legal);
                    let mut row = drawn.states.row(state).to_vec();
                    legal[action] && {
                        env.step(&mut row, action);
                        is_part(&row, drawn.terminal(i))
                    }
                });
                let n = ways.count() as f64;
                assert!((of(100)[t] + n.ln()).abs() < 1e-12);
            }
        }
        // Too many parts to look at: no cost.
        let longest = (0..drawn.len()).max_by_key(|&i| drawn.transitions(i).len()).unwrap();
        assert!(drawn.transitions(longest).all(|t| of(2)[t] == 0.0));
        assert!(
            Substructures { max_parts: 2, ..Substructures::default() }
                .check_parts(&env, &drawn)
                .unwrap_err()
                .to_string()
                .contains("more than 2 states")
        );
    }

    #[test]
    fn damaged_memories_are_refused() {
        let env = Balls::new(3, 4);
        let drawn = walks(&env, 0);
        let mut memory = Memory::new(Substructures::default(), 4);
        memory.extend(&env, &drawn.terminals(), &[0.0; 16]);
        let saved = memory.save();
        assert!(memory.restored(&env, &saved[..saved.len() - 3]).is_err());
        let narrow = Balls::new(2, 4);
        assert!(memory.restored(&narrow, &saved).unwrap_err().contains("cells"));
    }
}
