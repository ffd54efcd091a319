//! Observations of named variables, from CSV text with a header.

use std::collections::{BTreeMap, BTreeSet};

use super::file_error::FileError;
use super::graph::bit;
use super::header::{Header, not_csv, reader_of};

/// What the columns of a file hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Numbers.
    Continuous,
    /// Names of states.
    Discrete,
}

/// A variable with finitely many states.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscreteColumn {
    /// Names of the states: by value if all are numbers, else in the order of their bytes.
    pub states: Vec<String>,
    /// Which state each row has.
    pub values: Vec<u32>,
}

/// The observed values, one entry per variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    /// Finite numbers.
    Continuous(Vec<Vec<f64>>),
    /// States.
    Discrete(Vec<DiscreteColumn>),
}

/// Observations: rows are independent, columns are the nodes of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the variables, in the order of the file.
    pub names: Vec<String>,
    /// Their values.
    pub columns: Columns,
    /// For each row, the node that was set from outside; empty if nothing ever was. Such a row
    /// says nothing about how this node depends on its parents.
    pub interventions: Vec<Option<usize>>,
}

impl Table {
    /// Reads CSV text (UTF-8 with or without byte-order mark, any line ends) whose first line
    /// names the variables. Fields are separated by the first of comma, semicolon, tab and space
    /// that the header has.
    ///
    /// `interventions` names a column that is no variable but says which node was intervened on
    /// in each row: by its name, or by its number counting from 1; 0 or nothing for none.
    ///
    /// # Errors
    /// With line and column: an unusable header, rows of another length, fewer than two rows,
    /// missing or unreadable values, columns that do not vary, unknown targets of interventions.
    pub fn parse(
        bytes: &[u8],
        kind: DataKind,
        interventions: Option<&str>,
    ) -> Result<Self, FileError> {
        let mut reader = reader_of(bytes);
        let Header { headers, target, variables, names } =
            Header::read(&mut reader, interventions)?;
        let mut texts = vec![Vec::new(); names.len()];
        let (mut numbers, mut targets) = (vec![Vec::new(); names.len()], Vec::new());
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| not_csv(&error))? {
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != headers.len() {
                let (found, expected) = (record.len(), headers.len());
                let message = format!("has {found} fields where the header has {expected}");
                let help = "give every row one field per column; quote fields with separators";
                return Err(FileError::new(message, help).on(line));
            }
            for (v, &k) in variables.iter().enumerate() {
                let text = &record[k];
                check_present(text, &names[v]).map_err(|error| error.on(line))?;
                match kind {
                    DataKind::Continuous => {
                        let number = number(text, &names[v]).map_err(|error| error.on(line))?;
                        numbers[v].push(number);
                    }
                    DataKind::Discrete => texts[v].push(text.to_owned()),
                }
            }
            if let Some(k) = target {
                let target = intervened(&record[k], &headers[k], &names);
                targets.push(target.map_err(|error| error.on(line))?);
            }
        }
        let columns = match kind {
            DataKind::Continuous => Columns::Continuous(numbers),
            DataKind::Discrete => Columns::Discrete(texts.iter().map(|c| discrete(c)).collect()),
        };
        let interventions = if targets.iter().any(Option::is_some) { targets } else { Vec::new() };
        let table = Self { names, columns, interventions };
        table.check()?;
        Ok(table)
    }

    /// The names of the variables alone, whatever stands below the header.
    ///
    /// # Errors
    /// When the header cannot be used.
    pub fn names_of(bytes: &[u8], interventions: Option<&str>) -> Result<Vec<String>, FileError> {
        Ok(Header::read(&mut reader_of(bytes), interventions)?.names)
    }

    /// The same observations with the variables in the order of `names`, which are all of them.
    ///
    /// # Panics
    /// When a name is not that of a variable.
    #[must_use]
    pub fn in_order(self, names: &[String]) -> Self {
        let place = |name: &String| self.names.iter().position(|known| known == name);
        let places: Vec<usize> = names.iter().map(|name| place(name).expect("a column")).collect();
        let moved = |old: usize| places.iter().position(|&place| place == old);
        let columns = match &self.columns {
            Columns::Continuous(columns) => {
                Columns::Continuous(places.iter().map(|&k| columns[k].clone()).collect())
            }
            Columns::Discrete(columns) => {
                Columns::Discrete(places.iter().map(|&k| columns[k].clone()).collect())
            }
        };
        let interventions = self.interventions.iter().map(|target| target.and_then(moved));
        Self { interventions: interventions.collect(), names: names.to_vec(), columns }
    }

    /// Enough rows, and every column varies.
    fn check(&self) -> Result<(), FileError> {
        if self.n_rows() < 2 {
            let message = format!("has {} rows of data; expected at least 2", self.n_rows());
            return Err(FileError::new(message, "give more observations below the header"));
        }
        let constant = |v: usize| match &self.columns {
            Columns::Continuous(columns) => {
                let [low, high] = [f64::min, f64::max]
                    .map(|of| columns[v].iter().copied().reduce(of).unwrap_or_default());
                low >= high
            }
            Columns::Discrete(columns) => columns[v].states.len() < 2,
        };
        match (0..self.n_nodes()).find(|&v| constant(v)) {
            None => Ok(()),
            Some(v) => {
                let message =
                    format!("has the same value in all rows of column `{}`", self.names[v]);
                Err(FileError::new(message, "leave this column out").of(&self.names[v]))
            }
        }
    }

    /// Number of variables.
    pub fn n_nodes(&self) -> usize {
        self.names.len()
    }

    /// Number of observations.
    pub fn n_rows(&self) -> usize {
        match &self.columns {
            Columns::Continuous(columns) => columns.first().map_or(0, Vec::len),
            Columns::Discrete(columns) => columns.first().map_or(0, |column| column.values.len()),
        }
    }

    /// Shifts and scales every continuous column to mean 0 and variance 1, where the variance is
    /// the sum of squares over `n_rows - ddof`. Leaves discrete columns alone.
    ///
    /// # Panics
    /// When there are no more than `ddof` rows.
    pub fn standardise(&mut self, ddof: usize) {
        assert!(self.n_rows() > ddof, "a variance needs more than ddof rows");
        let Columns::Continuous(columns) = &mut self.columns else { return };
        for column in columns {
            let n = column.len() as f64;
            let mean = column.iter().sum::<f64>() / n;
            column.iter_mut().for_each(|value| *value -= mean);
            let squares: f64 = column.iter().map(|value| value * value).sum();
            let deviation = (squares / (n - ddof as f64)).sqrt();
            column.iter_mut().for_each(|value| *value /= deviation);
        }
    }

    /// The rows that tell about `node`: those in which it was not intervened on.
    pub fn rows_for(&self, node: usize) -> Vec<usize> {
        let set = |&row: &usize| self.interventions.get(row).copied().flatten() == Some(node);
        (0..self.n_rows()).filter(|row| !set(row)).collect()
    }

    /// Mask of the nodes that some row was intervened on.
    pub fn intervened_nodes(&self) -> u64 {
        self.interventions.iter().flatten().fold(0, |mask, &node| mask | bit(node))
    }
}

