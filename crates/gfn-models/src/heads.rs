//! Heads: how the numbers of a head follow from the features of a state, or of its tokens, block by
//! block of the space.

use std::ops::Range;

use gfn_core::Block;
use gfn_core::learn::head::{Head, HeadSize};
use gfn_core::space::{At, Relation, Scope};

use crate::network::NetworkContext;

/// Features in which the two slots of a pair meet.
pub const PAIR_RANK: usize = 16;

/// How numbers of a pair follow from the rows of its two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meet {
    /// The product a(i) · b(j) / √[`PAIR_RANK`] of two linear maps of the rows, or the sum
    /// a(i) · b(j) + a(j) · b(i) where pairs are not ordered. Where slots are not told apart by their
    /// number but are related, a number is added for what the two are to each other: rows of slots alone
    /// cannot tell which atoms of a ring lie opposite.
    Product,
    /// A linear map of LeakyReLU(x_i + x_j), with x the rows: the second layer of a perceptron on the sum
    /// of what x is a linear map of. Of ordered pairs, the first half of x_i and the second one of x_j.
    Sum,
}

/// For a block of slots or pairs, the value that it is read off, and how pairs meet.
pub(crate) type ByBlock<'a> = &'a dyn Fn(&Block) -> (usize, Meet);

/// A linear map of the first token (or of the state), `n_first` columns wide, and what slots and
/// pairs add to it.
#[derive(Clone, Debug)]
pub struct HeadPlan {
    /// Which head.
    pub head: Head,
    /// The value that the first token's map is read off.
    pub value: usize,
    /// The number of its first parameter: weight and bias of the first token's map; those of the other
    /// parts follow in order.
    pub param: usize,
    /// Columns of the first token's map.
    pub n_first: usize,
    /// Whether all outputs start at 0.
    pub zero: bool,
    /// Its blocks.
    pub parts: Vec<Part>,
}

/// Some outputs of a head. `output` says where they start among the outputs of all heads, `first` in
/// which columns of the first token's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Columns of the first token's map, as they are.
    First {
        /// Where the outputs start.
        output: usize,
        /// Where the columns start.
        first: usize,
        /// How many there are.
        n: usize,
    },
    /// For each slot, a linear map of its token that all slots share; where slots are told apart by
    /// their number, a column of the first token's map for each slot is added to all of its numbers.
    Slots {
        /// The block.
        name: &'static str,
        /// The value that it is read off.
        value: usize,
        /// Where the outputs start.
        output: usize,
        /// Where the columns start, if slots are told apart.
        first: Option<usize>,
        /// Numbers per slot.
        size: usize,
        /// The slots that have legal actions; the outputs of others are 0.
        at: At,
        /// Weight; the bias follows.
        param: usize,
    },
    /// For each pair of slots, what their tokens give where they [meet](Meet); with a column of the first
    /// token's map for each pair where slots are told apart. The outputs of pairs with slots that are not
    /// there are 0.
    Pairs {
        /// The block.
        name: &'static str,
        /// The value that it is read off.
        value: usize,
        /// Where the outputs start.
        output: usize,
        /// Where the columns start, if slots are told apart.
        first: Option<usize>,
        /// Numbers per pair.
        size: usize,
        /// Whether pairs are ordered.
        ordered: bool,
        /// How its numbers follow from two rows.
        meet: Meet,
        /// The number of the table with a row for each relation of two slots, if they read it.
        relations: Option<usize>,
        /// Weight of a; its bias, the weight of b and its bias follow. Of a sum, weight and bias.
        param: usize,
    },
}

impl Part {
    /// Columns of the maps that it adds to the first token's.
    pub(crate) fn columns(&self) -> f64 {
        match *self {
            Self::First { .. } => 0.0,
            Self::Slots { size, .. } | Self::Pairs { size, meet: Meet::Sum, .. } => size as f64,
            Self::Pairs { size, .. } => 2.0 * (size * PAIR_RANK) as f64,
        }
    }

    fn n_params(&self) -> usize {
        match self {
            Self::First { .. } => 0,
            Self::Slots { .. } | Self::Pairs { meet: Meet::Sum, .. } => 2,
            Self::Pairs { relations, .. } => 4 + usize::from(relations.is_some()),
        }
    }

    /// The value that it is read off, if that is not the first token's.
    pub(crate) fn value(&self) -> Option<usize> {
        match *self {
            Self::First { .. } => None,
            Self::Slots { value, .. } | Self::Pairs { value, .. } => Some(value),
        }
    }

