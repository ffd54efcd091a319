//! Rewards against independent values: closed forms, published anchors, reference data.

use std::path::Path;
use std::sync::Arc;

use gfn_core::metric::{pearson, spearman};
use gfn_core::policy::{Direction, UniformPolicy};
use gfn_core::registry::{EnvAxis, EnvContext, Files, Kind, RewardAxis, RewardContext};
use gfn_core::special::binomial_mean_deviation;
use gfn_core::{Environment, KeyError, Reward, StateGraph, States};
use gfn_envs::hypergrid::{Hypergrid, HypergridSpec};
use gfn_envs::reward::hamming::HammingSpec;
use gfn_envs::reward::hypergrid::{HypergridReward, HypergridRewardSpec, Variant};
use gfn_envs::reward::modes::ModeSpec;
use gfn_envs::reward::table::TableSpec;
use gfn_envs::reward::transform::Transform;
use gfn_envs::sequence::{BitSequenceSpec, Build, SequenceSpec};

fn no_files(_: &Path) -> std::io::Result<Vec<u8>> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn grid(dim: usize, side: usize, r0: f64) -> (Hypergrid, HypergridReward) {
    let grid = Hypergrid::new(dim, side);
    let reward = HypergridReward::new(&grid, r0, 0.5, 2.0);
    (grid, reward)
}

/// side, dim, r0, plateau coordinates, peak coordinates, modes, Z, log Z.
type Anchor = (usize, usize, f64, usize, usize, u64, f64, f64);

const ANCHORS: [Anchor; 12] = [
    (32, 2, 0.01, 16, 6, 4, 210.24, 5.3482),
    (64, 2, 0.01, 32, 12, 4, 840.96, 6.7345),
    (128, 2, 0.01, 64, 26, 4, 3563.84, 8.1786),
    (256, 2, 0.01, 128, 50, 4, 13847.36, 9.5358),
    (16, 3, 0.01, 8, 2, 8, 312.96, 5.7461),
    (32, 3, 0.01, 16, 6, 8, 2807.68, 7.9401),
    (64, 3, 0.01, 32, 12, 8, 22461.44, 10.0196),
    (128, 3, 0.01, 64, 26, 8, 187195.52, 12.1399),
    (16, 4, 0.01, 8, 2, 16, 2735.36, 7.9140),
    (20, 4, 0.01, 10, 4, 16, 7112.00, 8.8695),
    (20, 4, 0.001, 10, 4, 16, 5672.00, 8.6433),
    (32, 4, 0.01, 16, 6, 16, 45845.76, 10.7330),
];

#[test]
fn hypergrid_anchors_to_all_digits() {
    for (side, dim, r0, plateau, peak, modes, z, log_z) in ANCHORS {
        let (_, reward) = grid(dim, side, r0);
        assert_eq!(reward.n_coordinates(), (plateau, peak), "{side}^{dim}");
        assert_eq!(reward.modes().unwrap().count(), Some(modes), "{side}^{dim}");
        let got = reward.log_partition().unwrap();
        assert!((got.exp() - z).abs() < 0.005, "{side}^{dim}: Z = {}", got.exp());
        assert!((got - log_z).abs() < 0.00005, "{side}^{dim}: log Z = {got}");
    }
}

#[test]
fn hypergrid_variants_of_the_papers() {
    let env: Arc<dyn Environment> = Arc::new(Hypergrid::new(4, 20));
    let log_z = |variant| {
        let spec = HypergridRewardSpec { variant: Some(variant), ..Default::default() };
        let reward = spec.build(RewardContext { env: &env, files: &no_files }).unwrap();
        reward.log_partition().unwrap()
    };
    assert!((log_z(Variant::Standard) - 8.643297).abs() < 5e-7);
    assert!((log_z(Variant::Hard) - 9.285819).abs() < 5e-7);
    assert!((log_z(Variant::Pg) - 7112f64.ln()).abs() < 1e-12);
}

#[test]
fn log_z_by_enumeration_equals_the_closed_form() {
    for (dim, side) in [(1, 2), (2, 3), (2, 8), (3, 4), (2, 16), (3, 16), (2, 64), (4, 8)] {
        for variant in [[1e-3, 0.5, 2.0], [1e-4, 1.0, 3.0], [1e-2, 0.5, 2.0]] {
            let env = Hypergrid::new(dim, side);
            let [r0, r1, r2] = variant;
            let reward = HypergridReward::new(&env, r0, r1, r2);
            let graph = StateGraph::explore(&env, 100_000).unwrap();
            let target = graph.target(&reward).unwrap();
            let closed = reward.log_partition().unwrap();
            assert!((target.log_z - closed).abs() < 1e-10, "{side}^{dim}");
        }
    }
}

