//! What sampled graphs show together, beside the exact posterior and the true graph.

use std::collections::{BTreeMap, BTreeSet};

use super::ranking::{auroc, average_precision};
use crate::bayes_net::graph::{ancestors, bit, cpdag, markov_blankets, nodes_of, shd};
use crate::reward::bayes_net::{Known, NetworkReward};

/// Row i, column j for i -> j.
type Matrix = Vec<Vec<f64>>;

/// What sampled graphs show together.
pub(super) struct SampledGraphs {
    n: f64,
    edges: Matrix,
    paths: Matrix,
    blankets: Matrix,
    /// Distinct graphs and their classes, with the share of each.
    graphs: Vec<(Vec<u64>, Vec<u64>, f64)>,
}

impl SampledGraphs {
    /// Of graphs on d nodes that occurred so often.
    pub(super) fn of(counts: &BTreeMap<Vec<u64>, usize>, d: usize) -> Self {
        let n = counts.values().sum::<usize>() as f64;
        let zero = || vec![vec![0.0; d]; d];
        let [mut edges, mut paths, mut blankets] = [zero(), zero(), zero()];
        let mut graphs = Vec::with_capacity(counts.len());
        for (graph, &count) in counts {
            let share = count as f64 / n;
            // Whole numbers, so that equal frequencies are equal to the bit.
            let count = count as f64;
            let (above, blanket) = (ancestors(graph), markov_blankets(graph));
            for (matrix, masks) in
                [(&mut edges, graph), (&mut paths, &above), (&mut blankets, &blanket)]
            {
                for (j, &mask) in masks.iter().enumerate() {
                    nodes_of(mask).for_each(|i| matrix[i][j] += count);
                }
            }
            graphs.push((graph.clone(), cpdag(graph), share));
        }
        for cell in [&mut edges, &mut paths, &mut blankets].into_iter().flatten().flatten() {
            *cell /= n;
        }
        Self { n, edges, paths, blankets, graphs }
    }

    /// One value per column of the metric `edges`.
    pub(super) fn measure(&self, reward: Option<&NetworkReward>) -> Vec<Option<f64>> {
        let known = reward.and_then(NetworkReward::known);
        let truth = reward.and_then(NetworkReward::truth);
        let marginals = known.map(Known::marginals);
        let exact_edges = marginals.map(|marginals| &marginals.edges);
        let blankets = reward.zip(known).map(|(reward, known)| known.blankets(reward.modular()));
        let mean = |of: &dyn Fn(&[u64], &[u64]) -> usize| {
            let terms = self.graphs.iter().map(|(graph, class, p)| p * of(graph, class) as f64);
            terms.sum::<f64>()
        };
        let true_class = truth.map(cpdag);
        let areas = |edges: &Matrix, diagonal: bool| {
            let scored = truth.map(|truth| scored(edges, truth, diagonal));
            let scored = scored.unwrap_or_default();
            (auroc(&scored), average_precision(&scored))
        };
        let (roc, precision) = areas(&self.edges, false);
        let (roc_exact, precision_exact) =
            exact_edges.map_or((None, None), |edges| areas(edges, false));
        let (roc_all, precision_all) = areas(&self.edges, true);
        let classes: BTreeSet<&Vec<u64>> = self.graphs.iter().map(|(_, class, _)| class).collect();
        let edges_rmse =
            |exact: &Matrix, own: &Matrix| root_mean(own, exact, |f, p| (f - p).powi(2));
        vec![
            exact_edges.map(|exact| edges_rmse(exact, &self.edges)),
            exact_edges.map(|p| root_mean(p, p, |p, _| p * (1.0 - p) / self.n)),
            exact_edges
                .map(|exact| pairs(&self.edges, exact, |f, p| (f - p).abs()).fold(0.0, f64::max)),
            marginals.map(|marginals| edges_rmse(&marginals.paths, &self.paths)),
            blankets.map(|blankets| edges_rmse(&blankets.values, &self.blankets)),
            exact_edges.map(|exact| mean_of(pairs(&self.edges, exact, divergence))),
            truth.map(|truth| mean(&|graph, _| shd(graph, truth))),
            exact_edges.zip(truth).map(|(edges, truth)| expected_shd(edges, truth)),
            true_class.map(|truth| mean(&|_, class| shd(class, &truth))),
            Some(self.edges.iter().flatten().sum()),
            marginals.map(|marginals| marginals.expected_edges),
            roc,
            roc_exact,
            precision,
            precision_exact,
            roc_all,
            precision_all,
            Some(self.graphs.len() as f64),
            Some(classes.len() as f64),
        ]
    }
}

