//! The promise: every objective with every backward strategy reaches P ∝ R.
//!
//! Every legal pair is trained on a 7×7 grid, the smallest with floor, plateau and peaks, until its
//! exact total variation is below 0.01, within a budget of 4,000 iterations of 32 trajectories, on a
//! network of 2×64 (a quarter or half of that for PPO and TRPO); samples of pairs again on eight other worlds, among
//! them all 25 graphs of three named nodes, and the 543 of four nodes, until it is below 0.02. Exploration (10 % uniform actions)
//! is needed to see cells of reward 1e-4 at all; it does not move the fixed point.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::StateGraph;
use gfn_core::objective::has_loss;

const LIMIT: f64 = 0.01;
/// Where there are hundreds of objects.
const LIMIT_OF_MANY: f64 = 0.02;
const CHECK_EVERY: u64 = 250;

/// A world, as the tables of a spec.
struct World {
    env: String,
    reward: String,
    /// Whether it has so many objects that it takes longer.
    many: bool,
}

/// 4,000 iterations.
const TRAJECTORIES: usize = 128_000;

fn spec(world: &World, objective: &str, backward: &str, epsilon: f64) -> String {
    let World { env, reward, many } = world;
    let trajectories = if *many { 3 * TRAJECTORIES } else { TRAJECTORIES };
    // Steps in a trust region, and epochs of proximal ones, are fewer and dearer.
    let of = |kind: &str| objective.contains(&format!("kind = '{kind}'"));
    let fewer = if of("trpo") || *many { 2 } else { 4 };
    let trajectories = if of("ppo") || of("trpo") { trajectories / fewer } else { trajectories };
    let (shared, settings) = match of("trpo") {
        true => ("\nshared = false", "\ndelta = 0.02\niterations = 5"),
        false => ("", ""),
    };
    let settings = if objective.contains("delta") { "" } else { settings };
    format!(
        "[env]\n{env}\n[reward]\n{reward}\n\
         [model]\nkind = 'mlp'\nhidden = 64{shared}\n\
         [objective]\n{objective}{settings}\n[backward]\nkind = '{backward}'\n\
         [train]\ntrajectories = {trajectories}\nbatch = 32\nlr = 3e-3\nlr_schedule = 'cosine'\n\
         epsilon = {epsilon}\n[eval]\nmetrics = ['distribution', 'elbo_eubo', 'log_z']\n"
    )
}

fn build(text: &str) -> Result<Experiment, gfn_cli::error::Failure> {
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text.to_owned(), "test", &[])?;
    Experiment::build(&registry, &spec)
}

/// All legal pairs; a new objective or strategy is tested without a change here. The others are
/// refused because P_B would never be trained.
fn pairs() -> Vec<(String, &'static str)> {
    let registry = Registry::builtin();
    let mut pairs = Vec::new();
    for objective in registry.objectives.iter().filter(|kind| has_loss(kind)) {
        let objective = objective.name;
        for backward in registry.backwards.iter().map(|entry| entry.name) {
            let objective = format!("kind = '{objective}'");
            match build(&spec(&grid(2, 3, "standard"), &objective, backward, 0.1)) {
                Ok(_) => pairs.push((objective, backward)),
                Err(refusal) => {
                    assert!(refusal.message().contains("would never be trained"));
                    assert!(objective.contains("fm"), "{}", refusal.render());
                }
            }
        }
    }
    assert!(pairs.len() >= 40, "{} pairs", pairs.len());
    pairs
}

fn grid(dim: usize, side: usize, variant: &str) -> World {
    World {
        env: format!("kind = 'hypergrid'\ndim = {dim}\nside = {side}"),
        reward: format!("kind = 'hypergrid'\nvariant = '{variant}'"),
        many: false,
    }
}

/// Trains until the target is reached, or the budget is spent.
fn reaches_the_target(what: &str, text: &str) {
    reaches(what, text, LIMIT);
}

/// In a pool of its own: what threads of tests ask of one pool waits for each other.
fn reaches(what: &str, text: &str, limit: f64) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| trains_until(what, text, limit));
}

