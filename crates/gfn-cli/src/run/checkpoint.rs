//! Checkpoints on disk: a folder per iteration, complete or absent, with a hash of every file.
//!
//! `model.safetensors`, `copies.safetensors` and `optimizer.safetensors` hold arrays that other
//! tools can read; `state.bin` holds past batches, replay buffers, what metrics have gathered, and chains;
//! `checkpoint.json` says what belongs together. A folder appears under its name only when all
//! of it has been written, so a kill at any moment leaves the checkpoints before it intact. No
//! file holds a clock: two runs of the same spec have the same checkpoints, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gfn_core::learn::engine::NamedTensor;
use gfn_core::learn::{Counters, Snapshot};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::directory::sync_directory;
use crate::error::Failure;

const FILES: [&str; 4] =
    ["model.safetensors", "copies.safetensors", "optimizer.safetensors", "state.bin"];
const INDEX: &str = "checkpoint.json";
/// Before the step, the name of a checkpoint that is being replaced.
const ASIDE: &str = ".replaced-";
/// Raised when older checkpoints can no longer be read.
const FORMAT: u32 = 3;

/// What a checkpoint holds besides the trainer's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    format: u32,
    /// What had been spent.
    pub counters: Counters,
    /// The score by which `best` is chosen (lower is better), if one was measured.
    pub score: Option<f64>,
    /// SHA-256 of the data files that the run read.
    pub data: BTreeMap<String, String>,
    sha256: BTreeMap<String, String>,
}

/// A checkpoint that has been read and verified.
pub struct Checkpoint {
    /// The trainer's state.
    pub snapshot: Snapshot,
    /// The rest.
    pub index: Index,
}

/// Why a checkpoint cannot be used, as a fragment that follows its path.
type Damage = String;

/// Writes a checkpoint under `dir/<step>`; an existing one of that step is replaced.
///
/// # Errors
/// When it cannot be written; nothing is left under its name then.
pub fn write(
    dir: &Path,
    snapshot: &Snapshot,
    score: Option<f64>,
    data: &BTreeMap<String, String>,
) -> Result<PathBuf, Failure> {
    let step = snapshot.counters.step;
    let (target, partial) = (dir.join(step.to_string()), dir.join(format!(".partial-{step}")));
    let failed = |error: std::io::Error| Failure::write(&partial, &error);
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).map_err(failed)?;
    let contents = [
        pack(&snapshot.model),
        pack(&snapshot.copies),
        pack(&snapshot.optimizers),
        snapshot.state.clone(),
    ];
    let mut sha256 = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
        sha256.insert(name.to_owned(), hash(bytes));
        write_synced(&partial.join(name), bytes)
    };
    let written = FILES.iter().zip(&contents).try_for_each(|(name, bytes)| put(name, bytes));
    let index =
        Index { format: FORMAT, counters: snapshot.counters, score, data: data.clone(), sha256 };
    let json = serde_json::to_vec_pretty(&index).expect("an index is JSON");
    let finished = written
        .and_then(|()| write_synced(&partial.join(INDEX), &json))
        .and_then(|()| replace(&partial, &target, &dir.join(format!("{ASIDE}{step}"))))
        .and_then(|()| sync_directory(dir));
    if let Err(error) = finished {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(Failure::write(&target, &error));
    }
    Ok(target)
}

/// Moves a complete folder to its name. An older one of that name is moved aside first and deleted
/// last: at every moment one of the two is there, under a name that [`recover`] knows.
fn replace(new: &Path, target: &Path, aside: &Path) -> std::io::Result<()> {
    if !target.exists() {
        return std::fs::rename(new, target);
    }
    // A leftover, beside a checkpoint that is complete.
    let _ = std::fs::remove_dir_all(aside);
    std::fs::rename(target, aside)?;
    if let Err(error) = std::fs::rename(new, target) {
        std::fs::rename(aside, target)?;
        return Err(error);
    }
    // Deleted at the next start, if not now.
    let _ = std::fs::remove_dir_all(aside);
    Ok(())
}

/// Sets right what a kill while a checkpoint was replaced has left: the old one comes back if the
/// new one is not in its place, else it is deleted.
///
/// # Errors
/// When a checkpoint cannot be moved back.
pub fn recover(dir: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for aside in entries.map(|entry| entry.path()) {
        let name = aside.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(step) = name.strip_prefix(ASIDE) else { continue };
        let target = dir.join(step);
        if target.exists() {
            let _ = std::fs::remove_dir_all(&aside);
        } else {
            std::fs::rename(&aside, &target).map_err(|error| Failure::write(&target, &error))?;
        }
    }
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads and verifies the checkpoint in folder `path`.
///
/// # Errors
/// Says which file is missing or damaged.
pub fn read(path: &Path) -> Result<Checkpoint, Damage> {
    let get = |name: &str| {
        std::fs::read(path.join(name)).map_err(|error| format!("{name} cannot be read: {error}"))
    };
    let index: Index = serde_json::from_slice(&get(INDEX)?)
        .map_err(|error| format!("{INDEX} is damaged: {error}"))?;
    if index.format != FORMAT {
        let reader = match index.format {
            1 => "gfn 0.1",
            2 => "gfn 0.2 before networks were lists of layers",
            _ => "another version",
        };
        return Err(format!(
            "it has format {}, which {reader} reads; this is gfn {}, which reads format {FORMAT}",
            index.format,
            env!("CARGO_PKG_VERSION")
        ));
    }
    let mut contents = Vec::new();
    for name in FILES {
        let bytes = get(name)?;
        if index.sha256.get(name) != Some(&hash(&bytes)) {
            return Err(format!("{name} is damaged: its SHA-256 is not the recorded one"));
        }
        contents.push(bytes);
    }
    let snapshot = Snapshot {
        counters: index.counters,
        model: unpack(&contents[0])?,
        copies: unpack(&contents[1])?,
        optimizers: unpack(&contents[2])?,
        state: contents.swap_remove(3),
    };
    Ok(Checkpoint { snapshot, index })
}

/// Reads only `checkpoint.json`.
pub fn read_index(path: &Path) -> Option<Index> {
    serde_json::from_slice(&std::fs::read(path.join(INDEX)).ok()?).ok()
}

/// The iterations for which `dir` has a checkpoint, ascending.
pub fn list(dir: &Path) -> Vec<u64> {
    let mut steps: Vec<u64> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    steps.sort_unstable();
    steps
}

/// The iteration with the lowest score.
pub fn best(dir: &Path) -> Option<u64> {
    let scored = list(dir)
        .into_iter()
        .filter_map(|step| Some((read_index(&dir.join(step.to_string()))?.score?, step)));
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step)
}

