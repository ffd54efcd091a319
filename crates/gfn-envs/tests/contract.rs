//! The laws that every registered environment obeys, checked on random walks and, where the
//! environment is small, on its whole state graph.

use gfn_core::policy::{Direction, UniformPolicy};
use gfn_core::registry::{Entry, EnvAxis, EnvContext};
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Ancestors, Environment, Layers, Space, StateGraph, States, laws};
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
    ("fragments", "max_fragments = 2\nFRAGMENTS", true),
    ("fragments", "max_fragments = 3\nFRAGMENTS", true),
    ("fragments", "max_fragments = 3\nsymmetry = 'actions'\nFRAGMENTS", true),
    ("fragments", "max_fragments = 4\nmin_fragments = 3\nversion = 'blocks'\nFRAGMENTS", true),
    ("fragments", "max_fragments = 2\nversion = 'blocks'\nFRAGMENTS", true),
    ("fragments", "FRAGMENTS", false),
    ("fragments", "version = 'blocks'\nFRAGMENTS", false),
    ("fragments", "max_fragments = 16\nversion = 'blocks'\nFRAGMENTS", false),
];

/// Fragments with symmetries of all kinds: none, two sites exchanged, an atom that is joined three times, rings.
const FRAGMENTS: &str = "fragments = [
    { smiles = 'O', attach = [0] },
    { smiles = 'CC', attach = [0, 1] },
    { smiles = 'C', attach = [0, 0, 0] },
    { smiles = 'c1ccccc1', attach = [0, 1, 2, 3, 4, 5] },
]";

fn build(entry: &Entry<EnvAxis>, spec: &str) -> Box<dyn Environment> {
    let spec = spec.replace("FRAGMENTS", FRAGMENTS);
    let table = DeTable::parse(&spec).expect("TOML");
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

#[test]
fn walks_obey_the_laws() {
    for_each(false, |name, env| {
        laws::on_walks(env).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        // Backward walks from what was sampled end in s0, along the same edges.
        let mut start = vec![9; env.space().width];
        env.reset(&mut start);
        let draw = Draw { streams: Streams::new(1), purpose: Purpose::Test, step: 0 };
        let mut sampler = Sampler::default();
        let walks = sampler.forward(env, &UniformPolicy, Exploration::NONE, draw, 40);
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

#[test]
fn small_graphs_obey_the_laws() {
    for_each(true, |name, env| {
        let graph = StateGraph::explore(env, 100_000).expect("small");
        laws::on_graph(env, &graph).unwrap_or_else(|broken| panic!("{name}: {broken}"));
    });
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

/// Of every third object, by all ways to it and no other: also where actions stand for several, of a
/// policy that knows nothing of symmetries.
#[test]
fn ancestors_of_objects_are_enough_for_their_probabilities() {
    for_each(true, |name, env| {
        let log_probs = |graph: &StateGraph| {
            graph.log_terminal_probs(&graph.log_probs(env, &Varied, Direction::Forward, 100))
        };
        let whole = StateGraph::explore(env, 100_000).unwrap();
        let (objects, expected) = (whole.objects(), log_probs(&whole));
        let mut ancestors = Ancestors::new(env);
        let mut most = 0;
        for i in (0..objects.len()).step_by(3) {
            let own = ancestors.add(env, objects.row(i), 100_000).unwrap();
            assert!(Ancestors::of(env, objects.row(i), own).is_some(), "{name}");
            assert!(Ancestors::of(env, objects.row(i), own - 1).is_none(), "{name}");
            most = most.max(own);
        }
        assert!(ancestors.states().len() >= most, "{name}");
        let part = StateGraph::of_ancestors(env, ancestors).unwrap();
        assert_eq!(part.terminals().len(), objects.len().div_ceil(3), "{name}");
        let got = log_probs(&part);
        for i in (0..objects.len()).step_by(3) {
            let got = got[part.find_object(objects.row(i)).unwrap()];
            assert!((got - expected[i]).abs() < 1e-9, "{name}: {got} {}", expected[i]);
        }
    });
}
