//! The text of a spec and its overrides, with positions that survive merging.

use std::ops::Range;

use gfn_core::KeyError;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use crate::error::{DATA, Failure, Place, USAGE, closest};

/// A spec file and its overrides, laid end to end: a byte offset says which of them it is in.
#[derive(Debug)]
pub struct Source {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    origin: String,
    text: String,
    /// The text after as many spaces as there are bytes before it, so that the parser reports
    /// offsets into the whole.
    padded: String,
    start: usize,
}

impl Source {
    /// A file and `key=value` overrides.
    ///
    /// # Errors
    /// When an override is not of that form.
    pub fn new(origin: &str, text: String, overrides: &[String]) -> Result<Self, Failure> {
        let mut source = Self { pieces: Vec::new() };
        source.push(origin.to_owned(), text);
        for argument in overrides {
            source.push("command line".to_owned(), override_text(argument)?);
        }
        Ok(source)
    }

    fn push(&mut self, origin: String, text: String) {
        let start = self.pieces.last().map_or(0, |piece| piece.padded.len() + 1);
        let padded = " ".repeat(start) + &text;
        self.pieces.push(Piece { origin, text, padded, start });
    }

    /// Where the spec was read from.
    pub fn origin(&self) -> &str {
        &self.pieces[0].origin
    }

    /// The file's table with all overrides applied. Overrides of a `kind` come first and clear
    /// the other keys of their table: a kind starts from its own defaults.
    ///
    /// # Errors
    /// When the text is not TOML.
    pub fn table(&self) -> Result<DeTable<'_>, Failure> {
        let mut table = self.parse_piece(0)?;
        let mut later = Vec::new();
        for i in 1..self.pieces.len() {
            let change = self.parse_piece(i)?;
            if sets_kind(&change) {
                for (key, value) in change {
                    table.insert(key, value);
                }
            } else {
                later.push(change);
            }
        }
        for change in later {
            merge(&mut table, change);
        }
        Ok(table)
    }

    fn parse_piece(&self, i: usize) -> Result<DeTable<'_>, Failure> {
        DeTable::parse(&self.pieces[i].padded)
            .map(Spanned::into_inner)
            .map_err(|error| self.toml_failure(&error, "", &[]))
    }

    /// The place of a span of the whole.
    pub fn place(&self, span: Range<usize>) -> Place {
        let piece = self
            .pieces
            .iter()
            .rev()
            .find(|piece| piece.start <= span.start)
            .unwrap_or(&self.pieces[0]);
        let clip = |at: usize| at.saturating_sub(piece.start).min(piece.text.len());
        Place {
            origin: piece.origin.clone(),
            text: piece.text.clone(),
            span: clip(span.start)..clip(span.end),
        }
    }

    /// The span of the value of `table.key`, of the table, or of the whole file.
    pub fn span_of(&self, table: &str, key: Option<&str>) -> Range<usize> {
        let whole = 0..0;
        let Ok(spec) = self.table() else { return whole };
        let Some(value) = spec.get(table) else { return whole };
        let inner = key.and_then(|key| value.get_ref().as_table()?.get(key).map(Spanned::span));
        inner.unwrap_or_else(|| value.span())
    }

    /// A failure of the parser or of serde, in plain words.
    pub fn toml_failure(&self, error: &Error, table: &str, keys: &[String]) -> Failure {
        let message = error.message();
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let mut failure = Failure::usage(plain(message, table));
        if let Some(span) = error.span() {
            failure = failure.at(self.place(span));
        }
        if message.starts_with("unknown field")
            && let Some((word, named)) = quoted.split_first()
        {
            // A table within the table is named by the parser alone.
            let whole: Vec<&str> = keys.iter().map(String::as_str).collect();
            let inner = !named.is_empty() && !named.iter().any(|name| whole.contains(name));
            let known = if inner { named } else { &whole };
            failure = failure.did_you_mean(word, known.iter().copied());
            let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            failure = failure.help(format!("keys of this table: {list}"));
        } else if message.starts_with("unknown variant")
            && let Some((word, variants)) = quoted.split_first()
            && let Some(meant) = closest(word, variants.iter().copied())
        {
            failure = failure.help(format!("did you mean `{meant}`?"));
        }
        failure
    }

    /// A failure about a parsed value.
    pub fn key_failure(&self, table: &str, error: &KeyError) -> Failure {
        let key = error.key.as_deref();
        let name = key.map_or(table.to_owned(), |key| format!("{table}.{key}"));
        let code = if error.data { DATA } else { USAGE };
        let mut failure = Failure::new(code, format!("{name}: {}", error.message));
        let span = self.span_of(table, key);
        if !span.is_empty() {
            failure = failure.at(self.place(span));
        }
        match &error.help {
            Some(help) => failure.help(help.clone()),
            None => failure,
        }
    }
}

