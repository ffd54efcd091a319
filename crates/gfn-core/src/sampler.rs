//! Sampling trajectories: forwards from s0, or backwards from given objects.
//!
//! Rows advance in lockstep so that the policy sees one batch per step; finished trajectories
//! drop out of the batch. Every trajectory draws from its own random stream, so what is drawn
//! for one does not depend on the others.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::policy::{Direction, Policy};
use crate::rng::{Purpose, Streams};
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

/// Draws trajectories; keeps its buffers from batch to batch.
#[derive(Debug, Default)]
pub struct Sampler {
    walks: Vec<Walk>,
    active: Vec<usize>,
    batch: States,
    logits: Vec<f32>,
    mask: Vec<bool>,
    weights: Vec<f64>,
    legal: Vec<usize>,
}

/// One trajectory in the making.
#[derive(Debug, Default)]
struct Walk {
    rows: Vec<i32>,
    taken: Vec<u32>,
    returned: Vec<u32>,
    rng: Option<ChaCha8Rng>,
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
        let mut start = vec![0; env.layout().width];
        env.reset(&mut start);
        let mut starts = States::with_capacity(start.len(), n);
        for _ in 0..n {
            starts.push(&start);
        }
        self.walk(env, policy, Direction::Forward, exploration, draw, &starts)
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
        self.walk(env, policy, Direction::Backward, Exploration::NONE, draw, terminals)
    }

    fn walk(
        &mut self,
        env: &dyn Environment,
        policy: &dyn Policy,
        direction: Direction,
        exploration: Exploration,
        draw: Draw,
        starts: &States,
    ) -> Trajectories {
        let layout = env.layout();
        let (n, width) = (starts.len(), layout.width);
        let n_actions = match direction {
            Direction::Forward => layout.n_actions,
            Direction::Backward => layout.n_back_actions,
        };
        self.walks.resize_with(n.max(self.walks.len()), Walk::default);
        for (i, (walk, start)) in self.walks.iter_mut().zip(starts.rows()).enumerate() {
            walk.rows.clear();
            walk.rows.extend_from_slice(start);
            walk.taken.clear();
            walk.returned.clear();
            walk.rng = Some(draw.streams.at(draw.purpose, draw.step, i as u64));
        }
        self.mask.resize(n_actions, false);
        self.active.clear();
        self.active.extend(0..n);
        if self.batch.width() != width {
            self.batch = States::new(width);
        }
        while !self.active.is_empty() {
            self.batch.clear();
            for &i in &self.active {
                let rows = &self.walks[i].rows;
                self.batch.push(&rows[rows.len() - width..]);
            }
            self.logits.resize(self.active.len() * n_actions, 0.0);
            policy.logits(env, direction, &self.batch, &mut self.logits);

            let mut kept = 0;
            for slot in 0..self.active.len() {
                let i = self.active[slot];
                let row = self.batch.row_mut(slot);
                match direction {
                    Direction::Forward => env.legal(row, &mut self.mask),
                    Direction::Backward => env.legal_back(row, &mut self.mask),
                }
                self.legal.clear();
                self.legal.extend((0..n_actions).filter(|&action| self.mask[action]));
                if self.legal.is_empty() {
                    continue; // the walk has arrived
                }
                let walk = &mut self.walks[i];
                let rng = walk.rng.as_mut().expect("every walk has its stream");
                let logits = &self.logits[slot * n_actions..(slot + 1) * n_actions];
                let action = draw_action(logits, &self.legal, exploration, rng, &mut self.weights);
                let inverse = match direction {
                    Direction::Forward => env.step(row, action),
                    Direction::Backward => env.unstep(row, action),
                };
                walk.rows.extend_from_slice(row);
                walk.taken.push(action as u32);
                walk.returned.push(inverse as u32);
                self.active[kept] = i;
                kept += 1;
            }
            self.active.truncate(kept);
        }

        let mut trajectories = Trajectories::new(width);
        for walk in &mut self.walks[..n] {
            match direction {
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
}

/// Draws one of the `legal` actions.
fn draw_action(
    logits: &[f32],
    legal: &[usize],
    exploration: Exploration,
    rng: &mut ChaCha8Rng,
    weights: &mut Vec<f64>,
) -> usize {
    if exploration.epsilon > 0.0 && rng.random::<f64>() < exploration.epsilon {
        return legal[rng.random_range(0..legal.len() as u32) as usize];
    }
    // Drawn even when there is no choice: the stream then does not depend on the masks.
    let uniform = rng.random::<f64>();
    let max = legal.iter().map(|&a| logits[a]).fold(f32::NEG_INFINITY, f32::max);
    weights.clear();
    let mut total = 0.0;
    for &action in legal {
        total += (f64::from(logits[action] - max) / exploration.temperature).exp();
        weights.push(total);
    }
    let threshold = uniform * total;
    let slot = weights.iter().position(|&cumulative| threshold < cumulative);
    legal[slot.unwrap_or(legal.len() - 1)]
}
