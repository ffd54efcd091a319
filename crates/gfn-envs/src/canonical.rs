//! Canonical form and symmetries of small graphs with coloured vertices and edges.
//!
//! Vertices are told apart by refinement (a vertex is known by its colour and by the colours of its
//! neighbours, again and again); where that leaves vertices alike, each of them is tried, and the
//! smallest of the resulting matrices is the canonical one (McKay & Piperno 2014, arXiv:1301.1493). The
//! orders that give it differ by symmetries, so one search finds both. Leaves on one stem are alike in
//! every respect and are not tried one by one.

/// The most vertices of a graph.
pub(crate) const MAX_VERTICES: usize = 16;

/// For each vertex, a vertex; only the first as many as the graph has count.
pub(crate) type Map = [u8; MAX_VERTICES];

/// An undirected graph with coloured vertices and edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColouredGraph {
    /// Number of vertices.
    pub(crate) n: usize,
    /// Colours of vertices.
    pub(crate) colours: [u16; MAX_VERTICES],
    /// Colours of edges from 1 to 15, 0 where there is none; symmetric.
    pub(crate) edges: [[u8; MAX_VERTICES]; MAX_VERTICES],
    /// 1 or -1 where the order of a vertex's neighbours matters up to even permutations: its sense for
    /// neighbours in ascending order. Otherwise 0.
    pub(crate) turns: [i8; MAX_VERTICES],
}

impl ColouredGraph {
    /// Without vertices.
    pub(crate) const EMPTY: Self = Self {
        n: 0,
        colours: [0; MAX_VERTICES],
        edges: [[0; MAX_VERTICES]; MAX_VERTICES],
        turns: [0; MAX_VERTICES],
    };

    /// The graph whose vertex k is this one's vertex `order[k]`.
    #[must_use]
    pub(crate) fn reordered(&self, order: &Map) -> Self {
        let mut new = Self { n: self.n, ..Self::EMPTY };
        let place = inverse(order, self.n);
        for k in 0..self.n {
            let old = usize::from(order[k]);
            new.colours[k] = self.colours[old];
            new.turns[k] = self.turned(old, &place);
            for (edge, &w) in new.edges[k].iter_mut().zip(&order[..self.n]) {
                *edge = self.edges[old][usize::from(w)];
            }
        }
        new
    }

    /// Whether a map of vertices is an odd permutation of the neighbours of one.
    pub(crate) fn is_odd_around(&self, vertex: usize, map: &Map) -> bool {
        let neighbours = || (0..self.n).filter(|&w| self.edges[vertex][w] > 0);
        let inversions =
            neighbours().map(|w| neighbours().filter(|&v| v < w && map[v] > map[w]).count());
        inversions.sum::<usize>() % 2 == 1
    }

    /// The turn of a vertex after a map of vertices.
    fn turned(&self, vertex: usize, map: &Map) -> i8 {
        match self.turns[vertex] {
            0 => 0,
            turn if self.is_odd_around(vertex, map) => -turn,
            turn => turn,
        }
    }
}

/// What a search has found.
#[derive(Clone, Debug)]
pub(crate) struct Symmetries {
    /// Vertex k of the canonical form is the graph's vertex `order[k]`.
    pub(crate) order: Map,
    /// Generators of the group of automorphisms: vertex v goes to `generator[v]`.
    pub(crate) generators: Vec<Map>,
    /// Number of automorphisms.
    pub(crate) n_automorphisms: u64,
}

impl Symmetries {
    /// Searches a graph.
    pub(crate) fn of(graph: &ColouredGraph) -> Self {
        let mut search = Search::new(graph);
        search.explore(search.first_ranks(), 1);
        Self {
            order: search.order,
            generators: search.generators,
            n_automorphisms: search.n_automorphisms,
        }
    }

    /// Those of the canonical form.
    #[must_use]
    pub(crate) fn of_canonical_form(mut self, n: usize) -> Self {
        let place = inverse(&self.order, n);
        for map in &mut self.generators {
            let old = *map;
            for k in 0..n {
                map[k] = place[usize::from(old[usize::from(self.order[k])])];
            }
        }
        self.order = identity();
        self
    }

