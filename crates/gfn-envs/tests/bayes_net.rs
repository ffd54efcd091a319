//! Bayesian networks against reference data, published anchors and laws of the scores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gfn_core::special::log_sum_exp;
use gfn_envs::bayes_net::data::{DataKind, Table};
use gfn_envs::bayes_net::generate;
use gfn_envs::bayes_net::graph::{
    ancestors, bit, cpdag, for_each_dag, markov_blankets, n_edges, nodes_of, shd,
};
use gfn_envs::bayes_net::posterior::Posterior;
use gfn_envs::bayes_net::posterior::wide::Wide;
use gfn_envs::bayes_net::score::LocalScore;
use gfn_envs::bayes_net::score::bde::Bde;
use gfn_envs::bayes_net::score::bge::Bge;
use gfn_envs::bayes_net::score::cache::Cached;
use gfn_envs::bayes_net::score::linear_gaussian::LinearGaussian;
use gfn_envs::bayes_net::score::local_scores::LocalScores;
use gfn_envs::bayes_net::score::modular::{Constraints, Modular};
use gfn_envs::bayes_net::score::prior::Prior;
use serde_json::Value;

const LIMIT: u64 = 1 << 30;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("GFN_REFERENCE_DATA")).join(name)).unwrap()
}

fn continuous(name: &str) -> Table {
    Table::parse(read(name).as_bytes(), DataKind::Continuous, None).unwrap()
}

fn sachs() -> Table {
    let mut table = continuous("sachs_observational.csv");
    table.standardise(1);
    table
}

fn bge(table: &Table) -> Arc<dyn LocalScore> {
    Arc::new(Bge::new(table, 1.0, None).unwrap())
}

fn linear_gaussian(table: &Table) -> Arc<dyn LocalScore> {
    Arc::new(LinearGaussian::new(table, 0.0, 1.0, 0.1f64.sqrt()).unwrap())
}

/// Rows of a CSV file of numbers, without its header.
fn numbers(name: &str) -> Vec<Vec<f64>> {
    let row = |line: &str| line.split(',').map(|field| field.parse().unwrap()).collect();
    read(name).lines().skip(1).map(row).collect()
}

fn total(score: &dyn LocalScore, dag: &[u64]) -> f64 {
    dag.iter().enumerate().map(|(node, &parents)| score.score(node, parents)).sum()
}

/// Masks of parents from the reference's code: bit i d + j for i -> j.
fn decode(code: u64, d: usize) -> Vec<u64> {
    let parents = |j: usize| (0..d).fold(0, |mask, i| mask | (code >> (i * d + j) & 1) << i);
    (0..d).map(parents).collect()
}

fn matrix_of(matrix: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(matrix.clone()).unwrap()
}

/// Edge, path and Markov-blanket marginals and the entropy, by enumeration.
fn enumerate(modular: &Modular) -> ([Vec<Vec<f64>>; 3], f64, f64) {
    let d = modular.n_nodes();
    let mut dags = Vec::new();
    for_each_dag(d, |dag| dags.push((dag.to_vec(), modular.log_reward(dag))));
    let log_z = log_sum_exp(dags.iter().map(|(_, log_reward)| *log_reward));
    let mut marginals = [(); 3].map(|()| vec![vec![0.0; d]; d]);
    let mut entropy = 0.0;
    for (dag, log_reward) in &dags {
        let p = (log_reward - log_z).exp();
        entropy -= p * (log_reward - log_z);
        for (matrix, masks) in
            marginals.iter_mut().zip([dag.clone(), ancestors(dag), markov_blankets(dag)])
        {
            for (j, mask) in masks.into_iter().enumerate() {
                nodes_of(mask).for_each(|i| matrix[i][j] += p);
            }
        }
    }
    (marginals, log_z, entropy)
}

