//! The reward of the hypergrid: a low floor, a plateau and a peak near every corner.

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::rng::mix;
use gfn_core::special::log_sum_exp;
use gfn_core::{KeyError, Modes, Reward, RewardError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hypergrid::Hypergrid;

/// Named constants of the papers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// r0 = 1e-3, r1 = 0.5, r2 = 2 (arXiv:2310.12934 and 2410.15474).
    #[default]
    Standard,
    /// r0 = 1e-4, r1 = 1, r2 = 3 (arXiv:2310.12934 and 2410.15474, "hard").
    Hard,
    /// r0 = 1e-2, r1 = 0.5, r2 = 2 (arXiv:2408.05885).
    Pg,
}

impl Variant {
    fn constants(self) -> [f64; 3] {
        match self {
            Variant::Standard => [1e-3, 0.5, 2.0],
            Variant::Hard => [1e-4, 1.0, 3.0],
            Variant::Pg => [1e-2, 0.5, 2.0],
        }
    }
}

/// Settings of [`HypergridReward`]: a named variant, or any constants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HypergridRewardSpec {
    /// Named constants; `standard` if neither this nor constants are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// Reward everywhere, above 0. Default: that of `standard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r0: Option<f64>,
    /// Added on the plateaus, at least 0. Default: that of `standard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r1: Option<f64>,
    /// Added on the peaks, at least 0. Default: that of `standard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
}

impl HypergridRewardSpec {
    fn constants(&self) -> [f64; 3] {
        let named = self.variant.unwrap_or_default().constants();
        [self.r0.unwrap_or(named[0]), self.r1.unwrap_or(named[1]), self.r2.unwrap_or(named[2])]
    }
}

impl Kind<RewardAxis> for HypergridRewardSpec {
    const NAME: &'static str = "hypergrid";
    const ALIASES: &'static [&'static str] = &["grid"];
    const SUMMARY: &'static str = "floor, plateaus and peaks near the corners of the hypergrid";
    const PAPER: Option<&'static str> = Some("arXiv:2106.04399");

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let constants = [("r0", self.r0), ("r1", self.r1), ("r2", self.r2)];
        if let (Some(_), Some((key, _))) =
            (self.variant, constants.iter().find(|(_, value)| value.is_some()))
        {
            return Err(KeyError::new(
                key,
                format!("`variant` and `{key}` both set the constants"),
            )
            .help("keep `variant`, or keep r0, r1 and r2"));
        }
        let [r0, r1, r2] = self.constants();
        if !(r0 > 0.0 && r0.is_finite()) {
            return Err(KeyError::new("r0", format!("the floor must be above 0, not {r0}"))
                .help("a zero reward has no finite logarithm; the papers use 1e-2 to 1e-4"));
        }
        for (key, value) in [("r1", r1), ("r2", r2)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(KeyError::new(key, format!("must be at least 0, not {value}")));
            }
        }
        let grid = context.env_as::<Hypergrid>().ok_or_else(|| {
            KeyError::new(
                "kind",
                "the reward `hypergrid` is defined on the environment `hypergrid`",
            )
            .help("choose env.kind = \"hypergrid\", or another reward")
        })?;
        Ok(Box::new(HypergridReward::new(grid, r0, r1, r2)))
    }

    fn resolve(&self) -> toml::Table {
        let mut table = toml::Table::new();
        for (key, value) in ["r0", "r1", "r2"].into_iter().zip(self.constants()) {
            table.insert(key.to_owned(), value.into());
        }
        table
    }
}

/// R(s) = r0 + r1 Π_d [|s_d/(H-1) − 1/2| > 1/4] + r2 Π_d [3/10 < |s_d/(H-1) − 1/2| < 2/5].
///
/// The strict inequalities are decided in integers: with m = |2 s_d − (H−1)| they read
/// 2m > H−1 and 3(H−1) < 5m < 4(H−1). In floating point some cells of sides 16 and 256 fall on
/// the wrong side.
///
/// A mode is a connected cluster of peak cells, neighbours being one step apart. The peak set is
/// a product of the same coordinate set in every dimension, so clusters are products of runs of
/// consecutive coordinates.
#[derive(Clone, Debug)]
pub struct HypergridReward {
    dim: usize,
    side: usize,
    constants: [f64; 3],
    plateau: Vec<bool>,
    /// The run of peak coordinates that a coordinate belongs to.
    run: Vec<Option<u64>>,
    n_runs: u64,
}

