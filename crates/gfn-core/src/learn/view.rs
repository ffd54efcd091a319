//! What a loss reads: a batch under the current parameters, or under a copy of them.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use std::sync::Arc;

use super::batch::{Batch, End};
use super::engine::{Engine, Pass, Readout, Rows, Upstream, Values};
use super::expr::{Tape, Var};
use super::head::Head;
use crate::Environment;

/// A loss over a batch. It must read the same heads of every batch: what it reads of the first one
/// decides which heads a model has, and which parameters the loss trains.
pub trait Loss: Send + Sync {
    /// The loss, a number.
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t>;
}

/// Where the log P_B that a loss reads comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PbSource {
    /// No parameters.
    Fixed,
    /// The network, with gradients.
    Trained,
    /// The network, or a copy of it, without gradients.
    Frozen(Values),
}

/// A head that a loss has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// Which head.
    pub head: Head,
    /// With which values.
    pub values: Values,
    /// At which end of transitions; none at the parents of children, or for a parameter.
    pub end: Option<End>,
    /// Whether gradients come back.
    pub tracked: bool,
}

/// Rows that have been evaluated: a set of the batch, or all parents.
type Place = Option<usize>;

/// Where the numbers come from that a loss reads.
pub(super) trait Source {
    /// Reads a head at some rows; also the pass that has evaluated them.
    fn read(
        &mut self,
        batch: &Batch,
        place: Place,
        values: Values,
        head: Head,
        readout: &Readout,
    ) -> (Pass, Vec<f64>);

    /// The value of a parameter of its own.
    fn parameter(&self, head: Head) -> f64;

    /// The environment.
    fn env(&self) -> &dyn Environment;
}

/// Rows of a place.
fn rows_at<'b>(batch: &'b Batch, env: &dyn Environment, place: Place) -> &'b Rows {
    match place {
        Some(set) => batch.rows(set),
        None => &batch.parents(env).rows,
    }
}

/// Numbers that an engine computes. Rows are evaluated when they are first asked for, with all
/// heads that the loss is known to read there.
pub(super) struct Computed<'a> {
    pub(super) engine: &'a mut dyn Engine,
    pub(super) env: &'a dyn Environment,
    pub(super) known: &'a [Read],
    pub(super) dropout: Option<u64>,
    pub(super) passes: Vec<(Place, Values, Pass)>,
}

impl Source for Computed<'_> {
    fn read(
        &mut self,
        batch: &Batch,
        place: Place,
        values: Values,
        head: Head,
        readout: &Readout,
    ) -> (Pass, Vec<f64>) {
        let same = |(at, with, _): &&(Place, Values, Pass)| (*at, *with) == (place, values);
        if let Some((.., pass)) = self.passes.iter().find(same) {
            return (*pass, self.engine.read(*pass, head, readout));
        }
        let here = |read: &&Read| {
            let at = read.end.map(|end| batch.set(end));
            read.values == values && at == place && !read.head.is_parameter()
        };
        let mut heads: Vec<Head> = self.known.iter().filter(here).map(|read| read.head).collect();
        heads.sort_unstable_by_key(|head| head.name);
        heads.dedup();
        // A copy serves as a target: it drops nothing.
        let dropout = self.dropout.filter(|_| values == Values::Current);
        let rows = rows_at(batch, self.env, place);
        let pass = self.engine.evaluate(self.env, rows, &heads, values, dropout);
        self.passes.push((place, values, pass));
        (pass, self.engine.read(pass, head, readout))
    }

    fn parameter(&self, head: Head) -> f64 {
        parameter(self.engine, head).expect("the model has what its losses read")
    }

    fn env(&self) -> &dyn Environment {
        self.env
    }
}

/// Zeros, while it is being found out what a loss reads.
pub(super) struct Zeros<'a>(pub(super) &'a dyn Environment);

