//! Estimates from sampled trajectories against exact dynamic programming.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::metric::{EvalContext, MetricContext, estimate_log_probs};
use gfn_core::rng::Streams;

#[test]
fn backward_estimates_agree_with_dynamic_programming() {
    for (backward, spec) in [
        ("uniform", "[env]\nkind = 'hypergrid'\ndim = 2\nside = 5\n"),
        (
            "naive",
            "[env]\nkind = 'bit_sequence'\nbits = 6\nword_bits = 2\n[reward]\nkind = 'hamming'\n\
             blocks = ['000', '110']\nn_modes = 2\n",
        ),
    ] {
        let text = format!(
            "{spec}[model]\nkind = 'mlp'\nhidden = 16\n[objective]\nkind = 'db'\n\
             [backward]\nkind = '{backward}'\n"
        );
        let registry = Registry::builtin();
        let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
        let mut experiment = Experiment::build(&registry, &spec).unwrap();
        // A policy that is neither fresh nor converged: P_F(τ) / P_B(τ|x) varies.
        for _ in 0..60 {
            experiment.trainer.step().unwrap();
        }
        let policy = experiment.trainer.policy();
        let exact = experiment.exact.clone().unwrap();
        let fixed = MetricContext {
            env: experiment.env.clone(),
            reward: experiment.reward.clone(),
            exact: Some(exact.clone()),
            layers: None,
            samples: 1,
            test: None,
            backward_trajectories: 1,
            settings: Default::default(),
        };
        let eval = EvalContext::new(&fixed, &policy, None, Streams::new(5), 0);
        let expected = exact.graph.log_terminal_probs(eval.log_pf(&exact));
        let estimate = estimate_log_probs(&eval, &exact.graph.objects(), 2000);
        let mut varied = 0;
        for (expected, estimate) in expected.iter().zip(&estimate) {
            let (got, error) = (estimate.log_prob, estimate.standard_error.unwrap());
            // Six standard errors, and rounding where all trajectories weigh the same.
            assert!((got - expected).abs() < 6.0 * error + 1e-4, "{got} {expected} {error}");
            assert!(error < 0.1, "{error}");
            varied += usize::from(error > 1e-3);
        }
        assert!(varied > expected.len() / 4, "{varied} estimates have something to estimate");
    }
}

/// The columns of `correlation` after some training: exact in an enumerated space, estimated where
/// enumeration is not allowed.
fn correlation(spec: &str, max_states: usize) -> (Vec<Option<f64>>, Vec<String>) {
    correlation_by(spec, max_states, 1000)
}

/// With so many backward trajectories per object.
fn correlation_by(spec: &str, max_states: usize, n: usize) -> (Vec<Option<f64>>, Vec<String>) {
    correlation_with(spec, max_states, n, "")
}

