//! Losses of soft reinforcement learning written out by plain loops from what the network says of one state at
//! a time: values and gradients of soft DQN in all its forms, and those of the actor and the critics of SAC, each
//! by finite differences with what it does not follow held fixed.

mod network;
#[path = "network/slopes.rs"]
mod slopes;

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::Trajectories;
use gfn_core::learn::Trainer;
use gfn_core::learn::batch::{Batch, End, Transitions};
use gfn_core::learn::engine::{Readout, Upstream, Values};
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::objective::OBJECTIVE;
use gfn_core::policy::Direction;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use network::{GRID, log_norm, log_prob, logits, mask, scalar, strings};
use slopes::slopes;

const TARGET: Values = Values::Copy("target");
const CRITICS: [Head; 2] =
    [Head::actions("critic_1", Direction::Forward), Head::actions("critic_2", Direction::Forward)];

/// After some iterations, so that the target copy is another than what is trained.
fn experiment(world: &str, objective: &str, backward: &str, shared: bool) -> Experiment {
    let text = format!(
        "{world}[model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\nshared = {shared}\n\
         [objective]\n{objective}\nstart = 0\nreplay_batch = 20\n[backward]\nkind = '{backward}'\n\
         [train]\nlr = 0.01\nbatch = 8\n[eval]\nmetrics = []\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]);
    let spec = spec.unwrap_or_else(|failure| panic!("{}", failure.render()));
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..4 {
        experiment.trainer.step().unwrap();
    }
    experiment
}

/// Exploratory trajectories with their rewards.
fn sample(e: &Experiment, n: usize) -> Trajectories {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let exploration = Exploration { epsilon: 0.3, temperature: 1.0 };
    let policy = e.trainer.policy();
    let mut drawn = Sampler::default().forward(&*e.env, &policy, exploration, draw, n);
    drawn.log_reward = vec![0.0; n];
    e.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
    drawn
}

/// Their transitions, and a batch of them: whole, or some of them that do not belong together.
fn batch(e: &Experiment, whole: bool) -> (Transitions, Batch) {
    let drawn = sample(e, 12);
    let mut all = Transitions::new(e.env.space().width);
    all.extend(&drawn);
    if whole {
        return (all, e.trainer.batch_of(&drawn));
    }
    let mut some = Transitions::new(e.env.space().width);
    for i in [7, 0, 3, 2, 15, 7, 11, 5, 19, 4, 4, 12, 1, 9] {
        let (action, back) = (all.actions[i], all.back_actions[i]);
        some.push(all.from.row(i), all.to.row(i), action, back, all.log_reward[i]);
    }
    let batch = Batch::of_transitions(&*e.env, &e.trainer.parts().pb(), &some);
    (some, batch)
}

/// Log-probabilities of the legal actions with their numbers.
fn log_probs(e: &Experiment, head: Head, values: Values, row: &[i32]) -> Vec<(usize, f64)> {
    let (logits, legal) = (logits(e, head, values, row), mask(&*e.env, head, row));
    let norm = log_norm(&logits, &legal);
    (0..legal.len()).filter(|&a| legal[a]).map(|a| (a, logits[a] - norm)).collect()
}

/// log P_B of a step, by the network or uniform over parents.
fn log_pb(e: &Experiment, learned: bool, to: &[i32], back: u32) -> f64 {
    if learned {
        return log_prob(e, Head::BACKWARD, Values::Current, to, back);
    }
    let legal = mask(&*e.env, Head::BACKWARD, to);
    -(legal.iter().filter(|&&legal| legal).count() as f64).ln()
}

fn gradients(trainer: &Trainer) -> Vec<Option<Vec<f32>>> {
    (0..trainer.engine().params().len()).map(|i| trainer.engine().gradient(i)).collect()
}

/// A penalty with its derivative.
fn penalty(huber: bool, residual: f64) -> (f64, f64) {
    match (huber, residual.abs()) {
        (true, size) if size > 1.0 => (size - 0.5, residual.signum()),
        (true, size) => (size * size / 2.0, residual),
        (false, _) => (residual * residual, 2.0 * residual),
    }
}

#[derive(Clone, Copy, Debug)]
struct Form {
    alpha: f64,
    l0: f64,
    double: bool,
    dueling: bool,
    leaf: f64,
    huber: bool,
}

impl Form {
    fn objective(&self) -> String {
        let Self { alpha, l0, double, dueling, leaf, huber } = self;
        let penalty = if *huber { "huber" } else { "squared" };
        format!(
            "kind = 'soft_dqn'\nalpha = {alpha}\nl0 = {l0}\ndouble = {double}\ndueling = {dueling}\n\
             leaf_coefficient = {leaf}\npenalty = '{penalty}'"
        )
    }

    /// All with both penalties and with a clip of Munchausen's term that is active, and one that is not.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (alpha, l0) in [(0.0, -100.0), (0.15, -100.0), (0.15, -0.8)] {
            for (double, dueling) in [(false, false), (true, false), (false, true), (true, true)] {
                let huber = all.len() % 3 != 1;
                all.push(Self {
                    alpha,
                    l0,
                    double,
                    dueling,
                    leaf: [1.0, 5.0][all.len() % 2],
                    huber,
                });
            }
        }
        all
    }
}