    /// Whether it reads slots that are empty, and those that are not.
    pub fn reads(&self) -> SlotsRead {
        match self {
            Self::First { .. } => SlotsRead::default(),
            Self::Slots { at, .. } => {
                SlotsRead { empty: *at != At::Filled, filled: *at != At::Empty }
            }
            Self::Pairs { .. } => SlotsRead { empty: true, filled: true },
        }
    }
}

/// Which slots are read of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotsRead {
    /// Those that have no feature.
    pub empty: bool,
    /// Those that have some.
    pub filled: bool,
}

impl SlotsRead {
    /// What either reads.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { empty: self.empty || other.empty, filled: self.filled || other.filled }
    }

    /// Whether a slot is read.
    pub fn has(self, is_empty: bool) -> bool {
        if is_empty { self.empty } else { self.filled }
    }
}

impl HeadPlan {
    /// A head read off a value with a row per state, or per token: block by block, if it says off which
    /// values those of slots and pairs are read.
    pub(crate) fn new(
        context: &NetworkContext,
        head: Head,
        value: usize,
        by_block: Option<ByBlock<'_>>,
        zero: bool,
        param: usize,
    ) -> Self {
        let start = context.columns(head).start;
        let mut plan = Self { head, value, param, n_first: 0, zero, parts: Vec::new() };
        let (space, size) = (&context.space, context.size(head));
        let (blocks, by_block) = match (head.size, by_block) {
            (HeadSize::Actions(direction), Some(by_block)) => (space.blocks(direction), by_block),
            _ => {
                plan.parts.push(Part::First { output: start, first: 0, n: size });
                plan.n_first = size;
                return plan;
            }
        };
        let (mut output, mut param) = (start, param + 2);
        for block in blocks {
            let places = space.places(block.scope);
            let (name, size, n) = (block.name, block.size, places * block.size);
            let first = space.named.then_some(plan.n_first);
            let part = match block.scope {
                Scope::Whole => Part::First { output, first: plan.n_first, n },
                // One number for each slot: the first token has a column for it already.
                Scope::Slot(_) if space.named && !space.growing && size == 1 => {
                    Part::First { output, first: plan.n_first, n }
                }
                Scope::Slot(at) => {
                    let (value, _) = by_block(block);
                    Part::Slots { name, value, output, first, size, at, param }
                }
                Scope::Ordered | Scope::Unordered => {
                    let ((value, meet), ordered) = (by_block(block), block.scope == Scope::Ordered);
                    // What i is to j is something else than what j is to i where these are told apart.
                    let reads = |relation: Relation| ordered || !relation.ordered;
                    let reads = meet == Meet::Product && space.relation.is_some_and(reads);
                    let relations = (reads && !space.named).then_some(param + 4);
                    Part::Pairs {
                        name,
                        value,
                        output,
                        first,
                        size,
                        ordered,
                        meet,
                        relations,
                        param,
                    }
                }
            };
            plan.n_first += match part {
                Part::First { n, .. } => n,
                Part::Slots { first: Some(_), .. } | Part::Pairs { first: Some(_), .. } => places,
                _ => 0,
            };
            param += part.n_params();
            output += n;
            // Blocks next to each other that are read alike are one.
            match (plan.parts.last_mut(), part) {
                (Some(Part::First { n: before, .. }), Part::First { n, .. }) => *before += n,
                _ => plan.parts.push(part),
            }
        }
        // A map without columns would be no matrix.
        plan.n_first = plan.n_first.max(1);
        plan
    }

    /// The values that it is read off, some of them several times if they are several.
    pub fn values(&self) -> impl Iterator<Item = usize> + '_ {
        let of_parts = self.parts.iter().filter_map(Part::value);
        std::iter::once(self.value).chain(of_parts.filter(|&value| value != self.value))
    }

    /// Number of its parameters.
    pub(crate) fn n_params(&self) -> usize {
        2 + self.parts.iter().map(Part::n_params).sum::<usize>()
    }

    /// The outputs of the head among those of all heads.
    pub fn columns(&self, context: &NetworkContext) -> Range<usize> {
        context.columns(self.head)
    }
}

/// The place of a pair of different slots in its scope, of any pair where pairs are ordered.
pub(crate) fn pair_place(slots: usize, ordered: bool, i: usize, j: usize) -> usize {
    if ordered { i * slots + j } else { i * (2 * slots - i - 1) / 2 + j - i - 1 }
}

/// The pairs of slots of a scope in the order of their places.
pub(crate) fn pairs(slots: usize, ordered: bool) -> impl Iterator<Item = (usize, usize)> {
    (0..slots).flat_map(move |i| {
        let from = if ordered { 0 } else { i + 1 };
        (from..slots).map(move |j| (i, j))
    })
}
