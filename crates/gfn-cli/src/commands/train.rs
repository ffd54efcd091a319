//! `gfn train`: create or resume a run, train, measure, save.

use super::{load_spec, print};
use crate::Registry;
use crate::args::Train;
use crate::error::{BUG, Failure};
use crate::session::{Options, Session};
use crate::signals::Stop;

pub fn run(registry: &Registry, args: &Train) -> Result<(), Failure> {
    let spec = load_spec(registry, &args.spec)?;
    let options = Options { out: &args.out, fresh: args.fresh, quiet: args.quiet };
    let mut session = Session::open(registry, spec, &options)?;
    if session.finished() {
        tracing::info!("done already: {}", session.path().display());
    } else {
        let stop = Stop::listen()
            .map_err(|error| Failure::new(BUG, format!("cannot listen to signals: {error}")))?;
        // Inside the thread pool: from outside, every parallel part would wait for a thread to
        // wake up and another to report back.
        rayon::scope(|_| session.train(&stop))?;
    }
    if args.json {
        print(&format!("{}\n", session.summary()))
    } else {
        print(&format!("{}\n", session.path().display()))
    }
}