/// Where a transition's residual comes from, counted over a batch.
#[derive(Default)]
struct Seen {
    clipped: usize,
    linear: usize,
    quadratic: usize,
    double_differs: usize,
}

/// The loss of a batch and, by transition, its derivative by Q(s, a).
fn soft_dqn(
    e: &mut Experiment,
    form: Form,
    learned: bool,
    steps: &Transitions,
) -> (f64, Vec<f64>, Seen) {
    let Form { alpha, l0, double, dueling, leaf, huber } = form;
    let tau = 1.0 / (1.0 - alpha);
    let m = steps.actions.len();
    let (mut loss, mut by_q, mut seen) = (0.0, Vec::new(), Seen::default());
    for t in 0..m {
        let (from, to, action) = (steps.from.row(t), steps.to.row(t), steps.actions[t] as usize);
        let of_action =
            |all: Vec<(usize, f64)>| all.into_iter().find(|(a, _)| *a == action).unwrap().1;
        let goal = log_pb(e, learned, to, steps.back_actions[t]);
        let goal = match steps.log_reward[t] {
            Some(log_reward) => goal + log_reward,
            None => {
                let target_logits = logits(e, Head::FORWARD, TARGET, to);
                let soft = match dueling {
                    true => scalar(e, Head::FLOW, TARGET, to),
                    false => {
                        let legal = mask(&*e.env, Head::FORWARD, to);
                        tau * log_norm(&target_logits, &legal)
                    }
                };
                let mut value = soft;
                if double {
                    value = 0.0;
                    let of_target = log_probs(e, Head::FORWARD, TARGET, to);
                    let online = log_probs(e, Head::FORWARD, Values::Current, to);
                    for ((a, log_pi), (_, log_target)) in online.into_iter().zip(of_target) {
                        let q =
                            if dueling { soft + tau * log_target } else { tau * target_logits[a] };
                        value += log_pi.exp() * (q - tau * log_pi);
                    }
                    seen.double_differs += usize::from((value - soft).abs() > 1e-3);
                }
                goal + value
            }
        };
        let of_target = tau * of_action(log_probs(e, Head::FORWARD, TARGET, from));
        seen.clipped += usize::from(of_target < l0);
        let q = match dueling {
            true => {
                let advantage = of_action(log_probs(e, Head::FORWARD, Values::Current, from));
                scalar(e, Head::FLOW, Values::Current, from) + tau * advantage
            }
            false => tau * logits(e, Head::FORWARD, Values::Current, from)[action],
        };
        let residual = q - goal - alpha * of_target.max(l0);
        seen.linear += usize::from(residual.abs() > 1.0);
        seen.quadratic += usize::from(residual.abs() < 1.0);
        let (value, derivative) = penalty(huber, residual);
        let weight = if steps.log_reward[t].is_some() { leaf } else { 1.0 } / m as f64;
        loss += weight * value;
        by_q.push(weight * derivative);
    }
    (loss, by_q, seen)
}

