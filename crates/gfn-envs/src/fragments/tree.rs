//! Trees of fragments, their canonical form and symmetries.
//!
//! A tree is known from any of its vertices by what hangs there: a hash of the fragment and, for each
//! neighbour, of the site and of the part of the tree beyond it, the least one over the fragment's
//! symmetries. Vertices, sides of edges and sites are alike under the tree's symmetries exactly if they are
//! known by the same hash (but for hashes of 64 bits that coincide), so no group is searched.

use super::library::{Library, MAX_SITES};

/// The most fragments of a molecule.
pub(super) const MAX_FRAGMENTS: usize = 16;

/// What one side of an edge says.
pub(super) type Side = u8;
/// There is no edge.
pub(super) const NONE: Side = 0;
/// There is an edge, whose site on this side is not chosen yet.
pub(super) const OPEN: Side = 1;
/// Marks a site that is looked at, not joined.
const MARK: Side = 64;

/// The side of an edge at a site.
pub(super) const fn at_site(site: u8) -> Side {
    site + 2
}

/// The site of a side, if it is chosen.
pub(super) fn site_of(side: Side) -> Option<u8> {
    side.checked_sub(2)
}

/// A tree of fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Number of fragments.
    pub(super) n: usize,
    /// Their numbers in the library.
    pub(super) fragments: [u16; MAX_FRAGMENTS],
    /// For an edge of u and v, what is said at u, in row u.
    pub(super) sides: [[Side; MAX_FRAGMENTS]; MAX_FRAGMENTS],
}

/// Where something of a tree is in its canonical form: fragment v is at `place[v]`, and its site i at
/// `sites[v][i]`.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The canonical form.
    pub(super) tree: Tree,
    place: [u8; MAX_FRAGMENTS],
    sites: [[u8; MAX_SITES]; MAX_FRAGMENTS],
}

impl Placed {
    pub(super) fn vertex(&self, v: usize) -> usize {
        usize::from(self.place[v])
    }

    pub(super) fn site(&self, v: usize, site: u8) -> u8 {
        self.sites[v][usize::from(site)]
    }
}

/// Bits of a cell: the fragment and one, the parent, the side there, and its own.
const PARENT: u32 = 12;
const AT_PARENT: u32 = 16;
const OWN: u32 = 20;

impl Tree {
    pub(super) const EMPTY: Self =
        Self { n: 0, fragments: [0; MAX_FRAGMENTS], sides: [[NONE; MAX_FRAGMENTS]; MAX_FRAGMENTS] };

    /// The tree of a row: a cell for each fragment, 0 for none, each joined to one before it.
    pub(super) fn of_cells(cells: &[i32]) -> Self {
        let mut tree = Self::EMPTY;
        for (v, &cell) in cells.iter().enumerate().take_while(|(_, cell)| **cell != 0) {
            let bits = |from: u32, n: u32| cell >> from & ((1 << n) - 1);
            tree.fragments[v] = (bits(0, PARENT) - 1) as u16;
            tree.n = v + 1;
            if v > 0 {
                let parent = bits(PARENT, 4) as usize;
                tree.sides[parent][v] = bits(AT_PARENT, 4) as Side;
                tree.sides[v][parent] = bits(OWN, 4) as Side;
            }
        }
        tree
    }

    /// Writes a tree in which each fragment but the first is joined to one before it.
    pub(super) fn write(&self, cells: &mut [i32]) {
        cells.fill(0);
        for (v, cell) in cells.iter_mut().enumerate().take(self.n) {
            *cell = i32::from(self.fragments[v]) + 1;
            if let Some(parent) = self.neighbours(v).next().filter(|&parent| parent < v) {
                *cell |= (parent as i32) << PARENT
                    | i32::from(self.sides[parent][v]) << AT_PARENT
                    | i32::from(self.sides[v][parent]) << OWN;
            }
        }
    }

