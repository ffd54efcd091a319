//! Python's pickles of tables and lists, read by `serde-pickle`.
//!
//! A pickle is a program that can call any function when Python runs it. That crate calls none:
//! in place of a result it gives the arguments, or the state that the object would get, and from
//! those of NumPy's arrays and numbers their content is put together here. The name of a type is
//! lost where it is first used, so that its size has to do; whoever calls this knows what a file
//! holds, and compares the SHA-256 of what becomes of it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_pickle::DeOptions;

/// A longer file is refused; the longest of the catalogue has 3,705,100 bytes.
pub(super) const LONGEST: usize = 4 << 20;
/// More values are refused: a short file can name one list over and over. The longest of the
/// catalogue has 161,051 numbers of seven values each.
const MOST_VALUES: usize = 2 << 20;
/// Values nested deeper are refused; a list of arrays has four levels.
const DEEPEST: usize = 8;

/// A string of symbols, in one of the forms that lists of them are published in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// One character per symbol.
    Text(String),
    /// One number per symbol; negative ones come out as very large.
    Numbers(Vec<u64>),
}

/// A dictionary from text to NumPy's numbers in single precision.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub(super) fn table(source: &[u8]) -> Result<Vec<(String, f32)>, String> {
    let Value::Dict(pairs) = read(source)? else {
        return Err("is not a pickled dictionary".to_owned());
    };
    let entry = |(key, value)| match (key, value) {
        (Value::Text(key), Value::Seq(scalar)) => match &scalar[..] {
            [kind, Value::Bytes(bytes)] if is_type(kind, |name| name == "f4") => {
                Some((key, f32::from_le_bytes(bytes[..].try_into().ok()?)))
            }
            _ => None,
        },
        _ => None,
    };
    let entries: Option<Vec<(String, f32)>> = pairs.into_iter().map(entry).collect();
    entries.ok_or_else(|| "has an entry that is not text and a number".to_owned())
}

/// A list or tuple of text, of whole numbers or of arrays of them, or an array with one row each.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub(super) fn rows(source: &[u8]) -> Result<Vec<Row>, String> {
    let refused = || "is not a pickled list of strings".to_owned();
    let Value::Seq(members) = read(source)? else { return Err(refused()) };
    let rows: Option<Vec<Row>> = match array(&members) {
        Some(Array { shape, numbers }) => match shape[..] {
            [_, columns] if columns > 0 => {
                Some(numbers.chunks(columns).map(|row| Row::Numbers(row.to_vec())).collect())
            }
            _ => None,
        },
        None => members.into_iter().map(row).collect(),
    };
    rows.ok_or_else(refused)
}

fn row(value: Value) -> Option<Row> {
    match value {
        Value::Text(text) => Some(Row::Text(text)),
        Value::Seq(members) => match array(&members) {
            Some(Array { shape, numbers }) => (shape.len() == 1).then_some(Row::Numbers(numbers)),
            None => members.iter().map(number).collect::<Option<_>>().map(Row::Numbers),
        },
        _ => None,
    }
}

/// A whole number of Python or of NumPy.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(x) => Some(*x as u64),
        Value::Seq(scalar) => match &scalar[..] {
            [kind, Value::Bytes(bytes)] if is_type(kind, is_whole) => little_endian(bytes),
            _ => None,
        },
        _ => None,
    }
}

/// A list of NumPy's arrays in single precision.
///
/// # Errors
/// What is wrong with the file, as the end of a sentence.
pub(super) fn arrays(source: &[u8]) -> Result<Vec<Array<f32>>, String> {
    let refused = || "is not a pickled list of arrays in single precision".to_owned();
    let Value::Seq(members) = read(source)? else { return Err(refused()) };
    let single = |bytes: &[u8]| bytes.try_into().ok().map(f32::from_le_bytes);
    let of_member = |member: &Value| match member {
        Value::Seq(parts) => array_of(parts, |name| name == "f4", single),
        _ => None,
    };
    members.iter().map(of_member).collect::<Option<_>>().ok_or_else(refused)
}

