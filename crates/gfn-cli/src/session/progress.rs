//! What a person sees while a run trains: a bar on a terminal, else a line per evaluation.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use gfn_core::learn::{Counters, Report};
use gfn_core::metric::{Better, Column};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::sink::{Evaluation, Iteration, Sink};
use crate::error::Failure;
use crate::run::metrics;

/// How a run shows its progress, on stderr.
pub enum Progress {
    /// One line per evaluation.
    Lines {
        /// When this session started.
        start: Instant,
        /// What had been spent by then.
        first: Counters,
        /// Iterations in all.
        total: u64,
    },
    /// A bar.
    Bar {
        /// The bar.
        bar: ProgressBar,
        /// The first headline of the last evaluation that improves one way, in words.
        headline: String,
        /// Last refresh of the message.
        shown: Instant,
    },
}

impl Progress {
    /// Progress of a run that goes on from `first` with `batch` trajectories per iteration.
    pub fn new(first: Counters, total: u64, batch: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { start: Instant::now(), first, total };
        }
        let bar = ProgressBar::new(total);
        let template = "{bar:24} {pos}/{len} {rates} eta {eta} {msg}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rates", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // The last batch of a run may be smaller; nobody sees that here.
                let rate = state.per_sec();
                let _ = write!(out, "{rate:.0} it/s {:.0} traj/s", rate * batch as f64);
            });
        bar.set_style(style);
        bar.set_position(first.step);
        bar.reset_eta();
        Self::Bar { bar, headline: String::new(), shown: Instant::now() }
    }
}

impl Sink for Progress {
    fn iteration(&mut self, iteration: &Iteration<'_>) -> Result<(), Failure> {
        if let Self::Bar { bar, headline, shown } = self {
            bar.set_position(iteration.step());
            if shown.elapsed() > Duration::from_millis(100) {
                *shown = Instant::now();
                bar.set_message(message(iteration.report, headline));
            }
        }
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) -> Result<(), Failure> {
        let Evaluation { counters, columns, values, report, .. } = *evaluation;
        let headlines = metrics::headlines(columns, values);
        match self {
            Self::Bar { bar, headline, .. } => {
                let mut headlines = headlines.iter();
                let improving = headlines.find(|(column, _)| column.better != Better::Neither);
                *headline = improving.map(in_words).unwrap_or_default();
                if let Some(report) = report {
                    bar.set_message(message(report, headline));
                }
            }
            Self::Lines { start, first, total } => {
                let mut line = format!("step {}/{total}", counters.step);
                if let Some(loss) = report.and_then(|report| report.loss) {
                    line += &format!("  loss {}", short(loss));
                }
                for headline in &headlines {
                    line += &format!("  {}", in_words(headline));
                }
                line += &rates(first, counters, *total, start.elapsed().as_secs_f64());
                crate::error::say(&line);
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

/// Iterations and trajectories per second of this session, and the time that is left; empty before
/// its first iteration.
fn rates(first: &Counters, now: &Counters, total: u64, seconds: f64) -> String {
    let done = now.step.saturating_sub(first.step);
    if done == 0 || seconds <= 0.0 {
        return String::new();
    }
    let rate = done as f64 / seconds;
    // Counted, as the last batch may be smaller.
    let trajectories = now.trajectories.saturating_sub(first.trajectories) as f64 / seconds;
    let left = total.saturating_sub(now.step) as f64 / rate;
    let eta = humantime::format_duration(Duration::from_secs(left as u64));
    format!("  {rate:.1} it/s  {trajectories:.0} traj/s  eta {eta}")
}

fn in_words((column, value): &(&Column, f64)) -> String {
    format!("{} {}", column.name, (value * 1e4).round() / 1e4)
}

fn message(report: &Report, headline: &str) -> String {
    let mut out = report.loss.map(|loss| format!("loss {}", short(loss))).unwrap_or_default();
    if !headline.is_empty() {
        out += &format!("  {headline}");
    }
    out
}

/// Four decimals, or two significant digits where those would all be zero.
fn short(x: f64) -> String {
    if x.abs() >= 1e-3 || x == 0.0 { format!("{x:.4}") } else { format!("{x:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_this_session_and_count_a_smaller_last_batch() {
        let counters = |step, trajectories| Counters { step, trajectories, ..Counters::default() };
        let (first, total) = (counters(100, 1600), 120);
        assert_eq!(rates(&first, &first, total, 1.0), "");
        let rates = |now, seconds| rates(&first, &now, total, seconds);
        assert_eq!(rates(counters(110, 1760), 4.0), "  2.5 it/s  40 traj/s  eta 4s");
        assert_eq!(rates(counters(120, 1912), 8.0), "  2.5 it/s  39 traj/s  eta 0s");
    }
}
