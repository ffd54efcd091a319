//! The hypergrid: walk from the origin of a lattice, one step along one axis at a time, and stop
//! anywhere (Bengio et al. 2021, arXiv:2106.04399, §4.1).

use std::ops::Range;

use gfn_core::registry::{EnvAxis, EnvContext, Kind};
use gfn_core::space::At;
use gfn_core::special::ln_gamma;
use gfn_core::{Block, Environment, KeyError, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of [`Hypergrid`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HypergridSpec {
    /// Number of dimensions, at least 1.
    pub dim: usize,
    /// Cells per dimension, at least 2.
    pub side: usize,
}

impl Default for HypergridSpec {
    fn default() -> Self {
        Self { dim: 4, side: 20 }
    }
}

impl Kind<EnvAxis> for HypergridSpec {
    const NAME: &'static str = "hypergrid";
    const ALIASES: &'static [&'static str] = &["grid"];
    const SUMMARY: &'static str = "walk a dim-dimensional grid of the given side and stop anywhere";
    const PAPER: Option<&'static str> = Some("arXiv:2106.04399");

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        if self.dim == 0 {
            return Err(KeyError::new("dim", "a grid needs at least one dimension")
                .help("the papers use dim = 4"));
        }
        if self.side < 2 {
            return Err(KeyError::new(
                "side",
                format!("a grid needs at least 2 cells per dimension, not {}", self.side),
            )
            .help("the papers use side = 20"));
        }
        // Token ids and action numbers are 32-bit.
        if self.dim.checked_mul(self.side).is_none_or(|n| n > 1 << 24) {
            return Err(KeyError::new("side", "dim * side must not exceed 2^24"));
        }
        Ok(Box::new(Hypergrid::new(self.dim, self.side)))
    }
}

/// States are points of {0..side-1}^dim, all of which can be stopped at.
///
/// A row holds the `dim` coordinates and whether the walk has stopped. Action `d < dim` adds one
/// to coordinate `d`, action `dim` stops; backward actions have the same numbers. Each
/// dimension is a slot whose one feature is its coordinate: the one-hot code of the papers, `dim * side`
/// wide.
#[derive(Clone, Debug)]
pub struct Hypergrid {
    /// Number of dimensions.
    pub dim: usize,
    /// Cells per dimension.
    pub side: usize,
    space: Space,
}

impl Hypergrid {
    /// A grid of at least one dimension, and at least 2 cells each.
    pub fn new(dim: usize, side: usize) -> Self {
        let space = Space::new(dim + 1, dim * (side - 1) + 1)
            .named_slots(dim, &[side])
            .forward(&[Block::slot("up", At::Any, 1), Block::stop()])
            .backward(&[Block::slot("down", At::Any, 1), Block::whole("go_on", 1)]);
        Self { dim, side, space }
    }
}

impl Environment for Hypergrid {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        let stopped = row[self.dim] != 0;
        let last = self.side as i32 - 1;
        for (legal, &coordinate) in mask.iter_mut().zip(&row[..self.dim]) {
            *legal = !stopped && coordinate < last;
        }
        mask[self.dim] = !stopped;
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        let stopped = row[self.dim] != 0;
        for (legal, &coordinate) in mask.iter_mut().zip(&row[..self.dim]) {
            *legal = !stopped && coordinate > 0;
        }
        mask[self.dim] = stopped;
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        row[action] += 1;
        action
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        row[back_action] -= 1;
        back_action
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        cells.copy_from_slice(&row[..self.dim]);
    }

    fn render(&self, row: &[i32]) -> String {
        let coordinates: Vec<String> = row[..self.dim].iter().map(i32::to_string).collect();
        coordinates.join(" ")
    }

    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        let mut row = Vec::with_capacity(self.dim + 1);
        for token in text.split_whitespace() {
            let coordinate: i32 = token.parse().ok()?;
            if !(0..self.side as i32).contains(&coordinate) {
                return None;
            }
            row.push(coordinate);
        }
        row.push(1);
        (row.len() == self.dim + 1).then_some(row)
    }

    /// The number of orders of the steps: the multinomial (Σ s_d)! / Π s_d!.
    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        let coordinates = &row[..self.dim];
        let total: i32 = coordinates.iter().sum();
        let orders: f64 = coordinates.iter().map(|&s| ln_gamma(f64::from(s) + 1.0)).sum();
        Some(ln_gamma(f64::from(total) + 1.0) - orders)
    }

    fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
        let mut ranges = vec![0..self.side as i32; self.dim];
        ranges.push(0..2);
        Some(ranges)
    }

    fn n_objects(&self) -> Option<u64> {
        Some((self.side as u64).saturating_pow(self.dim as u32))
    }
}
