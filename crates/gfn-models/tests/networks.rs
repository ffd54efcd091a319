//! Every kind of block, slot and relation that a space can have: both engines give the same numbers and
//! gradients, and these are the slopes of the numbers.

use std::sync::Arc;

use gfn_core::learn::engine::{ActionsTaken, Ask, Engine, Readout, Rows, Upstream, Values};
use gfn_core::learn::head::{Head, TRUNK};
use gfn_core::learn::{EngineKind, TrainSettings};
use gfn_core::registry::Kind;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::space::{At, Scope};
use gfn_core::{Block, Direction, Environment, NO_TOKEN, Space, States};
use gfn_models::graph_transformer::{BlockKind, GraphTransformerSpec};
use gfn_models::layers::LayerList;
use gfn_models::mlp::MlpSpec;
use gfn_models::network::NetworkContext;
use gfn_models::transformer::{NormPlace, TransformerSpec};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};

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
    let is_empty = |slot: usize| {
        let n = space.features.len();
        row[slot * n..][..n].iter().all(|&value| value == NO_TOKEN)
    };
    let is_there = |slot: usize| !(space.growing && is_empty(slot));
    let mut legal = Vec::new();
    for block in space.blocks(direction) {
        for place in places(space, block.scope) {
            let allowed = match (block.scope, place) {
                (Scope::Slot(At::Empty), (i, _)) => is_empty(i) && is_there(i),
                (Scope::Slot(At::Filled), (i, _)) => !is_empty(i),
                (Scope::Slot(At::Any), (i, _)) => is_there(i),
                (Scope::Ordered, (i, j)) => i != j && is_there(i) && is_there(j),
                (Scope::Unordered, (i, j)) => is_there(i) && is_there(j),
                (Scope::Whole, _) => true,
            };
            legal.extend(std::iter::repeat_n(allowed, block.size));
        }
    }
    mask.copy_from_slice(&legal);
}

/// The slots of the places of a scope, twice the same one where there is but one.
fn places(space: &Space, scope: Scope) -> Vec<(usize, usize)> {
    let slots = 0..space.slots;
    let pairs = || slots.clone().flat_map(|i| slots.clone().map(move |j| (i, j)));
    match scope {
        Scope::Whole => vec![(0, 0)],
        Scope::Slot(_) => slots.map(|i| (i, i)).collect(),
        Scope::Ordered => pairs().collect(),
        Scope::Unordered => pairs().filter(|(i, j)| i < j).collect(),
    }
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
    // Growing spaces, by a name and with order besides.
    let parts = Space::new(6 + 9, 9)
        .named_slots(3, &[2, 1])
        .related(2, true)
        .growing()
        .forward(&[
            Block::whole("more", 2),
            Block::slot("mark", At::Any, 1),
            Block::ordered("link", 2),
        ])
        .backward(&[Block::slot("take", At::Filled, 2), Block::unordered("cut", 1)]);
    let loose = Space::new(4, 9)
        .alike_slots(4, &[3])
        .growing()
        .forward(&[Block::whole("add", 3), Block::stop()])
        .backward(&[Block::slot("take", At::Any, 1), Block::whole("go_on", 1)]);
    vec![
        ("words", words),
        ("graph", graph),
        ("pieces", pieces),
        ("seen", seen),
        ("blind", blind),
        ("molecules", molecules(5)),
        ("parts", parts),
        ("loose", loose),
    ]
}

/// Molecules of so many atoms at most.
fn molecules(atoms: usize) -> Space {
    Space::new(2 * atoms + atoms * (atoms - 1) / 2, 99)
        .alike_slots(atoms, &[4, 5])
        .related(4, false)
        .with_distances(3)
        .growing()
        .forward(&[
            Block::stop(),
            Block::whole("first_atom", 4),
            Block::slot("add_atom", At::Filled, 4),
            Block::unordered("add_bond", 1),
            Block::unordered("set_order", 2),
        ])
        .backward(&[
            Block::slot("remove_atom", At::Filled, 1),
            Block::unordered("remove_bond", 1),
            Block::unordered("unset_order", 1),
            Block::whole("go_on", 16),
        ])
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
        if space.growing {
            let n = space.features.len();
            let is_there = |slot: usize| row[slot * n..][..n].iter().any(|&x| x != NO_TOKEN);
            let there: Vec<bool> = (0..space.slots).map(is_there).collect();
            for (i, j) in places(space, Scope::Ordered) {
                if let Some(cell) = space.pair_cell(i, j).filter(|_| !(there[i] && there[j])) {
                    row[cell] = NO_TOKEN;
                }
            }
        }
        states.push(&row);
    }
    states
}

