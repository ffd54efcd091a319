//! From public sources to the tables that specs name.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::pickle::{self, Row};
use super::seh;

/// From a source to a file in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    /// The source is the file.
    AsIs,
    /// A text table of 8-mers, reverse complements and E-scores, to `sequence,e_score,y`, where y
    /// is the score scaled to [0, 1] in single precision.
    Six6,
    /// A pickled dictionary from strings of five characters 0-9a to numbers in single precision,
    /// to `b0,b1,b2,b3,b4,reward`.
    Qm9Pickle,
    /// A pickled list or array of 328 DNA strings of length 8, to the column `sequence`.
    DnaModes,
    /// A pickled list or array of 159 strings of 6 blocks, to the column `blocks`.
    BlockModes,
    /// A text table whose fields are separated by white space, to commas.
    Spaces,
    /// 22 arrays in single precision, pickled and compressed by gzip, to the 18 tensors of the sEH network.
    SehNetwork,
    /// A JSON table of fragments by columns, or a list of them, to one fragment on a line.
    SehBlocks,
}

const LETTERS: [char; 4] = ['A', 'C', 'G', 'T'];
const N_DNA: usize = 1 << 16;
const QM9_BASE: u32 = 11;
const N_QM9: usize = 161_051;
const SEH_BASE: u32 = 18;

impl Convert {
    /// The file in the data directory.
    ///
    /// # Errors
    /// What is wrong with the source, as the end of a sentence.
    pub fn apply(self, source: &[u8]) -> Result<Vec<u8>, String> {
        let text = match self {
            Self::AsIs => return Ok(source.to_vec()),
            Self::SehNetwork => return seh::network(source),
            Self::SehBlocks => seh::blocks(source)?,
            Self::Six6 => six6(source)?,
            Self::Spaces => {
                let text = std::str::from_utf8(source).map_err(|_| "is not text".to_owned())?;
                let fields = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(",");
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                lines.map(|line| fields(line) + "\n").collect()
            }
            Self::Qm9Pickle => qm9(source)?,
            Self::DnaModes => {
                let letter = |x: u32| LETTERS[x as usize];
                let digit = |c: char| dna_digit(c).or(c.to_digit(4));
                let modes = modes(source, 328, 8, LETTERS.len() as u32, digit)?;
                let lines = modes.iter().map(|mode| mode.iter().map(|&x| letter(x)).collect());
                column("sequence", lines)
            }
            Self::BlockModes => {
                let modes = modes(source, 159, 6, SEH_BASE, |c| c.to_digit(SEH_BASE))?;
                let number = |mode: &Vec<u32>| mode.iter().map(u32::to_string).collect::<Vec<_>>();
                column("blocks", modes.iter().map(|mode| number(mode).join(" ")))
            }
        };
        Ok(text.into_bytes())
    }
}

fn column(header: &str, lines: impl Iterator<Item = String>) -> String {
    let mut text = format!("{header}\n");
    for line in lines {
        text += &line;
        text += "\n";
    }
    text
}

/// The shortest text that reads back as the same number, as NumPy writes it: of two that are
/// equally near, Rust takes the larger and NumPy the one with an even last digit.
fn shortest(x: f32) -> String {
    let text = x.to_string();
    let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let even = format!("{x:.decimals$}");
    if even.parse() == Ok(x) { even } else { text }
}

fn dna_digit(letter: char) -> Option<u32> {
    LETTERS.iter().position(|&known| known == letter).map(|i| i as u32)
}

/// The place of a DNA string of length 8 in lexicographic order.
fn dna_index(text: &str) -> Option<usize> {
    let digits: Option<Vec<u32>> = text.chars().map(dna_digit).collect();
    let digits = digits.filter(|digits| digits.len() == 8)?;
    Some(digits.iter().fold(0, |index, &digit| index * 4 + digit as usize))
}

fn dna_string(index: usize) -> String {
    (0..8).rev().map(|place| LETTERS[index >> (2 * place) & 3]).collect()
}

/// A pairs with T and C with G: the digits of a pair sum to 3.
fn reverse_complement(index: usize) -> usize {
    (0..8).fold(0, |reverse, place| reverse << 2 | (3 - (index >> (2 * place) & 3)))
}

fn six6(source: &[u8]) -> Result<String, String> {
    let scores = six6_scores(source)?;
    let values = scores.iter().map(|&(_, value)| value);
    let min = values.clone().fold(f64::INFINITY, f64::min);
    let max = values.fold(f64::NEG_INFINITY, f64::max);
    let mut text = "sequence,e_score,y\n".to_owned();
    for (index, (score, value)) in scores.iter().enumerate() {
        let y = shortest(((value - min) / (max - min)) as f32);
        writeln!(text, "{},{score},{y}", dna_string(index)).expect("text grows");
    }
    Ok(text)
}

