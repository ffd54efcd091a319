//! Numbers of ways to build a tree.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gfn_core::Environment;
use gfn_core::special::log_sum_exp;

use super::tree::{MAX_FRAGMENTS, OPEN, Tree};
use super::{FragmentWorld, Version};

/// States whose numbers are remembered; when there are more, all are forgotten.
const REMEMBERED: usize = 1_000_000;

/// log of the number of ways from s0 by states, where equivalent actions are one: by recursion, down to trees
/// in which no symmetry exchanges fragments.
#[derive(Clone, Debug, Default)]
pub(super) struct PathCounts(Arc<Mutex<HashMap<Box<[i32]>, f64>>>);

impl PathCounts {
    fn known(&self, row: &[i32]) -> Option<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(row).copied()
    }

    pub(super) fn of(&self, world: &FragmentWorld, row: &[i32]) -> f64 {
        let tree = world.tree(row);
        if !may_have_twins(&tree) {
            return of_labelled(&tree, world.spec.version == Version::Stems);
        }
        if let Some(known) = self.known(row) {
            return known;
        }
        let mut mask = vec![false; world.space().n_back_actions];
        world.legal_back(row, &mut mask);
        let mut parent = row.to_vec();
        let ways = (0..mask.len()).filter(|&action| mask[action]).map(|action| {
            parent.copy_from_slice(row);
            world.unstep(&mut parent, action);
            self.of(world, &parent)
        });
        let ways: Vec<f64> = ways.collect();
        let log_n = if ways.is_empty() { 0.0 } else { log_sum_exp(ways.iter().copied()) };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(row.into(), log_n);
        log_n
    }
}

/// Whether a symmetry can exchange fragments in what a tree is built from: it keeps one of them or an edge where
/// it is, and so exchanges some next to each other or next to a third one.
fn may_have_twins(tree: &Tree) -> bool {
    (0..tree.n).any(|v| {
        let mut seen = [tree.fragments[v]; MAX_FRAGMENTS + 1];
        let mut n = 1;
        tree.neighbours(v).any(|w| {
            let fragment = tree.fragments[w];
            seen[n] = fragment;
            n += 1;
            seen[..n - 1].contains(&fragment)
        })
    })
}

/// log of the number of sequences of actions to a tree whose fragments have names. From a first fragment,
/// each comes after the one that it is joined to, and attachments are chosen after that, one by one: orders
/// of a forest of events, of which there are N! / Π (events from each one on).
pub(super) fn of_labelled(tree: &Tree, stems: bool) -> f64 {
    /// Events of the part at u seen from a fragment before it, itself included, and Σ log of these
    /// numbers over the part.
    fn events(tree: &Tree, stems: bool, u: usize, from: Option<usize>) -> (f64, f64) {
        let sides = |v: usize| [tree.sides[u][v], tree.sides[v][u]];
        let chosen = |v: usize| sides(v).iter().filter(|&&side| side != OPEN).count();
        let attachments = if stems { from.map_or(0, chosen) } else { 0 };
        let (mut n, mut log_product) = (1.0 + attachments as f64, 0.0);
        for w in tree.neighbours(u).filter(|&w| Some(w) != from) {
            let (of_part, log_of_part) = events(tree, stems, w, Some(u));
            n += of_part;
            log_product += log_of_part;
        }
        (n, log_product + n.ln())
    }
    let log_factorial = |n: f64| (2..=n as u32).map(|k| f64::from(k).ln()).sum::<f64>();
    let from_root = |root: usize| {
        let (n, log_product) = events(tree, stems, root, None);
        log_factorial(n) - log_product
    };
    if tree.n == 0 { 0.0 } else { log_sum_exp((0..tree.n).map(from_root)) }
}
