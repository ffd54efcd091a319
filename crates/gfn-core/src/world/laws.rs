//! The laws of an [`Environment`], as a check for the tests of whoever writes one.

use std::collections::{HashMap, HashSet};

use rand::RngExt;

use super::environment::{BrokenLaw, Environment};
use super::space::{At, Direction, NO_TOKEN, Scope};
use crate::graph::{ExploreError, StateGraph};
use crate::policy::UniformPolicy;
use crate::rng::{Purpose, Streams};

/// Up to so many states [`check`] looks at all of them.
const MOST_STATES: usize = 100_000;

/// Walks whose states are looked at.
const WALKS: u64 = 40;

/// Actions per walk that are taken and undone.
const TRIED: usize = 30_000;

/// Checks all laws: on random walks and, up to 100,000 states, on the whole state graph.
///
/// # Errors
/// The first law that does not hold, with a state where it does not.
pub fn check(env: &dyn Environment) -> Result<(), BrokenLaw> {
    on_walks(env)?;
    match StateGraph::explore(env, MOST_STATES) {
        Ok(graph) => on_graph(env, &graph),
        Err(ExploreError::TooLarge { .. }) => Ok(()),
        Err(ExploreError::Broken(law)) => Err(law),
    }
}

fn ensure(holds: bool, law: &'static str, row: &[i32]) -> Result<(), BrokenLaw> {
    if holds { Ok(()) } else { Err(BrokenLaw { law, row: row.to_vec() }) }
}

/// Legal actions of a state.
fn legal(
    env: &dyn Environment,
    row: &[i32],
    direction: Direction,
) -> Result<Vec<usize>, BrokenLaw> {
    let n = env.space().n_actions_in(direction);
    let [mut mask, mut other] = [true, false].map(|before| vec![before; n]);
    env.legal_in(direction, row, &mut mask);
    env.legal_in(direction, row, &mut other);
    ensure(mask == other, "legal and legal_back write every entry of the mask", row)?;
    Ok((0..n).filter(|&action| mask[action]).collect())
}

fn observe(env: &dyn Environment, row: &[i32]) -> Result<Vec<i32>, BrokenLaw> {
    let n = env.space().n_cells();
    let [mut cells, mut other] = [NO_TOKEN, 0].map(|before| vec![before; n]);
    env.observe(row, &mut cells);
    env.observe(row, &mut other);
    ensure(cells == other, "observe writes every cell, and the same ones each time", row)?;
    Ok(cells)
}

/// Checks the laws on walks by uniform actions from s0 to an object and back again.
///
/// # Errors
/// The first law that does not hold, with a state where it does not.
pub fn on_walks(env: &dyn Environment) -> Result<(), BrokenLaw> {
    let space = env.space();
    let [mut start, mut other] = [9, 0].map(|before| vec![before; space.width]);
    env.reset(&mut start);
    env.reset(&mut other);
    ensure(start == other, "reset writes every cell", &other)?;
    let no_parent = legal(env, &start, Direction::Backward)?.is_empty();
    ensure(no_parent, "s0 has no legal backward action", &start)?;
    let children = legal(env, &start, Direction::Forward)?;
    ensure(!children.is_empty(), "s0 has a legal forward action", &start)?;
    for i in 0..WALKS {
        let mut rng = Streams::new(1).at(Purpose::Test, 0, i);
        let mut rows = vec![start.clone()];
        loop {
            let mut row = rows.last().expect("it starts with one").clone();
            let actions = legal(env, &row, Direction::Forward)?;
            if actions.is_empty() {
                break;
            }
            env.step(&mut row, actions[rng.random_range(0..actions.len())]);
            ensure(!rows.contains(&row), "no state is visited twice on a trajectory", &row)?;
            rows.push(row);
            let law = "a trajectory ends within max_len actions";
            ensure(rows.len() <= space.max_len + 1, law, &rows[rows.len() - 1])?;
        }
        // Every state of short walks with few actions.
        let stride = (rows.len() * space.n_actions).div_ceil(TRIED).max(1);
        for row in rows.iter().skip(i as usize % stride).step_by(stride) {
            at(env, row)?;
        }
        let mut row = rows.pop().expect("it starts with one");
        for n in 0.. {
            let actions = legal(env, &row, Direction::Backward)?;
            if actions.is_empty() {
                break;
            }
            let law = "the way back from an object ends in s0, within max_len actions";
            ensure(n < space.max_len, law, &row)?;
            env.unstep(&mut row, actions[rng.random_range(0..actions.len())]);
        }
        ensure(row == start, "only s0 has no legal backward action", &row)?;
    }
    Ok(())
}

