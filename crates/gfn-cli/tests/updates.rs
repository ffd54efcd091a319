//! What an iteration does, by numbers: every step of stochastic gradient descent is taken again by
//! hand, from the gradients of a twin, and must lead to the same parameters and copies.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};
use gfn_core::backward::BACKWARD;
use gfn_core::learn::{Report, Trainer};
use gfn_core::objective::OBJECTIVE;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::sampler::{Draw, Exploration, Sampler};

const SEED: u64 = 5;
const BATCH: usize = 8;
/// Iterations in all; the last ones of a schedule are those of a twin that stops earlier.
const STEPS: u64 = 12;

fn experiment(objective: &str, backward: &str, train: &str) -> Experiment {
    let text = format!(
        "seed = {SEED}\n[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\nkind = 'mlp'\nhidden = 16\nzero_init_backward = false\n\
         [objective]\n{objective}\n[backward]\n{backward}\n\
         [train]\nbatch = {BATCH}\n{train}\n[eval]\nmetrics = []\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap_or_else(|failure| panic!("{}", failure.render()))
}

fn values(trainer: &Trainer) -> Vec<Vec<f32>> {
    (0..trainer.engine().params().len()).map(|i| trainer.engine().value(i)).collect()
}

/// Settings, as a spec has them and as an iteration by hand follows them.
#[derive(Clone, Debug)]
struct Settings {
    strategy: &'static str,
    forward_first: bool,
    kappa: f64,
    backward_lr: Option<f64>,
    backward_decay: f64,
    lr: f64,
    log_z_lr: f64,
    log_z_init: f64,
    shape: &'static str,
    lr_end: f64,
    lr_decay: f64,
    clip: Option<f64>,
    weight_decay: f64,
    epsilon: f64,
    epsilon_end: f64,
    epsilon_shape: &'static str,
}

const PLAIN: Settings = Settings {
    strategy: "tlm",
    forward_first: false,
    kappa: 0.25,
    backward_lr: None,
    backward_decay: 1.0,
    lr: 0.02,
    log_z_lr: 0.1,
    log_z_init: 0.0,
    shape: "constant",
    lr_end: 0.0,
    lr_decay: 1.0,
    clip: None,
    weight_decay: 0.0,
    epsilon: 0.0,
    epsilon_end: 0.0,
    epsilon_shape: "constant",
};

impl Settings {
    fn build(&self, objective: &str) -> Experiment {
        let (kappa, order) = (self.kappa, if self.forward_first { "forward" } else { "backward" });
        let of_pb = format!("target_tau = {kappa}\norder = '{order}_first'");
        let optional = |key: &str, number: Option<f64>| {
            number.map_or(String::new(), |number| format!("{key} = {number}\n"))
        };
        let backward = format!(
            "kind = '{}'\nlr_decay = {}\n{}{}",
            self.strategy,
            self.backward_decay,
            optional("lr", self.backward_lr),
            if self.strategy == "naive" { "" } else { &of_pb }
        );
        let Settings { lr, log_z_lr, log_z_init, shape, lr_end, lr_decay, .. } = self;
        let Settings { weight_decay, epsilon, epsilon_end, epsilon_shape, .. } = self;
        let train = format!(
            "optimizer = 'sgd'\nmomentum = 0\ntrajectories = {}\nlr = {lr}\nlog_z_lr = {log_z_lr}\n\
             log_z_init = {log_z_init}\nlr_schedule = '{shape}'\nlr_end = {lr_end}\n\
             lr_decay = {lr_decay}\nweight_decay = {weight_decay}\nepsilon = {epsilon}\n\
             epsilon_end = {epsilon_end}\nepsilon_schedule = '{epsilon_shape}'\n\
             epsilon_decay = 0.8\n{}",
            STEPS * BATCH as u64,
            optional("clip_norm", self.clip)
        );
        experiment(objective, &backward, &train)
    }

    /// A number on its way from `start` to `end` in all iterations, or down by a factor.
    fn on_its_way(shape: &str, [start, end, factor]: [f64; 3], t: u64) -> f64 {
        let done = t as f64 / STEPS as f64;
        match shape {
            "constant" => start,
            "linear" => start * (1.0 - done) + end * done,
            "cosine" => end + (start - end) * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
            "exponential" => (start * factor.powi(t as i32)).max(end),
            _ => unreachable!(),
        }
    }

    /// The rate of a group of parameters: all have one shape.
    fn rate(&self, group: &str, update: &str, t: u64) -> f64 {
        let shaped = |start: f64| {
            let end = if self.shape == "exponential" { 0.0 } else { start * self.lr_end };
            Self::on_its_way(self.shape, [start, end, self.lr_decay], t)
        };
        match (group, update) {
            ("log_z", _) => shaped(self.log_z_lr),
            ("backward", _) | (_, BACKWARD) => {
                shaped(self.backward_lr.unwrap_or(self.lr)) * self.backward_decay.powi(t as i32)
            }
            _ => shaped(self.lr),
        }
    }

    fn epsilon(&self, t: u64) -> f64 {
        Self::on_its_way(self.epsilon_shape, [self.epsilon, self.epsilon_end, 0.8], t)
    }

    /// One update: θ ← θ − rate (scale g + decay θ). Returns loss and norm.
    fn update(
        &self,
        twin: &mut Trainer,
        name: &str,
        batch: &gfn_core::learn::batch::Batch,
        t: u64,
    ) -> (f64, f64) {
        let (loss, _) = twin.gradients(name, batch);
        let infos = twin.engine().params().to_vec();
        let gradients: Vec<_> = (0..infos.len()).map(|i| twin.engine().gradient(i)).collect();
        let squares = infos.iter().zip(&gradients).filter(|(info, _)| info.group != "log_z");
        let squares = squares.flat_map(|(_, gradient)| gradient.iter().flatten());
        let norm = squares.map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let clipped = self.clip.map_or(1.0, |clip| (clip / norm).min(1.0));
        for (i, (info, gradient)) in infos.iter().zip(gradients).enumerate() {
            let Some(gradient) = gradient else { continue };
            let rate = self.rate(&info.group, name, t);
            let exempt = info.group == "log_z";
            let (scale, decay) = if exempt { (1.0, 0.0) } else { (clipped, self.weight_decay) };
            let here = twin.engine().value(i);
            let stepped = here.iter().zip(gradient).map(|(value, g)| {
                let value = f64::from(*value);
                (value - rate * (scale * f64::from(g) + decay * value)) as f32
            });
            let stepped = stepped.collect();
            twin.engine_mut().set_value(i, stepped);
        }
        (loss, norm)
    }

    /// An iteration. Returns what the trainer should report.
    fn iteration(&self, twin: &mut Experiment, t: u64) -> Report {
        let draw = Draw { streams: Streams::new(SEED), purpose: Purpose::Rollout, step: t };
        let exploration = Exploration { epsilon: self.epsilon(t), temperature: 1.0 };
        let policy = twin.trainer.policy();
        let mut drawn = Sampler::default().forward(&*twin.env, &policy, exploration, draw, BATCH);
        drawn.log_reward = vec![0.0; BATCH];
        twin.reward.log_reward(&drawn.terminals(), &mut drawn.log_reward).unwrap();
        let twin = &mut twin.trainer;
        let batch = twin.batch_of(&drawn);
        let (mut main, mut own) = (None, None);
        let order = if self.forward_first { [OBJECTIVE, BACKWARD] } else { [BACKWARD, OBJECTIVE] };
        for name in order {
            if name == OBJECTIVE {
                main = Some(self.update(twin, name, &batch, t));
            } else if self.strategy != "naive" {
                own = Some(self.update(twin, name, &batch, t));
                self.follow(twin);
            }
        }
        Report {
            step: t,
            loss: main.map(|(loss, _)| loss),
            backward_loss: own.map(|(loss, _)| loss),
            grad_norm: main.map(|(_, norm)| norm),
            lr: Some(self.rate("forward", OBJECTIVE, t)),
            backward_lr: Some(self.rate("backward", BACKWARD, t)),
            epsilon: Some(self.epsilon(t)),
        }
    }

    /// The copy of P_B, right after P_B's update.
    fn follow(&self, twin: &mut Trainer) {
        if self.kappa == 1.0 {
            return;
        }
        let copied = twin.engine().copied("backward_target");
        let moved = copied.iter().zip(values(twin)).map(|(copied, current)| {
            let one = |(copied, current): (&f32, f32)| {
                let (copied, current) = (f64::from(*copied), f64::from(current));
                ((1.0 - self.kappa) * copied + self.kappa * current) as f32
            };
            copied.iter().zip(current).map(one).collect()
        });
        let moved = moved.collect();
        twin.engine_mut().set_copy("backward_target", moved);
    }

    /// Trains and takes the same iterations by hand.
    fn check(&self, objective: &str) -> Vec<Report> {
        let what = format!("{objective} {self:?}");
        let (mut real, mut twin) = (self.build(objective), self.build(objective));
        let mut reports = Vec::new();
        for t in 0..STEPS {
            let report = real.trainer.step().unwrap();
            let expected = self.iteration(&mut twin, t);
            let numbers = |report: &Report| {
                let Report { loss, backward_loss, grad_norm, .. } = *report;
                let rates = [report.lr, report.backward_lr, report.epsilon].map(Option::unwrap);
                let main = [loss, backward_loss, grad_norm].map(|number| number.unwrap_or(-1.0));
                [main, rates].concat()
            };
            for (found, expected) in numbers(&report).iter().zip(numbers(&expected)) {
                let close = (found - expected).abs() <= 1e-5 * expected.abs();
                assert!(close, "{what}: {report:?} {expected:?}");
            }
            let mut pairs = vec![(values(&real.trainer), values(&twin.trainer))];
            if self.strategy != "naive" && self.kappa < 1.0 {
                let [a, b] = [&real, &twin].map(|e| e.trainer.engine().copied("backward_target"));
                pairs.push((a, b));
            }
            for (found, expected) in pairs {
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let close = (found - expected).abs() < 2e-6 * expected.abs().max(1.0);
                    assert!(close, "{what}: {found} {expected} at {t}");
                }
            }
            reports.push(report);
        }
        reports
    }
}

