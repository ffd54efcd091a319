//! The laws that every registered environment obeys, checked on random walks and, where the
//! environment is small, on its whole state graph.

use std::collections::{HashMap, HashSet};

use gfn_core::policy::{Direction, UniformPolicy};
use gfn_core::registry::{Entry, EnvAxis, EnvContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::space::{At, Scope};
use gfn_core::{Environment, Layers, NO_TOKEN, Space, StateGraph, States};
use gfn_envs::ENVIRONMENTS;
use toml::Spanned;
use toml::de::DeTable;

/// Specs that the laws are checked on: at least one small and one large per kind.
const SPECS: &[(&str, &str, bool)] = &[
    ("hypergrid", "dim = 1\nside = 2", true),
    ("hypergrid", "dim = 3\nside = 4", true),
    ("hypergrid", "dim = 2\nside = 9", true),
    ("hypergrid", "dim = 4\nside = 20", false),
    ("hypergrid", "dim = 120\nside = 3", false),
    ("sequence", "length = 4\nsymbols = ['A', 'B', 'C']", true),
    ("sequence", "length = 3\nsymbols = ['0', '1', '10']\nbuild = 'append'", true),
    ("sequence", "length = 1\nsymbols = ['x', 'y']", true),
    ("sequence", "length = 4\nsymbols = ['A', 'B']\nbuild = 'fill'", true),
    ("sequence", "length = 1\nsymbols = ['x', 'y', 'z']\nbuild = 'fill'", true),
    ("sequence", "length = 30\nsymbols = ['A', 'C', 'G', 'T']\nbuild = 'fill'", false),
    ("sequence", "length = 4\nmin_length = 1\nsymbols = ['A', 'B']", true),
    ("sequence", "length = 3\nmin_length = 0\nsymbols = ['0', '1', '10']\nbuild = 'append'", true),
    ("sequence", "length = 12\nmin_length = 3\nsymbols = ['A', 'C', 'G', 'T']", false),
    ("sequence", "", false),
    ("bit_sequence", "bits = 6\nword_bits = 2", true),
    ("bit_sequence", "bits = 6\nword_bits = 3\nbuild = 'prepend_append'", true),
    ("bit_sequence", "bits = 8\nword_bits = 8\nbuild = 'append'", true),
    ("bit_sequence", "", false),
    ("dag", "nodes = 2", true),
    ("dag", "nodes = 3", true),
    ("dag", "nodes = 4", true),
    ("dag", "nodes = 4\nmax_parents = 1", true),
    ("dag", "nodes = 4\nrequired = ['A -> B', 'B -> C']\nforbidden = ['D -> A']", true),
    ("dag", "names = ['x', 'y', 'z', 'u']\ntiers = [['z'], ['x', 'y']]\nmax_parents = 2", true),
    ("dag", "", true),
    ("dag", "nodes = 20", false),
    ("dag", "nodes = 31\nmax_parents = 3\nrequired = ['X31 -> X1']", false),
    ("dag", "nodes = 33", false),
    ("dag", "nodes = 64\nmax_parents = 5\nforbidden = ['X1 -> X64']", false),
    ("dag", "nodes = 64", false),
    ("molecule", "max_atoms = 1", true),
    ("molecule", "max_atoms = 3", true),
    ("molecule", "max_atoms = 4", true),
    ("molecule", "max_atoms = 3\nsymmetry = 'actions'", true),
    ("molecule", "max_atoms = 3\nactions = 'charges'", true),
    ("molecule", "max_atoms = 2\nactions = 'full'", true),
    ("molecule", "max_atoms = 3\nactions = 'full'", true),
    ("molecule", "max_atoms = 6", false),
    ("molecule", "", false),
    ("molecule", "actions = 'full'", false),
    ("molecule", "max_atoms = 16\nactions = 'full'\nvalence = 'paper'", false),
];

/// Actions per walk that are taken and undone.
const TRIED: usize = 30_000;

fn build(entry: &Entry<EnvAxis>, spec: &str) -> Box<dyn Environment> {
    let table = DeTable::parse(spec).expect("TOML");
    let settings = (entry.parse)(Spanned::new(0..0, table.into_inner())).expect("settings");
    settings.build(EnvContext::NO_FILES).expect("an environment")
}

fn for_each(small: bool, check: impl Fn(&str, &dyn Environment)) {
    for entry in ENVIRONMENTS {
        let specs: Vec<_> = SPECS.iter().filter(|spec| spec.0 == entry.name).collect();
        assert!(specs.iter().any(|spec| spec.2), "{}: add a small spec here", entry.name);
        for (name, spec, is_small) in specs {
            if *is_small || !small {
                check(&format!("{name} ({})", spec.replace('\n', ", ")), &*build(entry, spec));
            }
        }
    }
}

fn legal(env: &dyn Environment, row: &[i32], direction: Direction) -> Vec<usize> {
    let mut mask = vec![true; env.space().n_actions_in(direction)];
    env.legal_in(direction, row, &mut mask);
    (0..mask.len()).filter(|&action| mask[action]).collect()
}

fn observe(env: &dyn Environment, row: &[i32]) -> Vec<i32> {
    let mut cells = vec![7; env.space().n_cells()];
    env.observe(row, &mut cells);
    cells
}

#[test]
fn walks_obey_the_laws() {
    for_each(false, |name, env| {
        let space = env.space();
        let mut start = vec![9; space.width];
        env.reset(&mut start);
        assert!(legal(env, &start, Direction::Backward).is_empty(), "{name}: s0 has no parent");
        assert!(!legal(env, &start, Direction::Forward).is_empty(), "{name}: s0 has children");
        let draw = Draw { streams: Streams::new(1), purpose: Purpose::Test, step: 0 };
        let mut sampler = Sampler::default();
        let walks = sampler.forward(env, &UniformPolicy, Exploration::NONE, draw, 40);
        for i in 0..walks.len() {
            let rows: Vec<&[i32]> = walks.rows(i).map(|r| walks.states.row(r)).collect();
            assert!(rows.len() <= space.max_len + 1, "{name}: max_len is a bound");
            let distinct: HashSet<_> = rows.iter().collect();
            assert_eq!(distinct.len(), rows.len(), "{name}: a state is never visited twice");
            assert_eq!(rows[0], start);
            let (last, inner) = rows.split_last().unwrap();
            let ends = |row: &[i32]| legal(env, row, Direction::Forward).is_empty();
            assert!(ends(last) && !inner.iter().any(|row| ends(row)));
            // Every state of short walks with few actions.
            let stride = (rows.len() * space.n_actions).div_ceil(TRIED);
            for row in rows.iter().skip(i % stride).step_by(stride) {
                laws_at(name, env, row);
            }
        }
        // Backward walks from what was reached end in s0, along the same edges.
        let back = sampler.backward(env, &UniformPolicy, draw, &walks.terminals());
        for i in 0..back.len() {
            assert_eq!(back.states.row(back.rows(i).start), start, "{name}");
            assert_eq!(back.terminal(i), walks.terminal(i), "{name}");
            let mut row = start.clone();
            for (t, transition) in back.transitions(i).enumerate() {
                let inverse = env.step(&mut row, back.actions[transition] as usize);
                let undoes = back.back_actions[transition] as usize;
                assert!(inverse == undoes || !env.edges_are_actions(), "{name}");
                assert_eq!(row, back.states.row(back.rows(i).start + t + 1), "{name}");
            }
        }
    });
}

/// Actions are legal only where their blocks say: at slots that are empty or filled, between slots
/// that are two.
fn places_hold(name: &str, space: &Space, cells: &[i32], direction: Direction, legal: &[usize]) {
    let mut first = 0;
    for block in space.blocks(direction) {
        let n = space.places(block.scope) * block.size;
        for action in legal.iter().filter(|&&action| (first..first + n).contains(&action)) {
            let place = (action - first) / block.size;
            match block.scope {
                Scope::Whole | Scope::Slot(At::Any) | Scope::Unordered => {}
                Scope::Slot(at) => {
                    let features = space.features.len();
                    let of_slot = &cells[place * features..][..features];
                    let empty = of_slot.iter().all(|&value| value == NO_TOKEN);
                    assert_eq!(empty, at == At::Empty, "{name}: {} at slot {place}", block.name);
                }
                Scope::Ordered => {
                    assert_ne!(place / space.slots, place % space.slots, "{name}: {}", block.name);
                }
            }
        }
        first += n;
    }
    assert_eq!(first, space.n_actions_in(direction), "{name}: blocks are all actions");
}

/// Both directions undo each other for every legal action of one state.
fn laws_at(name: &str, env: &dyn Environment, row: &[i32]) {
    let space = env.space();
    for action in legal(env, row, Direction::Forward) {
        let mut child = row.to_vec();
        let back = env.step(&mut child, action);
        assert_ne!(child, row, "{name}: a step changes the state");
        assert!(legal(env, &child, Direction::Backward).contains(&back), "{name}");
        let redoes = env.unstep(&mut child, back);
        assert_eq!(child, row, "{name}: unstep undoes step {action}");
        assert!(redoes == action || !env.edges_are_actions(), "{name}: by the same edge");
    }
    for back in legal(env, row, Direction::Backward) {
        let mut parent = row.to_vec();
        let action = env.unstep(&mut parent, back);
        assert!(legal(env, &parent, Direction::Forward).contains(&action), "{name}");
        let undoes = env.step(&mut parent, action);
        assert_eq!(parent, row, "{name}: step undoes unstep {back}");
        assert!(undoes == back || !env.edges_are_actions(), "{name}: by the same edge");
    }
    if let Some(ranges) = env.cell_ranges() {
        assert_eq!(ranges.len(), row.len(), "{name}: one range per cell");
        let inside = row.iter().zip(&ranges).all(|(cell, range)| range.contains(cell));
        assert!(inside, "{name}: {row:?} is within {ranges:?}");
    }
    let cells = observe(env, row);
    let valid = |(cell, &value): (usize, &i32)| {
        value == NO_TOKEN || (0..space.values_of(cell) as i32).contains(&value)
    };
    assert!(cells.iter().enumerate().all(valid), "{name}: cells hold values of theirs: {cells:?}");
    assert_eq!(cells, observe(env, row), "{name}: observations are deterministic");
    for direction in [Direction::Forward, Direction::Backward] {
        places_hold(name, space, &cells, direction, &legal(env, row, direction));
    }
}

#[test]
fn small_graphs_obey_the_laws() {
    for_each(true, |name, env| {
        let graph = StateGraph::explore(env, 100_000).expect("small");
        // Observations tell apart what policies must tell apart.
        let mut seen: HashMap<(Direction, Vec<i32>), Vec<usize>> = HashMap::new();
        for row in graph.states().rows() {
            laws_at(name, env, row);
            for direction in [Direction::Forward, Direction::Backward] {
                let actions = legal(env, row, direction);
                if actions.len() > 1 {
                    let key = (direction, observe(env, row));
                    let first = seen.entry(key).or_insert_with(|| actions.clone());
                    assert_eq!(*first, actions, "{name}: the mask can be read off the observation");
                }
            }
        }
        // Every backward action of every state is the inverse of exactly one edge.
        let n_back: usize =
            graph.states().rows().map(|row| legal(env, row, Direction::Backward).len()).sum();
        assert!(n_back == graph.n_edges() || !env.edges_are_actions(), "{name}: in bijection");
        symmetries_hold(name, env, &graph);

        let texts: HashSet<String> = graph.objects().rows().map(|row| env.render(row)).collect();
        assert_eq!(texts.len(), graph.terminals().len(), "{name}: render separates objects");
        if let Some(n) = env.n_objects() {
            assert_eq!(n, graph.terminals().len() as u64, "{name}");
        }
        for row in graph.objects().rows() {
            if let Some(parsed) = env.parse(&env.render(row)) {
                assert_eq!(parsed, row, "{name}: parse undoes render");
            }
        }
        let counted = graph.log_paths();
        for (i, row) in graph.states().rows().enumerate() {
            if let Some(closed_form) = env.log_paths(row) {
                assert!((closed_form - counted[i]).abs() < 1e-9, "{name}: path counts");
            }
        }
        let log_pf = graph.log_probs(env, &UniformPolicy, Direction::Forward, 64);
        let total: f64 = graph.terminal_probs(&log_pf).iter().sum();
        assert!((total - 1.0).abs() < 1e-12, "{name}: P_T sums to {total}");
    });
}

/// Between two states, forward and backward actions are in a ratio whose product along a way from s0 is
/// the same for all ways to a state, and what rewards of objects are divided by unless corrected.
fn symmetries_hold(name: &str, env: &dyn Environment, graph: &StateGraph) {
    let mut log_ratios = vec![None; graph.states().len()];
    log_ratios[0] = Some(0.0);
    for i in 0..log_ratios.len() {
        let mut children = HashMap::new();
        for edge in graph.edges(i) {
            *children.entry(edge.child as usize).or_insert(0) += 1;
        }
        for (child, n_forward) in children {
            let row = graph.states().row(child);
            let leads_here = |&back: &usize| {
                let mut parent = row.to_vec();
                env.unstep(&mut parent, back);
                parent == graph.states().row(i)
            };
            let back = legal(env, row, Direction::Backward);
            let n_back = back.into_iter().filter(leads_here).count();
            let ratio = log_ratios[i].unwrap() + (f64::from(n_forward) / n_back as f64).ln();
            let first = *log_ratios[child].get_or_insert(ratio);
            assert!((ratio - first).abs() < 1e-9, "{name}: {row:?} by all ways");
        }
    }
    for &i in graph.terminals() {
        let (log_ratio, row) = (log_ratios[i as usize].unwrap(), graph.states().row(i as usize));
        assert!((env.log_symmetry(row) + log_ratio).abs() < 1e-9, "{name}: {row:?}");
    }
}

/// An environment that says nothing of its cells, so that its rows are hashed.
struct Hashed(Box<dyn Environment>);

impl Environment for Hashed {
    fn space(&self) -> &Space {
        self.0.space()
    }
    fn reset(&self, row: &mut [i32]) {
        self.0.reset(row);
    }
    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        self.0.legal(row, mask);
    }
    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        self.0.legal_back(row, mask);
    }
    fn step(&self, row: &mut [i32], action: usize) -> usize {
        self.0.step(row, action)
    }
    fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
        self.0.unstep(row, back_action)
    }
    fn observe(&self, row: &[i32], tokens: &mut [i32]) {
        self.0.observe(row, tokens);
    }
    fn render(&self, row: &[i32]) -> String {
        self.0.render(row)
    }
}

