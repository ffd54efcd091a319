//! Sets of objects: where each has its values, and lists of them in files.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use gfn_core::registry::RewardContext;
use gfn_core::{KeyError, States};

/// The place of every object in a list, without hashing where the objects fill a box: then an
/// object is a number with one digit per cell.
#[derive(Debug)]
pub struct ObjectIndex {
    digits: Vec<Range<i32>>,
    places: Places,
}

#[derive(Debug)]
enum Places {
    /// The list is in the order of the numbers and has no gaps.
    Number,
    /// Place of every number; [`NONE`] where there is none.
    Table(Vec<u32>),
    Hashed(HashMap<Vec<i32>, u32>),
}

const NONE: u32 = u32::MAX;

impl ObjectIndex {
    /// The index of all objects of a box, in the order of their numbers.
    pub fn of_box(digits: Vec<Range<i32>>) -> Self {
        Self { digits, places: Places::Number }
    }

    /// The index of listed objects, and the places (first, again) of those listed twice.
    pub fn new(objects: &States) -> (Self, Vec<(usize, usize)>) {
        let first = objects.rows().next().unwrap_or_default();
        let mut digits: Vec<Range<i32>> = first.iter().map(|&cell| cell..cell + 1).collect();
        for row in objects.rows() {
            for (range, &cell) in digits.iter_mut().zip(row) {
                *range = range.start.min(cell)..range.end.max(cell + 1);
            }
        }
        let size = digits.iter().try_fold(1usize, |size, range| size.checked_mul(range.len()));
        let dense = size.filter(|&size| size <= 4 * objects.len() + 1024);
        let mut index = match dense {
            Some(size) => Self { digits, places: Places::Table(vec![NONE; size]) },
            None => Self { digits, places: Places::Hashed(HashMap::new()) },
        };
        let mut twice = Vec::new();
        for (i, row) in objects.rows().enumerate() {
            if let Some(first) = index.place(row) {
                twice.push((first, i));
                continue;
            }
            let number = index.number(row);
            match &mut index.places {
                Places::Table(places) => places[number] = i as u32,
                Places::Hashed(places) => drop(places.insert(row.to_vec(), i as u32)),
                Places::Number => {}
            }
        }
        (index, twice)
    }

    fn number(&self, row: &[i32]) -> usize {
        let digits = row.iter().zip(&self.digits);
        digits.fold(0, |n, (&cell, range)| n * range.len() + (cell - range.start) as usize)
    }

    /// The place of an object in the list.
    pub fn place(&self, row: &[i32]) -> Option<usize> {
        if let Places::Hashed(places) = &self.places {
            return places.get(row).map(|&place| place as usize);
        }
        if !row.iter().zip(&self.digits).all(|(cell, range)| range.contains(cell)) {
            return None;
        }
        let number = self.number(row);
        match &self.places {
            Places::Table(places) => Some(places[number] as usize).filter(|&p| p != NONE as usize),
            _ => Some(number),
        }
    }
}

/// Text whose line ends (CR, LF or both) are all LF: the CSV reader miscounts lines otherwise.
pub fn plain_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut last = 0;
    bytes.retain(|&byte| {
        let line_end = last == b'\r' && byte == b'\n';
        last = byte;
        !line_end
    });
    bytes.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
    bytes
}

/// The objects in the first column of a CSV file with a header, each with its line.
///
/// # Errors
/// When the file cannot be read or lists something else.
pub fn listed_objects(
    context: RewardContext<'_>,
    key: &str,
    path: &Path,
) -> Result<States, KeyError> {
    let fail = |message: String| KeyError::new(key, format!("`{}` {message}", path.display()));
    let bytes = plain_lines(context.files.read_for(key, path)?);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
    let mut objects = States::new(context.env.layout().width);
    for record in reader.records() {
        let record = record.map_err(|error| fail(format!("is not a CSV file: {error}")))?;
        let line = record.position().map_or(0, csv::Position::line);
        let object = record.get(0).unwrap_or_default();
        let row = context.env.parse(object).ok_or_else(|| {
            fail(format!("has `{object}` on line {line}, which is no object of the environment"))
        })?;
        objects.push(&row);
    }
    if objects.is_empty() { Err(fail("lists no objects".to_owned())) } else { Ok(objects) }
}

/// A number that stands for an object: the same in every run, different for different objects
/// (FNV-1a, 64 bits).
pub fn object_id(row: &[i32]) -> u64 {
    let bytes = row.iter().flat_map(|cell| cell.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_scattered_objects_are_found() {
        for spread in [1, 1000] {
            let mut objects = States::new(2);
            let rows: Vec<[i32; 2]> =
                (0..30).map(|i| [i % 5 * spread, (7 * i) % 6 * spread]).collect();
            rows.iter().for_each(|row| objects.push(row));
            let (index, twice) = ObjectIndex::new(&objects);
            assert!(twice.is_empty());
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(index.place(row), Some(i));
            }
            assert_eq!(index.place(&[0, 6 * spread]), None);
            assert_eq!(index.place(&[-1, 0]), None);
            objects.push(&rows[3]);
            assert_eq!(ObjectIndex::new(&objects).1, [(3, 30)]);
        }
        let index = ObjectIndex::of_box(vec![0..3, 0..4]);
        assert_eq!(index.place(&[2, 1]), Some(9));
        assert_eq!(index.place(&[2, 4]), None);
    }
}