fn trains_until(what: &str, text: &str, limit: f64) {
    let mut experiment = build(text).unwrap_or_else(|failure| panic!("{}", failure.render()));
    let column = |name: &str| experiment.columns.iter().position(|c| c.name == name).unwrap();
    let (tv, elbo, eubo, log_z) =
        (column("tv_exact"), column("elbo"), column("eubo"), column("log_z_exact"));
    let trainer = &mut experiment.trainer;
    let mut last = f64::INFINITY;
    while last >= limit && trainer.counters().step < trainer.n_steps() {
        for _ in 0..CHECK_EVERY {
            trainer.step().unwrap();
        }
        let values = trainer.evaluate().unwrap();
        last = values[tv].unwrap();
        let (elbo, eubo, log_z) =
            (values[elbo].unwrap(), values[eubo].unwrap(), values[log_z].unwrap());
        let order = elbo <= log_z + 1e-9 && log_z <= eubo + 1e-9;
        assert!(order, "{what}: {elbo} <= {log_z} <= {eubo}");
    }
    let steps = trainer.counters().step;
    assert!(last < limit, "{what}: tv {last} after {steps} iterations");
}

/// Every `n`-th pair from `first` on.
fn some_pairs_reach_the_target(world: &World, first: usize, n: usize) {
    for (objective, backward) in pairs().into_iter().skip(first).step_by(n) {
        let what = format!("{objective} with {backward} on {}", world.env);
        if world.many && objective.contains("trpo") {
            // Minutes of natural steps; it is tested on small worlds.
            continue;
        }
        let mut text = spec(world, &objective, backward, 0.1);
        if objective.contains("fl_db") || backward == "pessimistic" {
            // Where rewards on the way say nothing of those ahead, it takes longer, as it does for a
            // P_B that follows P_F, batches behind.
            text = text.replace("trajectories = 128000", "trajectories = 384000");
            text = text.replace("trajectories = 32000", "trajectories = 96000");
            text = text.replace("trajectories = 64000", "trajectories = 192000");
        }
        match build(&text) {
            // Balance of rewards along trajectories needs worlds where all states can be finished.
            Err(refusal) if refusal.message().contains("finished by an action of its own") => {
                assert!(["mdb", "fl_db"].iter().any(|kind| objective.contains(kind)), "{what}");
            }
            _ => reaches(&what, &text, if world.many { LIMIT_OF_MANY } else { LIMIT }),
        }
    }
}

#[test]
fn first_half_of_all_pairs() {
    some_pairs_reach_the_target(&grid(2, 7, "standard"), 0, 2);
}

#[test]
fn second_half_of_all_pairs() {
    some_pairs_reach_the_target(&grid(2, 7, "standard"), 1, 2);
}

/// Three of ten actions uniform.
#[test]
fn much_exploration_does_not_move_the_fixed_point() {
    let mut ways = WAYS.into_iter().cycle();
    let mut objectives: Vec<String> = pairs().into_iter().map(|(objective, _)| objective).collect();
    objectives.dedup();
    for objective in objectives.iter().filter(|objective| !objective.contains("fm")) {
        let backward = ways.next().expect("again and again");
        let what = format!("{objective} with {backward}, epsilon 0.3");
        let world = grid(2, 7, "standard");
        reaches_the_target(&what, &spec(&world, objective, backward, 0.3));
    }
}

/// P_B that is fixed, trained through the objective, and trained beside it. Where there are many forms of
/// an objective, they take turns: every pair of kinds is tested elsewhere.
const WAYS: [&str; 3] = ["uniform", "naive", "tlm"];

