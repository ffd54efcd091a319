//! `gfn score`: rewards of given objects.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use gfn_core::States;
use gfn_envs::reward::objects::no_object;
use rayon::prelude::*;

use super::{load_spec, offer};
use crate::args::Score;
use crate::error::{DATA, Failure, say};
use crate::run::samples::Remarks;
use crate::run::table::line;
use crate::{Registry, World};

/// Objects that are scored together at most.
const BATCH: usize = 4096;
/// Bytes that are read at a time at most.
const READ: usize = 1 << 20;

pub fn run(registry: &Registry, args: &Score) -> Result<(), Failure> {
    let spec = load_spec(registry, &args.spec)?;
    let input: (String, Box<dyn Read>) = match &args.file {
        Some(path) if path != Path::new("-") => {
            let name = format!("`{}`", path.display());
            let file = File::open(path).map_err(|error| {
                Failure::usage(format!("cannot read {name}: {error}"))
                    .help("a file with an object per line; without it they are read from stdin")
            })?;
            (name, Box::new(file))
        }
        _ => ("stdin".to_owned(), Box::new(std::io::stdin())),
    };
    let mut lines = Lines::new(input);
    let world = World::unexplored(&spec)?;
    let mut header = ["object", "log_reward"].map(str::to_owned).to_vec();
    let of_none = Remarks::of(&*world.reward, &States::new(world.env.space().width))?;
    let remarks = of_none.header();
    header.extend(remarks.iter().cloned());

    let mut listening = offer(&line(&header))?;
    let (mut n_lines, mut n_wrong) = (0, 0);
    while listening {
        let batch = lines.next_batch()?;
        let Some(&(first, _)) = batch.first() else { break };
        let (text, wrong) = score(&world, &batch, remarks.len()).map_err(|failure| {
            failure.help(format!("what stands before line {first} has been scored"))
        })?;
        n_lines += batch.len();
        n_wrong += wrong;
        listening = offer(&text)?;
    }
    if n_wrong == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!("{n_wrong} of {n_lines} lines are no objects of the environment"))
        .help("their rows have no reward; all others are scored"))
}

/// A line that is not blank, with its number.
type Numbered = (usize, String);

/// The lines of a file.
struct Lines {
    name: String,
    reader: BufReader<Box<dyn Read>>,
    n_read: usize,
}

impl Lines {
    fn new((name, input): (String, Box<dyn Read>)) -> Self {
        Self { name, reader: BufReader::with_capacity(READ, input), n_read: 0 }
    }

    /// The next lines, none at the end: those that are at hand, so that whoever writes one after the other
    /// into a pipe sees its results.
    fn next_batch(&mut self) -> Result<Vec<Numbered>, Failure> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && (batch.is_empty() || self.reader.buffer().contains(&b'\n')) {
            let mut bytes = Vec::new();
            let read = self.reader.read_until(b'\n', &mut bytes);
            let n = read
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", self.name)))?;
            if n == 0 {
                break;
            }
            self.n_read += 1;
            let text = String::from_utf8_lossy(&bytes);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let text = if self.n_read == 1 { text.trim_start_matches('\u{feff}') } else { text };
            if !text.trim().is_empty() {
                batch.push((self.n_read, text.to_owned()));
            }
        }
        Ok(batch)
    }
}

/// The rows of lines, with `n_remarks` cells beside the reward, and how many are no objects.
fn score(
    World { env, reward, .. }: &World,
    batch: &[Numbered],
    n_remarks: usize,
) -> Result<(String, usize), Failure> {
    let parse = |(_, text): &Numbered| env.parse(text.trim());
    let rows: Vec<Option<Vec<i32>>> = batch.par_iter().map(parse).collect();
    let mut objects = States::new(env.space().width);
    rows.iter().flatten().for_each(|row| objects.push(row));
    let mut log_reward = vec![0.0; objects.len()];
    reward
        .log_reward(&objects, &mut log_reward)
        .map_err(|error| Failure::new(DATA, error.to_string()))?;
    let remarks = Remarks::of(&**reward, &objects)?;
    let (mut text, mut scored) = (String::new(), 0);
    for ((number, object), row) in batch.iter().zip(&rows) {
        let mut cells = vec![object.clone()];
        if row.is_some() {
            cells.push(log_reward[scored].to_string());
            cells.extend(remarks.cells(scored));
            scored += 1;
        } else {
            let trimmed = object.trim();
            say(&format!("line {number}: `{trimmed}`, {}", no_object(&**env, trimmed)));
            cells.resize(2 + n_remarks, String::new());
        }
        text += &line(&cells);
    }
    Ok((text, batch.len() - scored))
}
