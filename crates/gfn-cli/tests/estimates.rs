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
            window: 1,
            top_k: 1,
            test: None,
            backward_trajectories: 1,
        };
        let eval = EvalContext::new(&fixed, &policy, None, Streams::new(5), 0);
        let expected = exact.graph.log_terminal_probs(eval.log_pf(&exact));
        let estimate = estimate_log_probs(&eval, &exact.graph.objects(), 2000);
        let mut varied = 0;
        let triples = expected.iter().zip(&estimate.log_prob).zip(&estimate.standard_error);
        for ((expected, got), error) in triples {
            // Six standard errors, and rounding where all trajectories weigh the same.
            assert!((got - expected).abs() < 6.0 * error + 1e-4, "{got} {expected} {error}");
            assert!(*error < 0.1, "{error}");
            varied += usize::from(*error > 1e-3);
        }
        assert!(varied > expected.len() / 4, "{varied} estimates have something to estimate");
    }
}

/// The columns of `correlation` after some training: exact in an enumerated space, estimated where
/// enumeration is not allowed.
fn correlation(spec: &str, max_states: usize) -> (Vec<Option<f64>>, Vec<String>) {
    let text = format!(
        "{spec}[model]\nkind = 'mlp'\nhidden = 16\n[objective]\nkind = 'tb'\n\
         [backward]\nkind = 'naive'\n[eval]\nmetrics = ['correlation']\n\
         max_states = {max_states}\nbackward_trajectories = 1000\n"
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
    assert_eq!(exact[2..], [None, None]);
    let (estimate, definitions) = correlation(spec, 1);
    assert!(definitions[0].contains("estimated"), "{definitions:?}");
    assert_eq!(estimate[2], Some(1000.0));
    let error = estimate[3].unwrap();
    assert!(error > 0.0 && error < 0.1, "{error}");
    for (exact, estimate) in exact[..2].iter().zip(&estimate) {
        let (exact, estimate) = (exact.unwrap(), estimate.unwrap());
        assert!((exact - estimate).abs() < 0.05, "{exact} {estimate}");
        assert!(exact.abs() < 0.99, "{exact}: something is left to estimate");
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
