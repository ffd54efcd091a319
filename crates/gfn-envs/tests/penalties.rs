//! Penalties against the divergences that they are named after: on all trajectories of a grid, with a
//! tabular policy in double precision.

use std::sync::Arc;

use gfn_core::learn::expr::{Tape, Var};
use gfn_core::objective::Penalty;
use gfn_core::registry::{Kind, RewardContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::{Environment, StateGraph};
use gfn_envs::hypergrid::Hypergrid;
use gfn_envs::reward::hypergrid::HypergridRewardSpec;
use rand::RngExt;

/// All trajectories of a 3×3 grid as edges, with log q(τ) = log R(x) + log P_B(τ|x) − log Z for the
/// uniform P_B.
struct Trajectories {
    graph: StateGraph,
    paths: Vec<Vec<usize>>,
    log_q: Vec<f64>,
}

fn all_trajectories() -> Trajectories {
    let env: Arc<dyn Environment> = Arc::new(Hypergrid::new(2, 3));
    let reward: HypergridRewardSpec = toml::from_str("variant = 'hard'").unwrap();
    let files = |path: &std::path::Path| std::fs::read(path);
    let reward = reward.build(RewardContext { env: &env, files: &files }).unwrap();
    let graph = StateGraph::explore(&*env, 1000).unwrap();
    let target = graph.target(&*reward).unwrap();
    let mut parents = vec![0.0; graph.states().len()];
    for i in 0..graph.states().len() {
        graph.edges(i).iter().for_each(|edge| parents[edge.child as usize] += 1.0);
    }
    let (mut paths, mut log_q) = (Vec::new(), Vec::new());
    let mut open = vec![(0usize, Vec::new(), 0.0f64)];
    while let Some((state, path, log_pb)) = open.pop() {
        if graph.edges(state).is_empty() {
            let object = graph.terminals().binary_search(&(state as u32)).unwrap();
            paths.push(path);
            log_q.push(target.log_reward[object] - target.log_z + log_pb);
            continue;
        }
        for e in graph.edge_range(state) {
            let child = graph.edges(state)[e - graph.edge_range(state).start].child as usize;
            let path = path.iter().copied().chain([e]).collect();
            open.push((child, path, log_pb - f64::ln(parents[child])));
        }
    }
    let sum: f64 = log_q.iter().map(|q: &f64| q.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "q is a distribution");
    Trajectories { graph, paths, log_q }
}

impl Trajectories {
    /// log p(τ) of every trajectory, for logits of every edge.
    fn log_p<'t>(&self, logits: Var<'t>) -> Var<'t> {
        let states = 0..self.graph.states().len();
        let mut offsets: Vec<u32> =
            states.clone().map(|i| self.graph.edge_range(i).start as u32).collect();
        offsets.push(self.graph.n_edges() as u32);
        let norms = logits.log_sum_exp_segments(offsets);
        let of_edge: Vec<_> =
            states.flat_map(|i| self.graph.edge_range(i).map(move |_| Some(i as u32))).collect();
        let log_pf = logits - norms.gather(of_edge);
        let flat: Vec<_> = self.paths.iter().flatten().map(|&e| Some(e as u32)).collect();
        let mut ends = vec![0];
        for path in &self.paths {
            ends.push(ends.last().unwrap() + path.len() as u32);
        }
        log_pf.gather(flat).sum_segments(ends)
    }
}

/// A divergence of p and q, from their logarithms.
type Divergence = fn(&[f64], &[f64]) -> f64;

fn sum(log_p: &[f64], log_q: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    log_p.iter().zip(log_q).map(|(&p, &q)| term(p, q)).sum()
}

const DIVERGENCES: [(Penalty, &str, Divergence); 5] = [
    (Penalty::Squared, "2 KL(p|q)", |p, q| sum(p, q, |p, q| 2.0 * p.exp() * (p - q))),
    (Penalty::Linex(1.0), "KL(q|p)", |p, q| sum(p, q, |p, q| q.exp() * (q - p))),
    (Penalty::Linex(-1.0), "chi2(p, q)/2", |p, q| sum(p, q, |p, q| 0.5 * (2.0 * p - q).exp())),
    (Penalty::Linex(0.5), "4 (1 - BC)", |p, q| -4.0 * sum(p, q, |p, q| (0.5 * (p + q)).exp())),
    (Penalty::Cosh, "KL(q|p) + chi2(p, q)/2", |p, q| {
        sum(p, q, |p, q| q.exp() * (q - p) + 0.5 * (2.0 * p - q).exp())
    }),
];

#[test]
fn on_policy_gradients_are_those_of_divergences() {
    let all = all_trajectories();
    let mut rng = Streams::new(2).get(Purpose::Test, 0);
    let logits: Vec<f64> = (0..all.graph.n_edges()).map(|_| rng.random_range(-0.5..0.5)).collect();
    let log_p_at = |logits: &[f64]| -> Vec<f64> {
        let tape = Tape::new();
        all.log_p(tape.leaf(logits.to_vec())).value().to_vec()
    };
    let mut gradients = Vec::new();
    for (penalty, name, divergence) in DIVERGENCES {
        // E over p of the penalty's gradient: the weights do not depend on the parameters.
        let tape = Tape::new();
        let leaf = tape.leaf(logits.clone());
        let log_p = all.log_p(leaf);
        let residual = log_p - tape.constant(all.log_q.clone());
        let expected = (log_p.exp().detach() * penalty.of(residual)).sum();
        let derivatives = tape.derivatives(expected);
        let gradient = derivatives.of(leaf).unwrap().to_vec();
        let mut largest = 0.0f64;
        for (i, &gradient) in gradient.iter().enumerate() {
            let at = |h: f64| {
                let mut moved = logits.clone();
                moved[i] += h;
                divergence(&log_p_at(&moved), &all.log_q)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((gradient - numeric).abs() < 1e-5, "{name}: {gradient} against {numeric}");
            largest = largest.max(gradient.abs());
        }
        assert!(largest > 1e-2, "{name} has a gradient here");
        gradients.push(gradient);
    }
    // The sign of the residual matters: covering and seeking differ.
    let apart = gradients[1].iter().zip(&gradients[2]).any(|(a, b)| (a - b).abs() > 1e-2);
    assert!(apart);
}