/// Takes derivatives by Q(s, a) through the network: nothing else of the objective has any, but log P_B where
/// the objective trains it.
fn through_the_network(
    e: &mut Experiment,
    form: Form,
    learned: bool,
    batch: &Batch,
    by_q: &[f64],
) -> Vec<Option<Vec<f32>>> {
    let tau = 1.0 / (1.0 - form.alpha);
    let main = e.trainer.parts().plan.main;
    let groups = e.trainer.parts().plan.updates[main].groups.clone();
    let (env, engine) = (e.env.clone(), e.trainer.engine_mut());
    let mut evaluate = |end: End, heads: &[Head]| {
        engine.evaluate(&*env, batch.rows(batch.set(end)), heads, Values::Current, None)
    };
    let scaled = by_q.iter().map(|by_q| tau * by_q).collect();
    let mut heads = vec![Head::FORWARD];
    heads.extend(form.dueling.then_some(Head::FLOW));
    let one_pass = learned && batch.set(End::From) == batch.set(End::To);
    heads.extend(one_pass.then_some(Head::BACKWARD));
    let from = evaluate(End::From, &heads);
    let to = match learned && !one_pass {
        true => evaluate(End::To, &[Head::BACKWARD]),
        false => from,
    };
    let of = |pass, head, readout, derivatives| Upstream { pass, head, readout, derivatives };
    let forward = match form.dueling {
        true => Readout::LogProb(batch.forward.clone()),
        false => Readout::Taken(batch.forward.clone()),
    };
    let mut upstream = vec![of(from, Head::FORWARD, forward, scaled)];
    if form.dueling {
        let mut by_flow = vec![0.0; batch.rows(batch.set(End::From)).states.len()];
        for (row, by_q) in batch.from_rows().iter().zip(by_q) {
            by_flow[*row as usize] += by_q;
        }
        upstream.push(of(from, Head::FLOW, Readout::Scalar, by_flow));
    }
    if learned {
        let mut by_log_pb = vec![0.0; batch.backward.len()];
        for (t, choice) in batch.backward_of.iter().enumerate() {
            choice.iter().for_each(|choice| by_log_pb[*choice as usize] -= by_q[t]);
        }
        let readout = Readout::LogProb(batch.backward.clone());
        upstream.push(of(to, Head::BACKWARD, readout, by_log_pb));
    }
    // An engine may want a reading before its derivatives.
    for Upstream { pass, head, readout, .. } in &upstream {
        engine.read(*pass, *head, readout);
    }
    engine.gradients(upstream, &[], &groups);
    gradients(&e.trainer)
}

#[test]
fn soft_dqn_is_its_equation_and_follows_q_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = [0; 4];
    for world in [GRID, &strings(dir.path())] {
        for (i, form) in Form::all().into_iter().enumerate() {
            for (whole, learned) in [(true, false), (true, true), (false, true)] {
                let backward = if learned { "naive" } else { "uniform" };
                let mut e = experiment(world, &form.objective(), backward, i % 2 == 0);
                let (steps, batch) = batch(&e, whole);
                let what = format!("{world}{form:?} {backward}, whole: {whole}");
                let (loss, by_q, of_batch) = soft_dqn(&mut e, form, learned, &steps);
                let expected = through_the_network(&mut e, form, learned, &batch, &by_q);
                let (found, _) = e.trainer.gradients(OBJECTIVE, &batch);
                assert!((found - loss).abs() < 1e-5 * loss.max(0.01), "{what}: {found} {loss}");
                assert_same(&e.trainer, &expected, &what);
                let clipped = form.l0 > -10.0;
                assert_eq!(of_batch.clipped > 0, clipped, "{what}");
                let Seen { linear, quadratic, clipped, double_differs } = of_batch;
                let counts = [linear, quadratic, clipped, double_differs];
                seen.iter_mut().zip(counts).for_each(|(seen, n)| *seen += n);
            }
        }
    }
    assert!(seen.iter().all(|&n| n > 50), "all branches are taken: {seen:?}");
}

fn assert_same(trainer: &Trainer, expected: &[Option<Vec<f32>>], what: &str) {
    for ((info, found), expected) in
        trainer.engine().params().iter().zip(gradients(trainer)).zip(expected)
    {
        let (Some(found), Some(expected)) = (&found, expected) else {
            assert_eq!(&found, expected, "{what} {}", info.name);
            continue;
        };
        let scale = expected.iter().fold(0.1f32, |scale, g| scale.max(g.abs()));
        for (found, expected) in found.iter().zip(expected) {
            let close = (found - expected).abs() < 1e-5 * scale;
            assert!(close, "{what} {}: {found} {expected}", info.name);
        }
    }
}

