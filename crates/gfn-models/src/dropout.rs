//! Dropout whose masks are a function of their place among the rows of an evaluation: the same for
//! any number of threads, and again in the backward pass without being kept.

/// Sets activations to zero with some probability and scales up the others (Srivastava et al.
/// 2014), for the rows of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of zero, in [0, 1).
    pub rate: f32,
    /// What tells evaluations apart.
    pub key: u64,
    /// Row of the evaluation that the first given row is.
    pub first_row: usize,
}

/// One step of SplitMix64 (Steele et al. 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout {
    /// The same for rows that start `rows` further on.
    #[must_use]
    pub fn after(self, rows: usize) -> Self {
        Self { first_row: self.first_row + rows, ..self }
    }

    /// Multiplies `values`, rows of `size` numbers, with the mask of a place in the network. `rows`
    /// numbers them among the given rows, each of which has `parts` of its own: part p of row r is
    /// number r · parts + p.
    pub fn apply(
        &self,
        place: usize,
        parts: usize,
        size: usize,
        rows: impl IntoIterator<Item = usize>,
        values: &mut [f32],
    ) {
        let threshold = (f64::from(self.rate) * 2f64.powi(32)) as u64;
        let scale = 1.0 / (1.0 - self.rate);
        for (row, values) in rows.into_iter().zip(values.chunks_exact_mut(size)) {
            let number = (self.first_row * parts + row) as u64;
            // Far apart streams for rows that are numbers next to each other.
            let mut state = self.key ^ (place as u64) << 48 ^ number;
            state = next(&mut state);
            for pair in values.chunks_mut(2) {
                let bits = next(&mut state);
                for (value, bits) in pair.iter_mut().zip([bits & 0xffff_ffff, bits >> 32]) {
                    *value *= if bits < threshold { 0.0 } else { scale };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_depend_on_their_place_alone_and_keep_the_mean() {
        let dropout = Dropout { rate: 0.3, key: 5, first_row: 0 };
        let mask = |dropout: Dropout, place, rows: usize| {
            let mut values = vec![1.0; rows * 64];
            dropout.apply(place, 1, 64, 0.., &mut values);
            values
        };
        let all = mask(dropout, 2, 1000);
        assert_eq!(mask(dropout.after(400), 2, 600), all[400 * 64..]);
        let mut one = vec![1.0; 64];
        dropout.after(50).apply(2, 4, 64, [7], &mut one);
        assert_eq!(one, all[207 * 64..208 * 64], "part 3 of row 1 after 50 rows of 4 parts");
        let zeros = all.iter().filter(|&&x| x == 0.0).count() as f64 / all.len() as f64;
        // Five standard errors of 64,000 draws.
        assert!((zeros - 0.3).abs() < 5.0 * (0.21 / 64_000f64).sqrt(), "{zeros}");
        assert!(all.iter().all(|&x| x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-6));
        let agree = |other: Vec<f32>| {
            let same = all.iter().zip(&other).filter(|(a, b)| a == b).count();
            same as f64 / all.len() as f64
        };
        // Independent masks agree with probability 0.49 + 0.09.
        for other in [
            mask(dropout, 3, 1000),
            mask(Dropout { key: 6, ..dropout }, 2, 1000),
            mask(dropout.after(1), 2, 1000),
        ] {
            assert!((agree(other) - 0.58).abs() < 0.01);
        }
    }
}