/// Serde's words for types in the words of a user.
fn plain(message: &str, table: &str) -> String {
    let mut message = message.replace("unknown field", "unknown key");
    for (rust, words) in [
        ("expected usize", "expected a whole number of at least 0"),
        ("expected u64", "expected a whole number of at least 0"),
        ("expected f64", "expected a number"),
        ("expected a sequence", "expected an array"),
        ("floating point", "number"),
    ] {
        message = message.replace(rust, words);
    }
    // Which keys exist is said in the help.
    if let Some(end) = message.strip_prefix("unknown key").and_then(|rest| rest.find(", ")) {
        message.truncate("unknown key".len() + end);
        if !table.is_empty() {
            message.push_str(&format!(" in [{table}]"));
        }
    }
    message
}

/// An override as TOML: the value is taken as TOML, or else as a string.
fn override_text(argument: &str) -> Result<String, Failure> {
    let form = || {
        Failure::usage(format!("`{argument}` is not of the form KEY=VALUE"))
            .help("for example: -s env.side=8")
    };
    let (key, value) = argument.split_once('=').ok_or_else(form)?;
    let (key, value) = (key.trim(), value.trim());
    let bare = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if !key.split('.').all(bare) {
        return Err(form());
    }
    let text = format!("{key} = {value}");
    if DeTable::parse(&text).is_ok() {
        return Ok(text);
    }
    Ok(format!("{key} = {}", toml::Value::String(value.to_owned())))
}

fn sets_kind(change: &DeTable<'_>) -> bool {
    change.values().any(|value| {
        value
            .get_ref()
            .as_table()
            .is_some_and(|table| table.len() == 1 && table.contains_key("kind"))
    })
}

fn merge<'a>(base: &mut DeTable<'a>, change: DeTable<'a>) {
    for (key, value) in change {
        let is_table = value.get_ref().is_table();
        match base.get_mut(key.get_ref().as_ref()) {
            Some(old) if is_table && old.get_ref().is_table() => {
                if let (DeValue::Table(old), DeValue::Table(new)) =
                    (old.get_mut(), value.into_inner())
                {
                    merge(old, new);
                }
            }
            Some(old) => *old = value,
            None => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str, overrides: &[&str]) -> Source {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Source::new("spec.toml", text.to_owned(), &overrides).unwrap()
    }

    #[test]
    fn overrides_replace_values_and_keep_their_own_place() {
        let source = source("[env]\nkind = \"grid\"\nside = 3\n", &["env.side=8", "name=x y"]);
        let place = source.place(source.span_of("env", Some("side")));
        assert_eq!((place.origin.as_str(), &place.text[place.span]), ("command line", "8"));
        let place = source.place(source.span_of("env", Some("kind")));
        assert_eq!((place.origin.as_str(), &place.text[place.span]), ("spec.toml", "\"grid\""));
        let table = source.table().unwrap();
        assert_eq!(table["name"].get_ref().as_str(), Some("x y"));
    }

    #[test]
    fn a_new_kind_starts_from_its_defaults() {
        let source = source(
            "[backward]\nkind = \"tlm\"\nlr = 1.0\n",
            &["backward.lr_decay=0.5", "backward.kind=naive"],
        );
        let table = source.table().unwrap();
        let backward = table["backward"].get_ref().as_table().unwrap();
        assert!(!backward.contains_key("lr"));
        assert!(backward.contains_key("lr_decay"));
        assert_eq!(backward["kind"].get_ref().as_str(), Some("naive"));
    }

    #[test]
    fn malformed_overrides_are_refused() {
        for argument in ["env.side", "=3", "env..side=3", "env side=3"] {
            assert!(Source::new("x", String::new(), &[argument.to_owned()]).is_err(), "{argument}");
        }
    }
}
