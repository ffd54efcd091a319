//! Losses on batches: their values, and gradients that stay with the engine.

use std::cell::RefCell;

use super::batch::Batch;
use super::engine::Engine;
use super::expr::{Tape, Var};
use super::view::{BatchView, Computed, Loss, PbSource, Read, Record};
use crate::Environment;

/// What an update has come to.
pub(super) struct Made {
    pub(super) loss: f64,
    /// Of the gradient.
    pub(super) norm: f64,
    /// Of each item, where the loss is a mean over them.
    pub(super) losses: Vec<f64>,
}

/// A model whose losses are computed on batches.
pub(super) struct Differentiated<'a> {
    pub(super) engine: &'a mut dyn Engine,
    pub(super) env: &'a dyn Environment,
    /// What the losses are known to read.
    pub(super) reads: &'a [Read],
    pub(super) pb: PbSource,
}

impl Differentiated<'_> {
    /// Computes a loss, and lets `then` see it and what it has read.
    fn compute<T>(
        &mut self,
        loss: &dyn Loss,
        batch: &Batch,
        dropout: Option<u64>,
        then: impl FnOnce(&mut dyn Engine, &Tape, Record<'_>, Var<'_>) -> T,
    ) -> T {
        let (tape, record) = (Tape::new(), Record::default());
        let source = RefCell::new(Computed {
            engine: &mut *self.engine,
            env: self.env,
            known: self.reads,
            dropout,
            passes: Vec::new(),
        });
        let of = loss.loss(&BatchView::new(batch, &tape, &source, &record, self.pb));
        drop(source);
        then(&mut *self.engine, &tape, record, of)
    }

    /// A loss and its gradient, which stays with the engine.
    pub(super) fn gradients(
        &mut self,
        loss: &dyn Loss,
        batch: &Batch,
        groups: &[&str],
        dropout: Option<u64>,
    ) -> Made {
        self.compute(loss, batch, dropout, |engine, tape, record, loss| {
            let losses = record.losses.take();
            let (upstream, parameters) = record.upstream(tape, loss);
            let norm = engine.gradients(upstream, &parameters, groups);
            Made { loss: loss.number(), norm, losses }
        })
    }

    /// A loss alone.
    pub(super) fn value(&mut self, loss: &dyn Loss, batch: &Batch) -> f64 {
        self.compute(loss, batch, None, |engine, _, _, loss| {
            engine.forget();
            loss.number()
        })
    }
}