/// Whether two runs of reports differ in their losses.
fn differ(a: &[Report], b: &[Report]) -> bool {
    a.iter().zip(b).any(|(a, b)| (a.loss.unwrap() - b.loss.unwrap()).abs() > 1e-4)
}

#[test]
fn order_and_copies_are_as_they_say() {
    for objective in ["kind = 'tb'", "kind = 'db'"] {
        let orders = [false, true].map(|forward_first| {
            let kappas = [0.25, 0.9, 1.0];
            kappas.map(|kappa| Settings { forward_first, kappa, ..PLAIN }.check(objective))
        });
        for (i, backward_first) in orders[0].iter().enumerate() {
            assert!(differ(backward_first, &orders[1][i]), "{objective}: the order matters");
        }
        assert!(differ(&orders[0][0], &orders[0][1]), "{objective}: so does kappa");
        assert!(differ(&orders[0][1], &orders[0][2]), "{objective}: so does kappa");
    }
}

#[test]
fn rates_follow_one_schedule() {
    for strategy in ["tlm", "naive"] {
        for (shape, lr_end, lr_decay) in
            [("linear", 0.1, 1.0), ("cosine", 0.0, 1.0), ("exponential", 0.0, 0.7)]
        {
            let shaped = Settings { strategy, shape, lr_end, lr_decay, ..PLAIN };
            for (backward_lr, backward_decay) in [(None, 0.8), (Some(0.05), 1.0), (Some(0.01), 0.9)]
            {
                let reports =
                    Settings { backward_lr, backward_decay, ..shaped.clone() }.check("kind = 'tb'");
                assert!(reports[11].lr.unwrap() < 0.3 * reports[0].lr.unwrap(), "{shape}");
            }
        }
    }
}