type Build = Box<dyn Fn(NetworkContext) -> Box<LayerList>>;

fn networks(space: &Space) -> Vec<(String, Build)> {
    let mut networks: Vec<(String, Build)> = Vec::new();
    for hierarchical_stop in if space.stop().is_some() { vec![false, true] } else { vec![false] } {
        let blocks = [(BlockKind::Attention, 1), (BlockKind::Papers, 1), (BlockKind::Papers, 2)];
        for (block, layers) in blocks {
            if block == BlockKind::Papers && space.relation.is_none() {
                continue;
            }
            let spec = GraphTransformerSpec {
                block,
                width: 12,
                layers,
                heads: 2,
                feed_forward: 10,
                head_hidden: 7,
                zero_init_backward: false,
                hierarchical_stop,
            };
            let name = format!("graph transformer {block:?} {layers} {hierarchical_stop}");
            networks.push((name, Box::new(move |context| spec.build(context).unwrap())));
        }
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
                    let of_all = of.n_legal().sum();
                    let mut readouts = vec![(Readout::LogProb(of.clone()), m)];
                    readouts.push((Readout::LogProbs(of.clone()), of_all));
                    if name == "other" {
                        readouts.push((Readout::Taken(of.clone()), m));
                        readouts.push((Readout::Numbers(of.clone()), of_all));
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
        for (network, build) in networks(&space) {
            // Enough states for several chunks and parts, and few.
            for n in [90, 5] {
                let case = Case::new(&space, n);
                let [native, burn] =
                    ["native", "burn"].map(|kind| case.run(&mut *engine(&build, &space, kind)));
                let what = format!("{name}, {network}, {n} states");
                assert_eq!(native.0.len(), burn.0.len(), "{what}");
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
    // Rectifiers have edges: a few differences reach across one, fewer the smaller one.
    const STEPS: [f32; 3] = [4e-3, 1e-3, 3e-4];
    for (name, space) in spaces() {
        for (network, build) in networks(&space) {
            let case = Case::new(&space, 6);
            let mut engine = engine(&build, &space, "native");
            let (_, gradients) = case.run(&mut *engine);
            let size = gradients.iter().flatten().fold(1f32, |size, g| size.max(g.abs()));
            let (mut checked, mut off) = (0, 0);
            for (i, gradient) in gradients.iter().enumerate() {
                let before = engine.value(i);
                // Some entries of every parameter.
                for k in (0..before.len()).step_by(before.len() / 6 + 1) {
                    let mut at = |by: f32| {
                        let mut moved = before.clone();
                        moved[k] += by;
                        engine.set_value(i, moved);
                        case.total(&case.run(&mut *engine).0)
                    };
                    checked += 1;
                    let mut is_off = |h: f32| {
                        let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
                        (slope as f32 - gradient[k]).abs() > 0.01 * size
                    };
                    off += usize::from(STEPS.into_iter().all(&mut is_off));
                }
                engine.set_value(i, before);
            }
            assert!(off * 50 <= checked, "{name}, {network}: {off} of {checked}");
            assert!(checked > 30, "{name}, {network}");
        }
    }
}

/// The numbers of a head for all actions of some states.
fn numbers(engine: &dyn Engine, space: &Space, head: Head, states: &States) -> Vec<f32> {
    let ask = Ask { values: Values::Current, head, record: None };
    let direction = if head == Head::BACKWARD { Direction::Backward } else { Direction::Forward };
    let mut out = vec![0.0; states.len() * space.n_actions_in(direction)];
    engine.logits(ask, &Observed(space.clone()), states, &mut out);
    out
}

/// Checks that numbers of a state in one space, in `before`, are those of the state in another one,
/// `after`, where slot `slots[i]` of the one is slot i of the other; says how many differ by name.
fn check_same(
    what: &str,
    direction: Direction,
    (before, old): (&[f32], &Space),
    (after, new): (&[f32], &Space),
    slots: &[usize],
) -> usize {
    let (mut old_start, mut new_start, mut moved) = (0, 0, 0);
    for &Block { name, size, scope } in old.blocks(direction) {
        let old_places = places(old, scope);
        for (place, (i, j)) in places(new, scope).into_iter().enumerate() {
            if i.max(j) >= slots.len() {
                continue;
            }
            let (mut from, mut to) = (slots[i], slots[j]);
            match scope {
                Scope::Whole => (from, to) = (0, 0),
                Scope::Unordered => (from, to) = (from.min(to), from.max(to)),
                // Nobody reads the pair of a slot with itself.
                Scope::Ordered if i == j => continue,
                _ => {}
            }
            let other = old_places.iter().position(|&place| place == (from, to)).unwrap();
            for c in 0..size {
                let a = after[new_start + place * size + c];
                let b = before[old_start + other * size + c];
                assert!((a - b).abs() < 2e-5, "{what}, {} {i} {j}: {a} {b}", name);
                let same = before.get(old_start + place * size + c);
                moved += usize::from(same.is_some_and(|same| (same - a).abs() > 1e-3));
            }
        }
        old_start += old_places.len() * size;
        new_start += places(new, scope).len() * size;
    }
    moved
}

/// Networks whose parameters do not depend on the number of slots.
fn by_token(space: &Space) -> impl Iterator<Item = (String, Build)> {
    networks(space).into_iter().filter(|(name, _)| !name.contains("mlp"))
}

/// What slots are called does not matter where they are alike: permuted observations have permuted
/// numbers.
#[test]
fn alike_slots_are_alike() {
    for (name, space) in spaces().into_iter().filter(|(_, space)| !space.named) {
        let before = states(&space, 4, &mut rng());
        let order: Vec<usize> = (0..space.slots).map(|i| (i * 3 + 2) % space.slots).collect();
        let order = if space.slots % 3 == 0 { vec![3, 0, 5, 1, 4, 2] } else { order };
        let n = space.features.len();
        let mut after = States::new(space.width);
        for row in before.rows() {
            let mut new = row.to_vec();
            for (i, &from) in order.iter().enumerate() {
                new[n * i..n * i + n].copy_from_slice(&row[n * from..n * from + n]);
                for (j, &other) in order.iter().enumerate().filter(|&(j, _)| j > i) {
                    let Some(cell) = space.pair_cell(i, j) else { continue };
                    new[cell] = row[space.pair_cell(from, other).unwrap()];
                }
            }
            after.push(&new);
        }
        let networks: Vec<_> = by_token(&space).collect();
        let engines = ["native", "burn"].map(|kind| networks.iter().map(move |of| (of, kind)));
        for ((network, build), kind) in engines.into_iter().flatten() {
            let engine = engine(build, &space, kind);
            let mut moved = 0;
            for (head, direction) in
                [(Head::FORWARD, Direction::Forward), (Head::BACKWARD, Direction::Backward)]
            {
                let of = |states| numbers(&*engine, &space, head, states);
                let size = space.n_actions_in(direction);
                for (before, after) in of(&before).chunks(size).zip(of(&after).chunks(size)) {
                    let what = format!("{name}, {network}, {kind}");
                    let (before, after) = ((before, &space), (after, &space));
                    moved += check_same(&what, direction, before, after, &order);
                }
            }
            assert!(moved > 0, "{name}, {network}: the permutation did something");
        }
    }
}

/// All atoms of a ring of six are alike; which of them lie opposite is known by their distance alone.
#[test]
fn distance_tells_pairs_of_a_ring_apart() {
    let space = molecules(6);
    let mut ring = vec![NO_TOKEN; space.width];
    ring[..12].fill(0);
    for (i, j) in places(&space, Scope::Unordered) {
        // One kind of edge, then the first two distances after all four kinds.
        let apart = (j - i).min(6 + i - j) as i32;
        ring[space.pair_cell(i, j).unwrap()] = if apart == 1 { 0 } else { 2 + apart };
    }
    let mut states = States::new(space.width);
    states.push(&ring);
    let spec = GraphTransformerSpec { width: 12, heads: 2, ..Default::default() };
    let build: Build = Box::new(move |context| spec.build(context).unwrap());
    let first = space.first_action(Direction::Forward, "add_bond").unwrap();
    for kind in ["native", "burn"] {
        let engine = engine(&build, &space, kind);
        let numbers = numbers(&*engine, &space, Head::FORWARD, &states);
        let bond = |i: usize, j: usize| numbers[first + space.unordered_place(i, j)];
        for (i, j) in [(1, 3), (0, 4), (3, 5)] {
            assert!((bond(0, 2) - bond(i, j)).abs() < 1e-5, "{kind}: {i}, {j}");
        }
        assert!((bond(0, 2) - bond(0, 3)).abs() > 1e-3, "{kind}: opposite atoms are told apart");
    }
}

/// Slots that are not there do not matter: with more of them, before, between and after those that are,
/// all numbers are the same, and those of the absent ones are 0.
#[test]
fn absent_slots_are_not_there() {
    let (space, larger) = (molecules(4), molecules(7));
    let few = states(&space, 9, &mut rng());
    let (n, places_of) = (space.features.len(), [1, 2, 4, 6]);
    let mut many = States::new(larger.width);
    for row in few.rows() {
        let mut new = vec![NO_TOKEN; larger.width];
        for (i, &at) in places_of.iter().enumerate() {
            new[n * at..n * at + n].copy_from_slice(&row[n * i..n * i + n]);
            for (j, &other) in places_of.iter().enumerate().filter(|&(j, _)| j > i) {
                new[larger.pair_cell(at, other).unwrap()] = row[space.pair_cell(i, j).unwrap()];
            }
        }
        many.push(&new);
    }
    for ((network, few_build), (_, many_build)) in by_token(&space).zip(by_token(&larger)) {
        for kind in ["native", "burn"] {
            let small = engine(&few_build, &space, kind);
            let large = engine(&many_build, &larger, kind);
            for (head, direction) in
                [(Head::FORWARD, Direction::Forward), (Head::BACKWARD, Direction::Backward)]
            {
                let few = numbers(&*small, &space, head, &few);
                let all = numbers(&*large, &larger, head, &many);
                let mut mask = vec![false; larger.n_actions_in(direction)];
                let few = few.chunks(space.n_actions_in(direction));
                for ((few, all), row) in few.zip(all.chunks(mask.len())).zip(many.rows()) {
                    let what = format!("{network}, {kind}");
                    check_same(&what, direction, (all, &larger), (few, &space), &places_of);
                    legal(&larger, row, direction, &mut mask);
                    // Deciding to stop first takes the norm of the others off all.
                    if !network.ends_with("true") {
                        for (x, _) in all.iter().zip(&mask).filter(|(_, legal)| !**legal) {
                            assert_eq!(*x, 0.0, "{what}: a number of a slot that is not there");
                        }
                    }
                }
            }
        }
    }
}

/// The papers' network gives what `scripts/reference/graph_transformer.py` computes from the papers'
/// parameters with lists of edges, and has the parameters that the script turns these into.
#[test]
fn the_papers_network_is_theirs() {
    let file = include_bytes!("data/graph_transformer.safetensors");
    let file = SafeTensors::deserialize(file).unwrap();
    let numbers_of = |name: &str| -> (Vec<f32>, Vec<usize>) {
        let tensor = file.tensor(name).unwrap();
        let (numbers, rest) = tensor.data().as_chunks::<4>();
        assert!(rest.is_empty());
        let number = |&bytes: &[u8; 4]| match tensor.dtype() {
            Dtype::I32 => i32::from_le_bytes(bytes) as f32,
            _ => f32::from_le_bytes(bytes),
        };
        (numbers.iter().map(number).collect(), tensor.shape().to_vec())
    };
    let space = molecules(5);
    let mut states = States::new(space.width);
    for row in numbers_of("states").0.chunks(space.width) {
        states.push(&row.iter().map(|&x| x as i32).collect::<Vec<_>>());
    }
    let spec = GraphTransformerSpec {
        block: BlockKind::Papers,
        width: 8,
        layers: 2,
        heads: 2,
        feed_forward: 12,
        head_hidden: 6,
        zero_init_backward: false,
        hierarchical_stop: false,
    };
    let build: Build = Box::new(move |context| spec.build(context).unwrap());
    let rows = Rows::new(states);
    for kind in ["native", "burn"] {
        let mut engine = engine(&build, &space, kind);
        let parameters = engine.params().to_vec();
        let given = file.names().into_iter().filter(|name| name.starts_with("parameter."));
        // The network has one more head, which nothing is said of.
        let others = parameters.iter().filter(|info| info.group == "other").count();
        assert_eq!(given.count(), parameters.len() - others);
        for (i, info) in parameters.iter().enumerate().filter(|(_, info)| info.group != "other") {
            let (values, shape) = numbers_of(&format!("parameter.{}", info.name));
            assert_eq!(shape, info.shape, "{}", info.name);
            engine.set_value(i, values);
        }
        let env = Observed(space.clone());
        let pass = engine.evaluate(&env, &rows, &HEADS, Values::Current, None);
        let check = |head: &str, given: &[f64], reference: &[f32]| {
            assert_eq!(given.len(), reference.len());
            for (i, (x, reference)) in given.iter().zip(reference).enumerate() {
                let close = (x - f64::from(*reference)).abs() < 1e-4;
                assert!(close, "{kind}, {head} {i}: {x} against {reference}");
            }
        };
        check("flow", &engine.read(pass, Head::FLOW, &Readout::Scalar), &numbers_of("flow").0);
        for head in [Head::FORWARD, Head::BACKWARD] {
            let given = numbers(&*engine, &space, head, &rows.states);
            let given: Vec<f64> = given.into_iter().map(f64::from).collect();
            check(head.name, &given, &numbers_of(head.name).0);
        }
    }
}