/// With and without replay, Munchausen's term, targets of both kinds.
#[test]
fn soft_q_learning_in_all_its_forms() {
    let forms = [
        "replay_capacity = 0",
        "replay_capacity = 0\nalpha = 0.15",
        "alpha = 0.15",
        "replay_capacity = 2000\ntarget_every = 5",
        "penalty = 'squared'\nleaf_coefficient = 5",
        "dueling = true",
        "dueling = true\nalpha = 0.15",
        "double = true\nalpha = 0.15",
        "double = true\ndueling = true",
        "alpha = 0.15\nreplay_priority = { loss = { alpha = 0.5, beta = 0.0 } }",
        "replay_priority = { loss = { alpha = 0.9, beta = 0.1, beta_steps = 1000 } }",
    ];
    for (settings, backward) in forms.into_iter().zip(WAYS.into_iter().cycle()) {
        let what = format!("soft_dqn {settings} with {backward}");
        let objective = format!("kind = 'soft_dqn'\n{settings}");
        let world = grid(2, 7, "standard");
        reaches_the_target(&what, &spec(&world, &objective, backward, 0.3));
    }
}

/// The actor follows two critics, whatever trains P_B.
#[test]
fn actors_follow_their_critics() {
    let forms = ["", "replay_capacity = 0", "replay_priority = { loss = {} }"];
    for (settings, backward) in forms.into_iter().zip(WAYS) {
        let what = format!("sac {settings} with {backward}");
        let objective = format!("kind = 'sac'\n{settings}");
        let world = grid(2, 7, "standard");
        reaches_the_target(&what, &spec(&world, &objective, backward, 0.3));
    }
}

/// Replayed trajectories, as they were or backwards from their objects, do not move the fixed point, however
/// they are drawn.
#[test]
fn balance_objectives_off_policy() {
    let forms = [
        ("tb", "of = 'objects'"),
        ("tb", "priority = { reward = {} }"),
        ("db", "priority = { loss = { alpha = 0.7 } }"),
        ("subtb", "of = 'objects', priority = { loss = { alpha = 0.7, beta = 0.5 } }"),
    ];
    for ((objective, replay), backward) in forms.into_iter().zip(WAYS.into_iter().cycle()) {
        let what = format!("{objective} {replay} with {backward}");
        let objective =
            format!("kind = '{objective}'\nreplay = {{ {replay}, capacity = 2000, batch = 32 }}");
        let world = grid(2, 7, "standard");
        reaches_the_target(&what, &spec(&world, &objective, backward, 0.3));
    }
}

/// Trajectories that local search has found do not move the fixed point.
#[test]
fn local_search_does_not_move_the_fixed_point() {
    let forms =
        [("tb", "better"), ("db", "metropolis"), ("subtb", "better"), ("soft_dqn", "metropolis")];
    for ((objective, accept), backward) in forms.into_iter().zip(WAYS.into_iter().cycle()) {
        let what = format!("{objective} with {backward}, local search");
        let objective = format!("kind = '{objective}'");
        let search = format!("local_search = {{ rounds = 3, back = 0.5, accept = '{accept}' }}");
        let text = spec(&grid(2, 7, "standard"), &objective, backward, 0.3)
            .replace("[eval]", &format!("{search}\n[eval]"));
        reaches_the_target(&what, &text);
    }
}

/// Every penalty has the same fixed point.
#[test]
fn penalties_reach_the_target() {
    for (objective, backward) in [
        ("kind = 'tb'\npenalty = { linex = 1 }", "uniform"),
        ("kind = 'db'\npenalty = { linex = -0.5 }", "tlm"),
        ("kind = 'subtb'\npenalty = 'cosh'", "naive"),
        ("kind = 'vargrad'\npenalty = { linex = 0.5 }", "uniform"),
        ("kind = 'fm'\npenalty = { huber = 0.5 }", "uniform"),
        ("kind = 'soft_dqn'\npenalty = { linex = 0.5 }", "uniform"),
        ("kind = 'pg'\nlambda = 1.0\ncentred = false", "tlm"),
    ] {
        let world = grid(2, 7, "standard");
        reaches_the_target(objective, &spec(&world, objective, backward, 0.1));
    }
}

