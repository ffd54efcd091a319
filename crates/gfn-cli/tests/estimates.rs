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
