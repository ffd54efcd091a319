//! Sets of objects: where each has its values, and lists of them in files.

use std::ops::Range;
use std::path::Path;

use gfn_core::registry::RewardContext;
use gfn_core::row_index::{Digits, RowIndex};
use gfn_core::{Environment, KeyError, States};

/// The place of every object in a list.
#[derive(Debug)]
pub enum ObjectIndex {
    /// The list has all rows of a box, in the order of their numbers.
    Box(Digits),
    /// It has these.
    Listed(States, RowIndex),
}

impl ObjectIndex {
    /// The index of all objects of a box, in the order of their numbers.
    ///
    /// # Panics
    /// When there are more than can be counted.
    pub fn of_box(cells: Vec<Range<i32>>) -> Self {
        Self::Box(Digits::new(cells, usize::MAX).expect("a list of them is at hand"))
    }

    /// The index of listed objects, and the places (first, again) of those listed twice.
    pub fn new(objects: &States) -> (Self, Vec<(usize, usize)>) {
        let first = objects.rows().next().unwrap_or_default();
        let mut cells: Vec<Range<i32>> = first.iter().map(|&cell| cell..cell + 1).collect();
        for row in objects.rows() {
            for (range, &cell) in cells.iter_mut().zip(row) {
                *range = range.start.min(cell)..range.end.max(cell + 1);
            }
        }
        let mut index = RowIndex::new(Digits::new(cells, 4 * objects.len() + 1024));
        let mut known = States::with_capacity(objects.width(), objects.len());
        let mut twice = Vec::new();
        for (i, row) in objects.rows().enumerate() {
            if let Some(first) = index.get(&known, row) {
                twice.push((first as usize, i));
            }
            known.push(row);
            if twice.last().is_none_or(|&(_, again)| again != i) {
                index.insert_last(&known);
            }
        }
        (Self::Listed(known, index), twice)
    }

    /// The place of an object in the list.
    pub fn place(&self, row: &[i32]) -> Option<usize> {
        match self {
            Self::Box(digits) => digits.number(row),
            Self::Listed(known, index) => index.get(known, row).map(|place| place as usize),
        }
    }
}

/// Text whose line ends (CR, LF or both) are all LF: the CSV reader miscounts lines otherwise.
pub fn plain_lines(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut last = 0;
    bytes.retain(|&byte| {
        let line_end = last == b'\r' && byte == b'\n';
        last = byte;
        !line_end
    });
    bytes.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
    bytes
}

/// What is wrong with the columns of a table: the key that names one which is not there, if it is that,
/// and the message after the name of the file.
pub type WrongColumns = (Option<&'static str>, String);

/// The columns of a table that hold the object, all but the last unless named, and the value, the last
/// unless named.
///
/// # Errors
/// When one is not there.
pub fn object_and_value(
    headers: &csv::StringRecord,
    object_columns: &[String],
    value_column: &str,
) -> Result<(Vec<usize>, usize), WrongColumns> {
    if headers.len() < 2 {
        let message = "has fewer than two columns; expected the object and its value";
        return Err((None, message.to_owned()));
    }
    let find = |key: &'static str, name: &str| {
        headers.iter().position(|header| header == name).ok_or_else(|| {
            let known: Vec<&str> = headers.iter().collect();
            (Some(key), format!("has no column `{name}`; it has {}", known.join(", ")))
        })
    };
    let value = match value_column {
        "" => headers.len() - 1,
        name => find("value_column", name)?,
    };
    let objects = match object_columns {
        [] => (0..headers.len()).filter(|&column| column != value).collect(),
        names => {
            let columns = names.iter().map(|name| find("object_columns", name));
            columns.collect::<Result<_, _>>()?
        }
    };
    Ok((objects, value))
}

/// That a text is no object of an environment, with the reason where there is one: to be read after it.
pub fn no_object(env: &dyn Environment, text: &str) -> String {
    let reason = env.refusal(text).map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("which is no object of the environment{reason}")
}

/// Lines that are named one by one.
const NAMED: usize = 20;

/// The objects in the first column of a CSV file with a header.
///
/// # Errors
/// When the file cannot be read or lists something else, with the lines where it does.
pub fn listed_objects(
    context: RewardContext<'_>,
    key: &str,
    path: &Path,
) -> Result<States, KeyError> {
    let (objects, outside) = listed(context, key, path)?;
    match outside {
        None => Ok(objects),
        Some(outside) => Err(KeyError::new(key, outside)),
    }
}

/// Those objects in the first column of a CSV file with a header that are some of the environment; a note
/// says which lines have others.
///
/// # Errors
/// When the file cannot be read or has none.
pub fn listed_objects_inside(
    context: RewardContext<'_>,
    key: &str,
    path: &Path,
) -> Result<States, KeyError> {
    let (objects, outside) = listed(context, key, path)?;
    match outside {
        Some(outside) if objects.is_empty() => return Err(KeyError::new(key, outside)),
        Some(outside) => context.files.note(&format!("left out: {outside}")),
        None => {}
    }
    Ok(objects)
}

/// Objects of a file, and what it lists besides.
fn listed(
    context: RewardContext<'_>,
    key: &str,
    path: &Path,
) -> Result<(States, Option<String>), KeyError> {
    let fail = |message: String| KeyError::new(key, format!("`{}` {message}", path.display()));
    let bytes = plain_lines(context.files.read_for(key, path)?);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
    let mut objects = States::new(context.env.space().width);
    let (mut first, mut others) = (None, Vec::new());
    for record in reader.records() {
        let record = record.map_err(|error| fail(format!("is not a CSV file: {error}")))?;
        let line = record.position().map_or(0, csv::Position::line);
        let object = record.get(0).unwrap_or_default();
        match context.env.parse(object) {
            Some(row) => objects.push(&row),
            None if first.is_none() => {
                first = Some((object.to_owned(), line, no_object(&**context.env, object)));
            }
            None => others.push(line.to_string()),
        }
    }
    let Some((object, line, why)) = first else {
        return if objects.is_empty() {
            Err(fail("lists no objects".to_owned()))
        } else {
            Ok((objects, None))
        };
    };
    let mut outside = format!("`{}` has `{object}` on line {line}, {why}", path.display());
    if !others.is_empty() {
        let lines = others[..others.len().min(NAMED)].join(", ");
        let more = if others.len() > NAMED { ", …" } else { "" };
        outside += &format!("; and {} more, on lines {lines}{more}", others.len());
    }
    Ok((objects, Some(outside)))
}

/// A number that stands for an object: the same in every run, different for different objects
/// (FNV-1a, 64 bits).
pub fn object_id(row: &[i32]) -> u64 {
    let bytes = row.iter().flat_map(|cell| cell.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_scattered_objects_are_found() {
        for spread in [1, 1000] {
            let mut objects = States::new(2);
            let rows: Vec<[i32; 2]> =
                (0..30).map(|i| [i % 5 * spread, (7 * i) % 6 * spread]).collect();
            rows.iter().for_each(|row| objects.push(row));
            let (index, twice) = ObjectIndex::new(&objects);
            assert!(twice.is_empty());
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(index.place(row), Some(i));
            }
            assert_eq!(index.place(&[0, 6 * spread]), None);
            assert_eq!(index.place(&[-1, 0]), None);
            objects.push(&rows[3]);
            assert_eq!(ObjectIndex::new(&objects).1, [(3, 30)]);
        }
        let index = ObjectIndex::of_box(vec![0..3, 0..4]);
        assert_eq!(index.place(&[2, 1]), Some(9));
        assert_eq!(index.place(&[2, 4]), None);
    }
}
