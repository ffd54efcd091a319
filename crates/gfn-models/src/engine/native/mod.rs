//! The engine by hand, for the CPU: no tensors, batches cut into parts, one thread each.
//!
//! Parts depend on the batch alone, so results do not depend on how many threads there are. What a
//! rollout computes is kept for the first loss, as long as it is what that loss would compute again.

mod awake;
mod chain;
mod kernels;
mod largest_first;
mod panels;
mod readout;
mod tape;
mod tokens;
mod transpose;

use std::ops::Range;
use std::sync::Mutex;

use gfn_core::learn::engine::{
    Ask, Engine, NamedTensor, ParamInfo, Pass, Readout, Recording, Rows, Upstream, Values,
    observe_into,
};
use gfn_core::learn::head::Head;
use gfn_core::{Environment, States};
use rayon::prelude::*;

use self::awake::Awake;
use self::tape::sums_of_squares;
use super::{Common, NativeStep};
use crate::dropout::Dropout;
use crate::layers::LayerList;
use crate::stop::into_logits;

pub use kernels::{
    AdamStep, Mat, adam, add, add_bias, add_bias_relu, add_rows, lerp, matmul, relu_gradient,
    scatter_rows, sum_into_bias, sum_rows,
};
pub(in crate::engine) use largest_first::PER_THREAD;
pub use largest_first::largest_first;
pub use panels::{Finish, Panels};
pub use tape::{NativeNetwork, Tape, Weights, backward_by_tape, buffer_for};
pub(in crate::engine) use tokens::{EPSILON, sinusoids};

/// The list of layers by hand, if it is one of those that are: layers on states, or on tokens with
/// attention between them.
pub(super) fn network(list: &LayerList) -> Option<Box<dyn NativeNetwork>> {
    if let Some(chain) = chain::Chain::new(list) {
        return Some(Box::new(chain));
    }
    Some(Box::new(tokens::TokenNetwork::new(list)?))
}

/// A network whose values are host arrays.
pub(super) struct Native {
    network: Box<dyn NativeNetwork>,
    dropout: f32,
    common: Common,
    weights: Weights,
    /// Raised whenever the weights change.
    version: u64,
    copies: Vec<(&'static str, Weights)>,
    /// The gradients of the last loss, and whose they are.
    gradients: Vec<Vec<f32>>,
    in_groups: Vec<bool>,
    /// The tapes of each pass of the loss under construction, by part.
    passes: Vec<Vec<Tape>>,
    /// Tapes to use again.
    spare: Mutex<Vec<Tape>>,
    rollout: Rollout,
    awake: Awake,
}

/// The last rollout.
#[derive(Default)]
struct Rollout {
    id: u64,
    /// That of the weights then.
    version: u64,
    heads: Vec<Head>,
    parts: Vec<Mutex<RolloutPart>>,
}

/// What a part of a rollout writes.
#[derive(Default)]
struct RolloutPart {
    tape: Tape,
    ids: Vec<i32>,
}

/// Into how many parts a rollout of `n` trajectories is cut.
fn parts_of_rollout(n: usize) -> usize {
    match n {
        ..16 => 1,
        16..64 => 2,
        64..256 => 4,
        256..1024 => 8,
        _ => 16,
    }
}

/// Into how many parts `n` states are cut.
fn parts_of_states(n: usize, per_thread: usize) -> usize {
    let mut parts = 1;
    // More parts need more buffers for gradients: their number grows with the root of the work.
    while parts < 16 && n >= 2 * per_thread * parts * parts {
        parts *= 2;
    }
    parts
}

/// Rows that are evaluated at once without a tape, in units of what is worth a thread.
const BLOCKS_PER_THREAD: usize = 64;

impl Native {
    pub(super) fn new(
        network: Box<dyn NativeNetwork>,
        dropout: f32,
        common: Common,
        values: Vec<Vec<f32>>,
    ) -> Self {
        let mut weights = Weights { values, ..Weights::default() };
        network.prepare(&mut weights);
        Self {
            network,
            dropout,
            gradients: weights.values.iter().map(|value| vec![0.0; value.len()]).collect(),
            in_groups: vec![false; common.infos.len()],
            common,
            weights,
            version: 0,
            copies: Vec::new(),
            passes: Vec::new(),
            spare: Mutex::default(),
            rollout: Rollout::default(),
            awake: Awake::default(),
        }
    }