impl Source for Zeros<'_> {
    fn read(
        &mut self,
        batch: &Batch,
        place: Place,
        _: Values,
        _: Head,
        readout: &Readout,
    ) -> (Pass, Vec<f64>) {
        let n = match readout {
            Readout::LogProb(of) | Readout::Taken(of) | Readout::LogSumExp(of) => of.len(),
            Readout::LogProbs(of) | Readout::Numbers(of) => of.n_legal().sum(),
            Readout::Scalar => rows_at(batch, self.0, place).states.len(),
        };
        (Pass(0), vec![0.0; n])
    }

    fn parameter(&self, _: Head) -> f64 {
        0.0
    }

    fn env(&self) -> &dyn Environment {
        self.0
    }
}

/// What a loss has read.
#[derive(Default)]
pub(super) struct Record<'t> {
    /// What has derivatives, and where they go.
    leaves: RefCell<Vec<(Var<'t>, Leaf)>>,
    pub(super) reads: RefCell<Vec<Read>>,
    /// Whether rewards of states along trajectories are among it.
    pub(super) along: Cell<bool>,
    /// Whether numbers of P_F are among it that are no probabilities.
    pub(super) raw: Cell<bool>,
    /// What each item of the batch lost, before weights.
    pub(super) losses: RefCell<Vec<f64>>,
}

enum Leaf {
    Of(Pass, Head, Readout),
    Parameter(Head),
}

impl<'t> Record<'t> {
    fn note(&self, read: Read) {
        let mut reads = self.reads.borrow_mut();
        if !reads.contains(&read) {
            reads.push(read);
        }
    }

    /// Derivatives of the loss by all that it has read: of heads, and of parameters.
    pub(super) fn upstream(
        self,
        tape: &Tape,
        loss: Var<'_>,
    ) -> (Vec<Upstream>, Vec<(&'static str, f64)>) {
        let derivatives = tape.derivatives(loss);
        let (mut upstream, mut parameters) = (Vec::new(), Vec::new());
        for (var, leaf) in self.leaves.into_inner() {
            let Some(of) = derivatives.of(var) else { continue };
            match leaf {
                Leaf::Of(pass, head, readout) => {
                    upstream.push(Upstream { pass, head, readout, derivatives: of.to_vec() });
                }
                Leaf::Parameter(head) => parameters.push((head.name, of[0])),
            }
        }
        (upstream, parameters)
    }
}

/// A batch as a loss sees it: everything that may be read, computed when it is first asked for.
///
/// `m` transitions s → s', `b` whole trajectories. What is read of the current values has
/// derivatives, what is read of a copy has none.
pub struct BatchView<'a, 't> {
    /// The transitions.
    pub batch: &'a Batch,
    tape: &'t Tape,
    source: &'a RefCell<dyn Source + 'a>,
    record: &'a Record<'t>,
    pb: PbSource,
    values: Values,
    /// Whether what is read of the current values has derivatives.
    tracks: bool,
    log_pf: OnceCell<Var<'t>>,
    log_pb: OnceCell<Var<'t>>,
}

impl<'a, 't> BatchView<'a, 't> {
    pub(super) fn new(
        batch: &'a Batch,
        tape: &'t Tape,
        source: &'a RefCell<dyn Source + 'a>,
        record: &'a Record<'t>,
        pb: PbSource,
    ) -> Self {
        let (log_pf, log_pb) = (OnceCell::new(), OnceCell::new());
        let (values, tracks) = (Values::Current, true);
        Self { batch, tape, source, record, pb, values, tracks, log_pf, log_pb }
    }

    /// The same batch under a copy of the values, which the update must keep.
    #[must_use]
    pub fn copy(&self, name: &'static str) -> Self {
        self.with(Values::Copy(name))
    }

    /// The same batch without derivatives: what is read here trains nothing.
    #[must_use]
    pub fn fixed(&self) -> Self {
        Self { tracks: false, ..self.with(self.values) }
    }

    fn with(&self, values: Values) -> Self {
        Self {
            values,
            tracks: self.tracks,
            ..Self::new(self.batch, self.tape, self.source, self.record, self.pb)
        }
    }

    fn read(
        &self,
        (place, end): (Place, Option<End>),
        head: Head,
        readout: Readout,
        track: bool,
    ) -> Var<'t> {
        let tracked = track && self.tracks && self.values == Values::Current;
        self.record.note(Read { head, values: self.values, end, tracked });
        let mut source = self.source.borrow_mut();
        let (pass, numbers) = source.read(self.batch, place, self.values, head, &readout);
        if !tracked {
            return self.tape.constant(numbers);
        }
        let leaf = self.tape.leaf(numbers);
        self.record.leaves.borrow_mut().push((leaf, Leaf::Of(pass, head, readout)));
        leaf
    }