    /// For each vertex of the graph, the first one of its orbit.
    pub(crate) fn orbits(&self, n: usize) -> Map {
        let mut first = identity();
        let pairs = self.generators.iter().flat_map(|map| (0..n).map(|v| (v, usize::from(map[v]))));
        unite(&mut first[..n], pairs);
        first
    }
}

/// Every vertex to itself.
pub(crate) fn identity() -> Map {
    std::array::from_fn(|v| v as u8)
}

/// The order that undoes another one.
pub(crate) fn inverse(order: &Map, n: usize) -> Map {
    let mut inverse = identity();
    for (k, &v) in order[..n].iter().enumerate() {
        inverse[usize::from(v)] = k as u8;
    }
    inverse
}

/// Unites the sets of things, each of which is known by its smallest member, along pairs that belong
/// together.
pub(crate) fn unite<T>(first: &mut [T], pairs: impl Iterator<Item = (usize, usize)>)
where
    T: Copy + TryFrom<usize>,
    usize: From<T>,
{
    fn root<T: Copy>(first: &[T], mut at: usize) -> usize
    where
        usize: From<T>,
    {
        while usize::from(first[at]) != at {
            at = usize::from(first[at]);
        }
        at
    }
    let name = |at: usize| T::try_from(at).ok().expect("things have names");
    for (a, b) in pairs {
        let (a, b) = (root(first, a), root(first, b));
        first[a.max(b)] = name(a.min(b));
    }
    for at in 0..first.len() {
        first[at] = name(root(first, at));
    }
}

/// Vertices that are alike have one rank: how many vertices come before them.
type Ranks = [u8; MAX_VERTICES];

/// A matrix in the order of a leaf of the search: for each vertex its edges to those before it.
type Code = [u64; MAX_VERTICES];

struct Search<'a> {
    graph: &'a ColouredGraph,
    neighbours: [[(u8, u8); MAX_VERTICES]; MAX_VERTICES],
    degrees: [u8; MAX_VERTICES],
    best: Option<Code>,
    order: Map,
    generators: Vec<Map>,
    n_automorphisms: u64,
}

