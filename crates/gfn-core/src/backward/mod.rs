//! Backward strategies: how P_B is obtained and how it is trained. One file each.
//!
//! P_B of a transition is always evaluated at the *child* state. A strategy says where its
//! logits come from ([`PbSource`]) and what it adds to an iteration ([`Update`]); batches,
//! optimisers and copies follow from that.

mod guide;
mod learned_maxent;
mod maxent;
mod naive;
mod pessimistic;
mod policy_gradient;
mod sub_eb;
mod tlm;
mod uniform;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exact::Exact;
use crate::learn::engine::Values;
use crate::learn::expr::Var;
use crate::learn::update::{Follows, Rate, Update, ValueCopy};
use crate::learn::view::{BatchView, Loss, PbSource};
use crate::registry::{Axis, Entry};
use crate::{Environment, KeyError};

pub use guide::{Guide, StopGuide};
pub use learned_maxent::LearnedMaxEnt;
pub use maxent::MaxEnt;
pub use naive::Naive;
pub use pessimistic::Pessimistic;
pub use policy_gradient::{Form, PolicyGradient};
pub use sub_eb::SubEb;
pub use tlm::Tlm;
pub use uniform::Uniform;

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

/// How P_B is obtained and trained.
pub trait BackwardStrategy: Send + Sync {
    /// Where the log P_B that the objective reads comes from.
    fn source(&self) -> PbSource;

    /// For [`PbSource::Fixed`]: the logits of P_B at a non-initial state, over its `legal`
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

    /// What it does in an iteration besides the objective.
    fn updates(&self) -> Vec<Update> {
        Vec::new()
    }

    /// Whether that comes before or after the objective.
    fn order(&self) -> Order {
        Order::BackwardFirst
    }

    /// Learning rate of P_B's own parameters where the objective trains them.
    fn rate(&self) -> Rate {
        Rate::NETWORK
    }

    /// Whether it needs an environment where every state can be finished by an action of its own.
    fn stops_anywhere(&self) -> bool {
        false
    }
}

/// The negative log-likelihood of trajectories: mean over them of −Σ log P_B(s | s').
#[derive(Clone, Copy, Debug)]
struct Likelihood;

impl Loss for Likelihood {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        -batch.sum_by_trajectory(batch.trained_log_pb()).mean()
    }
}

/// The name of the updates that train P_B by a loss of its own.
pub const BACKWARD: &str = "backward";

/// The copy that objectives read where P_B has a loss of its own: none at a step of 1.
fn target_copy(tau: f64) -> Option<ValueCopy> {
    (tau < 1.0).then_some(ValueCopy { name: "backward_target", follows: Follows::Slowly(tau) })
}

/// Where objectives read P_B then.
fn frozen(tau: f64) -> PbSource {
    PbSource::Frozen(target_copy(tau).map_or(Values::Current, |copy| Values::Copy(copy.name)))
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
    Entry::of::<LearnedMaxEnt>(),
    Entry::of::<PolicyGradient>(),
    Entry::of::<SubEb>(),
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
