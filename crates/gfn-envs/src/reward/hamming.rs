//! Rewards by Hamming distance to the nearest of a set of modes: bit sequences and the like.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::special::log_sum_exp;
use gfn_core::{Environment, KeyError, Modes, Reward, RewardError, States, TargetEstimate};
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
    /// A text file with one test object per line; empty to draw them from the modes.
    pub test_set: PathBuf,
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
            test_set: PathBuf::new(),
        }
    }
}

impl Kind<RewardAxis> for HammingSpec {
    const NAME: &'static str = "hamming";
    const SUMMARY: &'static str = "exp(-exponent d), d the Hamming distance to the nearest mode";
    const PAPER: Option<&'static str> = Some("arXiv:2201.13259");

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let sequence = context
            .env_as::<Sequence>()
            .filter(|sequence| sequence.fixed_length().is_some())
            .ok_or_else(|| {
                KeyError::new("kind", "the reward `hamming` is defined on strings of one length")
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
            true => {
                let bits = self.blocks.iter().all(|block| is_bits(block));
                self.check_sizes(sequence, "n_modes", self.n_modes, bits)?;
                self.draw(sequence)?
            }
            false => {
                let texts = read("modes", &self.modes, context)?;
                let bits = texts.iter().all(|(mode, _)| is_bits(mode));
                self.check_sizes(sequence, "modes", texts.len(), bits)?;
                texts
            }
        };
        let key = if self.modes.as_os_str().is_empty() { "blocks" } else { "modes" };
        let modes = parse(key, sequence, &texts)?;
        let tests = if self.test_set.as_os_str().is_empty() {
            self.draw_tests(&texts)
        } else {
            read("test_set", &self.test_set, context)?
        };
        let mut test = States::new(sequence.space().width);
        parse("test_set", sequence, &tests)?.iter().for_each(|row| test.push(row));
        let test = (!test.is_empty()).then_some(test);
        let mut reward = HammingReward::new(sequence, &modes, self.exponent, self.mode_radius);
        reward.test = test;
        Ok(Box::new(reward))
    }
}

