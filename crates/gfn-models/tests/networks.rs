//! Every kind of block, slot and relation that a space can have: both engines give the same numbers and
//! gradients, and these are the slopes of the numbers.

use std::sync::Arc;

use gfn_core::learn::engine::{ActionsTaken, Engine, Readout, Rows, Upstream, Values};
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::learn::{EngineKind, TrainSettings};
use gfn_core::registry::Kind;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::space::{At, Scope};
use gfn_core::{Block, Direction, Environment, NO_TOKEN, Space, States};
use gfn_models::layers::LayerList;
use gfn_models::mlp::MlpSpec;
use gfn_models::network::NetworkContext;
use gfn_models::transformer::{NormPlace, TransformerSpec};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// States are their observations. Actions are legal wherever their blocks allow.
struct Observed(Space);

impl Environment for Observed {
    fn space(&self) -> &Space {
        &self.0
    }
    fn reset(&self, row: &mut [i32]) {
        row.fill(NO_TOKEN);
    }
    fn legal(&self, row: &[i32], mask: &mut [bool]) {
        legal(&self.0, row, Direction::Forward, mask);
    }
    fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
        legal(&self.0, row, Direction::Backward, mask);
    }
    fn step(&self, _: &mut [i32], _: usize) -> usize {
        unreachable!("nobody walks here")
    }
    fn unstep(&self, _: &mut [i32], _: usize) -> usize {
        unreachable!("nobody walks here")
    }
    fn observe(&self, row: &[i32], cells: &mut [i32]) {
        cells.copy_from_slice(row);
    }
    fn render(&self, row: &[i32]) -> String {
        format!("{row:?}")
    }
}

fn legal(space: &Space, row: &[i32], direction: Direction, mask: &mut [bool]) {
    let mut places = Vec::new();
    for block in space.blocks(direction) {
        for place in 0..space.places(block.scope) {
            let allowed = match block.scope {
                Scope::Whole | Scope::Unordered | Scope::Slot(At::Any) => true,
                Scope::Slot(at) => {
                    let n = space.features.len();
                    let empty = row[place * n..][..n].iter().all(|&value| value == NO_TOKEN);
                    empty == (at == At::Empty)
                }
                Scope::Ordered => place / space.slots != place % space.slots,
            };
            places.extend(std::iter::repeat_n(allowed, block.size));
        }
    }
    mask.copy_from_slice(&places);
}

fn spaces() -> Vec<(&'static str, Space)> {
    let words = Space::new(4, 4)
        .named_slots(4, &[3])
        .forward(&[Block::slot("fill", At::Empty, 3), Block::stop()])
        .backward(&[Block::slot("clear", At::Filled, 1), Block::whole("go_on", 1)]);
    let graph = Space::new(16, 12)
        .named_slots(4, &[])
        .related(1, true)
        .forward(&[Block::ordered("add", 1), Block::stop()])
        .backward(&[Block::ordered("remove", 1), Block::whole("go_on", 1)]);
    // Slots that are alike, with two features; bonds of two kinds; several blocks per scope.
    let pieces = Space::new(12 + 15, 9)
        .alike_slots(6, &[3, 2])
        .related(2, false)
        .forward(&[
            Block::stop(),
            Block::whole("add", 3),
            Block::slot("mark", At::Filled, 2),
            Block::slot("place", At::Empty, 1),
            Block::unordered("bond", 2),
        ])
        .backward(&[Block::slot("take", At::Any, 1), Block::unordered("cut", 1)]);
    // Relations without actions on pairs, and the other way round.
    let seen = Space::new(3 + 9, 3)
        .named_slots(3, &[2])
        .related(2, true)
        .forward(&[Block::whole("any", 4)])
        .backward(&[Block::slot("any", At::Any, 2)]);
    let blind = Space::new(4, 3)
        .alike_slots(4, &[2])
        .forward(&[Block::ordered("link", 2)])
        .backward(&[Block::unordered("part", 3)]);
    vec![("words", words), ("graph", graph), ("pieces", pieces), ("seen", seen), ("blind", blind)]
}

fn rng() -> ChaCha8Rng {
    Streams::new(3).get(Purpose::Test, 0)
}

/// Random observations; some of them empty.
fn states(space: &Space, n: usize, rng: &mut ChaCha8Rng) -> States {
    let mut states = States::with_capacity(space.width, n);
    for _ in 0..n {
        let mut row: Vec<i32> = (0..space.n_cells())
            .map(|cell| rng.random_range(-1..space.values_of(cell) as i32))
            .collect();
        for slot in 0..space.slots {
            // The features of a slot, and a slot's relation to itself, are there or not.
            if rng.random_bool(0.3) {
                let features = space.features.len();
                row[slot * features..][..features].fill(NO_TOKEN);
            }
            if let Some(cell) = space.pair_cell(slot, slot) {
                row[cell] = NO_TOKEN;
            }
        }
        states.push(&row);
    }
    states
}

type Build = Box<dyn Fn(NetworkContext) -> Box<LayerList>>;

