//! Molecules as trees of fragments, in the versions of both papers on the sEH task (arXiv:2310.12934, with 105
//! blocks; arXiv:2410.15474, with 72 fragments).

mod actions;
mod count;
mod decompose;
mod library;
mod molecule;
mod paths;
mod spec;
mod template;
mod tree;

pub use library::Entry;
pub use spec::{FragmentsSpec, Version};

use std::any::Any;

use gfn_core::registry::Files;
use gfn_core::space::At;
use gfn_core::{Block, Direction, Environment, KeyError, NO_TOKEN, Space, States};

use crate::chemistry::Molecules;
use crate::chemistry::drawn::DISSIMILARITY;
use crate::symmetry::Symmetry;
use actions::{Edit, Names, Starts};
use library::Library;
use paths::PathCounts;
use tree::{Keys, NONE, OPEN, Tree, at_site};

/// The world of molecules from fragments.
///
/// A row is a tree of fragments in canonical form (`tree.rs`), so that equal trees are equal rows: a cell for
/// each fragment (0 for none), `max_fragments` of them, then whether it was finished by stopping. A cell holds the
/// fragment, which one before it is joined to, and the attachments on both sides. Different trees may be the
/// same molecule: `CC` joined to `C`, and `CCC`; they are different objects with one reward, as in the papers.
///
/// An edge has no direction: each of its sides belongs to the fragment that it is a side of, so that it says the same
/// whichever of the two was there first. With stems a fragment can be removed if its only edge has no attachment on either
/// side; with blocks if it has one edge. Of actions that lead to the same tree (fragments,
/// attachments and edges that a symmetry of the tree or of a fragment exchanges) the first is legal.
///
/// Limits are masks: what would leave a molecule with nothing open and less than `min_fragments` is illegal, so no
/// walk ends in what is no object.
///
/// Slots are fragments; of a pair of joined ones each side shows its attachment, or that it is open.
#[derive(Clone, Debug)]
pub struct FragmentWorld {
    spec: FragmentsSpec,
    library: Library,
    space: Space,
    names: Names,
    forward: Starts,
    backward: Starts,
    paths: PathCounts,
    n_objects: u64,
}

impl FragmentWorld {
    /// Molecules as the settings say.
    ///
    /// # Errors
    /// When a number is out of range, or fragments cannot be read or are none.
    pub fn new(spec: &FragmentsSpec, files: &dyn Files) -> Result<Self, KeyError> {
        let library = spec.read(files)?;
        let (n, n_fragments) = (spec.max_fragments, library.fragments.len());
        let n_sites = library.n_sites();
        let names = Names { n_slots: n, n_fragments, n_sites, n_blocks: library.blocks.len() };
        let first = Block::whole("first_fragment", n_fragments);
        let remove = [
            Block::whole("go_on", 1),
            Block::whole("remove_last", 1),
            Block::slot("remove_fragment", At::Filled, 1),
        ];
        let (max_len, forward, backward) = match spec.version {
            Version::Stems => (
                3 * n - 1,
                vec![
                    Block::stop(),
                    first,
                    Block::slot("add_fragment", At::Filled, n_fragments),
                    Block::ordered("set_attachment", n_sites),
                ],
                [&remove[..], &[Block::ordered("unset_attachment", 1)]].concat(),
            ),
            Version::Blocks => (
                n,
                vec![
                    Block::stop(),
                    first,
                    Block::slot("add_block", At::Filled, n_sites * library.blocks.len()),
                ],
                remove.to_vec(),
            ),
        };
        let space = Space::new(n + 1, max_len)
            .alike_slots(n, &[n_fragments])
            .growing()
            .related(n_sites + 1, true)
            .forward(&forward)
            .backward(&backward);
        let (forward, backward) =
            (Starts::of(&space, Direction::Forward), Starts::of(&space, Direction::Backward));
        let n_objects = count::trees(&library, spec.min_fragments(), n);
        let (spec, paths) = (spec.clone(), PathCounts::default());
        Ok(Self { spec, library, space, names, forward, backward, paths, n_objects })
    }

    /// Whether of equivalent actions only the first is legal.
    fn merges(&self) -> bool {
        self.spec.symmetry == Symmetry::States
    }

