//! Kekulé forms: which aromatic bonds are double.
//!
//! `smiles-rs` finds one for all but a few strained or charged rings, such as carbocations in a ring
//! of overlapping double bonds. Those are done here by search, which costs little at their size.

/// The perfect matchings of some atoms along some bonds: each is a list of bonds that meets every
/// one of the atoms once, and no other. At most `limit` of them.
///
/// `bonds`: pairs of atoms; `wanted`: by atom.
pub(super) fn matchings(bonds: &[[usize; 2]], wanted: &[bool], limit: usize) -> Vec<Vec<usize>> {
    let mut search =
        Search { bonds, open: wanted.to_vec(), chosen: Vec::new(), found: vec![], limit };
    search.run();
    search.found
}

struct Search<'a> {
    bonds: &'a [[usize; 2]],
    /// Atoms that have no double bond yet, but want one.
    open: Vec<bool>,
    chosen: Vec<usize>,
    found: Vec<Vec<usize>>,
    limit: usize,
}

impl Search<'_> {
    fn choices(&self, atom: usize) -> Vec<usize> {
        let open =
            |ends: &[usize; 2]| ends.contains(&atom) && ends.iter().all(|&end| self.open[end]);
        (0..self.bonds.len()).filter(|&bond| open(&self.bonds[bond])).collect()
    }

    /// Goes on at the atom with the fewest choices, so that dead ends show early.
    fn run(&mut self) {
        let open = (0..self.open.len()).filter(|&atom| self.open[atom]);
        let Some(choices) = open.map(|atom| self.choices(atom)).min_by_key(Vec::len) else {
            let mut matching = self.chosen.clone();
            matching.sort_unstable();
            self.found.push(matching);
            return;
        };
        for bond in choices {
            if self.found.len() >= self.limit {
                return;
            }
            let ends = self.bonds[bond];
            ends.iter().for_each(|&end| self.open[end] = false);
            self.chosen.push(bond);
            self.run();
            self.chosen.pop();
            ends.iter().for_each(|&end| self.open[end] = true);
        }
    }
}

/// How much an atom lacks to its next allowed valence; `None` beyond the highest.
pub(crate) fn spare_valence(element: u8, charge: i8, used: u8) -> Option<u8> {
    let allowed: &[u8] = match (element, charge) {
        (5, 0) => &[3],
        (6 | 14, 0) | (5, -1) => &[4],
        (6, -1 | 1) => &[3],
        (7 | 15 | 33, 0) => &[3, 5],
        (7 | 15 | 33, 1) => &[4],
        (7 | 15 | 33, -1) => &[2],
        (8, 0) => &[2],
        (8, 1) => &[3],
        (9 | 17 | 35 | 53, 0) | (8 | 16, -1) => &[1],
        (16 | 34 | 52, 0) => &[2, 4, 6],
        (16 | 34 | 52, 1) => &[3, 5],
        _ => &[],
    };
    allowed.iter().find(|&&valence| valence >= used).map(|valence| valence - used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kekule_forms_are_counted_as_in_textbooks() {
        let ring = |n: usize| (0..n).map(|i| [i, (i + 1) % n]).collect::<Vec<_>>();
        assert_eq!(matchings(&ring(6), &[true; 6], 99).len(), 2);
        assert_eq!(matchings(&ring(5), &[true; 5], 99).len(), 0);
        // Pyrrole's nitrogen wants none.
        assert_eq!(matchings(&ring(5), &[false, true, true, true, true], 99), [[1, 3]]);
        let mut naphthalene = ring(10);
        naphthalene.push([0, 5]);
        assert_eq!(matchings(&naphthalene, &[true; 10], 99).len(), 3);
        assert_eq!(matchings(&naphthalene, &[true; 10], 1).len(), 1);
        // Coronene has 20: a rim of 18 atoms around a hub of 6.
        let mut coronene = ring(18);
        coronene.extend((0..6).map(|i| [18 + i, 18 + (i + 1) % 6]));
        coronene.extend((0..6).map(|i| [18 + i, 3 * i]));
        assert_eq!(matchings(&coronene, &[true; 24], 99).len(), 20);
    }
}
