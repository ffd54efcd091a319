//! A table whose `kind` has chosen an entry of a registry.

use gfn_core::registry::{Axis, Descriptor, Entry, Settings};
use schemars::{Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Source;
use crate::error::Failure;

/// An entry with its parsed settings.
pub struct Chosen<A: Axis> {
    entry: Entry<A>,
    settings: Box<dyn Settings<A>>,
}

/// A chosen kind, whatever its axis makes.
pub trait Part {
    /// The axis.
    fn axis(&self) -> &'static str;

    /// What is known of the kind.
    fn kind(&self) -> &Descriptor;

    /// The table with its kind and every default.
    fn resolved(&self) -> toml::Table;
}

impl<A: Axis> Part for Chosen<A> {
    fn axis(&self) -> &'static str {
        A::NAME
    }

    fn kind(&self) -> &Descriptor {
        &self.entry
    }

    fn resolved(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("kind".to_owned(), self.entry.name.into());
        table.extend(self.settings.resolve());
        table
    }
}

impl<A: Axis> Chosen<A> {
    /// Takes the axis' table out of a spec. Without one, `default` is chosen.
    ///
    /// # Errors
    /// When the table or its kind is missing and there is no default, when the kind is unknown,
    /// or when a key does not fit.
    pub fn take(
        source: &Source,
        spec: &mut DeTable<'_>,
        entries: &[Entry<A>],
        default: Option<Entry<A>>,
    ) -> Result<Self, Failure> {
        let names = || entries.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let axis = A::NAME;
        let missing = |what: String| {
            Failure::usage(what).help(format!("set {axis}.kind to one of: {}", names()))
        };
        let (entry, table) = match spec.remove(axis) {
            None => {
                let entry = default.ok_or_else(|| {
                    missing(format!("the spec `{}` has no table [{axis}]", source.origin()))
                })?;
                (entry, Spanned::new(0..0, DeTable::new()))
            }
            Some(value) => {
                let span = value.span();
                let DeValue::Table(mut table) = value.into_inner() else {
                    return Err(missing(format!("`{axis}` must be a table")).at(source.place(span)));
                };
                let entry = match table.remove("kind") {
                    None => default.ok_or_else(|| {
                        missing(format!("[{axis}] has no `kind`")).at(source.place(span.clone()))
                    })?,
                    Some(kind) => {
                        let at = source.place(kind.span());
                        let Some(word) = kind.get_ref().as_str() else {
                            return Err(missing(format!("{axis}.kind must be a string")).at(at));
                        };
                        find(entries, word).ok_or_else(|| {
                            let all = entries.iter().flat_map(|entry| {
                                std::iter::once(entry.name).chain(entry.aliases.iter().copied())
                            });
                            let failure = Failure::usage(format!("unknown {axis} kind `{word}`"))
                                .at(at)
                                .did_you_mean(word, all);
                            failure.help(format!("{axis} kinds: {}", names()))
                        })?
                    }
                };
                (entry, Spanned::new(span, table))
            }
        };
        let keys = schema_keys(&(entry.schema)(&mut SchemaGenerator::default()));
        let settings =
            (entry.parse)(table).map_err(|error| source.toml_failure(&error, A::NAME, &keys))?;
        Ok(Self { entry, settings })
    }

    /// The name of the kind.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Builds the part.
    ///
    /// # Errors
    /// When a value is out of range, or the part does not fit its context.
    pub fn build(&self, context: A::Context<'_>) -> Result<Box<A::Product>, gfn_core::KeyError> {
        self.settings.build(context)
    }
}

fn find<A: Axis>(entries: &[Entry<A>], kind: &str) -> Option<Entry<A>> {
    entries.iter().find(|entry| entry.answers_to(kind)).copied()
}

/// The keys that a schema of an object declares.
pub fn schema_keys(schema: &Schema) -> Vec<String> {
    let properties = schema.as_object().and_then(|object| object.get("properties"));
    let object = properties.and_then(|properties| properties.as_object());
    object.map(|object| object.keys().cloned().collect()).unwrap_or_default()
}