#[test]
fn rows_are_found_by_digits_and_by_hash_alike() {
    for (name, spec, small) in SPECS {
        let entry = ENVIRONMENTS.iter().find(|entry| entry.name == *name).unwrap();
        let env = build(entry, spec);
        if !small || env.cell_ranges().is_none() {
            continue;
        }
        let by_digits = StateGraph::explore(&*env, 100_000).unwrap();
        let hashed = StateGraph::explore(&Hashed(env), 100_000).unwrap();
        assert_eq!(by_digits.states(), hashed.states(), "{name} ({spec})");
        assert_eq!(by_digits.terminals(), hashed.terminals());
        for (i, row) in hashed.states().rows().enumerate() {
            assert_eq!(by_digits.edges(i), hashed.edges(i));
            assert_eq!(by_digits.find(row), Some(i));
            assert_eq!(hashed.find(row), Some(i));
        }
        let outside = vec![1 << 20; hashed.states().width()];
        assert_eq!((by_digits.find(&outside), hashed.find(&outside)), (None, None));
    }
}

#[test]
fn equal_symbols_keep_two_edges() {
    // "A" then "AA": appending and prepending lead to the same string, by different actions.
    let entry = ENVIRONMENTS.iter().find(|entry| entry.name == "sequence").unwrap();
    let env = build(entry, "length = 2\nsymbols = ['A', 'B']");
    let graph = StateGraph::explore(&*env, 1000).unwrap();
    let a = graph.find(&[0, -1]).unwrap();
    let aa = graph.find(&[0, 0]).unwrap() as u32;
    let to_aa: Vec<_> = graph.edges(a).iter().filter(|edge| edge.child == aa).collect();
    assert_eq!(to_aa.len(), 2);
    assert_ne!(to_aa[0].back_action, to_aa[1].back_action);
    assert!((graph.log_paths()[aa as usize] - 4f64.ln()).abs() < 1e-12, "2^2 paths");
}

