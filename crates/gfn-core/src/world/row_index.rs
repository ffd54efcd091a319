//! Rows as numbers, and the place of every row in a list.

use std::hash::Hasher;
use std::ops::Range;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use crate::States;

/// A box of rows, each of which is a number with one digit per cell, the first cell's the highest.
#[derive(Clone, Debug)]
pub struct Digits {
    cells: Vec<Range<i32>>,
    size: usize,
}

impl Digits {
    /// The box of these values for each cell, if it has at most `limit` rows.
    pub fn new(cells: Vec<Range<i32>>, limit: usize) -> Option<Self> {
        let mut sizes = cells.iter().map(Range::len);
        let size = sizes.try_fold(1usize, |size, n| size.checked_mul(n))?;
        (size <= limit).then_some(Self { cells, size })
    }

    /// Number of rows.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Cells per row.
    pub fn width(&self) -> usize {
        self.cells.len()
    }

    /// The number of a row; none if it lies outside.
    pub fn number(&self, row: &[i32]) -> Option<usize> {
        row.iter().zip(&self.cells).try_fold(0, |number, (&cell, range)| {
            range.contains(&cell).then(|| number * range.len() + (cell - range.start) as usize)
        })
    }

    /// Writes the row with a number.
    pub fn write_row(&self, number: usize, row: &mut [i32]) {
        let mut rest = number;
        for (cell, range) in row.iter_mut().zip(&self.cells).rev() {
            *cell = range.start + (rest % range.len()) as i32;
            rest /= range.len();
        }
    }
}

/// The place of every row in a [`States`], without copies of rows: by their numbers where they fill
/// a box, else hashed.
#[derive(Debug)]
pub struct RowIndex(Places);

#[derive(Debug)]
enum Places {
    Numbered(Digits, Vec<u32>),
    Hashed(HashTable<u32>),
}

/// No place.
const NONE: u32 = u32::MAX;

fn hash(row: &[i32]) -> u64 {
    let mut hasher = FxHasher::default();
    let pairs = row.chunks_exact(2);
    pairs.remainder().iter().for_each(|&cell| hasher.write_i32(cell));
    for pair in pairs {
        hasher.write_u64(u64::from(pair[0] as u32) << 32 | u64::from(pair[1] as u32));
    }
    hasher.finish()
}

impl Default for RowIndex {
    /// An empty index of any rows.
    fn default() -> Self {
        Self::new(None)
    }
}

impl RowIndex {
    /// An empty index of rows in a box, or of any rows.
    pub fn new(digits: Option<Digits>) -> Self {
        Self(match digits {
            Some(digits) => {
                let places = vec![NONE; digits.size()];
                Places::Numbered(digits, places)
            }
            None => Places::Hashed(HashTable::new()),
        })
    }

    /// The place of a row among `states`, if it has one.
    pub fn get(&self, states: &States, row: &[i32]) -> Option<u32> {
        match &self.0 {
            Places::Numbered(digits, places) => {
                Some(places[digits.number(row)?]).filter(|&place| place != NONE)
            }
            Places::Hashed(table) => {
                table.find(hash(row), |&place| states.row(place as usize) == row).copied()
            }
        }
    }

    /// Gives the last row of `states` its place, which it must not have yet.
    ///
    /// # Panics
    /// When it lies outside of the box.
    pub fn insert_last(&mut self, states: &States) {
        self.insert(states, states.len() as u32 - 1);
    }

    /// Gives some row of `states` its place, which it must not have yet.
    ///
    /// # Panics
    /// When it lies outside of the box.
    pub fn insert(&mut self, states: &States, place: u32) {
        let row = states.row(place as usize);
        match &mut self.0 {
            Places::Numbered(digits, places) => {
                places[digits.number(row).expect("cells stay within their ranges")] = place;
            }
            Places::Hashed(table) => {
                let rehash = |&place: &u32| hash(states.row(place as usize));
                table.insert_unique(hash(row), place, rehash);
            }
        }
    }

    /// The place of a row among `states`, at whose end it is put if it has none.
    pub fn place_or_push(&mut self, states: &mut States, row: &[i32]) -> u32 {
        self.get(states, row).unwrap_or_else(|| {
            states.push(row);
            self.insert_last(states);
            states.len() as u32 - 1
        })
    }

    /// Forgets every place and keeps the memory.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Places::Numbered(_, places) => places.fill(NONE),
            Places::Hashed(table) => table.clear(),
        }
    }

    /// Replaces every place.
    pub fn renumber(&mut self, new: impl Fn(u32) -> u32) {
        match &mut self.0 {
            Places::Numbered(_, places) => {
                let taken = places.iter_mut().filter(|place| **place != NONE);
                taken.for_each(|place| *place = new(*place));
            }
            Places::Hashed(table) => table.iter_mut().for_each(|place| *place = new(*place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_scattered_rows_are_found() {
        for spread in [1, 1000] {
            let digits = Digits::new(vec![0..5 * spread, 0..6 * spread], 100);
            assert_eq!(digits.is_some(), spread == 1);
            let (mut index, mut states) = (RowIndex::new(digits), States::new(2));
            for i in 0..30 {
                let row = [i % 5 * spread, (7 * i) % 6 * spread];
                assert_eq!(index.get(&states, &row), None);
                states.push(&row);
                index.insert_last(&states);
            }
            let at = |index: &RowIndex, row: &[i32]| index.get(&states, row);
            for i in 0..30 {
                assert_eq!(at(&index, states.row(i)), Some(i as u32));
            }
            assert_eq!(at(&index, &[0, 6 * spread]), None);
            assert_eq!(at(&index, &[-1, 0]), None);
            index.renumber(|place| 29 - place);
            if spread == 1 {
                assert_eq!(at(&index, states.row(3)), Some(26));
            }
            index.clear();
            assert_eq!(at(&index, states.row(3)), None);
            let mut few = States::new(2);
            let places = [3, 5, 3, 3, 5, 9].map(|i| index.place_or_push(&mut few, states.row(i)));
            assert_eq!((places, few.len()), ([0, 1, 0, 0, 1, 2], 3));
        }
    }

    #[test]
    fn numbers_and_rows_are_inverses() {
        let digits = Digits::new(vec![0..3, -1..3], 12).unwrap();
        let mut row = [0, 0];
        for number in 0..digits.size() {
            digits.write_row(number, &mut row);
            assert_eq!(digits.number(&row), Some(number));
        }
        assert_eq!(digits.number(&[2, 0]), Some(9));
        assert_eq!(digits.number(&[2, 3]), None);
    }
}