/// Scores as text and number, of all strings in lexicographic order.
fn six6_scores(source: &[u8]) -> Result<Vec<(&str, f64)>, String> {
    let source = std::str::from_utf8(source).map_err(|_| "is not a text file")?;
    let mut scores: Vec<Option<(&str, f64)>> = vec![None; N_DNA];
    for (i, line) in source.lines().enumerate() {
        let mut fields = line.split_whitespace();
        let strings = [fields.next(), fields.next()].map(|field| field.and_then(dna_index));
        // The header and whatever else is no row.
        let ([Some(string), Some(reverse)], Some(score)) = (strings, fields.next()) else {
            continue;
        };
        let line = i + 1;
        if reverse != reverse_complement(string) {
            return Err(format!("has a pair on line {line} that are not reverse complements"));
        }
        let value = score.parse().ok().filter(|value: &f64| value.is_finite());
        let value = value.ok_or_else(|| format!("has no score on line {line}"))?;
        for index in [string, reverse] {
            match scores[index].replace((score, value)) {
                Some((known, _)) if known != score => {
                    let string = dna_string(index);
                    return Err(format!("has a second score for {string} on line {line}"));
                }
                _ => {}
            }
        }
    }
    let scores: Vec<(&str, f64)> = scores.into_iter().flatten().collect();
    match scores.len() {
        N_DNA => Ok(scores),
        found => Err(format!("has scores for {found} strings; expected {N_DNA}")),
    }
}

fn qm9(source: &[u8]) -> Result<String, String> {
    let mut values: Vec<Option<f32>> = vec![None; N_QM9];
    for (key, value) in pickle::table(source)? {
        let index = qm9_index(&key).ok_or("has an entry that is not a string of 5 blocks")?;
        values[index] = Some(value);
    }
    let found = values.iter().flatten().count();
    if found != N_QM9 {
        return Err(format!("has values for {found} strings; expected {N_QM9}"));
    }
    let mut text = "b0,b1,b2,b3,b4,reward\n".to_owned();
    for (index, value) in values.iter().flatten().enumerate() {
        for place in (0..5).rev() {
            let block = index / (QM9_BASE as usize).pow(place) % QM9_BASE as usize;
            write!(text, "{block},").expect("text grows");
        }
        writeln!(text, "{}", shortest(*value)).expect("text grows");
    }
    Ok(text)
}

fn qm9_index(key: &str) -> Option<usize> {
    let digits: Option<Vec<u32>> = key.chars().take(6).map(|c| c.to_digit(QM9_BASE)).collect();
    let digits = digits.filter(|digits| digits.len() == 5)?;
    Some(digits.iter().fold(0, |index, &digit| index * QM9_BASE as usize + digit as usize))
}

/// A sorted set of strings, each `length` digits below `base`.
fn modes(
    source: &[u8],
    count: usize,
    length: usize,
    base: u32,
    digit: impl Fn(char) -> Option<u32>,
) -> Result<BTreeSet<Vec<u32>>, String> {
    let whole = |&x: &u64| u32::try_from(x).ok().filter(|&x| x < base);
    let row = |row: &Row| match row {
        Row::Text(text) => text.chars().take(length + 1).map(&digit).collect(),
        Row::Numbers(numbers) => numbers.iter().take(length + 1).map(whole).collect(),
    };
    let rows: Option<BTreeSet<Vec<u32>>> = pickle::rows(source)?.iter().map(row).collect();
    let rows = rows.filter(|rows| rows.iter().all(|row| row.len() == length));
    let rows =
        rows.ok_or_else(|| format!("is not a pickled list of strings of length {length}"))?;
    if rows.len() == count {
        Ok(rows)
    } else {
        Err(format!("has {} different strings; expected {count}", rows.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_numpy_writes_them() {
        for (x, text) in [
            (1393.0 / 256.0, "5.4414062"),
            (2009.0 / 256.0, "7.8476562"),
            (0.366_511_34, "0.36651134"),
            (8.5926, "8.5926"),
            (-0.25, "-0.25"),
            (16_777_216.0, "16777216"),
            (8.0, "8"),
            (1e-7, "0.0000001"),
        ] {
            assert_eq!(shortest(x), text);
        }
    }

    #[test]
    fn strings_are_numbered_in_order() {
        assert_eq!(dna_index("AAAAAAAC"), Some(1));
        assert_eq!(dna_index("TTTTTTTT"), Some(N_DNA - 1));
        assert_eq!((dna_index("AAAAAAA"), dna_index("AAAAAAAB")), (None, None));
        assert_eq!(dna_string(reverse_complement(dna_index("AACGTTGA").unwrap())), "TCAACGTT");
        assert_eq!(qm9_index("0001a"), Some(21));
        assert_eq!(qm9_index("0001b"), None);
    }
}