#[test]
fn a_million_samples_agree_with_dynamic_programming() {
    // Under a policy that is far from uniform: logits are a fixed hash of state and action.
    struct Skewed;
    impl gfn_core::Policy for Skewed {
        fn logits(
            &self,
            _: &dyn Environment,
            _: Direction,
            states: &gfn_core::States,
            out: &mut [f32],
        ) {
            let n = out.len() / states.len();
            for (row, out) in states.rows().zip(out.chunks_mut(n)) {
                for (action, out) in out.iter_mut().enumerate() {
                    let mix = row.iter().fold(action as i32 * 31, |h, &c| h * 7 + c);
                    *out = (mix as f32 * 0.7).sin();
                }
            }
        }
    }
    let env = gfn_envs::hypergrid::Hypergrid::new(2, 4);
    let graph = StateGraph::explore(&env, 1000).unwrap();
    let log_pf = graph.log_probs(&env, &Skewed, Direction::Forward, 7);
    let p_t = graph.terminal_probs(&log_pf);
    let log_p_t = graph.log_terminal_probs(&log_pf);
    let n = 1_000_000u64;
    let mut counts = vec![0u64; p_t.len()];
    let mut sampler = Sampler::default();
    for step in 0..100 {
        let draw = Draw { streams: Streams::new(5), purpose: Purpose::Test, step };
        let batch = sampler.forward(&env, &Skewed, Exploration::NONE, draw, (n / 100) as usize);
        for row in batch.terminals().rows() {
            counts[graph.find_object(row).unwrap()] += 1;
        }
    }
    // Chi-squared with 15 degrees of freedom exceeds 37.7 with probability 0.001.
    let expected: Vec<f64> = p_t.iter().map(|p| p * n as f64).collect();
    let chi2: f64 = counts.iter().zip(&expected).map(|(&c, e)| (c as f64 - e).powi(2) / e).sum();
    assert!(chi2 < 37.7, "chi2 = {chi2}");
    for (p, log_p) in p_t.iter().zip(&log_p_t) {
        assert!((p.ln() - log_p).abs() < 1e-12);
    }
}

