//! What the actions and observations of an environment belong to: the whole object, one of its slots
//! (dimensions, positions, nodes, atoms), or a pair of slots. Networks lay out their inputs and heads
//! by it, and need to know nothing else of an environment.

/// Which way along the edges of the state graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From s0 towards objects: P_F.
    Forward,
    /// From objects back to s0: P_B.
    Backward,
}

/// An observed cell that holds no value.
pub const NO_TOKEN: i32 = -1;

/// Which slots may have legal actions of a block, so that a network need not look at the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Any slot.
    Any,
    /// Only slots all of whose features are empty.
    Empty,
    /// Only slots with some feature that is not empty.
    Filled,
}

/// What each action of a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole object: one place.
    Whole,
    /// A slot: place `i` is slot i.
    Slot(At),
    /// An ordered pair of slots: place `i slots + j` is the pair (i, j); that of a slot with itself
    /// has no legal action.
    Ordered,
    /// A pair of different slots, whichever comes first: places are (0, 1), (0, 2), …, (1, 2), ….
    Unordered,
}

/// Actions of one kind: `size` of them at every place of their scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// What the actions do, in a word.
    pub name: &'static str,
    /// What they belong to.
    pub scope: Scope,
    /// Actions per place.
    pub size: usize,
}

/// The name of the block whose only action turns an object into a finished one.
const STOP: &str = "stop";

impl Block {
    /// `size` actions on the whole object.
    pub const fn whole(name: &'static str, size: usize) -> Self {
        Self { name, scope: Scope::Whole, size }
    }

    /// `size` actions on every slot.
    pub const fn slot(name: &'static str, at: At, size: usize) -> Self {
        Self { name, scope: Scope::Slot(at), size }
    }

    /// `size` actions on every ordered pair of slots.
    pub const fn ordered(name: &'static str, size: usize) -> Self {
        Self { name, scope: Scope::Ordered, size }
    }

    /// `size` actions on every unordered pair of slots.
    pub const fn unordered(name: &'static str, size: usize) -> Self {
        Self { name, scope: Scope::Unordered, size }
    }

    /// The action that finishes an object: see [`Space::stop`].
    pub const fn stop() -> Self {
        Self::whole(STOP, 1)
    }
}

/// What is known of pairs of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Number of values.
    pub values: usize,
    /// How many of them, the first ones, are kinds of edges; the others say how pairs without an edge lie
    /// to each other.
    pub edges: usize,
    /// Whether (i, j) and (j, i) are told apart.
    pub ordered: bool,
}

/// The sizes and the structure of an environment.
///
/// * A *state* is a row of `width` integers, which the environment alone understands.
/// * An *observation* is `slots` times as many cells as a slot has `features`, slot by slot, then one
///   cell per pair if there is a `relation`: `slots` times `slots` of them if it is ordered, else the
///   pairs i < j in their order. A cell holds a value from 0 on, or [`NO_TOKEN`].
/// * *Actions* are numbered block by block, place by place; all blocks of a direction share one
///   softmax over the legal ones, unless a model decides on stopping first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Cells per state row.
    pub width: usize,
    /// The most actions that a trajectory can have.
    pub max_len: usize,
    /// Number of slots.
    pub slots: usize,
    /// Whether slots are told apart by their number: positions and named nodes are, atoms are not.
    pub named: bool,
    /// Number of values of each feature of a slot.
    pub features: Vec<usize>,
    /// What is known of pairs of slots, if anything.
    pub relation: Option<Relation>,
    /// Whether slots without features are not there: see [`growing`](Self::growing).
    pub growing: bool,
    /// Forward actions.
    pub forward: Vec<Block>,
    /// Backward actions.
    pub backward: Vec<Block>,
    /// Forward actions, legal or not.
    pub n_actions: usize,
    /// Backward actions, legal or not.
    pub n_back_actions: usize,
    /// Where the values of each observed cell start among all values of all cells, and their number.
    first_tokens: Vec<i32>,
}

impl Space {
    /// Rows of `width` cells and trajectories of up to `max_len` actions; no slots and no actions yet.
    pub fn new(width: usize, max_len: usize) -> Self {
        Self {
            width,
            max_len,
            slots: 0,
            named: true,
            features: Vec::new(),
            relation: None,
            growing: false,
            forward: Vec::new(),
            backward: Vec::new(),
            n_actions: 0,
            n_back_actions: 0,
            first_tokens: vec![0],
        }
    }

    /// With slots that are told apart by their number, and have these features.
    #[must_use]
    pub fn named_slots(self, slots: usize, features: &[usize]) -> Self {
        Self { slots, named: true, features: features.to_vec(), ..self }.numbered()
    }

    /// With slots of which only the features count.
    #[must_use]
    pub fn alike_slots(self, slots: usize, features: &[usize]) -> Self {
        Self { slots, named: false, features: features.to_vec(), ..self }.numbered()
    }

    /// With edges of some kinds between slots.
    #[must_use]
    pub fn related(self, edges: usize, ordered: bool) -> Self {
        Self { relation: Some(Relation { values: edges, edges, ordered }), ..self }.numbered()
    }

    /// With so many values for how two slots without an edge lie to each other, such as their distance
    /// along edges.
    ///
    /// # Panics
    /// Unless slots have a relation, of pairs that are not ordered.
    #[must_use]
    pub fn with_distances(self, n: usize) -> Self {
        let relation = self.relation.filter(|relation| !relation.ordered);
        let relation = relation.expect("unordered edges come first");
        let relation = Relation { values: relation.edges + n, ..relation };
        Self { relation: Some(relation), ..self }.numbered()
    }