impl HypergridReward {
    /// The reward with the given constants on `grid`.
    pub fn new(grid: &Hypergrid, r0: f64, r1: f64, r2: f64) -> Self {
        let last = grid.side as i64 - 1;
        let distance = |s: i64| (2 * s - last).abs();
        let plateau = (0..=last).map(|s| 2 * distance(s) > last).collect();
        let is_peak = |s: i64| 3 * last < 5 * distance(s) && 5 * distance(s) < 4 * last;
        let mut run = Vec::with_capacity(grid.side);
        let mut n_runs = 0;
        for s in 0..=last {
            if is_peak(s) {
                n_runs += u64::from(s == 0 || !is_peak(s - 1));
                run.push(Some(n_runs - 1));
            } else {
                run.push(None);
            }
        }
        Self { dim: grid.dim, side: grid.side, constants: [r0, r1, r2], plateau, run, n_runs }
    }

    /// Coordinates per dimension on the plateau, and on the peaks.
    pub fn n_coordinates(&self) -> (usize, usize) {
        (
            self.plateau.iter().filter(|&&inside| inside).count(),
            self.run.iter().filter(|run| run.is_some()).count(),
        )
    }
}

impl Reward for HypergridReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        let [r0, r1, r2] = self.constants;
        // Only four sums exist.
        let logs = [r0, r0 + r1, r0 + r2, r0 + r1 + r2].map(f64::ln);
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let coordinates = &row[..self.dim];
            let plateau = coordinates.iter().all(|&s| self.plateau[s as usize]);
            let peak = coordinates.iter().all(|&s| self.run[s as usize].is_some());
            *out = logs[usize::from(plateau) + 2 * usize::from(peak)];
        }
        Ok(())
    }

    /// Z = r0 H^D + r1 a^D + r2 b^D, with a and b the numbers of plateau and peak coordinates.
    fn log_partition(&self) -> Option<f64> {
        let (plateau, peak) = self.n_coordinates();
        let sizes = [self.side, plateau, peak];
        Some(log_sum_exp(
            sizes
                .iter()
                .zip(self.constants)
                .map(|(&size, r)| r.ln() + self.dim as f64 * (size as f64).ln())
                .collect::<Vec<_>>(),
        ))
    }

    fn modes(&self) -> Option<&dyn Modes> {
        (self.n_runs > 0 && self.constants[2] > 0.0).then_some(self)
    }
}

impl Modes for HypergridReward {
    fn definition(&self) -> String {
        "a connected cluster of peak cells: states with 3/10 < |s_d/(side-1) - 1/2| < 2/5 in every \
         dimension d, connected if one step apart"
            .to_owned()
    }

    fn count(&self) -> Option<u64> {
        self.n_runs.checked_pow(u32::try_from(self.dim).ok()?)
    }

    fn modes_of(&self, row: &[i32], _log_reward: f64) -> Vec<u64> {
        let runs = row[..self.dim].iter().map(|&s| self.run[s as usize]);
        mode_number(runs, self.n_runs, self.dim).into_iter().collect()
    }
}

/// The number of the mode that consists of a run of coordinates in each of `dim` dimensions, out of `n`
/// in each; none where a coordinate is in no run.
pub(super) fn mode_number(
    mut runs: impl Iterator<Item = Option<u64>>,
    n: u64,
    dim: usize,
) -> Option<u64> {
    // Mixed radix where all modes fit; else a hash: two of a million modes share a number with
    // a probability of 3e-8.
    let fits = u32::try_from(dim).is_ok_and(|dim| n.checked_pow(dim).is_some());
    runs.try_fold(0u64, |id, run| {
        let run = run?;
        Some(if fits { id * n + run } else { mix(id ^ mix(run)) })
    })
}
