//! Rewards by table: a CSV or NPY file of values, for any environment whose objects can be
//! written as text.

use std::collections::HashSet;
use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{Environment, KeyError, Modes, Reward, RewardError, States};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::modes::{ModeSet, ModeSpec, is_empty};
use super::npy;
use super::objects::{ObjectIndex, listed_objects, no_object, object_and_value, plain_lines};
use super::transform::Transform;

/// Settings of [`TableReward`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableSpec {
    /// A CSV file with a header, rows in any order; or an NPY file with the values of all objects
    /// in lexicographic order.
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
    /// From values to rewards.
    #[serde(skip_serializing_if = "Transform::is_identity")]
    pub transform: Transform,
    /// Which objects are modes.
    #[serde(skip_serializing_if = "ModeSpec::is_none")]
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names objects to measure correlations on,
    /// where the environment cannot be enumerated.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Kind<RewardAxis> for TableSpec {
    const NAME: &'static str = "table";
    const SUMMARY: &'static str = "values from a CSV or NPY file, transformed";
    const NEUTRAL_KEYS: &'static [&'static str] = &["path", "source", "sha256"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        if is_empty(&self.path) {
            let help = self.remedy("name a CSV or NPY file: -s reward.path=FILE");
            return Err(KeyError::data("path", "no table is given").help(help));
        }
        // Out-of-range numbers are reported before a long file is read.
        self.transform.prepare(self.transform.r_max)?;
        self.modes.check()?;
        let bytes = context.files.read_for("path", &self.path).map_err(|error| {
            let help = error.help.clone().unwrap_or_else(|| {
                self.remedy("name an existing CSV or NPY file: -s reward.path=FILE")
            });
            error.help(help)
        })?;
        self.check_hash(&bytes)?;
        let npy = self.path.extension().is_some_and(|extension| extension == "npy");
        let table = if npy {
            self.read_npy(&**context.env, &bytes)?
        } else {
            self.read_csv(context, &plain_lines(bytes))?
        };
        let best = self.transform.best(table.values.iter().copied());
        let transform = self.transform.prepare(best)?;
        let log_rewards = table.values.iter().enumerate().map(|(i, &value)| {
            let place = || format!("{} of `{}`", table.place(i), self.path.display());
            transform.of(value).ok_or_else(|| transform.refusal(&place(), value))
        });
        let log_rewards = log_rewards.collect::<Result<Vec<f64>, _>>()?;
        let modes = self.modes.among(context, &table.values, transform.less_is_better(), |i| {
            table.object(&**context.env, i)
        })?;
        let test = if is_empty(&self.test_set) {
            None
        } else {
            Some(listed_objects(context, "test_set", &self.test_set)?)
        };
        Ok(Box::new(TableReward { index: table.index, log_rewards, modes, test }))
    }
}

/// The content of a file.
struct Table {
    values: Vec<f64>,
    index: ObjectIndex,
    /// Objects and lines of a CSV file; an NPY file has all objects in order.
    rows: Option<(States, Vec<u64>)>,
}

impl Table {
    fn object(&self, env: &dyn Environment, i: usize) -> Vec<i32> {
        match &self.rows {
            Some((objects, _)) => objects.row(i).to_vec(),
            None => env.object_at(i as u64).expect("checked when the file was read"),
        }
    }

    /// Without the second of every pair of rows.
    fn without(self, twice: &[(usize, usize)]) -> Self {
        let Some((all, all_lines)) = self.rows else { return self };
        let again: HashSet<usize> = twice.iter().map(|&(_, again)| again).collect();
        let mut objects = States::with_capacity(all.width(), all.len());
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        for i in (0..all.len()).filter(|i| !again.contains(i)) {
            objects.push(all.row(i));
            values.push(self.values[i]);
            lines.push(all_lines[i]);
        }
        let (index, _) = ObjectIndex::new(&objects);
        Self { values, index, rows: Some((objects, lines)) }
    }

    fn place(&self, i: usize) -> String {
        match &self.rows {
            Some((_, lines)) => format!("line {}", lines[i]),
            None => format!("number {i}"),
        }
    }
}

/// How many faults a message names.
const NAMED: usize = 3;

impl TableSpec {
    fn fail(&self, key: &str, message: impl std::fmt::Display) -> KeyError {
        KeyError::new(key, format!("`{}` {message}", self.path.display()))
    }

    fn check_hash(&self, bytes: &[u8]) -> Result<(), KeyError> {
        let digest = Sha256::digest(bytes);
        let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.sha256.is_empty() || self.sha256.eq_ignore_ascii_case(&found) {
            return Ok(());
        }
        let expected = &self.sha256;
        let message = format!("is not the expected file: its SHA-256 is {found}, not {expected}");
        let help = self.remedy("get the file again, or accept it with -s 'reward.sha256=\"\"'");
        Err(KeyError { data: true, ..self.fail("path", message) }.help(help))
    }

