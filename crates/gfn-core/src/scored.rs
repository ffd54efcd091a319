//! What objectives read: a batch under the current parameters.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use burn::tensor::Tensor;

use crate::batch::Batch;
use crate::model::{Evaluated, Model, Reads};
use crate::policy::Direction;

/// The log P_B that an objective reads.
pub enum LogPb {
    /// Given values without gradients, `[m]`.
    Given(Box<Tensor<1>>),
    /// The network's, with gradients.
    Online,
    /// The network's, cut off from its gradients.
    Detached,
}

/// A batch with everything that an objective may read, computed when it is first asked for.
///
/// Nothing is tracked that no loss depends on: Burn's autodiff would keep it for good, and every
/// later backward pass would walk past it.
pub struct Scored<'a> {
    /// The trajectories.
    pub batch: &'a Batch,
    model: RefCell<&'a mut Model>,
    evaluated: Evaluated,
    given_log_pb: LogPb,
    log_pf: OnceCell<Tensor<1>>,
    log_pb: OnceCell<Tensor<1>>,
    log_flow: OnceCell<Tensor<1>>,
    log_z: OnceCell<Tensor<1>>,
}

impl<'a> Scored<'a> {
    /// A batch whose network rows `model` has evaluated.
    pub fn new(
        batch: &'a Batch,
        model: &'a mut Model,
        evaluated: Evaluated,
        log_pb: LogPb,
    ) -> Self {
        Self {
            batch,
            model: RefCell::new(model),
            evaluated,
            given_log_pb: log_pb,
            log_pf: OnceCell::new(),
            log_pb: OnceCell::new(),
            log_flow: OnceCell::new(),
            log_z: OnceCell::new(),
        }
    }

    /// log P_F of every transition, `[m]`.
    pub fn log_pf(&self) -> Tensor<1> {
        let choices = &self.batch.forward;
        let compute =
            || self.model.borrow_mut().log_probs(&self.evaluated, Direction::Forward, choices);
        self.log_pf.get_or_init(compute).clone()
    }

    /// log P_B of every transition, `[m]`, from the *child* state; tracked only if the strategy
    /// trains P_B through the objective.
    pub fn log_pb(&self) -> Tensor<1> {
        let (evaluated, choices) = (&self.evaluated, &self.batch.backward);
        let mut model = self.model.borrow_mut();
        let compute = || match &self.given_log_pb {
            LogPb::Given(given) => Tensor::clone(given),
            LogPb::Online => model.log_probs(evaluated, Direction::Backward, choices),
            LogPb::Detached => model.detached_log_probs(evaluated, Direction::Backward, choices),
        };
        self.log_pb.get_or_init(compute).clone()
    }

    /// log F of every network row, `[n]`, as the network says (not R at terminal states).
    pub fn log_flow(&self) -> Tensor<1> {
        let compute = || self.model.borrow_mut().log_flow(&self.evaluated);
        self.log_flow.get_or_init(compute).clone()
    }

    /// The parameter log Z, `[1]`.
    pub fn log_z(&self) -> Tensor<1> {
        self.log_z.get_or_init(|| self.model.borrow_mut().log_z()).clone()
    }

    /// log F at the start of every transition, `[m]`.
    pub fn log_flow_source(&self) -> Tensor<1> {
        self.log_flow().select(0, self.batch.source())
    }

    /// log F at the end of every transition, `[m]`; log R where it is terminal.
    pub fn log_flow_child(&self, min_log_reward: Option<f64>) -> Tensor<1> {
        let inner = self.log_flow().select(0, self.batch.child());
        self.batch.with_terminals(inner, &self.batch.clipped_log_reward(min_log_reward))
    }

    /// log R + Σ log P_B − Σ log P_F of every trajectory, `[b]`.
    pub fn log_weight(&self, min_log_reward: Option<f64>) -> Tensor<1> {
        let ratio = self.batch.sum_by_trajectory(self.log_pb() - self.log_pf());
        self.batch.upload(self.batch.clipped_log_reward(min_log_reward)) + ratio
    }

    /// log of the flow into every child state, `[m]`.
    ///
    /// # Panics
    /// Where the objective has not asked for parents.
    pub fn log_inflow(&self) -> Tensor<1> {
        let parents = self.batch.parents.as_ref().expect("asked for in `needs`");
        let mut model = self.model.borrow_mut();
        let reads = Reads { backward: false, ..Reads::ALL };
        let evaluated = model.evaluate_with(&parents.observations, None, reads);
        let log_pf = model.log_probs(&evaluated, Direction::Forward, &parents.choices);
        parents.log_inflow(log_pf, model.log_flow(&evaluated))
    }
}

/// What objectives read, on the host: for losses whose derivatives are known.
pub struct HostScored<'a> {
    /// The trajectories.
    pub batch: &'a Batch,
    /// log P_F of every transition, `[m]`.
    pub log_pf: Vec<f32>,
    /// log P_B of every transition, `[m]`.
    pub log_pb: Vec<f32>,
    model: &'a Model,
    evaluated: &'a Evaluated,
}

impl<'a> HostScored<'a> {
    /// A batch whose network rows the native engine of `model` has evaluated.
    pub(crate) fn new(
        batch: &'a Batch,
        model: &'a Model,
        evaluated: &'a Evaluated,
        log_pb: Vec<f32>,
    ) -> Self {
        let log_pf = model.log_probs_on_host(evaluated, Direction::Forward, &batch.forward);
        Self { batch, log_pf, log_pb, model, evaluated }
    }

    /// log F of every network row, `[n]`, as the network says (not R at terminal states).
    pub fn log_flow(&self) -> Vec<f32> {
        self.model.log_flow_on_host(self.evaluated)
    }

    /// The parameter log Z.
    pub fn log_z(&self) -> f64 {
        self.model.log_z_value()
    }

    /// The transitions of every trajectory, with its log R raised to `min`, if given.
    pub fn trajectories(&self, min: Option<f64>) -> impl Iterator<Item = (Range<usize>, f64)> {
        let min = min.unwrap_or(f64::NEG_INFINITY);
        let ranges = self.batch.offsets.windows(2).map(|w| w[0] as usize..w[1] as usize);
        ranges.zip(self.batch.log_reward.iter().map(move |log_reward| log_reward.max(min)))
    }

    /// Σ (log P_F − log P_B) over some transitions.
    pub fn ratio(&self, range: &Range<usize>) -> f64 {
        let sum = |values: &[f32]| values[range.clone()].iter().map(|&x| f64::from(x)).sum::<f64>();
        sum(&self.log_pf) - sum(&self.log_pb)
    }
}

/// A loss with its derivatives by what it has read; none by what it has not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostLoss {
    /// The loss.
    pub loss: f64,
    /// By log P_F of every transition, `[m]`.
    pub log_pf: Option<Vec<f32>>,
    /// By log P_B of every transition, `[m]`.
    pub log_pb: Option<Vec<f32>>,
    /// By log F of every network row, `[n]`.
    pub log_flow: Option<Vec<f32>>,
    /// By log Z.
    pub log_z: f32,
}

impl HostLoss {
    /// A loss that reads log P_F − log P_B, whose derivatives are given.
    pub fn of_ratios(loss: f64, ratios: Vec<f32>) -> Self {
        let negative = ratios.iter().map(|x| -x).collect();
        Self { loss, log_pf: Some(ratios), log_pb: Some(negative), ..Self::default() }
    }
}
