//! Strings over an alphabet, built symbol by symbol in one of three ways.

use std::ops::Range;

use gfn_core::registry::{EnvAxis, EnvContext, Kind};
use gfn_core::space::At;
use gfn_core::special::ln_gamma;
use gfn_core::{Block, Environment, KeyError, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reward::objects::object_id;

/// How a string grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Build {
    /// A symbol is added at either end (Shen et al. 2023, arXiv:2305.07170).
    #[default]
    PrependAppend,
    /// A symbol is added at the right end.
    Append,
    /// A symbol is put into any empty position (Zhang et al. 2022, arXiv:2202.01361).
    Fill,
}

/// Settings of [`Sequence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceSpec {
    /// Number of symbols of a complete string, at least 1; with `min_length`, the most.
    pub length: usize,
    /// The fewest symbols of an object: strings may then stop at any length from here to `length`.
    /// Default: all objects are `length` symbols long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<usize>,
    /// Names of the symbols, in the order of their numbers; at least two, all different.
    pub symbols: Vec<String>,
    /// How a string grows.
    pub build: Build,
}

impl Default for SequenceSpec {
    fn default() -> Self {
        Self {
            length: 5,
            min_length: None,
            symbols: (0..11).map(|block| block.to_string()).collect(),
            build: Build::PrependAppend,
        }
    }
}

impl Kind<EnvAxis> for SequenceSpec {
    const NAME: &'static str = "sequence";
    const ALIASES: &'static [&'static str] = &["strings"];
    const SUMMARY: &'static str = "strings, grown at one end, at both, or filled in any order";
    const PAPER: Option<&'static str> = Some("arXiv:2305.07170");

    fn build(&self, _: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        if self.length == 0 {
            return Err(KeyError::new("length", "a string needs at least one symbol"));
        }
        if let Some(min_length) = self.min_length {
            if self.build == Build::Fill {
                return Err(KeyError::new("min_length", "strings that are filled have one length")
                    .help("choose env.build = \"append\" or \"prepend_append\""));
            }
            if min_length > self.length {
                let message = format!("must be at most length, {}, not {min_length}", self.length);
                return Err(KeyError::new("min_length", message));
            }
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
        Ok(Box::new(Sequence::new(self.clone())))
    }
}

/// Settings of bit strings, built from words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BitSequenceSpec {
    /// Number of bits of a complete string.
    pub bits: usize,
    /// Bits per word; must divide `bits`.
    pub word_bits: usize,
    /// How a string grows, word by word.
    pub build: Build,
}

impl Default for BitSequenceSpec {
    fn default() -> Self {
        Self { bits: 120, word_bits: 8, build: Build::Fill }
    }
}

impl Kind<EnvAxis> for BitSequenceSpec {
    const NAME: &'static str = "bit_sequence";
    const ALIASES: &'static [&'static str] = &["bitseq"];
    const SUMMARY: &'static str = "bit strings of fixed length, built from words of k bits";
    const PAPER: Option<&'static str> = Some("arXiv:2310.12934");

    fn build(&self, context: EnvContext<'_>) -> Result<Box<dyn Environment>, KeyError> {
        let Self { bits, word_bits, build } = *self;
        if !(1..=16).contains(&word_bits) {
            return Err(KeyError::new("word_bits", format!("must lie in 1..=16, not {word_bits}"))
                .help("the papers use 2, 4, 6, 8 or 10"));
        }
        if bits == 0 || !bits.is_multiple_of(word_bits) {
            return Err(KeyError::new(
                "word_bits",
                format!("{bits} bits are not a whole number of words of {word_bits} bits"),
            )
            .help("choose a divisor of env.bits"));
        }
        // Word w is its number in binary, the most significant bit first.
        let symbols = (0..1usize << word_bits).map(|w| format!("{w:0word_bits$b}")).collect();
        let words = SequenceSpec { length: bits / word_bits, min_length: None, symbols, build };
        words.build(context).map_err(|error| KeyError { key: Some("bits".to_owned()), ..error })
    }
}

