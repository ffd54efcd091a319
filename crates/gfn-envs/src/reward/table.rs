//! Rewards by table: a CSV file of objects and values, for any environment whose objects can be
//! written as text.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{Environment, KeyError, Modes, Reward, RewardError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Settings of [`TableReward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableSpec {
    /// A CSV file with a header.
    pub path: PathBuf,
    /// Names of the columns that hold the object: its text in one, or one symbol per column.
    /// Default: all but the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub object_columns: Vec<String>,
    /// Name of the column that holds the value. Default: the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value_column: String,
    /// Expected SHA-256 of the file, in hexadecimal; empty to accept any.
    pub sha256: String,
    /// Where the file can be got; shown when it is missing.
    pub source: String,
    /// Values below this are raised to it, before the power. Needed if values can be 0 or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Power to which values are raised.
    pub exponent: f64,
    /// Rewards are scaled so that the largest is this; none keeps them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r_max: Option<f64>,
    /// Modes are the best objects that make up this fraction of the table; 0 defines none.
    pub mode_fraction: f64,
    /// A CSV file with a header whose first column names the modes; instead of a fraction.
    #[serde(skip_serializing_if = "is_empty")]
    pub mode_list: PathBuf,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Default for TableSpec {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            object_columns: Vec::new(),
            value_column: String::new(),
            sha256: String::new(),
            source: String::new(),
            floor: None,
            exponent: 1.0,
            r_max: None,
            mode_fraction: 0.0,
            mode_list: PathBuf::new(),
        }
    }
}

impl Kind<RewardAxis> for TableSpec {
    const NAME: &'static str = "table";
    const SUMMARY: &'static str = "values from a CSV file, with floor, exponent and scale";

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if self.path.as_os_str().is_empty() {
            let help = self.remedy("name a CSV file: -s reward.path=FILE");
            return Err(KeyError::data("path", "no table is given").help(help));
        }
        if !(self.exponent > 0.0 && self.exponent.is_finite()) {
            return Err(KeyError::new("exponent", "the exponent must be above 0"));
        }
        if self.floor.is_some_and(|floor| !(floor > 0.0 && floor.is_finite())) {
            return Err(KeyError::new("floor", "the floor must be above 0")
                .help("a zero reward has no finite logarithm"));
        }
        if self.r_max.is_some_and(|r_max| !(r_max > 0.0 && r_max.is_finite())) {
            return Err(KeyError::new("r_max", "the largest reward must be above 0"));
        }
        if !(0.0..=1.0).contains(&self.mode_fraction) {
            return Err(KeyError::new("mode_fraction", "a fraction lies between 0 and 1"));
        }
        let bytes = context.files.read(&self.path).map_err(|error| {
            KeyError::data("path", format!("cannot read `{}`: {error}", self.path.display()))
                .help(self.remedy("name an existing CSV file: -s reward.path=FILE"))
        })?;
        let found = hex(&Sha256::digest(&bytes));
        if !self.sha256.is_empty() && !self.sha256.eq_ignore_ascii_case(&found) {
            return Err(KeyError::data(
                "path",
                format!(
                    "`{}` is not the expected file: its SHA-256 is {found}, not {}",
                    self.path.display(),
                    self.sha256
                ),
            )
            .help(self.remedy("get the file again, or accept it with -s 'reward.sha256=\"\"'")));
        }
        let rows = self.read(context.env, &bytes)?;
        let listed = match is_empty(&self.mode_list) {
            true => None,
            false => Some(self.listed_modes(context)?),
        };
        self.reward(context.env, rows, listed)
    }
}

