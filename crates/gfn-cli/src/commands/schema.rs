//! `gfn schema`: the JSON schema of specs.

use gfn_core::learn::TrainSettings;
use gfn_core::registry::Descriptor;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::print;
use crate::Registry;
use crate::error::Failure;
use crate::proxy::ProxySettings;
use crate::spec::{CheckpointSettings, EvalSettings, LogSettings, PROXY_TOP};
use crate::sweep;

pub fn run(registry: &Registry) -> Result<(), Failure> {
    let schema = spec_schema(registry);
    print(&format!("{}\n", serde_json::to_string_pretty(&schema).expect("a schema is JSON")))
}

/// Schemas without references, so that each stands alone.
pub(super) fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
}

/// Schemas of the tables without kinds, by their names; the last one belongs to `gfn proxy train`.
pub(super) fn settings_tables() -> [(&'static str, Value); 6] {
    fn of<T: JsonSchema>() -> Value {
        T::json_schema(&mut generator()).to_value()
    }
    [
        ("train", of::<TrainSettings>()),
        ("eval", of::<EvalSettings>()),
        ("checkpoint", of::<CheckpointSettings>()),
        ("log", of::<LogSettings>()),
        ("sweep", sweep::table_schema(&mut generator())),
        ("proxy", of::<ProxySettings>()),
    ]
}

fn axis(kinds: &[Descriptor]) -> Value {
    let kinds: Vec<Value> = kinds
        .iter()
        .map(|entry| {
            let mut schema = (entry.schema)(&mut generator()).to_value();
            let names: Vec<&str> =
                std::iter::once(entry.name).chain(entry.aliases.iter().copied()).collect();
            if let Some(object) = schema.as_object_mut() {
                let properties = object.entry("properties").or_insert_with(|| json!({}));
                properties["kind"] = json!({ "enum": names, "description": entry.summary });
                object.insert("required".to_owned(), json!(["kind"]));
            }
            schema
        })
        .collect();
    json!({ "oneOf": kinds })
}

/// `[eval.settings]`: a table per metric that has settings.
fn metric_settings(registry: &Registry) -> Value {
    let with_settings = registry.metrics.iter().filter(|entry| !(entry.defaults)().is_empty());
    let tables: Map<String, Value> = with_settings
        .map(|entry| (entry.name.to_owned(), (entry.schema)(&mut generator()).to_value()))
        .collect();
    json!({
        "type": "object",
        "description": "Settings of single metrics, by their names.",
        "properties": tables,
        "additionalProperties": false,
    })
}

fn spec_schema(registry: &Registry) -> Value {
    let mut properties = Map::new();
    let devices: Vec<&str> = registry.devices.iter().map(|device| device.name).collect();
    properties.insert("name".into(), json!({ "type": "string", "description": "name of the run" }));
    properties.insert("seed".into(), json!({ "type": "integer", "minimum": 0, "default": 0 }));
    properties.insert("device".into(), json!({ "enum": devices, "default": "flex" }));
    for (name, kinds) in registry.axes() {
        properties.insert(name.into(), axis(&kinds));
    }
    properties.extend(settings_tables().map(|(name, schema)| (name.to_owned(), schema)));
    properties["eval"]["properties"]["settings"] = metric_settings(registry);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gfn spec",
        "type": "object",
        "properties": properties,
        "required": ["env"],
        "additionalProperties": false,
        "if": { "required": ["proxy"] },
        "then": { "propertyNames": { "enum": PROXY_TOP } },
        "$defs": { "axis": sweep::axis_schema() },
    })
}