/// Nothing overflows in thousands of dimensions, in rewards and in sums over objects.
#[test]
fn rewards_in_thousands_of_dimensions() {
    for dim in [128, 10_000] {
        let d = dim as f64;
        for (side, r0) in [(8, 1e-2), (20, 1e-3), (32, 1e-5)] {
            let (_, reward) = grid(dim, side, r0);
            let (plateau, peak) = reward.n_coordinates();
            let log_share = |n: usize, r: f64| (r / r0).ln() + d * (n as f64 / side as f64).ln();
            let rest = log_share(plateau, 0.5).exp() + log_share(peak, 2.0).exp();
            let expected = r0.ln() + d * (side as f64).ln() + rest.ln_1p();
            let got = reward.log_partition().unwrap();
            assert!((got - expected).abs() < 1e-9 * expected.abs(), "{side}^{dim}: {got}");
            let mut states = States::new(dim + 1);
            [0, side as i32 / 2].into_iter().for_each(|s| states.push(&vec![s; dim + 1]));
            let mut log_r = [0.0; 2];
            reward.log_reward(&states, &mut log_r).unwrap();
            assert!((log_r[0] - (r0 + 0.5).ln()).abs() < 1e-12 && log_r[1] == r0.ln());
        }
    }
}

#[test]
fn modes_are_connected_clusters() {
    // Flood fill over peak cells against the reward's own identifiers.
    let (env, reward) = grid(2, 20, 1e-3);
    let modes = reward.modes().unwrap();
    let id = |x: i32, y: i32| {
        let inside = (0..20).contains(&x) && (0..20).contains(&y);
        inside.then(|| modes.modes_of(&[x, y, 1], 0.0).first().copied()).flatten()
    };
    let mut component = std::collections::HashMap::new();
    let mut n = 0;
    for x in 0..20 {
        for y in 0..20 {
            if id(x, y).is_none() || component.contains_key(&(x, y)) {
                continue;
            }
            let mut stack = vec![(x, y)];
            while let Some((x, y)) = stack.pop() {
                if id(x, y).is_some() && component.insert((x, y), n).is_none() {
                    stack.extend([(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]);
                }
            }
            n += 1;
        }
    }
    assert_eq!(Some(n), modes.count());
    for (&(x, y), &c) in &component {
        for (&(u, v), &d) in &component {
            assert_eq!(c == d, id(x, y) == id(u, v));
        }
    }
    assert_eq!(env.space().width, 3);
}

/// In 256 dimensions modes outnumber 64 bits. Counted in base 3 modulo 2^64, these two would be one.
#[test]
fn modes_of_many_dimensions_stay_apart() {
    let (_, reward) = grid(256, 8, 1e-3);
    let modes = reward.modes().unwrap();
    assert_eq!(modes.count(), None);
    let id = |bits: [u32; 8]| {
        let bit = |d: usize| bits[d / 32] >> (d % 32) & 1;
        let row: Vec<i32> = (0..256).map(|d| if bit(d) == 1 { 6 } else { 1 }).chain([1]).collect();
        let found = modes.modes_of(&row, 0.0);
        assert_eq!(found.len(), 1);
        found[0]
    };
    let a = [0xae75_f08f, 0x615f_6d01, 0xcc35_80c9, 0x7cf9_3d04, 0, 0, 0, 0];
    let b = [0, 0, 0, 0, 0x8318_9998, 0x4b8d_b203, 0xf5de_5c51, 0x5b95_4c49];
    assert_ne!(id(a), id(b));
    // All within two flips of a mode.
    let flips = (0..256).flat_map(|i| (0..=i).map(move |j| (i, j)));
    let ids: std::collections::HashSet<u64> = flips
        .map(|(i, j)| {
            let mut bits = a;
            bits[i / 32] ^= 1 << (i % 32);
            bits[j / 32] ^= if i == j { 0 } else { 1 << (j % 32) };
            id(bits)
        })
        .collect();
    assert_eq!(ids.len(), 256 * 257 / 2);
}

#[test]
fn uniform_policies_start_where_the_anchors_say() {
    for (dim, side, tv) in [(2, 64, 0.9568), (4, 20, 0.9386), (3, 32, 0.9319)] {
        let (env, reward) = grid(dim, side, 0.01);
        let graph = StateGraph::explore(&env, 400_000).unwrap();
        let target = graph.target(&reward).unwrap();
        let log_pf = graph.log_probs(&env, &UniformPolicy, Direction::Forward, 4096);
        let p = graph.terminal_probs(&log_pf);
        let got: f64 = 0.5 * p.iter().zip(&target.prob).map(|(p, q)| (p - q).abs()).sum::<f64>();
        assert!((got - tv).abs() < 5e-5, "{side}^{dim}: {got}");
    }
}

#[test]
fn the_floor_of_the_empirical_l1() {
    // Expected l1 of a perfect sampler on the papers' two grids.
    let anchors = [(1_600, 1.659, 1.666), (16_000, 0.678, 0.642), (200_000, 0.2243, 0.1794)];
    for (n, standard, hard) in anchors {
        for ([r0, r1, r2], expected) in [([1e-3, 0.5, 2.0], standard), ([1e-4, 1.0, 3.0], hard)] {
            let (peak, plateau, rest) = (256.0, 10_000.0 - 256.0, 150_000.0);
            let z = r0 * 160_000.0 + r1 * 10_000.0 + r2 * peak;
            let floor = peak * binomial_mean_deviation(n, (r0 + r1 + r2) / z)
                + plateau * binomial_mean_deviation(n, (r0 + r1) / z)
                + rest * binomial_mean_deviation(n, r0 / z);
            assert!((floor - expected).abs() < 6e-4, "{n}: {floor} against {expected}");
        }
    }
}

#[test]
fn bounds_enclose_log_z_and_meet_at_the_optimum() {
    let (env, reward) = grid(2, 6, 0.01);
    let graph = StateGraph::explore(&env, 1000).unwrap();
    let target = graph.target(&reward).unwrap();
    let log_pf = graph.log_probs(&env, &UniformPolicy, Direction::Forward, 64);
    let log_pb = graph.log_probs(&env, &UniformPolicy, Direction::Backward, 64);
    let (elbo, eubo) = graph.bounds(&target, &log_pf, &log_pb);
    assert!(elbo < target.log_z - 0.1 && eubo > target.log_z + 0.1, "{elbo} {eubo}");

    // The P_F that matches the uniform P_B: flows from the objects back to s0.
    let n = graph.states().len();
    let mut flow = vec![0.0; n];
    for (&i, p) in graph.terminals().iter().zip(&target.prob) {
        flow[i as usize] = *p;
    }
    let mut offset = vec![0; n + 1];
    for i in 0..n {
        offset[i + 1] = offset[i] + graph.edges(i).len();
    }
    let mut edge_flow = vec![0.0; log_pb.len()];
    for i in (0..n).rev() {
        for (k, edge) in graph.edges(i).iter().enumerate() {
            let e = offset[i] + k;
            edge_flow[e] = flow[edge.child as usize] * log_pb[e].exp();
            flow[i] += edge_flow[e];
        }
    }
    assert!((flow[0] - 1.0).abs() < 1e-12);
    let optimal: Vec<f64> = (0..n)
        .flat_map(|i| (offset[i]..offset[i + 1]).map(move |e| (i, e)))
        .map(|(i, e)| (edge_flow[e] / flow[i]).ln())
        .collect();
    let (elbo, eubo) = graph.bounds(&target, &optimal, &log_pb);
    assert!((elbo - target.log_z).abs() < 1e-10, "{elbo}");
    assert!((eubo - target.log_z).abs() < 1e-10, "{eubo}");
    for (p, q) in graph.terminal_probs(&optimal).iter().zip(&target.prob) {
        assert!((p - q).abs() < 1e-12);
    }
}

fn env_of(spec: &impl Kind<EnvAxis>) -> Arc<dyn Environment> {
    spec.build(EnvContext::NO_FILES).unwrap().into()
}

fn sequence() -> Arc<dyn Environment> {
    let symbols = ["A", "C"].map(str::to_owned).to_vec();
    let spec = SequenceSpec { length: 2, symbols, ..Default::default() };
    env_of(&spec)
}

/// The papers' usual normalisation.
fn power(floor: f64, exponent: f64) -> Transform {
    Transform { floor: Some(floor), exponent, r_max: Some(10.0), ..Default::default() }
}

fn table(text: &str, change: impl Fn(&mut TableSpec)) -> Result<Box<dyn Reward>, KeyError> {
    let files = |_: &Path| Ok(text.as_bytes().to_vec());
    let mut spec = TableSpec { path: "t.csv".into(), ..Default::default() };
    change(&mut spec);
    let env = sequence();
    Kind::<RewardAxis>::build(&spec, RewardContext { env: &env, files: &files })
}

#[test]
fn tables_are_transformed_as_stated() {
    let text = "object,value\r\nAC,2\r\nAA,-1\r\nCC,4\r\nCA,1\r\n";
    let reward = table(text, |spec| {
        spec.transform = power(0.5, 3.0);
        spec.modes.fraction = Some(0.5);
    })
    .unwrap();
    let mut xs = States::new(2);
    for row in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        xs.push(&row);
    }
    let mut got = [0.0; 4];
    reward.log_reward(&xs, &mut got).unwrap();
    let expected = [0.5f64, 2.0, 1.0, 4.0].map(|y| (10.0 * (y / 4.0).powi(3)).ln());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-12);
    }
    let modes = reward.modes().unwrap();
    assert_eq!(modes.count(), Some(2));
    let found: Vec<bool> = xs.rows().map(|row| !modes.modes_of(row, 0.0).is_empty()).collect();
    assert_eq!(found, [false, true, false, true]);

    // One symbol per column, and a byte-order mark.
    let columns = "\u{feff}b0,b1,y\nA,A,1\nA,C,2\nC,A,3\nC,C,4\n";
    let reward = table(columns, |_| {}).unwrap();
    reward.log_reward(&xs, &mut got).unwrap();
    assert!((got[2] - 3f64.ln()).abs() < 1e-12);
}

