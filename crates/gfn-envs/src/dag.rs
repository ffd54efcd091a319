//! Directed acyclic graphs on named nodes: start with the required edges, add one at a time, and stop
//! anywhere. The structures of Bayesian networks (Deleu et al. 2022, arXiv:2202.13903).

pub(crate) mod drawing;
mod local_moves;
mod source;
mod spec;
mod summary;
mod words;

pub use source::{Source, lists_scores};
pub(crate) use spec::edge;
pub use spec::{DagSpec, ParentSets};
pub(crate) use words::bits;

use gfn_core::proposal::Proposal;
use gfn_core::special::ln_gamma;
use gfn_core::{Block, Environment, KeyError, NO_TOKEN, Space, States};

use words::spread;

/// The most nodes: a set of nodes is a word of 64 bits.
pub const MAX_NODES: usize = 64;
/// The most nodes that fit a cell of a row.
const MAX_NARROW: usize = 31;
/// Between the ends of an edge, as text.
const ARROW: &str = "->";
/// The graph without edges, as text.
const EMPTY: &str = "-";

/// Graphs of d nodes. Sets of nodes are words, bit i for node i.
///
/// A row holds the parents of every node, then the ancestors of every node, itself included (derived:
/// they say in one word what would close a cycle), then whether the graph is finished. A word is one
/// cell for up to 31 nodes, and two, the lower half first, for more.
///
/// Action `i d + j` adds the edge i -> j, action `d d` stops; backward actions have the same numbers.
/// A slot is a node, without features; the cell of the pair (i, j) is 0 where i -> j.
#[derive(Clone, Debug)]
pub struct Dag {
    names: Vec<String>,
    parent_sets: Vec<ParentSets>,
    /// The nodes that each node may be a parent of.
    children: Vec<u64>,
    /// Whether some node may not have all the parents that it is allowed.
    limited: bool,
    start: Vec<i32>,
    source: Option<Source>,
    space: Space,
}

impl Dag {
    /// Graphs as the settings say, without looking at a file.
    ///
    /// # Errors
    /// When names or constraints are wrong, or no graph obeys them.
    pub fn new(spec: &DagSpec) -> Result<Self, KeyError> {
        let names = spec.checked_names()?;
        let parent_sets = spec.parent_sets(&names)?;
        let d = names.len();
        let may_cause = |i: usize| {
            (0..d).filter(|&j| parent_sets[j].allowed >> i & 1 == 1).fold(0, |set, j| set | 1 << j)
        };
        let children = (0..d).map(may_cause).collect();
        let limited = parent_sets.iter().any(|set| (set.allowed.count_ones() as usize) > set.most);
        let width = 2 * d * words_per_set(d) + 1;
        let space = Space::new(width, most_edges(&parent_sets) + 1)
            .named_slots(d, &[])
            .related(1, true)
            .forward(&[Block::ordered("add_edge", 1), Block::stop()])
            .backward(&[Block::ordered("remove_edge", 1), Block::whole("go_on", 1)]);
        let (start, source) = (Vec::new(), None);
        let mut dag = Self { names, parent_sets, children, limited, start, source, space };
        let required: Vec<u64> = dag.parent_sets.iter().map(|set| set.required).collect();
        dag.start = dag.row_of(&required, false).expect("constraints leave a graph");
        Ok(dag)
    }

