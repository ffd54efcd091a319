//! Fragments, where they can be joined, and which of these places are alike.

use std::path::Path;

use gfn_core::KeyError;
use gfn_core::registry::Files;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::Template;
use crate::chemistry::Molecule;

/// The most sites of a fragment: a side of an edge is four bits of a cell.
pub(super) const MAX_SITES: usize = 12;
/// The most fragments of a library: numbers of them are 12 bits of a cell.
const MOST: usize = 4000;
/// Maps of a fragment's atoms that are looked at, at most.
const MOST_MAPS: usize = 1_000_000;
/// As a bond's order, for bonds of aromatic rings.
const AROMATIC: u8 = 4;

/// A fragment as files and specs give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The fragment by itself.
    pub smiles: String,
    /// Its attachments: atoms by their number in the SMILES, counted from 0, each as often as something can
    /// be joined there. In a list of `blocks` the first is the one by which the block is added, the others
    /// stay open.
    pub attach: Vec<usize>,
}

/// A JSON file: `{"fragments": [{"smiles": "CO", "attach": [0, 1]}, …]}`, or `"blocks"` instead, in which a
/// fragment stands once for each of its kinds of attachment.
#[derive(Deserialize)]
struct File {
    fragments: Option<Vec<Entry>>,
    blocks: Option<Vec<Entry>>,
}

/// How often an atom can be joined, from the numbers in its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// Once, however often it is listed.
    One,
    /// As often as it, or one that is alike, is listed in some entry.
    Listed,
}

/// An atom where other fragments can be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Its number in the fragment.
    pub(super) atom: usize,
    /// How many fragments.
    pub(super) capacity: u8,
}

/// A fragment.
#[derive(Clone, Debug)]
pub(super) struct Fragment {
    /// Its SMILES, and how it is written with fragments joined to it.
    pub(super) template: Template,
    /// Its atoms and bonds by themselves.
    pub(super) molecule: Molecule,
    /// Which bonds are aromatic.
    pub(super) aromatic: Vec<bool>,
    /// Where it can be joined.
    pub(super) sites: Vec<Site>,
    /// What its symmetries do to the sites: site i goes to site `map[i]`. The first changes nothing.
    pub(super) symmetries: Vec<Vec<u8>>,
    /// For each site its block: the fragment joined at this site or one that is alike.
    pub(super) blocks: Vec<u16>,
}

/// A fragment by a site to join it at, one for all that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The fragment.
    pub(super) fragment: u16,
    /// The first such site.
    pub(super) site: u8,
}

/// All fragments that molecules are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Library {
    /// Fragments in their order.
    pub(super) fragments: Vec<Fragment>,
    /// Blocks, fragment by fragment.
    pub(super) blocks: Vec<Block>,
}

/// What is wrong with an entry, and what can be done.
struct Wrong {
    message: String,
    help: &'static str,
}

impl Wrong {
    fn new(message: impl Into<String>, help: &'static str) -> Self {
        Self { message: message.into(), help }
    }
}

impl Library {
    /// That of a JSON file. Fragments are sorted by their SMILES where the file lists blocks.
    ///
    /// # Errors
    /// With the key `library`, when the file cannot be read or lists something else.
    pub(super) fn read(
        path: &Path,
        capacity: Capacity,
        files: &dyn Files,
    ) -> Result<Self, KeyError> {
        let bytes = files.read_for("library", path)?;
        let fail =
            |message: String| KeyError::data("library", format!("`{}` {message}", path.display()));
        let file: File = serde_json::from_slice(&bytes).map_err(|error| {
            fail(format!("is no list of fragments: {error}")).help(
                "expected {\"fragments\": [{\"smiles\": \"CO\", \"attach\": [0, 1]}]}, or `blocks`",
            )
        })?;
        let entries = match (file.fragments, file.blocks) {
            (Some(entries), None) => entries,
            (None, Some(mut entries)) => {
                entries.sort_by(|a, b| a.smiles.cmp(&b.smiles));
                entries
            }
            _ => return Err(fail("must have either `fragments` or `blocks`".to_owned())),
        };
        Self::new(&entries, capacity).map_err(|(place, wrong)| {
            let smiles = &entries[place].smiles;
            let line =
                line_of(&bytes, smiles).map_or(String::new(), |line| format!(" on line {line}"));
            fail(format!("lists `{smiles}`{line}, but {}", wrong.message)).help(wrong.help)
        })
    }