impl TableSpec {
    /// Reads (object row, value, line) triples.
    fn read(
        &self,
        env: &dyn Environment,
        bytes: &[u8],
    ) -> Result<Vec<(Vec<i32>, f64, u64)>, KeyError> {
        let fail = |key: &'static str, message: String| {
            KeyError::new(key, format!("`{}` {message}", self.path.display()))
        };
        let not_csv = |error| fail("path", format!("is not a CSV file: {error}"));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let headers = reader.headers().map_err(not_csv)?.clone();
        if headers.len() < 2 {
            let message = "has fewer than two columns; expected the object and its value";
            return Err(fail("path", message.to_owned()));
        }
        let find = |key: &'static str, name: &String| {
            headers.iter().position(|header| header == name).ok_or_else(|| {
                let known: Vec<&str> = headers.iter().collect();
                fail(key, format!("has no column `{name}`; it has {}", known.join(", ")))
            })
        };
        let value_column = match self.value_column.is_empty() {
            true => headers.len() - 1,
            false => find("value_column", &self.value_column)?,
        };
        let object_columns: Vec<usize> = match self.object_columns.is_empty() {
            true => (0..headers.len()).filter(|&column| column != value_column).collect(),
            false => self
                .object_columns
                .iter()
                .map(|name| find("object_columns", name))
                .collect::<Result<_, _>>()?,
        };
        let mut rows = Vec::new();
        let mut lines: HashMap<Vec<i32>, u64> = HashMap::new();
        for record in reader.records() {
            let record = record.map_err(not_csv)?;
            let line = record.position().map_or(0, csv::Position::line);
            let object: Vec<&str> = object_columns.iter().map(|&column| &record[column]).collect();
            let (object, text) = (object.join(" "), &record[value_column]);
            let value: f64 =
                text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
                    let message = "expected a number";
                    fail("path", format!("has the value `{text}` on line {line}; {message}"))
                })?;
            let row = env.parse(&object).ok_or_else(|| {
                let message = "which is no object of the environment";
                fail("path", format!("has `{object}` on line {line}, {message}"))
            })?;
            if let Some(first) = lines.insert(row.clone(), line) {
                let message = format!("has `{object}` on line {first} and again on line {line}");
                return Err(fail("path", message));
            }
            rows.push((row, value, line));
        }
        if rows.is_empty() {
            return Err(fail("path", "has no rows".to_owned()));
        }
        Ok(rows)
    }

    /// The rows of the objects in `mode_list`.
    fn listed_modes(&self, context: RewardContext<'_>) -> Result<HashSet<Vec<i32>>, KeyError> {
        let fail = |message: String| {
            KeyError::new("mode_list", format!("`{}` {message}", self.mode_list.display()))
        };
        if self.mode_fraction > 0.0 {
            return Err(KeyError::new("mode_list", "modes are either listed or a fraction")
                .help("leave one of mode_list and mode_fraction out"));
        }
        let bytes = context.files.read(&self.mode_list).map_err(|error| {
            KeyError::data(
                "mode_list",
                format!("cannot read `{}`: {error}", self.mode_list.display()),
            )
        })?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
        let mut modes = HashSet::new();
        for record in reader.records() {
            let record = record.map_err(|error| fail(format!("is not a CSV file: {error}")))?;
            let line = record.position().map_or(0, csv::Position::line);
            let object = record.get(0).unwrap_or_default();
            let row = context.env.parse(object).ok_or_else(|| {
                fail(format!(
                    "has `{object}` on line {line}, which is no object of the environment"
                ))
            })?;
            modes.insert(row);
        }
        if modes.is_empty() {
            return Err(fail("lists no modes".to_owned()));
        }
        Ok(modes)
    }

    /// What to do, and what is known of where the file comes from.
    fn remedy(&self, what: &str) -> String {
        let mut text = what.to_owned();
        for (label, known) in [("source", &self.source), ("SHA-256", &self.sha256)] {
            if !known.is_empty() {
                text += &format!("\n{label}: {known}");
            }
        }
        text
    }

    fn reward(
        &self,
        env: &dyn Environment,
        rows: Vec<(Vec<i32>, f64, u64)>,
        listed: Option<HashSet<Vec<i32>>>,
    ) -> Result<Box<dyn Reward>, KeyError> {
        let floored = |value: f64| self.floor.map_or(value, |floor| value.max(floor));
        if let Some((_, value, line)) = rows.iter().find(|(_, value, _)| floored(*value) <= 0.0) {
            return Err(KeyError::new(
                "floor",
                format!(
                    "line {line} of `{}` has the value {value}, whose reward would not be positive",
                    self.path.display()
                ),
            )
            .help("set a positive `floor`, for example reward.floor = 1e-3"));
        }
        let largest = rows.iter().map(|(_, value, _)| floored(*value)).fold(0.0, f64::max);
        let log_scale = match self.r_max {
            Some(r_max) => r_max.ln() - self.exponent * largest.ln(),
            None => 0.0,
        };
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| rows[b].1.total_cmp(&rows[a].1));
        order.truncate((self.mode_fraction * rows.len() as f64) as usize);
        let threshold = order.last().map(|&i| rows[i].1);
        let mut is_mode = vec![false; rows.len()];
        for &i in &order {
            is_mode[i] = true;
        }
        if let Some(listed) = &listed {
            for (is_mode, (row, _, _)) in is_mode.iter_mut().zip(&rows) {
                *is_mode = listed.contains(row);
            }
        }
        let mut values = HashMap::with_capacity(rows.len());
        for (i, (row, value, _)) in rows.into_iter().enumerate() {
            let log_reward = self.exponent * floored(value).ln() + log_scale;
            values.insert(row, (log_reward, is_mode[i].then_some(i as u64)));
        }
        if let Some(n) = env.n_objects().filter(|&n| n > values.len() as u64) {
            return Err(KeyError::new(
                "path",
                format!("`{}` has values for {} of {n} objects", self.path.display(), values.len()),
            )
            .help("every object needs a value; add the missing rows"));
        }
        Ok(Box::new(TableReward {
            values,
            n_modes: listed.as_ref().map_or(order.len(), HashSet::len) as u64,
            modes: match listed {
                Some(_) => format!("one of the objects listed in {}", self.mode_list.display()),
                None => format!(
                    "one of the best objects that make up a fraction {} of the table (value at \
                     least {})",
                    self.mode_fraction,
                    threshold.unwrap_or(f64::NAN)
                ),
            },
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// R(x) = (max(y(x), floor) / max y)^exponent · r_max, with y from a table; without `r_max` the
/// power itself.
pub struct TableReward {
    values: HashMap<Vec<i32>, (f64, Option<u64>)>,
    n_modes: u64,
    /// What makes an object a mode.
    modes: String,
}

impl Reward for TableReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            *out = match self.values.get(row) {
                Some(&(log_reward, _)) => log_reward,
                None => {
                    return Err(RewardError::Unknown {
                        object: format!("{row:?}"),
                        reason: "it is not in the table".to_owned(),
                    });
                }
            };
        }
        Ok(())
    }

    fn modes(&self) -> Option<&dyn Modes> {
        (self.n_modes > 0).then_some(self)
    }
}

impl Modes for TableReward {
    fn definition(&self) -> String {
        self.modes.clone()
    }

    fn count(&self) -> Option<u64> {
        Some(self.n_modes)
    }

    fn modes_of(&self, row: &[i32], _log_reward: f64) -> Vec<u64> {
        self.values.get(row).and_then(|&(_, mode)| mode).into_iter().collect()
    }
}
