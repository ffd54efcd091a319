//! Sampling trajectories: forwards from s0, or backwards from given objects.
//!
//! Rows advance in lockstep so that the policy sees one batch per step, of the different states among
//! them; finished trajectories drop out of the batch. Every trajectory draws from its own random stream, so what is drawn
//! for one does not depend on the others. A batch may be cut into parts that walk side by side,
//! one policy each.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rayon::prelude::*;

use crate::learn::engine::Recording;
use crate::policy::{Direction, Policy};
use crate::rng::{Purpose, Streams};
use crate::row_index::RowIndex;
use crate::trajectories::{RowPlan, offers_choice_back};
use crate::vector::softmax_weights;
use crate::{Environment, States, Trajectories};

/// How the behaviour differs from the policy. It changes which action is drawn, never what the
/// objectives see as its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exploration {
    /// Probability of drawing uniformly among the legal actions instead.
    pub epsilon: f64,
    /// Logits are divided by this before drawing.
    pub temperature: f64,
}

impl Exploration {
    /// Draws from the policy itself.
    pub const NONE: Exploration = Exploration { epsilon: 0.0, temperature: 1.0 };
}

/// Which random numbers a batch of trajectories uses.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// The seeded streams.
    pub streams: Streams,
    /// What the trajectories are for.
    pub purpose: Purpose,
    /// The iteration (or evaluation) that they belong to.
    pub step: u64,
}

/// Trajectories as they were sampled, with what a loss would otherwise compute again.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The trajectories.
    pub trajectories: Trajectories,
    /// The states that the policies were asked for, in their order.
    pub rows: RowPlan,
    /// Legal forward actions at the start of each transition, `n_actions` each.
    pub legal: Vec<bool>,
    /// What an engine may have kept meanwhile.
    pub recording: Option<Recording>,
}

/// Draws trajectories; keeps its buffers from batch to batch.
#[derive(Debug, Default)]
pub struct Sampler {
    parts: Vec<Walkers>,
}

/// Trajectories that walk in lockstep.
#[derive(Debug, Default)]
struct Walkers {
    walks: Vec<Walk>,
    /// Walks that go on, and the state among those of `front` that each is in.
    active: Vec<(usize, u32)>,
    front: Front,
    next: Front,
    logits: Vec<f32>,
    weights: Vec<f32>,
    /// Walk and position of every row that the policy was asked for, in order.
    asked: Vec<(u32, u32)>,
}

/// The different states that walks are in after as many actions, and their legal actions.
#[derive(Debug, Default)]
struct Front {
    states: States,
    legal: Vec<bool>,
    index: RowIndex,
}

impl Front {
    fn clear(&mut self, width: usize) {
        match self.states.width() == width {
            true => self.states.clear(),
            false => self.states = States::new(width),
        }
        self.legal.clear();
        self.index.clear();
    }

    /// The place of a state, whose legal actions are found out if it is new; none if there are none.
    fn enter(&mut self, env: &dyn Environment, direction: Direction, row: &[i32]) -> Option<u32> {
        if let Some(place) = self.index.get(&self.states, row) {
            return Some(place);
        }
        let start = self.legal.len();
        self.legal.resize(start + env.space().n_actions_in(direction), false);
        let legal = &mut self.legal[start..];
        env.legal_in(direction, row, legal);
        if !legal.contains(&true) {
            self.legal.truncate(start);
            return None;
        }
        Some(self.push(row))
    }

    fn push(&mut self, row: &[i32]) -> u32 {
        self.states.push(row);
        self.index.insert_last(&self.states);
        self.states.len() as u32 - 1
    }
}

/// One trajectory in the making.
#[derive(Debug, Default)]
struct Walk {
    rows: Vec<i32>,
    taken: Vec<u32>,
    returned: Vec<u32>,
    /// Legal actions of every row but the last, one after the other.
    legal: Vec<bool>,
    /// For every row that the policy was asked for, its number among all of these.
    places: Vec<u32>,
    rng: Option<ChaCha8Rng>,
}

/// What all trajectories of a batch have in common.
#[derive(Clone, Copy)]
struct Walking<'a> {
    env: &'a dyn Environment,
    direction: Direction,
    exploration: Exploration,
    draw: Draw,
}

impl Sampler {
    /// Samples `n` trajectories from s0 with P_F.
    ///
    /// `log_reward` of the result is empty. Illegal actions cannot be drawn: the draw is over
    /// the legal ones alone.
    pub fn forward(
        &mut self,
        env: &dyn Environment,
        policy: &dyn Policy,
        exploration: Exploration,
        draw: Draw,
        n: usize,
    ) -> Trajectories {
        self.forward_from(env, policy, exploration, draw, &initial_states(env, n))
    }