/// Deletes all but the last `keep` checkpoints and the best.
pub fn prune(dir: &Path, keep: usize) {
    let (steps, best) = (list(dir), best(dir));
    for &step in &steps[..steps.len().saturating_sub(keep)] {
        if Some(step) != best {
            // A leftover costs space, nothing else.
            let _ = std::fs::remove_dir_all(dir.join(step.to_string()));
        }
    }
}

/// Arrays as safetensors: sorted by name, so equal states give equal bytes.
///
/// # Panics
/// Never: names are unique and shapes match.
fn pack(tensors: &[NamedTensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        (tensor.name.as_str(), view.expect("shapes match"))
    });
    safetensors::serialize(views, None).expect("names are unique")
}

fn unpack(bytes: &[u8]) -> Result<Vec<NamedTensor>, Damage> {
    let tensors = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|error| format!("an array file is damaged: {error}"))?;
    let mut out: Vec<NamedTensor> = tensors
        .iter()
        .map(|(name, view)| NamedTensor {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            values: view
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
                .collect(),
        })
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let tensor = |name: &str, values: &[f32]| NamedTensor {
            name: name.to_owned(),
            shape: vec![1, values.len()],
            values: values.to_vec(),
        };
        Snapshot {
            counters: Counters { step: 7, ..Counters::default() },
            model: vec![tensor("a", &[1.0, -0.5]), tensor("b", &[f32::MIN_POSITIVE])],
            copies: vec![],
            optimizers: vec![tensor("network/a.m", &[3.0, 4.0])],
            state: vec![1, 2, 3],
        }
    }

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), &snapshot(), Some(0.25), &BTreeMap::new()).unwrap();
        let checkpoint = read(&path).unwrap();
        assert_eq!(checkpoint.snapshot, snapshot());
        assert_eq!(best(dir.path()), Some(7));

        let model = path.join("model.safetensors");
        let mut bytes = std::fs::read(&model).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&model, &bytes).unwrap();
        assert!(read(&path).err().unwrap().contains("model.safetensors is damaged"));
        std::fs::remove_file(&model).unwrap();
        assert!(read(&path).err().unwrap().contains("cannot be read"));
    }

    /// Wherever a kill stops the replacement of a checkpoint, one of the two is there afterwards.
    #[test]
    fn replacing_never_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let put = |score| write(dir.path(), &snapshot(), Some(score), &BTreeMap::new()).unwrap();
        let score = || {
            recover(dir.path()).unwrap();
            assert_eq!(list(dir.path()), [7]);
            let names = std::fs::read_dir(dir.path()).unwrap().count();
            read(&dir.path().join("7"))
                .unwrap_or_else(|_| panic!("intact"))
                .index
                .score
                .map(|s| (s, names))
        };
        put(0.5);
        assert_eq!(score(), Some((0.5, 1)));
        put(0.25);
        assert_eq!(score(), Some((0.25, 1)));
        // Killed between the two renames.
        let aside = dir.path().join(format!("{ASIDE}7"));
        std::fs::rename(dir.path().join("7"), &aside).unwrap();
        assert_eq!(score(), Some((0.25, 1)));
        // Killed before the old one was deleted.
        std::fs::rename(dir.path().join("7"), &aside).unwrap();
        put(0.125);
        assert!(aside.exists());
        assert_eq!(score(), Some((0.125, 1)));
        // A second kill there does not bring the oldest back.
        std::fs::create_dir(&aside).unwrap();
        put(1.0);
        assert_eq!(score(), Some((1.0, 1)));
    }

    /// The new folder cannot be moved in: the old checkpoint stays.
    #[test]
    fn a_failed_replacement_keeps_the_old_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), &snapshot(), Some(0.5), &BTreeMap::new()).unwrap();
        let aside = dir.path().join(format!("{ASIDE}7"));
        assert!(replace(&dir.path().join("no such folder"), &path, &aside).is_err());
        assert_eq!(list(dir.path()), [7]);
        assert!(read(&path).is_ok());
    }

    #[test]
    fn pruning_keeps_the_last_and_the_best() {
        let dir = tempfile::tempdir().unwrap();
        for (step, score) in [(1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3)] {
            let mut snapshot = snapshot();
            snapshot.counters.step = step;
            write(dir.path(), &snapshot, Some(score), &BTreeMap::new()).unwrap();
        }
        prune(dir.path(), 1);
        assert_eq!(list(dir.path()), [2, 4]);
    }
}
