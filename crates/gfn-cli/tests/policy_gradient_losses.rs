//! Losses of policy gradients written out by plain loops from what the network says of one state at a time: PPO away
//! from the policy that sampled, the critics, and what P_B descends; their gradients are slopes of these sums with
//! what they do not follow held fixed.

mod network;
#[path = "network/slopes.rs"]
mod slopes;

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::Trajectories;
use gfn_core::learn::batch::Batch;
use gfn_core::learn::engine::Values;
use gfn_core::learn::head::Head;
use gfn_core::objective::OBJECTIVE;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use network::{GRID, log_norm, log_prob, logits, mask, scalar, strings};
use slopes::slopes;

const OLD: Values = Values::Copy("old_policy");
const NOW: Values = Values::Current;

/// After some iterations, so that critics say something and P_B is not uniform.
fn experiment(world: &str, objective: &str, backward: &str, seed: u64) -> Experiment {
    let text = format!(
        "seed = {seed}\n{world}[model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\nshared = false\n\
         [objective]\n{objective}\n[backward]\n{backward}\n\
         [train]\nlr = 0.01\nbatch = 8\n[eval]\nmetrics = []\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]);
    let spec = spec.unwrap_or_else(|failure| panic!("{}", failure.render()));
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..5 {
        experiment.trainer.step().unwrap();
    }
    experiment
}

/// Holds for one of several seeds with at least so many tensors: a wrong gradient is wrong for all, but a state whose
/// unit is at the kink of its ReLU has no slope.
fn for_some_seed(least: usize, check: impl Fn(u64) -> Result<usize, String>) {
    let mut differences = Vec::new();
    for seed in 0..5 {
        match check(seed) {
            Ok(compared) => return assert!(compared >= least, "{compared} tensors"),
            Err(difference) => differences.push(difference),
        }
    }
    panic!("{differences:#?}");
}

fn sample(e: &Experiment) -> (Trajectories, Batch) {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let exploration = Exploration { epsilon: 0.3, temperature: 1.0 };
    let policy = e.trainer.policy();
    let mut drawn = Sampler::default().forward(&*e.env, &policy, exploration, draw, 10);
    drawn.log_reward = vec![0.0; drawn.len()];
    e.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
    let batch = e.trainer.batch_of(&drawn);
    (drawn, batch)
}

/// One number per transition of each trajectory.
type Steps = Vec<Vec<f64>>;

fn each(of: &Trajectories, mut step: impl FnMut(usize, &[i32], usize, &[i32]) -> f64) -> Steps {
    let mut all = Vec::new();
    for i in 0..of.len() {
        let states = of.rows(i).zip(of.transitions(i));
        all.push(
            states.map(|(at, t)| step(i, of.states.row(at), t, of.states.row(at + 1))).collect(),
        );
    }
    all
}

fn log_pf(e: &Experiment, values: Values, of: &Trajectories) -> Steps {
    each(of, |_, from, t, _| log_prob(e, Head::FORWARD, values, from, of.actions[t]))
}

/// By the network, or uniform.
fn log_pb(e: &Experiment, learned: bool, of: &Trajectories) -> Steps {
    each(of, |_, _, t, to| match learned {
        true => log_prob(e, Head::BACKWARD, NOW, to, of.back_actions[t]),
        false => {
            let ways = mask(&*e.env, Head::BACKWARD, to).into_iter().filter(|&legal| legal);
            -(ways.count() as f64).ln()
        }
    })
}

/// A scalar of the starts of transitions.
fn values(e: &mut Experiment, head: &'static str, at: Values, of: &Trajectories) -> Steps {
    each(of, |_, from, _, _| scalar(e, Head::scalar(head), at, from))
}

fn log_z(e: &Experiment) -> f64 {
    let i = e.trainer.engine().params().iter().position(|info| info.group == "log_z").unwrap();
    f64::from(e.trainer.engine().value(i)[0])
}

/// log P_F − log P_B, and at the end log Z − log R besides.
fn costs(e: &Experiment, policy: &Steps, learned: bool, of: &Trajectories) -> Steps {
    let (log_pb, log_z) = (log_pb(e, learned, of), log_z(e));
    let mut costs = policy.clone();
    for (i, costs) in costs.iter_mut().enumerate() {
        costs.iter_mut().zip(&log_pb[i]).for_each(|(cost, log_pb)| *cost -= log_pb);
        *costs.last_mut().unwrap() += log_z - of.log_reward[i];
    }
    costs
}

/// Σ_{u ≥ t} λ^{u−t} (c_u + V_{u+1} − V_u) by its double sum.
fn advantages(costs: &Steps, value: &Steps, lambda: f64) -> Steps {
    let of = |(costs, value): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> {
        let n = costs.len();
        let error = |u: usize| costs[u] + value.get(u + 1).unwrap_or(&0.0) - value[u];
        let from = |t: usize| (t..n).map(|u| lambda.powi((u - t) as i32) * error(u)).sum();
        (0..n).map(from).collect()
    };
    costs.iter().zip(value).map(of).collect()
}

/// Σ over pairs i < j of λ^{j−i−1} (φ_i + Σ_{i ≤ t < j} ratio_t − φ_j)², with weights of one trajectory adding to 1,
/// and the mean over trajectories.
fn sub_trajectories(phi: &Steps, ratios: &Steps, at_end: &[f64], lambda: f64) -> f64 {
    let mut total = 0.0;
    for i in 0..phi.len() {
        let (n, mut sum, mut weights) = (ratios[i].len(), 0.0, 0.0);
        for start in 0..n {
            for end in start + 1..=n {
                let to = if end == n { at_end[i] } else { phi[i][end] };
                let between: f64 = ratios[i][start..end].iter().sum();
                let weight = lambda.powi((end - start) as i32 - 1);
                sum += weight * (phi[i][start] + between - to).powi(2);
                weights += weight;
            }
        }
        total += sum / weights;
    }
    total / phi.len() as f64
}

#[test]
fn proximal_policies_are_clipped_and_pay_for_their_divergence() {
    let dir = tempfile::tempdir().unwrap();
    let (grid, strings) = (GRID.to_owned(), strings(dir.path()));
    for (world, clip, kl, lambda, learned) in [
        (&grid, 0.02, 1.0, 0.7, true),
        (&grid, 0.2, 0.0, 1.0, false),
        (&strings, 0.01, 0.5, 0.9, true),
    ] {
        let objective = format!(
            "kind = 'ppo'\nclip = {clip}\nkl = {kl}\nlambda = {lambda}\ncentred = false\nminibatches = 1\ncritic = 'monte_carlo'"
        );
        let backward = if learned { "kind = 'naive'" } else { "kind = 'uniform'" };
        for_some_seed(7, |seed| {
            let mut e = experiment(world, &objective, backward, seed);
            let (drawn, batch) = sample(&e);
            // The copy is of the last iteration, whose epochs have moved the policy.
            let old = log_pf(&e, OLD, &drawn);
            let costs = costs(&e, &old, learned, &drawn);
            let before = values(&mut e, "value", OLD, &drawn);
            let advantage = advantages(&costs, &before, lambda);
            let goal = advantages(&costs, &vec![vec![0.0; 100]; drawn.len()], 1.0);
            let total = costs.iter().flatten().sum::<f64>() / drawn.len() as f64;
            let mut clipped = 0;
            for (a, b) in old.iter().flatten().zip(log_pf(&e, NOW, &drawn).iter().flatten()) {
                clipped += usize::from(((b - a).exp() - 1.0).abs() > clip);
            }
            assert!(clipped > 5, "{clipped} of {} are clipped", batch.len());

            e.trainer.gradients(OBJECTIVE, &batch);
            let what = format!("{world}{objective}");
            slopes(&mut e, total, &what, |e, group| match group {
                "forward" => {
                    let now = log_pf(e, NOW, &drawn);
                    let mut loss = 0.0;
                    for ((now, old), a) in now
                        .iter()
                        .flatten()
                        .zip(old.iter().flatten())
                        .zip(advantage.iter().flatten())
                    {
                        let ratio = (now - old).exp();
                        loss += (ratio * a).max(ratio.clamp(1.0 - clip, 1.0 + clip) * a);
                    }
                    // KL(P_F ‖ P_old) over all actions.
                    for divergence in each(&drawn, |_, from, _, _| {
                        let legal = mask(&*e.env, Head::FORWARD, from);
                        let [now, old] = [NOW, OLD].map(|at| {
                            let logits = logits(e, Head::FORWARD, at, from);
                            let norm = log_norm(&logits, &legal);
                            logits.into_iter().map(move |x| x - norm).collect::<Vec<_>>()
                        });
                        let legal = (0..legal.len()).filter(|&a| legal[a]);
                        legal.map(|a| now[a].exp() * (now[a] - old[a])).sum()
                    })
                    .iter()
                    .flatten()
                    {
                        loss += kl * divergence;
                    }
                    Some(loss / drawn.len() as f64)
                }
                "value" => {
                    let value = values(e, "value", NOW, &drawn);
                    let errors = goal.iter().flatten().zip(value.iter().flatten());
                    Some(
                        errors.map(|(goal, v)| (goal - v).powi(2)).sum::<f64>()
                            / drawn.len() as f64,
                    )
                }
                "log_z" => Some(log_z(e) * total),
                "backward" => {
                    let log_pb = log_pb(e, true, &drawn);
                    Some(-log_pb.iter().flatten().sum::<f64>() / drawn.len() as f64)
                }
                _ => None,
            })
        });
    }
}

#[test]
fn critics_follow_their_goals() {
    for critic in ["{ lambda = 0.7 }", "{ lambda = 0.0 }", "{ sub_eb = 0.9 }", "{ sub_eb = 1.1 }"] {
        let objective = format!("kind = 'pg'\nlambda = 0.9\ncritic = {critic}");
        for_some_seed(2, |seed| {
            let mut e = experiment(GRID, &objective, "kind = 'naive'", seed);
            let (drawn, batch) = sample(&e);
            let policy = log_pf(&e, NOW, &drawn);
            let costs = costs(&e, &policy, true, &drawn);
            let before = values(&mut e, "value", NOW, &drawn);
            let number: f64 = critic.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            let traces = advantages(&costs, &before, number);
            e.trainer.gradients(OBJECTIVE, &batch);
            slopes(&mut e, 1.0, critic, |e, group| {
                if group != "value" {
                    return None;
                }
                let value = values(e, "value", NOW, &drawn);
                if critic.contains("sub_eb") {
                    let gains =
                        costs.iter().map(|costs| costs.iter().map(|c| -c).collect()).collect();
                    return Some(sub_trajectories(&value, &gains, &[0.0; 10], number));
                }
                let errors = traces.iter().flatten().zip(before.iter().flatten());
                let errors = errors.zip(value.iter().flatten());
                Some(errors.map(|((trace, v), now)| (trace + v - now).powi(2)).sum::<f64>() / 10.0)
            })
        });
    }
}

#[test]
fn sub_trajectory_evaluation_of_the_way_back_is_its_double_sum() {
    let dir = tempfile::tempdir().unwrap();
    for (world, lambda) in [(GRID.to_owned(), 0.9), (strings(dir.path()), 1.0)] {
        let backward = format!("kind = 'sub_eb'\nlambda = {lambda}");
        for_some_seed(4, |seed| {
            let mut e = experiment(&world, "kind = 'pg'", &backward, seed);
            let (drawn, batch) = sample(&e);
            let policy = log_pf(&e, NOW, &drawn);
            let loss = |e: &mut Experiment| {
                let ratios: Steps = policy
                    .iter()
                    .zip(log_pb(e, true, &drawn))
                    .map(|(pf, pb)| pf.iter().zip(pb).map(|(pf, pb)| pf - pb).collect())
                    .collect();
                let phi = values(e, "evaluation", NOW, &drawn);
                sub_trajectories(&phi, &ratios, &drawn.log_reward, lambda)
            };
            let (found, _) = e.trainer.gradients("backward", &batch);
            let expected = loss(&mut e);
            assert!((found - expected).abs() < 1e-5 * expected, "{world}: {found} {expected}");
            slopes(&mut e, expected, &world, |e, group| {
                ["backward", "evaluation"].contains(&group).then(|| loss(e))
            })
        });
    }
}

/// log P_G of the stop guide, with the threshold counted out.
fn log_guide(e: &Experiment, of: &Trajectories, quantile: f64, most: f64) -> Steps {
    let stop = e.env.space().stop().unwrap();
    let reward = |from: &[i32]| {
        let mut row = from.to_vec();
        e.env.step(&mut row, stop);
        let mut log_reward = [0.0];
        e.reward.log_reward(&network::one(&row), &mut log_reward).unwrap();
        log_reward[0]
    };
    let rewards = each(of, |_, from, _, _| reward(from));
    let all: Vec<f64> = rewards.iter().flatten().copied().collect();
    let below = |x: f64| all.iter().filter(|&&y| y <= x).count() as f64;
    let enough = all.iter().copied().filter(|&x| below(x) >= quantile * all.len() as f64);
    let threshold = enough.fold(f64::INFINITY, f64::min);
    each(of, |_, from, t, _| {
        let log_pf = |action: usize| log_prob(e, Head::FORWARD, NOW, from, action as u32);
        let (action, stops) = (of.actions[t] as usize, log_pf(stop).exp());
        if reward(from) > threshold || stops <= most {
            return log_pf(action);
        }
        match action == stop {
            true => most.ln(),
            false => (log_pf(action).exp() * (1.0 - most) / (1.0 - stops)).ln(),
        }
    })
}

#[test]
fn ways_back_cost_what_the_guide_says() {
    for (guide, lambda, centred) in [(true, 1.0, true), (true, 0.6, false), (false, 0.6, true)] {
        let text = if guide { "\nguide = { stop = { quantile = 0.6, most = 0.05 } }" } else { "" };
        let backward = format!("kind = 'pg'\nlambda = {lambda}\ncentred = {centred}{text}");
        for_some_seed(4, |seed| {
            let mut e = experiment(GRID, "kind = 'tb'", &backward, seed);
            let (drawn, batch) = sample(&e);
            let towards =
                if guide { log_guide(&e, &drawn, 0.6, 0.05) } else { log_pf(&e, NOW, &drawn) };
            if guide {
                let free = log_pf(&e, NOW, &drawn);
                let differ = free.iter().flatten().zip(towards.iter().flatten());
                let n = differ.filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
                // Which may be every step, where no state that is left stops seldom or has a large reward.
                assert!(n > 5, "the guide says something: {n} of {}", batch.len());
            }
            let log_pb_now = log_pb(&e, true, &drawn);
            // Of the state that a step leads to; the objects' last step has no choice.
            let value =
                each(&drawn, |_, _, _, to| scalar(&mut e, Head::scalar("backward_value"), NOW, to));
            let (mut choices, mut to_go, mut advantage) = (Vec::new(), Vec::new(), Vec::new());
            for i in 0..drawn.len() {
                let n = towards[i].len();
                let choice: Vec<bool> = each(&drawn, |_, _, _, to| {
                    let ways = mask(&*e.env, Head::BACKWARD, to);
                    f64::from(u8::from(ways.iter().filter(|&&legal| legal).count() > 1))
                })[i]
                    .iter()
                    .map(|&choice| choice == 1.0)
                    .collect();
                let cost =
                    |t: usize| if t + 1 == n { 0.0 } else { log_pb_now[i][t] - towards[i][t] };
                // Where there is one way, what it costs is known.
                fn v(
                    t: Option<usize>,
                    choice: &[bool],
                    value: &[f64],
                    cost: &dyn Fn(usize) -> f64,
                ) -> f64 {
                    match t {
                        None => 0.0,
                        Some(t) if choice[t] => value[t],
                        Some(t) => cost(t) + v(t.checked_sub(1), choice, value, cost),
                    }
                }
                let v = |t: Option<usize>| v(t, &choice, &value[i], &cost);
                let error = |t: usize| cost(t) + v(t.checked_sub(1)) - v(Some(t));
                choices.extend_from_slice(&choice);
                for t in 0..n {
                    to_go.push((0..=t).map(cost).sum::<f64>());
                    advantage.push(
                        (0..=t).map(|u| f64::powi(lambda, (t - u) as i32) * error(u)).sum::<f64>(),
                    );
                }
            }
            let n = choices.iter().filter(|&&choice| choice).count() as f64;
            let of_choices = advantage.iter().zip(&choices).filter(|(_, choice)| **choice);
            let mean = if centred { of_choices.map(|(a, _)| a).sum::<f64>() / n } else { 0.0 };
            e.trainer.gradients("backward", &batch);
            slopes(&mut e, 1.0, &backward, |e, group| match group {
                "backward" => {
                    let log_pb = log_pb(e, true, &drawn);
                    let terms = log_pb.iter().flatten().zip(&advantage).zip(&choices);
                    let term = |((log_pb, a), choice): ((&f64, &f64), &bool)| {
                        if *choice { log_pb * (a - mean) } else { 0.0 }
                    };
                    Some(terms.map(term).sum::<f64>() / drawn.len() as f64)
                }
                "backward_value" => {
                    let head = Head::scalar("backward_value");
                    let value = each(&drawn, |_, _, _, to| scalar(e, head, NOW, to));
                    let terms = value.iter().flatten().zip(&to_go).zip(&choices);
                    let term = |((v, goal), choice): ((&f64, &f64), &bool)| {
                        if *choice { (goal - v).powi(2) } else { 0.0 }
                    };
                    Some(terms.map(term).sum::<f64>() / drawn.len() as f64)
                }
                _ => None,
            })
        });
    }
}

#[test]
fn the_squared_form_is_the_variance_of_residuals() {
    let dir = tempfile::tempdir().unwrap();
    for world in [GRID.to_owned(), strings(dir.path())] {
        for_some_seed(2, |seed| {
            let mut e = experiment(&world, "kind = 'tb'", "kind = 'pg'\nform = 'squared'", seed);
            let (drawn, batch) = sample(&e);
            let policy = log_pf(&e, NOW, &drawn);
            let variance = |e: &Experiment| {
                let log_pb = log_pb(e, true, &drawn);
                let residual = |i: usize| {
                    policy[i].iter().sum::<f64>()
                        - log_pb[i].iter().sum::<f64>()
                        - drawn.log_reward[i]
                };
                let residuals: Vec<f64> = (0..drawn.len()).map(residual).collect();
                let mean = residuals.iter().sum::<f64>() / residuals.len() as f64;
                residuals.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / residuals.len() as f64
            };
            let (found, _) = e.trainer.gradients("backward", &batch);
            let expected = variance(&e);
            assert!((found - expected).abs() < 1e-5 * expected, "{world}: {found} {expected}");
            slopes(&mut e, expected, &world, |e, group| (group == "backward").then(|| variance(e)))
        });
    }
}
