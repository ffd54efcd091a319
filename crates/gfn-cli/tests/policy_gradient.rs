//! The gradient of the policy-gradient objective, whose value is not what it descends: against the
//! estimator written out by loops, and in exact expectation against the divergence and trajectory
//! balance.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::learn::Trainer;
use gfn_core::learn::batch::{Batch, End};
use gfn_core::learn::engine::{Readout, Upstream, Values};
use gfn_core::learn::head::Head;
use gfn_core::objective::OBJECTIVE;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Environment, Trajectories};
use rand::RngExt;

const VALUE: Head = Head::scalar("value");

/// After some iterations, so that the critic says something.
fn experiment(objective: &str, side: usize, model: &str) -> Experiment {
    let text = format!(
        "[env]\nkind = 'hypergrid'\ndim = 2\nside = {side}\n\
         [model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\n{model}\n\
         [objective]\n{objective}\n[backward]\nkind = 'naive'\n\
         [train]\nlr = 0.01\nbatch = 8\n[eval]\nmetrics = []\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..5 {
        experiment.trainer.step().unwrap();
    }
    experiment
}

fn gradients(trainer: &Trainer) -> Vec<Option<Vec<f32>>> {
    (0..trainer.engine().params().len()).map(|i| trainer.engine().gradient(i)).collect()
}

fn log_z(trainer: &Trainer) -> f64 {
    let i = trainer.engine().params().iter().position(|info| info.group == "log_z").unwrap();
    f64::from(trainer.engine().value(i)[0])
}

/// Reads what the estimator needs, computes it by sums over steps, and lets the engine take its
/// derivatives through the network.
fn by_hand(e: &mut Experiment, batch: &Batch, lambda: f64, centred: bool) -> Vec<Option<Vec<f32>>> {
    let log_z = log_z(&e.trainer);
    let main = e.trainer.parts().plan.main;
    let groups = e.trainer.parts().plan.updates[main].groups.clone();
    let env = e.env.clone();
    let engine = e.trainer.engine_mut();
    let heads = [Head::FORWARD, Head::BACKWARD, VALUE];
    let rows = batch.rows(batch.set(End::From));
    let pass = engine.evaluate(&*env, rows, &heads, Values::Current, None);
    let forward = Readout::LogProb(batch.forward.clone());
    let backward = Readout::LogProb(batch.backward.clone());
    let log_pf = engine.read(pass, Head::FORWARD, &forward);
    let chosen = engine.read(pass, Head::BACKWARD, &backward);
    let values = engine.read(pass, VALUE, &Readout::Scalar);
    let value = |t: usize| values[batch.from_rows()[t] as usize];

    let offsets = batch.offsets.clone().unwrap();
    let n = offsets.len() - 1;
    let (mut advantages, mut to_come) = (vec![0.0; batch.len()], vec![0.0; batch.len()]);
    let mut total = 0.0;
    for i in 0..n {
        let (start, end) = (offsets[i] as usize, offsets[i + 1] as usize);
        let cost = |t: usize| {
            let log_pb = batch.backward_of[t].map_or(0.0, |choice| chosen[choice as usize]);
            let at_end = if t + 1 == end { log_z - batch.log_reward[i] } else { 0.0 };
            log_pf[t] - log_pb + at_end
        };
        let error = |t: usize| {
            let next = if t + 1 == end { 0.0 } else { value(t + 1) };
            cost(t) + next - value(t)
        };
        for t in start..end {
            advantages[t] = (t..end).map(|u| lambda.powi((u - t) as i32) * error(u)).sum();
            to_come[t] = (t..end).map(cost).sum();
        }
        total += to_come[start];
    }
    let mean = advantages.iter().sum::<f64>() / advantages.len() as f64;
    if centred {
        advantages.iter_mut().for_each(|advantage| *advantage -= mean);
    }
    let b = n as f64;
    let mut by_value = vec![0.0; values.len()];
    for t in 0..batch.len() {
        by_value[batch.from_rows()[t] as usize] += -2.0 * (to_come[t] - value(t)) / b;
    }
    let of = |head, readout, derivatives| Upstream { pass, head, readout, derivatives };
    let upstream = vec![
        of(Head::FORWARD, forward, advantages.iter().map(|advantage| advantage / b).collect()),
        of(Head::BACKWARD, backward, vec![-1.0 / b; chosen.len()]),
        of(VALUE, Readout::Scalar, by_value),
    ];
    engine.gradients(upstream, &[("log_z", total / b)], &groups);
    gradients(&e.trainer)
}

