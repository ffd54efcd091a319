//! What a person sees while a sweep runs: a table of the running trials on a terminal, else a line
//! per finished trial.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::SweepDirectory;
use super::state;
use crate::error::say;

/// How often the files of running trials are read.
const REFRESH: Duration = Duration::from_millis(500);

/// How a sweep shows its progress, on stderr.
pub enum Progress {
    /// Nothing at all.
    Quiet,
    /// One line per finished trial.
    Lines,
    /// A bar per running trial, and one of the sweep.
    Table {
        /// All bars.
        all: MultiProgress,
        /// Trials that are over.
        sweep: ProgressBar,
        /// By position in the table of trials.
        trials: HashMap<usize, ProgressBar>,
        /// Last look at the files.
        shown: Instant,
    },
}

impl Progress {
    /// Progress of a sweep of `total` trials, `done` of which are over.
    pub fn new(quiet: bool, done: usize, total: usize) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        // Whatever is said of one bar draws all of them.
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        let sweep = all.add(ProgressBar::new(total as u64));
        sweep.set_style(style("{bar:16} {pos}/{len} trials  {elapsed}  {wide_msg}"));
        sweep.set_position(done as u64);
        Self::Table { all, sweep, trials: HashMap::new(), shown: Instant::now() }
    }

    /// A trial is being trained to so many trajectories.
    pub fn started(&mut self, sweep: &SweepDirectory, i: usize, target: u64) {
        if let Self::Table { all, trials, .. } = self {
            let bar = all.add(ProgressBar::new(target));
            bar.set_style(style("{bar:16} {percent:>3} %  {wide_msg}"));
            bar.set_message(described(&sweep.trials[i].name(), ""));
            trials.insert(i, bar);
        }
    }

    /// Shows what the running trials have come to, now and then.
    pub fn tick(&mut self, directory: &SweepDirectory) {
        let Self::Table { trials, shown, sweep, .. } = self else { return };
        if shown.elapsed() < REFRESH {
            return;
        }
        *shown = Instant::now();
        // More of them may be running than there are lines.
        sweep.set_message(format!("{} running", trials.len()));
        for (i, bar) in trials.iter().map(|(&i, bar)| (i, bar)).collect::<Vec<_>>() {
            let trial = &directory.trials[i];
            let run = directory.run(trial);
            bar.set_position(state::trajectories(&run, trial.batch));
            let metric = directory.halving.as_ref().map(|halving| halving.metric());
            let headline = state::headline(&run, metric);
            let headline = headline.map(|(name, value)| format!("{name} {}", short(value)));
            bar.set_message(described(&trial.name(), &headline.unwrap_or_default()));
        }
    }

    /// A trial has ended; `done` trials are over.
    pub fn ended(&mut self, i: usize, done: usize, line: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines => say(line),
            Self::Table { all, sweep, trials, .. } => {
                if let Some(bar) = trials.remove(&i) {
                    bar.finish_and_clear();
                    all.remove(&bar);
                }
                let _ = all.println(line);
                sweep.set_position(done as u64);
            }
        }
    }

    /// The sweep is over.
    pub fn finish(&self) {
        if let Self::Table { all, .. } = self {
            let _ = all.clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A metric and a trial, in what a terminal's line has left beside a bar.
fn described(trial: &str, headline: &str) -> String {
    const BAR: usize = "---------------- 100 %  ".len();
    const HEADLINE: usize = "tv_exact 0.1234".len();
    let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
    let columns = if columns == 0 { 80 } else { usize::from(columns) };
    let headline = format!("{headline:HEADLINE$}  ");
    let left = columns.saturating_sub(BAR + headline.chars().count() + 1);
    headline + &shortened(trial, left)
}

/// A text in so many columns, without its middle if need be: trials often differ at the end alone.
fn shortened(text: &str, columns: usize) -> String {
    let n = text.chars().count();
    if n <= columns {
        return text.to_owned();
    }
    let kept = columns.saturating_sub(1);
    let (head, tail) = (kept / 2, kept - kept / 2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(n - tail)).collect()
}

/// A number with four significant digits.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-3..1e6).contains(&size) {
        let digits = if size < 1.0 { 4 } else { 3 - (size.log10() as i32).min(3) };
        format!("{value:.*}", digits as usize)
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn names_lose_their_middle() {
        assert_eq!(shortened("train.lr=0.001/s1", 17), "train.lr=0.001/s1");
        assert_eq!(shortened("train.lr=0.001/s1", 12), "train…001/s1");
        assert_eq!(shortened("αβγδε", 3), "α…ε");
        assert_eq!(shortened("αβγδε", 0), "…");
    }
}