fn networks(stops: bool) -> Vec<(String, Build)> {
    let mut networks: Vec<(String, Build)> = Vec::new();
    for hierarchical_stop in if stops { vec![false, true] } else { vec![false] } {
        for (norm, layers, dropout) in [
            (NormPlace::Post, 1, 0.0),
            (NormPlace::Post, 2, 0.0),
            (NormPlace::Pre, 1, 0.2),
            (NormPlace::Pre, 3, 0.0),
            (NormPlace::Post, 3, 0.2),
        ] {
            let spec = TransformerSpec {
                width: 12,
                layers,
                heads: 3,
                feed_forward: 10,
                norm,
                dropout,
                zero_init_backward: false,
                hierarchical_stop,
            };
            let name = format!("{norm:?} {layers} {dropout} {hierarchical_stop}");
            networks.push((name, Box::new(move |context| spec.build(context).unwrap())));
        }
        for shared in [true, false] {
            let (hidden, layers, zero_init_backward) = (12, 2, false);
            let spec = MlpSpec { hidden, layers, shared, zero_init_backward, hierarchical_stop };
            let name = format!("mlp {shared} {hierarchical_stop}");
            networks.push((name, Box::new(move |context| spec.build(context).unwrap())));
        }
    }
    networks
}

const HEADS: [Head; 4] =
    [Head::FORWARD, Head::BACKWARD, Head::FLOW, Head::actions("other", Direction::Forward)];

/// A choice at every state, twice at some.
fn choices(env: &Observed, states: &States, head: Head, rng: &mut ChaCha8Rng) -> ActionsTaken {
    let direction = match head.name {
        "backward" => Direction::Backward,
        _ => Direction::Forward,
    };
    let mut mask = vec![false; env.0.n_actions_in(direction)];
    let mut taken = ActionsTaken::with_capacity(mask.len(), states.len());
    for (i, row) in states.rows().enumerate() {
        env.legal_in(direction, row, &mut mask);
        for _ in 0..1 + i % 2 {
            // Some of the legal actions, and one of them.
            let some: Vec<bool> = mask.iter().map(|&l| l && rng.random_bool(0.8)).collect();
            let legal: Vec<usize> = (0..some.len()).filter(|&action| some[action]).collect();
            if !legal.is_empty() {
                let action = legal[rng.random_range(0..legal.len() as u32) as usize];
                taken.push(i as u32, &some, action as u32);
            }
        }
    }
    taken
}

/// What is read of an evaluation, and the derivatives of a number that is linear in it.
struct Case {
    env: Observed,
    rows: Rows,
    reads: Vec<(Head, Readout, Vec<f64>)>,
}

impl Case {
    fn new(space: &Space, n: usize) -> Self {
        let (env, mut rng) = (Observed(space.clone()), rng());
        let states = states(space, n, &mut rng);
        let mut reads = Vec::new();
        for head in HEADS {
            let readouts = match head.name {
                "flow" => vec![(Readout::Scalar, n)],
                name => {
                    let of = Arc::new(choices(&env, &states, head, &mut rng));
                    let m = of.len();
                    let mut readouts = vec![(Readout::LogProb(of.clone()), m)];
                    if name == "other" {
                        readouts.push((Readout::Taken(of.clone()), m));
                        readouts.push((Readout::LogSumExp(of), m));
                    }
                    readouts
                }
            };
            for (readout, m) in readouts {
                let derivatives = (0..m).map(|_| rng.random_range(-1.0..1.0)).collect();
                reads.push((head, readout, derivatives));
            }
        }
        Self { env, rows: Rows::new(states), reads }
    }

    /// All that is read; the gradient of its sum, weighted by the derivatives.
    fn run(&self, engine: &mut dyn Engine) -> (Vec<f64>, Vec<Vec<f32>>) {
        let dropout = engine.drops().then_some(77);
        let pass = engine.evaluate(&self.env, &self.rows, &HEADS, Values::Current, dropout);
        let (mut numbers, mut upstream) = (Vec::new(), Vec::new());
        for (head, readout, derivatives) in &self.reads {
            numbers.extend(engine.read(pass, *head, readout));
            let (head, readout) = (*head, readout.clone());
            upstream.push(Upstream { pass, head, readout, derivatives: derivatives.clone() });
        }
        let groups: Vec<&str> = HEADS.iter().map(|head| head.name).chain([TRUNK]).collect();
        engine.gradients(upstream, &[], &groups);
        let n = engine.params().len();
        (numbers, (0..n).map(|i| engine.gradient(i).expect("of a group")).collect())
    }

    fn total(&self, numbers: &[f64]) -> f64 {
        let derivatives = self.reads.iter().flat_map(|(.., derivatives)| derivatives);
        numbers.iter().zip(derivatives).map(|(x, d)| x * d).sum()
    }
}

