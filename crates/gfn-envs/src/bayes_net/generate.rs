//! Random networks and data drawn from them, the same on every machine.

use std::collections::BTreeMap;

use gfn_core::KeyError;
use gfn_core::normal::{ln, normal};
use gfn_core::rng::{Purpose, Streams};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::data::{Columns, DiscreteColumn, Table};
use super::graph::{MAX_NODES, bit, nodes_of, topological_order};

/// What is drawn; each has a stream of its own, so that more rows come from the same network.
#[derive(Clone, Copy)]
enum Part {
    Graph = 0,
    Weights = 1,
    Rows = 2,
}

fn stream(seed: u64, part: Part) -> ChaCha8Rng {
    Streams::new(seed).get(Purpose::Task, part as u64)
}

fn check_nodes(d: usize) -> Result<(), KeyError> {
    if (1..=MAX_NODES).contains(&d) {
        return Ok(());
    }
    Err(KeyError::new("d", format!("{d} nodes; expected 1 to {MAX_NODES}")))
}

/// 0..d in random order, by Fisher and Yates.
fn shuffled(d: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..d).collect();
    for i in (1..d).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

/// A random order of `d` nodes, and each pair joined along it with one probability, such that
/// `edges` are expected. Masks of parents.
///
/// # Errors
/// When there are no nodes or more than 64, or more edges expected than pairs.
pub fn erdos_renyi(d: usize, edges: f64, seed: u64) -> Result<Vec<u64>, KeyError> {
    check_nodes(d)?;
    let pairs = (d * (d - 1) / 2) as f64;
    if !(0.0..=pairs).contains(&edges) {
        let message = format!("{edges} expected edges; {d} nodes have 0 to {pairs}");
        return Err(KeyError::new("expected_edges", message));
    }
    let mut rng = stream(seed, Part::Graph);
    let order = shuffled(d, &mut rng);
    let mut parents = vec![0; d];
    for (place, &to) in order.iter().enumerate() {
        for &from in &order[..place] {
            if rng.random::<f64>() * pairs < edges {
                parents[to] |= bit(from);
            }
        }
    }
    Ok(parents)
}

/// Nodes arrive in random order and get `edges_per_node` parents each (fewer while there are not
/// as many), with probability proportional to the number of edges those have, plus one (Barabási
/// and Albert, 1999). Masks of parents.
///
/// # Errors
/// When there are no nodes or more than 64, or no edges per node.
pub fn scale_free(d: usize, edges_per_node: usize, seed: u64) -> Result<Vec<u64>, KeyError> {
    check_nodes(d)?;
    if edges_per_node == 0 {
        return Err(KeyError::new("edges_per_node", "0 edges per node; expected at least 1"));
    }
    let mut rng = stream(seed, Part::Graph);
    let order = shuffled(d, &mut rng);
    let (mut parents, mut degrees) = (vec![0u64; d], vec![0; d]);
    for (place, &to) in order.iter().enumerate() {
        let mut candidates = order[..place].to_vec();
        for _ in 0..edges_per_node.min(place) {
            let total: usize = candidates.iter().map(|&from| degrees[from] + 1).sum();
            let mut point = rng.random_range(0..total as u64) as usize;
            let hit = candidates.iter().position(|&from| {
                let weight = degrees[from] + 1;
                let hit = point < weight;
                point = point.wrapping_sub(weight);
                hit
            });
            let from = candidates.swap_remove(hit.expect("the point lies below the total"));
            parents[to] |= bit(from);
        }
        for from in nodes_of(parents[to]) {
            degrees[from] += 1;
            degrees[to] += 1;
        }
    }
    Ok(parents)
}

/// Names of `d` nodes: A to Z, or X1, X2, … if those do not suffice.
pub fn node_names(d: usize) -> Vec<String> {
    match d {
        0..=26 => ('A'..='Z').take(d).map(String::from).collect(),
        _ => (1..=d).map(|i| format!("X{i}")).collect(),
    }
}

/// A linear-Gaussian network and what was drawn from it.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearGaussianData {
    /// Row i, column j: the weight of i -> j; 0 where there is no edge.
    pub weights: Vec<Vec<f64>>,
    /// The observations.
    pub table: Table,
}

