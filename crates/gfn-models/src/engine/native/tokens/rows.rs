//! Which rows of a batch have to be computed: what a tape knows of the tokens of its states.
//!
//! Two observations shrink what stands before the first attention and after the last one. Before the
//! first, a token is known by the features and the position of its slot alone, and states of one batch
//! share most of theirs: what is computed of single tokens is computed once for all that are equal.
//! After the last one, heads read the first token and those of some slots: nothing else is computed.

use std::ops::Range;

use crate::heads::SlotsRead;
use crate::network::NetworkContext;

/// Rows of tokens, for all states on a tape: those of a state one after the other, without any for slots
/// that are not there.
pub(super) struct Rows<'a> {
    /// By key: number among the different tokens from 1 on, 0 if there is none.
    seen: &'a mut Vec<i32>,
    /// State and position where each of the different tokens has appeared first, and its key.
    different: &'a mut Vec<i32>,
    /// For every row, the number of its token among the different ones.
    token: &'a mut Vec<i32>,
    /// And its place: the number it would have if all slots were there.
    place: &'a mut Vec<i32>,
    /// How many rows there are before each state, and in all.
    before: &'a mut Vec<i32>,
    /// The rows that heads read: of each state the first one, then those of slots.
    read: &'a mut Vec<i32>,
    /// The number of the token of each of these.
    read_token: &'a mut Vec<i32>,
    /// How many rows are read before each state, and in all.
    read_before: &'a mut Vec<i32>,
    /// What each token of a state is to each other one.
    relations: &'a mut Vec<i32>,
    /// How many relations there are before each state, and in all.
    relations_before: &'a mut Vec<i32>,
}

/// Lists of numbers that a tape keeps.
const LISTS: usize = 10;

/// What some states have added to each kind of row.
pub(super) struct Added {
    pub(super) states: Range<usize>,
    pub(super) different: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) read: Range<usize>,
    /// The kinds of edges, all of them every time.
    pub(super) edges: Range<usize>,
}

/// How tokens are told apart before the first attention: by the features of their slots and, where
/// slots have names, by their positions.
#[derive(Clone, Debug)]
pub(super) struct Numbering {
    /// Tokens per state.
    pub(super) t: usize,
    n_cells: usize,
    features: Vec<usize>,
    first_tokens: Vec<i32>,
    named: bool,
    growing: bool,
    n_edges: usize,
    /// Combinations of features.
    n_codes: usize,
}

/// Beyond this, a table of all keys is no longer small beside a tape: every token counts as different.
const MOST_KEYS: usize = 1 << 22;

impl Numbering {
    pub(super) fn new(context: &NetworkContext) -> Self {
        let space = &context.space;
        let codes = space.features.iter().try_fold(1usize, |n, &size| n.checked_mul(size + 1));
        Self {
            t: context.n_positions(),
            n_cells: space.n_cells(),
            features: space.features.clone(),
            first_tokens: space.first_tokens().to_vec(),
            named: space.named,
            growing: space.growing,
            n_edges: if space.relation.is_some() { context.n_edges() } else { 0 },
            n_codes: codes.unwrap_or(usize::MAX),
        }
    }

    /// Kinds of positions times codes.
    fn n_keys(&self) -> usize {
        let positions = if self.named { self.t } else { 2 };
        self.n_codes.saturating_mul(positions)
    }

    fn has_table(&self) -> bool {
        self.n_keys() <= MOST_KEYS
    }

    fn key(&self, position: usize, code: usize) -> usize {
        let position = if self.named { position } else { position.min(1) };
        position * self.n_codes + code
    }

    /// Whether a slot has no features.
    fn is_empty(&self, ids: &[i32], slot: usize) -> bool {
        let n = self.features.len();
        ids[slot * n..][..n].iter().all(|&id| id < 0)
    }

    /// The features of a slot as one number, 0 if it has none.
    fn code(&self, ids: &[i32], slot: usize) -> usize {
        let first = slot * self.features.len();
        let digit = |code: usize, (f, &size): (usize, &usize)| {
            let id = ids[first + f];
            let value = if id < 0 { 0 } else { (id - self.first_tokens[first + f]) as usize + 1 };
            code.wrapping_mul(size + 1).wrapping_add(value)
        };
        self.features.iter().enumerate().fold(0, digit)
    }
}

impl<'a> Rows<'a> {
    /// Of a tape's numbers.
    pub(super) fn new(numbers: &'a mut Vec<Vec<i32>>) -> Self {
        numbers.resize_with(LISTS, Vec::new);
        let [
            seen,
            different,
            token,
            place,
            before,
            read,
            read_token,
            read_before,
            relations,
            relations_before,
        ] = &mut numbers[..]
        else {
            unreachable!("all have been made")
        };
        Self {
            seen,
            different,
            token,
            place,
            before,
            read,
            read_token,
            read_before,
            relations,
            relations_before,
        }
    }