#[test]
fn the_gradient_is_that_of_the_estimator() {
    for model in ["shared = true", "shared = false"] {
        for lambda in [0.0, 0.7, 0.99, 1.0] {
            for centred in [true, false] {
                let objective = format!("kind = 'pg'\nlambda = {lambda}\ncentred = {centred}");
                let mut e = experiment(&objective, 4, model);
                let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
                let exploration = Exploration { epsilon: 0.3, temperature: 1.0 };
                let policy = e.trainer.policy();
                let mut drawn = Sampler::default().forward(&*e.env, &policy, exploration, draw, 10);
                drawn.log_reward = vec![0.0; 10];
                e.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
                let batch = e.trainer.batch_of(&drawn);
                let expected = by_hand(&mut e, &batch, lambda, centred);
                e.trainer.gradients(OBJECTIVE, &batch);
                let found = gradients(&e.trainer);
                for ((info, found), expected) in
                    e.trainer.engine().params().iter().zip(found).zip(expected)
                {
                    let (found, expected) = (found.unwrap(), expected.unwrap());
                    let scale = expected.iter().fold(0.1f32, |scale, g| scale.max(g.abs()));
                    for (found, expected) in found.iter().zip(&expected) {
                        let what = format!("{model} {objective} {}", info.name);
                        let close = (found - expected).abs() < 1e-5 * scale;
                        assert!(close, "{what}: {found} {expected}");
                    }
                }
            }
        }
    }
}

/// Every trajectory of the environment.
fn all_trajectories(env: &dyn Environment) -> Trajectories {
    let mut start = vec![0; env.space().width];
    env.reset(&mut start);
    let mut all = Trajectories::new(start.len());
    let mut open = vec![(vec![start], Vec::new(), Vec::new())];
    while let Some((rows, actions, backs)) = open.pop() {
        let mut legal = vec![false; env.space().n_actions];
        env.legal(rows.last().unwrap(), &mut legal);
        if !legal.contains(&true) {
            all.push(&rows.concat(), &actions, &backs);
        }
        for action in (0..legal.len()).filter(|&action| legal[action]) {
            let mut longer = (rows.clone(), actions.clone(), backs.clone());
            let mut row = rows.last().unwrap().clone();
            longer.2.push(env.step(&mut row, action) as u32);
            longer.1.push(action as u32);
            longer.0.push(row);
            open.push(longer);
        }
    }
    all
}

/// P_F(τ), and loss and gradient of the batch that is τ alone.
type Alone = (f64, f64, Vec<Option<Vec<f32>>>);

/// Every trajectory alone.
fn one_by_one(e: &mut Experiment, all: &Trajectories) -> Vec<Alone> {
    let one = |i: usize| {
        let mut one = Trajectories::new(all.states.width());
        one.push_of(all, i);
        one
    };
    let graph = &e.exact.clone().unwrap().graph;
    let log_pf = graph.log_probs(&*e.env, &e.trainer.policy(), gfn_core::Direction::Forward, 4096);
    let mut out = Vec::new();
    for i in 0..all.len() {
        let log_prob = |(at, t): (usize, usize)| {
            let from = graph.find(all.states.row(at)).unwrap();
            let mut edges = graph.edge_range(from).zip(graph.edges(from));
            log_pf[edges.find(|(_, edge)| edge.action == all.actions[t]).unwrap().0]
        };
        let prob = all.rows(i).zip(all.transitions(i)).map(log_prob).sum::<f64>().exp();
        let batch = e.trainer.batch_of(&one(i));
        let (loss, _) = e.trainer.gradients(OBJECTIVE, &batch);
        out.push((prob, loss, gradients(&e.trainer)));
    }
    let total: f64 = out.iter().map(|(prob, ..)| prob).sum();
    assert!((total - 1.0).abs() < 1e-6, "all of them: {total}");
    out
}

/// E over P_F(τ) of the gradient of parameter `i`.
fn expected(of: &[Alone], i: usize) -> Vec<f64> {
    let mut sum = vec![0.0; of[0].2[i].as_ref().unwrap().len()];
    for (prob, _, gradients) in of {
        for (sum, g) in sum.iter_mut().zip(gradients[i].as_ref().unwrap()) {
            *sum += prob * f64::from(*g);
        }
    }
    sum
}

