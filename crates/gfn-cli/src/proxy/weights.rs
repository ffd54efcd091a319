//! The file of a surrogate reward: weights and all that is needed to use them, in safetensors.

use std::collections::HashMap;
use std::path::PathBuf;

use gfn_core::learn::engine::NamedTensor;
use gfn_core::{Environment, Space};
use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::known::Known;
use super::scores::Scores;
use super::settings::{Precision, ProxySettings};
use crate::data;

/// Why a file cannot be used, as a fragment that follows its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It is something else, or for another environment.
    #[error("{0}")]
    Foreign(String),
}

/// The key of the metadata, whose value is [`About`] as JSON.
const KEY: &str = "gfn_proxy";
/// Raised when older files can no longer be read.
const FORMAT: u32 = 1;
/// Mean and standard deviation of the values that were trained on, in double precision.
const SCALE: &str = "proxy.mean_and_sd";
/// See [`Known`].
const KNOWN: &str = "proxy.known_substructures";

/// What networks see of an environment's objects: files are for environments where it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Number of slots.
    pub slots: usize,
    /// Whether slots are told apart by their number.
    pub named: bool,
    /// Number of values of each feature of a slot.
    pub features: Vec<usize>,
    /// Numbers of kinds of edges and of distances of two slots, and whether the two are ordered.
    pub relation: Option<(usize, usize, bool)>,
}

impl Observation {
    /// That of a space.
    pub fn of(space: &Space) -> Self {
        let relation = space
            .relation
            .map(|relation| (relation.edges, relation.values - relation.edges, relation.ordered));
        let Space { slots, named, features, .. } = space;
        Self { slots: *slots, named: *named, features: features.clone(), relation }
    }

    /// What differs from another one, in words: the other's first.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let relation = |of: &Self| match of.relation {
            None => "no relation of slots".to_owned(),
            Some((edges, distances, ordered)) => {
                let kind = if ordered { "an ordered" } else { "an unordered" };
                format!(
                    "{kind} relation of slots with {edges} kinds of edges and {distances} distances"
                )
            }
        };
        let named = |of: &Self| if of.named { "numbered" } else { "interchangeable" };
        let pairs = [
            (format!("{} slots", other.slots), format!("{}", self.slots)),
            (format!("{} slots", named(other)), named(self).to_owned()),
            (
                format!("features of {:?} values per slot", other.features),
                format!("{:?}", self.features),
            ),
            (relation(other), relation(self)),
        ];
        let same = [
            self.slots == other.slots,
            self.named == other.named,
            self.features == other.features,
            self.relation == other.relation,
        ];
        let first = pairs.into_iter().zip(same).find(|(_, same)| !same);
        first.map(|((theirs, own), _)| format!("{theirs}, not {own}"))
    }
}

/// Where the values came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataNote {
    /// Name of the file.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Header of the values.
    pub value: String,
    /// Rows.
    pub rows: usize,
    /// Distinct objects among them.
    pub objects: usize,
    /// Rows that repeat an object.
    pub repeated: usize,
    /// Rows whose object the environment could not read.
    pub skipped: usize,
}

/// The errors on one set of objects that were not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which objects, in words.
    pub objects: String,
    /// On all of them.
    pub scores: Scores,
    /// By classification and class.
    pub classes: Vec<(String, Vec<(String, Scores)>)>,
    /// On those with some substructure that is not known, if there are any.
    pub unlike: Option<Scores>,
    /// On all others, where substructures are known.
    pub like: Option<Scores>,
}

/// All about a surrogate reward but its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub(super) format: u32,
    /// The version of gfn that made it.
    pub gfn: String,
    /// Its name.
    pub name: String,
    /// The seed of the split, of the first weights and of the order of training.
    pub seed: u64,
    /// Its environment, resolved.
    pub env: toml::Table,
    /// Its network, resolved.
    pub model: toml::Table,
    /// How it was trained, resolved; files without their folders.
    pub proxy: toml::Table,
    /// How the weights are written.
    pub precision: Precision,
    /// Unit of the values.
    pub unit: String,
    /// What its network sees.
    pub observation: Observation,
    /// Number of weights.
    pub parameters: usize,
    /// Mean of the values that were trained on.
    pub mean: f64,
    /// Their standard deviation.
    pub sd: f64,
    /// What was trained on and held out.
    pub data: DataNote,
    /// What was measured on besides.
    pub test: Option<DataNote>,
    /// Objects trained on.
    pub trained_on: usize,
    /// Epochs of training in the kept weights.
    pub epoch: usize,
    /// Whether training was interrupted.
    pub interrupted: bool,
    /// Number of substructures that are known.
    pub known: usize,
    /// Errors on objects that were not trained on.
    pub reports: Vec<Report>,
    /// Some objects with their values, by which a network or an environment that is not the one of
    /// training is found out.
    pub probes: Vec<(String, f64)>,
    /// SHA-256 of all arrays.
    pub(super) sha256: String,
}