    /// Samples what P_F makes of states on the way: trajectories that start there.
    pub fn forward_from(
        &mut self,
        env: &dyn Environment,
        policy: &dyn Policy,
        exploration: Exploration,
        draw: Draw,
        starts: &States,
    ) -> Trajectories {
        let walking = Walking { env, direction: Direction::Forward, exploration, draw };
        self.parts.resize_with(self.parts.len().max(1), Walkers::default);
        self.parts[0].walk(walking, policy, starts, 0, false);
        self.collect(walking, 1)
    }

    /// Samples `n` trajectories from s0 with P_F, one part per policy side by side.
    ///
    /// Rows are in the order in which the policies were asked for them, part after part; `learned`
    /// says whether P_B is the network's, so that some terminal states are among them.
    pub fn rollout<P: Policy + Send>(
        &mut self,
        env: &dyn Environment,
        policies: &mut [P],
        exploration: Exploration,
        draw: Draw,
        n: usize,
        learned: bool,
    ) -> Rollout {
        let walking = Walking { env, direction: Direction::Forward, exploration, draw };
        let (n_parts, starts) = (policies.len(), initial_states(env, n));
        self.parts.resize_with(self.parts.len().max(n_parts), Walkers::default);
        self.parts[..n_parts].par_iter_mut().zip(policies).enumerate().for_each(
            |(i, (part, policy))| {
                let range = n * i / n_parts..n * (i + 1) / n_parts;
                let first = range.start;
                part.walk(walking, &*policy, &starts.slice(range), first, learned);
            },
        );
        let trajectories = self.collect(walking, n_parts);
        let rows = self.row_plan(&trajectories, n_parts);
        let walks = self.parts[..n_parts].iter().flat_map(|part| &part.walks);
        let n_actions = env.space().n_actions;
        let mut legal = Vec::with_capacity(trajectories.n_transitions() * n_actions);
        walks.for_each(|walk| legal.extend_from_slice(&walk.legal));
        Rollout { trajectories, rows, legal, recording: None }
    }

    /// Samples one trajectory that ends in each row of `terminals`, with P_B.
    ///
    /// The result runs forwards, from s0 to the given objects in their order.
    pub fn backward(
        &mut self,
        env: &dyn Environment,
        policy: &dyn Policy,
        draw: Draw,
        terminals: &States,
    ) -> Trajectories {
        self.backward_from(env, policy, draw, terminals, 0)
    }

    /// The same for terminals that are numbered from `first`: those of many, some at a time.
    pub fn backward_from(
        &mut self,
        env: &dyn Environment,
        policy: &dyn Policy,
        draw: Draw,
        terminals: &States,
        first: usize,
    ) -> Trajectories {
        let exploration = Exploration::NONE;
        let walking = Walking { env, direction: Direction::Backward, exploration, draw };
        self.parts.resize_with(self.parts.len().max(1), Walkers::default);
        self.parts[0].walk(walking, policy, terminals, first, false);
        self.collect(walking, 1)
    }

    /// The trajectories of the first parts.
    fn collect(&mut self, walking: Walking<'_>, n_parts: usize) -> Trajectories {
        let width = walking.env.space().width;
        let mut trajectories = Trajectories::new(width);
        for walk in self.parts[..n_parts].iter_mut().flat_map(|part| &mut part.walks) {
            match walking.direction {
                Direction::Forward => {
                    trajectories.push(&walk.rows, &walk.taken, &walk.returned);
                }
                Direction::Backward => {
                    let reversed: Vec<i32> =
                        walk.rows.rchunks_exact(width).flatten().copied().collect();
                    walk.taken.reverse();
                    walk.returned.reverse();
                    trajectories.push(&reversed, &walk.returned, &walk.taken);
                }
            }
        }
        trajectories
    }

    /// The network row of every state, from the order in which the policies were asked.
    fn row_plan(&self, trajectories: &Trajectories, n_parts: usize) -> RowPlan {
        let mut plan = RowPlan {
            states: Vec::with_capacity(trajectories.states.len()),
            of_state: vec![None; trajectories.states.len()],
        };
        let mut before = 0;
        for part in &self.parts[..n_parts] {
            let first_row = plan.states.len() as u32;
            for &(walk, position) in &part.asked {
                let start = trajectories.rows(before + walk as usize).start as u32;
                plan.states.push(start + position);
            }
            for (i, walk) in (before..).zip(&part.walks) {
                for (state, &place) in trajectories.rows(i).zip(&walk.places) {
                    plan.of_state[state] = Some(first_row + place);
                }
            }
            before += part.walks.len();
        }
        plan
    }
}