    fn is_stopped(&self, row: &[i32]) -> bool {
        row[self.space.width - 1] != 0
    }

    fn tree(&self, row: &[i32]) -> Tree {
        Tree::of_cells(&row[..self.spec.max_fragments])
    }

    fn write(&self, tree: &Tree, stopped: bool, row: &mut [i32]) {
        let (cells, stop) = row.split_at_mut(self.spec.max_fragments);
        tree.write(cells);
        stop[0] = i32::from(stopped);
    }

    /// Whether a tree with blocks is an object without having been stopped.
    fn ends(&self, tree: &Tree) -> bool {
        self.spec.version == Version::Blocks
            && tree.n > 0
            && (tree.n == self.spec.max_fragments || tree.n_all_free(&self.library) == 0)
    }

    /// Whether a tree is an object, or becomes one by stopping.
    fn is_whole(&self, tree: &Tree) -> bool {
        let edges = || tree.edges().flat_map(|(u, v)| [tree.sides[u][v], tree.sides[v][u]]);
        tree.n >= self.spec.min_fragments() && edges().all(|side| side != OPEN)
    }

    /// Whether a fragment may come to what has so many places to join something: not if it would leave none
    /// before there are enough fragments.
    fn may_add(&self, n: usize, n_free: usize, fragment: usize) -> bool {
        let joins = self.library.fragments[fragment].n_joins();
        let left = if n == 0 { joins } else { n_free + joins - 2 };
        left > 0 || n + 1 >= self.spec.min_fragments()
    }

    fn for_each_growth(&self, tree: &Tree, mut edit: impl FnMut(Edit)) {
        if tree.n < self.spec.max_fragments {
            let n_free = tree.n_all_free(&self.library);
            let fits = |&fragment: &usize| self.may_add(tree.n, n_free, fragment);
            if tree.n == 0 {
                let all = 0..self.library.fragments.len();
                all.filter(fits).for_each(|fragment| edit(Edit::First(fragment)));
                return;
            }
            for at in 0..tree.n {
                if self.spec.version == Version::Stems {
                    if tree.n_free(&self.library, at) > 0 {
                        let all = 0..self.library.fragments.len();
                        all.filter(fits).for_each(|fragment| edit(Edit::Add { at, fragment }));
                    }
                    continue;
                }
                for site in tree.free_sites(&self.library, at) {
                    let of_block = |block: usize| usize::from(self.library.blocks[block].fragment);
                    let all = 0..self.library.blocks.len();
                    all.filter(|&block| fits(&of_block(block)))
                        .for_each(|block| edit(Edit::Attach { at, site, block }));
                }
            }
        }
        if self.spec.version == Version::Stems {
            for u in 0..tree.n {
                for v in tree.neighbours(u).filter(|&v| tree.sides[u][v] == OPEN) {
                    for site in tree.free_sites(&self.library, u) {
                        edit(Edit::Set { u, v, site });
                    }
                }
            }
        }
    }

    fn for_each_removal(&self, tree: &Tree, mut edit: impl FnMut(Edit)) {
        if tree.n == 1 {
            return edit(Edit::First(0));
        }
        let stems = self.spec.version == Version::Stems;
        for leaf in (0..tree.n).filter(|&v| tree.degree(v) == 1) {
            let open =
                |stem: usize| tree.sides[leaf][stem] == OPEN && tree.sides[stem][leaf] == OPEN;
            if !stems || tree.neighbours(leaf).all(open) {
                edit(Edit::Add { at: leaf, fragment: 0 });
            }
        }
        if stems {
            for u in 0..tree.n {
                for v in tree.neighbours(u).filter(|&v| tree.sides[u][v] != OPEN) {
                    edit(Edit::Set { u, v, site: 0 });
                }
            }
        }
    }