/// Stirs a number.
fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl<'a> Search<'a> {
    fn new(graph: &'a ColouredGraph) -> Self {
        let mut neighbours = [[(0, 0); MAX_VERTICES]; MAX_VERTICES];
        let mut degrees = [0; MAX_VERTICES];
        for v in 0..graph.n {
            for w in 0..graph.n {
                if graph.edges[v][w] > 0 {
                    neighbours[v][usize::from(degrees[v])] = (w as u8, graph.edges[v][w]);
                    degrees[v] += 1;
                }
            }
        }
        Self {
            graph,
            neighbours,
            degrees,
            best: None,
            order: identity(),
            generators: Vec::new(),
            n_automorphisms: 0,
        }
    }

    fn neighbours_of(&self, v: usize) -> &[(u8, u8)] {
        &self.neighbours[v][..usize::from(self.degrees[v])]
    }

    /// By colour.
    fn first_ranks(&self) -> Ranks {
        let graph = self.graph;
        // A sense can only be told once its neighbours are apart: that there is one, at once.
        let keys: [u64; MAX_VERTICES] = std::array::from_fn(|v| {
            u64::from(graph.colours[v]) << 1 | u64::from(graph.turns[v] != 0)
        });
        self.ranked(&[0; MAX_VERTICES], &keys)
    }

    /// Ranks by rank first and by another key second.
    fn ranked(&self, ranks: &Ranks, keys: &[u64; MAX_VERTICES]) -> Ranks {
        let n = self.graph.n;
        let mut new = [0; MAX_VERTICES];
        for v in 0..n {
            let before = |&w: &usize| (ranks[w], keys[w]) < (ranks[v], keys[v]);
            new[v] = (0..n).filter(before).count() as u8;
        }
        new
    }

    /// Number of different ranks, as a set of them.
    fn distinct(&self, ranks: &Ranks) -> u32 {
        ranks[..self.graph.n].iter().fold(0u32, |set, &rank| set | 1 << rank).count_ones()
    }

    /// Tells vertices apart by their neighbours until that says nothing new.
    fn refine(&self, ranks: &mut Ranks) -> u32 {
        let n = self.graph.n;
        let mut distinct = self.distinct(ranks);
        while (distinct as usize) < n {
            let mut keys = [0u64; MAX_VERTICES];
            for (v, key) in keys.iter_mut().enumerate().take(n) {
                for &(w, edge) in self.neighbours_of(v) {
                    let seen = u64::from(ranks[usize::from(w)]) << 8 | u64::from(edge);
                    *key = key.wrapping_add(mixed(seen + 1));
                }
            }
            let finer = self.ranked(ranks, &keys);
            let n_finer = self.distinct(&finer);
            if n_finer == distinct {
                break;
            }
            (*ranks, distinct) = (finer, n_finer);
        }
        distinct
    }

    /// Explores all orders that agree with ranks; each stands for `times` orders with the same matrix.
    fn explore(&mut self, mut ranks: Ranks, times: u64) {
        let n = self.graph.n;
        if self.refine(&mut ranks) as usize == n {
            return self.leaf(&ranks, times);
        }
        let alike = |rank: u8| (0..n).filter(move |&v| ranks[v] == rank);
        let rank = (0..n as u8).find(|&rank| alike(rank).nth(1).is_some()).expect("some are alike");
        let mut cell = [0; MAX_VERTICES];
        let mut size = 0;
        for v in alike(rank) {
            cell[size] = v;
            size += 1;
        }
        let cell = &cell[..size];
        let first_before_others = |v: usize| {
            let mut apart = ranks;
            cell.iter().filter(|&&w| w != v).for_each(|&w| apart[w] += 1);
            apart
        };
        if self.share_a_stem(cell) {
            let mut swap = identity();
            swap.swap(cell[0], cell[1]);
            self.generators.push(swap);
            return self.explore(first_before_others(cell[0]), times * size as u64);
        }
        for &v in cell {
            self.explore(first_before_others(v), times);
        }
    }

    /// Whether vertices are leaves of one stem, whose order does not matter there.
    fn share_a_stem(&self, cell: &[usize]) -> bool {
        let stem = |v: usize| match self.neighbours_of(v) {
            &[(stem, _)] => Some(usize::from(stem)),
            _ => None,
        };
        let first = stem(cell[0]);
        first.is_some_and(|stem| self.graph.turns[stem] == 0)
            && cell.iter().all(|&v| stem(v) == first)
    }

    fn leaf(&mut self, ranks: &Ranks, times: u64) {
        let n = self.graph.n;
        let order = inverse(ranks, n);
        let mut code = [0; MAX_VERTICES];
        for (k, code) in code.iter_mut().enumerate().take(n) {
            let v = usize::from(order[k]);
            let edges = &self.graph.edges[v];
            let row =
                order[..k].iter().fold(0, |row, &w| row << 4 | u64::from(edges[usize::from(w)]));
            let turn = self.graph.turned(v, ranks);
            *code = row << 1 | u64::from(turn > 0);
        }
        match self.best.map(|best| code.cmp(&best)) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) => {
                self.n_automorphisms += times;
                let mut map = identity();
                for k in 0..n {
                    map[usize::from(self.order[k])] = order[k];
                }
                self.generators.push(map);
            }
            _ => {
                self.best = Some(code);
                self.order = order;
                self.n_automorphisms = times;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gfn_core::rng::{Purpose, Streams};
    use rand::seq::SliceRandom;

    use super::*;

    fn graph(n: usize, edges: &[(usize, usize)]) -> ColouredGraph {
        let mut graph = ColouredGraph { n, ..ColouredGraph::EMPTY };
        for &(v, w) in edges {
            (graph.edges[v][w], graph.edges[w][v]) = (1, 1);
        }
        graph
    }

    fn cycle(n: usize) -> Vec<(usize, usize)> {
        (0..n).map(|v| (v, (v + 1) % n)).collect()
    }

    fn complete(parts: &[usize]) -> ColouredGraph {
        let of: Vec<usize> = parts.iter().enumerate().flat_map(|(i, &n)| vec![i; n]).collect();
        let pairs = (0..of.len()).flat_map(|v| (0..v).map(move |w| (w, v)));
        let edges: Vec<_> = pairs.filter(|&(v, w)| of[v] != of[w]).collect();
        graph(of.len(), &edges)
    }

    /// Groups that textbooks know.
    fn known() -> Vec<(ColouredGraph, u64)> {
        let mut path = graph(4, &[(0, 1), (1, 2), (2, 3)]);
        let star = graph(9, &[(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (2, 7), (2, 8)]);
        let cube = (0..8usize).flat_map(|v| [1, 2, 4].map(|bit| (v, v ^ bit)));
        let petersen: Vec<_> =
            (0..5).flat_map(|v| [(v, (v + 1) % 5), (v, v + 5), (v + 5, (v + 2) % 5 + 5)]).collect();
        let mut kekule = graph(6, &cycle(6));
        for v in [0, 2, 4] {
            (kekule.edges[v][v + 1], kekule.edges[v + 1][v]) = (2, 2);
        }
        let mut groups = vec![
            (ColouredGraph::EMPTY, 1),
            (graph(1, &[]), 1),
            (path.clone(), 2),
            (graph(6, &cycle(6)), 12),
            (kekule, 6),
            (complete(&[1; 4]), 24),
            (complete(&[3, 3]), 72),
            (complete(&[1, 8]), 40_320),
            (graph(8, &cube.collect::<Vec<_>>()), 48),
            (graph(10, &petersen), 120),
            (star, 16),
        ];
        path.colours[3] = 7;
        groups.push((path, 1));
        groups
    }

    #[test]
    fn groups_have_the_orders_that_textbooks_know() {
        for (graph, order) in known() {
            let found = Symmetries::of(&graph);
            assert_eq!(found.n_automorphisms, order, "{graph:?}");
            for map in &found.generators {
                let place = inverse(map, graph.n);
                assert_eq!(graph.reordered(&place), graph, "generators are symmetries");
            }
        }
        let orbits = |graph: &ColouredGraph| Symmetries::of(graph).orbits(graph.n);
        assert_eq!(orbits(&known()[2].0)[..4], [0, 1, 1, 0]);
        assert_eq!(orbits(&known()[10].0)[..9], [0, 1, 1, 3, 3, 5, 5, 5, 5]);
    }

    #[test]
    fn canonical_forms_do_not_depend_on_the_order() {
        let mut rng = Streams::new(4).get(Purpose::Test, 0);
        for (mut graph, _) in known() {
            for turned in [false, true] {
                if turned {
                    graph.turns[..graph.n].fill(1);
                }
                let form = |graph: &ColouredGraph| graph.reordered(&Symmetries::of(graph).order);
                let expected = form(&graph);
                for _ in 0..50 {
                    let mut order = identity();
                    order[..graph.n].shuffle(&mut rng);
                    let other = graph.reordered(&order);
                    assert_eq!(form(&other), expected);
                    let found = Symmetries::of(&other);
                    assert_eq!(found.n_automorphisms, Symmetries::of(&graph).n_automorphisms);
                    let moved = found.of_canonical_form(graph.n);
                    for map in &moved.generators {
                        assert_eq!(expected.reordered(&inverse(map, graph.n)), expected);
                    }
                }
            }
        }
    }

    /// A centre with a sense has the rotations of its neighbours, not the reflections.
    #[test]
    fn senses_halve_the_group() {
        let mut star = complete(&[1, 4]);
        assert_eq!(Symmetries::of(&star).n_automorphisms, 24);
        star.turns[0] = 1;
        assert_eq!(Symmetries::of(&star).n_automorphisms, 12);
        star.colours[1..5].copy_from_slice(&[1, 2, 3, 4]);
        let mut mirrored = star.clone();
        mirrored.turns[0] = -1;
        let form = |graph: &ColouredGraph| graph.reordered(&Symmetries::of(graph).order);
        assert_ne!(form(&star), form(&mirrored));
        mirrored.colours.swap(1, 2);
        assert_eq!(form(&star), form(&mirrored));
    }
}
