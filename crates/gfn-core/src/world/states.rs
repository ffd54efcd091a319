//! A batch of states as rows of integers, one concrete type for every environment.

use serde::{Deserialize, Serialize};

/// `len` rows of `width` cells, stored one after the other.
///
/// Rows are what environments step, graphs hash and checkpoints store; what the cells mean is
/// known to the environment alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    width: usize,
    cells: Vec<i32>,
}

impl States {
    /// An empty batch of rows of `width` cells.
    pub fn new(width: usize) -> Self {
        Self { width, cells: Vec::new() }
    }

    /// An empty batch with room for `rows` rows.
    pub fn with_capacity(width: usize, rows: usize) -> Self {
        Self { width, cells: Vec::with_capacity(width * rows) }
    }

    /// Cells per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[i32] {
        &self.cells[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, to be changed.
    pub fn row_mut(&mut self, i: usize) -> &mut [i32] {
        &mut self.cells[i * self.width..(i + 1) * self.width]
    }

    /// The rows `range`, laid end to end.
    pub fn cells(&self, range: std::ops::Range<usize>) -> &[i32] {
        &self.cells[range.start * self.width..range.end * self.width]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[i32]> {
        self.cells.chunks_exact(self.width.max(1))
    }

    /// Appends one row, or several rows laid end to end.
    pub fn push(&mut self, cells: &[i32]) {
        debug_assert!(self.width > 0 && cells.len().is_multiple_of(self.width));
        self.cells.extend_from_slice(cells);
    }

    /// Removes every row and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    /// The rows `range`, copied.
    pub fn slice(&self, range: std::ops::Range<usize>) -> States {
        States { width: self.width, cells: self.cells(range).to_vec() }
    }
}
