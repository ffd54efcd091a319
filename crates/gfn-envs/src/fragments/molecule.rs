//! Between trees of fragments and molecules.

use gfn_core::Environment;

use super::tree::{Keys, NONE, Tree, at_site, site_of};
use super::{FragmentWorld, decompose, template};
use crate::chemistry::{Bond, DrawnMolecule, Molecule, Molecules};

impl Molecules for FragmentWorld {
    /// Atoms fragment by fragment, each in its order; bonds within fragments, then those between them.
    fn drawn(&self, row: &[i32]) -> DrawnMolecule {
        let tree = self.tree(row);
        let mut joined = DrawnMolecule::default();
        let mut first = [0; super::tree::MAX_FRAGMENTS];
        for (v, first) in first.iter_mut().enumerate().take(tree.n) {
            let fragment = &self.library.fragments[usize::from(tree.fragments[v])];
            let offset = joined.molecule.atoms.len();
            *first = offset;
            joined.molecule.atoms.extend_from_slice(&fragment.molecule.atoms);
            for (i, site) in fragment.sites.iter().enumerate() {
                let n = tree.joined(v, i as u8);
                if n > 0 {
                    let used = template::used(&fragment.molecule, site.atom);
                    joined.molecule.atoms[offset + site.atom].hydrogens =
                        fragment.template.hydrogens(&fragment.molecule, site.atom, used, n);
                }
                if n < site.capacity {
                    joined.open.push(offset + site.atom);
                }
            }
            let moved = |bond: &Bond| Bond { ends: bond.ends.map(|end| end + offset), ..*bond };
            joined.molecule.bonds.extend(fragment.molecule.bonds.iter().map(moved));
            joined.aromatic.extend_from_slice(&fragment.aromatic);
        }
        let atom = |v: usize, w: usize| {
            let fragment = &self.library.fragments[usize::from(tree.fragments[v])];
            let site = site_of(tree.sides[v][w])?;
            Some(first[v] + fragment.sites[usize::from(site)].atom)
        };
        for (v, w) in tree.edges() {
            if let (Some(a), Some(b)) = (atom(v, w), atom(w, v)) {
                joined.molecule.bonds.push(Bond::new(a, b, 1));
                joined.aromatic.push(false);
            }
        }
        joined
    }
}

impl FragmentWorld {
    /// See [`render`](Environment::render).
    pub(super) fn write_smiles(&self, tree: &Tree) -> String {
        let mut text = String::new();
        for v in 0..tree.n {
            let fragment = &self.library.fragments[usize::from(tree.fragments[v])];
            // An edge has the number of the later one of its fragments.
            let join = |w: usize| {
                let site = site_of(tree.sides[v][w])?;
                Some((fragment.sites[usize::from(site)].atom, v.max(w) - 1))
            };
            let joins: Vec<(usize, usize)> = tree.neighbours(v).filter_map(join).collect();
            if v > 0 {
                text.push('.');
            }
            fragment.template.write(&fragment.molecule, &joins, &mut text);
        }
        text
    }

