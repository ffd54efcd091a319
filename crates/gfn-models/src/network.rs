//! What networks are built for, and their parameters: one flat list of named, grouped matrices, whose
//! values live in an engine. Optimisers, copies and checkpoints handle that list and know nothing
//! about architectures.

use std::ops::Range;

use gfn_core::learn::head::{Head, HeadSize};
use gfn_core::registry::Axis;
use gfn_core::{KeyError, NO_TOKEN, Space};

use crate::layers::LayerList;

/// What a network is built for: an environment, and the heads that some loss reads.
#[derive(Clone, Debug)]
pub struct NetworkContext {
    /// What observations and actions consist of.
    pub space: Space,
    /// The heads that the network has, in the order of its outputs.
    pub heads: Vec<Head>,
}

impl NetworkContext {
    /// For all of these heads that are not parameters of their own.
    pub fn new(space: &Space, heads: &[Head]) -> Self {
        let heads = heads.iter().copied().filter(|head| !head.is_parameter()).collect();
        Self { space: space.clone(), heads }
    }

    /// Numbers that a head gives for each state.
    pub fn size(&self, head: Head) -> usize {
        match head.size {
            HeadSize::Actions(direction) => self.space.n_actions_in(direction),
            HeadSize::Scalar => 1,
            HeadSize::Parameter => 0,
        }
    }

    /// Numbers that all heads give for each state.
    pub fn width(&self) -> usize {
        self.heads.iter().map(|&head| self.size(head)).sum()
    }

    /// Where a head stands among the outputs of a state.
    ///
    /// # Panics
    /// When the network has no such head.
    pub fn columns(&self, head: Head) -> Range<usize> {
        let position = self.heads.iter().position(|&other| other == head);
        let before = &self.heads[..position.expect("the network has what losses read")];
        let start = before.iter().map(|&head| self.size(head)).sum();
        start..start + self.size(head)
    }

    /// Tokens of a state: the first one, and one for each slot.
    pub fn n_positions(&self) -> usize {
        self.space.slots + 1
    }

    /// Values of all features of a slot.
    fn per_slot(&self) -> usize {
        self.space.features.iter().sum()
    }

    /// Rows of embeddings for features of slots; two more stand for slots without any, and for the
    /// first token.
    pub fn n_embeddings(&self) -> usize {
        self.per_slot() * if self.space.named { self.space.slots } else { 1 }
    }

    /// The rows of the embedding of a slot among observed `ids`, which number the values of all cells:
    /// one for each feature that it has.
    pub fn embeddings<'a>(&self, ids: &'a [i32], slot: usize) -> impl Iterator<Item = usize> + 'a {
        let features = self.space.features.len();
        let before = if self.space.named { 0 } else { slot * self.per_slot() };
        let of_slot = ids[slot * features..][..features].iter();
        of_slot.filter(|&&id| id >= 0).map(move |&id| id as usize - before)
    }

    /// Whether a slot has no feature.
    pub fn is_empty(&self, ids: &[i32], slot: usize) -> bool {
        self.embeddings(ids, slot).next().is_none()
    }

    /// What a pair of tokens can be to each other: 0 if slots are not related.
    pub fn n_relations(&self) -> usize {
        match self.space.relation {
            None => 0,
            // That of i to j, if any, with that of j to i; itself; a pair with the first token.
            Some(relation) if relation.ordered => (relation.values + 1).pow(2) + 2,
            Some(relation) => relation.values + 1 + 2,
        }
    }

    /// Whether a slot is there: see [`Space::growing`].
    pub fn is_there(&self, ids: &[i32], slot: usize) -> bool {
        !(self.space.growing && self.is_empty(ids, slot))
    }

    /// Kinds of edges between tokens, where slots are related: one for each thing that two slots can be to
    /// each other, and that of the first token to slots.
    pub fn n_edges(&self) -> usize {
        match self.space.relation {
            Some(relation) if relation.ordered => self.n_relations() - 2,
            relation => relation.map_or(0, |relation| relation.edges) + 1,
        }
    }

    /// What a pair of slots can be to each other: nothing, or that of i to j with that of j to i if these
    /// are told apart, or one thing.
    pub fn n_pair_relations(&self) -> usize {
        self.n_relations().saturating_sub(2)
    }

    /// What slot i is to slot j.
    pub fn pair_relation(&self, ids: &[i32], i: usize, j: usize) -> usize {
        let value = |i: usize, j: usize| {
            let cell = self.space.pair_cell(i, j).expect("two related slots");
            match ids[cell] {
                NO_TOKEN => 0,
                id => (id - self.space.first_tokens()[cell]) as usize + 1,
            }
        };
        match self.space.relation {
            Some(relation) if relation.ordered => value(i, j) * (relation.values + 1) + value(j, i),
            _ => value(i, j),
        }
    }

    /// The kind of the edge between two different tokens that are to each other what
    /// [`write_relations`](Self::write_relations) says, if they are joined.
    pub fn edge(&self, relation: i32) -> Option<usize> {
        edge(relation, self.n_edges())
    }

    /// Writes what each of some tokens (row) is to each other one: the square of their number. They are
    /// given by their positions; the first one is the first token.
    pub fn write_relations(
        &self,
        ids: &[i32],
        positions: impl ExactSizeIterator<Item = usize> + Clone,
        out: &mut [i32],
    ) {
        let (t, kinds) = (positions.len(), self.n_edges());
        out.fill(kinds as i32 + 1);
        let slots = positions.map(|position| position.wrapping_sub(1)).enumerate().skip(1);
        for (row, i) in slots.clone() {
            for (column, j) in slots.clone() {
                let relation = match i == j {
                    true => kinds,
                    false => match self.pair_relation(ids, i, j) {
                        relation if relation < kinds => relation,
                        distance => distance + 2,
                    },
                };
                out[row * t + column] = relation as i32;
            }
        }
    }
}

/// See [`NetworkContext::edge`], with the number of kinds.
#[inline(always)]
pub(crate) fn edge(relation: i32, kinds: usize) -> Option<usize> {
    // The relations: none, edges of two slots, that of a slot to itself, that of the first token,
    // distances of two slots.
    match relation as usize {
        0 => None,
        relation if relation < kinds => Some(relation - 1),
        relation => (relation == kinds + 1).then(|| kinds - 1),
    }
}

/// A parameter as a network declares it. Vectors are rows: shape `[1, n]`.
#[derive(Clone, Debug)]
pub struct ParamInit {
    /// Unique name, also in checkpoints.
    pub name: String,
    /// The head that it belongs to, or the trunk that heads share.
    pub group: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Initial values, row-major.
    pub values: Vec<f32>,
}

/// The `model` axis.
pub struct ModelAxis;
impl Axis for ModelAxis {
    const NAME: &'static str = "model";
    type Product = LayerList;
    type Context<'a> = NetworkContext;
}

/// Checks that a network can be built for a space at all.
///
/// # Errors
/// When an environment offers nothing to observe.
pub fn check_space(space: &Space) -> Result<(), KeyError> {
    if space.n_tokens() == 0 {
        return Err(KeyError::part("this network needs an environment that observes tokens"));
    }
    Ok(())
}
