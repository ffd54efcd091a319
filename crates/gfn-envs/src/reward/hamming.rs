//! Rewards by Hamming distance to the nearest of a set of modes: bit sequences and the like.

use std::any::Any;
use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::{Environment, KeyError, Modes, Reward, RewardError, States};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sequence::Sequence;

/// Settings of [`HammingReward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HammingSpec {
    /// A text file with one mode per line; empty to draw them.
    pub modes: PathBuf,
    /// Number of modes to draw.
    pub n_modes: usize,
    /// Seed of the draw; not that of the run, so that runs share their task.
    pub mode_seed: u64,
    /// Modes are these blocks, drawn uniformly with replacement, side by side.
    pub blocks: Vec<String>,
    /// log R(x) = -exponent d(x).
    pub exponent: f64,
    /// A mode is found by an object within this distance of it.
    pub mode_radius: usize,
}

impl Default for HammingSpec {
    fn default() -> Self {
        Self {
            modes: PathBuf::new(),
            n_modes: 60,
            mode_seed: 0,
            blocks: ["00000000", "11111111", "11110000", "00001111", "00111100"]
                .map(str::to_owned)
                .to_vec(),
            exponent: 2.0,
            mode_radius: 30,
        }
    }
}

impl Kind<RewardAxis> for HammingSpec {
    const NAME: &'static str = "hamming";
    const SUMMARY: &'static str = "exp(-exponent d), d the Hamming distance to the nearest mode";
    const PAPER: Option<&'static str> = Some("arXiv:2201.13259");

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let sequence = (context.env as &dyn Any).downcast_ref::<Sequence>().ok_or_else(|| {
            KeyError::new("kind", "the reward `hamming` is defined on strings")
                .help("choose env.kind = \"bit_sequence\" or \"sequence\", or another reward")
        })?;
        if !(self.exponent > 0.0 && self.exponent.is_finite()) {
            return Err(KeyError::new("exponent", "the exponent must be above 0"));
        }
        if sequence.symbol_chars().is_none() {
            return Err(KeyError::new("kind", "Hamming distances need symbols of one length")
                .help("rename env.symbols, or choose another reward"));
        }
        let texts = match self.modes.as_os_str().is_empty() {
            true => self.draw(sequence)?,
            false => self.read(context)?,
        };
        let modes = texts
            .iter()
            .map(|(text, place)| {
                sequence.parse(text).ok_or_else(|| {
                    KeyError::new(
                        if place.is_empty() { "blocks" } else { "modes" },
                        format!("{place}`{text}` is no string of the environment"),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(HammingReward::new(sequence, &modes, self.exponent, self.mode_radius)))
    }
}

impl HammingSpec {
    /// Modes with where they are from, as the start of a message.
    fn read(&self, context: RewardContext<'_>) -> Result<Vec<(String, String)>, KeyError> {
        let path = self.modes.display();
        let bytes = context.files.read(&self.modes).map_err(|error| {
            KeyError::data("modes", format!("cannot read `{path}`: {error}"))
                .help("name an existing file with one mode per line, or leave the key out")
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let modes: Vec<_> = lines
            .map(|(i, line)| (line.trim().to_owned(), format!("line {} of `{path}`: ", i + 1)))
            .filter(|(line, _)| !line.is_empty())
            .collect();
        if modes.is_empty() {
            return Err(KeyError::new("modes", format!("`{path}` lists no modes")));
        }
        Ok(modes)
    }

    fn draw(&self, sequence: &Sequence) -> Result<Vec<(String, String)>, KeyError> {
        if self.n_modes == 0 || self.n_modes > 1 << 20 {
            let message = format!("must lie in 1..=2^20, not {}", self.n_modes);
            return Err(KeyError::new("n_modes", message));
        }
        let block = self.blocks.first().map_or(0, |block| block.chars().count());
        if block == 0 || self.blocks.iter().any(|other| other.chars().count() != block) {
            return Err(KeyError::new("blocks", "blocks must be of one length, at least 1"));
        }
        let length = sequence.layout().width * sequence.symbol_chars().unwrap_or(1);
        if !length.is_multiple_of(block) {
            let message =
                format!("{length} characters are not a whole number of blocks of {block}");
            return Err(KeyError::new("blocks", message)
                .help("choose other blocks, or name a file of modes: reward.modes"));
        }
        let n_blocks = length / block;
        let mut rng = Streams::new(self.mode_seed).get(Purpose::Task, 0);
        let mut mode = || -> String {
            let block =
                || self.blocks[rng.random_range(0..self.blocks.len() as u32) as usize].as_str();
            std::iter::repeat_with(block).take(n_blocks).collect()
        };
        Ok((0..self.n_modes).map(|_| (mode(), String::new())).collect())
    }
}

/// R(x) = exp(−exponent · min over modes of the Hamming distance), counted in characters.
pub struct HammingReward {
    /// Distance of symbol `c` at position `i` from mode `m`, at `(m * length + i) * k + c`.
    distances: Vec<u16>,
    n_modes: usize,
    length: usize,
    k: usize,
    exponent: f64,
    radius: usize,
}

impl HammingReward {
    fn new(sequence: &Sequence, modes: &[Vec<i32>], exponent: f64, radius: usize) -> Self {
        let symbols = sequence.symbols();
        let distance =
            |a: &str, b: &str| a.chars().zip(b.chars()).filter(|(a, b)| a != b).count() as u16;
        let mut distances = Vec::new();
        for &symbol in modes.iter().flatten() {
            let mode = &symbols[symbol as usize];
            distances.extend(symbols.iter().map(|symbol| distance(symbol, mode)));
        }
        let length = sequence.layout().width;
        Self { distances, n_modes: modes.len(), length, k: symbols.len(), exponent, radius }
    }

    /// Distances of a complete string to every mode.
    fn distances<'a>(&'a self, row: &'a [i32]) -> impl Iterator<Item = usize> + 'a {
        self.distances.chunks_exact(self.length * self.k).map(move |mode| {
            let by_position = mode.chunks_exact(self.k).zip(row);
            by_position.map(|(symbols, &c)| usize::from(symbols[c as usize])).sum()
        })
    }
}

impl Reward for HammingReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let nearest = self.distances(row).min().expect("there are modes");
            *out = -self.exponent * nearest as f64;
        }
        Ok(())
    }

    fn modes(&self) -> Option<&dyn Modes> {
        Some(self)
    }
}

impl Modes for HammingReward {
    fn definition(&self) -> String {
        format!("found by an object within Hamming distance {} of it", self.radius)
    }

    fn count(&self) -> Option<u64> {
        Some(self.n_modes as u64)
    }

    fn modes_of(&self, row: &[i32], _log_reward: f64) -> Vec<u64> {
        let found = self.distances(row).enumerate().filter(|&(_, d)| d <= self.radius);
        found.map(|(mode, _)| mode as u64).collect()
    }
}
