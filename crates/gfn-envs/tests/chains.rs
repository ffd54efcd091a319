//! Markov chains of objects come to R / Z, whichever way they move.

use std::collections::HashMap;

use gfn_core::metropolis::{BackAndForth, Chains};
use gfn_core::proposal::Proposal;
use gfn_core::registry::{EnvContext, Kind};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::Draw;
use gfn_core::{Environment, Reward, RewardError, StateGraph, States};
use gfn_envs::dag::{Dag, DagSpec};
use gfn_envs::hypergrid::HypergridSpec;
use gfn_envs::sequence::SequenceSpec;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// log R between -1.5 and 1.5, scattered.
struct Scattered<'a>(&'a dyn Environment);

impl Reward for Scattered<'_> {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            let mix = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7;
            let seed = self.0.render(row).bytes().fold(1, mix);
            let mut rng = Streams::new(seed).get(Purpose::Test, 0);
            *out = rng.random_range(-1.5..1.5);
        }
        Ok(())
    }
}

/// The same, looked up.
struct Known<'a>(&'a StateGraph, &'a [f64]);

impl Reward for Known<'_> {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            *out = self.1[self.0.find_object(row).expect("an object")];
        }
        Ok(())
    }
}

const CHAINS: usize = 16_000;

/// How far the last objects of many chains are from R / Z, in standard deviations of chi^2.
fn deviation(env: &dyn Environment, proposal: &dyn Proposal, steps: u64) -> f64 {
    let graph = StateGraph::explore(env, 10_000).unwrap();
    let target = graph.target(&Scattered(env)).unwrap();
    let reward = Known(&graph, &target.log_reward);
    let draw = |step| Draw { streams: Streams::new(11), purpose: Purpose::Chain, step };
    let (mut chains, _) = Chains::start(env, &reward, draw(0), CHAINS).unwrap();
    for step in 1..=steps {
        chains.advance(env, &reward, proposal, draw(step)).unwrap();
    }
    let mut counts = vec![0.0; target.prob.len()];
    for row in chains.objects().rows() {
        counts[graph.find_object(row).unwrap()] += 1.0;
    }
    let expected = target.prob.iter().map(|p| p * CHAINS as f64);
    let chi2: f64 = counts
        .iter()
        .zip(expected)
        .map(|(count, expected): (&f64, f64)| {
            assert!(expected > 5.0);
            (count - expected).powi(2) / expected
        })
        .sum();
    let df = counts.len() as f64 - 1.0;
    (chi2 - df) / (2.0 * df).sqrt()
}

/// A proposal whose ratio is lost.
struct WithoutRatio<'a>(&'a dyn Proposal);

impl Proposal for WithoutRatio<'_> {
    fn propose(
        &self,
        env: &dyn Environment,
        object: &[i32],
        rng: &mut ChaCha8Rng,
        proposed: &mut [i32],
    ) -> Option<f64> {
        self.0.propose(env, object, rng, proposed).map(|_| 0.0)
    }
}

fn sequence(spec: &str) -> Box<dyn Environment> {
    toml::from_str::<SequenceSpec>(spec).unwrap().build(EnvContext::NO_FILES).unwrap()
}

fn dag(spec: &str) -> Dag {
    Dag::new(&toml::from_str::<DagSpec>(spec).unwrap()).unwrap()
}

#[test]
fn chains_come_to_the_target() {
    let grid = HypergridSpec { dim: 2, side: 4 }.build(EnvContext::NO_FILES).unwrap();
    let ends = sequence("length = 3\nsymbols = ['A', 'B', 'C']");
    let variable = sequence("length = 3\nmin_length = 1\nsymbols = ['A', 'B']");
    let free = dag("nodes = 3");
    let bound = dag("nodes = 4\nmax_parents = 2\nrequired = ['A -> B']\nforbidden = ['C -> D']");
    let envs: [(&str, &dyn Environment); 5] = [
        ("hypergrid", &*grid),
        ("sequence", &*ends),
        ("variable length", &*variable),
        ("dag", &free),
        ("dag with constraints", &bound),
    ];
    for (name, env) in envs {
        let most = env.space().max_len;
        let at_start = deviation(env, &BackAndForth { most }, 0);
        assert!(at_start > 50.0, "{name}: chains start elsewhere: {at_start}");
        let (shorter, longer) = (BackAndForth { most: most - 1 }, BackAndForth { most });
        let mut proposals: Vec<(&str, &dyn Proposal)> =
            vec![("shorter", &shorter), ("longer", &longer)];
        proposals.extend(env.local_moves().map(|moves| ("local moves", moves)));
        for (how, proposal) in proposals {
            let after = deviation(env, proposal, 60);
            assert!(after.abs() < 4.0, "{name}, {how}: {after} standard deviations");
            if how != "shorter" {
                // Ways back and forth of strings of one length are equally likely.
                let needs_ratio = name != "sequence";
                let without = deviation(env, &WithoutRatio(proposal), 60);
                assert_eq!(without.abs() > 8.0, needs_ratio, "{name}, {how}: {without}");
            }
        }
    }
}