    /// `n` empty tapes.
    fn tapes(&self, n: usize) -> Vec<Tape> {
        let mut spare = self.spare.lock().expect("no thread panics with it");
        let kept = spare.len().saturating_sub(n);
        let mut tapes = spare.split_off(kept);
        tapes.resize_with(n, Tape::default);
        tapes.iter_mut().for_each(Tape::clear);
        tapes
    }

    fn give_back(&self, tapes: Vec<Tape>) {
        self.spare.lock().expect("no thread panics with it").extend(tapes);
    }

    fn weights_of(&self, values: Values) -> &Weights {
        match values {
            Values::Current => &self.weights,
            Values::Copy(name) => {
                let named = self.copies.iter().find(|(other, _)| *other == name);
                &named.expect("updates keep what losses read").1
            }
        }
    }

    fn columns(&self, heads: &[Head]) -> Vec<Range<usize>> {
        heads.iter().map(|&head| self.common.context.columns(head)).collect()
    }

    /// Evaluates `n` states in parts, side by side.
    fn forward(
        &self,
        weights: &Weights,
        ids: &[i32],
        n: usize,
        dropout: Option<Dropout>,
        columns: &[Range<usize>],
    ) -> Vec<Tape> {
        let n_parts = parts_of_states(n, self.network.rows_per_thread());
        let mut tapes = self.tapes(n_parts);
        let n_active = ids.len() / n.max(1);
        tapes.par_iter_mut().enumerate().for_each(|(i, tape)| {
            let (start, end) = (n * i / n_parts, n * (i + 1) / n_parts);
            let ids = &ids[start * n_active..end * n_active];
            tape.dropout = dropout.map(|dropout| dropout.after(start));
            tape.columns.extend_from_slice(columns);
            self.network.forward(weights, ids, end - start, tape);
        });
        tapes
    }

    /// The tapes of the last rollout, if they hold what an evaluation of these rows would give.
    fn recorded(&mut self, rows: &Rows, heads: &[Head]) -> Option<Vec<Tape>> {
        let rollout = &mut self.rollout;
        let same = rows.recording == Some(Recording(rollout.id))
            && rollout.version == self.version
            && heads.iter().all(|head| rollout.heads.contains(head));
        if !same || rollout.parts.is_empty() {
            return None;
        }
        let parts = std::mem::take(&mut rollout.parts).into_iter();
        Some(parts.map(|part| part.into_inner().expect("no thread panics with it").tape).collect())
    }

    fn weights_changed(&mut self) {
        self.network.prepare(&mut self.weights);
        self.version += 1;
    }
}

/// Copies some columns of rows to `out`.
fn copy_columns(out: &mut [f32], rows: &[f32], width: usize, columns: &Range<usize>) {
    for (out, row) in out.chunks_exact_mut(columns.len()).zip(rows.chunks_exact(width)) {
        out.copy_from_slice(&row[columns.clone()]);
    }
}

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn params(&self) -> &[ParamInfo] {
        &self.common.infos
    }

    fn value(&self, i: usize) -> Vec<f32> {
        self.weights.values[i].clone()
    }

    fn set_value(&mut self, i: usize, value: Vec<f32>) {
        assert_eq!(value.len(), self.weights.values[i].len(), "of its shape");
        self.weights.values[i] = value;
        self.weights_changed();
    }

    fn drops(&self) -> bool {
        self.dropout > 0.0
    }