/// Whatever the critic says, the expected gradient is that of KL(P_F(τ) ‖ R P_B / Z): half of that
/// of trajectory balance on trajectories of P_F, and the slope of the exact divergence.
#[test]
fn the_expected_gradient_is_that_of_the_divergence() {
    let mut pg = experiment("kind = 'pg'\nlambda = 1\ncentred = false", 3, "shared = false");
    let mut tb = experiment("kind = 'tb'", 3, "shared = false");
    let infos = pg.trainer.engine().params().to_vec();
    let of_tb = tb.trainer.engine().params().to_vec();
    let twin = |i: usize| of_tb.iter().position(|info| info.name == infos[i].name);
    for i in 0..infos.len() {
        if let Some(twin) = twin(i) {
            tb.trainer.engine_mut().set_value(twin, pg.trainer.engine().value(i));
        }
    }
    let mut all = all_trajectories(&*pg.env);
    assert_eq!(all.len(), 19, "paths to the objects of a grid of side 3");
    all.log_reward = vec![0.0; all.len()];
    pg.reward.log_reward(&all.terminals(), &mut all.log_reward).unwrap();
    let (of_pg, of_tb) = (one_by_one(&mut pg, &all), one_by_one(&mut tb, &all));
    let mut rng = Streams::new(9).get(Purpose::Test, 1);
    for (i, info) in infos.iter().enumerate() {
        if ![Head::FORWARD.name, Head::LOG_Z.name].contains(&&*info.group) {
            continue;
        }
        let gradient = expected(&of_pg, i);
        let scale = gradient.iter().fold(0.0f64, |scale, g| scale.max(g.abs()));
        assert!(scale > 1e-2, "{}: there is a gradient: {scale}", info.name);
        for (pg, tb) in gradient.iter().zip(expected(&of_tb, twin(i).unwrap())) {
            assert!((pg - 0.5 * tb).abs() < 1e-4 * scale, "{}: {pg} {tb}", info.name);
        }
        if info.group == Head::LOG_Z.name {
            continue;
        }
        // The divergence, up to log Z that nothing of P_F enters, is the expected loss.
        let here = pg.trainer.engine().value(i);
        let signs: Vec<f32> =
            here.iter().map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let mut at = |step: f32| {
            let moved = here.iter().zip(&signs).map(|(x, sign)| x + sign * step).collect();
            pg.trainer.engine_mut().set_value(i, moved);
            one_by_one(&mut pg, &all).iter().map(|(prob, loss, _)| prob * loss).sum::<f64>()
        };
        // One of these steps may cross a kink of a ReLU.
        let numeric = [1e-3f32, 2.5e-4].map(|h| (at(h) - at(-h)) / (2.0 * f64::from(h)));
        pg.trainer.engine_mut().set_value(i, here.clone());
        let exact: f64 = gradient.iter().zip(&signs).map(|(g, sign)| g * f64::from(*sign)).sum();
        let sum: f64 = gradient.iter().map(|g| g.abs()).sum();
        let close = numeric.iter().any(|numeric| (numeric - exact).abs() < 5e-3 * sum);
        assert!(close, "{}: {numeric:?} {exact}", info.name);
    }
}

/// Gives a model the values that another has for parameters of the same name, and takes its copies anew.
fn put_values(to: &mut Experiment, from: &Experiment) {
    let infos = to.trainer.engine().params().to_vec();
    let others = from.trainer.engine().params();
    for (i, info) in infos.iter().enumerate() {
        let twin = others.iter().position(|other| other.name == info.name).unwrap();
        to.trainer.engine_mut().set_value(i, from.trainer.engine().value(twin));
    }
    to.trainer.engine_mut().copy("old_policy");
}

/// Trajectories of P_F with their rewards.
fn sampled(e: &Experiment, n: usize, step: u64) -> Trajectories {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step };
    let policy = e.trainer.policy();
    let mut drawn = Sampler::default().forward(&*e.env, &policy, Exploration::NONE, draw, n);
    drawn.log_reward = vec![0.0; n];
    e.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
    drawn
}

