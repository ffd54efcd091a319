//! `gfn describe`: a kind with its keys, types and defaults.

use gfn_core::metric::MetricEntry;
use gfn_core::registry::Descriptor;
use serde_json::Value;

use super::list::axes;
use super::schema::{generator, settings_tables};
use super::{list, print};
use crate::Registry;
use crate::error::{Failure, closest};

pub fn run(registry: &Registry, what: &str) -> Result<(), Failure> {
    let (axis, kind) = what.split_once('.').unwrap_or((what, ""));
    let tables = settings_tables();
    if let Some((_, schema)) = tables.iter().find(|(table, _)| *table == axis) {
        return print(&keys(schema, None));
    }
    if let Some((_, kinds)) = registry.axes().into_iter().find(|(name, _)| *name == axis) {
        return print(&described(axis, &kinds, kind)?);
    }
    if let ("metric", false) = (axis, kind.is_empty()) {
        return print(&metric(registry, kind)?);
    }
    if axes(registry).iter().any(|(name, _)| *name == axis) {
        return list::run(registry, Some(axis));
    }
    let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
    Err(Failure::usage(format!("nothing is called `{what}`")).help(format!(
        "give AXIS.KIND, for example backward.tlm, or one of {}; `gfn list` shows them",
        names.join(", ")
    )))
}

/// Everything that specs can say, as Markdown.
pub fn reference(registry: &Registry) -> Result<(), Failure> {
    let mut text = "# Keys of specs\n\nWritten by `gfn describe`.\n".to_owned();
    for (axis, kinds) in registry.axes() {
        text += &format!("\n## {axis}\n");
        for kind in &kinds {
            let about = described(axis, &kinds, kind.name)?;
            let (title, rest) = about.split_once('\n').unwrap_or((&about, ""));
            text += &format!("\n### {title}\n\n```text\n{}\n```\n", rest.trim());
        }
    }
    for (table, schema) in settings_tables() {
        text += &format!("\n## {table}\n\n```text\n{}\n```\n", keys(&schema, None).trim());
    }
    for (axis, rows) in axes(registry).split_off(registry.axes().len()) {
        text += &format!("\n## {axis}\n\n");
        for row in rows {
            text += &format!("* `{}`: {}\n", row.name, row.summary);
        }
        for entry in registry.metrics.iter().filter(|_| axis == "metric") {
            if !(entry.defaults)().is_empty() {
                text += &format!("\n```text\n{}\n```\n", metric_keys(entry).trim());
            }
        }
    }
    print(&text)
}

fn metric(registry: &Registry, name: &str) -> Result<String, Failure> {
    let metrics = &registry.metrics;
    let Some(entry) = metrics.iter().find(|entry| entry.name == name) else {
        let names: Vec<&str> = metrics.iter().map(|entry| entry.name).collect();
        let mut failure = Failure::usage(format!("unknown metric `{name}`"));
        if let Some(meant) = closest(name, names.iter().copied()) {
            failure = failure.help(format!("did you mean `metric.{meant}`?"));
        }
        return Err(failure.help(format!("metrics: {}", names.join(", "))));
    };
    Ok(format!("metric.{name}: {}\n\n{}", entry.summary, metric_keys(entry)))
}

fn metric_keys(entry: &MetricEntry) -> String {
    let schema = (entry.schema)(&mut generator()).to_value();
    let keys = keys(&schema, Some(&(entry.defaults)()));
    format!("[eval.settings.{}]\n{keys}", entry.name)
}

fn described(axis: &str, kinds: &[Descriptor], kind: &str) -> Result<String, Failure> {
    let Some(entry) = kinds.iter().find(|entry| entry.answers_to(kind)) else {
        let names: Vec<&str> = kinds.iter().map(|entry| entry.name).collect();
        let mut failure = Failure::usage(format!("unknown {axis} kind `{kind}`"));
        if let Some(meant) = closest(kind, names.iter().copied()) {
            failure = failure.help(format!("did you mean `{axis}.{meant}`?"));
        }
        return Err(failure.help(format!("{axis} kinds: {}", names.join(", "))));
    };
    let mut text = format!("{axis}.{}: {}\n", entry.name, entry.summary);
    if !entry.aliases.is_empty() {
        text += &format!("also called {}\n", entry.aliases.join(", "));
    }
    if let Some(paper) = entry.paper {
        text += &format!("paper: {paper}\n");
    }
    let schema = (entry.schema)(&mut generator()).to_value();
    if let Some(description) = schema["description"].as_str() {
        text += &format!("\n{description}\n");
    }
    text += &format!("\n{}", keys(&schema, (entry.defaults)().as_ref()));
    Ok(text)
}

fn keys(schema: &Value, defaults: Option<&toml::Table>) -> String {
    let Some(properties) = schema["properties"].as_object().filter(|keys| !keys.is_empty()) else {
        return "no keys\n".to_owned();
    };
    let mut text = String::new();
    for (key, property) in properties {
        let default = match (defaults.and_then(|table| table.get(key)), &property["default"]) {
            (Some(value), _) => format!(" = {value}"),
            (None, Value::Null) => String::new(),
            (None, value) => format!(" = {value}"),
        };
        text += &format!("{key}{default}\n");
        if let Some(description) = property["description"].as_str() {
            text += &format!("    {}\n", description.replace('\n', "\n    "));
        }
        variants(property, &mut text);
    }
    text
}

/// The values that a key may have, with what tables among them hold.
fn variants(property: &Value, text: &mut String) {
    let variants = property["oneOf"].as_array().or_else(|| property["anyOf"].as_array());
    for variant in variants.into_iter().flatten() {
        let about = variant["description"].as_str().unwrap_or_default().replace('\n', " ");
        if let Some(name) = variant["const"].as_str() {
            *text += &format!("    \"{name}\": {about}\n");
            continue;
        }
        // A table with one key, which names the variant.
        let named = variant["required"].as_array().filter(|names| names.len() == 1);
        let Some(name) = named.and_then(|names| names[0].as_str()) else {
            self::variants(variant, text);
            continue;
        };
        let value = &variant["properties"][name];
        let Some(inner) = value["properties"].as_object() else {
            let kind = value["type"].as_str().unwrap_or("value");
            *text += &format!("    {{ {name} = {kind} }}: {about}\n");
            continue;
        };
        let details = value["description"].as_str().unwrap_or_default().replace('\n', " ");
        *text += &format!("    {{ {name} = {{}} }}: {about} {details}\n");
        for (key, property) in inner {
            let default = match &property["default"] {
                Value::Null => String::new(),
                value => format!(" = {value}"),
            };
            let about = property["description"].as_str().unwrap_or_default().replace('\n', " ");
            *text += &format!("        {key}{default}: {about}\n");
        }
    }
}
