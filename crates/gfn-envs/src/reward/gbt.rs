//! Rewards by gradient-boosted trees over one-hot symbols: the proxy of the sEH block strings.

use std::path::PathBuf;

use gfn_core::registry::{Kind, RewardAxis, RewardContext};
use gfn_core::{Environment, KeyError, Reward, RewardError, States};
use rayon::prelude::*;
use safetensors::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::modes::{ModeSpec, is_empty};
use super::tensors::{tensor, tensors};
use super::transform::Transform;
use super::value::{ObjectValues, ValueKeys, ValueReward};
use crate::sequence::Sequence;

/// R(x) from the prediction of a sum of regression trees, by [`Transform`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GbtSpec {
    /// A safetensors file with the trees.
    pub path: PathBuf,
    /// From predictions to rewards.
    #[serde(skip_serializing_if = "Transform::is_identity")]
    pub transform: Transform,
    /// Which objects are modes.
    #[serde(skip_serializing_if = "ModeSpec::is_none")]
    pub modes: ModeSpec,
    /// A CSV file with a header whose first column names objects to measure correlations on.
    #[serde(skip_serializing_if = "is_empty")]
    pub test_set: PathBuf,
}

impl Kind<RewardAxis> for GbtSpec {
    const NAME: &'static str = "gbt";
    const SUMMARY: &'static str = "gradient-boosted trees over the symbols of a string";
    const PAPER: Option<&'static str> = Some("arXiv:2305.07170");
    const NEUTRAL_KEYS: &'static [&'static str] = &["path"];

    fn build(&self, context: RewardContext<'_>) -> Result<Box<dyn Reward>, KeyError> {
        let sequence = context
            .env_as::<Sequence>()
            .filter(|sequence| sequence.fixed_length().is_some())
            .ok_or_else(|| {
                KeyError::new("kind", "the reward `gbt` is defined on strings of one length")
                    .help("choose env.kind = \"sequence\" without min_length")
            })?;
        if is_empty(&self.path) {
            return Err(KeyError::data("path", "no trees are given")
                .help("name a safetensors file: -s reward.path=FILE"));
        }
        let bytes = context.files.read_for("path", &self.path)?;
        let k = sequence.symbols().len();
        let trees = Trees::read(&bytes, sequence.space().width, k).map_err(|message| {
            let message = format!("`{}` {message}", self.path.display());
            KeyError::data("path", message).help(
                "expected the tensors baseline, threshold and value (f64), feature, left, right \
                 and tree_offset (i32)",
            )
        })?;
        let keys =
            ValueKeys { transform: &self.transform, modes: &self.modes, test_set: &self.test_set };
        Ok(Box::new(ValueReward::new(context, trees, keys)?))
    }
}

/// A split on whether one symbol stands at one position, or a leaf.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The position; [`LEAF`] for leaves.
    position: u16,
    symbol: u16,
    /// Where to go if the symbol does not and does stand there.
    next: [u32; 2],
    value: f64,
}

const LEAF: u16 = u16::MAX;

/// A sum of regression trees over the one-hot code of a string: feature `position k + symbol`.
#[derive(Clone, Debug)]
pub struct Trees {
    baseline: f64,
    nodes: Vec<Node>,
    roots: Vec<u32>,
}