    /// Forgets all states.
    pub(super) fn clear(&mut self, numbering: &Numbering) {
        if numbering.has_table() {
            self.seen.resize(numbering.n_keys(), 0);
            for &[_, _, key] in self.different.as_chunks::<3>().0 {
                if let Some(seen) = self.seen.get_mut(key as usize) {
                    *seen = 0;
                }
            }
        }
        for list in [&mut *self.different, self.token, self.place, self.read, self.read_token] {
            list.clear();
        }
        self.relations.clear();
        for list in [&mut *self.before, self.read_before, self.relations_before] {
            list.clear();
            list.push(0);
        }
    }

    /// Adds states by the ids of their cells, those of which `reads` says that heads read their slots.
    /// With `apart`, every token counts as different.
    pub(super) fn add(
        &mut self,
        numbering: &Numbering,
        ids: &[i32],
        apart: bool,
        reads: SlotsRead,
    ) -> Added {
        let t = numbering.t;
        let apart = apart || !numbering.has_table();
        let different = self.n_different();
        let (states, rows, read) = (self.n_states(), self.token.len(), self.read.len());
        for ids in ids.chunks_exact(numbering.n_cells) {
            let state = self.n_states();
            let first = self.number_of(numbering, state, 0, 0, apart);
            self.add_token(first, state * t, true);
            for slot in 0..t - 1 {
                let is_empty = numbering.is_empty(ids, slot);
                if is_empty && numbering.growing {
                    continue;
                }
                let code = numbering.code(ids, slot);
                let number = self.number_of(numbering, state, slot + 1, code, apart);
                self.add_token(number, state * t + slot + 1, reads.has(is_empty));
            }
            self.before.push(self.token.len() as i32);
            self.read_before.push(self.read.len() as i32);
        }
        Added {
            states: states..self.n_states(),
            different: different..self.n_different(),
            rows: rows..self.token.len(),
            read: read..self.read.len(),
            edges: 0..numbering.n_edges,
        }
    }

    /// Adds what the tokens of the states that have been added last are to each other.
    pub(super) fn relate(&mut self, context: &NetworkContext, ids: &[i32]) {
        let t = context.n_positions();
        for ids in ids.chunks_exact(context.space.n_cells()) {
            let state = self.relations_before.len() - 1;
            let (start, rows) = (self.relations.len(), self.rows_of(state..state + 1));
            self.relations.resize(start + rows.len().pow(2), 0);
            let out = &mut self.relations[start..];
            if rows.len() == t {
                context.write_relations(ids, 0..t, out);
            } else {
                let places = self.place[rows].iter();
                context.write_relations(ids, places.map(|&place| place as usize % t), out);
            }
            self.relations_before.push(self.relations.len() as i32);
        }
    }

    /// What the tokens of a state are to each other; nothing where that is not known.
    pub(super) fn relations(&self, state: usize) -> &[i32] {
        match self.relations.is_empty() {
            true => &[],
            false => {
                let [start, end] = [0, 1].map(|i| self.relations_before[state + i] as usize);
                &self.relations[start..end]
            }
        }
    }

    /// How many states there are.
    pub(super) fn n_states(&self) -> usize {
        self.before.len() - 1
    }

    /// The rows of some states.
    pub(super) fn rows_of(&self, states: Range<usize>) -> Range<usize> {
        self.before[states.start] as usize..self.before[states.end] as usize
    }

    /// The places of some rows.
    pub(super) fn places(&self, rows: Range<usize>) -> &[i32] {
        &self.place[rows]
    }

    /// The place of a row.
    pub(super) fn place(&self, row: i32) -> usize {
        self.place[row as usize] as usize
    }

    /// The number of a token among the different ones, to which it is added unless it is there.
    fn number_of(
        &mut self,
        numbering: &Numbering,
        state: usize,
        position: usize,
        code: usize,
        apart: bool,
    ) -> i32 {
        let new = self.n_different() as i32;
        let mut place = -1;
        if !apart {
            // Numbers in the table start from 1.
            let key = numbering.key(position, code);
            let seen = &mut self.seen[key];
            if *seen > 0 {
                return *seen - 1;
            }
            *seen = new + 1;
            place = key as i32;
        }
        self.different.extend([state as i32, position as i32, place]);
        new
    }

    fn add_token(&mut self, number: i32, place: usize, is_read: bool) {
        if is_read {
            self.read.push(self.token.len() as i32);
            self.read_token.push(number);
        }
        self.token.push(number);
        self.place.push(place as i32);
    }

    /// State and position of different tokens.
    pub(super) fn embedded(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, usize)> + '_ {
        let places = self.different[3 * range.start..3 * range.end].as_chunks::<3>().0;
        places.iter().map(|&[state, position, _]| (state as usize, position as usize))
    }

    /// How many different tokens there are.
    pub(super) fn n_different(&self) -> usize {
        self.different.len() / 3
    }

    /// For some rows, their tokens' numbers among the different ones.
    pub(super) fn tokens(&self, rows: Range<usize>) -> &[i32] {
        &self.token[rows]
    }

    /// Where the rows that are read of some states stand in the list of those.
    pub(super) fn read_of(&self, states: Range<usize>) -> Range<usize> {
        self.read_before[states.start] as usize..self.read_before[states.end] as usize
    }

    /// The rows that are read.
    pub(super) fn read(&self, range: Range<usize>) -> &[i32] {
        &self.read[range]
    }

    /// For the rows that are read, their tokens' numbers among the different ones.
    pub(super) fn read_tokens(&self, range: Range<usize>) -> &[i32] {
        &self.read_token[range]
    }
}