/// What stands in a spec and what is left out mean the same where they are the same.
#[test]
fn a_rate_that_is_written_out_is_the_same_rate() {
    for strategy in ["tlm", "pessimistic", "learned_maxent", "naive"] {
        for backward_decay in [1.0, 0.9] {
            let left_out = Settings { strategy, shape: "cosine", backward_decay, ..PLAIN };
            let written = Settings { backward_lr: Some(PLAIN.lr), ..left_out.clone() };
            let [a, b] = [left_out, written].map(|settings| {
                let mut trainer = settings.build("kind = 'tb'").trainer;
                for _ in 0..STEPS {
                    trainer.step().unwrap();
                }
                trainer.snapshot()
            });
            assert_eq!(a, b, "{strategy}");
        }
    }
}

#[test]
fn clipping_and_decay_leave_log_z_alone() {
    let far = Settings { log_z_init: -30.0, log_z_lr: 0.02, lr: 0.002, ..PLAIN };
    for (clip, weight_decay) in [(Some(0.5), 0.0), (None, 0.3), (Some(0.5), 0.3), (Some(1e6), 0.0)]
    {
        for strategy in ["tlm", "naive"] {
            let settings = Settings { strategy, clip, weight_decay, ..far.clone() };
            let mut fresh = settings.build("kind = 'tb'").trainer;
            assert_eq!(fresh.log_z(), Some(-30.0));
            let clips = settings.check("kind = 'tb'");
            assert!(clips.iter().all(|report| report.grad_norm.unwrap() > 0.5), "{clips:?}");
        }
    }
}

#[test]
fn exploration_follows_its_schedule() {
    let mut runs = Vec::new();
    for (epsilon_shape, epsilon, epsilon_end) in [
        ("constant", 0.0, 0.0),
        ("constant", 0.9, 0.0),
        ("linear", 0.9, 0.0),
        ("cosine", 0.9, 0.1),
        ("exponential", 0.9, 0.3),
    ] {
        let settings = Settings { epsilon_shape, epsilon, epsilon_end, ..PLAIN };
        runs.push(settings.check("kind = 'tb'"));
    }
    assert!(differ(&runs[0], &runs[1]) && differ(&runs[1], &runs[2]), "it changes what is drawn");
    assert_eq!(runs[4][11].epsilon, Some(0.3), "the floor of an exponential schedule");
}