impl About {
    /// What is known before training; the rest is filled in.
    pub fn new(env: &dyn Environment, settings: &ProxySettings, data: DataNote) -> Self {
        let name_of = |path: &PathBuf| path.file_name().map(PathBuf::from).unwrap_or_default();
        let (table, test_table) = (name_of(&settings.table), name_of(&settings.test_table));
        let proxy = ProxySettings { table, test_table, ..settings.clone() };
        Self {
            format: FORMAT,
            gfn: env!("CARGO_PKG_VERSION").to_owned(),
            name: String::new(),
            seed: 0,
            env: toml::Table::new(),
            model: toml::Table::new(),
            proxy: toml::Table::try_from(proxy).expect("settings are TOML"),
            precision: settings.precision,
            unit: settings.unit.clone(),
            observation: Observation::of(env.space()),
            parameters: 0,
            mean: 0.0,
            sd: 1.0,
            data,
            test: None,
            trained_on: 0,
            epoch: 0,
            interrupted: false,
            known: 0,
            reports: Vec::new(),
            probes: Vec::new(),
            sha256: String::new(),
        }
    }
}

/// A surrogate reward as it lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyFile {
    /// All but its numbers.
    pub about: About,
    /// Mean and standard deviation of the values that were trained on.
    pub scale: (f64, f64),
    /// The weights, in the order of their names.
    pub weights: Vec<NamedTensor>,
    /// The substructures that it was trained on.
    pub known: Known,
}

/// The arrays of a file: name, type, shape and bytes.
type Array = (String, Dtype, Vec<usize>, Vec<u8>);

/// SHA-256 of arrays with their names and shapes, in the order of the names.
fn hash(arrays: &[Array]) -> String {
    let mut sorted: Vec<&Array> = arrays.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = Vec::new();
    for (name, dtype, shape, bytes) in sorted {
        all.extend_from_slice(format!("{name} {dtype:?} {shape:?}\n").as_bytes());
        all.extend_from_slice(bytes);
    }
    data::sha256(&all)
}

/// The numbers of a little-endian array.
fn numbers<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

/// Weights as they are after they have been written and read.
pub fn rounded(weights: &mut [NamedTensor], precision: Precision) -> Result<(), String> {
    if precision == Precision::F32 {
        return Ok(());
    }
    for tensor in weights {
        for value in &mut tensor.values {
            let half = f16::from_f32(*value);
            if !half.is_finite() {
                return Err(format!("{value} in `{}` is too large for f16", tensor.name));
            }
            *value = half.to_f32();
        }
    }
    Ok(())
}