/// Whether graphs differ by one edge that is there or not, or by the direction of one.
fn are_neighbours(dag: &Dag, a: &[i32], b: &[i32]) -> bool {
    let different = |(j, (a, b)): (usize, (u64, u64))| {
        (0..64).filter(move |i| (a ^ b) >> i & 1 == 1).map(move |i| (i, j, a >> i & 1 == 1))
    };
    let pairs: Vec<(usize, usize, bool)> =
        dag.parents_of(a).zip(dag.parents_of(b)).enumerate().flat_map(different).collect();
    match pairs[..] {
        [_] => true,
        [(i, j, in_a), (k, l, also_in_a)] => (i, j) == (l, k) && in_a != also_in_a,
        _ => false,
    }
}

/// Local moves go to every neighbour with the same probability, and are accepted in detailed balance,
/// by a neighbourhood found by comparing all graphs with all.
#[test]
fn local_moves_are_uniform_over_neighbours() {
    for spec in [
        "nodes = 2",
        "nodes = 3",
        "nodes = 4",
        "nodes = 4\nmax_parents = 1",
        "nodes = 4\nmax_parents = 2\nrequired = ['A -> B']\nforbidden = ['C -> D']",
        "nodes = 3\ntiers = [['C'], ['A']]",
    ] {
        let dag = dag(spec);
        let graph = StateGraph::explore(&dag, 10_000).unwrap();
        let objects = graph.objects();
        let neighbours: Vec<Vec<usize>> = objects
            .rows()
            .map(|a| {
                let near = |&b: &usize| are_neighbours(&dag, a, objects.row(b));
                (0..objects.len()).filter(near).collect()
            })
            .collect();
        let mut log_reward = vec![0.0; objects.len()];
        Scattered(&dag).log_reward(&objects, &mut log_reward).unwrap();
        let mut proposed = vec![0; objects.width()];
        // Over all objects, so that chi^2 is of many terms.
        let (mut chi2, mut df) = (0.0, 0.0);
        for (x, near) in neighbours.iter().enumerate() {
            let mut rng = Streams::new(3).at(Purpose::Test, 1, x as u64);
            let mut counts: HashMap<usize, f64> = HashMap::new();
            let draws = 30 * near.len();
            for _ in 0..draws {
                let log_ratio = dag.propose(&dag, objects.row(x), &mut rng, &mut proposed).unwrap();
                let y = graph.find_object(&proposed).expect("an object with its closure");
                assert!(near.contains(&y), "{spec}: {} to {}", x, dag.render(&proposed));
                *counts.entry(y).or_default() += 1.0;
                let sizes = (near.len() as f64, neighbours[y].len() as f64);
                assert!((log_ratio - (sizes.0 / sizes.1).ln()).abs() < 1e-12, "{spec}");
                let flow = |from: usize, to: usize, n: f64, log_ratio: f64| {
                    let odds = log_reward[to] - log_reward[from] + log_ratio;
                    log_reward[from].exp() / n * odds.exp().min(1.0)
                };
                let (forth, back) =
                    (flow(x, y, sizes.0, log_ratio), flow(y, x, sizes.1, -log_ratio));
                assert!((forth / back - 1.0).abs() < 1e-12, "{spec}: detailed balance");
            }
            for y in near {
                chi2 += (counts.get(y).copied().unwrap_or(0.0) - 30.0).powi(2) / 30.0;
            }
            df += near.len() as f64 - 1.0;
        }
        let deviation = (chi2 - df) / (2.0f64 * df).max(1.0).sqrt();
        assert!(deviation.abs() < 4.0, "{spec}: {deviation}");
    }
}

/// Where constraints leave one graph there is nowhere to go.
#[test]
fn a_graph_without_neighbours_stays() {
    let dag = dag("nodes = 2\nrequired = ['A -> B']");
    let mut row = vec![0; dag.space().width];
    let object = dag.parse("A->B").unwrap();
    let mut rng = Streams::new(1).get(Purpose::Test, 0);
    assert_eq!(dag.propose(&dag, &object, &mut rng, &mut row), None);
}