/// Energies, say: the largest reward, r_max and modes are those of the smallest values.
#[test]
fn tables_of_values_of_which_less_is_better() {
    let text = "object,value\nAC,2\nAA,-1\nCC,4\nCA,1\n";
    let mut xs = States::new(2);
    [[0, 0], [0, 1], [1, 0], [1, 1]].iter().for_each(|row| xs.push(row));
    for modes in [
        ModeSpec { fraction: Some(0.5), ..Default::default() },
        ModeSpec { threshold: Some(1.0), ..Default::default() },
    ] {
        let reward = table(text, |spec| {
            let (zero, one) = (Some(3.0), Some(1.0));
            spec.transform = Transform { zero, one, ..power(0.1, 3.0) };
            spec.modes = modes.clone();
        })
        .unwrap();
        let mut got = [0.0; 4];
        reward.log_reward(&xs, &mut got).unwrap();
        // (3 - y)/2 is at most 2, that of AA.
        let expected = [2.0f64, 0.5, 1.0, 0.1].map(|y| (10.0 * (y / 2.0).powi(3)).ln());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12);
        }
        let modes = reward.modes().unwrap();
        assert!(modes.definition().contains("at most 1"), "{}", modes.definition());
        let found: Vec<bool> = xs.rows().map(|row| !modes.modes_of(row, 0.0).is_empty()).collect();
        assert_eq!(found, [true, false, true, false]);
    }
}

