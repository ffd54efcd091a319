//! Something that varies in a sweep: a name, its values, and where they stand in the spec.

use std::ops::Range;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::trial::Overrides;
use crate::error::Failure;
use crate::spec::Source;

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Its key, or any name if its values set several keys.
    pub name: String,
    /// Where its values stand.
    pub span: Range<usize>,
    /// What it takes.
    pub values: Values,
}

/// One value.
#[derive(Clone, Debug)]
pub struct Point {
    /// What it sets: one key or several.
    pub sets: Overrides,
    /// What it is called, if the spec says so.
    pub label: Option<String>,
    /// Where it stands in the spec.
    pub span: Range<usize>,
}

/// The values of an axis.
#[derive(Clone, Debug)]
pub enum Values {
    /// As they are written.
    Listed(Vec<Point>),
    /// Whole numbers, both ends included.
    Range(i64, i64),
    /// Uniform between two numbers.
    Uniform(f64, f64),
    /// Uniform in the logarithm.
    LogUniform(f64, f64),
}

/// Keys of `[sweep]` that are no axes.
const RESERVED: [&str; 5] = ["method", "samples", "sweep_seed", "halving", "trial"];
/// What a table of values is called in names of folders, beside the keys that it sets.
const LABEL: &str = "label";
/// Words of an axis that is a range.
pub(super) const RANGES: [&str; 3] = ["range", "uniform", "log_uniform"];

impl Axis {
    /// How many values it has; drawn numbers count as one.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Listed(values) => values.len(),
            Values::Range(first, last) => {
                usize::try_from(last.abs_diff(*first)).map_or(usize::MAX, |n| n.saturating_add(1))
            }
            Values::Uniform(..) | Values::LogUniform(..) => 1,
        }
    }

    /// The value at a place.
    pub fn value(&self, i: usize) -> Point {
        match &self.values {
            Values::Listed(values) => values[i].clone(),
            Values::Range(first, _) => self.own((first + i as i64).into()),
            &Values::Uniform(low, _) | &Values::LogUniform(low, _) => self.own(low.into()),
        }
    }

    /// A value at random.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Point {
        match self.values {
            Values::Listed(_) | Values::Range(..) => self.value(rng.random_range(0..self.len())),
            Values::Uniform(low, high) => {
                self.own(rounded(low + (high - low) * rng.random::<f64>()).into())
            }
            Values::LogUniform(low, high) => {
                let log = low.ln() + (high.ln() - low.ln()) * rng.random::<f64>();
                self.own(rounded(log.exp()).into())
            }
        }
    }

    fn own(&self, value: toml::Value) -> Point {
        let sets = Overrides::single(&self.name, value);
        Point { sets, label: None, span: self.span.clone() }
    }
}

/// Four significant digits: drawn values are read, and name folders.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn to_value(source: &Source, value: Spanned<DeValue<'_>>) -> Result<toml::Value, Failure> {
    toml::Value::deserialize(toml::de::ValueDeserializer::from(value))
        .map_err(|error| source.toml_failure(&error, "sweep", &[]))
}

/// A table of keys and values, which may have a label.
///
/// # Errors
/// When it is none, or sets what cannot vary.
pub fn take_point(
    source: &Source,
    value: Spanned<DeValue<'_>>,
    what: &str,
) -> Result<Point, Failure> {
    let span = value.span();
    let toml::Value::Table(mut table) = to_value(source, value)? else {
        return Err(Failure::usage(format!("a value of `{what}` that is no table"))
            .at(source.place(span))
            .help("for example: { \"objective.kind\" = \"tb\", \"train.lr\" = 1e-3 }"));
    };
    let label = match table.remove(LABEL) {
        Some(toml::Value::String(label)) if Overrides::names(&label) => Some(label),
        None => None,
        Some(other) => {
            return Err(Failure::usage(format!("the label {other} cannot be used as a folder"))
                .at(source.place(span))
                .help("a label is a string of letters, digits and any of - _ . +"));
        }
    };
    let sets = Overrides::from(&table);
    for key in sets.keys() {
        check_key(source, key, &span)?;
    }
    if sets.is_empty() {
        return Err(
            Failure::usage(format!("a value of `{what}` sets nothing")).at(source.place(span))
        );
    }
    Ok(Point { sets, label, span })
}

/// What a sweep decides itself cannot be varied by an axis.
fn check_key(source: &Source, key: &str, span: &Range<usize>) -> Result<(), Failure> {
    let bare = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !part.is_empty() && part.chars().all(plain)
    };
    let taken = key == "name" || key == "sweep" || key.starts_with("sweep.");
    if taken || !key.split('.').all(bare) {
        return Err(Failure::usage(format!("`{key}` cannot be an axis of a sweep"))
            .at(source.place(span.clone()))
            .help("axes are keys of a spec, such as \"train.lr\" or seed; trials are named by what they set"));
    }
    Ok(())
}