impl ProxyFile {
    /// The file's content. Weights must have been rounded to the precision that they are written in.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut arrays: Vec<Array> = Vec::new();
        for NamedTensor { name, shape, values } in &self.weights {
            let (dtype, bytes): (_, Vec<u8>) = match self.about.precision {
                Precision::F32 => {
                    (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
                }
                Precision::F16 => {
                    let halves = values.iter().map(|&value| f16::from_f32(value));
                    (Dtype::F16, halves.flat_map(f16::to_le_bytes).collect())
                }
            };
            arrays.push((name.clone(), dtype, shape.clone(), bytes));
        }
        let scale = [self.scale.0, self.scale.1];
        let bytes = scale.into_iter().flat_map(f64::to_le_bytes).collect();
        arrays.push((SCALE.to_owned(), Dtype::F64, vec![2], bytes));
        let known = self.known.numbers();
        let bytes = known.iter().flat_map(|number| number.to_le_bytes()).collect();
        arrays.push((KNOWN.to_owned(), Dtype::U32, vec![known.len()], bytes));

        let about = About { sha256: hash(&arrays), ..self.about.clone() };
        let about = serde_json::to_string(&about).expect("notes are JSON");
        let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("shapes match");
            (name.as_str(), view)
        });
        let metadata = HashMap::from([(KEY.to_owned(), about)]);
        safetensors::serialize(views, Some(metadata)).expect("names are unique")
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// When it is damaged, or something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unusable> {
        let damaged = |what: String| Unusable::Damaged(what);
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| damaged(format!("is no intact safetensors file: {error}")))?;
        let (_, metadata) = SafeTensors::read_metadata(bytes)
            .map_err(|error| damaged(format!("is no intact safetensors file: {error}")))?;
        let about = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let about = about.ok_or_else(|| {
            Unusable::Foreign("holds no surrogate reward: `gfn proxy train` did not make it".into())
        })?;
        let json: serde_json::Value = serde_json::from_str(about)
            .map_err(|error| damaged(format!("has damaged metadata: {error}")))?;
        let format = json["format"].as_u64().unwrap_or_default();
        if format != u64::from(FORMAT) {
            let by = json["gfn"].as_str().unwrap_or("another version");
            let message =
                format!("has format {format}, of gfn {by}; this gfn reads format {FORMAT}");
            return Err(Unusable::Foreign(message));
        }
        let about: About = serde_json::from_value(json)
            .map_err(|error| damaged(format!("has damaged metadata: {error}")))?;
        let mut arrays: Vec<Array> = Vec::new();
        for (name, view) in tensors.iter() {
            arrays.push((
                name.to_owned(),
                view.dtype(),
                view.shape().to_vec(),
                view.data().to_vec(),
            ));
        }
        if hash(&arrays) != about.sha256 {
            return Err(damaged(
                "is damaged: the SHA-256 of its arrays is not the recorded one".into(),
            ));
        }
        let (mut scale, mut known, mut weights) = (None, None, Vec::new());
        for (name, dtype, shape, bytes) in arrays {
            match (name.as_str(), dtype) {
                (SCALE, Dtype::F64) if shape == [2] => {
                    let scales = numbers(&bytes, f64::from_le_bytes);
                    scale = Some((scales[0], scales[1]));
                }
                (KNOWN, Dtype::U32) => known = Some(numbers(&bytes, u32::from_le_bytes)),
                (_, Dtype::F32) => {
                    let values = numbers(&bytes, f32::from_le_bytes);
                    weights.push(NamedTensor { name, shape, values });
                }
                (_, Dtype::F16) => {
                    let values = numbers(&bytes, |bytes| f16::from_le_bytes(bytes).to_f32());
                    weights.push(NamedTensor { name, shape, values });
                }
                _ => {
                    let message = format!("has an array `{name}` of an unknown kind");
                    return Err(Unusable::Foreign(message));
                }
            }
        }
        weights.sort_by(|a, b| a.name.cmp(&b.name));
        let (Some(scale), Some(known)) = (scale, known) else {
            return Err(damaged(format!("lacks the array `{SCALE}` or `{KNOWN}`")));
        };
        Ok(Self { about, scale, weights, known: Known::from_numbers(known) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observation() -> Observation {
        Observation { slots: 9, named: false, features: vec![4, 3], relation: Some((3, 2, false)) }
    }

    #[test]
    fn differences_of_observations_are_named() {
        let own = observation();
        assert_eq!(own.difference(&own), None);
        for (other, expected) in [
            (Observation { slots: 5, ..observation() }, "5 slots, not 9"),
            (Observation { named: true, ..observation() }, "numbered slots, not interchangeable"),
            (
                Observation { features: vec![4], ..observation() },
                "features of [4] values per slot, not [4, 3]",
            ),
            (
                Observation { relation: None, ..observation() },
                "no relation of slots, not an unordered relation of slots with 3 kinds of edges and 2 distances",
            ),
        ] {
            assert_eq!(own.difference(&other).as_deref(), Some(expected));
        }
    }

    #[test]
    fn weights_that_overflow_are_refused() {
        let tensor =
            |value| NamedTensor { name: "w".into(), shape: vec![1, 1], values: vec![value] };
        let mut weights = [tensor(0.1)];
        rounded(&mut weights, Precision::F16).unwrap();
        // 0.1 in half precision.
        assert_eq!(weights[0].values, [0.099_975_586]);
        assert!(rounded(&mut [tensor(1e6)], Precision::F16).is_err());
        assert!(rounded(&mut [tensor(1e6)], Precision::F32).is_ok());
    }
}
