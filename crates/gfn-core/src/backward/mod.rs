//! Backward strategies: how P_B is obtained and how it is trained. One file each.
//!
//! P_B of a transition is always evaluated at the *child* state. A strategy says where its
//! logits come from ([`Source`]) and whether P_B has a loss of its own ([`OwnUpdate`]); batches,
//! optimisers and target copies follow from that.

mod maxent;
mod naive;
mod pessimistic;
mod tlm;
mod uniform;

use std::sync::Arc;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::Exact;
use crate::objective::Needs;
use crate::registry::{Axis, Entry};
use crate::scored::HostLoss;
use crate::{Environment, KeyError};

pub use maxent::MaxEnt;
pub use naive::Naive;
pub use pessimistic::Pessimistic;
pub use tlm::Tlm;
pub use uniform::Uniform;

/// Where the P_B that the objective reads comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given logits without parameters, see [`BackwardStrategy::fixed_logits`].
    Fixed,
    /// The network, with gradients from the objective.
    Online,
    /// The network's target copy, without gradients.
    Target,
}

/// Which of the two updates of an iteration comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// P_B (and its target copy), then the objective: hypergrids and bit sequences of the TLM
    /// paper's code.
    #[default]
    BackwardFirst,
    /// The objective, then P_B: its molecules.
    ForwardFirst,
}

/// P_B's own loss: the negative log-likelihood of sampled trajectories, minimised in P_B's
/// parameters (and the trunk, where it is shared) by an optimiser of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnUpdate {
    /// The batch is drawn uniformly from this many last on-policy batches; 1 is the current one.
    pub batches: usize,
    /// Step κ of the target copy: target ← (1−κ) target + κ online; 1 is no target.
    pub target_tau: f64,
    /// Which update comes first.
    pub order: Order,
}

impl OwnUpdate {
    /// The loss: mean over trajectories of −Σ log P_B(s | s'), from `[b]` sums.
    pub fn loss(&self, log_pb_by_trajectory: Tensor<1>) -> Tensor<1> {
        log_pb_by_trajectory.mean().neg()
    }

    /// The same with its derivatives, from log P_B of every transition of `b` trajectories.
    pub fn by_hand(&self, log_pb: &[f32], b: usize) -> HostLoss {
        let sum: f64 = log_pb.iter().map(|&x| f64::from(x)).sum();
        let log_pb = Some(vec![(-1.0 / b as f64) as f32; log_pb.len()]);
        HostLoss { loss: -sum / b as f64, log_pb, ..HostLoss::default() }
    }
}

/// How P_B is obtained and trained.
pub trait BackwardStrategy: Send + Sync {
    /// Where the P_B that the objective reads comes from.
    fn source(&self) -> Source;

    /// For [`Source::Fixed`]: the logits of P_B at a non-initial state, over its `legal`
    /// backward actions.
    fn fixed_logits(
        &self,
        _env: &dyn Environment,
        _child: &[i32],
        _legal: &[bool],
        logits: &mut [f32],
    ) {
        logits.fill(0.0);
    }

    /// P_B's own loss, if it has one.
    fn own_update(&self) -> Option<OwnUpdate> {
        None
    }

    /// P_B's learning rate at iteration 0; none takes that of P_F.
    fn lr(&self) -> Option<f64> {
        None
    }

    /// Factor on P_B's learning rate per iteration.
    fn lr_decay(&self) -> f64 {
        1.0
    }
}

/// Says why an objective and a strategy cannot be combined.
///
/// # Errors
/// When P_B would never be trained.
pub fn check_pair(needs: Needs, strategy: &dyn BackwardStrategy) -> Result<(), KeyError> {
    if !needs.backward_policy && strategy.source() == Source::Online {
        return Err(KeyError::new(
            "kind",
            "this strategy trains P_B through the objective, but P_B does not appear in this \
             objective, so it would never be trained",
        )
        .help(
            "use uniform or maxent, or tlm or pessimistic, which train P_B by a loss of its own",
        ));
    }
    Ok(())
}

/// What a strategy is built from.
#[derive(Clone)]
pub struct BackwardContext {
    /// The environment.
    pub env: Arc<dyn Environment>,
    /// Its enumerated graph, if it is small enough.
    pub exact: Option<Arc<Exact>>,
}

/// The `backward` axis.
pub struct BackwardAxis;
impl Axis for BackwardAxis {
    const NAME: &'static str = "backward";
    type Product = dyn BackwardStrategy;
    type Context<'a> = BackwardContext;
}

/// Every backward strategy.
pub const BACKWARDS: &[Entry<BackwardAxis>] = &[
    Entry::of::<Uniform>(),
    Entry::of::<Naive>(),
    Entry::of::<MaxEnt>(),
    Entry::of::<Tlm>(),
    Entry::of::<Pessimistic>(),
];

/// Checks the settings that learned strategies share.
pub(crate) fn check_rates(lr: Option<f64>, lr_decay: f64) -> Result<(), KeyError> {
    if lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
        return Err(KeyError::new("lr", "a learning rate must be above 0")
            .help("leave the key out to use train.lr"));
    }
    if !(lr_decay > 0.0 && lr_decay <= 1.0) {
        return Err(KeyError::new("lr_decay", format!("must lie in (0, 1], not {lr_decay}")));
    }
    Ok(())
}

/// Checks the step of a target copy.
pub(crate) fn check_target_tau(target_tau: f64) -> Result<(), KeyError> {
    if !(target_tau > 0.0 && target_tau <= 1.0) {
        return Err(KeyError::new("target_tau", format!("must lie in (0, 1], not {target_tau}"))
            .help("1 means no target copy; the papers use 0.25, 0.1 or 0.05"));
    }
    Ok(())
}