    pub(super) fn neighbours(&self, v: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.n).filter(move |&w| self.sides[v][w] != NONE)
    }

    pub(super) fn degree(&self, v: usize) -> usize {
        self.neighbours(v).count()
    }

    /// Edges (u, v) with u < v.
    pub(super) fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.n)
            .flat_map(move |v| self.neighbours(v).filter(move |&w| v < w).map(move |w| (v, w)))
    }

    /// How many fragments are joined at a site.
    pub(super) fn joined(&self, v: usize, site: u8) -> u8 {
        self.sides[v][..self.n].iter().filter(|&&side| side == at_site(site)).count() as u8
    }

    /// Sites of a fragment where one more can be joined.
    pub(super) fn free_sites<'a>(
        &'a self,
        library: &'a Library,
        v: usize,
    ) -> impl Iterator<Item = u8> + 'a {
        let sites = &library.fragments[usize::from(self.fragments[v])].sites;
        let is_free = move |&site: &u8| self.joined(v, site) < sites[usize::from(site)].capacity;
        (0..sites.len() as u8).filter(is_free)
    }

    /// How many fragments can be joined to one that is there.
    pub(super) fn n_free(&self, library: &Library, v: usize) -> usize {
        library.fragments[usize::from(self.fragments[v])].n_joins() - self.degree(v)
    }

    /// How many fragments can be joined altogether.
    pub(super) fn n_all_free(&self, library: &Library) -> usize {
        (0..self.n).map(|v| self.n_free(library, v)).sum()
    }

    /// Adds a fragment next to one that is there, or the first one.
    pub(super) fn add(&mut self, fragment: u16, neighbour: usize, there: Side, own: Side) {
        let v = self.n;
        self.n += 1;
        self.fragments[v] = fragment;
        if v > 0 {
            (self.sides[neighbour][v], self.sides[v][neighbour]) = (there, own);
        }
    }

    /// Removes a leaf, or the only fragment; those after it move up. Returns its neighbour after that.
    pub(super) fn remove(&mut self, leaf: usize) -> usize {
        let neighbour = self.neighbours(leaf).next().unwrap_or(0);
        let n = self.n;
        self.fragments.copy_within(leaf + 1..n, leaf);
        self.sides.copy_within(leaf + 1..n, leaf);
        self.fragments[n - 1] = 0;
        self.sides[n - 1] = [NONE; MAX_FRAGMENTS];
        for row in &mut self.sides[..n] {
            row.copy_within(leaf + 1..n, leaf);
            row[n - 1] = NONE;
        }
        self.n = n - 1;
        neighbour - usize::from(neighbour > leaf)
    }
}

/// Stirs a number.
fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}

/// Two numbers in their order as one.
fn paired(a: u64, b: u64) -> u64 {
    mixed(mixed(a).wrapping_add(b))
}

/// A side after a fragment's symmetry.
fn moved(map: &[u8], side: Side) -> Side {
    match site_of(side & !MARK) {
        Some(site) => side & MARK | at_site(map[usize::from(site)]),
        None => side,
    }
}

/// By what the parts of a tree are known.
pub(super) struct Keys<'a> {
    library: &'a Library,
    tree: &'a Tree,
    /// The part of the tree at u that is seen from its neighbour v, with its side of their edge; 0 if it was
    /// not asked for.
    parts: [[u64; MAX_FRAGMENTS]; MAX_FRAGMENTS],
}

/// What a vertex is known by when it is seen from somewhere.
struct Seen {
    key: u64,
    /// The first symmetry of the fragment with this key, and their number.
    symmetry: usize,
    n_symmetries: u64,
}

impl<'a> Keys<'a> {
    pub(super) fn of(library: &'a Library, tree: &'a Tree) -> Self {
        let mut keys = Self { library, tree, parts: [[0; MAX_FRAGMENTS]; MAX_FRAGMENTS] };
        for u in 0..tree.n {
            for v in tree.neighbours(u) {
                keys.find(u, v);
            }
        }
        keys
    }

    /// Finds the part at `u` seen from `v`, and those that it consists of.
    fn find(&mut self, u: usize, v: usize) {
        if self.parts[u][v] != 0 {
            return;
        }
        for w in self.tree.neighbours(u).filter(|&w| w != v) {
            self.find(w, u);
        }
        self.parts[u][v] = self.seen(u, Some(v), self.tree.sides[u][v]).key;
    }

    /// A fragment with all that hangs there but for one neighbour, and a side of it that is looked at.
    fn seen(&self, u: usize, without: Option<usize>, entry: Side) -> Seen {
        let fragment = self.tree.fragments[u];
        let mut best = Seen { key: u64::MAX, symmetry: 0, n_symmetries: 0 };
        for (i, map) in self.library.fragments[usize::from(fragment)].symmetries.iter().enumerate()
        {
            let parts =
                self.tree.neighbours(u).filter(|&w| Some(w) != without).map(|w| {
                    paired(self.parts[w][u], u64::from(moved(map, self.tree.sides[u][w])))
                });
            let parts = parts.fold(0, u64::wrapping_add);
            let own = u64::from(fragment) << 8 | u64::from(moved(map, entry));
            // None is 0, which stands for parts that are not known yet.
            let key = paired(own + 1, parts).max(1);
            if key < best.key {
                best = Seen { key, symmetry: i, n_symmetries: 0 };
            }
            best.n_symmetries += u64::from(key == best.key);
        }
        best
    }

    /// Fragments are alike if this is equal.
    pub(super) fn vertex(&self, v: usize) -> u64 {
        self.seen(v, None, NONE).key
    }

    /// Sites of fragments where more can be joined are alike if this is equal.
    pub(super) fn site(&self, v: usize, site: u8) -> u64 {
        self.seen(v, None, MARK | at_site(site)).key
    }

