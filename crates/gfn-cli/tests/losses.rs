//! The value of every loss against its equation, computed by plain loops from what the network says
//! of one state at a time, on exploratory trajectories.

mod network;

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::backward::BACKWARD;
use gfn_core::learn::batch::{Batch, Transitions};
use gfn_core::learn::engine::Values;
use gfn_core::learn::head::Head;
use gfn_core::learn::view::PbSource;
use gfn_core::objective::OBJECTIVE;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};
use gfn_core::{Environment, Trajectories};
use network::{GRID, log_norm, log_prob, log_sum_exp, logits, mask, one, scalar, strings};

const MODELS: [&str; 3] = [
    "kind = 'mlp'\nhidden = 16\nzero_init_backward = false",
    "kind = 'mlp'\nhidden = 16\nzero_init_backward = false\nshared = false",
    "kind = 'transformer'\nwidth = 12\nheads = 2\nlayers = 2\nfeed_forward = 8\n\
     zero_init_backward = false",
];

/// After some iterations: copies differ from the values that are trained.
fn trained(world: &str, model: &str, objective: &str, backward: &str, train: &str) -> Experiment {
    let text = format!(
        "{world}[model]\n{model}\n[objective]\n{objective}\n[backward]\n{backward}\n\
         [train]\nlr = 0.005\nbatch = 8\n{train}\n[eval]\nmetrics = []\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    let mut experiment = Experiment::build(&registry, &spec).unwrap();
    for _ in 0..4 {
        experiment.trainer.step().unwrap();
    }
    experiment
}

fn sample(experiment: &Experiment, n: usize) -> Trajectories {
    let draw = Draw { streams: Streams::new(3), purpose: Purpose::Test, step: 0 };
    let exploration = Exploration { epsilon: 0.3, temperature: 1.0 };
    let policy = experiment.trainer.policy();
    let mut drawn = Sampler::default().forward(&*experiment.env, &policy, exploration, draw, n);
    drawn.log_reward = vec![0.0; n];
    experiment.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
    drawn
}

/// What is known of a transition s → s'; numbers that no loss reads are NaN.
#[derive(Clone, Debug)]
struct Step {
    log_pf: f64,
    /// As the objective reads it.
    log_pb: f64,
    /// As the network has it now.
    own_log_pb: f64,
    /// The network's logits at s instead of s'.
    log_pb_at_parent: f64,
    flow: f64,
    next_flow: f64,
    inflow: f64,
    /// log n(s), log n(s').
    paths: [f64; 2],
    logit: f64,
    target_log_pf: f64,
    target_next: f64,
    /// log R of s and of s' as if they were finished, and log P_F(stop | s), log P_F(stop | s'), the
    /// latter also of the target copy.
    along: [f64; 2],
    stop: [f64; 2],
    target_stop: f64,
    /// log R(s') where that is terminal.
    end: Option<f64>,
}

struct Facts {
    trajectories: Vec<Vec<Step>>,
    log_z: f64,
}

impl Facts {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.trajectories.iter().flatten()
    }

    fn mean_of_steps(&self, f: impl Fn(&Step) -> f64) -> f64 {
        self.steps().map(f).sum::<f64>() / self.steps().count() as f64
    }

    /// The mean over trajectories of a function of Σ log P_F − Σ log P_B − log R.
    fn mean_of_ratios(&self, min: f64, f: impl Fn(f64) -> f64) -> f64 {
        let ratio = |steps: &Vec<Step>| {
            let sum: f64 = steps.iter().map(|step| step.log_pf - step.log_pb).sum();
            f(sum - steps.last().unwrap().end.unwrap().max(min))
        };
        self.trajectories.iter().map(ratio).sum::<f64>() / self.trajectories.len() as f64
    }
}

/// The number of paths from s0.
fn n_paths(env: &dyn Environment, row: &[i32]) -> f64 {
    let legal = mask(env, Head::BACKWARD, row);
    let parents = (0..legal.len()).filter(|&back| legal[back]).map(|back| {
        let mut parent = row.to_vec();
        env.unstep(&mut parent, back);
        n_paths(env, &parent)
    });
    if legal.contains(&true) { parents.sum() } else { 1.0 }
}