    fn read_at(&self, end: End, head: Head, readout: Readout, track: bool) -> Var<'t> {
        self.read((Some(self.batch.set(end)), Some(end)), head, readout, track)
    }

    /// log P_F of every transition, `[m]`.
    pub fn log_pf(&self) -> Var<'t> {
        *self.log_pf.get_or_init(|| {
            let readout = Readout::LogProb(self.batch.forward.clone());
            self.read_at(End::From, Head::FORWARD, readout, true)
        })
    }

    /// log P_B of every transition, `[m]`, read at the *child*; with derivatives only if the
    /// strategy trains P_B through the objective.
    pub fn log_pb(&self) -> Var<'t> {
        *self.log_pb.get_or_init(|| match self.pb {
            PbSource::Fixed => {
                let fixed = self.batch.fixed_log_pb().expect("computed with the batch");
                self.tape.constant(fixed.clone())
            }
            PbSource::Trained => self.network_log_pb(Values::Current, true),
            PbSource::Frozen(values) => self.network_log_pb(values, false),
        })
    }

    /// log P_B of the network as it is, with derivatives: what P_B's own losses read.
    pub fn trained_log_pb(&self) -> Var<'t> {
        self.network_log_pb(Values::Current, true)
    }

    fn network_log_pb(&self, values: Values, track: bool) -> Var<'t> {
        let readout = Readout::LogProb(self.batch.backward.clone());
        let chosen = self.with(values).read_at(End::To, Head::BACKWARD, readout, track);
        chosen.gather(&self.batch.backward_of[..])
    }

    /// The number that a head of P_F's kind gives to the action of every transition, `[m]`.
    pub fn taken(&self, head: Head) -> Var<'t> {
        self.note_raw(head);
        self.read_at(End::From, head, Readout::Taken(self.batch.forward.clone()), true)
    }

    /// log Σ exp over the legal forward actions of what a head gives them at s', `[m]`; 0 where s'
    /// is terminal.
    pub fn next_log_sum_exp(&self, head: Head) -> Var<'t> {
        self.note_raw(head);
        let next = self.batch.next();
        let readout = Readout::LogSumExp(next.actions.clone());
        self.read_at(End::To, head, readout, true).gather(&next.of[..])
    }

    /// log P_F of every legal action at an end of transitions, one after the other:
    /// [`Batch::choices`] says which.
    pub fn log_pf_of_all(&self, end: End) -> Var<'t> {
        let readout = Readout::LogProbs(self.batch.choices(end).actions.clone());
        self.read_at(end, Head::FORWARD, readout, true)
    }

    /// The number that a head of P_F's kind gives to each of these actions.
    pub fn all(&self, end: End, head: Head) -> Var<'t> {
        self.note_raw(head);
        self.read_at(end, head, Readout::Numbers(self.batch.choices(end).actions.clone()), true)
    }

    /// The sum over the actions of each transition, `[m]`; 0 where there are none.
    pub fn sum_by_choice(&self, end: End, of_actions: Var<'t>) -> Var<'t> {
        of_actions.sum_segments(&self.batch.choices(end).offsets[..])
    }

    /// The entries of transitions, `[m]`, repeated for each of their actions.
    pub fn for_all(&self, end: End, of_transitions: Var<'t>) -> Var<'t> {
        let offsets = &self.batch.choices(end).offsets;
        let of = |(t, ends): (usize, &[u32])| (ends[0]..ends[1]).map(move |_| Some(t as u32));
        let places: Vec<Option<u32>> = offsets.windows(2).enumerate().flat_map(of).collect();
        of_transitions.gather(places)
    }

    /// A scalar of s for every transition, `[m]`.
    pub fn from(&self, head: Head) -> Var<'t> {
        let rows: Vec<_> = self.batch.from_rows().iter().map(|&row| Some(row)).collect();
        self.read_at(End::From, head, Readout::Scalar, true).gather(rows)
    }

    /// A scalar of s' for every transition, `[m]`; 0 where no network need know s', see
    /// [`Batch::to_rows`].
    pub fn to(&self, head: Head) -> Var<'t> {
        let rows = &self.batch.to_rows[..];
        self.read_at(End::To, head, Readout::Scalar, true).gather(rows)
    }

    /// `inner` for transitions to states where it goes on, `at_end` where s' is terminal. `[m]`.
    pub fn unless_at_end(&self, inner: Var<'t>, at_end: Var<'t>) -> Var<'t> {
        at_end.or_where_not(&self.batch.terminal[..], inner)
    }

    /// A parameter of its own, such as log Z; its current value, as copies have none of them.
    pub fn parameter(&self, head: Head) -> Var<'t> {
        let tracked = self.tracks;
        self.record.note(Read { head, values: Values::Current, end: None, tracked });
        let value = vec![self.source.borrow().parameter(head)];
        if !tracked {
            return self.tape.constant(value);
        }
        let leaf = self.tape.leaf(value);
        self.record.leaves.borrow_mut().push((leaf, Leaf::Parameter(head)));
        leaf
    }

    /// The parameter log Z.
    pub fn log_z(&self) -> Var<'t> {
        self.parameter(Head::LOG_Z)
    }

    /// log R of every transition that ends in a terminal state, raised to `min`; 0 elsewhere. `[m]`.
    pub fn log_reward_at_ends(&self, min: Option<f64>) -> Var<'t> {
        let mut ends = self.log_reward(min).into_iter();
        let at = |&terminal: &bool| if terminal { ends.next().expect("one each") } else { 0.0 };
        self.tape.constant(self.batch.terminal.iter().map(at).collect())
    }

    /// log R of an end of every transition as if it were finished there, raised to `min`. `[m]`.
    ///
    /// Only where some action finishes every state that is not terminal, see
    /// [`Objective::stops_anywhere`](crate::objective::Objective::stops_anywhere).
    pub fn log_reward_along(&self, end: End, min: Option<f64>) -> Var<'t> {
        self.record.along.set(true);
        let along = self.batch.log_reward_along(end);
        assert_eq!(along.len(), self.batch.len(), "rewards along trajectories have been computed");
        let min = min.unwrap_or(f64::NEG_INFINITY);
        self.tape.constant(along.into_iter().map(|log_reward| log_reward.max(min)).collect())
    }

    fn note_raw(&self, head: Head) {
        if head == Head::FORWARD {
            self.record.raw.set(true);
        }
    }

    fn stop(&self) -> usize {
        self.source.borrow().env().space().stop().expect("checked with the plan")
    }

    /// log P_F(stop | s) of every transition, `[m]`.
    pub fn log_pf_of_stop(&self) -> Var<'t> {
        let readout = Readout::LogProb(Arc::new(self.batch.instead(self.stop())));
        self.read_at(End::From, Head::FORWARD, readout, true)
    }

    /// log P_F(stop | s') of every transition, `[m]`; 0 where s' is terminal.
    pub fn next_log_pf_of_stop(&self) -> Var<'t> {
        let readout = Readout::LogProb(Arc::new(self.batch.next_taking(self.stop())));
        let read = self.read_at(End::To, Head::FORWARD, readout, true);
        read.gather(&self.batch.next().of[..])
    }

    /// The mean of losses of transitions, or of whole trajectories, each counting what it weighs in this
    /// batch. Prioritised replay learns from here what its items have lost.
    pub fn mean(&self, losses: Var<'t>) -> Var<'t> {
        match self.weights_of(losses) {
            Some(weights) => (losses * self.tape.constant(weights)).mean(),
            None => losses.mean(),
        }
    }

    /// The same over transitions to states that are not terminal; 0 if there are none.
    pub fn mean_inner(&self, of_transitions: Var<'t>) -> Var<'t> {
        let weights = self.weights_of(of_transitions);
        let n = self.batch.terminal.iter().filter(|&&terminal| !terminal).count().max(1) as f64;
        let weight = |(t, &terminal): (usize, &bool)| match (terminal, &weights) {
            (true, _) => 0.0,
            (false, None) => 1.0 / n,
            (false, Some(weights)) => weights[t] / n,
        };
        let weights = self.batch.terminal.iter().enumerate().map(weight).collect();
        (of_transitions * self.tape.constant(weights)).sum()
    }

    /// What each item of the batch has lost, before weights, from a loss that is no [`mean`](Self::mean).
    pub fn note_losses(&self, losses: Vec<f64>) {
        *self.record.losses.borrow_mut() = losses;
    }

    /// Notes losses, and returns what each of them weighs if not all weigh the same.
    fn weights_of(&self, losses: Var<'t>) -> Option<Vec<f64>> {
        let (numbers, batch) = (losses.value(), self.batch);
        // Losses of the transitions of whole trajectories count as these do.
        let offsets = batch.offsets.as_deref().filter(|offsets| offsets.len() != numbers.len() + 1);
        let Some(offsets) = offsets else {
            *self.record.losses.borrow_mut() = numbers.to_vec();
            return batch.weights.clone();
        };
        let segments = || offsets.windows(2).map(|ends| ends[0] as usize..ends[1] as usize);
        let mean = |segment: Range<usize>| {
            let n = segment.len().max(1) as f64;
            numbers[segment].iter().sum::<f64>() / n
        };
        *self.record.losses.borrow_mut() = segments().map(mean).collect();
        let weights = batch.weights.as_ref()?.iter();
        let spread =
            |(&weight, segment): (&f64, Range<usize>)| std::iter::repeat_n(weight, segment.len());
        Some(weights.zip(segments()).flat_map(spread).collect())
    }

    /// log R of every trajectory, raised to `min`. `[b]`.
    pub fn log_reward_of_trajectories(&self, min: Option<f64>) -> Var<'t> {
        self.tape.constant(self.log_reward(min))
    }

    fn log_reward(&self, min: Option<f64>) -> Vec<f64> {
        let min = min.unwrap_or(f64::NEG_INFINITY);
        self.batch.log_reward.iter().map(|log_reward| log_reward.max(min)).collect()
    }

    /// The sum over each trajectory: `[m]` to `[b]`.
    pub fn sum_by_trajectory(&self, of_transitions: Var<'t>) -> Var<'t> {
        of_transitions.sum_segments(self.offsets())
    }

    /// The entries of the first transitions of trajectories: `[m]` to `[b]`.
    pub fn first_of_trajectories(&self, of_transitions: Var<'t>) -> Var<'t> {
        let (_, starts) = self.offsets().split_last().expect("one more than trajectories");
        of_transitions.gather(starts.iter().map(|&t| Some(t)).collect::<Vec<_>>())
    }

    /// Transitions before each trajectory, `b + 1` entries.
    ///
    /// # Panics
    /// When the batch does not consist of whole trajectories.
    pub fn offsets(&self) -> &[u32] {
        self.batch.offsets.as_ref().expect("the update is on whole trajectories")
    }

    /// log Σ F(s) P_F(s'|s) over all parents s of the child of every transition, `[m]`.
    pub fn log_inflow(&self) -> Var<'t> {
        let parents = self.batch.parents(self.source.borrow().env());
        let readout = Readout::LogProb(parents.forward.clone());
        let log_pf = self.read((None, None), Head::FORWARD, readout, true);
        let log_flow = self.read((None, None), Head::FLOW, Readout::Scalar, true);
        (log_pf + log_flow).log_sum_exp_segments(&parents.offsets[..])
    }

    /// Numbers without derivatives.
    pub fn constant(&self, values: Vec<f64>) -> Var<'t> {
        self.tape.constant(values)
    }

    /// A number whose derivatives by the entries of some vectors are known.
    pub fn custom(&self, value: f64, inputs: Vec<(Var<'t>, Vec<f64>)>) -> Var<'t> {
        self.tape.custom(value, inputs)
    }
}

/// The value of a parameter of its own, if the model has it.
pub(super) fn parameter(engine: &dyn Engine, head: Head) -> Option<f64> {
    let i = engine.params().iter().position(|info| info.group == head.name)?;
    Some(f64::from(engine.value(i)[0]))
}