    /// Names of the nodes, by their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The file that named the nodes.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.names.len()
    }

    /// Which sets of parents each node may have.
    pub fn parent_sets(&self) -> &[ParentSets] {
        &self.parent_sets
    }

    /// The parents of a node.
    pub fn parents(&self, row: &[i32], node: usize) -> u64 {
        self.word(row, node)
    }

    /// The parents of every node, in order.
    pub fn parents_of<'a>(&'a self, row: &'a [i32]) -> impl ExactSizeIterator<Item = u64> + 'a {
        (0..self.n_nodes()).map(|node| self.parents(row, node))
    }

    /// The ancestors of a node, itself included.
    pub fn ancestors(&self, row: &[i32], node: usize) -> u64 {
        self.word(row, self.n_nodes() + node)
    }

    /// Number of edges.
    pub fn n_edges(&self, row: &[i32]) -> usize {
        self.parents_of(row).map(|parents| parents.count_ones() as usize).sum()
    }

    /// Whether the graph is finished.
    pub fn is_stopped(&self, row: &[i32]) -> bool {
        row[self.space.width - 1] != 0
    }

    /// The row of the graph with these parents of every node; none if it has a cycle or breaks a
    /// constraint.
    pub fn row_of(&self, parents: &[u64], stopped: bool) -> Option<Vec<i32>> {
        let admitted = parents.iter().zip(&self.parent_sets).all(|(&set, sets)| sets.admit(set));
        if parents.len() != self.n_nodes() || !admitted {
            return None;
        }
        let mut row = vec![0; self.space.width];
        for (node, &set) in parents.iter().enumerate() {
            self.set_word(&mut row, node, set);
        }
        let mut left = !0 >> (64 - self.n_nodes());
        while left != 0 {
            let node = bits(left).find(|&node| parents[node] & left == 0)?;
            self.find_ancestors(&mut row, node);
            left &= !(1 << node);
        }
        row[self.space.width - 1] = i32::from(stopped);
        Some(row)
    }

    fn word(&self, row: &[i32], at: usize) -> u64 {
        let half = |cell: i32| u64::from(cell.cast_unsigned());
        match self.n_nodes() {
            ..=MAX_NARROW => half(row[at]),
            _ => half(row[2 * at]) | half(row[2 * at + 1]) << 32,
        }
    }

    fn set_word(&self, row: &mut [i32], at: usize, word: u64) {
        let half = |word: u64| (word as u32).cast_signed();
        match self.n_nodes() {
            ..=MAX_NARROW => row[at] = half(word),
            _ => (row[2 * at], row[2 * at + 1]) = (half(word), half(word >> 32)),
        }
    }

    /// Writes the ancestors of a node whose parents have theirs.
    fn find_ancestors(&self, row: &mut [i32], node: usize) {
        let above = bits(self.parents(row, node)).map(|parent| self.ancestors(row, parent));
        let ancestors = above.fold(1 << node, |all, some| all | some);
        self.set_word(row, self.n_nodes() + node, ancestors);
    }

    /// For every node, those that an edge can be added to, stopped or not: where there is none yet, it
    /// is allowed, leaves room among the parents, and closes no cycle.
    fn addable(&self, row: &[i32]) -> [u64; MAX_NODES] {
        let mut addable = [0; MAX_NODES];
        let mut open = !0;
        if self.limited {
            for (j, (parents, sets)) in self.parents_of(row).zip(&self.parent_sets).enumerate() {
                open &= !(u64::from(parents.count_ones() as usize >= sets.most) << j);
            }
        }
        for (i, (addable, children)) in addable.iter_mut().zip(&self.children).enumerate() {
            *addable = children & open & !self.ancestors(row, i);
        }
        for (j, parents) in self.parents_of(row).enumerate() {
            bits(parents).for_each(|i| addable[i] &= !(1 << j));
        }
        addable
    }

    /// Adds the edge i -> j, with what follows from it for j and below.
    fn add(&self, row: &mut [i32], i: usize, j: usize) {
        self.set_word(row, j, self.parents(row, j) | 1 << i);
        let (d, above) = (self.n_nodes(), self.ancestors(row, i));
        for node in 0..d {
            let ancestors = self.ancestors(row, node);
            if ancestors >> j & 1 == 1 {
                self.set_word(row, d + node, ancestors | above);
            }
        }
    }

    /// Removes the edge i -> j.
    fn remove(&self, row: &mut [i32], i: usize, j: usize) {
        let others = self.parents(row, j) & !(1 << i);
        self.set_word(row, j, others);
        // Where i is above j in another way as well, no ancestor is lost.
        if bits(others).any(|parent| self.ancestors(row, parent) >> i & 1 == 1) {
            return;
        }
        let below = (0..self.n_nodes()).filter(|&node| self.ancestors(row, node) >> j & 1 == 1);
        let mut stale: u64 = below.fold(0, |set, node| set | 1 << node);
        let mut node = j;
        while stale != 0 {
            // Up to a node whose parents are right.
            match stale & self.parents(row, node) {
                0 => {
                    self.find_ancestors(row, node);
                    stale &= !(1 << node);
                    node = stale.trailing_zeros() as usize;
                }
                above => node = above.trailing_zeros() as usize,
            }
        }
    }

    /// The two ends of the edge of an action; none for stopping and going on.
    fn ends(&self, action: usize) -> Option<(usize, usize)> {
        let d = self.n_nodes();
        (action < d * d).then_some((action / d, action % d))
    }

    fn n_required(&self) -> usize {
        self.parent_sets.iter().map(|sets| sets.required.count_ones() as usize).sum()
    }
}

/// Cells per set of nodes.
fn words_per_set(d: usize) -> usize {
    if d <= MAX_NARROW { 1 } else { 2 }
}

/// A bound on the number of edges that can be added: the most that nodes allow one by one, and the
/// most that their order does, in which the k-th has k nodes before it.
fn most_edges(sets: &[ParentSets]) -> usize {
    let of_node = |set: &ParentSets| set.most.min(set.allowed.count_ones() as usize);
    let required: usize = sets.iter().map(|set| set.required.count_ones() as usize).sum();
    let one_by_one: usize = sets.iter().map(of_node).sum();
    let in_order: usize = sets.iter().enumerate().map(|(before, set)| before.min(set.most)).sum();
    one_by_one.min(in_order) - required
}

/// Robinson's number of acyclic graphs on d named nodes, or the largest number.
///
/// a(n) = sum over k ≥ 1 of (−1)^(k+1) C(n, k) 2^(k (n − k)) a(n − k): k of them have no parents, and
/// may point at all others. From d = 11 on it takes more than 64 bits.
fn n_dags(d: usize) -> u64 {
    if d > 10 {
        return u64::MAX;
    }
    let choose =
        |n: usize, k: usize| (0..k).fold(1i128, |c, i| c * (n - i) as i128 / (i + 1) as i128);
    let mut counts = vec![1i128];
    for n in 1..=d {
        let term = |k: usize| (choose(n, k) << (k * (n - k))) * counts[n - k];
        counts.push((1..=n).map(|k| if k % 2 == 1 { term(k) } else { -term(k) }).sum());
    }
    counts[d] as u64
}