#[test]
fn damaged_tables_are_refused_with_the_line() {
    let refused = |text: &str, part: &str| {
        let error = table(text, |_| {}).err().expect(text);
        let all = format!("{} {}", error.message, error.help.unwrap_or_default());
        assert!(all.contains(part), "{all:?} should contain {part:?}");
    };
    refused("object,value\nAA,1\nAC,2\nAA,3\n", "line 2 and again on line 4");
    refused("object,value\nAA,1\nAX,2\n", "`AX` on line 3");
    refused("object,value\nAA,NaN\n", "`NaN` on line 2");
    refused("object,value\nAA,1\nAC,2\n", "2 of 4 objects; missing are `CA`, `CC`");
    refused("object,value\nCC,1\n", "1 of 4 objects; missing are `AA`, `AC`, `CA`");
    refused("object,value\r\nAA,1\r\nAC,2\r\nAA,3\r\n", "line 2 and again on line 4");
    refused("object,value\nAA,1\nAC,-2\nCA,1\nCC,1\n", "line 3 of `t.csv` has the value -2");
    refused("object,value\n", "no rows");
    refused("object\nAA\n", "fewer than two columns");
    let column = table("object,value\nAA,1\n", |spec| spec.value_column = "score".into());
    let message = column.err().unwrap().message;
    assert!(message.contains("no column `score`; it has object, value"), "{message}");
    let both = table("object,value\nAA,1\n", |spec| {
        (spec.modes.fraction, spec.modes.list) = (Some(0.1), "modes.csv".into());
    });
    assert!(both.err().unwrap().message.contains("either a fraction"));
    let hash = table("object,value\n", |spec| spec.sha256 = "00".into()).err().unwrap();
    assert!(hash.data && hash.message.contains("SHA-256"));
}

struct Noted(Vec<u8>, std::cell::RefCell<String>);

impl Files for Noted {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
    fn note(&self, message: &str) {
        *self.1.borrow_mut() += message;
    }
}

#[test]
fn rows_listed_twice_with_one_value_are_noted() {
    let text = "object,value\nCC,4\nAA,1\nAC,2\nAA,1\nCA,3\nCC,4\n";
    let files = Noted(text.into(), Default::default());
    let env = sequence();
    let mut spec = TableSpec { path: "t.csv".into(), ..Default::default() };
    spec.modes.fraction = Some(0.5);
    let reward = spec.build(RewardContext { env: &env, files: &files }).unwrap();
    let note = files.1.borrow().clone();
    assert!(note.contains("`AA` on line 3 and again on line 5, `CC` on line 2"), "{note}");
    // Half of four objects, not of six rows.
    assert_eq!(reward.modes().unwrap().count(), Some(2));
    let mut xs = States::new(2);
    [[0, 0], [1, 1]].iter().for_each(|row| xs.push(row));
    let mut got = [0.0; 2];
    reward.log_reward(&xs, &mut got).unwrap();
    assert_eq!(got, [0.0, 4f64.ln()]);
}

