//! The separable reward of the hypergrid against sums over all objects.

use std::path::Path;
use std::sync::Arc;

use gfn_core::registry::{EnvContext, Kind, RewardContext};
use gfn_core::special::binomial_mean_deviation;
use gfn_core::{Environment, Reward, StateGraph};
use gfn_envs::hypergrid::Hypergrid;
use gfn_envs::reward::separable::{SeparableReward, SeparableSpec};
use gfn_envs::sequence::SequenceSpec;

fn no_files(_: &Path) -> std::io::Result<Vec<u8>> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn separable(dim: usize, side: usize, spec: &SeparableSpec) -> (Hypergrid, SeparableReward) {
    let grid = Hypergrid::new(dim, side);
    let reward = SeparableReward::new(&grid, spec);
    (grid, reward)
}

/// All that is said of the target, against sums over all objects of the product written out.
#[test]
fn separable_targets_by_enumeration() {
    let uneven = SeparableSpec { floor: 0.2, peaks: [0.0, 0.6], heights: [0.3, 4.0], width: 0.15 };
    for (dim, side) in [(1, 2), (2, 9), (3, 6), (3, 11)] {
        for spec in [SeparableSpec::default(), uneven.clone()] {
            let (env, reward) = separable(dim, side, &spec);
            let last = (side - 1) as f64;
            let factor = |d: usize, s: i32| {
                let bump = |k: usize| {
                    let peak = (spec.peaks[k] * last).round();
                    let z = (f64::from(s) - peak) / (spec.width * last);
                    spec.heights[(k + d) % 2] * (-z * z / 2.0).exp()
                };
                spec.floor + bump(0) + bump(1)
            };
            let graph = StateGraph::explore(&env, 100_000).unwrap();
            let objects = graph.objects();
            let product = |row: &[i32]| -> f64 { (0..dim).map(|d| factor(d, row[d])).product() };
            let r: Vec<f64> = objects.rows().map(product).collect();
            let z: f64 = r.iter().sum();
            let mean = r.iter().map(|r| r / z * r.ln()).sum::<f64>();
            let entropy = -r.iter().map(|r| r / z * (r / z).ln()).sum::<f64>();

            let close = |got: f64, expected: f64, what: &str| {
                assert!((got - expected).abs() < 1e-10, "{side}^{dim} {what}: {got} {expected}");
            };
            let mut log_r = vec![0.0; objects.len()];
            reward.log_reward(&objects, &mut log_r).unwrap();
            log_r.iter().zip(&r).for_each(|(log_r, r)| close(*log_r, r.ln(), "log R"));
            let target = reward.exact_target().unwrap();
            close(reward.log_partition().unwrap(), z.ln(), "log Z");
            close(target.log_z, z.ln(), "log Z");
            close(target.mean_log_reward, mean, "E log R");
            close(reward.target_estimate().unwrap().mean_log_reward, mean, "E log R");
            close(target.entropy, entropy, "entropy");
            close(target.log_n_objects, (objects.len() as f64).ln(), "objects");
            let marginals = reward.cell_marginals().unwrap();
            assert_eq!(marginals.len(), dim);
            for (d, of_cell) in marginals.iter().enumerate() {
                assert_eq!(of_cell.len(), side);
                for (s, &p) in of_cell.iter().enumerate() {
                    let here = |(row, _): &(&[i32], &f64)| row[d] == s as i32;
                    let sum: f64 = objects.rows().zip(&r).filter(here).map(|(_, r)| r).sum();
                    close(p, sum / z, "marginal");
                }
            }
        }
    }
}

/// Exact samples are as far from the joint distribution as chance has them, and the same for one seed.
#[test]
fn samples_of_separable_targets() {
    let (env, reward) = separable(2, 7, &SeparableSpec { floor: 0.1, ..Default::default() });
    let graph = StateGraph::explore(&env, 1000).unwrap();
    let target = graph.target(&reward).unwrap();
    const N: usize = 40_000;
    let samples = reward.exact_samples(N, 5).unwrap();
    assert_eq!(samples.len(), N);
    let mut counts = vec![0; target.prob.len()];
    samples.rows().for_each(|row| counts[graph.find_object(row).expect("an object")] += 1);
    let l1: f64 =
        counts.iter().zip(&target.prob).map(|(&n, p)| (f64::from(n) / N as f64 - p).abs()).sum();
    let floor: f64 = target.prob.iter().map(|&p| binomial_mean_deviation(N as u64, p)).sum();
    assert!((0.7..1.3).contains(&(l1 / floor)), "{l1} {floor}");
    assert_eq!(reward.exact_samples(100, 5), Some(samples.slice(0..100)));
    assert_ne!(reward.exact_samples(100, 6), Some(samples.slice(0..100)));
}