/// Axes of a table; tables within it are parts of dotted keys, unless they are ranges.
///
/// # Errors
/// With the place and the remedy.
pub fn take_axes(
    source: &Source,
    table: DeTable<'_>,
    prefix: &str,
    axes: &mut Vec<Axis>,
) -> Result<(), Failure> {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let span = value.span();
        let at = || source.place(span.clone());
        match value.into_inner() {
            DeValue::Array(values) => {
                if values.is_empty() {
                    return Err(Failure::usage(format!("the axis `{name}` has no values"))
                        .at(at())
                        .help("list at least one value, or remove the axis"));
                }
                let tables = values.iter().filter(|value| value.get_ref().is_table()).count();
                let values = if tables > 0 {
                    let points = values.into_iter().map(|value| take_point(source, value, &name));
                    points.collect::<Result<Vec<_>, _>>()?
                } else {
                    check_key(source, &name, &span)?;
                    let single = |value: Spanned<DeValue<'_>>| {
                        let span = value.span();
                        let sets = Overrides::single(&name, to_value(source, value)?);
                        Ok(Point { sets, label: None, span })
                    };
                    values.into_iter().map(single).collect::<Result<Vec<_>, Failure>>()?
                };
                axes.push(Axis { name, span, values: Values::Listed(values) });
            }
            DeValue::Table(inner)
                if inner.len() == 1
                    && inner.keys().all(|key| RANGES.contains(&key.get_ref().as_ref())) =>
            {
                check_key(source, &name, &span)?;
                let (word, ends) = inner.into_iter().next().expect("one entry");
                let values = take_range(source, &name, word.get_ref(), ends)?;
                axes.push(Axis { name, span, values });
            }
            DeValue::Table(inner) if !inner.is_empty() => {
                take_axes(source, inner, &format!("{name}."), axes)?;
            }
            _ => {
                let failure = Failure::usage(format!("the axis `{name}` is no list of values"))
                    .at(at())
                    .did_you_mean(&name, RESERVED);
                return Err(failure.help(
                    "an axis is a list, { range = [1, 5] }, { uniform = [0, 1] } or \
                     { log_uniform = [1e-4, 1e-2] }; other keys of [sweep]: method, samples, \
                     sweep_seed, halving, trial",
                ));
            }
        }
    }
    Ok(())
}

fn take_range(
    source: &Source,
    name: &str,
    word: &str,
    ends: Spanned<DeValue<'_>>,
) -> Result<Values, Failure> {
    let span = ends.span();
    let fail = |message: String| Err(Failure::usage(message).at(source.place(span.clone())));
    let whole = word == "range";
    let toml::Value::Array(ends) = to_value(source, ends)? else {
        return fail(format!("`{name}`: {word} takes two ends, such as [1, 5]"));
    };
    let number = |value: &toml::Value| match value {
        toml::Value::Integer(number) => Some(*number as f64),
        toml::Value::Float(number) if !whole && number.is_finite() => Some(*number),
        _ => None,
    };
    let numbers: Option<Vec<f64>> = ends.iter().map(number).collect();
    match numbers.as_deref() {
        Some(&[low, high]) if low > high => {
            fail(format!("`{name}`: the {word} from {low} to {high} is empty"))
        }
        Some(&[low, _]) if word == "log_uniform" && low <= 0.0 => {
            fail(format!("`{name}`: {word} takes ends above 0"))
        }
        Some(&[low, high]) => Ok(match (word, ends.as_slice()) {
            ("range", [toml::Value::Integer(first), toml::Value::Integer(last)]) => {
                Values::Range(*first, *last)
            }
            ("uniform", _) => Values::Uniform(low, high),
            _ => Values::LogUniform(low, high),
        }),
        _ if whole => fail(format!("`{name}`: range takes two whole numbers, such as [1, 5]")),
        _ => fail(format!("`{name}`: {word} takes two numbers, such as [1e-4, 1e-2]")),
    }
}

/// A value as a seed.
///
/// # Errors
/// When it is none.
pub fn as_seed(source: &Source, value: &toml::Value, span: &Range<usize>) -> Result<u64, Failure> {
    value.as_integer().and_then(|seed| u64::try_from(seed).ok()).ok_or_else(|| {
        Failure::usage("seeds are whole numbers of at least 0").at(source.place(span.clone()))
    })
}