/// Whatever the critic and the centre of advantages, the epochs and the size of steps; and whatever P_B is drawn
/// to.
#[test]
fn policy_gradients_in_all_their_forms() {
    for (objective, backward) in [
        ("kind = 'pg'\ncritic = { sub_eb = 0.9 }\nleave_one_out = true", "kind = 'uniform'"),
        ("kind = 'pg'\ncritic = { lambda = 0.9 }", "kind = 'naive'"),
        ("kind = 'pg'\ncritic = { sub_eb = 0.9 }", "kind = 'sub_eb'"),
        ("kind = 'ppo'\nminibatches = 1\nepochs = 2", "kind = 'naive'"),
        ("kind = 'ppo'\ncentred = true\ncritic = { sub_eb = 0.9 }", "kind = 'uniform'"),
        ("kind = 'trpo'\ndelta = 0.1\niterations = 5", "kind = 'tlm'"),
        ("kind = 'pg'", "kind = 'pg'\nguide = { stop = {} }"),
        ("kind = 'tb'", "kind = 'pg'\nform = 'squared'"),
        ("kind = 'db'", "kind = 'pg'\nguide = { stop = { log_reward = -2.0, most = 0.1 } }"),
        ("kind = 'tb'", "kind = 'pg'\nguide = { substructures = { capacity = 20 } }"),
    ] {
        let text = spec(&grid(2, 7, "standard"), objective, "uniform", 0.1);
        let text = text.replace("[backward]\nkind = 'uniform'", &format!("[backward]\n{backward}"));
        reaches_the_target(&format!("{objective} with {backward}"), &text);
    }
}

/// Without the divergence, PPO's entropy is that of the policy before, and it ends farther from the target.
#[test]
fn proximal_steps_without_their_divergence_are_worse() {
    let end = |kl: &str| {
        let objective = format!("kind = 'ppo'\n{kl}");
        let text = spec(&grid(2, 7, "standard"), &objective, "uniform", 0.0)
            .replace("trajectories = 32000\nbatch = 32", "trajectories = 64000\nbatch = 128")
            .replace("cosine", "constant");
        let mut experiment = build(&text).unwrap_or_else(|failure| panic!("{}", failure.render()));
        while experiment.trainer.counters().step < experiment.trainer.n_steps() {
            experiment.trainer.step().unwrap();
        }
        let column = experiment.columns.iter().position(|c| c.name == "tv_exact").unwrap();
        experiment.trainer.evaluate().unwrap()[column].unwrap()
    };
    let (with, without) = (end(""), end("kl = 0.0"));
    assert!(with < 0.01 && without > 2.0 * with, "{with} {without}");
}

/// A transformer: one pair per way of training P_B.
#[test]
fn transformers_reach_the_target() {
    for (objective, backward, norm) in
        [("tb", "naive", "post"), ("db", "tlm", "pre"), ("soft_dqn", "uniform", "post")]
    {
        let network = format!(
            "kind = 'transformer'\nwidth = 16\nheads = 2\nlayers = 2\nfeed_forward = 32\n\
             norm = '{norm}'"
        );
        let objective = format!("kind = '{objective}'");
        let text = spec(&grid(2, 3, "standard"), &objective, backward, 0.1)
            .replace("kind = 'mlp'\nhidden = 64", &network)
            .replace("lr = 3e-3", "lr = 1e-3");
        reaches_the_target(&format!("{objective} {backward} {norm}"), &text);
    }
}

/// Stopping as a decision of its own.
#[test]
fn stopping_first_reaches_the_target() {
    for (objective, backward) in [
        ("kind = 'tb'", "naive"),
        ("kind = 'mdb'\ntarget_every = 20\nreplay_capacity = 5000", "uniform"),
    ] {
        let text = spec(&grid(2, 7, "standard"), objective, backward, 0.1)
            .replace("hidden = 64", "hidden = 64\nhierarchical_stop = true");
        reaches_the_target(objective, &text);
    }
}

/// Graphs on named nodes under the BGe score of generated data.
fn graphs(nodes: usize) -> World {
    World {
        env: format!("kind = 'dag'\nnodes = {nodes}"),
        reward: "kind = 'bge'\ngenerate = { rows = 10, noise = 1.0 }".to_owned(),
        many: nodes > 3,
    }
}

#[test]
fn graphs_of_three_nodes() {
    some_pairs_reach_the_target(&graphs(3), 0, 7);
}

#[test]
fn graphs_of_four_nodes() {
    some_pairs_reach_the_target(&graphs(4), 4, WORLDS);
}