/// Both directions undo each other for every legal action of one state, and what is seen of it is in
/// order.
fn at(env: &dyn Environment, row: &[i32]) -> Result<(), BrokenLaw> {
    let space = env.space();
    let (forward, backward) =
        (legal(env, row, Direction::Forward)?, legal(env, row, Direction::Backward)?);
    for &action in &forward {
        let mut state = row.to_vec();
        let back = env.step(&mut state, action);
        ensure(state != row, "step changes the state", row)?;
        let is_legal = legal(env, &state, Direction::Backward)?.contains(&back);
        ensure(is_legal, "the backward action that step returns is legal where it leads", row)?;
        let redoes = env.unstep(&mut state, back);
        ensure(state == row, "unstep undoes step", row)?;
        let same = redoes == action || !env.edges_are_actions();
        ensure(same, "unstep returns the action that step took", row)?;
    }
    for &back in &backward {
        let mut state = row.to_vec();
        let action = env.unstep(&mut state, back);
        let is_legal = legal(env, &state, Direction::Forward)?.contains(&action);
        ensure(is_legal, "the forward action that unstep returns is legal where it leads", row)?;
        let undoes = env.step(&mut state, action);
        ensure(state == row, "step redoes what unstep has undone", row)?;
        let same = undoes == back || !env.edges_are_actions();
        ensure(same, "step returns the backward action that unstep took", row)?;
    }
    if let Some(ranges) = env.cell_ranges() {
        let inside = ranges.len() == row.len()
            && row.iter().zip(&ranges).all(|(cell, range)| range.contains(cell));
        ensure(inside, "every cell lies in its range of cell_ranges", row)?;
    }
    let cells = observe(env, row)?;
    let valid = |(cell, &value): (usize, &i32)| {
        value == NO_TOKEN || (0..space.values_of(cell) as i32).contains(&value)
    };
    let all_valid = cells.iter().enumerate().all(valid);
    ensure(all_valid, "observed cells hold NO_TOKEN or a value of theirs", row)?;
    for (direction, actions) in [(Direction::Forward, forward), (Direction::Backward, backward)] {
        places_hold(env, row, &cells, direction, &actions)?;
    }
    Ok(())
}

/// Actions are legal only where their blocks say: at slots that are empty or filled, between slots
/// that are two.
fn places_hold(
    env: &dyn Environment,
    row: &[i32],
    cells: &[i32],
    direction: Direction,
    legal: &[usize],
) -> Result<(), BrokenLaw> {
    let space = env.space();
    let mut first = 0;
    for block in space.blocks(direction) {
        let n = space.places(block.scope) * block.size;
        for action in legal.iter().filter(|&&action| (first..first + n).contains(&action)) {
            let place = (action - first) / block.size;
            let holds = match block.scope {
                Scope::Whole | Scope::Slot(At::Any) | Scope::Unordered => true,
                Scope::Slot(at) => {
                    let features = space.features.len();
                    let of_slot = &cells[place * features..][..features];
                    of_slot.iter().all(|&value| value == NO_TOKEN) == (at == At::Empty)
                }
                Scope::Ordered => place / space.slots != place % space.slots,
            };
            ensure(holds, "actions are legal only at places that their block names", row)?;
        }
        first += n;
    }
    Ok(())
}

