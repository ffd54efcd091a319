//! What a person sees while a run trains: a bar on a terminal, else a line per evaluation.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use gfn_core::learn::Report;
use indicatif::{ProgressBar, ProgressStyle};

/// How a run shows its progress, on stderr.
pub enum Progress {
    /// Nothing at all.
    Quiet,
    /// One line per evaluation.
    Lines {
        /// When this session started.
        start: Instant,
        /// Its first iteration.
        first: u64,
        /// Iterations in all.
        total: u64,
    },
    /// A bar.
    Bar {
        /// The bar.
        bar: ProgressBar,
        /// Total variation at the last evaluation.
        tv: Option<f64>,
        /// Last refresh of the message.
        shown: Instant,
    },
}

impl Progress {
    /// Progress of a run that goes on from iteration `first`.
    pub fn new(quiet: bool, first: u64, total: u64) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { start: Instant::now(), first, total };
        }
        let bar = ProgressBar::new(total);
        let template = "{bar:24} {pos}/{len} {per_sec} eta {eta} {msg}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key(
                "per_sec",
                |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:.0} it/s", state.per_sec());
                },
            );
        bar.set_style(style);
        bar.set_position(first);
        bar.reset_eta();
        Self::Bar { bar, tv: None, shown: Instant::now() }
    }

    /// An iteration is done.
    pub fn step(&mut self, report: &Report) {
        if let Self::Bar { bar, tv, shown } = self {
            bar.set_position(report.step + 1);
            if shown.elapsed() > Duration::from_millis(100) {
                *shown = Instant::now();
                bar.set_message(message(report, *tv));
            }
        }
    }

    /// An evaluation is done; `named` gives metrics by column name.
    pub fn evaluated(
        &mut self,
        step: u64,
        report: Option<&Report>,
        named: &dyn Fn(&str) -> Option<f64>,
    ) {
        match self {
            Self::Quiet => {}
            Self::Bar { bar, tv, .. } => {
                *tv = named("tv_exact");
                if let Some(report) = report {
                    bar.set_message(message(report, *tv));
                }
            }
            Self::Lines { start, first, total } => {
                let mut line = format!("step {step}/{total}");
                if let Some(loss) = report.and_then(|report| report.loss) {
                    line += &format!("  loss {}", short(loss));
                }
                for (column, label) in
                    [("log_z", "log_z"), ("tv_exact", "tv"), ("elbo", "elbo"), ("modes", "modes")]
                {
                    if let Some(value) = named(column) {
                        line += &format!("  {label} {}", (value * 1e4).round() / 1e4);
                    }
                }
                let done = step.saturating_sub(*first);
                let seconds = start.elapsed().as_secs_f64();
                if done > 0 && seconds > 0.0 {
                    let rate = done as f64 / seconds;
                    let left = total.saturating_sub(step) as f64 / rate;
                    let eta = humantime::format_duration(Duration::from_secs(left as u64));
                    line += &format!("  {rate:.1} it/s  eta {eta}");
                }
                crate::error::say(&line);
            }
        }
    }

    /// The session is over.
    pub fn finish(&self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

fn message(report: &Report, tv: Option<f64>) -> String {
    let mut out = report.loss.map(|loss| format!("loss {}", short(loss))).unwrap_or_default();
    if let Some(tv) = tv {
        out += &format!("  TV {tv:.4}");
    }
    out
}

/// Four decimals, or two significant digits where those would all be zero.
fn short(x: f64) -> String {
    if x.abs() >= 1e-3 || x == 0.0 { format!("{x:.4}") } else { format!("{x:.1e}") }
}