    fn begin_rollout(&mut self, n: usize, heads: &[Head]) -> (usize, Recording) {
        let n_parts = parts_of_rollout(n);
        self.awake.keep(n_parts - 1);
        let old = std::mem::take(&mut self.rollout.parts);
        self.give_back(
            old.into_iter()
                .map(|part| part.into_inner().expect("no thread panics with it").tape)
                .collect(),
        );
        let columns = self.columns(heads);
        let parts = self.tapes(n_parts).into_iter().map(|mut tape| {
            tape.columns.extend_from_slice(&columns);
            Mutex::new(RolloutPart { tape, ids: Vec::new() })
        });
        self.rollout = Rollout {
            id: self.rollout.id + 1,
            version: self.version,
            heads: heads.to_vec(),
            parts: parts.collect(),
        };
        (n_parts, Recording(self.rollout.id))
    }

    fn logits(&self, ask: Ask, env: &dyn Environment, states: &States, out: &mut [f32]) {
        let (weights, width) = (self.weights_of(ask.values), self.network.width());
        let columns = self.common.context.columns(ask.head);
        let (n, stop) = (states.len(), self.common.stop_first_of(ask.head));
        if let Some(part) = ask.record {
            let mut part = self.rollout.parts[part].lock().expect("no thread panics with it");
            let RolloutPart { tape, ids } = &mut *part;
            observe_into(env, states, ids);
            let start = tape.rows;
            self.network.forward(weights, ids, n, tape);
            copy_columns(out, tape.outputs(start, width), width, &columns);
            if let Some(stop) = stop {
                into_logits(env, states, stop, out);
            }
            return;
        }
        let mut ids = Vec::new();
        observe_into(env, states, &mut ids);
        // Activations of many rows at once would take up much memory for nothing.
        let block = BLOCKS_PER_THREAD * self.network.rows_per_thread();
        let n_active = ids.len() / n.max(1);
        let mut rest = &mut out[..];
        for start in (0..n).step_by(block) {
            let end = n.min(start + block);
            let ids = &ids[start * n_active..end * n_active];
            let asked = std::slice::from_ref(&columns);
            let tapes = self.forward(weights, ids, end - start, None, asked);
            for tape in &tapes {
                let (of_tape, others) = rest.split_at_mut(tape.rows * columns.len());
                copy_columns(of_tape, tape.outputs(0, width), width, &columns);
                rest = others;
            }
            self.give_back(tapes);
        }
        if let Some(stop) = stop {
            into_logits(env, states, stop, out);
        }
    }

    fn evaluate(
        &mut self,
        env: &dyn Environment,
        rows: &Rows,
        heads: &[Head],
        values: Values,
        dropout: Option<u64>,
    ) -> Pass {
        let kept = match (values, dropout) {
            (Values::Current, None) => self.recorded(rows, heads),
            _ => None,
        };
        let tapes = kept.unwrap_or_else(|| {
            let dropout = dropout.map(|key| Dropout { rate: self.dropout, key, first_row: 0 });
            let (weights, columns) = (self.weights_of(values), self.columns(heads));
            self.forward(weights, rows.ids(env), rows.states.len(), dropout, &columns)
        });
        self.passes.push(tapes);
        Pass(self.passes.len() - 1)
    }

    fn read(&mut self, pass: Pass, head: Head, readout: &Readout) -> Vec<f64> {
        let columns = self.common.context.columns(head);
        let (width, stop) = (self.network.width(), self.common.stop_first_of(head));
        readout::read(&self.passes[pass.0], width, columns.start, stop, readout)
    }