/// Checks the laws at every state, and those of the graph as a whole.
///
/// # Errors
/// The first law that does not hold, with a state where it does not.
pub fn on_graph(env: &dyn Environment, graph: &StateGraph) -> Result<(), BrokenLaw> {
    let start = graph.states().row(0);
    // Observations tell apart what policies must tell apart.
    let mut seen: HashMap<(Direction, Vec<i32>), Vec<usize>> = HashMap::new();
    let mut n_back = 0;
    for row in graph.states().rows() {
        at(env, row)?;
        for direction in [Direction::Forward, Direction::Backward] {
            let actions = legal(env, row, direction)?;
            n_back += if direction == Direction::Backward { actions.len() } else { 0 };
            if actions.len() > 1 {
                let key = (direction, observe(env, row)?);
                let first = seen.entry(key).or_insert_with(|| actions.clone());
                let law = "states that offer different choices are observed differently";
                ensure(*first == actions, law, row)?;
            }
        }
    }
    let paired = n_back == graph.n_edges() || !env.edges_are_actions();
    ensure(paired, "there are as many backward actions as forward actions in all", start)?;
    symmetries_hold(env, graph)?;

    let objects = graph.objects();
    let mut texts = HashSet::new();
    for row in objects.rows() {
        let text = env.render(row);
        let undone = env.parse(&text).is_none_or(|parsed| parsed == row);
        ensure(undone, "parse undoes render, or knows no objects", row)?;
        ensure(texts.insert(text), "render gives every object a text of its own", row)?;
    }
    let counted = env.n_objects().is_none_or(|n| n == objects.len() as u64);
    ensure(counted, "n_objects is the number of objects", start)?;
    let log_paths = graph.log_paths();
    for (row, counted) in graph.states().rows().zip(log_paths) {
        let right = env.log_paths(row).is_none_or(|log_n| (log_n - counted).abs() < 1e-9);
        ensure(right, "log_paths is the log of the number of ways from s0", row)?;
    }
    let log_pf = graph.log_probs(env, &UniformPolicy, Direction::Forward, 64);
    let total: f64 = graph.terminal_probs(&log_pf).iter().sum();
    ensure((total - 1.0).abs() < 1e-12, "the probabilities of all objects add up to 1", start)
}