/// What SAC's gradient does not follow: for each transition the smaller Q of every action at s, and the
/// part of the critics' goal without log P_B.
struct Held {
    q: Vec<Vec<f64>>,
    goal: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Sac {
    entropy: f64,
    maximise_reward: bool,
    huber: bool,
    learned: bool,
}

impl Sac {
    fn objective(&self) -> String {
        let penalty = if self.huber { "huber" } else { "squared" };
        format!(
            "kind = 'sac'\nentropy = {}\nmaximise_reward = {}\npenalty = '{penalty}'",
            self.entropy, self.maximise_reward
        )
    }

    /// What is held fixed, as it is now.
    fn hold(&self, e: &Experiment, steps: &Transitions) -> Held {
        let smaller = |values: Values, row: &[i32], a: usize| {
            let [first, second] = CRITICS.map(|critic| logits(e, critic, values, row)[a]);
            first.min(second)
        };
        let (mut q, mut goal) = (Vec::new(), Vec::new());
        for t in 0..steps.actions.len() {
            let (from, to) = (steps.from.row(t), steps.to.row(t));
            let legal = log_probs(e, Head::FORWARD, Values::Current, from).into_iter();
            q.push(legal.map(|(a, _)| smaller(Values::Current, from, a)).collect());
            goal.push(steps.log_reward[t].unwrap_or_else(|| {
                let pi = log_probs(e, Head::FORWARD, Values::Current, to).into_iter();
                let gain = |(a, log_pi): (usize, f64)| {
                    log_pi.exp() * (smaller(TARGET, to, a) - self.entropy * log_pi)
                };
                pi.map(gain).sum()
            }));
        }
        Held { q, goal }
    }

    /// The actor's loss and the critics', with what is held.
    fn parts(&self, e: &Experiment, steps: &Transitions, held: &Held) -> (f64, f64) {
        let (mut actor, mut critics) = (0.0, 0.0);
        let m = steps.actions.len();
        for t in 0..m {
            let (from, to) = (steps.from.row(t), steps.to.row(t));
            let pi = log_probs(e, Head::FORWARD, Values::Current, from);
            for ((_, log_pi), q) in pi.into_iter().zip(&held.q[t]) {
                actor += log_pi.exp() * (self.entropy * log_pi - q) / m as f64;
            }
            let step = match self.maximise_reward {
                true => 0.0,
                false => log_pb(e, self.learned, to, steps.back_actions[t]),
            };
            for critic in CRITICS {
                let q = logits(e, critic, Values::Current, from)[steps.actions[t] as usize];
                critics += penalty(self.huber, q - held.goal[t] - step).0 / m as f64;
            }
        }
        (actor, critics)
    }
}

#[test]
fn sac_follows_its_actor_and_its_critics_each_with_the_other_held() {
    let dir = tempfile::tempdir().unwrap();
    let (grid, strings) = (GRID.to_owned(), strings(dir.path()));
    for (world, entropy, maximise_reward, huber, learned, shared, whole) in [
        (&grid, 1.0, false, true, true, false, true),
        (&grid, 1.0, false, false, true, true, false),
        (&grid, 0.6, false, true, false, false, false),
        (&strings, 1.0, false, true, true, false, false),
        (&strings, 1.5, true, false, false, true, true),
    ] {
        let sac = Sac { entropy, maximise_reward, huber, learned };
        let backward = if learned { "naive" } else { "uniform" };
        let mut e = experiment(world, &sac.objective(), backward, shared);
        let (steps, batch) = batch(&e, whole);
        let held = sac.hold(&e, &steps);
        let (actor, critics) = sac.parts(&e, &steps, &held);
        let (loss, _) = e.trainer.gradients(OBJECTIVE, &batch);
        let what = format!("{world}{sac:?}, shared: {shared}, whole: {whole}");
        assert!((loss - actor - critics).abs() < 1e-5 * loss.abs().max(1.0), "{what}: {loss}");

        let compared = slopes(&mut e, loss, &what, |e, group| {
            let (actor, critics) = sac.parts(e, &steps, &held);
            Some(match group {
                "forward" => actor,
                "critic_1" | "critic_2" | "backward" => critics,
                group => {
                    assert_eq!(group, TRUNK);
                    actor + critics
                }
            })
        });
        let compared = compared.unwrap_or_else(|differs| panic!("{differs}"));
        assert_eq!(compared, e.trainer.engine().params().len(), "all that there is learns");
    }
}
