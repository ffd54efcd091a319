//! How a metric is found by its name and built from settings of its own, `[eval.settings.<name>]`.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Metric, MetricContext};
use crate::KeyError;

/// A metric that specs can name.
pub trait MetricKind: Metric + Sized + 'static {
    /// The name in `eval.metrics`.
    const NAME: &'static str;
    /// One line for `gfn list`.
    const SUMMARY: &'static str;
    /// What stands in `[eval.settings.<name>]`: [`NoSettings`], or a type that refuses unknown keys.
    type Settings: DeserializeOwned + Serialize + JsonSchema + Default;

    /// Builds it for a run.
    ///
    /// # Errors
    /// When its settings cannot be used; the key is one of theirs.
    fn build(context: &MetricContext, settings: Self::Settings) -> Result<Self, KeyError>;
}

/// Of a metric that has none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// What is known of a metric before it is built.
#[derive(Clone, Copy)]
pub struct MetricEntry {
    /// The name in `eval.metrics`.
    pub name: &'static str,
    /// One line for `gfn list`.
    pub summary: &'static str,
    /// Schema of its settings.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Its settings with every default.
    pub defaults: fn() -> toml::Table,
    /// Builds it for a run, or says what is wrong with its settings.
    pub build: fn(&MetricContext) -> Result<Box<dyn Metric>, KeyError>,
}

impl MetricEntry {
    /// The entry of a metric.
    pub const fn of<M: MetricKind>() -> Self {
        Self {
            name: M::NAME,
            summary: M::SUMMARY,
            schema: M::Settings::json_schema,
            defaults: || {
                toml::Table::try_from(M::Settings::default()).expect("settings are a TOML table")
            },
            build: |context| {
                let table = context.settings.get(M::NAME).cloned().unwrap_or_default();
                let named = |error: KeyError| KeyError {
                    key: Some("settings".to_owned()),
                    message: format!("of the metric `{}`: {}", M::NAME, error.message),
                    ..error
                };
                let settings = table.try_into().map_err(|error: toml::de::Error| {
                    named(KeyError::part(error.message().trim())).help(format!(
                        "its settings, with their defaults: `gfn describe metric.{}`",
                        M::NAME
                    ))
                })?;
                Ok(Box::new(M::build(context, settings).map_err(named)?))
            },
        }
    }
}
