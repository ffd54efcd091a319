//! The sink of TensorBoard event files: records of protocol buffers, framed as TFRecords.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::sink::{Evaluation, Iteration, Sink};
use super::tables::numbers;
use crate::error::Failure;
use crate::run::directory::RunDirectory;

/// How the names of event files begin.
const PREFIX: &str = "events.out.tfevents";

/// Event files of a run: scalars `train/…` by iteration and `eval/…` by evaluation. Every session writes a
/// file of its own, which tells TensorBoard to forget what earlier ones said of later iterations.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// A new file in the run directory, for a session that goes on after an iteration. Files of a run that
    /// starts anew (`None`) are removed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(directory: &RunDirectory, last: Option<u64>) -> Result<Self, Failure> {
        let files = std::fs::read_dir(directory.path()).into_iter().flatten().flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let mut old: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
        if last.is_none() {
            old.drain(..).for_each(|name| directory.remove(&name));
        }
        // Read in the order of their names.
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let seconds = now() as u64;
        let path = directory.file(&format!("{PREFIX}.{seconds:010}.{:04}.{host}", old.len()));
        let file = File::create(&path).map_err(|error| Failure::write(&path, &error))?;
        let mut board = Self { path, file };
        board.record(&event(0, |out| text(out, 3, b"brain.Event:2")))?;
        if let Some(last) = last {
            // SessionLog { status: START }: what was said of this iteration and later ones is void.
            board.record(&event(last + 1, |out| {
                let mut start = Vec::new();
                number(&mut start, 1, 1);
                text(out, 7, &start);
            }))?;
        }
        Ok(board)
    }

    /// One event as a TFRecord: length and its checksum, data and its checksum.
    fn record(&mut self, data: &[u8]) -> Result<(), Failure> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked(data).to_le_bytes());
        let written = self.file.write_all(&record);
        written.map_err(|error| Failure::write(&self.path, &error))
    }

    fn scalars(
        &mut self,
        step: u64,
        scalars: impl Iterator<Item = (String, f64)>,
    ) -> Result<(), Failure> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut scalar = Vec::new();
            text(&mut scalar, 1, tag.as_bytes());
            scalar.push(2 << 3 | 5);
            scalar.extend((value as f32).to_le_bytes());
            text(&mut summary, 1, &scalar);
        }
        self.record(&event(step, |out| text(out, 5, &summary)))
    }
}

impl Sink for TensorBoard {
    fn iteration(&mut self, iteration: &Iteration<'_>) -> Result<(), Failure> {
        if !iteration.recorded {
            return Ok(());
        }
        let numbers = numbers(iteration).into_iter();
        let applying = numbers.filter_map(|(name, value)| Some((format!("train/{name}"), value?)));
        self.scalars(iteration.step(), applying)
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) -> Result<(), Failure> {
        let named = evaluation.named();
        let named = named.map(|(column, value)| (format!("eval/{}", column.name), value));
        self.scalars(evaluation.counters.step, named)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The checksum of TFRecords: CRC-32C, rotated and shifted.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A message `tensorflow.Event` with one more field.
fn event(step: u64, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(now().to_le_bytes());
    number(&mut out, 2, step);
    more(&mut out);
    out
}

/// A field of an integer.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    varint(out, value);
}

/// A field of bytes, text or a message.
fn text(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits per byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C bit by bit, from its polynomial.
    fn checksum(data: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
    }

    /// The data of all records.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut take = |n: usize| {
            let (head, tail) = bytes.split_at(n);
            bytes = tail;
            head.to_vec()
        };
        let checked = |data: &[u8], crc: Vec<u8>| {
            let crc = u32::from_le_bytes(crc.try_into().unwrap());
            let unmasked = crc.wrapping_sub(0xa282_ead8);
            assert_eq!(unmasked.rotate_left(15), checksum(data));
        };
        let mut out = Vec::new();
        loop {
            let length = take(8);
            checked(&length, take(4));
            let data = take(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            checked(&data, take(4));
            out.push(data);
            if out.len() == 4 {
                return out;
            }
        }
    }

    #[test]
    fn records_are_framed_events() {
        let dir = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(dir.path()).unwrap();
        drop(TensorBoard::open(&directory, None).unwrap());
        let mut board = TensorBoard::open(&directory, Some(300)).unwrap();
        let scalars = [("a".to_owned(), 1.5), ("bc".to_owned(), -2.0)];
        board.scalars(301, scalars.clone().into_iter()).unwrap();
        board.scalars(1 << 40, scalars.into_iter()).unwrap();
        let records = records(&std::fs::read(&board.path).unwrap());
        // The time, of which only the place is known, then: the version; that 301 on is void; scalars.
        let after_time = |i: usize| {
            assert_eq!(records[i][0], 0x09);
            &records[i][9..]
        };
        assert_eq!(after_time(0), b"\x10\0\x1a\x0dbrain.Event:2");
        assert_eq!(after_time(1), [0x10, 0xad, 0x02, 0x3a, 2, 0x08, 1]);
        let mut scalars = vec![0x2a, 19, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0xc0, 0x3f];
        scalars.extend([0x0a, 9, 0x0a, 2, b'b', b'c', 0x15, 0, 0, 0, 0xc0]);
        scalars[1] = (scalars.len() - 2) as u8;
        assert_eq!(after_time(2), [&[0x10, 0xad, 0x02][..], &scalars].concat());
        let far = [0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        assert_eq!(after_time(3), [&far[..], &scalars].concat());
        // A run that starts anew has one file.
        drop(board);
        drop(TensorBoard::open(&directory, None).unwrap());
        let files = std::fs::read_dir(dir.path()).unwrap().flatten();
        let events = files.filter(|file| file.file_name().to_string_lossy().starts_with(PREFIX));
        assert_eq!(events.count(), 1);
    }
}
