//! Threads that stay awake between the parallel parts of an iteration.
//!
//! An iteration of a small network takes a few hundred microseconds and falls into half a dozen
//! parallel parts with serial work in between. A thread of the pool that finds nothing to do falls
//! asleep within some of these gaps, and waking it takes the time of a part. So the first part of an
//! iteration brings along jobs that do nothing but look for work, and end when they have found none
//! for a while.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a thread looks for work. Longer than the gaps within an iteration of a small network,
/// and too short to matter beside those of a large one.
const PATIENCE: Duration = Duration::from_micros(100);

/// The jobs that keep threads awake.
#[derive(Debug, Default)]
pub(crate) struct Awake(Arc<AtomicUsize>);

impl Awake {
    /// Keeps up to `n` threads awake besides this one, which must be of the pool that is to work;
    /// elsewhere it does nothing.
    pub(crate) fn keep(&self, n: usize) {
        let Some(own) = rayon::current_thread_index() else { return };
        let n = n.min(rayon::current_num_threads() - 1);
        for _ in self.0.load(Ordering::Relaxed)..n {
            self.0.fetch_add(1, Ordering::Relaxed);
            let running = self.0.clone();
            rayon::spawn(move || {
                // This thread may take up the job while it waits for another: it must not stay.
                if rayon::current_thread_index() != Some(own) {
                    look_for_work();
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

thread_local! {
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// Does what other threads have to offer until there has been nothing for a while.
fn look_for_work() {
    // What a thread takes up may be another job of this kind, which belongs to another thread.
    if LOOKING.replace(true) {
        return;
    }
    let mut last = Instant::now();
    while last.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => last = Instant::now(),
            _ => std::thread::yield_now(),
        }
    }
    LOOKING.set(false);
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    /// With more jobs than threads are free, and again before the last ones have ended.
    #[test]
    fn jobs_end_by_themselves_and_do_not_change_what_is_computed() {
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let awake = Awake::default();
            pool.install(|| {
                for n in 0..200u64 {
                    awake.keep(8);
                    assert!(awake.0.load(Ordering::Relaxed) < threads);
                    let terms: Vec<u64> = (0..n).collect();
                    let sum: u64 = terms.par_iter().with_max_len(1).sum();
                    assert_eq!(sum, n * n.saturating_sub(1) / 2);
                }
            });
            let start = Instant::now();
            while awake.0.load(Ordering::Relaxed) > 0 {
                assert!(start.elapsed() < Duration::from_secs(60), "a job has not ended");
                std::thread::yield_now();
            }
        }
        let outside = Awake::default();
        outside.keep(8);
        assert_eq!(outside.0.load(Ordering::Relaxed), 0);
    }
}