/// log Σ F(s) P_F(s'|s) over the parents of s'.
fn inflow(e: &mut Experiment, child: &[i32]) -> f64 {
    let legal = mask(&*e.env, Head::BACKWARD, child);
    let mut terms = Vec::new();
    for back in (0..legal.len()).filter(|&back| legal[back]) {
        let mut parent = child.to_vec();
        let action = e.env.unstep(&mut parent, back) as u32;
        let log_pf = log_prob(e, Head::FORWARD, Values::Current, &parent, action);
        terms.push(scalar(e, Head::FLOW, Values::Current, &parent) + log_pf);
    }
    log_sum_exp(terms.into_iter())
}

/// log R of a state as if it were finished there; NaN where no action finishes it.
fn finished(e: &Experiment, row: &[i32]) -> f64 {
    let Some(stop) = e.env.space().stop() else { return f64::NAN };
    let mut row = row.to_vec();
    if mask(&*e.env, Head::FORWARD, &row)[stop] {
        e.env.step(&mut row, stop);
    }
    let mut log_reward = [0.0];
    e.reward.log_reward(&one(&row), &mut log_reward).unwrap();
    log_reward[0]
}

fn log_pf_of_stop(e: &Experiment, values: Values, row: &[i32]) -> f64 {
    match e.env.space().stop() {
        Some(stop) if mask(&*e.env, Head::FORWARD, row)[stop] => {
            log_prob(e, Head::FORWARD, values, row, stop as u32)
        }
        _ => f64::NAN,
    }
}

fn facts(e: &mut Experiment, backward: &str, drawn: &Trajectories) -> Facts {
    let paths = Head::scalar("log_paths");
    let (plan, source) = (&e.trainer.parts().plan, e.trainer.parts().backward.source());
    let has_target = plan.updates[plan.main].update.copy.is_some();
    let mut trajectories = Vec::new();
    for i in 0..drawn.len() {
        let rows = drawn.rows(i);
        let mut steps = Vec::new();
        for (t, at) in drawn.transitions(i).zip(rows.clone()) {
            let (from, to) = (drawn.states.row(at), drawn.states.row(at + 1));
            let (action, back) = (drawn.actions[t], drawn.back_actions[t]);
            let pb = |values| log_prob(e, Head::BACKWARD, values, to, back);
            let legal_back = mask(&*e.env, Head::BACKWARD, to);
            let n_parents = legal_back.iter().filter(|&&legal| legal).count() as f64;
            let log_pb = match source {
                PbSource::Trained => pb(Values::Current),
                PbSource::Frozen(values) => pb(values),
                PbSource::Fixed if backward.contains("uniform") => -n_parents.ln(),
                PbSource::Fixed => (n_paths(&*e.env, from) / n_paths(&*e.env, to)).ln(),
            };
            let (mut own_log_pb, mut log_pb_at_parent) = (f64::NAN, f64::NAN);
            if source != PbSource::Fixed {
                own_log_pb = pb(Values::Current);
                let at_parent = logits(e, Head::BACKWARD, Values::Current, from);
                log_pb_at_parent = at_parent[back as usize] - log_norm(&at_parent, &legal_back);
            }
            let is_last = at + 2 == rows.end;
            let (mut target_log_pf, mut target_next) = (f64::NAN, f64::NAN);
            if has_target {
                let target = Values::Copy("target");
                target_log_pf = log_prob(e, Head::FORWARD, target, from, action);
                let legal = mask(&*e.env, Head::FORWARD, to);
                target_next = log_norm(&logits(e, Head::FORWARD, target, to), &legal);
            }
            // s0 has one path; so have objects with one parent as many as that has.
            let of_from =
                if at == rows.start { 0.0 } else { scalar(e, paths, Values::Current, from) };
            let of_to = if is_last && n_parents == 1.0 {
                of_from
            } else {
                scalar(e, paths, Values::Current, to)
            };
            steps.push(Step {
                log_pf: log_prob(e, Head::FORWARD, Values::Current, from, action),
                log_pb,
                own_log_pb,
                log_pb_at_parent,
                flow: scalar(e, Head::FLOW, Values::Current, from),
                next_flow: if is_last {
                    f64::NAN
                } else {
                    scalar(e, Head::FLOW, Values::Current, to)
                },
                inflow: inflow(e, to),
                paths: [of_from, of_to],
                logit: logits(e, Head::FORWARD, Values::Current, from)[action as usize],
                target_log_pf,
                target_next,
                along: [finished(e, from), finished(e, to)],
                stop: [from, to].map(|row| log_pf_of_stop(e, Values::Current, row)),
                target_stop: match has_target {
                    true => log_pf_of_stop(e, Values::Copy("target"), to),
                    false => f64::NAN,
                },
                end: is_last.then(|| drawn.log_reward[i]),
            });
        }
        trajectories.push(steps);
    }
    let log_z = e.trainer.engine().params().iter().position(|info| info.group == "log_z");
    let log_z = log_z.map_or(f64::NAN, |i| f64::from(e.trainer.engine().value(i)[0]));
    Facts { trajectories, log_z }
}