/// Strings over k symbols: a row holds a symbol or -1 per position. A complete string is terminal.
/// Strings of variable length end by stopping, the last action, which leads to a stopped copy of
/// the string: their rows have one more cell, 1 if stopped.
///
/// Growing strings are left-aligned: action `c < k` appends symbol `c`; with
/// [`Build::PrependAppend`], action `k + c` prepends it. Backward action 0 removes the last symbol
/// and 1 the first. With [`Build::Fill`], action `i k + c` puts symbol `c` at the empty position
/// `i`, and backward action `i` clears it.
///
/// Edges are actions, not pairs of states: where appending and prepending give the same string
/// (from the empty string, or on runs of one symbol) they stay two edges, so every string of
/// length n has 2^n paths and the maximum-entropy P_B is uniform. Positions are slots whose
/// one feature is the symbol, -1 where there is none.
#[derive(Clone, Debug)]
pub struct Sequence {
    spec: SequenceSpec,
    space: Space,
}

impl Sequence {
    fn new(spec: SequenceSpec) -> Self {
        let (length, k) = (spec.length, spec.symbols.len());
        let (mut forward, mut backward) = match spec.build {
            Build::PrependAppend => (
                vec![Block::whole("append", k), Block::whole("prepend", k)],
                vec![Block::whole("remove_last", 1), Block::whole("remove_first", 1)],
            ),
            Build::Append => {
                (vec![Block::whole("append", k)], vec![Block::whole("remove_last", 1)])
            }
            Build::Fill => {
                let fill = Block::slot("fill", At::Empty, k);
                (vec![fill], vec![Block::slot("clear", At::Filled, 1)])
            }
        };
        let stops = spec.min_length.is_some();
        if stops {
            forward.push(Block::stop());
            backward.push(Block::whole("go_on", 1));
        }
        let n = length + usize::from(stops);
        let space =
            Space::new(n, n).named_slots(length, &[k]).forward(&forward).backward(&backward);
        Self { spec, space }
    }

    fn k(&self) -> usize {
        self.spec.symbols.len()
    }

    /// The cells that hold symbols.
    fn cells<'a>(&self, row: &'a [i32]) -> &'a [i32] {
        &row[..self.spec.length]
    }

    /// Number of symbols so far; where strings grow, also the first empty position.
    fn filled(&self, row: &[i32]) -> usize {
        self.cells(row).iter().filter(|&&symbol| symbol >= 0).count()
    }

    fn is_stopped(&self, row: &[i32]) -> bool {
        row.get(self.spec.length) == Some(&1)
    }

    /// Number of forward and backward actions without stopping and its inverse.
    fn n_moves(&self) -> (usize, usize) {
        let (length, k) = (self.spec.length, self.k());
        match self.spec.build {
            Build::PrependAppend => (2 * k, 2),
            Build::Append => (k, 1),
            Build::Fill => (length * k, length),
        }
    }

    /// The length of all objects, if they have one.
    pub fn fixed_length(&self) -> Option<usize> {
        self.spec.min_length.is_none().then_some(self.spec.length)
    }

    /// The symbols, by their numbers.
    pub fn symbols(&self) -> &[String] {
        &self.spec.symbols
    }

    /// Number of characters of every symbol, if it is the same for all: they can then be written
    /// side by side without a separator.
    pub(crate) fn symbol_chars(&self) -> Option<usize> {
        let mut sizes = self.spec.symbols.iter().map(|symbol| symbol.chars().count());
        let first = sizes.next()?;
        sizes.all(|size| size == first).then_some(first)
    }
}

