//! Strings of a fixed length over an alphabet, built symbol by symbol.

use gfn_core::registry::{EnvAxis, Kind};
use gfn_core::{Environment, KeyError, Layout, NO_TOKEN};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a string grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// A symbol is added at either end (Shen et al. 2023, arXiv:2305.07170).
    #[default]
    PrependAppend,
    /// A symbol is added at the right end.
    Append,
}

/// Settings of [`Sequence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceSpec {
    /// Number of symbols of a complete string, at least 1.
    pub length: usize,
    /// Names of the symbols, in the order of their numbers; at least two, all different.
    pub symbols: Vec<String>,
    /// How a string grows.
    pub build: Build,
}

impl Default for SequenceSpec {
    fn default() -> Self {
        Self {
            length: 5,
            symbols: (0..11).map(|block| block.to_string()).collect(),
            build: Build::PrependAppend,
        }
    }
}

impl Kind<EnvAxis> for SequenceSpec {
    const NAME: &'static str = "sequence";
    const ALIASES: &'static [&'static str] = &["strings"];
    const SUMMARY: &'static str = "strings of fixed length, grown at the right end or at both ends";
    const PAPER: Option<&'static str> = Some("arXiv:2305.07170");

    fn build(&self, (): ()) -> Result<Box<dyn Environment>, KeyError> {
        if self.length == 0 {
            return Err(KeyError::new("length", "a string needs at least one symbol"));
        }
        if self.symbols.len() < 2 {
            return Err(KeyError::new("symbols", "an alphabet needs at least two symbols")
                .help("for example symbols = [\"A\", \"C\", \"G\", \"T\"]"));
        }
        for (i, symbol) in self.symbols.iter().enumerate() {
            if symbol.is_empty() || symbol.contains(char::is_whitespace) {
                return Err(KeyError::new(
                    "symbols",
                    format!("symbol {i} is empty or contains white space"),
                ));
            }
            if self.symbols[..i].contains(symbol) {
                return Err(KeyError::new("symbols", format!("symbol `{symbol}` occurs twice")));
            }
        }
        if self.length.checked_mul(self.symbols.len()).is_none_or(|n| n > 1 << 24) {
            return Err(KeyError::new("length", "length times symbols must not exceed 2^24"));
        }
        Ok(Box::new(Sequence { spec: self.clone() }))
    }
}

/// Strings over k symbols: a row is the string so far, left-aligned and padded with -1.
///
/// Action `c < k` appends symbol `c`; with [`Build::PrependAppend`], action `k + c` prepends it.
/// Backward action 0 removes the last symbol and 1 the first. A complete string is terminal.
///
/// Edges are actions, not pairs of states: where appending and prepending give the same string
/// (from the empty string, or on runs of one symbol) they stay two edges, so every string of
/// length n has 2^n paths and the maximum-entropy P_B is uniform. Observations are the one-hot
/// code of the symbols by position, `length * k` wide; empty positions have no token.
#[derive(Clone, Debug)]
pub struct Sequence {
    spec: SequenceSpec,
}

impl Sequence {
    fn k(&self) -> usize {
        self.spec.symbols.len()
    }

    fn both_ends(&self) -> bool {
        self.spec.build == Build::PrependAppend
    }

    fn filled(row: &[i32]) -> usize {
        row.iter().position(|&symbol| symbol < 0).unwrap_or(row.len())
    }

    /// Whether symbols can be written side by side without a separator.
    fn compact(&self) -> bool {
        self.spec.symbols.iter().all(|symbol| symbol.chars().count() == 1)
    }
}

impl Environment for Sequence {
    fn layout(&self) -> Layout {
        let (length, k) = (self.spec.length, self.k());
        let ends = if self.both_ends() { 2 } else { 1 };
        Layout {
            width: length,
            n_actions: ends * k,
            n_back_actions: ends,
            n_tokens: length * k,
            n_active: length,
            max_len: length,
        }
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(-1);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(Self::filled(row) < row.len());
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(Self::filled(row) > 0);
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        let n = Self::filled(row);
        if action < self.k() {
            row[n] = action as i32;
            0
        } else {
            row.copy_within(..n, 1);
            row[0] = (action - self.k()) as i32;
            1
        }
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        let n = Self::filled(row);
        if back_action == 0 {
            std::mem::replace(&mut row[n - 1], -1) as usize
        } else {
            let first = row[0] as usize;
            row.copy_within(1..n, 0);
            row[n - 1] = -1;
            self.k() + first
        }
    }

    fn observe(&self, row: &[i32], tokens: &mut [i32]) {
        let k = self.k() as i32;
        for (i, (token, &symbol)) in tokens.iter_mut().zip(row).enumerate() {
            *token = if symbol < 0 { NO_TOKEN } else { i as i32 * k + symbol };
        }
    }

    fn render(&self, row: &[i32]) -> String {
        let symbols: Vec<&str> = row
            .iter()
            .filter(|&&symbol| symbol >= 0)
            .map(|&symbol| self.spec.symbols[symbol as usize].as_str())
            .collect();
        symbols.join(if self.compact() { "" } else { " " })
    }

    /// Accepts symbol names separated by white space, or side by side if all are one character.
    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        let number = |name: &str| {
            self.spec.symbols.iter().position(|symbol| symbol == name).map(|i| i as i32)
        };
        let text = text.trim();
        let row: Option<Vec<i32>> = if self.compact() && !text.contains(char::is_whitespace) {
            text.chars().map(|c| number(c.encode_utf8(&mut [0; 4]))).collect()
        } else {
            text.split_whitespace().map(number).collect()
        };
        row.filter(|row| row.len() == self.spec.length)
    }

    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        let ends: f64 = if self.both_ends() { 2.0 } else { 1.0 };
        Some(Self::filled(row) as f64 * ends.ln())
    }

    fn n_objects(&self) -> Option<u64> {
        Some((self.k() as u64).saturating_pow(self.spec.length as u32))
    }
}
