//! Which rows of a batch have to be computed: what a tape knows of the tokens of its states.
//!
//! Two observations shrink the first and the last layer. Before the first one, a token is known by
//! its symbol and its position alone, and states of one batch share most of theirs: what that
//! layer computes of single tokens is computed once for all that are equal. After the last one,
//! heads read the first token and those of empty slots: nothing else is computed there.

use std::ops::Range;

/// Rows of tokens, for all states on a tape. A row is numbered by its state and position.
pub(super) struct Rows<'a> {
    /// By position and embedding: number among the different tokens from 1 on, 0 if there is none.
    seen: &'a mut Vec<i32>,
    /// Position and embedding of the different tokens, in the order in which they have appeared.
    different: &'a mut Vec<i32>,
    /// For every row, the number of its token among the different ones.
    token: &'a mut Vec<i32>,
    /// The rows that heads read: of each state the first one, then its empty slots.
    read: &'a mut Vec<i32>,
    /// The number of the token of each of these.
    read_token: &'a mut Vec<i32>,
    /// How many rows are read before each state, and in all.
    read_before: &'a mut Vec<i32>,
}

/// What some states have added to each kind of row.
pub(super) struct Added {
    pub(super) different: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) read: Range<usize>,
}

/// The sizes that rows are numbered by.
#[derive(Clone, Copy)]
pub(super) struct Numbering {
    /// Tokens per state.
    pub(super) t: usize,
    /// Embeddings without those of empty slots and of the first token, which come last.
    pub(super) n_tokens: usize,
    /// Whether heads read empty slots.
    pub(super) reads_slots: bool,
}

impl Numbering {
    /// Positions times embeddings.
    fn n_keys(self) -> usize {
        self.t * (self.n_tokens + 2)
    }

    fn key(self, position: usize, embedding: usize) -> usize {
        position * (self.n_tokens + 2) + embedding
    }

    /// Whether a table of all keys is small beside a tape. Else every token counts as different.
    fn has_table(self) -> bool {
        self.n_keys() <= 1 << 22
    }
}

impl<'a> Rows<'a> {
    /// Of a tape's numbers.
    pub(super) fn new(numbers: &'a mut Vec<Vec<i32>>) -> Self {
        numbers.resize_with(6, Vec::new);
        let [seen, different, token, read, read_token, read_before] = &mut numbers[..] else {
            unreachable!("six have been made")
        };
        Self { seen, different, token, read, read_token, read_before }
    }

    /// Forgets all states.
    pub(super) fn clear(&mut self, numbering: Numbering) {
        if numbering.has_table() {
            self.seen.resize(numbering.n_keys(), 0);
            for &[position, embedding] in self.different.as_chunks::<2>().0 {
                self.seen[numbering.key(position as usize, embedding as usize)] = 0;
            }
        }
        for list in [&mut *self.different, self.token, self.read, self.read_token] {
            list.clear();
        }
        self.read_before.clear();
        self.read_before.push(0);
    }

    /// Adds states by the ids of their slots. With `apart`, every token counts as different.
    pub(super) fn add(&mut self, numbering: Numbering, ids: &[i32], apart: bool) -> Added {
        let Numbering { t, n_tokens, reads_slots } = numbering;
        let apart = apart || !numbering.has_table();
        let different = self.n_different();
        let (rows, read) = (self.token.len(), self.read.len());
        for ids in ids.chunks_exact(t - 1) {
            let first = self.number_of(numbering, 0, n_tokens + 1, apart);
            self.add_token(first, true);
            for (slot, &id) in (1..).zip(ids) {
                let embedding = usize::try_from(id).unwrap_or(n_tokens);
                let number = self.number_of(numbering, slot, embedding, apart);
                self.add_token(number, reads_slots && id < 0);
            }
            self.read_before.push(self.read.len() as i32);
        }
        Added {
            different: different..self.n_different(),
            rows: rows..self.token.len(),
            read: read..self.read.len(),
        }
    }

    /// The number of a token among the different ones, to which it is added unless it is there.
    fn number_of(
        &mut self,
        numbering: Numbering,
        position: usize,
        embedding: usize,
        apart: bool,
    ) -> i32 {
        let new = self.n_different() as i32;
        if !apart {
            // Numbers in the table start from 1.
            let seen = &mut self.seen[numbering.key(position, embedding)];
            if *seen > 0 {
                return *seen - 1;
            }
            *seen = new + 1;
        }
        self.different.extend([position as i32, embedding as i32]);
        new
    }

    fn add_token(&mut self, number: i32, is_read: bool) {
        if is_read {
            self.read.push(self.token.len() as i32);
            self.read_token.push(number);
        }
        self.token.push(number);
    }

    /// Position and embedding of different tokens.
    pub(super) fn embedded(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, usize)> + '_ {
        let pairs = self.different[2 * range.start..2 * range.end].as_chunks::<2>().0;
        pairs.iter().map(|&[position, embedding]| (position as usize, embedding as usize))
    }

    /// How many different tokens there are.
    pub(super) fn n_different(&self) -> usize {
        self.different.len() / 2
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
    use super::*;

    /// Against the definition, state by state, on a tape that is used twice: tokens have one number
    /// if and only if position and embedding are equal, and every read row is where it belongs.
    #[test]
    fn tokens_are_numbered_by_position_and_embedding() {
        let numbering = Numbering { t: 4, n_tokens: 3, reads_slots: true };
        let mut numbers = Vec::new();
        for (apart, batches) in [
            (false, [&[0, -1, 2, 0, 1, 2][..], &[-1, -1, -1, 0, -1, 2, 2, 0, 2]]),
            (true, [&[-1, 1, 0][..], &[0, 1, 0, 0, 1, 0]]),
            (false, [&[2, 2, 2][..], &[2, -1, 2]]),
        ] {
            let mut rows = Rows::new(&mut numbers);
            rows.clear(numbering);
            let mut expected: Vec<(usize, usize)> = Vec::new();
            let mut read = Vec::new();
            for ids in batches {
                let before = (rows.n_different(), expected.len(), read.len());
                for ids in ids.chunks(3) {
                    read.push(expected.len() as i32);
                    expected.push((0, 4));
                    for (slot, &id) in ids.iter().enumerate() {
                        if id < 0 {
                            read.push(expected.len() as i32);
                        }
                        expected.push((slot + 1, if id < 0 { 3 } else { id as usize }));
                    }
                }
                let added = rows.add(numbering, ids, apart);
                assert_eq!(added.different, before.0..rows.n_different());
                assert_eq!(added.rows, before.1..expected.len());
                assert_eq!(added.read, before.2..read.len());
            }
            let tokens = rows.tokens(0..expected.len());
            let embedded: Vec<_> = rows.embedded(0..rows.n_different()).collect();
            for (i, &a) in tokens.iter().enumerate() {
                assert_eq!(embedded[a as usize], expected[i], "each stands for its token");
                for (j, &b) in tokens.iter().enumerate() {
                    let same = if apart { i == j } else { expected[i] == expected[j] };
                    assert_eq!(a == b, same, "{i} {j}");
                }
            }
            let all = rows.read_of(0..expected.len() / 4);
            assert_eq!(rows.read(all.clone()), read);
            let of_read: Vec<i32> = read.iter().map(|&row| tokens[row as usize]).collect();
            assert_eq!(rows.read_tokens(all), of_read);
            let second = rows.read_of(1..2);
            assert!(rows.read(second).iter().all(|row| (4..8).contains(row)));
        }
    }
}