    /// With slots that are there only once they have features, as the atoms of a molecule are, so they must
    /// be able to have some: networks neither see nor read the others. Pairs with a slot that is not there have no relation, and neither
    /// they nor such slots have legal actions. What is there need not come first.
    #[must_use]
    pub fn growing(self) -> Self {
        Self { growing: true, ..self }
    }

    /// With these forward actions.
    #[must_use]
    pub fn forward(self, blocks: &[Block]) -> Self {
        Self { forward: blocks.to_vec(), ..self }.numbered()
    }

    /// With these backward actions.
    #[must_use]
    pub fn backward(self, blocks: &[Block]) -> Self {
        Self { backward: blocks.to_vec(), ..self }.numbered()
    }

    fn numbered(mut self) -> Self {
        let count = |blocks: &[Block]| -> usize {
            blocks.iter().map(|block| self.places(block.scope) * block.size).sum()
        };
        (self.n_actions, self.n_back_actions) = (count(&self.forward), count(&self.backward));
        let of_slots = (0..self.slots).flat_map(|_| self.features.iter().copied());
        let of_pairs = self.relation.map_or(0, |relation| relation.values);
        let sizes = of_slots.chain(std::iter::repeat_n(of_pairs, self.n_pairs()));
        let mut next = 0;
        self.first_tokens = vec![0];
        for size in sizes {
            next += size as i32;
            self.first_tokens.push(next);
        }
        self
    }

    /// Places of a scope.
    pub fn places(&self, scope: Scope) -> usize {
        match scope {
            Scope::Whole => 1,
            Scope::Slot(_) => self.slots,
            Scope::Ordered => self.slots * self.slots,
            Scope::Unordered => self.slots * self.slots.saturating_sub(1) / 2,
        }
    }

    /// Blocks of a direction.
    pub fn blocks(&self, direction: Direction) -> &[Block] {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    /// Actions of a direction, legal or not.
    pub fn n_actions_in(&self, direction: Direction) -> usize {
        match direction {
            Direction::Forward => self.n_actions,
            Direction::Backward => self.n_back_actions,
        }
    }

    /// The number of the first action of the block of that name.
    pub fn first_action(&self, direction: Direction, name: &str) -> Option<usize> {
        let blocks = self.blocks(direction);
        let position = blocks.iter().position(|block| block.name == name)?;
        let before = &blocks[..position];
        Some(before.iter().map(|block| self.places(block.scope) * block.size).sum())
    }

    /// The forward action that finishes an object, if objects are finished by an action of its own.
    pub fn stop(&self) -> Option<usize> {
        self.first_action(Direction::Forward, STOP)
    }

    /// Observed cells that belong to pairs.
    pub fn n_pairs(&self) -> usize {
        match self.relation {
            None => 0,
            Some(Relation { ordered: true, .. }) => self.places(Scope::Ordered),
            Some(Relation { ordered: false, .. }) => self.places(Scope::Unordered),
        }
    }

    /// Observed cells that belong to slots.
    pub fn n_slot_cells(&self) -> usize {
        self.slots * self.features.len()
    }

    /// Cells of an observation.
    pub fn n_cells(&self) -> usize {
        self.first_tokens.len() - 1
    }

    /// Values of all cells together: the size of a sparse one-hot code.
    pub fn n_tokens(&self) -> usize {
        self.first_tokens[self.n_cells()] as usize
    }

    /// For each observed cell, the number of its value 0 among all values of all cells.
    pub fn first_tokens(&self) -> &[i32] {
        &self.first_tokens[..self.n_cells()]
    }

    /// The values that an observed cell may have.
    pub fn values_of(&self, cell: usize) -> usize {
        (self.first_tokens[cell + 1] - self.first_tokens[cell]) as usize
    }

    /// The observed cell of a pair of slots, if there is one.
    pub fn pair_cell(&self, i: usize, j: usize) -> Option<usize> {
        let first = self.n_slot_cells();
        match self.relation? {
            Relation { ordered: true, .. } => Some(first + i * self.slots + j),
            Relation { ordered: false, .. } if i == j => None,
            Relation { ordered: false, .. } => Some(first + self.unordered_place(i, j)),
        }
    }

    /// The place of a pair of different slots, whichever comes first, among those of
    /// [`Scope::Unordered`].
    pub fn unordered_place(&self, i: usize, j: usize) -> usize {
        let (i, j) = (i.min(j), i.max(j));
        i * (2 * self.slots - i - 1) / 2 + j - i - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_and_cells_are_numbered_in_order() {
        let space = Space::new(9, 5)
            .alike_slots(3, &[4, 2])
            .related(2, false)
            .forward(&[
                Block::whole("add", 4),
                Block::slot("charge", At::Filled, 2),
                Block::unordered("bond", 3),
                Block::stop(),
            ])
            .backward(&[Block::ordered("cut", 1)]);
        assert_eq!((space.n_actions, space.n_back_actions), (4 + 6 + 9 + 1, 9));
        assert_eq!(space.first_action(Direction::Forward, "bond"), Some(10));
        assert_eq!(space.stop(), Some(19));
        assert_eq!((space.n_cells(), space.n_tokens()), (3 * 2 + 3, 3 * 6 + 3 * 2));
        assert_eq!(space.first_tokens(), [0, 4, 6, 10, 12, 16, 18, 20, 22]);
        let pairs = [(0, 1), (0, 2), (1, 2)];
        for (k, (i, j)) in pairs.into_iter().enumerate() {
            assert_eq!(space.pair_cell(i, j), Some(6 + k));
            assert_eq!(space.pair_cell(j, i), Some(6 + k));
        }
        assert_eq!(space.pair_cell(1, 1), None);
        let ordered = Space::new(1, 1).named_slots(3, &[]).related(1, true);
        assert_eq!(ordered.pair_cell(2, 1), Some(7));
        assert_eq!((ordered.n_cells(), ordered.stop()), (9, None));
    }
}