#[test]
fn npy_files_hold_all_values_in_order() {
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }\n";
    let npy = |values: &[f64]| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes
    };
    let build = |env: &Arc<dyn Environment>, values: &[f64]| {
        let files = Noted(npy(values), Default::default());
        let spec = TableSpec { path: "t.npy".into(), ..Default::default() };
        spec.build(RewardContext { env, files: &files })
    };
    let env = sequence();
    let reward = build(&env, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let objects = StateGraph::explore(&*env, 100).unwrap().objects();
    let mut got = vec![0.0; 4];
    reward.log_reward(&objects, &mut got).unwrap();
    for (row, got) in objects.rows().zip(got) {
        assert!((got - f64::from(2 * row[0] + row[1] + 1).ln()).abs() < 1e-12, "{row:?}");
    }
    let message = |env, values: &[f64]| build(env, values).err().unwrap().message;
    assert!(message(&env, &[1.0, f64::NAN, 3.0, 4.0]).contains("NaN at number 1"));
    assert!(message(&env, &[1.0, -1.0, 3.0, 4.0]).contains("number 1 of `t.npy`"));
    let longer = env_of(&SequenceSpec { length: 3, ..Default::default() });
    assert!(message(&longer, &[1.0; 4]).contains("has 4 values, but there are 1331 objects"));
    let grid = env_of(&HypergridSpec::default());
    assert!(message(&grid, &[1.0; 4]).contains("have no order"));
}

#[test]
fn modes_by_threshold_list_and_radius() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("modes.csv");
    std::fs::write(&list, "object,rank\nCC,1\nCC,2\n").unwrap();
    let env = sequence();
    let text = "object,value\nAA,1\nAC,2\nCA,3\nCC,4\n";
    let table = dir.path().join("table.csv");
    std::fs::write(&table, text).unwrap();
    let found = |modes: ModeSpec| {
        let files = |path: &Path| std::fs::read(path);
        let spec = TableSpec { path: table.clone(), modes, ..Default::default() };
        let reward = spec.build(RewardContext { env: &env, files: &files }).unwrap();
        let modes = reward.modes().unwrap();
        let ids = [[0, 0], [0, 1], [1, 0], [1, 1]].map(|row| modes.modes_of(&row, 0.0));
        (modes.count(), ids.map(|ids| ids.len()))
    };
    let threshold = ModeSpec { threshold: Some(2.0), ..Default::default() };
    assert_eq!(found(threshold), (Some(3), [0, 1, 1, 1]));
    let listed = ModeSpec { list, ..Default::default() };
    assert_eq!(found(listed.clone()), (Some(1), [0, 0, 0, 1]));
    assert_eq!(found(ModeSpec { radius: 1, ..listed }), (Some(1), [0, 1, 1, 1]));
}

/// The 161,051 HOMO-LUMO gaps of QM9 block strings.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn qm9_strings_match_their_anchors() {
    let folder = Path::new(env!("GFN_REFERENCE_DATA"));
    let files = |path: &Path| std::fs::read(path);
    let env = env_of(&SequenceSpec::default());
    let spec = TableSpec {
        path: folder.join("qm9str_rewards.csv"),
        transform: power(1e-3, 5.0),
        modes: ModeSpec { fraction: Some(0.005), ..Default::default() },
        ..Default::default()
    };
    let context = RewardContext { env: &env, files: &files };
    let reward = Kind::<RewardAxis>::build(&spec, context).unwrap();
    let graph = StateGraph::explore(&*env, 200_000).unwrap();
    assert_eq!(graph.states().len(), 177_156);
    assert_eq!(graph.terminals().len(), 161_051);
    let target = graph.target(&*reward).unwrap();
    assert!((target.log_z - 9.62412).abs() < 5e-6, "{}", target.log_z);
    let mean: f64 = target.prob.iter().zip(&target.log_reward).map(|(p, r)| p * r.exp()).sum();
    assert!((mean - 0.203214).abs() < 5e-7, "{mean}");
    let uniform = 1.0 / 161_051.0;
    let tv: f64 = 0.5 * target.prob.iter().map(|p| (p - uniform).abs()).sum::<f64>();
    assert!((tv - 0.4026).abs() < 5e-5, "{tv}");

    let modes = reward.modes().unwrap();
    let listed = std::fs::read_to_string(folder.join("qm9str_modes.csv")).unwrap();
    let listed: std::collections::HashSet<Vec<i32>> = listed
        .lines()
        .skip(1)
        .map(|line| env.parse(line.split(',').next().unwrap()).unwrap())
        .collect();
    assert_eq!(modes.count(), Some(805));
    assert_eq!(listed.len(), 805);
    for row in graph.objects().rows() {
        assert_eq!(!modes.modes_of(row, 0.0).is_empty(), listed.contains(row));
    }
    // A monotone transform of the target keeps ranks.
    assert!(spearman(&target.log_reward, &target.prob).unwrap() > 1.0 - 1e-12);
    assert!(pearson(&target.log_reward, &target.prob).unwrap() < 0.999);
}

