//! Values of objects that were computed before.

use std::sync::{Mutex, PoisonError};

use gfn_core::States;
use gfn_core::row_index::RowIndex;

/// Remembers values of a bounded number of objects: those of the last two generations. When the young one
/// is full, the old one is forgotten; what is asked for again is of the young one.
pub struct Remembered(Mutex<Generations>);

struct Generations {
    young: Generation,
    old: Generation,
    /// Objects in a generation.
    limit: usize,
}

struct Generation {
    objects: States,
    index: RowIndex,
    values: Vec<f64>,
}

impl Generation {
    fn new(width: usize) -> Self {
        let (objects, index) = (States::new(width), RowIndex::new(None));
        Self { objects, index, values: Vec::new() }
    }

    fn get(&self, row: &[i32]) -> Option<f64> {
        self.index.get(&self.objects, row).map(|place| self.values[place as usize])
    }
}

impl Generations {
    fn get(&mut self, row: &[i32]) -> Option<f64> {
        if let Some(value) = self.young.get(row) {
            return Some(value);
        }
        let value = self.old.get(row)?;
        self.insert(row, value);
        Some(value)
    }

    fn insert(&mut self, row: &[i32], value: f64) {
        if self.limit == 0 || self.young.get(row).is_some() {
            return;
        }
        if self.young.values.len() >= self.limit {
            let width = self.young.objects.width();
            self.old = std::mem::replace(&mut self.young, Generation::new(width));
        }
        self.young.objects.push(row);
        self.young.index.insert_last(&self.young.objects);
        self.young.values.push(value);
    }
}

impl Remembered {
    /// Nothing yet; of rows with so many cells, at most `capacity` objects, rounded up to an even number.
    pub fn new(width: usize, capacity: usize) -> Self {
        let (young, old) = (Generation::new(width), Generation::new(width));
        Self(Mutex::new(Generations { young, old, limit: capacity.div_ceil(2) }))
    }

    /// The value of each object. `compute` gives those of objects that are not known, each of them once
    /// unless nothing is to be remembered at all.
    ///
    /// # Errors
    /// Those of `compute`.
    pub fn values<E>(
        &self,
        xs: &States,
        compute: impl FnOnce(&States) -> Result<Vec<f64>, E>,
    ) -> Result<Vec<f64>, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut generations = lock();
        if generations.limit == 0 {
            drop(generations);
            return compute(xs);
        }
        let mut values = vec![0.0; xs.len()];
        let (mut fresh, mut index) = (States::new(xs.width()), RowIndex::new(None));
        // Objects that are not remembered, with their places in `fresh`.
        let mut waiting = Vec::new();
        for (i, row) in xs.rows().enumerate() {
            if let Some(value) = generations.get(row) {
                values[i] = value;
                continue;
            }
            let place = index.get(&fresh, row).unwrap_or_else(|| {
                fresh.push(row);
                index.insert_last(&fresh);
                fresh.len() as u32 - 1
            });
            waiting.push((i, place as usize));
        }
        drop(generations);
        if fresh.is_empty() {
            return Ok(values);
        }
        let computed = compute(&fresh)?;
        waiting.into_iter().for_each(|(i, place)| values[i] = computed[place]);
        let mut generations = lock();
        fresh.rows().zip(&computed).for_each(|(row, &value)| generations.insert(row, value));
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cells: &[i32]) -> States {
        let mut states = States::new(1);
        cells.iter().for_each(|&cell| states.push(&[cell]));
        states
    }

    /// Twice the cell; says what was computed.
    fn ask(remembered: &Remembered, cells: &[i32]) -> (Vec<f64>, Vec<i32>) {
        let mut asked = Vec::new();
        let values = remembered.values(&rows(cells), |xs| {
            asked.extend(xs.rows().map(|row| row[0]));
            Ok::<_, ()>(xs.rows().map(|row| f64::from(2 * row[0])).collect())
        });
        (values.unwrap(), asked)
    }

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let remembered = Remembered::new(1, 10);
        assert_eq!(ask(&remembered, &[0, 3, 0]), (vec![0.0, 6.0, 0.0], vec![0, 3]));
        for i in 1..1000 {
            // Object 0 is asked for all the time.
            let (values, asked) = ask(&remembered, &[0, i]);
            assert_eq!(values, [0.0, f64::from(2 * i)]);
            assert!(!asked.contains(&0), "{i}");
            let generations = remembered.0.lock().unwrap();
            let kept = generations.young.values.len() + generations.old.values.len();
            assert!(kept <= 10, "{kept}");
        }
        assert_eq!(ask(&remembered, &[999, 500]), (vec![1998.0, 1000.0], vec![500]));
        let failure = remembered.values(&rows(&[7]), |_| Err("broken"));
        assert_eq!(failure, Err("broken"));
    }

    #[test]
    fn without_memory_everything_is_computed() {
        let none = Remembered::new(1, 0);
        for _ in 0..2 {
            assert_eq!(ask(&none, &[1, 1, 2]).1, [1, 1, 2]);
        }
    }
}