/// Where the policy has not moved yet, PPO, TRPO and the policy gradient go the same way.
#[test]
fn first_steps_are_policy_gradients() {
    for settings in [
        "lambda = 0.9\ncritic = { lambda = 0.7 }\ncentred = false",
        "lambda = 1.0\ncritic = { sub_eb = 0.9 }\ncentred = true\nleave_one_out = true",
        "lambda = 0.5\ncritic = 'none'\ncentred = true",
    ] {
        let of =
            |kind: &str| experiment(&format!("kind = '{kind}'\n{settings}"), 4, "shared = false");
        let mut pg = of("pg");
        let drawn = sampled(&pg, 10, 0);
        let batch = pg.trainer.batch_of(&drawn);
        pg.trainer.gradients(OBJECTIVE, &batch);
        let expected = gradients(&pg.trainer);
        let infos = pg.trainer.engine().params().to_vec();
        for (kind, updates) in [("ppo", &[OBJECTIVE][..]), ("trpo", &[OBJECTIVE, "value"])] {
            let mut other = of(kind);
            put_values(&mut other, &pg);
            let mut compared = 0;
            for update in updates {
                other.trainer.gradients(update, &batch);
                for (i, info) in other.trainer.engine().params().iter().enumerate() {
                    let Some(found) = other.trainer.engine().gradient(i) else { continue };
                    let twin = infos.iter().position(|other| other.name == info.name).unwrap();
                    let expected = expected[twin].as_ref().unwrap();
                    let scale = expected.iter().fold(0.1f32, |scale, g| scale.max(g.abs()));
                    for (found, expected) in found.iter().zip(expected) {
                        let what = format!("{kind} {settings} {}", info.name);
                        assert!(
                            (found - expected).abs() < 1e-5 * scale,
                            "{what}: {found} {expected}"
                        );
                    }
                    compared += 1;
                }
            }
            assert_eq!(compared, infos.len(), "{kind}: every parameter is of one update");
        }
    }
}

/// Mean over states that actions were chosen at of KL(old ‖ new).
fn divergence(old: &[Vec<f64>], new: &[Vec<f64>]) -> f64 {
    let of_state = |(old, new): (&Vec<f64>, &Vec<f64>)| -> f64 {
        old.iter().zip(new).map(|(p, q)| if *p > 0.0 { p * (p / q).ln() } else { 0.0 }).sum()
    };
    old.iter().zip(new).map(of_state).sum::<f64>() / old.len() as f64
}

/// P_F at every state of trajectories but the last.
fn policies(e: &Experiment, of: &Trajectories) -> Vec<Vec<f64>> {
    let n = e.env.space().n_actions;
    let mut all = Vec::new();
    for i in 0..of.len() {
        for row in of.rows(i).take(of.transitions(i).len()) {
            let mut states = gfn_core::States::new(of.states.width());
            states.push(of.states.row(row));
            let (mut logits, mut legal) = (vec![0.0; n], vec![false; n]);
            use gfn_core::policy::Policy as _;
            let policy = e.trainer.policy();
            policy.logits(&*e.env, gfn_core::Direction::Forward, &states, &mut logits);
            e.env.legal(of.states.row(row), &mut legal);
            let weights = logits.iter().zip(&legal);
            let weights: Vec<f64> =
                weights.map(|(x, legal)| if *legal { f64::from(*x).exp() } else { 0.0 }).collect();
            let sum: f64 = weights.iter().sum();
            all.push(weights.iter().map(|weight| weight / sum).collect());
        }
    }
    all
}

/// No step leaves its region, whatever its size and the way it is computed; most come near its edge.
#[test]
fn steps_stay_in_their_region() {
    let mut near = 0;
    for (i, (delta, more)) in [
        (0.01, "iterations = 10"),
        (0.1, "iterations = 1"),
        (1.0, "damping = 1.0"),
        (1e-4, "damping = 0.0"),
        (5.0, "backtracks = 2"),
        (0.01, "lambda = 0.5\ncritic = 'none'"),
    ]
    .into_iter()
    .enumerate()
    {
        for model in ["shared = false", "shared = true"] {
            let objective = format!("kind = 'trpo'\ndelta = {delta}\n{more}");
            let mut e = experiment(&objective, 4, model);
            for step in 0..4 {
                let drawn = sampled(&e, 16, 10 * i as u64 + step);
                let batch = e.trainer.batch_of(&drawn);
                let old = policies(&e, &drawn);
                e.trainer.update_on(OBJECTIVE, &batch).unwrap();
                let moved = divergence(&old, &policies(&e, &drawn));
                assert!(moved <= delta * (1.0 + 1e-3) + 1e-9, "{objective}: {moved}");
                near += usize::from(moved > 0.2 * delta);
            }
        }
    }
    assert!(near > 24, "{near} of 48 steps go far");
}