/// Strings with where they are from, as the start of a message.
fn read(
    key: &str,
    path: &Path,
    context: RewardContext<'_>,
) -> Result<Vec<(String, String)>, KeyError> {
    let bytes = context.files.read_for(key, path).map_err(|error| match error.help {
        Some(_) => error,
        None => error.help("name an existing file with one string per line, or leave the key out"),
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let place = |i: usize| format!("line {} of `{}`: ", i + 1, path.display());
    let strings: Vec<_> = lines
        .map(|(i, line)| (line.trim().to_owned(), place(i)))
        .filter(|(line, _)| !line.is_empty())
        .collect();
    if strings.is_empty() {
        return Err(KeyError::new(key, format!("`{}` lists no strings", path.display())));
    }
    Ok(strings)
}

fn parse(
    key: &str,
    sequence: &Sequence,
    strings: &[(String, String)],
) -> Result<Vec<Vec<i32>>, KeyError> {
    let parse = |(text, place): &(String, String)| {
        let message = || format!("{place}`{text}` is no string of the environment");
        sequence.parse(text).ok_or_else(|| KeyError::new(key, message()))
    };
    strings.iter().map(parse).collect()
}

/// Test objects that are drawn, one for each character of each mode.
const MAX_TESTS: u64 = 200_000;
/// Entries of the table of distances, two bytes each.
const MAX_DISTANCES: u64 = 50_000_000;

/// Whether a string is of 0s and 1s.
fn is_bits(text: &str) -> bool {
    text.chars().all(|c| c == '0' || c == '1')
}

impl HammingSpec {
    /// Test objects of the papers, for bits: every mode, and for every 0 < c < n one string that
    /// differs from it in c random bits.
    fn draw_tests(&self, modes: &[(String, String)]) -> Vec<(String, String)> {
        if !modes.iter().all(|(mode, _)| is_bits(mode)) {
            return Vec::new();
        }
        let streams = Streams::new(self.mode_seed);
        let mut tests = Vec::new();
        for (m, (mode, _)) in modes.iter().enumerate() {
            let mut rng = streams.at(Purpose::Task, 1, m as u64);
            for flips in 0..mode.len() {
                let mut bits = mode.clone().into_bytes();
                let mut positions: Vec<usize> = (0..bits.len()).collect();
                for i in 0..flips {
                    let other = i + rng.random_range(0..(positions.len() - i) as u32) as usize;
                    positions.swap(i, other);
                    bits[positions[i]] ^= b'0' ^ b'1';
                }
                tests.push((String::from_utf8(bits).expect("0s and 1s"), String::new()));
            }
        }
        tests
    }

    /// Refuses more modes, `n` as `key` says, than anybody wants to wait for: every object is compared
    /// with all of them, and test objects are drawn from each if they are of `bits`.
    fn check_sizes(
        &self,
        sequence: &Sequence,
        key: &str,
        n: usize,
        bits: bool,
    ) -> Result<(), KeyError> {
        if n == 0 {
            return Err(KeyError::new(key, "there must be at least 1 mode"));
        }
        let n = n as u64;
        let (width, k) = (sequence.space().width as u64, sequence.symbols().len() as u64);
        let characters = width * sequence.symbol_chars().unwrap_or(1) as u64;
        let draws_tests = bits && self.test_set.as_os_str().is_empty();
        let limits = [
            (if draws_tests { characters } else { 0 }, MAX_TESTS, "test objects"),
            (width * k, MAX_DISTANCES, "distances of symbols from modes"),
        ];
        for (per_mode, limit, what) in limits {
            if n.saturating_mul(per_mode) > limit {
                let total = n as f64 * per_mode as f64;
                let message = format!("{n} modes make {total:.1e} {what}, more than {limit:.0e}");
                return Err(KeyError::new(key, message)
                    .help(format!("at most {} modes here; the papers use 60", limit / per_mode)));
            }
        }
        Ok(())
    }

    fn draw(&self, sequence: &Sequence) -> Result<Vec<(String, String)>, KeyError> {
        let block = self.blocks.first().map_or(0, |block| block.chars().count());
        if block == 0 || self.blocks.iter().any(|other| other.chars().count() != block) {
            return Err(KeyError::new("blocks", "blocks must be of one length, at least 1"));
        }
        let length = sequence.space().width * sequence.symbol_chars().unwrap_or(1);
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
    test: Option<States>,
    estimate: OnceLock<TargetEstimate>,
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
        let length = sequence.space().width;
        let (n_modes, k) = (modes.len(), symbols.len());
        let estimate = OnceLock::new();
        Self { distances, n_modes, length, k, exponent, radius, test: None, estimate }
    }

    /// Importance sampling from a mixture with one component per mode m, q_m(x) ∝ exp(−exponent
    /// d_m(x)), which factorises over positions. With Q the sum of the unnormalised components,
    /// Z = Σ_m Z_m E_q[R(x) / Q(x)], and R/Q lies between 1/n_modes and 1. The mean log reward is
    /// corrected by that under q of the component drawn, which is known exactly (a control
    /// variate): where modes lie apart, nearly nothing remains of the standard error.
    fn estimate_target(&self) -> TargetEstimate {
        const SAMPLES: usize = 50_000;
        let weight = |distance: u16| (-self.exponent * f64::from(distance)).exp();
        // Cumulative weights of the symbols at every position of every mode; log Z and the mean
        // log reward of every component.
        let mut cumulative: Vec<f64> = self.distances.iter().map(|&d| weight(d)).collect();
        let (mut log_z_of, mut mean_of) = (vec![0.0; self.n_modes], vec![0.0; self.n_modes]);
        let by_position = cumulative.chunks_exact_mut(self.k).zip(self.distances.chunks(self.k));
        for (i, (symbols, distances)) in by_position.enumerate() {
            let (mut sum, mut weighted) = (0.0, 0.0);
            for (weight, &distance) in symbols.iter_mut().zip(distances) {
                weighted += *weight * f64::from(distance);
                sum += *weight;
                *weight = sum;
            }
            log_z_of[i / self.length] += sum.ln();
            mean_of[i / self.length] -= self.exponent * weighted / sum;
        }
        let log_z_all = log_sum_exp(log_z_of.iter().copied());
        let shares = log_z_of.iter().map(|log_z| (log_z - log_z_all).exp());
        let mean_of_component: f64 = shares.zip(&mean_of).map(|(share, mean)| share * mean).sum();
        let components: Vec<f64> = log_z_of
            .iter()
            .scan(0.0, |sum, log_z| {
                *sum += (log_z - log_z_all).exp();
                Some(*sum)
            })
            .collect();
        let mut rng = Streams::new(0).get(Purpose::Task, 2);
        let mut draw = |cumulative: &[f64]| {
            let threshold = rng.random::<f64>() * cumulative[cumulative.len() - 1];
            cumulative.partition_point(|&sum| sum <= threshold).min(cumulative.len() - 1)
        };
        let (mut ratios, mut log_rewards, mut controls) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = vec![0; self.length];
        for _ in 0..SAMPLES {
            let mode = draw(&components);
            for (position, symbol) in row.iter_mut().enumerate() {
                let start = (mode * self.length + position) * self.k;
                *symbol = draw(&cumulative[start..start + self.k]) as i32;
            }
            let nearest = self.distances(&row).min().expect("there are modes") as f64;
            let q: f64 =
                self.distances(&row).map(|d| (-self.exponent * (d as f64 - nearest)).exp()).sum();
            ratios.push(1.0 / q);
            log_rewards.push(-self.exponent * nearest);
            let own = self.distances(&row).nth(mode).expect("a distance per mode");
            controls.push(-self.exponent * own as f64 - mean_of_component);
        }
        let n = SAMPLES as f64;
        let mean = ratios.iter().sum::<f64>() / n;
        let deviation = |terms: &mut dyn Iterator<Item = f64>| {
            (terms.map(|term| term * term).sum::<f64>() / (n - 1.0) / n).sqrt()
        };
        let weighted = ratios.iter().zip(&log_rewards).map(|(w, r)| w * r).sum::<f64>();
        let plain = weighted / (n * mean);
        // Errors of a logarithm and of a ratio, by the delta method.
        let mut relative = ratios.iter().map(|w| w / mean - 1.0);
        let residuals: Vec<f64> =
            ratios.iter().zip(&log_rewards).map(|(w, r)| w / mean * (r - plain)).collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let slope = match product(&controls, &controls) {
            0.0 => 0.0,
            squares => product(&residuals, &controls) / squares,
        };
        let mut left = residuals.iter().zip(&controls).map(|(r, c)| r - slope * c);
        // What no sample has shown (a string between two modes that lie apart) may still have a
        // probability of 1/n under q; the ratios R/Q it would change lie in [0, 1].
        let unseen = if self.n_modes > 1 { 1.0 / n } else { 0.0 };
        let spread = deviation(&mut log_rewards.iter().map(|r| r - plain)) * n.sqrt();
        TargetEstimate {
            log_z: log_z_all + mean.ln(),
            log_z_error: deviation(&mut relative).hypot(unseen),
            mean_log_reward: plain - slope * controls.iter().sum::<f64>() / n,
            mean_error: deviation(&mut left).hypot(unseen * spread),
        }
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

    fn target_estimate(&self) -> Option<TargetEstimate> {
        Some(*self.estimate.get_or_init(|| self.estimate_target()))
    }

    fn test_objects(&self) -> Option<States> {
        self.test.clone()
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
