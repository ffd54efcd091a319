//! Directed acyclic graphs over at most 64 nodes, as masks of parents.
//!
//! A graph is a slice of d words: bit j of word i says that there is an edge j -> i. Nothing here
//! checks that a graph is acyclic unless it says so.

/// The most nodes a graph can have.
pub const MAX_NODES: usize = 64;

/// The mask of node `i` alone.
pub const fn bit(i: usize) -> u64 {
    1 << i
}

/// The mask of nodes 0..d.
pub const fn all_nodes(d: usize) -> u64 {
    if d >= 64 { u64::MAX } else { (1 << d) - 1 }
}

/// The nodes in a mask, ascending.
pub fn nodes_of(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let node = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (node < 64).then_some(node)
    })
}

/// Number of edges.
pub fn n_edges(parents: &[u64]) -> usize {
    parents.iter().map(|mask| mask.count_ones() as usize).sum()
}

/// Masks of children: the transpose.
pub fn children(parents: &[u64]) -> Vec<u64> {
    let mut children = vec![0; parents.len()];
    for (i, &mask) in parents.iter().enumerate() {
        nodes_of(mask).for_each(|j| children[j] |= bit(i));
    }
    children
}

/// The nodes with parents before children, the lowest first among equals; none if there is a cycle.
pub fn topological_order(parents: &[u64]) -> Option<Vec<usize>> {
    let (mut order, mut placed) = (Vec::with_capacity(parents.len()), 0);
    while order.len() < parents.len() {
        let free = |&i: &usize| placed & bit(i) == 0 && parents[i] & !placed == 0;
        let next = (0..parents.len()).find(free)?;
        placed |= bit(next);
        order.push(next);
    }
    Some(order)
}

/// Whether there is no directed cycle.
pub fn is_acyclic(parents: &[u64]) -> bool {
    topological_order(parents).is_some()
}

/// The transitive closure of a DAG: bit j of word i says that there is a path j -> … -> i.
///
/// # Panics
/// When the graph has a cycle.
pub fn ancestors(parents: &[u64]) -> Vec<u64> {
    let mut ancestors = vec![0; parents.len()];
    for i in topological_order(parents).expect("a DAG has an order") {
        ancestors[i] = nodes_of(parents[i]).fold(parents[i], |mask, j| mask | ancestors[j]);
    }
    ancestors
}

/// Whether the edge `from` -> `to` would close a cycle in a DAG with these [`ancestors`].
pub fn closes_cycle(ancestors: &[u64], from: usize, to: usize) -> bool {
    from == to || ancestors[from] & bit(to) != 0
}

/// Brings [`ancestors`] up to date when the edge `from` -> `to` is added. After a removal they
/// have to be computed anew.
pub fn add_to_ancestors(ancestors: &mut [u64], from: usize, to: usize) {
    let new = ancestors[from] | bit(from);
    for (i, mask) in ancestors.iter_mut().enumerate() {
        if i == to || *mask & bit(to) != 0 {
            *mask |= new;
        }
    }
}

/// Masks of Markov blankets in a DAG: parents, children, and the children's other parents.
pub fn markov_blankets(parents: &[u64]) -> Vec<u64> {
    let mut blankets: Vec<u64> = parents.to_vec();
    for (i, &mask) in parents.iter().enumerate() {
        for j in nodes_of(mask) {
            blankets[j] |= bit(i) | (mask & !bit(j));
        }
    }
    blankets
}

/// Masks of neighbours, whatever the direction.
pub fn skeleton(parents: &[u64]) -> Vec<u64> {
    parents.iter().zip(children(parents)).map(|(parents, children)| parents | children).collect()
}

/// Number of unordered pairs of nodes between which two graphs differ: the structural Hamming
/// distance, in which a reversed edge counts once. Both DAGs, or both from [`cpdag`].
pub fn shd(a: &[u64], b: &[u64]) -> usize {
    let different: Vec<u64> = a.iter().zip(b).map(|(a, b)| a ^ b).collect();
    n_edges(&skeleton(&different)) / 2
}

