//! A model as the policy that samplers and exact evaluation ask for logits.

use std::cell::RefCell;

use crate::backward::{BackwardStrategy, Source};
use crate::model::{Model, Values};
use crate::native::Tape;
use crate::network::{Observations, observe_into};
use crate::policy::{Direction, Policy};
use crate::{Environment, States};

/// P_F of the network, and the P_B that the objective reads (fixed, online or target).
pub struct ModelPolicy<'a> {
    model: &'a Model,
    backward: &'a dyn BackwardStrategy,
    target: Option<&'a Values>,
    ids: RefCell<Vec<i32>>,
    /// Where every evaluation of P_F is kept for the loss, if it is.
    record: Option<RefCell<Tape>>,
}

impl<'a> ModelPolicy<'a> {
    /// A policy of the current parameters, with a target copy for P_B if there is one.
    pub fn new(
        model: &'a Model,
        backward: &'a dyn BackwardStrategy,
        target: Option<&'a Values>,
    ) -> Self {
        Self { model, backward, target, ids: RefCell::default(), record: None }
    }

    /// P_F that keeps what it evaluates on a native tape.
    pub(super) fn recording(
        model: &'a Model,
        backward: &'a dyn BackwardStrategy,
        tape: Tape,
    ) -> Self {
        Self { record: Some(RefCell::new(tape)), ..Self::new(model, backward, None) }
    }

    /// The tape, if one was recorded.
    pub(super) fn into_tape(self) -> Option<Tape> {
        self.record.map(RefCell::into_inner)
    }
}

impl Policy for ModelPolicy<'_> {
    fn logits(
        &self,
        env: &dyn Environment,
        direction: Direction,
        states: &States,
        out: &mut [f32],
    ) {
        if states.is_empty() {
            return;
        }
        let layout = env.layout();
        let copy = match (direction, self.backward.source()) {
            (Direction::Forward, _) => None,
            (Direction::Backward, Source::Fixed) => {
                let mut legal = vec![false; layout.n_back_actions];
                for (row, out) in states.rows().zip(out.chunks_exact_mut(legal.len())) {
                    env.legal_back(row, &mut legal);
                    self.backward.fixed_logits(env, row, &legal, out);
                }
                return;
            }
            (Direction::Backward, Source::Online | Source::Target) => self.target,
        };
        let mut ids = self.ids.borrow_mut();
        observe_into(env, states, &mut ids);
        let (start, n) = match direction {
            Direction::Forward => (0, layout.n_actions),
            Direction::Backward => (layout.n_actions, layout.n_back_actions),
        };
        let mut record = self.record.as_ref().map(RefCell::borrow_mut);
        let mut done = 0;
        let use_rows = |width: usize, rows: &[f32]| {
            let rows = rows.chunks_exact(width);
            let out = &mut out[done..];
            done += rows.len() * n;
            for (out, row) in out.chunks_exact_mut(n).zip(rows) {
                out.copy_from_slice(&row[start..start + n]);
            }
        };
        let (model, n_states) = (self.model, states.len());
        let record = record.as_deref_mut();
        if model.native_rows(copy, direction, &ids, n_states, record, use_rows) {
            return;
        }
        let outputs = self.model.outputs_of(copy, &Observations::new(env, states));
        let logits = match direction {
            Direction::Forward => outputs.forward,
            Direction::Backward => outputs.backward,
        };
        let data = logits.into_data().convert::<f32>();
        out.copy_from_slice(data.as_slice().expect("converted to f32 above"));
    }
}
