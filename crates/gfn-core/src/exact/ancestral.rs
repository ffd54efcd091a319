//! The part of a state graph that given objects are built through: P_T of each of them is exact there, as
//! all ways to it are.

use rayon::prelude::*;

use super::graph::{Edge, StateGraph};
use crate::ancestors::Ancestors;
use crate::{BrokenLaw, Environment};

impl StateGraph {
    /// The states of `ancestors`, and all edges among them. Its terminals are the objects that were added.
    ///
    /// Memory: 4 bytes for every cell of a state's row, some 20 for the state, and 12 per edge.
    ///
    /// # Errors
    /// When a state cannot be reached, or reaches itself.
    pub fn of_ancestors(
        env: &dyn Environment,
        mut ancestors: Ancestors,
    ) -> Result<Self, BrokenLaw> {
        ancestors.forget();
        let (first_edge, edges) = match env.edges_are_actions() {
            true => undone(&ancestors),
            false => forward(env, &ancestors),
        };
        let mut is_reached = vec![false; ancestors.states().len()];
        is_reached[0] = true;
        edges.iter().for_each(|edge| is_reached[edge.child as usize] = true);
        if let Some(lost) = is_reached.iter().position(|is_reached| !is_reached) {
            let law = "backward actions end in s0, and forward actions lead back from there";
            return Err(BrokenLaw { law, row: ancestors.states().row(lost).to_vec() });
        }
        let (states, index) = ancestors.into_states();
        Self::sorted(states, index, &first_edge, &edges)
    }
}

/// Edges by their parents, and where those of each begin: the backward actions, seen from the other end.
fn undone(ancestors: &Ancestors) -> (Vec<u32>, Vec<Edge>) {
    let n = ancestors.states().len();
    let ways = || {
        let of = |child| ancestors.ways_back(child).iter().map(move |way| (child, way));
        (0..n).flat_map(of)
    };
    let mut first = vec![0u32; n + 1];
    ways().for_each(|(_, way)| first[way.parent as usize + 1] += 1);
    for i in 0..n {
        first[i + 1] += first[i];
    }
    let mut next = first.clone();
    let mut edges = vec![Edge { child: 0, action: 0, back_action: 0 }; first[n] as usize];
    for (child, way) in ways() {
        let place = &mut next[way.parent as usize];
        edges[*place as usize] =
            Edge { child: child as u32, action: way.action, back_action: way.back_action };
        *place += 1;
    }
    (first, edges)
}

/// The same where a backward action may undo several actions, or several undo one: all actions that stay
/// among the ancestors.
fn forward(env: &dyn Environment, ancestors: &Ancestors) -> (Vec<u32>, Vec<Edge>) {
    let states = ancestors.states();
    let scratch = || (vec![false; env.space().n_actions], vec![0; states.width()]);
    let of = |(mask, row): &mut (Vec<bool>, Vec<i32>), parent: usize| -> Vec<Edge> {
        env.legal(states.row(parent), mask);
        let mut edge = |action: usize| {
            row.copy_from_slice(states.row(parent));
            let back_action = env.step(row, action) as u32;
            let child = ancestors.find(row)?;
            Some(Edge { child, action: action as u32, back_action })
        };
        (0..mask.len()).filter(|&action| mask[action]).filter_map(&mut edge).collect()
    };
    let of_each: Vec<Vec<Edge>> = (0..states.len()).into_par_iter().map_init(scratch, of).collect();
    let mut first = vec![0];
    first.extend(of_each.iter().scan(0, |sum, edges| {
        *sum += edges.len() as u32;
        Some(*sum)
    }));
    (first, of_each.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::testing::{Balls, Edges};
    use crate::{Direction, Policy, States};

    /// Logits that differ between all states and actions, those that a symmetry exchanges included.
    struct Uneven;

    impl Policy for Uneven {
        fn logits(&self, _: &dyn Environment, _: Direction, states: &States, out: &mut [f32]) {
            let n = out.len() / states.len();
            for (row, out) in states.rows().zip(out.chunks_exact_mut(n)) {
                let sum = row.iter().fold(1, |sum, &cell| 3 * sum + cell) as f32;
                let of = |action: usize| 1.5 * (sum + 0.7 * action as f32).sin();
                out.iter_mut().enumerate().for_each(|(action, logit)| *logit = of(action));
            }
        }
    }

    fn log_probs(env: &dyn Environment, graph: &StateGraph) -> Vec<f64> {
        graph.log_terminal_probs(&graph.log_probs(env, &Uneven, Direction::Forward, 10))
    }

    /// Each object by itself, where an action back stands for several to the same state, and some of its
    /// parents' actions lead elsewhere.
    #[test]
    fn symmetric_ways_are_all_there() {
        let env = Balls::new(4, 7);
        let whole = StateGraph::explore(&env, 1000).unwrap();
        for (object, expected) in whole.objects().rows().zip(log_probs(&env, &whole)) {
            let ancestors = Ancestors::of(&env, object, 1000).unwrap();
            let part = StateGraph::of_ancestors(&env, ancestors).unwrap();
            assert_eq!((part.terminals().len(), part.find_object(object)), (1, Some(0)));
            let got = log_probs(&env, &part)[0];
            assert!((got - expected).abs() < 1e-12, "{object:?}: {got} {expected}");
        }
    }

    /// Two edges between the same states count twice.
    #[test]
    fn parallel_edges_are_all_there() {
        let edges = vec![(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (2, 4), (3, 5), (3, 4)];
        let env = Edges::new(6, edges);
        let whole = StateGraph::explore(&env, 10).unwrap();
        let part = Ancestors::of(&env, &[4], 10).unwrap();
        let part = StateGraph::of_ancestors(&env, part).unwrap();
        assert_eq!((part.states().len(), part.n_edges()), (5, 7));
        let expected = log_probs(&env, &whole)[whole.find_object(&[4]).unwrap()];
        assert!((log_probs(&env, &part)[0] - expected).abs() < 1e-12);
    }

    #[test]
    fn cycles_and_dead_ends_are_named() {
        for (edges, law, row) in [
            // On a cycle, or behind one.
            (vec![(0, 1), (1, 2), (2, 1), (2, 3)], "no state is reached from itself", 3),
            (vec![(0, 3), (1, 2), (2, 3)], "backward actions end in s0", 1),
        ] {
            let env = Edges::new(4, edges);
            let ancestors = Ancestors::of(&env, &[3], 10).unwrap();
            let broken = StateGraph::of_ancestors(&env, ancestors).unwrap_err();
            assert!(broken.law.starts_with(law) && broken.row == [row], "{broken}");
        }
    }
}