/// The essential graph of a DAG's Markov equivalence class: bit j of word i says that some member
/// has the edge j -> i, so an edge that can be reversed is there in both directions.
///
/// The edges of v-structures, closed under the rules 1 to 3 of Meek (1995); rule 4 is needed only
/// with knowledge from elsewhere.
pub fn cpdag(parents: &[u64]) -> Vec<u64> {
    let adjacent = skeleton(parents);
    let mut compelled = vec![0u64; parents.len()];
    for (i, &mask) in parents.iter().enumerate() {
        for j in nodes_of(mask) {
            if mask & !adjacent[j] & !bit(j) != 0 {
                compelled[i] |= bit(j);
            }
        }
    }
    loop {
        let mut changed = false;
        for i in 0..parents.len() {
            for j in nodes_of(parents[i] & !compelled[i]) {
                if is_compelled(&adjacent, &compelled, j, i) {
                    compelled[i] |= bit(j);
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    let undecided: Vec<u64> =
        parents.iter().zip(&compelled).map(|(parents, compelled)| parents & !compelled).collect();
    compelled.iter().zip(skeleton(&undecided)).map(|(compelled, both)| compelled | both).collect()
}

/// Whether one of Meek's rules directs j -> i, an edge of the DAG that is undecided so far.
///
/// The rules are sound, so only the direction that the DAG has needs to be tried.
fn is_compelled(adjacent: &[u64], compelled: &[u64], j: usize, i: usize) -> bool {
    // 1: k -> j - i, with k and i not adjacent.
    if compelled[j] & !adjacent[i] & !bit(i) != 0 {
        return true;
    }
    // 2: j -> k -> i.
    if nodes_of(compelled[i]).any(|k| compelled[k] & bit(j) != 0) {
        return true;
    }
    // 3: j - k -> i and j - l -> i, with k and l not adjacent.
    let undecided = |k: usize| (compelled[k] & bit(j)) == 0 && (compelled[j] & bit(k)) == 0;
    let middle = compelled[i] & adjacent[j];
    let middle = nodes_of(middle).filter(|&k| undecided(k)).fold(0, |mask, k| mask | bit(k));
    nodes_of(middle).any(|k| middle & !adjacent[k] & !bit(k) != 0)
}

/// Calls `visit` with every DAG over `d` nodes: 1, 3, 25, 543, 29281, 3781503 for d = 1 to 6.
pub fn for_each_dag(d: usize, mut visit: impl FnMut(&[u64])) {
    let pairs: Vec<(usize, usize)> = (0..d).flat_map(|i| (i + 1..d).map(move |j| (i, j))).collect();
    extend(&pairs, &mut vec![0; d], &vec![0; d], &mut visit);
}

/// All ways to join the remaining pairs: not at all, or in a direction that closes no cycle.
fn extend(
    pairs: &[(usize, usize)],
    parents: &mut Vec<u64>,
    ancestors: &[u64],
    visit: &mut impl FnMut(&[u64]),
) {
    let Some((&(i, j), rest)) = pairs.split_first() else { return visit(parents) };
    extend(rest, parents, ancestors, visit);
    for (from, to) in [(i, j), (j, i)] {
        if !closes_cycle(ancestors, from, to) {
            let mut grown = ancestors.to_vec();
            add_to_ancestors(&mut grown, from, to);
            parents[to] |= bit(from);
            extend(rest, parents, &grown, visit);
            parents[to] &= !bit(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn dags(d: usize) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        for_each_dag(d, |parents| all.push(parents.to_vec()));
        all
    }

    #[test]
    fn every_dag_once() {
        for (d, n) in [(1, 1), (2, 3), (3, 25), (4, 543), (5, 29281)] {
            let all = dags(d);
            assert!(all.iter().all(|parents| is_acyclic(parents)));
            assert_eq!(all.len(), n);
            assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), n);
        }
        let mut n = 0;
        for_each_dag(6, |_| n += 1);
        assert_eq!(n, 3_781_503);
    }

    /// Against all graphs, cyclic or not, by powers of the adjacency matrix.
    #[test]
    fn cycles_and_paths_by_matrix_powers() {
        let d = 4;
        let slots: Vec<(usize, usize)> =
            (0..d).flat_map(|i| (0..d).filter(move |&j| j != i).map(move |j| (i, j))).collect();
        let mut n = 0;
        for code in 0..1u64 << slots.len() {
            let mut parents = vec![0; d];
            for (k, &(i, j)) in slots.iter().enumerate() {
                parents[i] |= (code >> k & 1) << j;
            }
            let mut reach = parents.clone();
            for _ in 0..d {
                reach = reach
                    .iter()
                    .map(|&mask| nodes_of(mask).fold(mask, |mask, j| mask | parents[j]))
                    .collect();
            }
            let acyclic = (0..d).all(|i| reach[i] & bit(i) == 0);
            assert_eq!(acyclic, is_acyclic(&parents));
            if acyclic {
                n += 1;
                assert_eq!(reach, ancestors(&parents));
                let order = topological_order(&parents).unwrap();
                let place = |i| order.iter().position(|&k| k == i).unwrap();
                let forward = |i: usize| nodes_of(parents[i]).all(|j| place(j) < place(i));
                assert!((0..d).all(forward));
            }
        }
        assert_eq!(n, 543);
    }

    #[test]
    fn blankets_by_definition() {
        for parents in dags(4) {
            let edge = |j: usize, i: usize| parents[i] & bit(j) != 0;
            for (i, blanket) in markov_blankets(&parents).into_iter().enumerate() {
                for j in 0..4 {
                    let shared = (0..4).any(|k| edge(i, k) && edge(j, k));
                    let expected = i != j && (edge(i, j) || edge(j, i) || shared);
                    assert_eq!(blanket & bit(j) != 0, expected, "{parents:?} {i} {j}");
                }
            }
        }
    }

    /// Two DAGs are equivalent when skeleton and v-structures agree (Verma and Pearl, 1990); the
    /// essential graph is the union of all equivalent DAGs (Andersson et al., 1997).
    #[test]
    fn essential_graphs_are_unions_of_markov_classes() {
        for (d, n) in [(2, 2), (3, 11), (4, 185), (5, 8782)] {
            let mut classes: BTreeMap<_, Vec<Vec<u64>>> = BTreeMap::new();
            for parents in dags(d) {
                let adjacent = skeleton(&parents);
                let mut colliders = Vec::new();
                for (i, &mask) in parents.iter().enumerate() {
                    for j in nodes_of(mask) {
                        let others = nodes_of(mask & !adjacent[j]).filter(|&k| k > j);
                        colliders.extend(others.map(|k| (i, j, k)));
                    }
                }
                classes.entry((adjacent, colliders)).or_default().push(parents);
            }
            assert_eq!(classes.len(), n);
            for members in classes.values() {
                let union = |i: usize| members.iter().fold(0, |mask, parents| mask | parents[i]);
                let union: Vec<u64> = (0..d).map(union).collect();
                assert!(members.iter().all(|parents| cpdag(parents) == union), "{members:?}");
            }
            let distinct: BTreeSet<Vec<u64>> = dags(d).iter().map(|dag| cpdag(dag)).collect();
            assert_eq!(distinct.len(), n);
        }
    }

    #[test]
    fn distances_count_pairs() {
        let chain = [0, 1, 2];
        let reversed = [2, 4, 0];
        let collider = [0, 0b101, 0];
        assert_eq!(shd(&chain, &chain), 0);
        assert_eq!(shd(&chain, &reversed), 2);
        assert_eq!(shd(&chain, &collider), 1);
        assert_eq!(shd(&chain, &[0, 0, 0]), 2);
        // One class; a chain can be directed three ways, a collider one.
        assert_eq!(shd(&cpdag(&chain), &cpdag(&reversed)), 0);
        assert_eq!(shd(&cpdag(&chain), &cpdag(&collider)), 2);
        // The matrix form: half the sum of min(1, D + D^T), D = |A - B|.
        for a in dags(3) {
            for b in dags(3) {
                let differ = |i: usize, j: usize| (a[i] ^ b[i]) >> j & 1;
                let pairs = (0..9).map(|k| (differ(k / 3, k % 3) + differ(k % 3, k / 3)).min(1));
                assert_eq!(shd(&a, &b) as u64, pairs.sum::<u64>() / 2);
            }
        }
    }

    #[test]
    fn sixty_four_nodes() {
        let chain: Vec<u64> = (0..64).map(|i| if i == 0 { 0 } else { bit(i - 1) }).collect();
        assert_eq!(ancestors(&chain)[63], u64::MAX >> 1);
        let mut grown = vec![0; 64];
        (1..64).for_each(|i| add_to_ancestors(&mut grown, i - 1, i));
        assert_eq!(grown, ancestors(&chain));
        assert!(closes_cycle(&grown, 63, 0) && !closes_cycle(&grown, 0, 63));
        assert_eq!(n_edges(&cpdag(&chain)), 126);
        assert_eq!(all_nodes(64).count_ones(), 64);
    }
}
