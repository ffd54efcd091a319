//! Molecules as the objects of an environment are drawn.

use gfn_core::States;
use rayon::prelude::*;

use super::depiction::svg_grid;
use super::fingerprint::Fingerprint;
use super::molecule::Molecule;

/// Molecules of a picture, and those in a row of it.
const SHOWN: usize = 24;
const COLUMNS: usize = 6;

/// A molecule with what its environment knows besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrawnMolecule {
    /// In one of its Kekulé forms.
    pub molecule: Molecule,
    /// Which of its bonds are aromatic, in their order.
    pub aromatic: Vec<bool>,
    /// Atoms where something could still be attached.
    pub open: Vec<usize>,
}

impl DrawnMolecule {
    /// A molecule that nothing is attached to any more.
    ///
    /// # Panics
    ///
    /// As [`Molecule::canonical_smiles`].
    pub fn finished(molecule: Molecule) -> Self {
        let aromatic = molecule.aromatic_bonds();
        Self { molecule, aromatic, open: Vec::new() }
    }
}

/// An environment whose objects are molecules, and what follows from that.
pub trait Molecules: Send + Sync {
    /// The molecule of a row.
    fn drawn(&self, row: &[i32]) -> DrawnMolecule;

    /// The molecule of a row, in one of its Kekulé forms.
    fn molecule(&self, row: &[i32]) -> Molecule {
        self.drawn(row).molecule
    }

    /// The fingerprint of a row's molecule.
    fn fingerprint_of(&self, row: &[i32]) -> Fingerprint {
        Fingerprint::of(&self.molecule(row))
    }

    /// One less the similarity of two molecules.
    fn dissimilarity(&self, a: &[i32], b: &[i32]) -> f64 {
        1.0 - self.fingerprint_of(a).tanimoto(&self.fingerprint_of(b))
    }

    /// The sum of [`dissimilarity`](Self::dissimilarity) over all pairs.
    fn total_dissimilarity(&self, rows: &[&[i32]]) -> f64
    where
        Self: Sized,
    {
        let prints: Vec<Fingerprint> =
            rows.par_iter().map(|row| self.fingerprint_of(row)).collect();
        let with_those_before = |(i, a): (usize, &Fingerprint)| {
            prints[..i].iter().map(|b| 1.0 - a.tanimoto(b)).sum::<f64>()
        };
        prints.iter().enumerate().map(with_those_before).sum()
    }

    /// The best molecules among samples, as a picture: a file's name and text.
    fn picture(&self, objects: &States, log_reward: &[f64]) -> (&'static str, String) {
        let mut places: Vec<usize> = (0..objects.len()).collect();
        places.sort_by(|&a, &b| log_reward[b].total_cmp(&log_reward[a]));
        let mut shown: Vec<usize> = Vec::new();
        for place in places {
            if shown.len() < SHOWN && shown.iter().all(|&s| objects.row(s) != objects.row(place)) {
                shown.push(place);
            }
        }
        let caption = |place: usize| format!("log R = {:.3}", log_reward[place]);
        let molecules: Vec<(Molecule, String)> = shown
            .into_iter()
            .map(|place| (self.molecule(objects.row(place)), caption(place)))
            .collect();
        ("molecules.svg", svg_grid(&molecules, COLUMNS))
    }
}

/// What [`Molecules::dissimilarity`] is: its unit, and in words.
pub(crate) const DISSIMILARITY: (&str, &str) =
    ("1", "one less Tanimoto's similarity of their path fingerprints");
