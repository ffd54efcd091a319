//! An engine as the policy that samplers and exact evaluation ask for logits.

use super::engine::{Ask, Engine, Values};
use super::head::Head;
use super::view::PbSource;
use crate::backward::BackwardStrategy;
use crate::policy::{Direction, Policy};
use crate::{Environment, States};

/// P_F of the network, and the P_B that the objective reads.
#[derive(Clone, Copy)]
pub struct EnginePolicy<'a> {
    engine: &'a dyn Engine,
    backward: &'a dyn BackwardStrategy,
    record: Option<usize>,
}

impl<'a> EnginePolicy<'a> {
    /// A policy of the current values, and of a copy for P_B if the strategy reads one.
    pub fn new(engine: &'a dyn Engine, backward: &'a dyn BackwardStrategy) -> Self {
        Self { engine, backward, record: None }
    }

    /// The same for a part of a rollout, which lets the engine keep what it computes.
    pub(super) fn recording(self, part: usize) -> Self {
        Self { record: Some(part), ..self }
    }
}

impl Policy for EnginePolicy<'_> {
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
        let (head, values) = match (direction, self.backward.source()) {
            (Direction::Forward, _) => (Head::FORWARD, Values::Current),
            (Direction::Backward, PbSource::Trained) => (Head::BACKWARD, Values::Current),
            (Direction::Backward, PbSource::Frozen(values)) => (Head::BACKWARD, values),
            (Direction::Backward, PbSource::Fixed) => {
                let mut legal = vec![false; env.space().n_back_actions];
                for (row, out) in states.rows().zip(out.chunks_exact_mut(legal.len())) {
                    env.legal_back(row, &mut legal);
                    self.backward.fixed_logits(env, row, &legal, out);
                }
                return;
            }
        };
        self.engine.logits(Ask { values, head, record: self.record }, env, states, out);
    }
}