/// Numbers, row by row.
pub(super) struct Array<T> {
    /// One number for each dimension.
    pub(super) shape: Vec<usize>,
    /// As many as the product of these.
    pub(super) numbers: Vec<T>,
}

/// An array of whole numbers.
fn array(parts: &[Value]) -> Option<Array<u64>> {
    array_of(parts, is_whole, little_endian)
}

/// An array from the state that NumPy's `__setstate__` gets, or from the arguments of `_frombuffer`.
fn array_of<T: Copy>(
    parts: &[Value],
    admitted: impl Fn(&str) -> bool,
    number: impl Fn(&[u8]) -> Option<T>,
) -> Option<Array<T>> {
    let (shape, kind, column_major, data) = match parts {
        [Value::Int(_), shape, kind, Value::Bool(column_major), Value::Bytes(data)] => {
            (shape, kind, *column_major, data)
        }
        [Value::Bytes(data), kind, shape, Value::Text(order)] => (shape, kind, order == "F", data),
        _ => return None,
    };
    let Value::Seq(shape) = shape else { return None };
    let length = |value: &Value| match value {
        Value::Int(length) => usize::try_from(*length).ok(),
        _ => None,
    };
    let shape: Vec<usize> = shape.iter().map(length).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1, |count: usize, &length| count.checked_mul(length))?;
    let size = data.len().checked_div(count).filter(|&size| size > 0)?;
    if !data.len().is_multiple_of(count) || !is_type(kind, admitted) {
        return None;
    }
    let mut numbers: Vec<T> = data.chunks(size).map(number).collect::<Option<_>>()?;
    if column_major && let [rows, columns] = shape[..] {
        numbers = (0..count).map(|i| numbers[i % columns * rows + i / columns]).collect();
    }
    Some(Array { shape, numbers })
}

/// Whether this is a little-endian type of NumPy whose name is admitted, where it has one.
fn is_type(value: &Value, admitted: impl Fn(&str) -> bool) -> bool {
    let Value::Seq(parts) = value else { return false };
    match &parts[..] {
        [Value::Text(name), ..] => admitted(name),
        [Value::Int(_), Value::Text(order), ..] => order != ">",
        _ => false,
    }
}

fn is_whole(name: &str) -> bool {
    name.starts_with(['i', 'u'])
}

fn little_endian(bytes: &[u8]) -> Option<u64> {
    let number = bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
    (1..=8).contains(&bytes.len()).then_some(number)
}

/// What a pickle can hold here.
enum Value {
    /// Nothing, or a number with a fraction.
    Other,
    Bool(bool),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// A list or a tuple, or the arguments of a call, or the state of an object.
    Seq(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

fn read(source: &[u8]) -> Result<Value, String> {
    if source.len() > LONGEST {
        return Err(format!("is a pickle of {} bytes, more than {LONGEST}", source.len()));
    }
    let options = DeOptions::new().keep_restore_state();
    let mut pickle = serde_pickle::Deserializer::new(source, options);
    let left = Cell::new(MOST_VALUES);
    Bounded { left: &left, depth: 0 }
        .deserialize(&mut pickle)
        .map_err(|error| format!("is not a pickle of plain data: {error}"))
}

/// Reads a value while the bounds allow.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    /// How many more values may come.
    left: &'a Cell<usize>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, pickle: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).filter(|_| self.depth < DEEPEST);
        self.left
            .set(left.ok_or_else(|| D::Error::custom("too many or too deeply nested values"))?);
        pickle.deserialize_any(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("plain data")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pickle: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = pickle.next_element_seed(self)? {
            members.push(member);
        }
        Ok(Value::Seq(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pickle: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = pickle.next_entry_seed(self, self)? {
            pairs.push(pair);
        }
        Ok(Value::Dict(pairs))
    }
}

#[cfg(test)]
mod tests;
