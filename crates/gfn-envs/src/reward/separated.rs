//! Counts modes that are separated by the similarity of their fingerprints, as objects come along.

use std::sync::{Arc, Mutex, PoisonError};

use gfn_core::row_index::RowIndex;
use gfn_core::{Environment, ModeCount, ModeCounter, States};

use crate::chemistry::{Fingerprint, SeparatedModes};

/// The most objects that are kept to find modes among, the best ones.
const CAPACITY: usize = 100_000;
/// Objects of which it is remembered that they have been seen.
const SEEN: usize = 1 << 18;

/// From which log R on an object can be a mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// In the name of a column.
    pub name: String,
    /// In words.
    pub definition: String,
    /// log R.
    pub least: f64,
}

/// Counts [`SeparatedModes`] for some thresholds; the first one is the column `modes`.
pub(super) struct SeparatedCounter {
    env: Arc<dyn Environment>,
    similarity: f64,
    thresholds: Vec<Threshold>,
    /// Finding modes changes what is remembered of them.
    modes: Mutex<SeparatedModes>,
    /// Objects that need not be looked at again: a memory, no part of the state.
    seen: (States, RowIndex),
}

impl SeparatedCounter {
    pub(super) fn new(
        env: Arc<dyn Environment>,
        similarity: f64,
        thresholds: Vec<Threshold>,
    ) -> Self {
        let least = thresholds.iter().map(|threshold| threshold.least).collect();
        let modes = Mutex::new(SeparatedModes::new(similarity, least, CAPACITY));
        let seen = (States::new(env.space().width), RowIndex::default());
        Self { env, similarity, thresholds, modes, seen }
    }
}

/// A row as a key.
fn key(row: &[i32]) -> String {
    use std::fmt::Write;
    row.iter().fold(String::new(), |mut key, cell| {
        let _ = write!(key, "{cell:x}.");
        key
    })
}

impl ModeCounter for SeparatedCounter {
    fn counts(&self) -> Vec<ModeCount> {
        let found = self.modes.lock().unwrap_or_else(PoisonError::into_inner).counts();
        let counted = self.thresholds.iter().zip(found).enumerate();
        let count = |(i, (threshold, found)): (usize, (&Threshold, usize))| ModeCount {
            suffix: if i == 0 { String::new() } else { threshold.name.clone() },
            definition: format!(
                "{}, and, among all that were found, less similar than {} (Tanimoto) to every such \
                 object that is better",
                threshold.definition, self.similarity
            ),
            of: None,
            found: found as u64,
        };
        counted.map(count).collect()
    }

    fn observe(&mut self, xs: &States, log_reward: &[f64]) {
        let modes = self.modes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let least = self.thresholds.iter().map(|threshold| threshold.least);
        let least = least.fold(f64::INFINITY, f64::min);
        let (seen, index) = &mut self.seen;
        for (row, &log_reward) in xs.rows().zip(log_reward) {
            if log_reward < least || index.get(seen, row).is_some() {
                continue;
            }
            if seen.len() >= SEEN {
                (*seen, *index) = (States::new(seen.width()), RowIndex::default());
            }
            index.place_or_push(seen, row);
            let key = key(row);
            if modes.wants(&key, log_reward)
                && let Some(bits) = self.env.fingerprint(row)
            {
                modes.observe(&key, &Fingerprint(bits), log_reward);
            }
        }
    }

    fn save(&self) -> Vec<u8> {
        let modes = self.modes.lock().unwrap_or_else(PoisonError::into_inner);
        postcard::to_stdvec(&*modes).expect("objects and numbers serialise")
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let modes = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        self.modes = Mutex::new(modes);
        Ok(())
    }
}