impl Environment for Dag {
    fn space(&self) -> &Space {
        &self.space
    }

    fn reset(&self, row: &mut [i32]) {
        row.copy_from_slice(&self.start);
    }

    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        let d = self.n_nodes();
        if self.is_stopped(row) {
            mask.fill(false);
            return;
        }
        for (mask, word) in mask.chunks_exact_mut(d).zip(self.addable(row)) {
            spread(word, mask);
        }
        mask[d * d] = true;
    }

    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        let (d, stopped) = (self.n_nodes(), self.is_stopped(row));
        mask.fill(false);
        mask[d * d] = stopped;
        if !stopped {
            for (j, (parents, sets)) in self.parents_of(row).zip(&self.parent_sets).enumerate() {
                bits(parents & !sets.required).for_each(|i| mask[i * d + j] = true);
            }
        }
    }

    fn step(&self, row: &mut [i32], action: usize) -> usize {
        match self.ends(action) {
            Some((i, j)) => self.add(row, i, j),
            None => row[self.space.width - 1] = 1,
        }
        action
    }

    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        match self.ends(back_action) {
            Some((i, j)) => self.remove(row, i, j),
            None => row[self.space.width - 1] = 0,
        }
        back_action
    }

    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        let d = self.n_nodes();
        cells.fill(NO_TOKEN);
        for (j, parents) in self.parents_of(row).enumerate() {
            bits(parents).for_each(|i| cells[i * d + j] = 0);
        }
    }

    /// The edges, those of the first node first: `A->B A->C B->C`; `-` for the graph without edges.
    fn render(&self, row: &[i32]) -> String {
        let d = self.n_nodes();
        let is_edge = |&(i, j): &(usize, usize)| self.parents(row, j) >> i & 1 == 1;
        let pairs = (0..d).flat_map(|i| (0..d).map(move |j| (i, j)));
        let edge = |(i, j): (usize, usize)| format!("{}{ARROW}{}", self.names[i], self.names[j]);
        let edges: Vec<String> = pairs.filter(is_edge).map(edge).collect();
        if edges.is_empty() { EMPTY.to_owned() } else { edges.join(" ") }
    }

    /// Edges in any order; none if one occurs twice, or the graph has a cycle or breaks a constraint.
    fn parse(&self, text: &str) -> Option<Vec<i32>> {
        let mut parents = vec![0; self.n_nodes()];
        let text = text.trim();
        let node = |name: &str| self.names.iter().position(|known| known == name);
        if text.is_empty() {
            return None;
        }
        for edge in text.split_whitespace().filter(|_| text != EMPTY) {
            let (from, to) = edge.split_once(ARROW)?;
            let (i, j) = (node(from)?, node(to)?);
            if parents[j] >> i & 1 == 1 {
                return None;
            }
            parents[j] |= 1 << i;
        }
        self.row_of(&parents, true)
    }

    /// E!, with E edges besides the required ones: any order of adding them is legal, since graphs with
    /// fewer edges have no cycle and no more parents.
    fn log_paths(&self, row: &[i32]) -> Option<f64> {
        let n_added = self.n_edges(row) - self.n_required();
        Some(ln_gamma(n_added as f64 + 1.0))
    }

    /// The number of edges of one of two graphs that the other does not have.
    fn distance(&self, a: &[i32], b: &[i32]) -> f64 {
        let parents = self.parents_of(a).zip(self.parents_of(b));
        parents.map(|(a, b)| f64::from((a ^ b).count_ones())).sum()
    }

    fn distance_of(&self) -> (&'static str, &'static str) {
        ("edges", "number of edges of one that the other does not have")
    }

    fn n_objects(&self) -> Option<u64> {
        let d = self.n_nodes();
        let is_free = |set: &ParentSets| {
            set.required == 0 && set.allowed.count_ones() as usize == d - 1 && set.most == d - 1
        };
        self.parent_sets.iter().all(is_free).then(|| n_dags(d))
    }

    fn artifacts(&self, objects: &States, _: &[f64]) -> Vec<(&'static str, String)> {
        summary::Summary::new(self, objects).files()
    }

    fn local_moves(&self) -> Option<&dyn Proposal> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OEIS A003024.
    #[test]
    fn graphs_are_counted() {
        let known = [1, 1, 3, 25, 543, 29_281, 3_781_503, 1_138_779_265, 783_702_329_343];
        for (d, count) in known.into_iter().enumerate() {
            assert_eq!(n_dags(d), count);
        }
        assert_eq!(n_dags(10), 4_175_098_976_430_598_143);
        assert_eq!((n_dags(11), n_dags(64)), (u64::MAX, u64::MAX));
    }
}