fn hamming(env: &Arc<dyn Environment>, spec: &HammingSpec) -> Result<Box<dyn Reward>, KeyError> {
    let files = |path: &Path| std::fs::read(path);
    Kind::<RewardAxis>::build(spec, RewardContext { env, files: &files })
}

#[test]
fn one_mode_has_the_binomial_partition_function() {
    let bits = BitSequenceSpec { bits: 8, word_bits: 2, build: Build::Fill };
    let env = env_of(&bits);
    let spec = HammingSpec { n_modes: 1, mode_radius: 1, exponent: 1.5, ..Default::default() };
    let reward = hamming(&env, &spec).unwrap();
    let graph = StateGraph::explore(&*env, 10_000).unwrap();
    assert_eq!((graph.states().len(), graph.terminals().len()), (625, 256));
    let target = graph.target(&*reward).unwrap();
    // C(8, d) strings at distance d: Z = (1 + e^-1.5)^8.
    assert!((target.log_z - 8.0 * (1.0 + (-1.5f64).exp()).ln()).abs() < 1e-12);
    let modes = reward.modes().unwrap();
    let found = graph.objects().rows().filter(|row| !modes.modes_of(row, 0.0).is_empty()).count();
    assert_eq!((modes.count(), found), (Some(1), 1 + 8));
}

#[test]
fn drawn_modes_are_the_same_for_every_word_length() {
    let objects = |word_bits: usize| {
        let bits = BitSequenceSpec { bits: 24, word_bits, build: Build::Append };
        let env = env_of(&bits);
        let reward = hamming(&env, &HammingSpec { n_modes: 5, ..Default::default() }).unwrap();
        let mut xs = States::new(env.space().width);
        let mut text = String::new();
        for i in 0..50u32 {
            text.clear();
            text.extend(
                (0..24)
                    .map(|b| if (i.wrapping_mul(2_654_435_761) >> b) & 1 == 1 { '1' } else { '0' }),
            );
            xs.push(&env.parse(&text).unwrap());
        }
        assert_eq!(env.render(xs.row(49)), text, "words side by side");
        let mut out = vec![0.0; 50];
        reward.log_reward(&xs, &mut out).unwrap();
        out
    };
    let reference = objects(1);
    assert!(reference.iter().any(|&r| r != reference[0]));
    for word_bits in [2, 3, 8, 12] {
        assert_eq!(objects(word_bits), reference, "{word_bits} bits per word");
    }
}

#[test]
fn the_estimated_target_agrees_with_enumeration() {
    let blocks = ["0011", "0111", "1000"].map(str::to_owned).to_vec();
    for (bits, word_bits, n_modes, exponent) in [(12, 2, 6, 0.7), (8, 4, 3, 2.0), (12, 3, 1, 1.0)] {
        let bits = BitSequenceSpec { bits, word_bits, build: Build::Append };
        let env = env_of(&bits);
        let spec = HammingSpec { n_modes, exponent, blocks: blocks.clone(), ..Default::default() };
        let reward = hamming(&env, &spec).unwrap();
        let graph = StateGraph::explore(&*env, 100_000).unwrap();
        let target = graph.target(&*reward).unwrap();
        let mean: f64 = target.prob.iter().zip(&target.log_reward).map(|(p, r)| p * r).sum();
        let estimate = reward.target_estimate().unwrap();
        let z_score =
            |got: f64, expected: f64, error: f64| (got - expected).abs() / (error + 1e-12);
        assert!(z_score(estimate.log_z, target.log_z, estimate.log_z_error) < 5.0, "{estimate:?}");
        assert!(z_score(estimate.mean_log_reward, mean, estimate.mean_error) < 5.0, "{estimate:?}");
        assert!(estimate.log_z_error < 0.01 && estimate.mean_error < 0.02, "{estimate:?}");
        // With one mode every sample weighs the same.
        assert_eq!(n_modes == 1, estimate.log_z_error < 1e-12);
    }
}