impl Trees {
    /// Trees from a safetensors file: nodes of all trees one after the other, children counted
    /// within a tree, feature -1 for leaves, left if `x[feature] <= threshold`.
    ///
    /// # Errors
    /// What is wrong with the file, as the end of a sentence.
    pub fn read(bytes: &[u8], length: usize, k: usize) -> Result<Self, String> {
        let file = tensors(bytes)?;
        let floats = |name| tensor(&file, (name, None), Dtype::F64, f64::from_le_bytes);
        let ints = |name| tensor(&file, (name, None), Dtype::I32, i32::from_le_bytes);
        let (baseline, threshold, value) =
            (floats("baseline")?, floats("threshold")?, floats("value")?);
        let (feature, left, right) = (ints("feature")?, ints("left")?, ints("right")?);
        let offsets = ints("tree_offset")?;
        let n = feature.len();
        let sizes = [threshold.len(), value.len(), left.len(), right.len()];
        if sizes != [n; 4] || baseline.len() != 1 {
            return Err("has tensors of different lengths".to_owned());
        }
        let ordered = offsets.windows(2).all(|pair| pair[0] < pair[1]);
        if offsets.first() != Some(&0) || offsets.last() != Some(&(n as i32)) || !ordered {
            return Err("has a tree_offset that does not cut the nodes into trees".to_owned());
        }
        let mut nodes = Vec::with_capacity(n);
        for tree in offsets.windows(2) {
            let (start, end) = (tree[0] as usize, tree[1] as usize);
            for i in start..end {
                let child = |local: i32| {
                    let child = start as i64 + i64::from(local);
                    // Children come after their parent, so walks end.
                    let inside = child > i as i64 && child < end as i64;
                    inside.then_some(child as u32).ok_or(format!("has a bad child at node {i}"))
                };
                nodes.push(if feature[i] < 0 {
                    Node { position: LEAF, symbol: 0, next: [0; 2], value: value[i] }
                } else {
                    let (left, right) = (child(left[i])?, child(right[i])?);
                    let feature = feature[i] as usize;
                    if feature >= length * k {
                        return Err(format!(
                            "splits on feature {feature}, but strings of {length} symbols out of \
                             {k} have {}",
                            length * k
                        ));
                    }
                    let go = |x: f64| if x <= threshold[i] { left } else { right };
                    let (position, symbol) = ((feature / k) as u16, (feature % k) as u16);
                    Node { position, symbol, next: [go(0.0), go(1.0)], value: 0.0 }
                });
            }
        }
        let roots = offsets[..offsets.len() - 1].iter().map(|&offset| offset as u32).collect();
        Ok(Self { baseline: baseline[0], nodes, roots })
    }

    /// The trees that are left for strings which agree with `row` where `fixed`: the same
    /// predictions, to the last bit.
    fn given(&self, row: &[i32], fixed: &[bool]) -> Self {
        let mut left = Self { baseline: self.baseline, nodes: Vec::new(), roots: Vec::new() };
        left.roots =
            self.roots.iter().map(|&root| self.copy(root, row, fixed, &mut left.nodes)).collect();
        left
    }

    /// Copies what is left of the tree under a node; returns where it is.
    fn copy(&self, node: u32, row: &[i32], fixed: &[bool], nodes: &mut Vec<Node>) -> u32 {
        let mut node = self.nodes[node as usize];
        while node.position != LEAF && fixed[node.position as usize] {
            let there = row[node.position as usize] == i32::from(node.symbol);
            node = self.nodes[node.next[usize::from(there)] as usize];
        }
        let place = nodes.len();
        nodes.push(node);
        if node.position != LEAF {
            nodes[place].next = node.next.map(|child| self.copy(child, row, fixed, nodes));
        }
        place as u32
    }

    /// The prediction for a string.
    pub fn predict(&self, row: &[i32]) -> f64 {
        self.roots.iter().fold(self.baseline, |sum, &root| {
            let mut node = &self.nodes[root as usize];
            while node.position != LEAF {
                let there = row[node.position as usize] == i32::from(node.symbol);
                node = &self.nodes[node.next[usize::from(there)] as usize];
            }
            sum + node.value
        })
    }
}

impl ObjectValues for Trees {
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError> {
        const CHUNK: usize = 256;
        let mut values = vec![0.0; xs.len()];
        let predict = |first: usize, out: &mut [f64]| {
            // Objects in order share most of their symbols: the trees are cut back to the others.
            let row = xs.row(first);
            let agree = |cell| (1..out.len()).all(|i| xs.row(first + i)[cell] == row[cell]);
            let fixed: Vec<bool> = (0..row.len()).map(agree).collect();
            let cut =
                (out.len() >= CHUNK / 4 && fixed.contains(&true)).then(|| self.given(row, &fixed));
            let trees = cut.as_ref().unwrap_or(self);
            for (i, out) in out.iter_mut().enumerate() {
                *out = trees.predict(xs.row(first + i));
            }
        };
        match xs.len() {
            0 => {}
            1..=CHUNK => predict(0, &mut values),
            _ => values
                .par_chunks_mut(CHUNK)
                .enumerate()
                .for_each(|(i, out)| predict(i * CHUNK, out)),
        }
        Ok(values)
    }
}
