//! Objectives: losses whose minimum is a policy that samples P ∝ R. One file each; every loss reads
//! like its equation.

pub(crate) mod advantage;
mod detailed_balance;
mod flow_matching;
mod forward_looking;
mod metropolis_hastings;
mod modified_db;

mod penalty;
mod policy_gradient;
mod proximal;
mod replay;
mod sac;
mod soft_dqn;
pub(crate) mod sub_trajectories;
mod sub_trajectory_balance;
mod trajectory_balance;
mod trust_region;
mod vargrad;

use crate::KeyError;
use crate::learn::ChainSettings;
use crate::learn::head::Head;
use crate::learn::priority::Priority;
use crate::learn::update::{Data, Kept, Update};
use crate::registry::{Axis, Entry};

pub use advantage::Critic;
pub use detailed_balance::DetailedBalance;
pub use flow_matching::FlowMatching;
pub use forward_looking::ForwardLooking;
pub use metropolis_hastings::MetropolisHastings;
pub use modified_db::ModifiedDb;
pub use penalty::Penalty;
pub use policy_gradient::PolicyGradient;
pub use proximal::ProximalPolicy;
pub use replay::{Replay, Replayed};
pub use sac::Sac;
pub use soft_dqn::SoftDqn;
pub use sub_trajectories::Weighting;
pub use sub_trajectory_balance::SubTrajectoryBalance;
pub use trajectory_balance::TrajectoryBalance;
pub use trust_region::TrustRegionPolicy;
pub use vargrad::VarGrad;

/// Where the learned log Z of an objective is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogZ {
    /// A parameter of its own.
    Parameter(Head),
    /// A scalar of s0.
    Initial(Head),
    /// `tau` log Σ exp over the actions at s0 of what a head of P_F's kind gives them.
    SoftValue(Head, f64),
    /// log R(s0) − log P_F(stop | s0), with log R raised to a minimum if there is one.
    Stopping(Head, Option<f64>),
    /// A scalar of s0, to which log R(s0) is added, raised to a minimum if there is one.
    ForwardLooking(Head, Option<f64>),
    /// The objective does not learn log Z.
    None,
}

/// How P_F, and what it needs, is trained.
pub trait Objective: Send + Sync {
    /// What it does in an iteration; the last one is its main update, whose loss is reported. None
    /// for a baseline of [chains](Self::chains).
    fn updates(&self) -> Vec<Update>;

    /// Where the learned log Z is.
    fn log_z(&self) -> LogZ;

    /// Whether it needs an environment where every state can be finished by an action of its own.
    fn stops_anywhere(&self) -> bool {
        false
    }

    /// The fewest trajectories per batch.
    fn min_batch(&self) -> usize {
        1
    }

    /// The Markov chains whose objects take the place of trajectories, if it is a baseline without a
    /// policy.
    fn chains(&self) -> Option<ChainSettings> {
        None
    }
}

/// The `objective` axis.
pub struct ObjectiveAxis;
impl Axis for ObjectiveAxis {
    const NAME: &'static str = "objective";
    type Product = dyn Objective;
    type Context<'a> = ();
}

/// Every objective.
pub const OBJECTIVES: &[Entry<ObjectiveAxis>] = &[
    Entry::of::<TrajectoryBalance>(),
    Entry::of::<DetailedBalance>(),
    Entry::of::<SubTrajectoryBalance>(),
    Entry::of::<FlowMatching>(),
    Entry::of::<VarGrad>(),
    Entry::of::<SoftDqn>(),
    Entry::of::<Sac>(),
    Entry::of::<PolicyGradient>(),
    Entry::of::<TrustRegionPolicy>(),
    Entry::of::<ProximalPolicy>(),
    Entry::of::<ModifiedDb>(),
    Entry::of::<ForwardLooking>(),
    Entry::of::<MetropolisHastings>(),
];

/// Whether a kind of objective has a loss, by its defaults: a baseline of chains has none.
pub fn has_loss(kind: &Entry<ObjectiveAxis>) -> bool {
    let defaults = kind.default_settings().and_then(|settings| settings.build(()).ok());
    defaults.is_none_or(|objective| objective.chains().is_none())
}

/// The name of the update of objectives that make one.
pub const OBJECTIVE: &str = "objective";

/// Checks what several objectives share.
fn check_residual(penalty: Penalty, log_reward_min: Option<f64>) -> Result<(), KeyError> {
    penalty.check()?;
    match log_reward_min {
        Some(min) if !min.is_finite() => {
            Err(KeyError::new("log_reward_min", "must be a finite number")
                .help("the policy-gradient paper's code clips at -12; leave the key out for none"))
        }
        _ => Ok(()),
    }
}

/// Replayed transitions, or those of the current trajectories where nothing is kept.
fn transitions(batch: usize, capacity: usize, priority: Priority) -> Data {
    match capacity {
        0 => Data::Current,
        _ => Data::Replay { of: Kept::Transitions, capacity, batch, priority, with_current: false },
    }
}

/// Checks the step of a target copy.
fn check_target_tau(tau: f64) -> Result<(), KeyError> {
    if tau > 0.0 && tau <= 1.0 {
        return Ok(());
    }
    let message = format!("must lie in (0, 1], not {tau}");
    Err(KeyError::new("target_tau", message).help("the papers use 0.25 or 0.1"))
}

/// Checks the sizes of a replay buffer and of what is drawn from it, and how often.
fn check_replay(
    batch: usize,
    capacity: usize,
    updates: usize,
    priority: Priority,
) -> Result<(), KeyError> {
    const MOST: usize = 1 << 24;
    for (key, value) in [("replay_batch", batch), ("updates", updates)] {
        if value == 0 {
            return Err(KeyError::new(key, "must be at least 1"));
        }
    }
    for (key, value) in [("replay_batch", batch), ("replay_capacity", capacity)] {
        if value > MOST {
            return Err(KeyError::new(key, format!("must not exceed {MOST}")));
        }
    }
    if capacity > 0 && capacity < batch {
        let message = format!("keeps {capacity} of which {batch} are drawn for an update");
        return Err(KeyError::new("replay_capacity", message)
            .help("keep more than are drawn, many times more, or draw fewer (the batch)"));
    }
    if capacity == 0 && priority != Priority::Uniform {
        return Err(KeyError::new("replay_priority", "has no effect where nothing is kept")
            .help("set replay_capacity, or leave replay_priority out"));
    }
    priority.check().map_err(|error| KeyError { key: Some("replay_priority".to_owned()), ..error })
}