/// Refuses the usual ways to write that a value is missing.
fn check_present(text: &str, column: &str) -> Result<(), FileError> {
    let missing = ["", "na", "nan", "n/a", "null", "?"];
    if !missing.contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let message = format!("has no value (`{text}`) in column `{column}`");
    Err(FileError::new(message, "fill in missing values, or leave such rows out").of(column))
}

fn number(text: &str, column: &str) -> Result<f64, FileError> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
        let message = format!("has `{text}` in column `{column}`, where a number is expected");
        FileError::new(message, "correct it, or use a score for discrete data").of(column)
    })
}

fn intervened(text: &str, column: &str, names: &[String]) -> Result<Option<usize>, FileError> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let by_name = names.iter().position(|name| name == text);
    let number = || text.parse().ok().filter(|number| (1..=names.len()).contains(number));
    match by_name.or_else(|| number().map(|number| number - 1)) {
        Some(node) => Ok(Some(node)),
        None => {
            let message = format!("has `{text}` in column `{column}`, which is no variable");
            let d = names.len();
            let help = format!("use a variable's name, or its number from 1 to {d}; 0 for none");
            Err(FileError::new(message, help).of(column))
        }
    }
}

/// A column of names of states.
fn discrete(texts: &[String]) -> DiscreteColumn {
    let distinct: BTreeSet<&String> = texts.iter().collect();
    let mut states: Vec<String> = distinct.into_iter().cloned().collect();
    let value = |state: &String| state.parse::<f64>().ok();
    if states.iter().all(|state| value(state).is_some()) {
        // Stable: `1` and `1.0` stay two states, in the order of their bytes.
        states.sort_by(|a, b| value(a).partial_cmp(&value(b)).unwrap_or(std::cmp::Ordering::Equal));
    }
    let places: BTreeMap<&String, u32> = states.iter().zip(0..).collect();
    let values = texts.iter().map(|text| places[text]).collect();
    DiscreteColumn { values, states }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn continuous(text: &str) -> Result<Table, FileError> {
        Table::parse(text.as_bytes(), DataKind::Continuous, None)
    }

    #[test]
    fn marks_line_ends_and_separators() {
        let plain = continuous("A,B\n1,2\n3,5\n").unwrap();
        assert_eq!(plain.names, ["A", "B"]);
        assert_eq!(plain.columns, Columns::Continuous(vec![vec![1.0, 3.0], vec![2.0, 5.0]]));
        for text in [
            "\u{feff}A,B\r\n1,2\r\n3,5\r\n",
            "A;B\n1;2\n3;5",
            "A\tB\n1\t2\n3\t5\n\n",
            "\"A\" \"B\"\n1 2\n3 5\n",
            "A, B\n 1 ,2\n3, 5e0\n",
        ] {
            assert_eq!(continuous(text).as_ref(), Ok(&plain), "{text:?}");
        }
    }

    #[test]
    fn states_are_sorted_and_named() {
        let text = "A,B\nx,10\ny,9\nx,-1\n";
        let table = Table::parse(text.as_bytes(), DataKind::Discrete, None).unwrap();
        let Columns::Discrete(columns) = table.columns else { panic!("discrete") };
        assert_eq!(columns[0].states, ["x", "y"]);
        assert_eq!(columns[1].states, ["-1", "9", "10"]);
        assert_eq!(columns[1].values, [2, 1, 0]);
    }

    #[test]
    fn refusals_name_line_and_column() {
        let wide: Vec<String> = (0..65).map(|i| format!("X{i}")).collect();
        let cases = [
            ("A,B\n1,2\n3,x\n", Some(3), Some("B"), "`x`"),
            ("A,B\n1,2\n3,inf\n", Some(3), Some("B"), "`inf`"),
            ("A,B\n1,2\n,4\n", Some(3), Some("A"), "no value"),
            ("A,B\n1,NA\n3,4\n", Some(2), Some("B"), "no value (`NA`)"),
            ("A,B\n1,NaN\n3,4\n", Some(2), Some("B"), "no value"),
            ("A,B\n1,?\n3,4\n", Some(2), Some("B"), "no value"),
            ("A,B\n1,2\n1,4\n", None, Some("A"), "same value"),
            ("A,A\n1,2\n3,4\n", Some(1), Some("A"), "two columns"),
            ("A,\n1,2\n3,4\n", Some(1), None, "no name for column 2"),
            ("1,2\n3,4\n5,6\n", Some(1), None, "numbers where the names"),
            ("A,B\n1,2\n", None, None, "1 rows"),
            ("A,B\n1,2\n3\n", Some(3), None, "1 fields where the header has 2"),
            ("A,B\n1,2\n3,4,5\n", Some(3), None, "3 fields"),
            ("", None, None, "0 variables"),
            (&(wide.join(",") + "\n"), None, None, "65 variables"),
        ];
        for (text, line, column, message) in cases {
            let error = continuous(text).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert_eq!(error.column.as_deref(), column, "{error}");
            assert!(error.message.contains(message), "{error}");
            assert!(!error.help.is_empty(), "{error}");
            if let Some(line) = line {
                assert!(error.message.ends_with(&format!("on line {line}")), "{error}");
            }
        }
        let constant = Table::parse(b"A,B\nx,y\nx,z\n", DataKind::Discrete, None).unwrap_err();
        assert_eq!(constant.column.as_deref(), Some("A"));
        let key = constant.for_key("path", Path::new("data.csv"));
        assert!(key.data && key.message.starts_with("`data.csv` has the same value"));
        assert!(Table::parse(b"A,B\n\xff,1\n", DataKind::Discrete, None).is_err());
    }

    #[test]
    fn interventions_by_name_and_number() {
        let text = "A,INT,B\n1,0,4\n2,B,3\n5,1,2\n7,,1\n8,2,0\n";
        let parse = |column| Table::parse(text.as_bytes(), DataKind::Continuous, Some(column));
        let table = parse("INT").unwrap();
        assert_eq!(table.names, ["A", "B"]);
        assert_eq!(table.interventions, [None, Some(1), Some(0), None, Some(1)]);
        assert_eq!(table.rows_for(0), [0, 1, 3, 4]);
        assert_eq!(table.rows_for(1), [0, 2, 3]);
        assert_eq!(table.intervened_nodes(), 0b11);
        assert!(parse("DO").unwrap_err().help.contains("A, INT, B"));
        let text = text.replace("5,1,2", "5,3,2");
        let error = Table::parse(text.as_bytes(), DataKind::Continuous, Some("INT")).unwrap_err();
        assert_eq!((error.line, error.column.as_deref()), (Some(4), Some("INT")));
        assert!(error.help.contains("from 1 to 2"));
    }

    #[test]
    fn standardised_columns_have_unit_variance() {
        let mut table = continuous("A,B\n1,1000000002\n2,1000000005\n6,1000000001\n").unwrap();
        table.standardise(1);
        let Columns::Continuous(columns) = table.columns else { panic!("continuous") };
        for column in columns {
            assert!(column.iter().sum::<f64>().abs() < 1e-6);
            assert!((column.iter().map(|x| x * x).sum::<f64>() - 2.0).abs() < 1e-12);
        }
    }
}