/// Every so manieth pair is tested on another world: such a step meets all strategies, and all objectives.
const WORLDS: usize = 17;

#[test]
fn grid_3x3_hard() {
    some_pairs_reach_the_target(&grid(2, 3, "hard"), 0, WORLDS);
}

#[test]
fn grid_4x4x4_pg() {
    some_pairs_reach_the_target(&grid(3, 4, "pg"), 1, WORLDS);
}

#[test]
fn grid_8x8_hard() {
    some_pairs_reach_the_target(&grid(2, 8, "hard"), 2, WORLDS);
}

fn on_strings(build: &str, first: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    let mut text = "object,value\n".to_owned();
    for (i, object) in ["000", "001", "010", "011", "100", "101", "110", "111"].iter().enumerate() {
        text += &format!("{object},{}\n", 1 + (i * 5) % 8);
    }
    std::fs::write(&path, text).unwrap();
    let world = World {
        env: format!("kind = 'sequence'\nlength = 3\nsymbols = ['0', '1']\nbuild = '{build}'"),
        reward: format!(
            "kind = 'table'\npath = '{}'\ntransform = {{ exponent = 2 }}",
            path.display()
        ),
        many: false,
    };
    some_pairs_reach_the_target(&world, first, WORLDS);
}

#[test]
fn strings_grown_at_both_ends() {
    on_strings("prepend_append", 3);
}

#[test]
fn strings_grown_at_the_right_end() {
    on_strings("append", 4);
}

#[test]
fn strings_filled_in_any_order() {
    on_strings("fill", 5);
}

#[test]
fn strings_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    let mut text = "object,value\n".to_owned();
    for (i, object) in ["0", "1", "00", "01", "10", "11", "000", "010", "111"].iter().enumerate() {
        text += &format!("{object},{}\n", 1 + (i * 5) % 7);
    }
    for object in ["001", "011", "100", "101", "110"] {
        text += &format!("{object},0.5\n");
    }
    std::fs::write(&path, text).unwrap();
    let world = World {
        env: "kind = 'sequence'\nlength = 3\nmin_length = 1\nsymbols = ['0', '1']".to_owned(),
        reward: format!("kind = 'table'\npath = '{}'", path.display()),
        many: false,
    };
    some_pairs_reach_the_target(&world, 6, WORLDS);
}

#[test]
fn bit_strings_near_modes() {
    let world = World {
        env: "kind = 'bit_sequence'\nbits = 6\nword_bits = 2".to_owned(),
        reward: "kind = 'hamming'\nblocks = ['000', '110']\nn_modes = 3\nexponent = 1".to_owned(),
        many: false,
    };
    some_pairs_reach_the_target(&world, 7, WORLDS);
}

/// Molecules of up to so many atoms, by their Hückel gaps.
fn molecules(max_atoms: usize, symmetry: &str, beta: f64) -> World {
    World {
        env: format!("kind = 'molecule'\nmax_atoms = {max_atoms}\nsymmetry = '{symmetry}'"),
        reward: format!(
            "kind = 'huckel'\nmodes = {{}}\n\
             transform = {{ zero = 21.05, one = 4.79, floor = 1e-4, beta = {beta} }}"
        ),
        many: true,
    }
}

/// The objectives and strategies of the papers on all 117 molecules of up to three atoms.
#[test]
fn molecules_are_sampled_in_proportion_to_their_rewards() {
    let world = molecules(3, "states", 4.0);
    for objective in ["tb", "db", "subtb", "soft_dqn"] {
        for backward in ["uniform", "naive", "maxent", "tlm", "pessimistic"] {
            let objective = format!("kind = '{objective}'");
            let what = format!("{objective} with {backward} on molecules");
            reaches(&what, &spec(&world, &objective, backward, 0.1), LIMIT_OF_MANY);
        }
    }
}

/// A sample of them on all 738 molecules of up to four atoms.
#[test]
fn more_molecules_are_sampled_in_proportion_to_their_rewards() {
    let text = spec(&molecules(4, "states", 4.0), "kind = 'tb'", "tlm", 0.1);
    let text = text.replace("hidden = 64", "hidden = 256");
    reaches("tb with tlm on more molecules", &text, LIMIT_OF_MANY);
}

