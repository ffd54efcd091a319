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
    /// The different tokens by position and embedding, in the order in which they have appeared.
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
        self.seen.resize(numbering.t * (numbering.n_tokens + 2), 0);
        for &key in &*self.different {
            self.seen[key as usize] = 0;
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
        let [different, rows, read] =
            [&*self.different, self.token, self.read].map(|list| list.len());
        for ids in ids.chunks_exact(t - 1) {
            self.add_token(n_tokens + 1, true, apart);
            for (slot, &id) in (1..).zip(ids) {
                let embedding = usize::try_from(id).unwrap_or(n_tokens);
                let key = slot * (n_tokens + 2) + embedding;
                self.add_token(key, reads_slots && id < 0, apart);
            }
            self.read_before.push(self.read.len() as i32);
        }
        Added {
            different: different..self.different.len(),
            rows: rows..self.token.len(),
            read: read..self.read.len(),
        }
    }

    fn add_token(&mut self, key: usize, is_read: bool, apart: bool) {
        let mut number = self.seen[key];
        if number == 0 || apart {
            self.different.push(key as i32);
            number = self.different.len() as i32;
            self.seen[key] = number;
        }
        if is_read {
            self.read.push(self.token.len() as i32);
            self.read_token.push(number - 1);
        }
        self.token.push(number - 1);
    }

    /// Position and embedding of different tokens.
    pub(super) fn embedded(
        &self,
        range: Range<usize>,
        numbering: Numbering,
    ) -> impl Iterator<Item = (usize, usize)> + '_ {
        let per_position = numbering.n_tokens + 2;
        let keys = self.different[range].iter().map(|&key| key as usize);
        keys.map(move |key| (key / per_position, key % per_position))
    }

    /// How many different tokens there are.
    pub(super) fn n_different(&self) -> usize {
        self.different.len()
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
