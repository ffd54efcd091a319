//! The sEH network and its fragments, from the files that Bengio et al. 2021 published.

use std::collections::BTreeMap;
use std::io::Read;

use gfn_envs::reward::seh_proxy::network::TENSORS;
use serde::Deserialize;
use serde_json::Value;

use super::pickle::{self, Array};

/// Where the tensors of a file are in the published list, in the order of [`TENSORS`]. The others are of
/// a head that scores are not read off.
const PLACES: [usize; TENSORS.len()] =
    [3, 2, 5, 4, 7, 6, 11, 10, 9, 8, 1, 0, 21, 20, 19, 18, 17, 16];
/// Arrays of the published list.
const N_ARRAYS: usize = 22;
/// What the file says about itself.
const METADATA: &str = concat!(
    r#"{"dropped":"lin1, lin2 (stem head)","source":"d-tiapkin/gflownet-rl "#,
    r#"mols/data/pretrained_proxy/best_params.pkl.gz == tgritsaev/gflownet-tlm "#,
    r#"mols/models/cache/bengio2021flow_proxy.pkl.gz (MIT)","orientation":"torch nn.Linear (out,in); "#,
    r#"conv.lin.weight verified untransposed against 238 stored scores, max abs err 6.1e-6"}"#
);
/// Fragments, each as often as it has ways to be attached.
const N_BLOCKS: usize = 105;

/// The network as a safetensors file, from a list of arrays, pickled and compressed by gzip.
///
/// # Errors
/// What is wrong with the source, as the end of a sentence.
pub(super) fn network(source: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    // One more than is read of a pickle, so that it is refused there.
    let limit = pickle::LONGEST as u64 + 1;
    flate2::read::MultiGzDecoder::new(source)
        .take(limit)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("cannot be unpacked: {error}"))?;
    let arrays = pickle::arrays(&unpacked)?;
    if arrays.len() != N_ARRAYS {
        return Err(format!("has {} arrays, expected {N_ARRAYS}", arrays.len()));
    }
    let (mut header, mut data) = (format!(r#"{{"__metadata__":{METADATA}"#), Vec::new());
    for ((name, expected), place) in TENSORS.into_iter().zip(PLACES) {
        let Array { shape, numbers } = &arrays[place];
        if shape != expected {
            return Err(format!("has `{name}` of shape {shape:?}, not {expected:?}"));
        }
        let start = data.len();
        numbers.iter().for_each(|number| data.extend(number.to_le_bytes()));
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        header += &format!(
            r#","{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{start},{}]}}"#,
            shape.join(","),
            data.len()
        );
    }
    header.push('}');
    // Tensors begin at a multiple of eight.
    let length = header.len().next_multiple_of(8);
    Ok([&(length as u64).to_le_bytes(), format!("{header:length$}").as_bytes(), &data].concat())
}

/// A fragment with the atoms that others can be attached to, the first by the bond it comes with.
#[derive(Deserialize)]
struct Block {
    smiles: String,
    attach: Vec<usize>,
}

/// The published table, by columns.
#[derive(Deserialize)]
struct Columns {
    block_smi: BTreeMap<usize, String>,
    block_r: BTreeMap<usize, Vec<usize>>,
}

/// The fragments, one on a line.
///
/// # Errors
/// What is wrong with the source, as the end of a sentence.
pub(super) fn blocks(source: &[u8]) -> Result<String, String> {
    let refused = |error| format!("is no table of fragments: {error}");
    let mut source: Value = serde_json::from_slice(source).map_err(refused)?;
    let blocks: Vec<Block> = match source.get_mut("blocks") {
        Some(blocks) => serde_json::from_value(blocks.take()).map_err(refused)?,
        None => {
            let Columns { block_smi, block_r } = serde_json::from_value(source).map_err(refused)?;
            if !block_smi.keys().eq(block_r.keys()) {
                return Err("has columns of different lengths".to_owned());
            }
            let block = |(smiles, attach)| Block { smiles, attach };
            block_smi.into_values().zip(block_r.into_values()).map(block).collect()
        }
    };
    if blocks.len() != N_BLOCKS {
        return Err(format!("has {} fragments, expected {N_BLOCKS}", blocks.len()));
    }
    let line = |Block { smiles, attach }: &Block| {
        let attach: Vec<String> = attach.iter().map(usize::to_string).collect();
        format!(r#"{{"smiles": {}, "attach": [{}]}}"#, Value::from(&**smiles), attach.join(","))
    };
    let lines: Vec<String> = blocks.iter().map(line).collect();
    Ok(format!("{{\"blocks\": [\n{}\n]}}\n", lines.join(",\n")))
}
