//! `gfn` with one more environment and a reward for it: sets of a few of n items.

use std::ops::Range;
use std::process::ExitCode;

use gfn_cli::Registry;
use gfn_core::registry::{EnvAxis, EnvContext, Kind, RewardAxis, RewardContext};
use gfn_core::space::At;
use gfn_core::special::ln_gamma;
use gfn_core::{Block, Entry, Environment, KeyError, NO_TOKEN, Reward, RewardError, Space, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of [`Subsets`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubsetsSpec {
    /// Number of items, from 1 to 60.
    pub items: usize,
    /// The most items of a set, at least 1.
    pub most: usize,
}

impl Default for SubsetsSpec {
    fn default() -> Self {
        Self { items: 8, most: 3 }
    }
}

impl Kind<EnvAxis> for SubsetsSpec {
    const NAME: &'static str = "subsets";
    const SUMMARY: &'static str = "sets of items, added one by one";

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        if !(1..=60).contains(&self.items) {
            let message = format!("must lie in 1..=60, not {}", self.items);
            return Err(KeyError::new("items", message));
        }
        if !(1..=self.items).contains(&self.most) {
            let message = format!("must lie in 1..={}, not {}", self.items, self.most);
            return Err(KeyError::new("most", message).help("env.items says how many there are"));
        }
        Ok(Box::new(Subsets::new(self.items, self.most)))
    }
}

/// Sets of up to `most` of `items` things. A row holds, per item, whether it is in the set, and at the end
/// whether the set is finished. Action `i < items` adds item i, action `items` finishes; backward
/// actions have the same numbers.
pub struct Subsets {
    items: usize,
    most: usize,
    space: Space,
}

impl Subsets {
    /// Sets of up to `most` of `items` things.
    pub fn new(items: usize, most: usize) -> Self {
        let space = Space::new(items + 1, most + 1)
            .named_slots(items, &[1])
            .forward(&[Block::slot("add", At::Empty, 1), Block::stop()])
            .backward(&[Block::slot("remove", At::Filled, 1), Block::whole("go_on", 1)]);
        Self { items, most, space }
    }

    /// Whether each item is in the set.
    fn chosen<'a>(&self, row: &'a [i32]) -> &'a [i32] {
        &row[..self.items]
    }

    fn size(&self, row: &[i32]) -> usize {
        self.chosen(row).iter().filter(|&&cell| cell == 1).count()
    }

    fn is_finished(&self, row: &[i32]) -> bool {
        row[self.items] == 1
    }
}

impl Environment for Subsets {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        let room = !self.is_finished(row) && self.size(row) < self.most;
        for (legal, &cell) in mask.iter_mut().zip(self.chosen(row)) {
            *legal = room && cell == 0;
        }
        mask[self.items] = !self.is_finished(row);
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        for (legal, &cell) in mask.iter_mut().zip(self.chosen(row)) {
            *legal = !self.is_finished(row) && cell == 1;
        }
        mask[self.items] = self.is_finished(row);
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        row[action] = 1;
        action
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        row[back_action] = 0;
        back_action
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        for (seen, &cell) in cells.iter_mut().zip(self.chosen(row)) {
            *seen = if cell == 1 { 0 } else { NO_TOKEN };
        }
    }

    fn render(&self, row: &[i32]) -> String {
        let items = (0..self.items).filter(|&i| row[i] == 1).map(|i| i.to_string());
        let text = items.collect::<Vec<_>>().join(" ");
        if text.is_empty() { "none".to_owned() } else { text }
    }

    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        let mut row = vec![0; self.items + 1];
        row[self.items] = 1;
        for item in text.split_whitespace().filter(|&item| item != "none") {
            let cell = row[..self.items].get_mut(item.parse::<usize>().ok()?)?;
            if std::mem::replace(cell, 1) == 1 {
                return None;
            }
        }
        (self.size(&row) <= self.most).then_some(row)
    }

    /// n items can be added in n! orders.
    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        Some(ln_gamma(self.size(row) as f64 + 1.0))
    }

    /// The sum of the binomial coefficients, below 2^60.
    fn n_objects(&self) -> Option<u64> {
        let (mut all, mut of_size) = (1, 1);
        for size in 1..=self.most as u64 {
            of_size = of_size * (self.items as u64 + 1 - size) / size;
            all += of_size;
        }
        Some(all)
    }

    fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
        Some((0..=self.items).map(|_| 0..2).collect())
    }
}

/// Settings of [`Product`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductSpec {
    /// A weight above 0 for every item.
    pub weights: Vec<f64>,
}

impl Kind<RewardAxis> for ProductSpec {
    const NAME: &'static str = "product";
    const SUMMARY: &'static str = "the product of the weights of the items in a set";

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let Some(env) = context.env_as::<Subsets>() else {
            return Err(KeyError::new("kind", "the reward `product` is one of `subsets`")
                .help("choose env.kind = \"subsets\", or another reward"));
        };
        if self.weights.len() != env.items {
            let message = format!("has {} weights for {} items", self.weights.len(), env.items);
            return Err(KeyError::new("weights", message));
        }
        if let Some(weight) = self.weights.iter().find(|&&w| !(w > 0.0 && w.is_finite())) {
            return Err(KeyError::new("weights", format!("must be above 0, not {weight}")));
        }
        // Elementary symmetric polynomials: sums over all sets of each size.
        let mut of_size = vec![0.0; env.most + 1];
        of_size[0] = 1.0;
        for weight in &self.weights {
            for size in (1..=env.most).rev() {
                of_size[size] += weight * of_size[size - 1];
            }
        }
        let log_weights = self.weights.iter().map(|weight| weight.ln()).collect();
        Ok(Box::new(Product { log_weights, log_z: of_size.iter().sum::<f64>().ln() }))
    }
}

/// R(S) = Π_{i ∈ S} w_i.
struct Product {
    log_weights: Vec<f64>,
    log_z: f64,
}

impl Reward for Product {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (row, out) in xs.rows().zip(out) {
            let chosen = self.log_weights.iter().zip(row).filter(|(_, cell)| **cell == 1);
            *out = chosen.map(|(log_weight, _)| log_weight).sum();
        }
        Ok(())
    }

    fn log_partition(&self) -> Option<f64> {
        Some(self.log_z)
    }
}

/// What `gfn` knows, and these two.
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.environments.push(Entry::of::<SubsetsSpec>());
    registry.rewards.push(Entry::of::<ProductSpec>());
    registry
}

fn main() -> ExitCode {
    gfn_cli::run(&registry())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_hold() {
        for (items, most) in [(1, 1), (5, 2), (6, 6), (60, 5)] {
            let env = Subsets::new(items, most);
            gfn_core::laws::check(&env)
                .unwrap_or_else(|broken| panic!("{items}, {most}: {broken}"));
        }
    }
}