    /// Marks edits: all of them, or of each class of equivalent ones the first.
    fn mark(&self, direction: Direction, tree: &Tree, mask: &mut [bool]) {
        let keys = self.merges().then(|| Keys::of(&self.library, tree));
        let mut known: Vec<u64> = Vec::new();
        let mut last = None;
        let mut mark = |edit: Edit| {
            if let Some(keys) = &keys {
                // All fragments and blocks at one place stand or fall together.
                let place = edit.place();
                if last.is_none_or(|(other, _)| other != place) {
                    let key = place.key(direction, keys);
                    let is_new = !known.contains(&key);
                    known.extend(is_new.then_some(key));
                    last = Some((place, is_new));
                }
                if !last.is_some_and(|(_, is_new)| is_new) {
                    return;
                }
            }
            mask[self.action(direction, edit)] = true;
        };
        match direction {
            Direction::Forward => self.for_each_growth(tree, &mut mark),
            Direction::Backward => self.for_each_removal(tree, &mut mark),
        }
    }

    /// The first of the edits that are equivalent to one.
    fn representative(&self, direction: Direction, tree: &Tree, edit: Edit) -> Edit {
        if !self.merges() {
            return edit;
        }
        let keys = Keys::of(&self.library, tree);
        let wanted = edit.place().key(direction, &keys);
        let mut first = None;
        let mut find = |other: Edit| {
            if first.is_none() && other.place().key(direction, &keys) == wanted {
                first = Some(other);
            }
        };
        match direction {
            Direction::Forward => edit.place().for_each_like(tree, &self.library, &mut find),
            Direction::Backward => self.for_each_removal(tree, &mut find),
        }
        edit.at_place_of(first.unwrap_or(edit))
    }

    /// Writes the canonical form of a changed tree; returns the action of what undoes or redoes the change,
    /// which is given for the tree as it is.
    fn write_changed(
        &self,
        tree: &Tree,
        direction: Direction,
        edit: Edit,
        row: &mut [i32],
    ) -> usize {
        let placed = Keys::of(&self.library, tree).canonical();
        self.write(&placed.tree, false, row);
        let edit = self.representative(direction, &placed.tree, edit.placed(&placed));
        self.action(direction, edit)
    }
}

