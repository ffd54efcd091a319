//! Signals that ask a run to stop: it finishes the iteration, saves and exits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// Whether a stop has been asked for.
#[derive(Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGUSR1. A second one ends the process at once.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            let code = i32::from(crate::error::INTERRUPTED);
            signal_hook::flag::register_conditional_shutdown(signal, code, stop.flag.clone())?;
            signal_hook::flag::register(signal, stop.flag.clone())?;
        }
        Ok(stop)
    }

    /// Whether a stop has been asked for.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