/// Nothing overflows in thousands of dimensions, in rewards, sums over objects and samples.
#[test]
fn separable_rewards_in_thousands_of_dimensions() {
    for dim in [128, 10_000] {
        let d = dim as f64;
        let (_, reward) = separable(dim, 8, &SeparableSpec::default());
        let (_, two) = separable(2, 8, &SeparableSpec::default());
        let log_z = reward.log_partition().unwrap();
        let expected = d / 2.0 * two.log_partition().unwrap();
        assert!((log_z - expected).abs() < 1e-9 * expected.abs());
        // Log rewards of samples scatter about their mean, which is that of two dimensions as well.
        let samples = reward.exact_samples(50, 0).unwrap();
        let mut log_r = vec![0.0; 50];
        reward.log_reward(&samples, &mut log_r).unwrap();
        let mean = log_r.iter().sum::<f64>() / 50.0;
        let expected = d / 2.0 * two.exact_target().unwrap().mean_log_reward;
        assert_eq!(reward.exact_target().unwrap().mean_log_reward, expected);
        let error = (log_r.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 49.0 / 50.0).sqrt();
        assert!((mean - expected).abs() < 4.0 * error, "{mean} {expected} {error}");
        assert_eq!(reward.modes().unwrap().count(), None);
    }
}

/// A mode is a choice of one of two peaks per dimension; around the best object of each there is no
/// better one.
#[test]
fn modes_of_separable_rewards() {
    for (dim, side) in [(1, 2), (2, 12), (3, 9)] {
        let (env, reward) = separable(dim, side, &SeparableSpec::default());
        let modes = reward.modes().unwrap();
        assert_eq!(modes.count(), Some(1 << dim));
        let objects = StateGraph::explore(&env, 100_000).unwrap().objects();
        let mut log_r = vec![0.0; objects.len()];
        reward.log_reward(&objects, &mut log_r).unwrap();
        let mut best = std::collections::BTreeMap::new();
        for (row, &log_r) in objects.rows().zip(&log_r) {
            for mode in modes.modes_of(row, log_r) {
                let best = best.entry(mode).or_insert((f64::NEG_INFINITY, row));
                if log_r > best.0 {
                    *best = (log_r, row);
                }
            }
        }
        assert_eq!(best.len(), 1 << dim);
        for (log_best, row) in best.values() {
            let near = |other: &[i32]| other.iter().zip(*row).all(|(a, b)| (a - b).abs() <= 1);
            let beaten = objects.rows().zip(&log_r).any(|(x, r)| near(x) && r > log_best);
            assert!(!beaten || side == 2, "{row:?}");
        }
    }
}

#[test]
fn bad_separable_rewards_are_refused() {
    let env: Arc<dyn Environment> = Arc::new(Hypergrid::new(2, 4));
    let strings = SequenceSpec::default().build(EnvContext::NO_FILES).unwrap();
    let other: Arc<dyn Environment> = strings.into();
    let refused = |env: &Arc<dyn Environment>, change: fn(&mut SeparableSpec)| {
        let mut spec = SeparableSpec::default();
        change(&mut spec);
        let error = spec.build(RewardContext { env, files: &no_files }).err().expect("refused");
        (error.key.unwrap_or_default(), error.message)
    };
    let key = |change| refused(&env, change).0;
    assert_eq!(key(|spec| spec.floor = 0.0), "floor");
    assert_eq!(key(|spec| spec.width = f64::NAN), "width");
    assert_eq!(key(|spec| spec.heights = [1.0, -1.0]), "heights");
    assert_eq!(key(|spec| spec.peaks = [0.2, 1.5]), "peaks");
    let (key, message) = refused(&env, |spec| spec.peaks = [0.2, 0.3]);
    assert_eq!(key, "peaks");
    assert!(message.contains("both peaks are at the coordinate 1 of 4"), "{message}");
    assert_eq!(refused(&other, |_| {}).0, "kind");
}
