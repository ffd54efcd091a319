//! Signals that ask a run to stop: it finishes the iteration, saves and exits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Signals that ask to stop.
pub const STOP: [i32; 3] = [SIGINT, SIGTERM, SIGUSR1];

/// Signals within this time of the first one are the same request: Slurm signals every process of
/// a task, and a sweep passes the signal on to its trials.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Whether a stop has been asked for.
#[derive(Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGUSR1. A second one, a second or more after the first, ends the
    /// process at once.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let flag = stop.flag.clone();
        let mut signals = Signals::new(STOP)?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut first = None;
            for _ in signals.forever() {
                flag.store(true, Ordering::Relaxed);
                if first.get_or_insert_with(Instant::now).elapsed() >= ONE_REQUEST {
                    signal_hook::low_level::exit(crate::error::INTERRUPTED.into());
                }
            }
        })?;
        Ok(stop)
    }

    /// Whether a stop has been asked for.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