/// The 33 trees of up to three of three fragments, or the 30 of two or three, by their Hückel gaps.
fn fragments(version: &str) -> World {
    World {
        env: format!(
            "kind = 'fragments'\nversion = '{version}'\nmax_fragments = 3\nfragments = [\
             {{ smiles = 'O', attach = [0] }}, {{ smiles = 'CC', attach = [0, 1] }}, \
             {{ smiles = 'c1ccccc1', attach = [0, 1, 2, 3, 4, 5] }}]"
        ),
        reward: "kind = 'huckel'\nmodes = {}\n\
                 transform = { zero = 21.05, one = 4.79, floor = 1e-4, beta = 4 }"
            .to_owned(),
        many: false,
    }
}

/// The objectives and strategies of the papers on trees of fragments, in both papers' versions.
#[test]
fn fragments_are_sampled_in_proportion_to_their_rewards() {
    for version in ["stems", "blocks"] {
        let world = fragments(version);
        for objective in ["tb", "db", "subtb", "soft_dqn"] {
            for backward in ["uniform", "naive", "maxent", "tlm", "pessimistic"] {
                let objective = format!("kind = '{objective}'");
                let what = format!("{objective} with {backward} on {version}");
                reaches(&what, &spec(&world, &objective, backward, 0.1), LIMIT_OF_MANY);
            }
        }
    }
}

/// Every pair there.
#[test]
#[ignore = "takes minutes"]
fn every_pair_samples_fragments_in_proportion_to_their_rewards() {
    for version in ["stems", "blocks"] {
        some_pairs_reach_the_target(&fragments(version), 0, 1);
    }
}

/// With all actions legal, the correction by the number of automorphisms keeps P ∝ R; without it
/// molecules with n automorphisms are sampled n times too seldom.
#[test]
fn symmetric_molecules_are_sampled_as_often_as_they_should_be() {
    // Bounds of log Z hold for policies that give equivalent actions the same probability.
    let network = "kind = 'transformer'\nwidth = 32\nlayers = 2\nheads = 2\nnorm = 'pre'";
    let world = molecules(3, "actions", 4.0);
    for backward in ["uniform", "maxent"] {
        let text = spec(&world, "kind = 'tb'", backward, 0.1);
        let text = text.replace("kind = 'mlp'\nhidden = 64", network);
        reaches(&format!("corrected, {backward}"), &text, LIMIT_OF_MANY);
    }
    // All molecules worth the same: the biased target is known.
    let mut world = molecules(3, "actions", 4.0);
    world.reward = "kind = 'huckel'\nmodes = {}\ntransform = { floor = 100 }".to_owned();
    let experiment = build(&spec(&world, "kind = 'tb'", "uniform", 0.1)).unwrap();
    let env = &*experiment.env;
    let graph = StateGraph::explore(env, 10_000).unwrap();
    let mut mask = vec![false; env.space().n_actions];
    let mut symmetries = Vec::new();
    for row in graph.states().rows() {
        env.legal(row, &mut mask);
        if !mask.contains(&true) {
            symmetries.push(env.log_symmetry(row).exp());
        }
    }
    assert_eq!(symmetries.len(), 117);
    let total: f64 = symmetries.iter().map(|n| 1.0 / n).sum();
    let share = 1.0 / symmetries.len() as f64;
    let bias = symmetries.iter().map(|n| (1.0 / n / total - share).abs()).sum::<f64>() / 2.0;
    world.env = world.env.replace("actions", "actions_uncorrected");
    let mut experiment = build(&spec(&world, "kind = 'tb'", "uniform", 0.1)).unwrap();
    let tv = experiment.columns.iter().position(|column| column.name == "tv_exact").unwrap();
    for _ in 0..2_000 {
        experiment.trainer.step().unwrap();
    }
    let found = experiment.trainer.evaluate().unwrap()[tv].unwrap();
    assert!(bias > 0.05 && (found - bias).abs() < 0.02, "{found}, expected {bias}");
}