impl Environment for FragmentWorld {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.fill(0);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(false);
        let tree = self.tree(row);
        if self.is_stopped(row) || self.ends(&tree) {
            return;
        }
        mask[self.forward.stop] = self.is_whole(&tree);
        self.mark(Direction::Forward, &tree, mask);
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        mask.fill(false);
        let tree = self.tree(row);
        if self.is_stopped(row) {
            mask[self.backward.stop] = true;
        } else if tree.n > 0 {
            self.mark(Direction::Backward, &tree, mask);
        }
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        let mut tree = self.tree(row);
        let undo = match self.edit(Direction::Forward, action) {
            Edit::Stop => {
                row[self.space.width - 1] = 1;
                return self.backward.stop;
            }
            Edit::First(fragment) => {
                tree.add(fragment as u16, 0, NONE, NONE);
                Edit::First(0)
            }
            Edit::Add { at, fragment } => {
                tree.add(fragment as u16, at, OPEN, OPEN);
                Edit::Add { at: tree.n - 1, fragment: 0 }
            }
            Edit::Attach { at, site, block } => {
                let block = self.library.blocks[block];
                tree.add(block.fragment, at, at_site(site), at_site(block.site));
                Edit::Add { at: tree.n - 1, fragment: 0 }
            }
            Edit::Set { u, v, site } => {
                tree.sides[u][v] = at_site(site);
                Edit::Set { u, v, site: 0 }
            }
        };
        self.write_changed(&tree, Direction::Backward, undo, row)
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        let mut tree = self.tree(row);
        let redo = match self.edit(Direction::Backward, back_action) {
            Edit::Stop => {
                row[self.space.width - 1] = 0;
                return self.forward.stop;
            }
            Edit::First(_) => {
                let fragment = usize::from(tree.fragments[0]);
                row.fill(0);
                return self.action(Direction::Forward, Edit::First(fragment));
            }
            Edit::Add { at: leaf, .. } | Edit::Attach { at: leaf, .. } => {
                let stem = tree.neighbours(leaf).next().unwrap_or(0);
                let (there, own) = (tree.sides[stem][leaf], tree.sides[leaf][stem]);
                let fragment = usize::from(tree.fragments[leaf]);
                let at = tree.remove(leaf);
                match (tree::site_of(there), tree::site_of(own)) {
                    (Some(site), Some(own)) => {
                        let block = self.library.fragments[fragment].blocks[usize::from(own)];
                        Edit::Attach { at, site, block: usize::from(block) }
                    }
                    _ => Edit::Add { at, fragment },
                }
            }
            Edit::Set { u, v, .. } => {
                let site = tree::site_of(tree.sides[u][v]).unwrap_or(0);
                tree.sides[u][v] = OPEN;
                Edit::Set { u, v, site }
            }
        };
        self.write_changed(&tree, Direction::Forward, redo, row)
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        let tree = self.tree(row);
        cells.fill(NO_TOKEN);
        for u in 0..tree.n {
            cells[u] = i32::from(tree.fragments[u]);
            for v in tree.neighbours(u) {
                let cell = self.space.pair_cell(u, v).expect("pairs are related");
                cells[cell] = i32::from(tree.sides[u][v] - OPEN);
            }
        }
    }

    fn edges_are_actions(&self) -> bool {
        self.merges()
    }

    /// Where all actions are legal and it is to be corrected: log of the number of automorphisms of the tree,
    /// those of its fragments by themselves not counted, since each brings its own.
    fn log_symmetry(&self, row: &[i32]) -> f64 {
        if self.spec.symmetry != Symmetry::Actions {
            return 0.0;
        }
        let tree = self.tree(row);
        let own = |&fragment: &u16| {
            (self.library.fragments[usize::from(fragment)].symmetries.len() as f64).ln()
        };
        let of_fragments: f64 = tree.fragments[..tree.n].iter().map(own).sum();
        Keys::of(&self.library, &tree).log_symmetries() - of_fragments
    }

    /// By the number of linear extensions of a forest (Knuth's hook formula); where equivalent actions are one
    /// and a symmetry may exchange fragments, by recursion over the states on the way, which are remembered.
    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        Some(match self.merges() {
            true => self.paths.of(self, row),
            false => paths::of_labelled(&self.tree(row), self.spec.version == Version::Stems),
        })
    }

    fn n_objects(&self) -> Option<u64> {
        Some(self.n_objects)
    }

    /// That of [`Fingerprint`](crate::chemistry::Fingerprint).
    fn fingerprint(&self, row: &[i32]) -> Option<[u64; 32]> {
        Some(self.fingerprint_of(row).0)
    }

    fn distance(&self, a: &[i32], b: &[i32]) -> f64 {
        self.dissimilarity(a, b)
    }

    fn total_distance(&self, rows: &[&[i32]]) -> f64 {
        self.total_dissimilarity(rows)
    }

    fn distance_of(&self) -> (&'static str, &'static str) {
        DISSIMILARITY
    }

    /// The best molecules among samples, as a picture.
    fn artifacts(&self, objects: &States, log_reward: &[f64]) -> Vec<(&'static str, String)> {
        vec![self.picture(objects, log_reward)]
    }

    /// The canonical SMILES, which several trees may have.
    fn alias(&self, row: &[i32]) -> Option<(&'static str, String)> {
        Some(("smiles", self.molecule(row).canonical_smiles()))
    }

    /// For each fragment a hash of itself and its attachments, and for each join of the two attachments.
    fn features_of(&self, row: &[i32]) -> Vec<u64> {
        Keys::of(&self.library, &self.tree(row)).surroundings()
    }

    fn strata(&self, row: &[i32]) -> Vec<(&'static str, String)> {
        let molecule = self.molecule(row);
        vec![
            ("fragments", self.tree(row).n.to_string()),
            ("heavy atoms", molecule.atoms.len().to_string()),
            ("scaffold", molecule.scaffold().canonical_smiles()),
        ]
    }

    fn converted(&self, row: &[i32], from: &dyn Environment) -> Option<Vec<i32>> {
        let from: &Self = (from as &dyn Any).downcast_ref()?;
        self.parse(&from.render(row))
    }

    /// A SMILES with a dot between fragments and a ring closure from `%10` on for each join, which readers of
    /// SMILES take for the molecule.
    fn render(&self, row: &[i32]) -> String {
        self.write_smiles(&self.tree(row))
    }

    /// What [`render`](Self::render) writes, or any other SMILES: of its trees with the fewest fragments that
    /// are objects, the one whose row comes first.
    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        self.read(text).ok()
    }

    fn refusal(&self, text: &str) -> Option<String> {
        self.read(text).err()
    }
}