/// A step that nothing is gained by is not made: a region too small for single precision.
#[test]
fn steps_that_fail_leave_the_policy_as_it_was() {
    let mut e = experiment("kind = 'trpo'\ndelta = 1e-30", 4, "shared = false");
    let values = |e: &Experiment| -> Vec<Vec<f32>> {
        (0..e.trainer.engine().params().len()).map(|i| e.trainer.engine().value(i)).collect()
    };
    let (batch, before) = (e.trainer.batch_of(&sampled(&e, 16, 0)), values(&e));
    e.trainer.update_on(OBJECTIVE, &batch).unwrap();
    assert_eq!(values(&e), before);
}

/// Whatever the critic of P_B says, the expected gradient over ways back from an object is that of
/// KL(P_B(τ|x) ‖ P_F(τ)): the slope of the exact sum over all ways.
#[test]
fn the_expected_gradient_of_the_way_back_is_that_of_its_divergence() {
    let text = "[env]\nkind = 'hypergrid'\ndim = 2\nside = 3\n\
                [model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\nshared = false\n\
                [objective]\nkind = 'tb'\n[backward]\nkind = 'pg'\ncentred = false\n\
                [train]\nlr = 0.01\nbatch = 8\n[eval]\nmetrics = []\n";
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text.to_owned(), "test", &[]).unwrap();
    let mut e = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..5 {
        e.trainer.step().unwrap();
    }
    let mut all = all_trajectories(&*e.env);
    all.log_reward = vec![0.0; all.len()];
    // The mean over objects of the expected cost, and of the gradient, over all their ways back.
    let exact = |e: &mut Experiment| -> (f64, Vec<Option<Vec<f64>>>) {
        let graph = &e.exact.clone().unwrap().graph;
        let backward = gfn_core::Direction::Backward;
        let log_pb = graph.log_probs(&*e.env, &e.trainer.policy(), backward, 4096);
        let log_pf =
            graph.log_probs(&*e.env, &e.trainer.policy(), gfn_core::Direction::Forward, 4096);
        let (mut cost, mut gradient) = (0.0, vec![None; e.trainer.engine().params().len()]);
        for i in 0..all.len() {
            let mut one = Trajectories::new(all.states.width());
            one.push_of(&all, i);
            let (mut pb, mut own) = (0.0, 0.0);
            for (at, t) in all.rows(i).zip(all.transitions(i)) {
                let from = graph.find(all.states.row(at)).unwrap();
                let mut edges = graph.edge_range(from).zip(graph.edges(from));
                let edge = edges.find(|(_, edge)| edge.action == all.actions[t]).unwrap().0;
                pb += log_pb[edge];
                // The last action stops: what it costs is the object's.
                if t + 1 < all.transitions(i).end {
                    own += log_pb[edge] - log_pf[edge];
                }
            }
            cost += pb.exp() * own;
            let batch = e.trainer.batch_of(&one);
            e.trainer.gradients("backward", &batch);
            for (sum, g) in gradient.iter_mut().zip(gradients(&e.trainer)) {
                let Some(g) = g else { continue };
                let sum = sum.get_or_insert_with(|| vec![0.0; g.len()]);
                sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += pb.exp() * f64::from(g));
            }
        }
        (cost, gradient)
    };
    let (_, gradient) = exact(&mut e);
    let infos = e.trainer.engine().params().to_vec();
    let mut rng = Streams::new(9).get(Purpose::Test, 2);
    let mut compared = 0;
    for (i, info) in infos.iter().enumerate() {
        if info.group != Head::BACKWARD.name {
            continue;
        }
        let gradient = gradient[i].as_ref().unwrap();
        let here = e.trainer.engine().value(i);
        let signs: Vec<f32> =
            here.iter().map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let mut at = |step: f32| {
            let moved = here.iter().zip(&signs).map(|(x, sign)| x + sign * step).collect();
            e.trainer.engine_mut().set_value(i, moved);
            exact(&mut e).0
        };
        let numeric = [1e-3f32, 2.5e-4].map(|h| (at(h) - at(-h)) / (2.0 * f64::from(h)));
        e.trainer.engine_mut().set_value(i, here.clone());
        let slope: f64 = gradient.iter().zip(&signs).map(|(g, sign)| g * f64::from(*sign)).sum();
        let sum: f64 = gradient.iter().map(|g| g.abs()).sum();
        assert!(sum > 1e-2, "{}: there is a gradient: {sum}", info.name);
        let close = numeric.iter().any(|numeric| (numeric - slope).abs() < 5e-3 * sum);
        assert!(close, "{}: {numeric:?} {slope}", info.name);
        compared += 1;
    }
    assert!(compared >= 4, "weights and biases of P_B");
}
