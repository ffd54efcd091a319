//! Actions on trees of fragments by their numbers.

use gfn_core::{Direction, Space};

use super::FragmentWorld;
use super::library::Library;
use super::tree::{Keys, OPEN, Placed, Tree};

/// Something that is done to a tree. What is undone is told by its place alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The molecule is finished.
    Stop,
    /// The first fragment comes, or the last one goes.
    First(usize),
    /// A fragment comes next to one, or the one at `at` goes.
    Add { at: usize, fragment: usize },
    /// A block comes onto a site.
    Attach { at: usize, site: u8, block: usize },
    /// The side at u of the edge of u and v is joined at a site, or is open again.
    Set { u: usize, v: usize, site: u8 },
}

/// Where something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Whole,
    Vertex(usize),
    Site(usize, u8),
    Side(usize, usize, u8),
}

impl Place {
    /// Equal at places of one kind that a symmetry of the tree exchanges.
    pub(super) fn key(self, direction: Direction, keys: &Keys<'_>) -> u64 {
        match (self, direction) {
            (Self::Whole, _) => 0,
            (Self::Vertex(v), _) => keys.vertex(v),
            (Self::Site(v, site), _) => keys.site(v, site),
            (Self::Side(u, v, site), Direction::Forward) => keys.choice(u, v, site),
            (Self::Side(u, v, _), Direction::Backward) => keys.side(u, v),
        }
    }

    /// Calls with an edit at every place that may be one like this, in the order of forward actions.
    pub(super) fn for_each_like(self, tree: &Tree, library: &Library, edit: &mut impl FnMut(Edit)) {
        match self {
            Self::Whole => edit(Edit::Stop),
            Self::Vertex(_) => (0..tree.n).for_each(|at| edit(Edit::Add { at, fragment: 0 })),
            Self::Site(..) => {
                for at in 0..tree.n {
                    let free = tree.free_sites(library, at);
                    free.for_each(|site| edit(Edit::Attach { at, site, block: 0 }));
                }
            }
            Self::Side(..) => {
                for u in 0..tree.n {
                    for v in tree.neighbours(u).filter(|&v| tree.sides[u][v] == OPEN) {
                        tree.free_sites(library, u).for_each(|site| edit(Edit::Set { u, v, site }));
                    }
                }
            }
        }
    }
}

impl Edit {
    pub(super) fn place(self) -> Place {
        match self {
            Self::Stop | Self::First(_) => Place::Whole,
            Self::Add { at, .. } => Place::Vertex(at),
            Self::Attach { at, site, .. } => Place::Site(at, site),
            Self::Set { u, v, site } => Place::Side(u, v, site),
        }
    }

    /// The same at the place of another edit.
    pub(super) fn at_place_of(self, other: Self) -> Self {
        match (self, other) {
            (Self::Add { fragment, .. }, Self::Add { at, .. }) => Self::Add { at, fragment },
            (Self::Attach { block, .. }, Self::Attach { at, site, .. }) => {
                Self::Attach { at, site, block }
            }
            (Self::Set { .. }, Self::Set { .. }) => other,
            _ => self,
        }
    }

    /// The same in the canonical form.
    pub(super) fn placed(self, placed: &Placed) -> Self {
        match self {
            Self::Stop | Self::First(_) => self,
            Self::Add { at, fragment } => Self::Add { at: placed.vertex(at), fragment },
            Self::Attach { at, site, block } => {
                Self::Attach { at: placed.vertex(at), site: placed.site(at, site), block }
            }
            Self::Set { u, v, site } => {
                Self::Set { u: placed.vertex(u), v: placed.vertex(v), site: placed.site(u, site) }
            }
        }
    }
}

/// Numbers of what actions name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub(super) n_slots: usize,
    pub(super) n_fragments: usize,
    pub(super) n_sites: usize,
    pub(super) n_blocks: usize,
}

/// Where each block of actions begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts {
    pub(super) stop: usize,
    first: usize,
    add: usize,
    set: usize,
}

impl Starts {
    pub(super) fn of(space: &Space, direction: Direction) -> Self {
        // Blocks that are not there begin where no action is.
        let at = |name: &str| space.first_action(direction, name);
        let [stop, first, add, set] = match direction {
            Direction::Forward => ["stop", "first_fragment", "add_fragment", "set_attachment"],
            Direction::Backward => ["go_on", "remove_last", "remove_fragment", "unset_attachment"],
        }
        .map(|name| at(name).unwrap_or(usize::MAX));
        Self { stop, first, add: add.min(at("add_block").unwrap_or(usize::MAX)), set }
    }
}

impl FragmentWorld {
    /// The action of an edit; of a backward one, what comes or is joined does not count.
    pub(super) fn action(&self, direction: Direction, edit: Edit) -> usize {
        let names = &self.names;
        let pair = |u: usize, v: usize| u * names.n_slots + v;
        match (direction, edit) {
            (Direction::Forward, Edit::Stop) => self.forward.stop,
            (Direction::Forward, Edit::First(fragment)) => self.forward.first + fragment,
            (Direction::Forward, Edit::Add { at, fragment }) => {
                self.forward.add + at * names.n_fragments + fragment
            }
            (Direction::Forward, Edit::Attach { at, site, block }) => {
                self.forward.add + (at * names.n_sites + usize::from(site)) * names.n_blocks + block
            }
            (Direction::Forward, Edit::Set { u, v, site }) => {
                self.forward.set + pair(u, v) * names.n_sites + usize::from(site)
            }
            (Direction::Backward, Edit::Stop) => self.backward.stop,
            (Direction::Backward, Edit::First(_)) => self.backward.first,
            (Direction::Backward, Edit::Add { at, .. } | Edit::Attach { at, .. }) => {
                self.backward.add + at
            }
            (Direction::Backward, Edit::Set { u, v, .. }) => self.backward.set + pair(u, v),
        }
    }

    /// The edit of an action.
    pub(super) fn edit(&self, direction: Direction, action: usize) -> Edit {
        let names = &self.names;
        let forward = direction == Direction::Forward;
        let starts = if forward { &self.forward } else { &self.backward };
        let of = |start: usize, size: usize| match forward {
            true => ((action - start) / size, (action - start) % size),
            false => (action - start, 0),
        };
        if action < starts.first {
            return Edit::Stop;
        }
        if action < starts.add {
            return Edit::First(action - starts.first);
        }
        if action >= starts.set {
            let (pair, site) = of(starts.set, names.n_sites);
            return Edit::Set {
                u: pair / names.n_slots,
                v: pair % names.n_slots,
                site: site as u8,
            };
        }
        if forward && starts.set == usize::MAX {
            let (place, block) = of(starts.add, names.n_blocks);
            let (at, site) = (place / names.n_sites, (place % names.n_sites) as u8);
            return Edit::Attach { at, site, block };
        }
        let (at, fragment) = of(starts.add, names.n_fragments);
        Edit::Add { at, fragment }
    }
}