    fn gradients(
        &mut self,
        mut upstream: Vec<Upstream>,
        parameters: &[(&'static str, f64)],
        groups: &[&str],
    ) -> f64 {
        let width = self.network.width();
        let mut keep = false;
        for (pass, mut tapes) in std::mem::take(&mut self.passes).into_iter().enumerate() {
            let (of_pass, others) = upstream.into_iter().partition(|u| u.pass == Pass(pass));
            upstream = others;
            let of_pass: Vec<Upstream> = of_pass;
            if !of_pass.is_empty() {
                let clear = |tape: &mut Tape| {
                    tape.output_gradient.clear();
                    tape.output_gradient.resize(tape.rows * width, 0.0);
                };
                let n_rows: usize = tapes.iter().map(|tape| tape.rows).sum();
                let worth = (PER_THREAD / (n_rows * width / tapes.len()).max(1)).max(1);
                tapes.par_iter_mut().with_min_len(worth).for_each(clear);
                for Upstream { head, readout, derivatives, .. } in of_pass {
                    let column = self.common.context.columns(head).start;
                    let of = (column, self.common.stop_first_of(head));
                    readout::add_gradient(&mut tapes, width, of, &readout, &derivatives);
                }
                self.network.backward(&self.weights, &mut tapes, keep, &mut self.gradients);
                keep = true;
            }
            self.give_back(tapes);
        }
        if !keep {
            self.gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
        }
        self.in_groups = self.common.in_groups(groups);
        for (i, info) in self.common.infos.iter().enumerate() {
            if self.common.exempt[i] {
                let by_name = parameters.iter().filter(|(name, _)| *name == info.group);
                self.gradients[i][0] = by_name.map(|(_, d)| *d as f32).sum();
            }
        }
        let squares = sums_of_squares(&self.gradients);
        let counts = |i: &usize| self.in_groups[*i] && !self.common.exempt[*i];
        (0..squares.len()).filter(counts).map(|i| squares[i]).sum::<f64>().sqrt()
    }

    fn gradient(&self, i: usize) -> Option<Vec<f32>> {
        self.in_groups[i].then(|| self.gradients[i].clone())
    }

    fn forget(&mut self) {
        for tapes in std::mem::take(&mut self.passes) {
            self.give_back(tapes);
        }
    }

    fn step(&mut self, optimizer: &str, rates: &[(&str, f64)], scale: f64) {
        let Common { infos, exempt, .. } = &self.common;
        let mut steps = Vec::with_capacity(infos.len());
        for (i, value) in self.weights.values.iter_mut().enumerate() {
            let rate = rates.iter().find(|(group, _)| *group == infos[i].group);
            let (Some(&(_, lr)), true) = (rate, self.in_groups[i]) else { continue };
            let (shape, gradient) = (infos[i].shape, &self.gradients[i][..]);
            let scale = if exempt[i] { 1.0 } else { scale as f32 };
            steps.push(NativeStep { i, lr, shape, value, gradient, scale });
        }
        self.common.optimizer(optimizer, true).step_native(steps);
        self.weights_changed();
    }

    fn copy(&mut self, name: &'static str) {
        match self.copies.iter_mut().find(|(other, _)| *other == name) {
            Some((_, copy)) => copy.clone_from(&self.weights),
            None => self.copies.push((name, self.weights.clone())),
        }
    }

    fn move_copy(&mut self, name: &'static str, tau: f64) {
        let named = self.copies.iter_mut().find(|(other, _)| *other == name);
        let copy = &mut named.expect("it was made before").1;
        for (copy, value) in copy.values.iter_mut().zip(&self.weights.values) {
            lerp(copy, value, tau as f32);
        }
        self.network.prepare(copy);
    }

    fn copied(&self, name: &'static str) -> Vec<Vec<f32>> {
        self.weights_of(Values::Copy(name)).values.clone()
    }

    fn set_copy(&mut self, name: &'static str, values: Vec<Vec<f32>>) {
        let mut copy = Weights { values, ..Weights::default() };
        self.network.prepare(&mut copy);
        self.copies.retain(|(other, _)| *other != name);
        self.copies.push((name, copy));
    }

    fn save_optimizer(&self, name: &str) -> Vec<NamedTensor> {
        self.common.save_optimizer(name)
    }

    fn load_optimizer(&mut self, name: &str, state: Vec<NamedTensor>) {
        let (names, device) = (self.common.names(), burn::tensor::Device::flex());
        self.common.optimizer(name, true).load(&names, state, &device);
    }
}