#[test]
fn exploration_mixes_as_it_says() {
    // One choice between two actions with log-odds 1 under ε = 0.4 and temperature 2.
    struct Odds;
    impl gfn_core::Policy for Odds {
        fn logits(&self, _: &dyn Environment, _: Direction, _: &gfn_core::States, out: &mut [f32]) {
            out.chunks_mut(2).for_each(|out| out.copy_from_slice(&[1.0, 0.0]));
        }
    }
    let entry = ENVIRONMENTS.iter().find(|entry| entry.name == "sequence").unwrap();
    let env = build(entry, "length = 1\nsymbols = ['x', 'y']\nbuild = 'append'");
    let exploration = Exploration { epsilon: 0.4, temperature: 2.0 };
    let draw = Draw { streams: Streams::new(2), purpose: Purpose::Test, step: 0 };
    let n = 200_000;
    let batch = Sampler::default().forward(&*env, &Odds, exploration, draw, n);
    let xs = batch.terminals().rows().filter(|row| row[0] == 0).count() as f64 / n as f64;
    let expected = 0.4 * 0.5 + 0.6 / (1.0 + (-0.5f64).exp());
    let sd = (expected * (1.0 - expected) / n as f64).sqrt();
    assert!((xs - expected).abs() < 4.0 * sd, "{xs} against {expected}");
}

