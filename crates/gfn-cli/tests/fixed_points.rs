//! The promise: every objective with every backward strategy reaches P ∝ R.
//!
//! Every legal pair is trained on 3×3, 4×4×4 and 8×8 grids with the rewards of all three papers
//! until its exact total variation is below 0.01, within a budget of 4,000 iterations of 32
//! trajectories, on a network of 2×64. Exploration (10 % uniform actions) is needed to see cells
//! of reward 1e-4 at all; it does not move the fixed point.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};

const LIMIT: f64 = 0.01;
const CHECK_EVERY: u64 = 250;

fn spec(env: &str, reward: &str, objective: &str, backward: &str) -> String {
    format!(
        "[env]\n{env}\n[reward]\n{reward}\n\
         [model]\nkind = 'mlp'\nhidden = 64\n\
         [objective]\nkind = '{objective}'\n[backward]\nkind = '{backward}'\n\
         [train]\ntrajectories = 128000\nbatch = 32\nlr = 3e-3\nlr_schedule = 'cosine'\n\
         epsilon = 0.1\n[eval]\nmetrics = ['distribution', 'elbo_eubo', 'log_z']\n"
    )
}

fn build(text: &str) -> Result<Experiment, gfn_cli::error::Failure> {
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text.to_owned(), "test", &[])?;
    Experiment::build(&registry, &spec)
}

/// All names on both axes; a new objective or strategy is tested without a change here.
fn pairs() -> Vec<(&'static str, &'static str)> {
    let registry = Registry::builtin();
    let strategies: Vec<_> = registry.backwards.iter().map(|entry| entry.name).collect();
    let objectives = registry.objectives.iter().map(|entry| entry.name);
    objectives.flat_map(|o| strategies.clone().into_iter().map(move |s| (o, s))).collect()
}

/// The same promise for a transformer: one pair per way of training P_B.
#[test]
fn transformers_reach_the_target() {
    for (objective, backward, norm) in
        [("tb", "naive", "post"), ("db", "tlm", "pre"), ("subtb", "uniform", "post")]
    {
        let env = "kind = 'hypergrid'\ndim = 2\nside = 3";
        let network = format!(
            "kind = 'transformer'\nwidth = 16\nheads = 2\nlayers = 2\nfeed_forward = 32\n\
             norm = '{norm}'"
        );
        let text = spec(env, "kind = 'hypergrid'", objective, backward)
            .replace("kind = 'mlp'\nhidden = 64", &network)
            .replace("lr = 3e-3", "lr = 1e-3");
        let mut experiment = build(&text).unwrap_or_else(|failure| panic!("{}", failure.render()));
        let tv = experiment.columns.iter().position(|c| c.name == "tv_exact").unwrap();
        let trainer = &mut experiment.trainer;
        let mut last = f64::INFINITY;
        while last >= LIMIT && trainer.counters().step < trainer.n_steps() {
            for _ in 0..CHECK_EVERY {
                trainer.step().unwrap();
            }
            last = trainer.evaluate().unwrap()[tv].unwrap();
        }
        assert!(last < LIMIT, "{objective} {backward} {norm}: tv {last}");
    }
}

fn every_pair_reaches_the_target(env: &str, reward: &str) {
    let mut trained = 0;
    for (objective, backward) in pairs() {
        let mut experiment = match build(&spec(env, reward, objective, backward)) {
            Ok(experiment) => experiment,
            Err(refusal) => {
                // The only pair without a meaning: P_B would never be trained.
                assert_eq!((objective, backward), ("fm", "naive"), "{}", refusal.render());
                assert!(refusal.message().contains("would never be trained"));
                continue;
            }
        };
        let column = |name: &str| experiment.columns.iter().position(|c| c.name == name).unwrap();
        let (tv, elbo, eubo, log_z) =
            (column("tv_exact"), column("elbo"), column("eubo"), column("log_z_exact"));
        let trainer = &mut experiment.trainer;
        let mut last = f64::INFINITY;
        while last >= LIMIT && trainer.counters().step < trainer.n_steps() {
            for _ in 0..CHECK_EVERY {
                trainer.step().unwrap();
            }
            let values = trainer.evaluate().unwrap();
            last = values[tv].unwrap();
            let (elbo, eubo, log_z) =
                (values[elbo].unwrap(), values[eubo].unwrap(), values[log_z].unwrap());
            let order = elbo <= log_z + 1e-9 && log_z <= eubo + 1e-9;
            assert!(order, "{objective} {backward}: {elbo} <= {log_z} <= {eubo}");
        }
        let steps = trainer.counters().step;
        assert!(last < LIMIT, "{objective} with {backward}: tv {last} after {steps} iterations");
        trained += 1;
    }
    assert_eq!(trained, pairs().len() - 1);
}

const VARIANTS: [&str; 3] = ["standard", "hard", "pg"];

fn on_grid(dim: usize, side: usize, variant: usize) {
    let env = format!("kind = 'hypergrid'\ndim = {dim}\nside = {side}");
    let reward = format!("kind = 'hypergrid'\nvariant = '{}'", VARIANTS[variant]);
    every_pair_reaches_the_target(&env, &reward);
}

#[test]
fn grid_3x3_standard() {
    on_grid(2, 3, 0);
}

#[test]
fn grid_3x3_hard() {
    on_grid(2, 3, 1);
}

#[test]
fn grid_3x3_pg() {
    on_grid(2, 3, 2);
}

#[test]
fn grid_4x4x4_standard() {
    on_grid(3, 4, 0);
}

#[test]
fn grid_4x4x4_hard() {
    on_grid(3, 4, 1);
}

#[test]
fn grid_4x4x4_pg() {
    on_grid(3, 4, 2);
}

#[test]
fn grid_8x8_standard() {
    on_grid(2, 8, 0);
}

#[test]
fn grid_8x8_hard() {
    on_grid(2, 8, 1);
}

#[test]
fn grid_8x8_pg() {
    on_grid(2, 8, 2);
}

fn on_strings(build: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    let mut text = "object,value\n".to_owned();
    for (i, object) in ["000", "001", "010", "011", "100", "101", "110", "111"].iter().enumerate() {
        text += &format!("{object},{}\n", 1 + (i * 5) % 8);
    }
    std::fs::write(&path, text).unwrap();
    let env = format!("kind = 'sequence'\nlength = 3\nsymbols = ['0', '1']\nbuild = '{build}'");
    let reward =
        format!("kind = 'table'\npath = '{}'\ntransform = {{ exponent = 2 }}", path.display());
    every_pair_reaches_the_target(&env, &reward);
}

#[test]
fn strings_grown_at_both_ends() {
    on_strings("prepend_append");
}

#[test]
fn strings_grown_at_the_right_end() {
    on_strings("append");
}

#[test]
fn strings_filled_in_any_order() {
    on_strings("fill");
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
    let env = "kind = 'sequence'\nlength = 3\nmin_length = 1\nsymbols = ['0', '1']";
    every_pair_reaches_the_target(env, &format!("kind = 'table'\npath = '{}'", path.display()));
}

#[test]
fn bit_strings_near_modes() {
    let env = "kind = 'bit_sequence'\nbits = 6\nword_bits = 2";
    let reward = "kind = 'hamming'\nblocks = ['000', '110']\nn_modes = 3\nexponent = 1";
    every_pair_reaches_the_target(env, reward);
}