    /// The tree that was written, if it was written like that.
    fn read_written(&self, text: &str) -> Option<Tree> {
        let mut tree = Tree::EMPTY;
        // For each join the ends that were met.
        let mut ends: Vec<(usize, usize, u8)> = Vec::new();
        for (v, part) in text.split('.').enumerate() {
            if v == self.spec.max_fragments {
                return None;
            }
            let mut fragments = self.library.fragments.iter().enumerate();
            let (number, joins) = fragments.find_map(|(number, fragment)| {
                Some((number, fragment.template.joins(&fragment.molecule, part)?))
            })?;
            tree.add(number as u16, 0, NONE, NONE);
            for (atom, join) in joins {
                let sites = &self.library.fragments[number].sites;
                let site = sites.iter().position(|site| site.atom == atom)?;
                ends.push((join, v, site as u8));
            }
        }
        ends.sort_unstable();
        let pairs = ends.chunk_by(|a, b| a.0 == b.0);
        for pair in pairs {
            let &[(_, v, at_v), (_, w, at_w)] = pair else { return None };
            if v == w || tree.sides[v][w] != NONE {
                return None;
            }
            (tree.sides[v][w], tree.sides[w][v]) = (at_site(at_v), at_site(at_w));
        }
        let mut reached = 1u32;
        for _ in 0..tree.n {
            let is_reached = |v: &usize| reached >> v & 1 == 1;
            let next = (0..tree.n).filter(is_reached).flat_map(|v| tree.neighbours(v));
            reached = next.fold(reached, |set, v| set | 1 << v);
        }
        let fits = |v: usize| {
            let fragment = &self.library.fragments[usize::from(tree.fragments[v])];
            let mut sites = fragment.sites.iter().enumerate();
            sites.all(|(i, site)| tree.joined(v, i as u8) <= site.capacity)
        };
        let is_tree = tree.edges().count() + 1 == tree.n && reached.count_ones() as usize == tree.n;
        (is_tree && (0..tree.n).all(fits)).then_some(tree)
    }

    /// The finished row of fragments by their SMILES, and of joins: of the i-th and the j-th one, at an atom of
    /// each, as `[i, j, atom of i, atom of j]`.
    ///
    /// # Errors
    /// Why it is none of this world.
    pub fn row_of_parts(&self, smiles: &[&str], joins: &[[usize; 4]]) -> Result<Vec<i32>, String> {
        let mut text = Vec::new();
        for (i, part) in smiles.iter().enumerate() {
            let mut fragments = self.library.fragments.iter();
            let fragment = fragments.find(|fragment| fragment.template.smiles() == *part);
            let fragment = fragment.ok_or_else(|| format!("`{part}` is none of its fragments"))?;
            let of_part = |(number, &[v, w, at_v, at_w]): (usize, &[usize; 4])| {
                let atom = if v == i { Some(at_v) } else { (w == i).then_some(at_w) };
                atom.map(|atom| (atom, number))
            };
            let joins: Vec<_> = joins.iter().enumerate().filter_map(of_part).collect();
            let mut written = String::new();
            fragment.template.write(&fragment.molecule, &joins, &mut written);
            text.push(written);
        }
        let text = text.join(".");
        let tree = self.read_written(&text);
        let none = || format!("`{text}` is no tree with attachments of its fragments");
        self.row_of(&tree.ok_or_else(none)?)
    }

    /// The finished row of a SMILES, or of what [`render`](Environment::render) writes.
    ///
    /// # Errors
    /// Why it is none of this world.
    pub fn read(&self, text: &str) -> Result<Vec<i32>, String> {
        if let Some(tree) = self.read_written(text) {
            return self.row_of(&tree);
        }
        let molecule = Molecule::from_smiles(text).map_err(|error| error.to_string())?;
        self.row_of_molecule(&molecule)
    }

    /// The finished row of a molecule: of its trees with the fewest fragments, the first one.
    ///
    /// # Errors
    /// Why it is none of this world.
    pub fn row_of_molecule(&self, molecule: &Molecule) -> Result<Vec<i32>, String> {
        let range = self.spec.min_fragments()..=self.spec.max_fragments;
        let trees = decompose::trees(&self.library, molecule, range)?;
        let rows: Result<Vec<_>, _> = trees.iter().map(|tree| self.row_of(tree)).collect();
        rows?.into_iter().min().ok_or_else(|| "it has no tree".to_owned())
    }

    /// The finished row of a tree.
    fn row_of(&self, tree: &Tree) -> Result<Vec<i32>, String> {
        let min = self.spec.min_fragments();
        if tree.n < min {
            let n = tree.n;
            return Err(format!("it has {n} fragments, fewer than min_fragments = {min}"));
        }
        let tree = Keys::of(&self.library, tree).canonical().tree;
        let mut row = vec![0; self.space().width];
        self.write(&tree, !self.ends(&tree), &mut row);
        Ok(row)
    }
}