fn assert_close(a: &[Vec<f64>], b: &[Vec<f64>], tolerance: f64) {
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < tolerance, "{a} {b}");
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn scores_of_all_parent_sets_and_dags() {
    for d in [3, 4] {
        let table = continuous(&format!("golden/bn_d{d}_data.csv"));
        let scores = [bge(&table), linear_gaussian(&table)];
        let locals = numbers(&format!("golden/bn_d{d}_local_scores.csv"));
        assert_eq!(locals.len(), d << (d - 1));
        for row in locals {
            for (score, expected) in scores.iter().zip(&row[2..]) {
                let got = score.score(row[0] as usize, row[1] as u64);
                assert!((got - expected).abs() < 1e-9, "{row:?}: {got}");
            }
        }
        let dags = numbers(&format!("golden/bn_d{d}_all_dags.csv"));
        assert_eq!(dags.len(), if d == 3 { 25 } else { 543 });
        for row in dags {
            let dag = decode(row[0] as u64, d);
            for (score, expected) in scores.iter().zip(&row[1..]) {
                let got = total(&**score, &dag);
                assert!((got - expected).abs() < 2e-7, "{row:?}: {got}");
            }
        }
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn posteriors_of_the_summary() {
    let summary: Value = serde_json::from_str(&read("golden/bn_summary.json")).unwrap();
    for d in [3, 4] {
        let table = continuous(&format!("golden/bn_d{d}_data.csv"));
        let both = [("bge", bge(&table)), ("lingauss", linear_gaussian(&table))];
        for (name, score) in both {
            let expected = &summary[format!("d{d}")][name];
            let number = |key: &str| expected[key].as_f64().unwrap();
            let log_empty = total(&*score, &vec![0; d]);
            assert!((log_empty - number("log_score_empty")).abs() < 1e-9);
            let modular = Modular::of(score).unwrap();
            let posterior = Posterior::new(&modular, LIMIT).unwrap();
            let marginals = posterior.marginals();
            for (got, key) in [
                (posterior.log_z(), "log_partition_relative_to_empty"),
                (marginals.entropy, "entropy"),
                (marginals.expected_log_reward, "mean_log_reward"),
                (marginals.expected_edges, "expected_edges"),
            ] {
                assert!((got - number(key)).abs() < 1e-9, "{d} {name} {key}: {got}");
            }
            let map = decode(expected["map_code"].as_u64().unwrap(), d);
            let p = (modular.log_reward(&map) - posterior.log_z()).exp();
            assert!((p - number("map_prob")).abs() < 1e-9);
            let matrix = |key: &str| matrix_of(&expected[key]);
            assert_close(&marginals.edges, &matrix("edge_marginals"), 1e-9);
            assert_close(&marginals.paths, &matrix("path_marginals"), 1e-9);
            let ([edges, paths, blankets], ..) = enumerate(&modular);
            assert_close(&edges, &matrix("edge_marginals"), 1e-9);
            assert_close(&paths, &matrix("path_marginals"), 1e-9);
            assert_close(&blankets, &matrix("markov_blanket_marginals"), 1e-9);
        }
    }
}

/// log Z, E[number of edges] and the probability of the best DAG, for five nodes.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn five_nodes_by_recursion_and_enumeration() {
    let table = continuous("golden/bn_d5_data.csv");
    for (score, log_z, expected_edges, best) in [
        (bge(&table), 53.077_703_72, 7.5962, 4.222e-4),
        (linear_gaussian(&table), 14.646_679_22, 4.4281, 0.024_488),
    ] {
        let modular = Modular::of(score).unwrap();
        let posterior = Posterior::new(&modular, LIMIT).unwrap();
        assert!((posterior.log_z() - log_z).abs() < 1e-8, "{}", posterior.log_z());
        let marginals = posterior.marginals();
        assert!((marginals.expected_edges - expected_edges).abs() < 5e-5);
        let ([edges, paths, _], enumerated, entropy) = enumerate(&modular);
        assert!((posterior.log_z() - enumerated).abs() < 1e-11);
        assert!((marginals.entropy - entropy).abs() < 1e-9);
        assert_close(&marginals.edges, &edges, 1e-12);
        assert_close(&marginals.paths, &paths, 1e-12);
        let mut most = f64::NEG_INFINITY;
        for_each_dag(5, |dag| most = most.max(modular.log_reward(dag)));
        let p = (most - log_z).exp();
        assert!((p / best - 1.0).abs() < 2e-4, "{p}");
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn five_nodes_of_gfn_pg() {
    let file: Value = serde_json::from_str(&read("bayes_net/seed0_bge_local_scores.json")).unwrap();
    let score = bge(&continuous("bayes_net/seed0_100x5.csv"));
    let locals = file["local_score"].as_object().unwrap();
    assert_eq!(locals.len(), 80);
    let node = |name: char| name as usize - 'A' as usize;
    for (key, expected) in locals {
        let (child, parents) = key.split_once('|').unwrap();
        let mask = parents.chars().fold(0, |mask, name| mask | bit(node(name)));
        let got = score.score(node(child.chars().next().unwrap()), mask);
        assert!((got - expected.as_f64().unwrap()).abs() < 1e-10, "{key}: {got}");
    }
    let modular = Modular::of(score).unwrap();
    let posterior = Posterior::new(&modular, LIMIT).unwrap();
    let marginals = posterior.marginals();
    assert!((posterior.log_z() - 86.385_036_6).abs() < 1e-7, "{}", posterior.log_z());
    assert!((marginals.expected_edges - 8.9017).abs() < 5e-5, "{}", marginals.expected_edges);
    assert!((marginals.entropy - 7.1003).abs() < 5e-5, "{}", marginals.entropy);
    let adjacency: Vec<Vec<u64>> =
        serde_json::from_value(file["true_adj_row_source_col_target"].clone()).unwrap();
    let parents = |j: usize| (0..5).fold(0, |mask, i| mask | adjacency[i][j] << i);
    let truth: Vec<u64> = (0..5).map(parents).collect();
    let mut expected_shd = 0.0;
    for_each_dag(5, |dag| {
        let p = (modular.log_reward(dag) - posterior.log_z()).exp();
        expected_shd += p * shd(dag, &truth) as f64;
    });
    assert!((expected_shd - 6.3354).abs() < 5e-5, "{expected_shd}");
}

/// The network of 17 edges that biologists agree on.
fn consensus(table: &Table, summary: &Value) -> Vec<u64> {
    let edges: Vec<[Value; 2]> =
        serde_json::from_value(summary["consensus_edges"].clone()).unwrap();
    let node = |value: &Value| match value {
        Value::String(name) => table.names.iter().position(|known| known == name).unwrap(),
        number => number.as_u64().unwrap() as usize,
    };
    let mut dag = vec![0; 11];
    edges.iter().for_each(|[from, to]| dag[node(to)] |= bit(node(from)));
    dag
}

#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn scores_of_sachs() {
    let table = sachs();
    let score = bge(&table);
    let file = read("golden/sachs_bge_local.csv");
    let mut n = 0;
    for line in file.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let parents = fields[1].split_whitespace();
        let mask = parents.fold(0, |mask, parent| mask | bit(parent.parse().unwrap()));
        let got = score.score(fields[0].parse().unwrap(), mask);
        let expected: f64 = fields[2].parse().unwrap();
        assert!((got - expected).abs() < 2e-8, "{line}: {got}");
        n += 1;
    }
    assert!(n >= 100);
    let summary: Value = serde_json::from_str(&read("golden/bn_summary.json")).unwrap();
    let summary = &summary["sachs"];
    let number = |key: &str| summary[key].as_f64().unwrap();
    assert!((total(&*score, &[0; 11]) - number("bge_empty")).abs() < 1e-8);
    let dag = consensus(&table, summary);
    assert_eq!(n_edges(&dag), 17);
    assert!((total(&*score, &dag) - number("bge_consensus17")).abs() < 1e-8);
}

/// Z by the published recursion over sets of sinks, which sweeps the other way round.
fn log_z_by_sinks(modular: &Modular) -> f64 {
    let d = modular.n_nodes();
    let weights: Vec<Vec<Wide>> = (0..d)
        .map(|j| {
            (0..1u64 << d).map(|u| (j, u)).map(|(j, u)| sum_of_subsets(modular, j, u)).collect()
        })
        .collect();
    let mut z = vec![Wide::ONE];
    for set in 1..1usize << d {
        let mut sum = Wide::ZERO;
        let mut sinks = set;
        while sinks != 0 {
            let rest = set & !sinks;
            let product = nodes_of(sinks as u64).fold(z[rest], |p, j| p * weights[j][rest]);
            sum = if sinks.count_ones() % 2 == 1 { sum + product } else { sum - product };
            sinks = (sinks - 1) & set;
        }
        z.push(sum);
    }
    z[(1 << d) - 1].ln()
}

fn sum_of_subsets(modular: &Modular, j: usize, u: u64) -> Wide {
    if u & bit(j) != 0 {
        return Wide::ZERO;
    }
    let (mut sum, mut set) = (Wide::ZERO, u);
    loop {
        sum = sum + Wide::exp(modular.relative(j, set));
        if set == 0 {
            return sum;
        }
        set = (set - 1) & u;
    }
}

/// The exact posterior of Sachs by three ways: both directions of the recursion, edge marginals as
/// ratios of partition functions with and without the edge, and the mean of exact samples.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn the_posterior_of_sachs() {
    let score: Arc<dyn LocalScore> = Arc::new(Cached::new(Bge::new(&sachs(), 1.0, None).unwrap()));
    let modular = Modular::of(Arc::clone(&score)).unwrap();
    let posterior = Posterior::new(&modular, LIMIT).unwrap();
    let log_z = posterior.log_z();
    assert!((log_z - log_z_by_sinks(&modular)).abs() < 1e-9, "{log_z}");
    let marginals = posterior.marginals();
    for (i, j) in [(0, 1), (1, 0), (2, 4), (7, 8), (8, 7), (10, 3), (5, 6), (6, 5), (9, 10)] {
        let mut forbidden = vec![0; 11];
        forbidden[j] = bit(i);
        let constraints = Constraints { forbidden, ..Constraints::default() };
        let without =
            Modular::new(Arc::clone(&score), Prior::Uniform, None, 1.0, constraints).unwrap();
        let without = Posterior::new(&without, LIMIT).unwrap().log_z();
        let expected = -(without - log_z).exp_m1();
        let got = marginals.edges[i][j];
        assert!((got - expected).abs() < 1e-9, "{i} -> {j}: {got} {expected}");
    }
    let n = 100_000;
    let samples = posterior.sample(n, 1);
    let mut log_rewards = 0.0;
    let (mut edges, mut paths) = (vec![vec![0.0; 11]; 11], vec![vec![0.0; 11]; 11]);
    for dag in &samples {
        log_rewards += modular.log_reward(dag) / n as f64;
        for (matrix, masks) in [(&mut edges, dag.clone()), (&mut paths, ancestors(dag))] {
            for (j, mask) in masks.into_iter().enumerate() {
                nodes_of(mask).for_each(|i| matrix[i][j] += 1.0);
            }
        }
    }
    // 110 probabilities each: of standard normals the largest would exceed 4.5 once in a thousand.
    for (counts, exact) in [(&edges, &marginals.edges), (&paths, &marginals.paths)] {
        for (count, p) in counts.iter().flatten().zip(exact.iter().flatten()) {
            let deviation = (n as f64 * p * (1.0 - p)).max(0.0).sqrt();
            let gap = (count - n as f64 * p).abs();
            assert!(gap <= 4.5 * deviation + 5.0, "{p}: {count}");
        }
    }
    // Computed elsewhere, too, with nodes matched by name.
    let summary: Value = serde_json::from_str(&read("golden/bn_summary.json")).unwrap();
    let truth = consensus(&sachs(), &summary["sachs"]);
    let mean = samples.iter().map(|dag| shd(dag, &truth) as f64).sum::<f64>() / n as f64;
    assert!((mean - 15.98).abs() < 0.02, "{mean}");
    // The log reward has a standard deviation of some nats.
    assert!((log_rewards - marginals.expected_log_reward).abs() < 0.05);
    assert!((log_z - marginals.expected_log_reward - marginals.entropy).abs() < 1e-9);
}