/// e^x, as a straight line from 10 on.
fn bounded(x: f64) -> f64 {
    if x <= 10.0 { x.exp() } else { 10f64.exp() * (x - 9.0) }
}

fn linex(a: f64, residual: f64) -> f64 {
    (bounded(-a * residual) + a * residual - 1.0) / (a * a)
}

fn huber(knee: f64, residual: f64) -> f64 {
    match residual.abs() {
        small if small <= knee => small * small / 2.0,
        large => knee * large - knee * knee / 2.0,
    }
}

type Penalty = fn(f64) -> f64;
const PENALTIES: [(&str, Penalty); 6] = [
    ("'squared'", |r| r * r),
    ("'huber'", |r| huber(1.0, r)),
    ("{ huber = 0.5 }", |r| huber(0.5, r)),
    ("'linex'", |r| linex(1.0, r)),
    ("{ linex = -1.5 }", |r| linex(-1.5, r)),
    ("'cosh'", |r| bounded(r) + bounded(-r) - 2.0),
];

type Law = Box<dyn Fn(&Facts) -> f64>;

fn balance(penalty: Penalty, min: f64) -> [(&'static str, Law); 3] {
    // log F(s'), which at objects is log R, raised to the clip.
    let after = move |s: &Step| s.end.map_or(s.next_flow, |end| end.max(min));
    let tb = move |f: &Facts| f.mean_of_ratios(min, |ratio| penalty(f.log_z + ratio));
    let db = move |f: &Facts| f.mean_of_steps(|s| penalty(s.flow + s.log_pf - after(s) - s.log_pb));
    let fm = move |f: &Facts| f.mean_of_steps(|s| penalty(s.inflow - after(s)));
    [("tb", Box::new(tb)), ("db", Box::new(db)), ("fm", Box::new(fm))]
}

fn subtb(facts: &Facts, lambda: f64, weighting: &str) -> f64 {
    let mut all = Vec::new();
    for steps in &facts.trajectories {
        let mut within = Vec::new();
        for i in 0..steps.len() {
            for j in i + 1..=steps.len() {
                let part = &steps[i..j];
                let ratio: f64 = part.iter().map(|step| step.log_pf - step.log_pb).sum();
                let last = &part[part.len() - 1];
                let residual = part[0].flow + ratio - last.end.unwrap_or(last.next_flow);
                let geometric = lambda.powi(part.len() as i32 - 1);
                let weight = if weighting.starts_with("equal") { 1.0 } else { geometric };
                within.push((weight, weight * residual * residual));
            }
        }
        all.push(within);
    }
    let mean = |parts: &[(f64, f64)]| {
        parts.iter().map(|part| part.1).sum::<f64>() / parts.iter().map(|part| part.0).sum::<f64>()
    };
    if weighting.ends_with("within") {
        all.iter().map(|within| mean(within)).sum::<f64>() / all.len() as f64
    } else {
        mean(&all.concat())
    }
}

fn soft_dqn(f: &Facts, alpha: f64, l0: f64, leaf: f64, penalty: Penalty) -> f64 {
    let tau = 1.0 / (1.0 - alpha);
    let moved = f.steps().any(|s| (s.target_log_pf - s.log_pf).abs() > 1e-3);
    assert!(moved, "the target is another than the online values");
    let clipped = f.steps().any(|s| tau * s.target_log_pf < l0);
    assert_eq!(clipped, l0 > -10.0, "the clip is active where it is meant to be");
    f.mean_of_steps(|s| {
        let goal = s.log_pb + s.end.unwrap_or(tau * s.target_next);
        let munchausen = alpha * (tau * s.target_log_pf).max(l0);
        let weight = if s.end.is_some() { leaf } else { 1.0 };
        weight * penalty(tau * s.logit - goal - munchausen)
    })
}

fn modified_db(f: &Facts, target: bool, penalty: Penalty) -> f64 {
    let inner: Vec<&Step> = f.steps().filter(|s| s.end.is_none()).collect();
    let residual = |s: &&Step| {
        let next = if target { s.target_stop } else { s.stop[1] };
        penalty(s.along[0] - s.stop[0] + s.log_pf - s.along[1] + next - s.log_pb)
    };
    let moved = inner.iter().any(|s| (s.target_stop - s.stop[1]).abs() > 1e-3);
    assert_eq!(moved, target, "the target is another than the online values");
    inner.iter().map(residual).sum::<f64>() / inner.len() as f64
}

/// The best log Z has a closed form for some penalties: the mean residual for the square, and where
/// the mean of exponentials is 1 for linex.
fn vargrad() -> Vec<(String, Law)> {
    let none = f64::NEG_INFINITY;
    let variance: Law = Box::new(move |f| {
        let mean = f.mean_of_ratios(none, |ratio| ratio);
        f.mean_of_ratios(none, |ratio| (ratio - mean).powi(2))
    });
    let linex: Law = Box::new(move |f| {
        let log_z = f.mean_of_ratios(none, |ratio| (0.5 * -ratio).exp()).ln() / 0.5;
        f.mean_of_ratios(none, |ratio| ratio + log_z) / 0.5
    });
    let cosh: Law = Box::new(move |f| {
        let [up, down] = [1.0, -1.0].map(|sign| f.mean_of_ratios(none, |r| (sign * r).exp()));
        2.0 * (up * down).sqrt() - 2.0
    });
    let huber: Law = Box::new(move |f| {
        let at = |log_z: f64| f.mean_of_ratios(none, |ratio| huber(0.5, ratio + log_z));
        let (mut low, mut high) = (-50.0, 50.0);
        for _ in 0..200 {
            let (a, b) = ((2.0 * low + high) / 3.0, (low + 2.0 * high) / 3.0);
            if at(a) < at(b) { high = b } else { low = a }
        }
        at(low)
    });
    let penalties = ["'squared'", "{ linex = 0.5 }", "'cosh'", "{ huber = 0.5 }"];
    let texts = penalties.map(|penalty| format!("kind = 'vargrad'\npenalty = {penalty}"));
    texts.into_iter().zip([variance, linex, cosh, huber]).collect()
}

fn laws() -> Vec<(String, Law)> {
    let mut laws = vargrad();
    for (text, penalty) in PENALTIES {
        for (min, clip) in [(f64::NEG_INFINITY, ""), (-2.0, "\nlog_reward_min = -2.0")] {
            for (kind, law) in balance(penalty, min) {
                laws.push((format!("kind = '{kind}'\npenalty = {text}{clip}"), law));
            }
        }
    }
    for weighting in ["geometric_within", "geometric", "equal_within", "equal"] {
        for lambda in [0.9, 1.9] {
            let text = format!("kind = 'subtb'\nlambda = {lambda}\nweighting = '{weighting}'");
            laws.push((text, Box::new(move |f| subtb(f, lambda, weighting))));
        }
    }
    for (alpha, l0, leaf, (name, penalty)) in [
        (0.0, -100.0, 1.0, PENALTIES[1]),
        (0.15, -100.0, 5.0, PENALTIES[0]),
        (0.15, -0.8, 0.5, PENALTIES[3]),
    ] {
        let text = format!(
            "kind = 'soft_dqn'\nalpha = {alpha}\nl0 = {l0}\nleaf_coefficient = {leaf}\n\
             penalty = {name}\nstart = 0\nreplay_batch = 20"
        );
        laws.push((text, Box::new(move |f| soft_dqn(f, alpha, l0, leaf, penalty))));
    }
    for (target, every) in [(false, 0), (true, 3)] {
        for (text, penalty) in [PENALTIES[0], PENALTIES[1]] {
            let text = format!("kind = 'mdb'\npenalty = {text}\ntarget_every = {every}");
            laws.push((text, Box::new(move |f| modified_db(f, target, penalty))));
        }
    }
    let forward_looking = |f: &Facts| {
        f.mean_of_steps(|s| {
            let next = s.end.map_or(s.next_flow, |_| 0.0);
            huber(0.5, s.flow + s.along[0] + s.log_pf - next - s.along[1] - s.log_pb)
        })
    };
    laws.push(("kind = 'fl_db'\npenalty = { huber = 0.5 }".to_owned(), Box::new(forward_looking)));
    let cost = |f: &Facts| f.mean_of_ratios(f64::NEG_INFINITY, |ratio| f.log_z + ratio);
    laws.push(("kind = 'pg'".to_owned(), Box::new(cost)));
    laws
}

fn assert_close(value: f64, expected: f64, what: &str) {
    let close = (value - expected).abs() <= 1e-5 * expected.abs().max(0.01);
    assert!(close, "{what}: {value}, by its equation {expected}");
}

/// Whether an objective needs a world where every state can be finished.
fn stops_anywhere(objective: &str) -> bool {
    objective.contains("'mdb'") || objective.contains("'fl_db'")
}

#[test]
fn objectives_equal_their_equations() {
    let dir = tempfile::tempdir().unwrap();
    for world in [GRID, &strings(dir.path())] {
        for (which, engine) in [(0, "native"), (1, "native"), (2, "native"), (0, "burn")] {
            let model = MODELS[which];
            for (i, (objective, law)) in laws().iter().enumerate() {
                // All strategies in turn: a loss knows no more of them than where log P_B is read.
                let all = ["naive", "tlm", "uniform", "maxent", "learned_maxent", "pessimistic"];
                for backward in [all[i % 2], all[2 + i % 4]] {
                    if world != GRID && stops_anywhere(objective) {
                        continue;
                    }
                    let has_no_pb = objective.contains("'fm'") && backward == "naive";
                    let backward = if has_no_pb { "uniform" } else { backward };
                    let backward = &format!("kind = '{backward}'");
                    // Residuals far below 0: exponentials go on as lines.
                    let train = format!("engine = '{engine}'\nlog_z_init = -12");
                    let mut e = trained(world, model, objective, backward, &train);
                    let drawn = sample(&e, 16);
                    let facts = facts(&mut e, backward, &drawn);
                    let batch = e.trainer.batch_of(&drawn);
                    let (value, _) = e.trainer.gradients(OBJECTIVE, &batch);
                    let what = format!("{world}{model}\n{objective}\n{backward} {engine}");
                    assert_close(value, law(&facts), &what);
                }
            }
        }
    }
}

/// What a replay buffer gives: transitions that do not belong together, some of them twice.
#[test]
fn losses_of_single_transitions_equal_their_equations() {
    let dir = tempfile::tempdir().unwrap();
    let of_transitions = |objective: &String| {
        ["db", "fm", "soft_dqn", "mdb", "fl_db"]
            .iter()
            .any(|kind| objective.contains(&format!("'{kind}'")))
    };
    for world in [GRID, &strings(dir.path())] {
        for (objective, law) in laws().iter().filter(|(objective, _)| of_transitions(objective)) {
            if world != GRID && stops_anywhere(objective) {
                continue;
            }
            let fm = objective.contains("'fm'");
            let backward = if fm { "kind = 'uniform'" } else { "kind = 'naive'" };
            let mut e = trained(world, MODELS[0], objective, backward, "");
            let drawn = sample(&e, 16);
            let facts = facts(&mut e, backward, &drawn);
            let mut all = Transitions::new(e.env.space().width);
            let mut rewarded = drawn.clone();
            if stops_anywhere(objective) {
                rewarded.log_reward_along = e.trainer.reward_along(&drawn).unwrap();
            }
            all.extend(&rewarded);
            let (mut some, mut steps) = (Transitions::new(e.env.space().width), Vec::new());
            for i in [7, 0, 3, 2, 15, 7, 11, 5, 19, 4, 4, 12, 1, 9] {
                let (action, back) = (all.actions[i], all.back_actions[i]);
                some.push(all.from.row(i), all.to.row(i), action, back, all.log_reward[i]);
                some.log_reward_along.extend(all.log_reward_along.get(i));
                steps.push(facts.steps().nth(i).unwrap().clone());
            }
            assert!(steps.iter().any(|s| s.end.is_some()) && steps.iter().any(|s| s.end.is_none()));
            let parts = e.trainer.parts();
            let batch = Batch::of_transitions(&*e.env, &parts.pb(), &some);
            let (value, _) = e.trainer.gradients(OBJECTIVE, &batch);
            let facts = Facts { trajectories: vec![steps], log_z: f64::NAN };
            assert_close(value, law(&facts), &format!("{world}{objective}"));
        }
    }
}

/// P_B's own losses, of the values that are trained and not of the copy that objectives read.
#[test]
fn losses_of_p_b_equal_their_equations() {
    let likelihood = |f: &Facts| -> f64 {
        -f.steps().map(|s| s.own_log_pb).sum::<f64>() / f.trajectories.len() as f64
    };
    let mut laws: Vec<(String, Law)> = Vec::new();
    for kind in ["tlm", "pessimistic"] {
        laws.push((format!("kind = '{kind}'\ntarget_tau = 0.25"), Box::new(likelihood)));
    }
    for (text, penalty) in PENALTIES {
        let counts =
            move |f: &Facts| f.mean_of_steps(|s| penalty(s.paths[1] + s.own_log_pb - s.paths[0]));
        laws.push((format!("kind = 'learned_maxent'\npenalty = {text}"), Box::new(counts)));
    }
    let dir = tempfile::tempdir().unwrap();
    for world in [GRID, &strings(dir.path())] {
        for model in MODELS {
            for (backward, law) in &laws {
                let mut e = trained(world, model, "kind = 'tb'", backward, "");
                let drawn = sample(&e, 16);
                let facts = facts(&mut e, backward, &drawn);
                let moved = facts.steps().any(|s| (s.own_log_pb - s.log_pb).abs() > 1e-3);
                let what = format!("{world}{model}\n{backward}");
                assert!(moved, "{what}: the copy is another than what is trained");
                let batch = e.trainer.batch_of(&drawn);
                let (value, _) = e.trainer.gradients(BACKWARD, &batch);
                assert_close(value, law(&facts), &what);
            }
        }
    }
}

/// P_B(s|s') is what the network says of s'; what it says of s is another number.
#[test]
fn p_b_is_read_at_the_child() {
    let dir = tempfile::tempdir().unwrap();
    for world in [GRID, &strings(dir.path())] {
        for model in MODELS {
            let mut e = trained(world, model, "kind = 'tb'", "kind = 'naive'", "");
            let drawn = sample(&e, 16);
            let mut facts = facts(&mut e, "kind = 'naive'", &drawn);
            let law = &balance(|r| r * r, f64::NEG_INFINITY)[0].1;
            let batch = e.trainer.batch_of(&drawn);
            let (value, _) = e.trainer.gradients(OBJECTIVE, &batch);
            assert_close(value, law(&facts), model);
            let apart = facts.steps().map(|s| (s.log_pb - s.log_pb_at_parent).abs());
            assert!(apart.fold(0.0, f64::max) > 1e-2, "{model}");
            facts.trajectories.iter_mut().flatten().for_each(|s| s.log_pb = s.log_pb_at_parent);
            assert!((value - law(&facts)).abs() > 1e-4 * value, "{model}: {value}");
        }
    }
}