fn engine(build: &Build, space: &Space, kind: &str) -> Box<dyn Engine> {
    let context = NetworkContext::new(space, &HEADS);
    let of = if kind == "native" { EngineKind::Native } else { EngineKind::Burn };
    let settings = TrainSettings { engine: of, ..TrainSettings::default() };
    let device = gfn_models::device::open("flex").unwrap();
    let mut rng = Streams::new(5).get(Purpose::Init, 0);
    let network = build(context.clone());
    let engine = gfn_models::engine::new(network, context, &HEADS, &settings, &device, &mut rng);
    assert_eq!(engine.name(), kind);
    engine
}

#[test]
fn engines_agree() {
    for (name, space) in spaces() {
        for (network, build) in networks(space.stop().is_some()) {
            // Enough states for several chunks and parts, and few.
            for n in [90, 5] {
                let case = Case::new(&space, n);
                let [native, burn] =
                    ["native", "burn"].map(|kind| case.run(&mut *engine(&build, &space, kind)));
                let what = format!("{name}, {network}, {n} states");
                for (a, b) in native.0.iter().zip(&burn.0) {
                    assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{what}: {a} against {b}");
                }
                let size = burn.1.iter().flatten().fold(0.1f32, |size, g| size.max(g.abs()));
                for (i, (a, b)) in native.1.iter().zip(&burn.1).enumerate() {
                    for (a, b) in a.iter().zip(b) {
                        assert!((a - b).abs() < 2e-5 * size, "{what}, parameter {i}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_are_slopes() {
    const H: f32 = 4e-3;
    for (name, space) in spaces() {
        for (network, build) in networks(space.stop().is_some()) {
            let case = Case::new(&space, 6);
            let mut engine = engine(&build, &space, "native");
            let (_, gradients) = case.run(&mut *engine);
            let size = gradients.iter().flatten().fold(1f32, |size, g| size.max(g.abs()));
            let (mut checked, mut off) = (0, 0);
            for (i, gradient) in gradients.iter().enumerate() {
                let before = engine.value(i);
                // Some entries of every parameter.
                for k in (0..before.len()).step_by(before.len() / 6 + 1) {
                    let mut at = |h: f32| {
                        let mut moved = before.clone();
                        moved[k] += h;
                        engine.set_value(i, moved);
                        case.total(&case.run(&mut *engine).0)
                    };
                    let slope = (at(H) - at(-H)) / f64::from(2.0 * H);
                    checked += 1;
                    // Rectifiers have edges: a few differences reach across one.
                    off += usize::from((slope as f32 - gradient[k]).abs() > 0.01 * size);
                }
                engine.set_value(i, before);
            }
            assert!(off * 50 <= checked, "{name}, {network}: {off} of {checked}");
            assert!(checked > 30, "{name}, {network}");
        }
    }
}

/// What slots are called does not matter where they are alike: permuted observations have permuted
/// numbers.
#[test]
fn alike_slots_are_alike() {
    let (_, space) = spaces().swap_remove(2);
    let case = Case::new(&space, 4);
    let order = [3, 0, 5, 1, 4, 2];
    let mut permuted = States::new(space.width);
    for row in case.rows.states.rows() {
        let mut new = row.to_vec();
        for (i, &from) in order.iter().enumerate() {
            new[2 * i..2 * i + 2].copy_from_slice(&row[2 * from..2 * from + 2]);
            for (j, &other) in order.iter().enumerate().filter(|&(j, _)| j > i) {
                let cell = |a, b| space.pair_cell(a, b).unwrap();
                new[cell(i, j)] = row[cell(from, other)];
            }
        }
        permuted.push(&new);
    }
    let (_, build) = networks(false).swap_remove(1);
    let engine = engine(&build, &space, "native");
    let numbers = |states: &States| {
        let ask = gfn_core::learn::engine::Ask {
            values: Values::Current,
            head: Head::FORWARD,
            record: None,
        };
        let mut out = vec![0.0; states.len() * space.n_actions];
        engine.logits(ask, &case.env, states, &mut out);
        out
    };
    let (before, after) = (numbers(&case.rows.states), numbers(&permuted));
    let mark = space.first_action(Direction::Forward, "mark").unwrap();
    let bond = space.first_action(Direction::Forward, "bond").unwrap();
    let mut moved = 0.0f32;
    for (before, after) in before.chunks(space.n_actions).zip(after.chunks(space.n_actions)) {
        for action in 0..mark {
            assert!((before[action] - after[action]).abs() < 1e-5);
        }
        for (i, &from) in order.iter().enumerate() {
            let (a, b) = (after[mark + 2 * i], before[mark + 2 * from]);
            assert!((a - b).abs() < 1e-5, "{a} {b}");
            moved = moved.max((after[mark + 2 * i] - before[mark + 2 * i]).abs());
            for (j, &other) in order.iter().enumerate().filter(|&(j, _)| j > i) {
                // The pairs' cells come in the order of their actions.
                let place = |a, b| space.pair_cell(a, b).unwrap() - space.n_slot_cells();
                let (a, b) = (after[bond + 2 * place(i, j)], before[bond + 2 * place(from, other)]);
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
    assert!(moved > 1e-2, "the permutation did something");
}