    /// Sides of edges, the one at u of that with v, are alike if this is equal.
    pub(super) fn side(&self, u: usize, v: usize) -> u64 {
        paired(self.parts[u][v], self.parts[v][u])
    }

    /// Sites to choose for a side that is open are alike if this is equal.
    pub(super) fn choice(&self, u: usize, v: usize, site: u8) -> u64 {
        paired(self.seen(u, Some(v), at_site(site)).key, self.parts[v][u])
    }

    /// The canonical form: in the order of a walk from the fragment with the least key, parts with
    /// lesser sides and keys first.
    pub(super) fn canonical(&self) -> Placed {
        let mut placed = Placed {
            tree: Tree::EMPTY,
            place: [0; MAX_FRAGMENTS],
            sites: [[0; MAX_SITES]; MAX_FRAGMENTS],
        };
        if let Some(root) = (0..self.tree.n).min_by_key(|&v| self.vertex(v)) {
            self.place(root, None, NONE, &mut placed);
        }
        placed
    }

    fn place(&self, u: usize, from: Option<usize>, at_parent: Side, placed: &mut Placed) {
        let fragment = self.tree.fragments[u];
        let entry = from.map_or(NONE, |v| self.tree.sides[u][v]);
        let symmetry = self.seen(u, from, entry).symmetry;
        let map = &self.library.fragments[usize::from(fragment)].symmetries[symmetry];
        placed.place[u] = placed.tree.n as u8;
        placed.sites[u][..map.len()].copy_from_slice(map);
        let parent = from.map_or(0, |v| placed.vertex(v));
        placed.tree.add(fragment, parent, at_parent, moved(map, entry));
        let mut beyond = [(0, 0, 0); MAX_FRAGMENTS];
        let mut n = 0;
        for w in self.tree.neighbours(u).filter(|&w| Some(w) != from) {
            beyond[n] = (moved(map, self.tree.sides[u][w]), self.parts[w][u], w);
            n += 1;
        }
        beyond[..n].sort_unstable();
        for &(side, _, w) in &beyond[..n] {
            self.place(w, Some(u), side, placed);
        }
    }

    /// Numbers that stand for the fragments with the sites that are joined, and for the joins.
    pub(super) fn surroundings(&self) -> Vec<u64> {
        let flat = |u: usize, entry: Side, without: Option<usize>| {
            let fragment = self.tree.fragments[u];
            let symmetries = &self.library.fragments[usize::from(fragment)].symmetries;
            let of_map = |map: &Vec<u8>| {
                let around = self.tree.neighbours(u).filter(|_| without.is_none());
                let sides = around.map(|w| mixed(u64::from(moved(map, self.tree.sides[u][w]))));
                let own = u64::from(fragment) << 8 | u64::from(moved(map, entry));
                paired(own + 1, sides.fold(0, u64::wrapping_add))
            };
            symmetries.iter().map(of_map).min().unwrap_or(0)
        };
        let of_fragments = (0..self.tree.n).map(|v| flat(v, NONE, None));
        let of_joins = self.tree.edges().map(|(u, v)| {
            let [a, b] = [(u, v), (v, u)].map(|(u, v)| flat(u, self.tree.sides[u][v], Some(v)));
            paired(a.min(b), a.max(b))
        });
        of_fragments.chain(of_joins).collect()
    }

    /// log of the number of symmetries: relabellings of fragments, and of the sites of each by its own
    /// symmetries, that change nothing.
    pub(super) fn log_symmetries(&self) -> f64 {
        let Some(root) = (0..self.tree.n).min_by_key(|&v| self.vertex(v)) else { return 0.0 };
        let key = self.vertex(root);
        let alike = (0..self.tree.n).filter(|&v| self.vertex(v) == key).count();
        (alike as f64).ln() + self.log_symmetries_at(root, None)
    }

    /// Of those that keep a fragment where it is, in the part without a neighbour.
    fn log_symmetries_at(&self, u: usize, from: Option<usize>) -> f64 {
        let entry = from.map_or(NONE, |v| self.tree.sides[u][v]);
        let mut sum = (self.seen(u, from, entry).n_symmetries as f64).ln();
        let parts = || self.tree.neighbours(u).filter(|&w| Some(w) != from);
        for w in parts() {
            // Equal parts at one site, and those at sides that are open, change places: the k-th of them
            // gives a factor k.
            let same = |&other: &usize| {
                self.tree.sides[u][other] == self.tree.sides[u][w]
                    && self.parts[other][u] == self.parts[w][u]
            };
            let before = parts().take_while(|&other| other != w).filter(same).count();
            sum += ((before + 1) as f64).ln() + self.log_symmetries_at(w, Some(u));
        }
        sum
    }
}