/// On the papers' task, where nothing can be enumerated: Z lies between the sum of R around every
/// mode less what pairs of modes share and that sum, and both are sums of binomials.
#[test]
fn the_estimated_target_of_the_papers_lies_between_exact_bounds() {
    let env = env_of(&BitSequenceSpec::default());
    let reward = hamming(&env, &HammingSpec::default()).unwrap();
    let estimate = reward.target_estimate().unwrap();
    let tests = reward.test_objects().unwrap();
    let modes: Vec<String> = tests.rows().step_by(120).map(|row| env.render(row)).collect();
    assert_eq!(modes.len(), 60);
    let distance = |a: &str, b: &str| a.bytes().zip(b.bytes()).filter(|(a, b)| a != b).count();
    let r = (-2.0f64).exp();
    // Σ_x min(R_a(x), R_b(x)) for two modes at distance D: only the D bits matter.
    let shared = |apart: usize| {
        let mut binomial = 1.0;
        let mut sum = 0.0;
        for i in 0..=apart {
            sum += binomial * r.powi(i.max(apart - i) as i32);
            binomial *= (apart - i) as f64 / (i + 1) as f64;
        }
        sum * (1.0 + r).powi(120 - apart as i32)
    };
    let all = 60.0 * (1.0 + r).powi(120);
    let mut pairs = 0.0;
    for (i, a) in modes.iter().enumerate() {
        pairs += modes[..i].iter().map(|b| shared(distance(a, b))).sum::<f64>();
    }
    let (low, high) = ((all - pairs).ln(), all.ln());
    assert!(high - low < 0.01, "{low} {high}");
    let within = 5.0 * estimate.log_z_error;
    assert!((low - within..=high + within).contains(&estimate.log_z), "{estimate:?} {low} {high}");
    // Around a single mode 120 e^-2 / (1 + e^-2) bits differ on average, and log R is -2 a bit.
    let alone = -2.0 * 120.0 * r / (1.0 + r);
    assert!((estimate.mean_log_reward - alone).abs() < 0.01, "{estimate:?} {alone}");
    assert!(estimate.mean_error < 0.002 && estimate.log_z_error < 0.002, "{estimate:?}");
}

#[test]
fn test_objects_are_modes_with_flipped_bits() {
    let bits = BitSequenceSpec { bits: 16, word_bits: 4, build: Build::Fill };
    let env = env_of(&bits);
    let reward = hamming(&env, &HammingSpec { n_modes: 1, ..Default::default() }).unwrap();
    let test = reward.test_objects().unwrap();
    let mut log_reward = vec![0.0; test.len()];
    reward.log_reward(&test, &mut log_reward).unwrap();
    // One mode: the string with c flips is at distance c.
    let expected: Vec<f64> = (0..16).map(|c| -2.0 * f64::from(c)).collect();
    assert_eq!(log_reward, expected);
}

#[test]
fn bad_bit_sequences_and_modes_are_refused() {
    let env = |bits, word_bits| {
        Kind::<EnvAxis>::build(
            &BitSequenceSpec { bits, word_bits, build: Build::Fill },
            EnvContext::NO_FILES,
        )
        .map(Arc::<dyn Environment>::from)
    };
    assert!(env(120, 7).err().unwrap().message.contains("not a whole number of words"));
    assert!(env(120, 0).is_err() && env(0, 8).is_err());
    let strings = env(12, 4).unwrap();
    let message = |spec: HammingSpec| hamming(&strings, &spec).err().unwrap().message;
    assert!(message(HammingSpec::default()).contains("not a whole number of blocks"));
    let blocks = vec!["0011".to_owned(), "00x1".to_owned()];
    let spec = HammingSpec { blocks, n_modes: 60, ..Default::default() };
    assert!(message(spec).contains("is no string of the environment"));
    let spec = HammingSpec { modes: "nowhere.txt".into(), ..Default::default() };
    assert!(hamming(&strings, &spec).err().unwrap().data);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("modes.txt");
    std::fs::write(&path, "\u{feff}000011110000\r\n\r\n0000\r\n").unwrap();
    let spec = HammingSpec { modes: path.clone(), ..Default::default() };
    let error = message(spec.clone());
    assert!(error.contains("line 3 of") && error.contains("`0000`"), "{error}");
    std::fs::write(&path, "000011110000\r\n111100001111").unwrap();
    assert_eq!(hamming(&strings, &spec).unwrap().modes().unwrap().count(), Some(2));
    let grid = env_of(&HypergridSpec::default());
    assert!(hamming(&grid, &HammingSpec::default()).err().unwrap().message.contains("strings"));
}