/// DAGs that no data of observations can tell apart have one score.
#[test]
fn scores_are_equal_within_a_markov_class() {
    let parents = generate::erdos_renyi(4, 4.0, 5).unwrap();
    let numbers = generate::linear_gaussian(&parents, 60, 0.5, 5).unwrap().table;
    let states = generate::discrete(&parents, 3, 60, 5).unwrap();
    let scores: [Arc<dyn LocalScore>; 2] =
        [bge(&numbers), Arc::new(Bde::new(&states, 2.0).unwrap())];
    for score in scores {
        let mut classes = BTreeMap::new();
        for_each_dag(4, |dag| {
            let own = total(&*score, dag);
            let first = *classes.entry(cpdag(dag)).or_insert(own);
            assert!((own - first).abs() < 1e-10, "{dag:?}");
        });
        assert_eq!(classes.len(), 185);
        let mut distinct: Vec<f64> = classes.into_values().collect();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup_by(|a, b| (*a - *b).abs() < 1e-10);
        assert!(distinct.len() > 150, "{}", distinct.len());
    }
}

/// A file of local scores and the score it was written from give one posterior.
#[test]
fn listed_scores_are_scores_with_a_limit() {
    let parents = generate::scale_free(7, 2, 3).unwrap();
    let table = generate::linear_gaussian(&parents, 200, 0.3, 3).unwrap().table;
    let score = bge(&table);
    let mut text = "7\n".to_owned();
    for j in 0..7 {
        let few = |mask: &u64| mask >> j & 1 == 0 && mask.count_ones() <= 2;
        let sets: Vec<u64> = (0..1 << 7).filter(few).collect();
        text += &format!("{} {}\n", table.names[j], sets.len());
        for set in sets {
            let parents: Vec<&str> = nodes_of(set).map(|i| &*table.names[i]).collect();
            let value = score.score(j, set);
            text += &format!("{value:?} {} {}\n", parents.len(), parents.join(" "));
        }
    }
    let listed: Arc<dyn LocalScore> = Arc::new(LocalScores::parse(&text).unwrap());
    let constraints = Constraints { max_parents: Some(2), ..Constraints::default() };
    let limited = Modular::new(score, Prior::Uniform, None, 1.0, constraints).unwrap();
    let listed = Modular::of(listed).unwrap();
    assert_eq!((listed.max_parents(), limited.max_parents()), (2, 2));
    let [a, b] = [&listed, &limited].map(|modular| Posterior::new(modular, LIMIT).unwrap());
    assert!((a.log_z() - b.log_z()).abs() < 1e-12);
    assert_close(&a.marginals().edges, &b.marginals().edges, 1e-12);
    let n = |modular| Posterior::log_n_allowed(modular, LIMIT).unwrap();
    assert!((n(&listed) - n(&limited)).abs() < 1e-12);
    assert!(a.sample(100, 0).iter().flatten().all(|mask| mask.count_ones() <= 2));
}
