//! What can go wrong, what the user is told, and the exit codes.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use gfn_core::metric::MetricError;

/// Everything was done.
pub const DONE: u8 = 0;
/// A defect of gfn itself.
pub const BUG: u8 = 1;
/// The command line, the spec or a run directory cannot be used as given.
pub const USAGE: u8 = 2;
/// A data file is missing or damaged.
pub const DATA: u8 = 3;
/// Training diverged; the last good checkpoint is kept.
pub const DIVERGED: u8 = 4;
/// Some trials of a sweep failed; all others were run.
pub const TRIALS_FAILED: u8 = 5;
/// Interrupted by a signal or by the outside world (a full disk); running again resumes.
pub const INTERRUPTED: u8 = 75;

/// A place in a piece of source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name, or `command line`.
    pub origin: String,
    /// The whole text.
    pub text: String,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column, counted from 1.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.text[..self.characters().start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// The span in whole characters of the text: parsers may point into the middle of one.
    fn characters(&self) -> Range<usize> {
        let start = self.text.floor_char_boundary(self.span.start);
        let end = self.span.end.min(self.text.len());
        start..self.text.ceil_char_boundary(end).max(start)
    }
}

/// A failure with everything that is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    message: String,
    place: Option<Box<Place>>,
    help: Vec<String>,
}

impl Failure {
    /// A failure with the given exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, help: Vec::new() }
    }

    /// Something about the command line, the spec or a run directory.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// The output cannot be written: the run can go on once there is room again.
    pub fn write(path: &Path, error: &std::io::Error) -> Self {
        Self::new(INTERRUPTED, format!("cannot write `{}`: {error}", path.display()))
            .help("nothing that was computed before is lost: run the same command again to resume")
    }

    /// Shows the place in the source.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Which of the known names a word may stand for, if one is close.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(word, names) {
            Some(meant) => self.help(format!("did you mean `{meant}`?")),
            None => self,
        }
    }

    /// The documented exit code.
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Where in the source it is, if it is anywhere.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// The message without decoration.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole report, without colours.
    pub fn render(&self) -> String {
        self.render_with(&Renderer::plain())
    }

    fn render_with(&self, renderer: &Renderer) -> String {
        let title = if self.code == BUG {
            format!("{} (this is a bug in gfn)", self.message)
        } else {
            self.message.clone()
        };
        let title = Level::ERROR.primary_title(title.as_str());
        let mut group = match &self.place {
            Some(place) => {
                let Range { start, end } = place.characters();
                // An empty span at the end of a line would point nowhere.
                let next = place.text[start..].chars().next().map_or(0, char::len_utf8);
                let end = end.max(start + next);
                // The first line of a table is enough to find it.
                let line = place.text[start..end].find('\n').map_or(end, |n| start + n);
                let snippet = Snippet::source(place.text.as_str())
                    .path(place.origin.as_str())
                    .annotation(AnnotationKind::Primary.span(start..line));
                title.element(snippet)
            }
            None => annotate_snippets::Group::with_title(title),
        };
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// Writes the report to stderr.
    pub fn report(&self) {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        say(&self.render_with(&renderer));
    }
}

impl From<MetricError> for Failure {
    fn from(error: MetricError) -> Self {
        let code = match &error {
            MetricError::Reward(_) => DATA,
            MetricError::Broken(_) => USAGE,
        };
        Self::new(code, error.to_string())
    }
}

/// Writes a line to stderr. Nobody listening is no failure (`eprintln!` would panic).
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Runs `body`; a panic becomes a failure with exit code 1 that asks for a report.
///
/// # Errors
/// Those of `body`, or a bug.
pub fn catch_bugs(body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = place.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let (Some(location), Ok(mut seen)) = (info.location(), seen.lock()) {
            *seen = format!(" at {}:{}", location.file(), location.line());
        }
    }));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let _ = std::panic::take_hook();
    outcome.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown panic".to_owned());
        let place = place.lock().map(|place| place.clone()).unwrap_or_default();
        Err(Failure::new(BUG, format!("{message}{place}"))
            .help("please report it with the spec; what had been saved is intact"))
    })
}

/// The candidate closest to `word`, if it is close enough to be meant.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, candidate)| distance <= 1 + word.len().min(candidate.len()) / 3)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_close() {
        assert_eq!(closest("sidee", ["dim", "side"]), Some("side"));
        assert_eq!(closest("tlmm", ["uniform", "naive", "tlm"]), Some("tlm"));
        assert_eq!(closest("banana", ["dim", "side"]), None);
    }

    #[test]
    fn panics_become_bugs() {
        let outcome = catch_bugs(|| panic!("impossible {}", 7));
        let failure = outcome.unwrap_err();
        assert_eq!(failure.exit_code(), BUG);
        assert!(failure.message().starts_with("impossible 7 at "), "{}", failure.message());
        assert!(failure.render().contains("this is a bug in gfn"));
        assert_eq!(catch_bugs(|| Ok(())), Ok(()));
    }

    #[test]
    fn places_count_lines_and_columns() {
        let place = Place { origin: "x".into(), text: "ab\ncd\n".into(), span: 4..5 };
        assert_eq!(place.line_column(), (2, 2));
    }

    /// Parsers count bytes: a span may start and end inside a character.
    #[test]
    fn spans_go_to_whole_characters() {
        let text = "seed 😀 1\n";
        for span in [5..6, 6..7, 7..8, 6..6, 8..9, 5..9, 12..12, 12..13, 99..100] {
            let place = Place { origin: "x".into(), text: text.into(), span: span.clone() };
            if span.start < 9 {
                assert_eq!(place.line_column(), (1, 6), "{span:?}");
            }
            let text = Failure::usage("wrong").at(place).render();
            assert!(text.contains("x:"), "{span:?}: {text}");
            if span.start < 9 {
                let (_, below) = text.split_once("😀 1\n").unwrap();
                assert!(below.contains('^'), "{span:?}: {text}");
            }
        }
    }
}