    /// That of entries in a spec.
    ///
    /// # Errors
    /// With the key `fragments`.
    pub(super) fn of_entries(entries: &[Entry], capacity: Capacity) -> Result<Self, KeyError> {
        Self::new(entries, capacity).map_err(|(place, wrong)| {
            let message = format!("of `{}`: {}", entries[place].smiles, wrong.message);
            KeyError::new("fragments", message).help(wrong.help)
        })
    }

    /// Entries with the same SMILES are one fragment. An error has the place of its entry.
    fn new(entries: &[Entry], capacity: Capacity) -> Result<Self, (usize, Wrong)> {
        let mut library = Self::default();
        for (first, entry) in entries.iter().enumerate() {
            let same = |other: &&Entry| other.smiles == entry.smiles;
            if entries[..first].iter().any(|other| same(&other)) {
                continue;
            }
            let lists: Vec<&[usize]> =
                entries.iter().filter(same).map(|entry| &entry.attach[..]).collect();
            let fragment = library.fragments.len();
            let mut new =
                Fragment::new(&entry.smiles, &lists, capacity).map_err(|wrong| (first, wrong))?;
            for site in 0..new.sites.len() {
                let first = new.symmetries.iter().map(|map| map[site]).min().unwrap_or(site as u8);
                new.blocks.push(match usize::from(first) < site {
                    true => new.blocks[usize::from(first)],
                    false => {
                        let fragment = fragment as u16;
                        library.blocks.push(Block { fragment, site: site as u8 });
                        library.blocks.len() as u16 - 1
                    }
                });
            }
            library.fragments.push(new);
            if library.fragments.len() > MOST {
                let message = format!("there are more than {MOST} fragments");
                return Err((first, Wrong::new(message, "leave some out")));
            }
        }
        Ok(library)
    }

    /// The most sites of a fragment.
    pub(super) fn n_sites(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.sites.len()).max().unwrap_or(0)
    }

    /// The most fragments that can be joined to one.
    pub(super) fn most_joins(&self) -> usize {
        self.fragments.iter().map(Fragment::n_joins).max().unwrap_or(0)
    }
}

/// The line of a JSON file that first has a text.
fn line_of(bytes: &[u8], text: &str) -> Option<usize> {
    let quoted = serde_json::to_string(text).ok()?;
    let file = String::from_utf8_lossy(bytes);
    file.lines().position(|line| line.contains(&quoted)).map(|line| line + 1)
}