/// Weights from N(0, 1); every node is the weighted sum of its parents and N(0, `noise`^2).
///
/// # Errors
/// When there are fewer than two rows, or `noise` is not above 0.
///
/// # Panics
/// When the graph has a cycle.
pub fn linear_gaussian(
    parents: &[u64],
    n_rows: usize,
    noise: f64,
    seed: u64,
) -> Result<LinearGaussianData, KeyError> {
    check_rows(n_rows)?;
    if !(noise > 0.0 && noise.is_finite()) {
        let message = "the noise must be above 0";
        return Err(KeyError::new("noise", message).help("it is a standard deviation"));
    }
    let d = parents.len();
    let order = topological_order(parents).expect("the graph is acyclic");
    let mut rng = stream(seed, Part::Weights);
    let mut weights = vec![vec![0.0; d]; d];
    for (j, &mask) in parents.iter().enumerate() {
        nodes_of(mask).for_each(|i| weights[i][j] = normal(&mut rng));
    }
    let mut rng = stream(seed, Part::Rows);
    let mut columns = vec![Vec::with_capacity(n_rows); d];
    for row in 0..n_rows {
        for &j in &order {
            let mean: f64 = nodes_of(parents[j]).map(|i| weights[i][j] * columns[i][row]).sum();
            let value = mean + noise * normal(&mut rng);
            columns[j].push(value);
        }
    }
    let columns = Columns::Continuous(columns);
    let table = Table { names: node_names(d), columns, interventions: Vec::new() };
    Ok(LinearGaussianData { weights, table })
}

/// Discrete data: for every configuration of its parents a node has probabilities of its `n_states`
/// states from the uniform Dirichlet distribution.
///
/// # Errors
/// When there are fewer than two rows or states, or more than 1000 states.
///
/// # Panics
/// When the graph has a cycle.
pub fn discrete(
    parents: &[u64],
    n_states: usize,
    n_rows: usize,
    seed: u64,
) -> Result<Table, KeyError> {
    check_rows(n_rows)?;
    if !(2..=1000).contains(&n_states) {
        return Err(KeyError::new("n_states", format!("{n_states} states; expected 2 to 1000")));
    }
    let order = topological_order(parents).expect("the graph is acyclic");
    let mut tables: Vec<BTreeMap<Vec<u32>, Vec<f64>>> = vec![BTreeMap::new(); parents.len()];
    let (mut weights, mut rng) = (stream(seed, Part::Weights), stream(seed, Part::Rows));
    let mut values: Vec<Vec<u32>> = vec![Vec::with_capacity(n_rows); parents.len()];
    for row in 0..n_rows {
        for &j in &order {
            let configuration = nodes_of(parents[j]).map(|i| values[i][row]).collect();
            // Cumulated exponentials: proportional to a Dirichlet variable.
            let cumulated = tables[j].entry(configuration).or_insert_with(|| {
                let mut total = 0.0;
                let one = |_| {
                    total -= ln(1.0 - weights.random::<f64>());
                    total
                };
                (0..n_states).map(one).collect()
            });
            let point = rng.random::<f64>() * cumulated[n_states - 1];
            let state = cumulated.partition_point(|&sum| sum <= point).min(n_states - 1);
            values[j].push(state as u32);
        }
    }
    let states: Vec<String> = (0..n_states).map(|state| state.to_string()).collect();
    let column = |values| DiscreteColumn { states: states.clone(), values };
    let columns = Columns::Discrete(values.into_iter().map(column).collect());
    Ok(Table { names: node_names(parents.len()), columns, interventions: Vec::new() })
}

fn check_rows(n_rows: usize) -> Result<(), KeyError> {
    const MOST: usize = 1_000_000;
    if (2..=MOST).contains(&n_rows) {
        return Ok(());
    }
    Err(KeyError::new("n_rows", format!("{n_rows} rows; expected 2 to {MOST}")))
}

#[cfg(test)]
mod tests {
    use super::super::graph::{is_acyclic, n_edges};
    use super::*;

    /// Across machines, too: a change here would silently change every generated task.
    #[test]
    fn values_are_pinned() {
        let parents = erdos_renyi(5, 5.0, 7).unwrap();
        assert_eq!(parents, PARENTS);
        let data = linear_gaussian(&parents, 3, 0.1, 7).unwrap();
        let Columns::Continuous(columns) = &data.table.columns else { panic!("continuous") };
        assert_eq!(columns[4][2].to_bits(), VALUE.to_bits(), "{}", columns[4][2]);
        let longer = linear_gaussian(&parents, 9, 0.1, 7).unwrap();
        let Columns::Continuous(more) = &longer.table.columns else { panic!("continuous") };
        assert_eq!((&longer.weights, &more[4][..3]), (&data.weights, &columns[4][..]));
    }

    const PARENTS: [u64; 5] = [0, 1, 24, 0, 9];
    const VALUE: f64 = 0.252_600_059_399_534_17;