impl Environment for Sequence {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(-1);
        if let Some(stopped) = row.get_mut(self.spec.length) {
            *stopped = 0;
        }
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        match self.spec.build {
            Build::PrependAppend | Build::Append => {
                let n = self.filled(row);
                mask.fill(n < self.spec.length && !self.is_stopped(row));
                if let Some(min_length) = self.spec.min_length {
                    mask[self.n_moves().0] = n >= min_length && !self.is_stopped(row);
                }
            }
            Build::Fill => {
                for (mask, &symbol) in mask.chunks_exact_mut(self.k()).zip(row) {
                    mask.fill(symbol < 0);
                }
            }
        }
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        match self.spec.build {
            Build::PrependAppend | Build::Append => {
                mask.fill(self.filled(row) > 0 && !self.is_stopped(row));
                if self.spec.min_length.is_some() {
                    mask[self.n_moves().1] = self.is_stopped(row);
                }
            }
            Build::Fill => {
                for (legal, &symbol) in mask.iter_mut().zip(row) {
                    *legal = symbol >= 0;
                }
            }
        }
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        if self.spec.build == Build::Fill {
            let position = action / self.k();
            row[position] = (action % self.k()) as i32;
            return position;
        }
        if action == self.n_moves().0 {
            row[self.spec.length] = 1;
            return self.n_moves().1;
        }
        let n = self.filled(row);
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
        if self.spec.build == Build::Fill {
            let symbol = std::mem::replace(&mut row[back_action], -1);
            return back_action * self.k() + symbol as usize;
        }
        if back_action == self.n_moves().1 {
            row[self.spec.length] = 0;
            return self.n_moves().0;
        }
        let n = self.filled(row);
        if back_action == 0 {
            std::mem::replace(&mut row[n - 1], -1) as usize
        } else {
            let first = row[0] as usize;
            row.copy_within(1..n, 0);
            row[n - 1] = -1;
            self.k() + first
        }
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        cells.copy_from_slice(self.cells(row));
    }

    fn render(&self, row: &[i32]) -> String {
        let symbols: Vec<&str> = self
            .cells(row)
            .iter()
            .filter(|&&symbol| symbol >= 0)
            .map(|&symbol| self.spec.symbols[symbol as usize].as_str())
            .collect();
        symbols.join(if self.symbol_chars().is_some() { "" } else { " " })
    }

    /// Accepts symbol names separated by white space, or side by side if all are of one length.
    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        let number = |name: &str| {
            self.spec.symbols.iter().position(|symbol| symbol == name).map(|i| i as i32)
        };
        let text = text.trim();
        let row: Option<Vec<i32>> = match self.symbol_chars() {
            Some(size) if !text.contains(char::is_whitespace) => {
                let chars: Vec<char> = text.chars().collect();
                chars.chunks(size).map(|part| number(&part.iter().collect::<String>())).collect()
            }
            _ => text.split_whitespace().map(number).collect(),
        };
        let mut row = row?;
        match self.spec.min_length {
            None => (row.len() == self.spec.length).then_some(row),
            Some(min_length) => (min_length..=self.spec.length).contains(&row.len()).then(|| {
                row.resize(self.spec.length, -1);
                row.push(1);
                row
            }),
        }
    }

    /// Strings of variable length have one.
    fn strata(&self, row: &[i32]) -> Vec<(&'static str, String)> {
        let length = || ("length", self.filled(row).to_string());
        self.spec.min_length.map(|_| length()).into_iter().collect()
    }

    /// Runs of up to three symbols.
    fn features_of(&self, row: &[i32]) -> Vec<u64> {
        let symbols = &row[..self.filled(row)];
        let runs = (1..=3).flat_map(|n| symbols.windows(n));
        let mut features: Vec<u64> = runs.map(object_id).collect();
        features.sort_unstable();
        features.dedup();
        features
    }

    /// n symbols: 2^n orders at both ends, 1 at one end, n! where any position is next.
    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        let n = self.filled(row) as f64;
        Some(match self.spec.build {
            Build::PrependAppend => n * std::f64::consts::LN_2,
            Build::Append => 0.0,
            Build::Fill => ln_gamma(n + 1.0),
        })
    }

    fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
        let mut ranges = vec![-1..self.k() as i32; self.spec.length];
        if self.spec.min_length.is_some() {
            ranges.push(0..2);
        }
        Some(ranges)
    }

    fn n_objects(&self) -> Option<u64> {
        let lengths = self.spec.min_length.unwrap_or(self.spec.length)..=self.spec.length;
        let of_length = |length: usize| (self.k() as u64).saturating_pow(length as u32);
        Some(lengths.map(of_length).fold(0, u64::saturating_add))
    }

    /// Strings of one length are numbers, the first symbol the most significant digit.
    fn object_at(&self, number: u64) -> Option<Vec<i32>> {
        let (length, k) = (self.fixed_length()?, self.k() as u64);
        let mut row = vec![0; length];
        let mut rest = number;
        for cell in row.iter_mut().rev() {
            *cell = (rest % k) as i32;
            rest /= k;
        }
        (rest == 0).then_some(row)
    }
}