/// copy ← (1 − κ) copy + κ current at the end of every iteration, or the current values now and
/// then; and as many updates as are asked for, from the iteration on that is asked for.
#[test]
fn the_target_of_soft_q_learning_follows() {
    let small = "kind = 'soft_dqn'\nstart = 3\nupdates = 2\nreplay_batch = 16";
    for (rule, kappa, every) in
        [("target_tau = 0.3", 0.3, 1), ("target_every = 4", 1.0, 4), ("target_tau = 1", 1.0, 1)]
    {
        let objective = format!("{small}\n{rule}");
        let mut trainer = experiment(&objective, "kind = 'uniform'", "lr = 0.01").trainer;
        for t in 0..12u64 {
            let (copied, before) = (trainer.engine().copied("target"), values(&trainer));
            let report = trainer.step().unwrap();
            let steps = if t < 3 { 0 } else { 2 * (t - 2) };
            assert_eq!(trainer.counters().grad_steps, steps, "{rule} {t}");
            assert_eq!(report.loss.is_some(), t >= 3);
            assert_eq!(before != values(&trainer), t >= 3);
            let kappa = if (t + 1).is_multiple_of(every) { kappa } else { 0.0 };
            // Nothing moves before the start, the copy included: it equals what it follows.
            let expected = copied.iter().flatten().zip(values(&trainer).into_iter().flatten());
            let expected: Vec<f64> = expected
                .map(|(copied, now)| (1.0 - kappa) * f64::from(*copied) + kappa * f64::from(now))
                .collect();
            for (found, expected) in
                trainer.engine().copied("target").iter().flatten().zip(expected)
            {
                assert!((f64::from(*found) - expected).abs() < 1e-7, "{rule} {t}");
            }
        }
    }
}

/// Of the last batches every one is drawn as often: where nothing moves, P_B's loss tells which.
#[test]
fn past_batches_are_drawn_uniformly() {
    const KEPT: usize = 4;
    let backward = format!("kind = 'pessimistic'\nbatches = {KEPT}");
    let train = "optimizer = 'sgd'\nlr = 1e-12\nlog_z_lr = 1e-12\nepsilon = 0.5";
    let mut e = experiment("kind = 'tb'", &backward, train);
    let (mut losses, mut ages) = (Vec::new(), [0usize; KEPT]);
    for t in 0..600 {
        let draw = Draw { streams: Streams::new(SEED), purpose: Purpose::Rollout, step: t };
        let exploration = Exploration { epsilon: 0.5, temperature: 1.0 };
        let policy = e.trainer.policy();
        let mut drawn = Sampler::default().forward(&*e.env, &policy, exploration, draw, BATCH);
        drawn.log_reward = vec![0.0; BATCH];
        let batch = e.trainer.batch_of(&drawn);
        losses.push(e.trainer.gradients(BACKWARD, &batch).0);
        let found = e.trainer.step().unwrap().backward_loss.unwrap();
        let kept = losses.iter().rev().take(KEPT);
        let same: Vec<usize> = kept
            .enumerate()
            .filter(|(_, loss)| (*loss - found).abs() < 1e-9)
            .map(|x| x.0)
            .collect();
        assert!(!same.is_empty(), "iteration {t}: {found} is of none of the last batches");
        if t >= KEPT as u64 && same.len() == 1 {
            ages[same[0]] += 1;
        }
    }
    let total: usize = ages.iter().sum();
    assert!(total > 550, "hardly ever two batches alike: {ages:?}");
    // chi^2 with 3 degrees of freedom is below 16.3 with probability 0.999.
    let mean = total as f64 / KEPT as f64;
    let chi2: f64 = ages.iter().map(|&n| (n as f64 - mean).powi(2) / mean).sum();
    assert!(chi2 < 16.3, "{ages:?}");
}

/// Draws from a buffer belong to their iteration: the same bytes, whatever was drawn in between.
#[test]
fn replayed_draws_are_addressed() {
    let run = |evaluated: bool| {
        let objective = "kind = 'soft_dqn'\nstart = 1\nupdates = 3\nreplay_capacity = 40\n\
                         replay_batch = 8";
        let mut trainer = experiment(objective, "kind = 'tlm'", "epsilon = 0.2").trainer;
        for _ in 0..10 {
            trainer.step().unwrap();
            if evaluated {
                trainer.evaluate().unwrap();
            }
        }
        trainer.snapshot()
    };
    assert_eq!(run(false), run(true));
}