fn initial_states(env: &dyn Environment, n: usize) -> States {
    let mut start = vec![0; env.space().width];
    env.reset(&mut start);
    let mut starts = States::with_capacity(start.len(), n);
    for _ in 0..n {
        starts.push(&start);
    }
    starts
}

impl Walkers {
    /// Walks from every row of `starts` until no action is legal. `first` is the number of the
    /// first trajectory in its batch. With `terminals` the policy is asked for terminal states with a
    /// choice backwards as well.
    fn walk(
        &mut self,
        walking: Walking<'_>,
        policy: &dyn Policy,
        starts: &States,
        first: usize,
        terminals: bool,
    ) {
        let Walking { env, direction, exploration, draw } = walking;
        let space = env.space();
        let (n, width) = (starts.len(), space.width);
        let n_actions = space.n_actions_in(direction);
        self.walks.resize_with(n, Walk::default);
        for (i, (walk, start)) in self.walks.iter_mut().zip(starts.rows()).enumerate() {
            walk.rows.clear();
            walk.rows.extend_from_slice(start);
            walk.taken.clear();
            walk.returned.clear();
            walk.legal.clear();
            walk.places.clear();
            walk.rng = Some(draw.streams.at(draw.purpose, draw.step, (first + i) as u64));
        }
        self.asked.clear();
        self.active.clear();
        self.front.clear(width);
        for (i, start) in starts.rows().enumerate() {
            let place = self.front.enter(env, direction, start);
            self.active.extend(place.map(|place| (i, place)));
        }
        let mut position = 0;
        while !self.active.is_empty() {
            let before = self.asked.len() as u32;
            for &(i, place) in &self.active {
                // Places are in the order of the first walks there.
                if before + place == self.asked.len() as u32 {
                    self.asked.push((i as u32, position));
                }
            }
            self.logits.resize(self.front.states.len() * n_actions, 0.0);
            policy.logits(env, direction, &self.front.states, &mut self.logits);

            let mut kept = 0;
            self.next.clear(width);
            for slot in 0..self.active.len() {
                let (i, place) = self.active[slot];
                let walk = &mut self.walks[i];
                let of_place = place as usize * n_actions..(place as usize + 1) * n_actions;
                let (logits, mask) = (&self.logits[of_place.clone()], &self.front.legal[of_place]);
                let rng = walk.rng.as_mut().expect("every walk has its stream");
                let action = draw_action(logits, mask, exploration, rng, &mut self.weights);
                walk.legal.extend_from_slice(mask);
                walk.places.push(before + place);
                let start = walk.rows.len();
                walk.rows.extend_from_within(start - width..);
                let row = &mut walk.rows[start..];
                let inverse = match direction {
                    Direction::Forward => env.step(row, action),
                    Direction::Backward => env.unstep(row, action),
                };
                walk.taken.push(action as u32);
                walk.returned.push(inverse as u32);
                if let Some(place) = self.next.enter(env, direction, row) {
                    self.active[kept] = (i, place);
                    kept += 1;
                }
            }
            self.active.truncate(kept);
            std::mem::swap(&mut self.front, &mut self.next);
            position += 1;
        }

        if terminals {
            self.find_terminals(env);
            if !self.front.states.is_empty() {
                self.logits.resize(self.front.states.len() * n_actions, 0.0);
                policy.logits(env, direction, &self.front.states, &mut self.logits);
            }
        }
    }

    /// Finds the terminal states with a choice backwards, the last that the policy is asked for.
    fn find_terminals(&mut self, env: &dyn Environment) {
        let (width, before) = (env.space().width, self.asked.len() as u32);
        let mut mask = vec![false; env.space().n_back_actions];
        self.front.clear(width);
        for (i, walk) in self.walks.iter_mut().enumerate() {
            let row = &walk.rows[walk.rows.len() - width..];
            let known = self.front.index.get(&self.front.states, row);
            let place = known.or_else(|| {
                offers_choice_back(env, row, &mut mask).then(|| {
                    self.asked.push((i as u32, walk.taken.len() as u32));
                    self.front.push(row)
                })
            });
            walk.places.extend(place.map(|place| before + place));
        }
    }
}