/// With more settings of evaluation.
fn correlation_with(
    spec: &str,
    max_states: usize,
    n: usize,
    eval: &str,
) -> (Vec<Option<f64>>, Vec<String>) {
    let text = format!(
        "{spec}[model]\nkind = 'mlp'\nhidden = 16\n[objective]\nkind = 'tb'\n\
         [backward]\nkind = 'naive'\n[eval]\nmetrics = ['correlation']\n\
         max_states = {max_states}\nbackward_trajectories = {n}\n{eval}"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..60 {
        experiment.trainer.step().unwrap();
    }
    let definitions = experiment.columns.iter().map(|column| column.definition.clone()).collect();
    (experiment.trainer.evaluate().unwrap(), definitions)
}

#[test]
fn correlations_on_test_objects_agree_with_exact_ones() {
    let spec = "[env]\nkind = 'bit_sequence'\nbits = 12\nword_bits = 3\n\
                [reward]\nkind = 'hamming'\nblocks = ['000', '110']\nn_modes = 2\nexponent = 1\n";
    let (exact, definitions) = correlation(spec, 100_000);
    assert!(definitions[0].contains("24 test objects of the reward, P_T by dynamic"));
    assert_eq!(exact[3..], [None, None, None, Some(24.0)]);
    let (estimate, definitions) = correlation(spec, 1);
    assert!(definitions[0].contains("estimated"), "{definitions:?}");
    assert_eq!((estimate[3], estimate[6]), (Some(1000.0), Some(0.0)));
    let (error, effective) = (estimate[4].unwrap(), estimate[5].unwrap());
    assert!(error > 0.0 && error < 0.1, "{error}");
    // Of n weights with a squared variation of c, n / (1 + c) count, and the error is sqrt(c / n).
    let variation = 1000.0 / effective - 1.0;
    assert!(variation > 0.0 && variation < 10.0, "{effective}");
    assert!((error / (variation / 1000.0).sqrt() - 1.0).abs() < 0.5, "{error} {effective}");
    for (exact, estimate) in exact[..2].iter().zip(&estimate) {
        let (exact, estimate) = (exact.unwrap(), estimate.unwrap());
        assert!((exact - estimate).abs() < 0.05, "{exact} {estimate}");
        assert!(exact.abs() < 0.99, "{exact}: something is left to estimate");
    }
}

/// A single trajectory shows no spread: its error is unknown, not 0.
#[test]
fn one_backward_trajectory_has_no_error() {
    let spec = "[env]\nkind = 'bit_sequence'\nbits = 12\nword_bits = 3\n\
                [reward]\nkind = 'hamming'\nblocks = ['000', '110']\nn_modes = 2\nexponent = 1\n";
    let (estimate, _) = correlation_by(spec, 1, 1);
    assert!(estimate[0].is_some() && estimate[1].is_some());
    assert_eq!(estimate[3..], [Some(1.0), None, Some(1.0), Some(0.0)]);
}

/// Objects with few ancestors, all or some of them, where nothing is enumerated: the rest is estimated.
#[test]
fn test_objects_with_few_ancestors_are_exact() {
    let few = |n: usize| format!("settings = {{ correlation = {{ max_ancestors = {n} }} }}\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listed.csv");
    // Twice each: (i + 1) (j + 1) + 1 states with the stopped one.
    let text: String = (0..72).map(|i| format!("{} {}\n", i % 6, i / 6 % 6)).collect();
    std::fs::write(&path, format!("object\n{text}")).unwrap();
    let grid = "[env]\nkind = 'hypergrid'\ndim = 2\nside = 6\n";
    let listed = format!("test_set = '{}'\n", path.display());
    let n_of_most = |most: i32| (0..36).filter(|i| (i % 6 + 1) * (i / 6 + 1) < most).count() as f64;
    let molecules = |symmetry| {
        format!(
            "[env]\nkind = 'molecule'\nmax_atoms = 3\nsymmetry = '{symmetry}'\n\
             [reward]\nkind = 'huckel'\n"
        )
    };
    let molecules = ["states", "actions", "actions_uncorrected"].map(molecules);
    let bits = "[env]\nkind = 'bit_sequence'\nbits = 12\nword_bits = 3\n\
                [reward]\nkind = 'hamming'\nblocks = ['000', '110']\nn_modes = 2\nexponent = 1\n";
    // No walk finds all molecules: a list of some has to do.
    let smiles = dir.path().join("smiles.csv");
    let some = ["C", "CC", "C=O", "OCO", "C1CC1", "FC#N", "CNC", "N=C=N", "C#C"];
    std::fs::write(&smiles, format!("smiles\n{}\n", some.join("\n"))).unwrap();
    let smiles = format!("test_set = '{}'\n", smiles.display());
    let mut worlds = vec![(grid, &*listed, 72.0), (bits, "", 24.0)];
    worlds.extend(molecules.iter().map(|spec| (spec.as_str(), &*smiles, some.len() as f64)));
    for (spec, eval, n) in worlds {
        let (exact, _) = correlation_with(spec, 100_000, 5, eval);
        let (all, definitions) = correlation_with(spec, 1, 5, &(few(100_000) + eval));
        assert!(definitions[0].contains("n_exact of them"), "{definitions:?}");
        for (exact, got) in exact[..3].iter().zip(&all) {
            let (exact, got) = (exact.unwrap(), got.unwrap());
            assert!((exact - got).abs() < 1e-9, "{spec}: {exact} {got}");
        }
        assert_eq!(all[3..], [None, None, None, Some(n)], "{spec}");
    }
    for most in [7, 13] {
        let (exact, _) = correlation_with(grid, 100_000, 5, &listed);
        let (some, _) = correlation_with(grid, 1, 2000, &(few(most as usize) + &listed));
        assert_eq!((some[3], some[6]), (Some(2000.0), Some(2.0 * n_of_most(most))));
        for (exact, got) in exact[..2].iter().zip(&some) {
            assert!((exact.unwrap() - got.unwrap()).abs() < 0.02, "{exact:?} {got:?}");
        }
    }
}

/// A reward without test objects: all of a small space, some of a large one.
#[test]
fn correlations_without_test_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    let mut text = "object,value\n".to_owned();
    for i in 0..256u32 {
        text += &format!("{i:08b},{}\n", 1.0 + f64::from(i.wrapping_mul(2_654_435_761) >> 24));
    }
    std::fs::write(&path, text).unwrap();
    let spec = format!(
        "[env]\nkind = 'sequence'\nlength = 8\nsymbols = ['0', '1']\n\
         [reward]\nkind = 'table'\npath = '{}'\n",
        path.display()
    );
    let (exact, definitions) = correlation(&spec, 100_000);
    assert!(definitions[0].contains("every object"), "{definitions:?}");
    let (estimate, definitions) = correlation(&spec, 1);
    assert!(definitions[0].contains("1000 objects drawn uniformly"), "{definitions:?}");
    // A thousand draws out of 256 objects: close to the whole.
    for (exact, estimate) in exact[..2].iter().zip(&estimate) {
        assert!((exact.unwrap() - estimate.unwrap()).abs() < 0.1, "{exact:?} {estimate:?}");
    }
}

