//! What values and critics have learned on a solved grid, against exact flows.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::learn::engine::{Ask, Readout, Rows, Values};
use gfn_core::learn::head::Head;
use gfn_core::{Direction, States};

/// A 3×3 grid with uniform P_B, solved.
fn solved(objective: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n\
         [reward]\nkind = 'hypergrid'\nr0 = 0.1\n[model]\nkind = 'mlp'\nhidden = 64\n\
         [objective]\n{objective}\n[train]\ntrajectories = 160000\nbatch = 32\nlr = 3e-3\n\
         lr_schedule = 'cosine'\nepsilon = 0.3\n[eval]\nmetrics = ['distribution']\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    while experiment.trainer.counters().step < experiment.trainer.n_steps() {
        experiment.trainer.step().unwrap();
    }
    experiment
}

/// log F of every state, and log F(s → s') of every edge, for the P_B in use.
fn exact_flows(experiment: &Experiment) -> (Vec<f64>, Vec<f64>) {
    let exact = experiment.exact.as_ref().unwrap();
    let (graph, policy) = (&exact.graph, experiment.trainer.policy());
    let log_pb = graph.log_probs(&*experiment.env, &policy, Direction::Backward, 4096);
    let mut flow = vec![0.0; graph.states().len()];
    for (&i, log_reward) in graph.terminals().iter().zip(&exact.target.log_reward) {
        flow[i as usize] = log_reward.exp();
    }
    let mut of_edges = vec![0.0; graph.n_edges()];
    for i in (0..flow.len()).rev() {
        for (e, edge) in graph.edge_range(i).zip(graph.edges(i)) {
            of_edges[e] = flow[edge.child as usize] * log_pb[e].exp();
            flow[i] += of_edges[e];
        }
    }
    let log = |flows: Vec<f64>| flows.into_iter().map(f64::ln).collect();
    assert!((flow[0].ln() - exact.target.log_z).abs() < 1e-12);
    (log(flow), log(of_edges))
}

#[test]
fn q_is_the_flow_of_edges_and_v_that_of_states() {
    for (objective, tau) in [
        ("kind = 'soft_dqn'", 1.0),
        ("kind = 'soft_dqn'\nalpha = 0.15\nreplay_capacity = 0", 1.0 / 0.85),
    ] {
        let mut experiment = solved(objective);
        let (of_states, of_edges) = exact_flows(&experiment);
        let exact = experiment.exact.clone().unwrap();
        let mut logits = vec![0.0; experiment.env.space().n_actions];
        for (i, row) in exact.graph.states().rows().enumerate() {
            if exact.graph.edges(i).is_empty() {
                continue;
            }
            let mut state = States::new(row.len());
            state.push(row);
            let ask = Ask { values: Values::Current, head: Head::FORWARD, record: None };
            experiment.trainer.engine().logits(ask, &*experiment.env, &state, &mut logits);
            let mut sum = 0.0;
            for (e, edge) in exact.graph.edge_range(i).zip(exact.graph.edges(i)) {
                let q = tau * f64::from(logits[edge.action as usize]);
                // log F(s) + τ log P_F, which is the flow of the edge at τ = 1.
                let expected = of_states[i] + tau * (of_edges[e] - of_states[i]);
                assert!((q - expected).abs() < 1e-3, "{objective}: Q {q} against {expected}");
                sum += (q / tau).exp();
            }
            let (v, expected) = (tau * sum.ln(), of_states[i]);
            assert!((v - expected).abs() < 1e-3, "{objective}: V {v} against {expected}");
        }
        let log_z = experiment.trainer.log_z().unwrap();
        assert!((log_z - exact.target.log_z).abs() < 1e-3, "{objective}: {log_z}");
    }
}

/// The cost that is still to come from s is log Z − log F(s).
#[test]
fn the_critic_of_policy_gradients_is_the_flow_of_states() {
    let mut experiment = solved("kind = 'pg'");
    let (of_states, _) = exact_flows(&experiment);
    let exact = experiment.exact.clone().unwrap();
    let head = Head::scalar("value");
    let rows = Rows::new(exact.graph.states().clone());
    let engine = experiment.trainer.engine_mut();
    let pass = engine.evaluate(&*experiment.env, &rows, &[head], Values::Current, None);
    let values = engine.read(pass, head, &Readout::Scalar);
    engine.forget();
    for (i, value) in values.iter().enumerate() {
        if !exact.graph.edges(i).is_empty() {
            let expected = exact.target.log_z - of_states[i];
            assert!((value - expected).abs() < 0.02, "{value} against {expected}");
        }
    }
}
