//! Sets of nodes as words.

/// The members of a set, ascending.
pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(first)
    })
}

/// Writes the first bits of a word to a mask, eight at a time.
pub(super) fn spread(word: u64, mask: &mut [bool]) {
    let mut bytes = mask.chunks_exact_mut(8);
    let mut left = word;
    for byte in bytes.by_ref() {
        byte.copy_from_slice(&SPREAD[left as usize % 256]);
        left >>= 8;
    }
    for (i, legal) in bytes.into_remainder().iter_mut().enumerate() {
        *legal = left >> i & 1 == 1;
    }
}

/// The bits of every byte.
static SPREAD: [[bool; 8]; 256] = {
    let mut table = [[false; 8]; 256];
    let mut i = 0;
    while i < 8 * 256 {
        table[i / 8][i % 8] = (i / 8) >> (i % 8) & 1 == 1;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_spread_over_masks() {
        for n in [2, 7, 8, 9, 63, 64] {
            let word = 0xC3A5_9618_F00F_1E87;
            let mut mask = vec![false; n];
            spread(word, &mut mask);
            let bits: Vec<bool> = (0..n).map(|i| word >> i & 1 == 1).collect();
            assert_eq!(mask, bits);
        }
    }
}