/// More modes than can be compared with in reasonable time are refused by the key that asks for them,
/// before any is drawn.
#[test]
fn too_many_modes_are_refused() {
    let refused = |spec: HammingSpec| hamming(&env_of(&BitSequenceSpec::default()), &spec).err();
    for n_modes in [1667, 65536, usize::MAX] {
        let error = refused(HammingSpec { n_modes, ..Default::default() }).unwrap();
        assert_eq!(error.key.as_deref(), Some("n_modes"));
        assert!(error.message.contains("test objects, more than"), "{}", error.message);
        assert!(error.help.unwrap().contains("at most 1666 modes"));
    }
    assert!(refused(HammingSpec { n_modes: 200, ..Default::default() }).is_none());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("modes.txt");
    std::fs::write(&path, ("0".repeat(120) + "\n").repeat(1667)).unwrap();
    let error = refused(HammingSpec { modes: path, ..Default::default() }).unwrap();
    assert_eq!(error.key.as_deref(), Some("modes"));
    // With test objects of one's own it is the table of distances that counts.
    let test_set = dir.path().join("tests.txt");
    std::fs::write(&test_set, "0".repeat(120)).unwrap();
    let spec = |n_modes| HammingSpec { n_modes, test_set: test_set.clone(), ..Default::default() };
    assert!(refused(spec(2000)).is_none());
    assert!(refused(spec(20_000)).unwrap().message.contains("distances"));
}

/// The papers' modes, and the distances of 7,200 test strings.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn bit_sequence_distances_match_the_golden_files() {
    let folder = Path::new(env!("GFN_REFERENCE_DATA"));
    for seed in [0, 42] {
        let read = |name: String| std::fs::read_to_string(folder.join(name)).unwrap();
        let strings = read(format!("bitseq_testset_n120_seed{seed}.txt"));
        let golden = read(format!("golden/bitseq_testset_distance_seed{seed}.csv"));
        let expected: Vec<f64> = golden.lines().skip(1).map(|d| d.parse().unwrap()).collect();
        for word_bits in [2, 4, 6, 8, 10] {
            let bits = BitSequenceSpec { word_bits, ..Default::default() };
            let env = env_of(&bits);
            let modes = folder.join(format!("bitseq_modes_n120_seed{seed}.txt"));
            let reward = hamming(&env, &HammingSpec { modes, ..Default::default() }).unwrap();
            let mut xs = States::new(env.space().width);
            strings.lines().for_each(|line| xs.push(&env.parse(line).unwrap()));
            let mut out = vec![0.0; xs.len()];
            reward.log_reward(&xs, &mut out).unwrap();
            let got: Vec<f64> = out.iter().map(|log_reward| log_reward / -2.0).collect();
            assert_eq!(got, expected, "seed {seed}, {word_bits} bits per word");
            assert_eq!(reward.modes().unwrap().count(), Some(60));
            assert_eq!(reward.test_objects().unwrap().len(), 60 * 120);
            // A union bound that is all but tight, and the mean distance 14.30.
            let estimate = reward.target_estimate().unwrap();
            assert!((estimate.log_z - 19.326).abs() < 0.01, "{estimate:?}");
            assert!((estimate.mean_log_reward + 2.0 * 14.30).abs() < 0.1, "{estimate:?}");
        }
    }
}

/// The 65,536 binding scores of SIX6 (TFBind8), filled in any order.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn tfbind8_matches_its_anchors() {
    let folder = Path::new(env!("GFN_REFERENCE_DATA"));
    let files = |path: &Path| std::fs::read(path);
    let sequence = SequenceSpec {
        length: 8,
        min_length: None,
        symbols: ["A", "C", "G", "T"].map(str::to_owned).to_vec(),
        build: Build::Fill,
    };
    let env = env_of(&sequence);
    let spec = TableSpec {
        path: folder.join("tfbind8_six6_ref_r1.csv"),
        object_columns: vec!["sequence".to_owned()],
        value_column: "y".to_owned(),
        transform: power(1e-3, 3.0),
        modes: ModeSpec { list: folder.join("tfbind8_modes.csv"), ..Default::default() },
        ..Default::default()
    };
    let context = RewardContext { env: &env, files: &files };
    let reward = Kind::<RewardAxis>::build(&spec, context).unwrap();
    let graph = StateGraph::explore(&*env, 400_000).unwrap();
    assert_eq!(graph.states().len(), 390_625);
    assert_eq!(graph.terminals().len(), 65_536);
    let target = graph.target(&*reward).unwrap();
    assert!((target.log_z - 11.462147).abs() < 5e-6, "{}", target.log_z);
    let mean: f64 = target.prob.iter().zip(&target.log_reward).map(|(p, r)| p * r.exp()).sum();
    assert!((mean - 3.319955).abs() < 5e-6, "{mean}");
    let modes = reward.modes().unwrap();
    assert_eq!(modes.count(), Some(328));
    let best = env.parse("TGATACCT").unwrap();
    assert!(!modes.modes_of(&best, 0.0).is_empty());
    assert!(modes.modes_of(&env.parse("AAAAAAAA").unwrap(), 0.0).is_empty());
    // 8! orders to fill a string.
    let i = graph.find(&best).unwrap();
    assert!((graph.log_paths()[i] - 40_320f64.ln()).abs() < 1e-9);
}