/// A policy with something to say about every state: logits are a hash of state and action.
struct Varied;

impl gfn_core::Policy for Varied {
    fn logits(&self, _: &dyn Environment, _: Direction, states: &States, out: &mut [f32]) {
        let n = out.len() / states.len();
        for (row, out) in states.rows().zip(out.chunks_mut(n)) {
            let mut hash = row.iter().fold(7u32, |h, &c| h.wrapping_mul(31).wrapping_add(c as u32));
            for out in out {
                hash = hash.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *out = (hash >> 20) as f32 / 1024.0 - 2.0;
            }
        }
    }
}

/// R(x) grows with the text, so that no two objects are alike.
struct ByText<'a>(&'a dyn Environment);

impl gfn_core::Reward for ByText<'_> {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), gfn_core::RewardError> {
        for (out, row) in out.iter_mut().zip(xs.rows()) {
            *out = self.0.render(row).bytes().fold(0.1, |r, b| (r * 3.7 + f64::from(b)) % 2.3);
        }
        Ok(())
    }
}

#[test]
fn layers_agree_with_the_whole_graph() {
    for_each(true, |name, env| {
        let graph = StateGraph::explore(env, 100_000).unwrap();
        let target = graph.target(&ByText(env)).unwrap();
        let log_pf = graph.log_probs(env, &Varied, Direction::Forward, 100);
        let expected = graph.terminal_probs(&log_pf);
        let Some(layers) = Layers::new(env, 1 << 20) else {
            return assert!(env.cell_ranges().is_none(), "{name}: a small box");
        };
        let (prob, streamed) = layers.terminal_probs(env, &Varied, &ByText(env)).unwrap();
        assert!((streamed.log_z - target.log_z).abs() < 1e-12, "{name}");
        assert!((prob.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{name}");
        // Objects are in another order: that of their cells.
        let objects = graph.objects();
        let mut order: Vec<usize> = (0..objects.len()).collect();
        order.sort_by_key(|&i| objects.row(i));
        assert_eq!(prob.len(), order.len(), "{name}");
        for (place, &i) in order.iter().enumerate() {
            assert!((prob[place] - expected[i]).abs() < 1e-14, "{name}");
            assert_eq!(streamed.log_reward[place], target.log_reward[i], "{name}");
        }
        assert!(Layers::new(env, 1).is_none(), "{name}: the limit holds");
    });
}