    fn read_npy(&self, env: &dyn Environment, bytes: &[u8]) -> Result<Table, KeyError> {
        let values = npy::read(bytes).map_err(|message| self.fail("path", message))?;
        let (Some(n), Some(first), Some(digits)) =
            (env.n_objects(), env.object_at(0), env.cell_ranges())
        else {
            return Err(self
                .fail("path", "has values without names, but these objects have no order")
                .help("use a CSV file with the objects beside their values"));
        };
        if n != values.len() as u64 {
            let message = format!("has {} values, but there are {n} objects", values.len());
            return Err(self.fail("path", message));
        }
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            let message = format!("has the value {} at number {i}; expected a number", values[i]);
            return Err(self.fail("path", message));
        }
        // A cell starts at the value that it has in the first object.
        let digits = digits.iter().zip(first).map(|(range, first)| first..range.end).collect();
        Ok(Table { values, index: ObjectIndex::of_box(digits), rows: None })
    }

    fn read_csv(&self, context: RewardContext<'_>, bytes: &[u8]) -> Result<Table, KeyError> {
        let env = &**context.env;
        let not_csv = |error| self.fail("path", format!("is not a CSV file: {error}"));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let (object_columns, value_column) = self.columns(reader.headers().map_err(not_csv)?)?;
        let mut objects = States::new(env.space().width);
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        let (mut record, mut object) = (csv::StringRecord::new(), String::new());
        while reader.read_record(&mut record).map_err(not_csv)? {
            let line = record.position().map_or(0, csv::Position::line);
            object.clear();
            for &column in &object_columns {
                object += if object.is_empty() { "" } else { " " };
                object += &record[column];
            }
            let text = &record[value_column];
            let value = text.parse().ok().filter(|value: &f64| value.is_finite());
            let value = value.ok_or_else(|| {
                let message = "expected a number";
                self.fail("path", format!("has the value `{text}` on line {line}; {message}"))
            })?;
            let row = env.parse(&object).ok_or_else(|| {
                let message = no_object(env, &object);
                self.fail("path", format!("has `{object}` on line {line}, {message}"))
            })?;
            objects.push(&row);
            values.push(value);
            lines.push(line);
        }
        if values.is_empty() {
            return Err(self.fail("path", "has no rows"));
        }
        let (index, twice) = ObjectIndex::new(&objects);
        self.check_duplicates(context, &objects, &values, &lines, &twice)?;
        self.check_gaps(env, &index, values.len() - twice.len())?;
        let table = Table { values, index, rows: Some((objects, lines)) };
        Ok(if twice.is_empty() { table } else { table.without(&twice) })
    }

    /// Columns of the object and of the value.
    fn columns(&self, headers: &csv::StringRecord) -> Result<(Vec<usize>, usize), KeyError> {
        object_and_value(headers, &self.object_columns, &self.value_column)
            .map_err(|(key, message)| self.fail(key.unwrap_or("path"), message))
    }

    /// Objects listed twice with one value are worth a note, with two values an error.
    fn check_duplicates(
        &self,
        context: RewardContext<'_>,
        objects: &States,
        values: &[f64],
        lines: &[u64],
        twice: &[(usize, usize)],
    ) -> Result<(), KeyError> {
        let describe = |pairs: &[(usize, usize)]| {
            let named = pairs.iter().take(NAMED).map(|&(first, again)| {
                let object = context.env.render(objects.row(again));
                format!("`{object}` on line {} and again on line {}", lines[first], lines[again])
            });
            let mut text = named.collect::<Vec<_>>().join(", ");
            if pairs.len() > NAMED {
                text += &format!(", and {} more", pairs.len() - NAMED);
            }
            text
        };
        #[expect(clippy::float_cmp, reason = "rows that repeat each other repeat the number")]
        let (same, different): (Vec<_>, Vec<_>) =
            twice.iter().partition(|(first, again)| values[*first] == values[*again]);
        if !different.is_empty() {
            let message = format!("has {}, with different values", describe(&different));
            return Err(self.fail("path", message).help("keep one row per object"));
        }
        if !same.is_empty() {
            let path = self.path.display();
            context.files.note(&format!("`{path}` has {}, with the same value", describe(&same)));
        }
        Ok(())
    }

    /// Every object needs a value.
    fn check_gaps(
        &self,
        env: &dyn Environment,
        index: &ObjectIndex,
        found: usize,
    ) -> Result<(), KeyError> {
        let Some(n) = env.n_objects().filter(|&n| n > found as u64) else { return Ok(()) };
        let objects = (0..n).map_while(|i| env.object_at(i));
        let missing = objects.filter(|object| index.place(object).is_none()).take(NAMED);
        let missing: Vec<String> = missing.map(|row| format!("`{}`", env.render(&row))).collect();
        let mut message = format!("has values for {found} of {n} objects");
        if !missing.is_empty() {
            message += &format!("; missing are {}", missing.join(", "));
        }
        if n - found as u64 > missing.len() as u64 && !missing.is_empty() {
            message += &format!(" and {} more", n - found as u64 - missing.len() as u64);
        }
        Err(self.fail("path", message).help("every object needs a value; add the missing rows"))
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
}

/// R(x) from a table of raw values, by [`Transform`].
pub struct TableReward {
    index: ObjectIndex,
    log_rewards: Vec<f64>,
    modes: Option<ModeSet>,
    test: Option<States>,
}

impl Reward for TableReward {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let place = self.index.place(row).ok_or_else(|| RewardError::Unknown {
                object: format!("{row:?}"),
                reason: "it is not in the table".to_owned(),
            })?;
            *out = self.log_rewards[place];
        }
        Ok(())
    }

    fn test_objects(&self) -> Option<States> {
        self.test.clone()
    }

    fn modes(&self) -> Option<&dyn Modes> {
        self.modes.as_ref().and_then(ModeSet::independent)
    }
}