/// A function of two matrices, entry by entry off the diagonal.
fn pairs<'a>(
    a: &'a Matrix,
    b: &'a Matrix,
    of: impl Fn(f64, f64) -> f64 + 'a,
) -> impl Iterator<Item = f64> + 'a {
    let d = a.len();
    let cells = (0..d * d).filter(move |cell| cell / d != cell % d);
    cells.map(move |cell| of(a[cell / d][cell % d], b[cell / d][cell % d]))
}

fn mean_of(numbers: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = numbers.fold((0, 0.0), |(n, sum), x| (n + 1, sum + x));
    sum / f64::from(n.max(1))
}

fn root_mean(a: &Matrix, b: &Matrix, of: impl Fn(f64, f64) -> f64) -> f64 {
    mean_of(pairs(a, b, of)).sqrt()
}

/// Jensen-Shannon divergence between two coins.
fn divergence(f: f64, p: f64) -> f64 {
    let entropy = |q: f64| {
        let term = |q: f64| if q > 0.0 { -q * q.ln() } else { 0.0 };
        term(q) + term(1.0 - q)
    };
    (entropy(0.5 * (f + p)) - 0.5 * (entropy(f) + entropy(p))).max(0.0)
}

/// The expectation of a distance that is a sum over pairs of nodes, from edge probabilities alone.
fn expected_shd(edges: &Matrix, truth: &[u64]) -> f64 {
    let pairs = (0..truth.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let differ = |(i, j): (usize, usize)| {
        let agree = match (truth[j] & bit(i) != 0, truth[i] & bit(j) != 0) {
            (true, _) => edges[i][j],
            (_, true) => edges[j][i],
            _ => 1.0 - edges[i][j] - edges[j][i],
        };
        1.0 - agree
    };
    pairs.map(differ).sum()
}

/// Every pair with its score and whether it is an edge of the true graph.
fn scored(edges: &Matrix, truth: &[u64], diagonal: bool) -> Vec<(f64, bool)> {
    let d = truth.len();
    let cells = (0..d * d).map(|cell| (cell / d, cell % d));
    let kept = cells.filter(|(i, j)| diagonal || i != j);
    // Exact probabilities that are equal differ by rounding.
    let score = |p: f64| (p * 1e9).round();
    kept.map(|(i, j)| (score(edges[i][j]), truth[j] & bit(i) != 0)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gfn_core::registry::{EnvContext, Kind, RewardContext};
    use gfn_core::{Environment, KeyError, Reward};

    use super::super::edges::names;
    use super::*;
    use crate::reward::bayes_net::bge::BgeSpec;

    fn value(values: &[Option<f64>], name: &str) -> Option<f64> {
        values[names().iter().position(|known| *known == name).unwrap()]
    }

    fn reward(env: &str, reward: &str) -> Box<dyn Reward> {
        let env: crate::dag::DagSpec = toml::from_str(env).unwrap();
        let env: Arc<dyn Environment> = env.build(EnvContext::NO_FILES).unwrap().into();
        let spec: BgeSpec = toml::from_str(reward).unwrap();
        let built: Result<_, KeyError> =
            spec.build(RewardContext { env: &env, files: EnvContext::NO_FILES.files });
        built.unwrap()
    }

    /// Three tenths are three tenths, in one graph three times or in three graphs: of A -> B, true and in
    /// one, and C -> A, false and in three, neither comes first.
    #[test]
    fn equal_frequencies_tie() {
        let reward = reward("nodes = 3", "true_edges = ['A -> B']\nexact_limit = 0");
        let reward = reward.as_any().unwrap().downcast_ref::<NetworkReward>();
        let counts = BTreeMap::from([
            (vec![0, 0b001, 0], 3),
            (vec![0b100, 0, 0], 1),
            (vec![0b100, 0b100, 0], 1),
            (vec![0b110, 0, 0], 1),
            (vec![0, 0, 0], 4),
        ]);
        let values = SampledGraphs::of(&counts, 3).measure(reward);
        assert_eq!(value(&values, "auroc"), Some(4.5 / 5.0));
    }

    /// Three graphs on A, B, C out of four samples, by hand; the truth is A -> B -> C.
    #[test]
    fn columns_by_hand() {
        let reward = reward("nodes = 3", "true_edges = ['A -> B', 'B -> C']\nexact_limit = 0");
        let reward = reward.as_any().unwrap().downcast_ref::<NetworkReward>();
        // A -> B -> C twice; C -> B -> A; A -> B <- C.
        let counts = BTreeMap::from([
            (vec![0, 0b001, 0b010], 2),
            (vec![0b010, 0b100, 0], 1),
            (vec![0, 0b101, 0], 1),
        ]);
        let values = SampledGraphs::of(&counts, 3).measure(reward);
        for (name, expected) in [
            // Distances 0, 0, 2, 1.
            ("expected_shd", 0.75),
            ("expected_edges", 2.0),
            // The collider's class differs from the chain's in both pairs.
            ("expected_cpdag_shd", 0.5),
            // Of A -> B 3/4, B -> C 1/2, C -> B 1/2, B -> A 1/4 the first two are true: of eight
            // pairs, A -> B wins 4 and B -> C wins 3 with a tie.
            ("auroc", 7.5 / 8.0),
            // Half the recall at 1, half at 2/3.
            ("auprc", 0.5 + 0.5 * 2.0 / 3.0),
            ("auroc_with_diagonal", (7.0 + 6.5) / 14.0),
            ("auprc_with_diagonal", 0.5 + 0.5 * 2.0 / 3.0),
            ("n_dags", 3.0),
            ("n_cpdags", 2.0),
        ] {
            let got = value(&values, name).unwrap_or_else(|| panic!("{name} is empty"));
            assert!((got - expected).abs() < 1e-12, "{name}: {got} instead of {expected}");
        }
        for name in ["edge_rmse", "path_rmse", "blanket_rmse", "auroc_exact", "expected_shd_exact"]
        {
            assert_eq!(value(&values, name), None, "{name}");
        }
    }

    #[test]
    fn coins_diverge() {
        assert!(divergence(0.3, 0.3) < 1e-16);
        assert!((divergence(0.0, 1.0) - 2f64.ln()).abs() < 1e-15);
        assert!(value(&[None; 19], "n_cpdags").is_none());
    }

    /// Samples of the exact posterior are as far from it as chance has them, for blankets by
    /// enumeration and by samples; their distances from the truth are the exact ones.
    #[test]
    fn exact_samples_are_at_the_floor() {
        for d in [4, 7] {
            let reward = reward(&format!("nodes = {d}"), "[generate]\nrows = 30\nnoise = 1.0");
            let reward = reward.as_any().unwrap().downcast_ref::<NetworkReward>().unwrap();
            let n = 20_000;
            let mut counts = BTreeMap::new();
            for graph in reward.known().unwrap().posterior().sample(n, 5) {
                *counts.entry(graph).or_insert(0) += 1;
            }
            let values = SampledGraphs::of(&counts, d).measure(Some(reward));
            let get = |name: &str| value(&values, name).unwrap();
            let floor = get("edge_rmse_floor");
            assert!((1e-4..4e-3).contains(&floor), "{floor}");
            assert!((0.5..1.6).contains(&(get("edge_rmse") / floor)), "{}", get("edge_rmse"));
            assert!(get("edge_max_error") < 6.0 * floor && get("edge_jsd") < floor * floor * 10.0);
            assert!((1e-5..0.01).contains(&get("path_rmse")), "{}", get("path_rmse"));
            assert!((1e-5..0.01).contains(&get("blanket_rmse")), "{}", get("blanket_rmse"));
            for name in ["expected_shd", "expected_edges", "auroc", "auprc"] {
                let (got, exact) = (get(name), get(&format!("{name}_exact")));
                assert!(exact > 0.3 && (got - exact).abs() < 0.05, "{name}: {got} {exact}");
            }
        }
    }
}