/// Between two states, forward and backward actions are in a ratio whose product along a way from s0 is
/// the same for all ways to a state, and what rewards of objects are divided by unless corrected.
fn symmetries_hold(env: &dyn Environment, graph: &StateGraph) -> Result<(), BrokenLaw> {
    let law = "log_symmetry is the log of backward over forward actions, multiplied along any way";
    let mut log_ratios = vec![None; graph.states().len()];
    log_ratios[0] = Some(0.0);
    for i in 0..log_ratios.len() {
        let mut children = HashMap::new();
        for edge in graph.edges(i) {
            *children.entry(edge.child as usize).or_insert(0) += 1;
        }
        let mut children: Vec<(usize, i32)> = children.into_iter().collect();
        children.sort_unstable();
        for (child, n_forward) in children {
            let row = graph.states().row(child);
            let leads_here = |&back: &usize| {
                let mut parent = row.to_vec();
                env.unstep(&mut parent, back);
                parent == graph.states().row(i)
            };
            let back = legal(env, row, Direction::Backward)?;
            let n_back = back.into_iter().filter(leads_here).count();
            let so_far: f64 = log_ratios[i].expect("parents precede children");
            let ratio = so_far + (f64::from(n_forward) / n_back as f64).ln();
            let first = *log_ratios[child].get_or_insert(ratio);
            ensure((ratio - first).abs() < 1e-9, law, row)?;
        }
    }
    for &i in graph.terminals() {
        let log_ratio = log_ratios[i as usize].expect("reached from s0");
        let row = graph.states().row(i as usize);
        ensure((env.log_symmetry(row) + log_ratio).abs() < 1e-9, law, row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::{Block, Space};

    /// Sets of up to two of three things, with one mistake, or none.
    struct Faulty {
        fault: &'static str,
        space: Space,
    }

    const N: usize = 3;

    impl Faulty {
        fn new(fault: &'static str) -> Self {
            let max_len = if fault == "max_len" { 2 } else { 3 };
            let at = if fault == "block" { At::Filled } else { At::Empty };
            let space = Space::new(N + 1, max_len)
                .named_slots(N, &[1])
                .forward(&[Block::slot("add", at, 1), Block::stop()])
                .backward(&[Block::slot("remove", At::Filled, 1), Block::whole("go_on", 1)]);
            Self { fault, space }
        }

        fn has(&self, fault: &str) -> bool {
            self.fault == fault
        }
    }

    fn size(row: &[i32]) -> i32 {
        row[..N].iter().sum()
    }

    impl Environment for Faulty {
        fn space(&self) -> &Space {
            &self.space
        }

        fn reset(&self, row: &mut [i32]) {
            let end = if self.has("reset") { N } else { N + 1 };
            row[..end].fill(0);
        }

        fn legal(&self, row: &[i32], mask: &mut [bool]) {
            for i in 0..N {
                mask[i] = row[N] == 0 && row[i] == 0 && size(row) < 2;
            }
            if !self.has("mask") {
                mask[N] = row[N] == 0;
            }
        }

        fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
            for i in 0..N {
                mask[i] = row[N] == 0 && row[i] == 1;
                // Of two parents one is forgotten.
                mask[i] &= !(self.has("parent") && row[..i].contains(&1));
            }
            mask[N] = row[N] == 1 || self.has("start") && size(row) == 0;
        }

        fn step(&self, row: &mut [i32], action: usize) -> usize {
            row[action] = 1;
            if self.has("back_action") && action == N { 0 } else { action }
        }

        fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
            row[back_action] = 0;
            if self.has("undo") {
                row[..N].fill(0);
            }
            if self.has("redo") && back_action == 0 { 1 } else { back_action }
        }

        fn observe(&self, row: &[i32], cells: &mut [i32]) {
            for (cell, &chosen) in cells.iter_mut().zip(&row[..N]) {
                *cell = if chosen == 1 { 0 } else { NO_TOKEN };
            }
            match self.fault {
                "blind" => cells.fill(NO_TOKEN),
                "values" => cells[0] = 1,
                _ => {}
            }
        }

        fn render(&self, row: &[i32]) -> String {
            let cells = if self.has("render") { &row[..1] } else { &row[..N] };
            format!("{cells:?}")
        }

        fn parse(&self, _: &str) -> Option<Vec<i32>> {
            self.has("parse").then(|| vec![0, 0, 0, 1])
        }

        fn n_objects(&self) -> Option<u64> {
            Some(if self.has("n_objects") { 8 } else { 7 })
        }

        fn log_paths(&self, row: &[i32]) -> Option<f64> {
            let orders = if self.has("log_paths") { 1.0 } else { f64::from(size(row).max(1)) };
            Some(orders.ln())
        }

        fn cell_ranges(&self) -> Option<Vec<Range<i32>>> {
            let end = if self.has("ranges") { 1 } else { 2 };
            Some((0..=N).map(|_| 0..end).collect())
        }

        fn log_symmetry(&self, _: &[i32]) -> f64 {
            f64::from(u8::from(self.has("symmetry")))
        }
    }

    #[test]
    fn every_mistake_is_found_and_named() {
        assert_eq!(check(&Faulty::new("none")), Ok(()));
        for (fault, law) in [
            ("reset", "reset writes every cell"),
            ("mask", "legal and legal_back write every entry of the mask"),
            ("start", "s0 has no legal backward action"),
            ("max_len", "a trajectory ends within max_len actions"),
            ("block", "actions are legal only at places that their block names"),
            ("back_action", "the backward action that step returns is legal where it leads"),
            ("parent", "the backward action that step returns is legal where it leads"),
            ("undo", "unstep undoes step"),
            ("redo", "unstep returns the action that step took"),
            ("values", "observed cells hold NO_TOKEN or a value of theirs"),
            ("ranges", "every cell lies in its range of cell_ranges"),
            ("render", "render gives every object a text of its own"),
            ("parse", "parse undoes render, or knows no objects"),
            ("n_objects", "n_objects is the number of objects"),
            ("log_paths", "log_paths is the log of the number of ways from s0"),
            (
                "symmetry",
                "log_symmetry is the log of backward over forward actions, multiplied along any way",
            ),
        ] {
            let broken = check(&Faulty::new(fault)).expect_err(fault);
            assert_eq!(broken.law, law, "{fault}: {broken}");
        }
    }

    /// An observation in which all slots are empty also breaks what blocks say of them, so the places
    /// of actions are not told here.
    #[test]
    fn choices_must_be_seen() {
        let mut blind = Faulty::new("blind");
        blind.space = Space::new(N + 1, 3)
            .named_slots(N, &[1])
            .forward(&[Block::whole("act", N + 1)])
            .backward(&[Block::whole("undo", N + 1)]);
        let broken = check(&blind).expect_err("blind");
        assert_eq!(broken.law, "states that offer different choices are observed differently");
    }
}