impl Fragment {
    fn new(smiles: &str, lists: &[&[usize]], capacity: Capacity) -> Result<Self, Wrong> {
        let molecule = Molecule::from_smiles(smiles)
            .map_err(|error| Wrong::new(error.to_string(), "write a SMILES of one fragment"))?;
        let template = Template::new(smiles).map_err(|message| {
            Wrong::new(message, "write it without hydrogen atoms and with ring closures below 10")
        })?;
        let n = molecule.atoms.len();
        if template.n_atoms() != n || !molecule.is_simple_graph() {
            return Err(Wrong::new("it has hydrogen atoms of their own", "write [NH3+] for them"));
        }
        let mut atoms: Vec<usize> = lists.iter().flat_map(|list| list.iter().copied()).collect();
        atoms.sort_unstable();
        atoms.dedup();
        if atoms.is_empty() {
            let message = "it has no attachment, so nothing can be joined to it";
            return Err(Wrong::new(message, "list atoms in `attach`, counted from 0"));
        }
        if let Some(atom) = atoms.iter().find(|&&atom| atom >= n) {
            let message = format!("it has {n} atoms, numbered from 0, and no atom {atom}");
            return Err(Wrong::new(message, "list atoms of its SMILES in `attach`"));
        }
        if atoms.len() > MAX_SITES {
            let message = format!("it has {} attachments, more than {MAX_SITES}", atoms.len());
            return Err(Wrong::new(message, "list fewer atoms in `attach`"));
        }
        let aromatic = molecule.aromatic_bonds();
        let symmetries = site_symmetries(&molecule, &aromatic, &template, &atoms)?;
        let listed = |atom: usize| {
            let count = |list: &&[usize]| list.iter().filter(|&&other| other == atom).count();
            lists.iter().map(count).max().unwrap_or(0)
        };
        let mut sites = Vec::new();
        for (site, &atom) in atoms.iter().enumerate() {
            let alike = symmetries.iter().map(|map| atoms[usize::from(map[site])]);
            let capacity = match capacity {
                Capacity::One => 1,
                Capacity::Listed => alike.map(listed).max().unwrap_or(1),
            };
            if !template.takes(&molecule, atom, capacity) {
                let times =
                    if capacity == 1 { String::new() } else { format!(" {capacity} times") };
                let message = format!("nothing more can be joined to its atom {atom}{times}");
                return Err(Wrong::new(message, "list atoms with hydrogens to replace"));
            }
            sites.push(Site { atom, capacity: capacity as u8 });
        }
        Ok(Self { template, molecule, aromatic, sites, symmetries, blocks: Vec::new() })
    }

    /// Fragments that can be joined to it.
    pub(super) fn n_joins(&self) -> usize {
        self.sites.iter().map(|site| usize::from(site.capacity)).sum()
    }
}

/// What the symmetries of a fragment that map sites to sites do to them, each once; the first is to change
/// nothing.
fn site_symmetries(
    molecule: &Molecule,
    aromatic: &[bool],
    template: &Template,
    sites: &[usize],
) -> Result<Vec<Vec<u8>>, Wrong> {
    let n = molecule.atoms.len();
    let mut orders = vec![vec![0; n]; n];
    for (bond, &aromatic) in molecule.bonds.iter().zip(aromatic) {
        let [a, b] = bond.ends;
        let order = if aromatic { AROMATIC } else { bond.order };
        (orders[a][b], orders[b][a]) = (order, order);
    }
    // In an order in which each atom is bonded to one before it.
    let mut order = vec![0];
    while order.len() < n {
        let is_next = |&v: &usize| !order.contains(&v) && order.iter().any(|&w| orders[v][w] > 0);
        let Some(next) = (0..n).find(is_next) else { break };
        order.push(next);
    }
    let alike = |v: usize, w: usize| {
        molecule.atoms[v] == molecule.atoms[w]
            && template.is_bracketed(v) == template.is_bracketed(w)
            && sites.contains(&v) == sites.contains(&w)
    };
    let mut maps: Vec<Vec<u8>> = vec![(0..sites.len() as u8).collect()];
    let mut image = vec![usize::MAX; n];
    // The atom that each atom in order is tried on next.
    let mut tried = vec![0];
    let mut looked_at = 0;
    while let Some(at) = tried.len().checked_sub(1) {
        let v = order[at];
        image[v] = usize::MAX;
        let fits = |&w: &usize| {
            alike(v, w)
                && !image.contains(&w)
                && order[..at].iter().all(|&u| orders[v][u] == orders[w][image[u]])
        };
        let Some(w) = (tried[at]..n).find(fits) else {
            tried.pop();
            continue;
        };
        image[v] = w;
        tried[at] = w + 1;
        if at + 1 < n {
            tried.push(0);
            continue;
        }
        looked_at += 1;
        if looked_at > MOST_MAPS {
            return Err(Wrong::new("it has too many symmetries", "leave it out"));
        }
        let site = |atom: usize| sites.iter().position(|&site| site == atom).unwrap_or(0) as u8;
        let map = sites.iter().map(|&atom| site(image[atom])).collect();
        if !maps.contains(&map) {
            maps.push(map);
        }
    }
    Ok(maps)
}