#[cfg(test)]
mod tests {
    use gfn_core::Space;

    use super::*;

    /// Against the definition, state by state, on a tape that is used twice: tokens have one number
    /// if and only if position and features are equal, and every read row is where it belongs.
    #[test]
    fn tokens_are_numbered_by_position_and_features() {
        let named = Space::new(1, 1).named_slots(3, &[3]);
        let alike = Space::new(1, 1).alike_slots(3, &[2, 1]);
        let batches: [(bool, &[&[i32]]); 3] = [
            (false, &[&[0, -1, 8, 0, 4, 8], &[-1, -1, -1, 0, -1, 8, 2, 3, 8]]),
            (true, &[&[-1, 4, 6], &[0, 4, 6, 0, 4, 6]]),
            (false, &[&[2, 5, 8], &[2, -1, 8]]),
        ];
        check(&named, &batches, SlotsRead { empty: true, filled: false });
        // Cells of slots with two features: 0..2, 2..3, 3..5, 5..6, 6..8, 8..9.
        let batches: [(bool, &[&[i32]]); 2] = [
            (false, &[&[0, -1, 3, -1, -1, -1], &[1, 2, 4, 5, 7, 8, 0, 2, -1, 5, -1, -1]]),
            (true, &[&[0, -1, 3, -1, -1, -1]]),
        ];
        check(&alike, &batches, SlotsRead { empty: false, filled: true });
        check(&alike, &batches, SlotsRead { empty: true, filled: true });
        check(&alike.growing(), &batches, SlotsRead { empty: true, filled: true });
        check(&named.growing(), &[(false, &[&[0, -1, 8, -1, 4, -1]])], SlotsRead::default());
    }

    fn check(space: &Space, batches: &[(bool, &[&[i32]])], reads: SlotsRead) {
        let context = NetworkContext::new(space, &[]);
        let numbering = Numbering::new(&context);
        let (n_cells, features) = (space.n_cells(), space.features.len());
        let mut numbers = Vec::new();
        for (apart, batches) in batches {
            let mut rows = Rows::new(&mut numbers);
            rows.clear(&numbering);
            // Position (or that it is a slot) and embeddings.
            let mut expected: Vec<(usize, Vec<usize>)> = Vec::new();
            let (mut read, mut places) = (Vec::new(), Vec::new());
            let mut starts = Vec::new();
            for ids in *batches {
                let before = (rows.n_different(), expected.len(), read.len());
                let first = starts.len();
                for ids in ids.chunks(n_cells) {
                    let state = starts.len();
                    starts.push(expected.len());
                    read.push(expected.len() as i32);
                    expected.push((0, vec![]));
                    places.push((state, 0));
                    for slot in 0..3 {
                        let of_slot = &ids[slot * features..][..features];
                        let empty = of_slot.iter().all(|&id| id < 0);
                        if empty && space.growing {
                            continue;
                        }
                        if if empty { reads.empty } else { reads.filled } {
                            read.push(expected.len() as i32);
                        }
                        let position = if space.named { slot + 1 } else { 1 };
                        expected.push((position, context.embeddings(ids, slot).collect()));
                        places.push((state, slot + 1));
                    }
                }
                let added = rows.add(&numbering, ids, *apart, reads);
                assert_eq!(added.states, first..starts.len());
                assert_eq!(added.different, before.0..rows.n_different());
                assert_eq!(added.rows, before.1..expected.len());
                assert_eq!(added.read, before.2..read.len());
            }
            let tokens = rows.tokens(0..expected.len());
            let embedded: Vec<_> = rows.embedded(0..rows.n_different()).collect();
            let numbers = rows.places(0..expected.len());
            for (i, &(state, position)) in places.iter().enumerate() {
                assert_eq!(numbers[i] as usize, state * 4 + position);
                assert!(rows.rows_of(state..state + 1).contains(&i));
            }
            for (i, &a) in tokens.iter().enumerate() {
                let first = places.iter().position(|place| *place == embedded[a as usize]);
                assert_eq!(expected[first.unwrap()], expected[i], "each stands for its token");
                for (j, &b) in tokens.iter().enumerate() {
                    let same = if *apart { i == j } else { expected[i] == expected[j] };
                    assert_eq!(a == b, same, "{i} {j}");
                }
            }
            let all = rows.read_of(0..starts.len());
            assert_eq!(rows.read(all.clone()), read);
            let of_read: Vec<i32> = read.iter().map(|&row| tokens[row as usize]).collect();
            assert_eq!(rows.read_tokens(all), of_read);
        }
    }
}
