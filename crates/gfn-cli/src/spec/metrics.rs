//! Metrics that a spec names, and settings of their own.

use gfn_core::metric::MetricEntry;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{EvalSettings, Source};
use crate::Registry;
use crate::error::Failure;

/// Keys that all metrics shared once: (in `[eval]`, metric). Specs of older runs have them.
const OLD_KEYS: [(&str, &str); 2] = [("window", "empirical"), ("top_k", "samples")];

/// Puts old keys where they are now, as if the spec had said so.
///
/// # Errors
/// When a key stands in both places.
pub fn rename_old_keys(source: &Source, spec: &mut DeTable<'_>) -> Result<(), Failure> {
    let Some(eval) = table_in(spec, "eval", false) else { return Ok(()) };
    for (key, metric) in OLD_KEYS {
        let Some((name, value)) = eval.remove_entry(key) else { continue };
        let at = source.place(value.span());
        let Some(settings) =
            table_in(eval, "settings", true).and_then(|all| table_in(all, metric, true))
        else {
            return Err(Failure::usage("`eval.settings` must be tables").at(at));
        };
        if settings.insert(name, value).is_some() {
            let message = format!("`eval.{key}` is the old name of a key that is set as well");
            return Err(Failure::usage(message)
                .at(at)
                .help(format!("set eval.settings.{metric}.{key} alone")));
        }
    }
    Ok(())
}

/// A table inside another, made if it is missing and asked for; none if the value is no table.
fn table_in<'a, 'i>(
    table: &'a mut DeTable<'i>,
    key: &'static str,
    make: bool,
) -> Option<&'a mut DeTable<'i>> {
    if make && table.get(key).is_none() {
        table.insert(
            Spanned::new(0..0, key.into()),
            Spanned::new(0..0, DeValue::Table(DeTable::new())),
        );
    }
    match table.get_mut(key)?.get_mut() {
        DeValue::Table(inner) => Some(inner),
        _ => None,
    }
}

/// Checks names of metrics and of their keys, and adds the defaults that were left out.
///
/// # Errors
/// When a metric or a key of its settings is unknown, or a metric is listed twice.
pub fn complete(
    registry: &Registry,
    source: &Source,
    eval: &mut EvalSettings,
) -> Result<(), Failure> {
    let at = |key: &str| source.place(source.span_of("eval", Some(key)));
    let known = |name: &str, key: &str| {
        let entry = registry.metrics.iter().find(|entry| entry.name == name);
        entry.ok_or_else(|| {
            let names = registry.metrics.iter().map(|entry| entry.name);
            unknown(format!("unknown metric `{name}`"), name, names, "metrics").at(at(key))
        })
    };
    for (i, metric) in eval.metrics.iter().enumerate() {
        let entry = known(metric, "metrics")?;
        if eval.metrics[..i].contains(metric) {
            return Err(
                Failure::usage(format!("the metric `{metric}` is listed twice")).at(at("metrics"))
            );
        }
        if !(entry.defaults)().is_empty() {
            eval.settings.entry(metric.clone()).or_default();
        }
    }
    for (metric, settings) in &mut eval.settings {
        let entry = known(metric, "settings")?;
        *settings = with_defaults(entry, settings).map_err(|failure| failure.at(at("settings")))?;
    }
    Ok(())
}

/// The settings of a metric with every default, in the order of these.
fn with_defaults(entry: &MetricEntry, given: &toml::Table) -> Result<toml::Table, Failure> {
    let mut settings = (entry.defaults)();
    if settings.is_empty() {
        return Err(Failure::usage(format!("the metric `{}` has no settings", entry.name))
            .help("what all metrics share stands in [eval] itself: `gfn describe eval`"));
    }
    for (key, value) in given {
        let Some(default) = settings.get_mut(key) else {
            let message = format!("the metric `{}` has no key `{key}`", entry.name);
            return Err(unknown(message, key, settings.keys().map(String::as_str), "its keys"));
        };
        default.clone_from(value);
    }
    Ok(settings)
}

fn unknown<'a>(
    message: String,
    word: &str,
    names: impl Iterator<Item = &'a str>,
    what: &str,
) -> Failure {
    let names: Vec<&str> = names.collect();
    let failure = Failure::usage(message).did_you_mean(word, names.iter().copied());
    failure.help(format!("{what}: {}", names.join(", ")))
}
