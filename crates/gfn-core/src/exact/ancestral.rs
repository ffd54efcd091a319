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