    #[test]
    fn numbers_of_edges() {
        let mean = |f: &dyn Fn(u64) -> Vec<u64>| {
            let counts = (0..2000).map(|seed| {
                let parents = f(seed);
                assert!(is_acyclic(&parents));
                n_edges(&parents) as f64
            });
            counts.sum::<f64>() / 2000.0
        };
        // 10 of 28 pairs: a standard error of 0.06.
        assert!((mean(&|seed| erdos_renyi(8, 10.0, seed).unwrap()) - 10.0).abs() < 0.25);
        // The second node has one parent, the third and all later ones two.
        assert!((mean(&|seed| scale_free(10, 2, seed).unwrap()) - 17.0).abs() < 1e-12);
        let both = mean(&|seed| {
            let parents = erdos_renyi(3, 1.5, seed).unwrap();
            vec![parents[0] & 2, parents[1] & 1]
        });
        // Either direction of a pair.
        assert!((both - 0.5).abs() < 0.05);
        assert_eq!(n_edges(&erdos_renyi(6, 15.0, 0).unwrap()), 15);
    }

    /// Preferential attachment: the three nodes with most edges have far more of them than in a
    /// random graph.
    #[test]
    fn scale_free_graphs_have_hubs() {
        let hubs = |parents: &[u64]| {
            let mut degrees: Vec<u32> = super::super::graph::skeleton(parents)
                .iter()
                .map(|mask| mask.count_ones())
                .collect();
            degrees.sort_unstable();
            degrees.iter().rev().take(3).sum::<u32>()
        };
        let total = |f: &dyn Fn(u64) -> Vec<u64>| (0..200).map(|seed| hubs(&f(seed))).sum::<u32>();
        let scale_free = total(&|seed| scale_free(60, 1, seed).unwrap());
        let random = total(&|seed| erdos_renyi(60, 59.0, seed).unwrap());
        assert!(f64::from(scale_free) > 1.4 * f64::from(random), "{scale_free} {random}");
    }

    #[test]
    fn data_follow_their_network() {
        // A -> B -> C and A -> C; regression of C on both finds the weights.
        let data = linear_gaussian(&[0, 1, 3], 20_000, 0.5, 3).unwrap();
        let Columns::Continuous(x) = &data.table.columns else { panic!("continuous") };
        let dot = |i: usize, j: usize| x[i].iter().zip(&x[j]).map(|(a, b)| a * b).sum::<f64>();
        let determinant = dot(0, 0) * dot(1, 1) - dot(0, 1).powi(2);
        let a = (dot(0, 2) * dot(1, 1) - dot(1, 2) * dot(0, 1)) / determinant;
        let b = (dot(1, 2) * dot(0, 0) - dot(0, 2) * dot(0, 1)) / determinant;
        assert!((a - data.weights[0][2]).abs() < 0.03 && (b - data.weights[1][2]).abs() < 0.03);
        assert!((dot(0, 0) / 20_000.0 - 0.25).abs() < 0.01);

        // A child depends on its parent: the table of counts is far from independence.
        let table = discrete(&[0, 1, 0], 3, 6000, 1).unwrap();
        let Columns::Discrete(columns) = &table.columns else { panic!("discrete") };
        let statistic = |i: usize, j: usize| {
            let count =
                |test: &dyn Fn(usize) -> bool| (0..6000).filter(|&row| test(row)).count() as f64;
            let value = |k: usize, row: usize| columns[k].values[row] as usize;
            let cells = (0..9).map(|cell| {
                let [a, b] = [cell / 3, cell % 3];
                let expected =
                    count(&|row| value(i, row) == a) * count(&|row| value(j, row) == b) / 6000.0;
                let found = count(&|row| value(i, row) == a && value(j, row) == b);
                (found - expected).powi(2) / expected.max(1e-9)
            });
            cells.sum::<f64>()
        };
        assert!(statistic(0, 1) > 100.0 && statistic(0, 2) < 20.0);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        assert!(erdos_renyi(0, 0.0, 0).is_err() && erdos_renyi(65, 0.0, 0).is_err());
        assert!(erdos_renyi(5, 11.0, 0).is_err() && erdos_renyi(5, -1.0, 0).is_err());
        assert!(scale_free(5, 0, 0).is_err());
        assert!(linear_gaussian(&[0], 1, 0.1, 0).is_err());
        assert!(linear_gaussian(&[0], 2, 0.0, 0).is_err());
        assert!(discrete(&[0], 1, 2, 0).is_err() && discrete(&[0], 2, 0, 0).is_err());
        assert_eq!(node_names(3), ["A", "B", "C"]);
        assert_eq!(node_names(40)[39], "X40");
    }
}