/// Draws one of the legal actions.
fn draw_action(
    logits: &[f32],
    legal: &[bool],
    exploration: Exploration,
    rng: &mut ChaCha8Rng,
    weights: &mut Vec<f32>,
) -> usize {
    let mut numbers = (0..legal.len()).filter(|&action| legal[action]);
    if exploration.epsilon > 0.0 && rng.random::<f64>() < exploration.epsilon {
        let n_legal = legal.iter().filter(|&&legal| legal).count();
        let drawn = rng.random_range(0..n_legal as u32) as usize;
        return numbers.nth(drawn).expect("drawn among the legal ones");
    }
    // Drawn even when there is no choice: the stream then does not depend on the masks.
    let uniform = rng.random::<f64>();
    weights.resize(logits.len(), 0.0);
    softmax_weights(logits, legal, (1.0 / exploration.temperature) as f32, weights);
    let total: f64 = weights.chunks(BLOCK).map(block_sum).sum();
    // Rounding may leave the threshold at the very end.
    pick(weights, uniform * total)
        .unwrap_or_else(|| numbers.next_back().expect("some action is legal"))
}

/// The entry in which the running sum of the weights passes `threshold`; never one that weighs
/// nothing, as illegal actions do.
fn pick(weights: &[f32], threshold: f64) -> Option<usize> {
    let mut sum = 0.0;
    for (block, weights) in weights.chunks(BLOCK).enumerate() {
        let before = sum;
        sum += block_sum(weights);
        if threshold < sum {
            let mut sum = before;
            let passed = weights.iter().position(|&weight| {
                sum += f64::from(weight);
                weight > 0.0 && threshold < sum
            });
            // One after the other, entries may add up to a hair less than by lanes: a threshold in
            // between belongs to the last of them.
            let action = passed.or_else(|| weights.iter().rposition(|&weight| weight > 0.0));
            return action.map(|action| block * BLOCK + action);
        }
    }
    None
}

/// Weights that are summed at once.
const BLOCK: usize = 64;

/// The sum of a block, by lanes: the same wherever it is taken.
fn block_sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0f32; 8];
    let chunks = weights.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, &weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    f64::from(lanes.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Weights of a block whose sum by lanes is above the sum of its entries, and both sums.
    fn block_with_a_gap(rng: &mut ChaCha8Rng) -> (Vec<f32>, f64, f64) {
        loop {
            let weights: Vec<f32> = (0..BLOCK).map(|_| rng.random()).collect();
            let by_entry: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            let by_lanes = block_sum(&weights);
            if by_lanes > by_entry {
                return (weights, by_entry, by_lanes);
            }
        }
    }

    /// A threshold between the two sums of a block belongs to that block, whatever comes next.
    #[test]
    fn thresholds_between_two_sums_of_a_block_draw_no_illegal_action() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for tail in [&[0.0; 64][..], &[0.0, 0.5, 0.0], &[0.0]] {
            for _ in 0..200 {
                let (mut weights, by_entry, by_lanes) = block_with_a_gap(&mut rng);
                let last = weights.iter().rposition(|&weight| weight > 0.0);
                weights.extend(tail);
                for share in [0.0, 0.25, 0.5, 0.999] {
                    let threshold = by_entry + share * (by_lanes - by_entry);
                    assert_eq!(pick(&weights, threshold), last, "{threshold}");
                }
                assert_eq!(pick(&weights, 0.0), weights.iter().position(|&weight| weight > 0.0));
            }
        }
    }

    /// Actions over several blocks follow the softmax of their logits: chi^2 against probabilities
    /// in double precision.
    #[test]
    fn draws_among_many_actions_follow_the_softmax() {
        for (n, every, temperature) in [(65, 1, 1.0), (200, 3, 0.7), (1000, 7, 1.5)] {
            let logits: Vec<f32> = (0..n).map(|i| 2.0 * (i as f32 * 0.9).sin()).collect();
            let legal: Vec<bool> = (0..n).map(|i| i % every == every - 1).collect();
            let weight = |i: usize| match legal[i] {
                true => (f64::from(logits[i]) / temperature).exp(),
                false => 0.0,
            };
            let total: f64 = (0..n).map(weight).sum();
            let exploration = Exploration { epsilon: 0.0, temperature };
            let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
            let (mut counts, mut weights) = (vec![0u32; n], Vec::new());
            const DRAWS: usize = 400_000;
            for _ in 0..DRAWS {
                counts[draw_action(&logits, &legal, exploration, &mut rng, &mut weights)] += 1;
            }
            let (mut chi2, mut df) = (0.0, -1.0f64);
            for i in 0..n {
                assert!(legal[i] || counts[i] == 0, "action {i} of {n} is illegal");
                if legal[i] {
                    let expected = DRAWS as f64 * weight(i) / total;
                    assert!(expected > 20.0);
                    chi2 += (f64::from(counts[i]) - expected).powi(2) / expected;
                    df += 1.0;
                }
            }
            assert!((chi2 - df).abs() < 5.0 * (2.0 * df).sqrt(), "{n}: {chi2} with {df} degrees");
        }
    }
}