/// Where objects have no numbers, those at the ends of uniform actions.
#[test]
fn correlations_on_objects_of_walks() {
    let spec = "[env]\nkind = 'hypergrid'\ndim = 3\nside = 4\n";
    let (exact, _) = correlation(spec, 100_000);
    let (estimate, definitions) = correlation(spec, 1);
    let part = "64 different objects at the ends of uniform actions, spread over their lengths";
    // All objects are found: their order makes no difference.
    assert!(definitions[0].contains(part), "{definitions:?}");
    for (exact, estimate) in exact[..2].iter().zip(&estimate) {
        assert!((exact.unwrap() - estimate.unwrap()).abs() < 0.05, "{exact:?} {estimate:?}");
    }
}

/// A file of objects comes before all others.
#[test]
fn correlations_on_listed_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listed.csv");
    let text: String = (0..40).map(|i| format!("{} {} 0,{i}\n", i % 6, i / 7)).collect();
    std::fs::write(&path, format!("object,note\n{text}")).unwrap();
    let spec = "[env]\nkind = 'hypergrid'\ndim = 3\nside = 6\n";
    let listed = |n: usize| format!("test_set = '{}'\ntest_objects = {n}\n", path.display());
    let (exact, definitions) = correlation_with(spec, 100_000, 300, &listed(1000));
    assert!(definitions[0].contains("over 40 objects of eval.test_set, P_T by dyn"));
    let (estimate, definitions) = correlation_with(spec, 1, 300, &listed(1000));
    assert!(definitions[0].contains("over 40 objects of eval.test_set, P_T(x) estimated"));
    for (exact, estimate) in exact[..2].iter().zip(&estimate) {
        assert!((exact.unwrap() - estimate.unwrap()).abs() < 0.1, "{exact:?} {estimate:?}");
    }
    let (_, definitions) = correlation_with(spec, 1, 10, &listed(7));
    assert!(definitions[0].contains("over 7 objects of eval.test_set"));
    // What is no object is named with its line.
    std::fs::write(&path, "object\n0 0 0\n0 6 0\n").unwrap();
    let text = spec.to_owned() + "[eval]\n" + &listed(10);
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let message = Experiment::build(&registry, &spec).err().expect("refused").render();
    for part in ["test_set", "`0 6 0` on line 3", "spec.toml"] {
        assert!(message.contains(part), "{message}");
    }
}
