//! Objectives: losses whose minimum is a policy that samples P ∝ R. One file each; every loss
//! reads like its equation on a [`Scored`] batch.

mod detailed_balance;
mod flow_matching;
mod sub_trajectory_balance;
mod trajectory_balance;
mod vargrad;

use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::registry::{Axis, Entry};
use crate::scored::{HostLoss, HostScored, Scored};

pub use detailed_balance::DetailedBalance;
pub use flow_matching::FlowMatching;
pub use sub_trajectory_balance::{SubTrajectoryBalance, Weighting};
pub use trajectory_balance::TrajectoryBalance;
pub use vargrad::VarGrad;

/// Where the learned log Z of an objective is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogZ {
    /// The scalar parameter.
    Parameter,
    /// log F(s0) of the network.
    InitialFlow,
    /// The objective does not learn log Z.
    None,
}

/// What an objective reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Whether P_B appears in the loss.
    pub backward_policy: bool,
    /// Whether log F of states appears in the loss.
    pub log_flow: bool,
    /// Whether the flow into every state is needed, that is all its parents.
    pub parents: bool,
    /// The fewest trajectories per batch.
    pub min_batch: usize,
}

/// A loss over trajectories.
pub trait Objective: Send + Sync {
    /// The loss, `[1]`.
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1>;

    /// The same with its derivatives, written by hand: what the native engine trains with where
    /// there is one, as operations on tensors and their graph cost more than small batches.
    fn by_hand(&self, _scored: &HostScored<'_>) -> Option<HostLoss> {
        None
    }

    /// What the loss reads.
    fn needs(&self) -> Needs {
        Needs { backward_policy: true, log_flow: true, parents: false, min_batch: 1 }
    }

    /// Where the learned log Z is.
    fn log_z(&self) -> LogZ;
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
];

/// The penalty of a residual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// x².
    #[default]
    Squared,
    /// x²/2 where |x| < 1, else |x| − 1/2.
    Huber,
}

impl Penalty {
    /// The penalty of every entry.
    pub fn of<const D: usize>(self, residual: Tensor<D>) -> Tensor<D> {
        match self {
            Penalty::Squared => residual.clone() * residual,
            Penalty::Huber => {
                // With c = min(|x|, 1): c (|x| − c/2).
                let abs = residual.abs();
                let clipped = abs.clone().clamp_max(1.0);
                clipped.clone() * (abs - clipped * 0.5)
            }
        }
    }
}

impl Penalty {
    /// The penalty of one residual, and its derivative.
    pub fn at(self, residual: f64) -> (f64, f64) {
        match self {
            Penalty::Squared => (residual * residual, 2.0 * residual),
            Penalty::Huber => {
                let clipped = residual.clamp(-1.0, 1.0);
                (clipped * (residual - clipped * 0.5), clipped)
            }
        }
    }
}

/// A loss whose gradient is given by hand: `compute` returns the loss of `values`, `[n]`, and its
/// derivatives. It runs on the host, in double precision, whatever the device: for losses that
/// tensor operations would compute many times slower.
pub fn loss_by_hand(
    values: Tensor<1>,
    compute: impl FnOnce(&[f32]) -> (f64, Vec<f32>),
) -> Tensor<1> {
    let device = values.device();
    let here = values.clone().detach();
    let data = here.clone().inner().into_data().convert::<f32>();
    let (loss, gradient) = compute(data.as_slice().expect("converted to f32 above"));
    let n = gradient.len();
    let gradient = Tensor::from_data(TensorData::new(gradient, [n]), &device);
    // The difference is exactly 0, and its gradient is the one given.
    ((values - here) * gradient).sum() + loss
}

/// Checks `log_reward_min`, which several objectives share.
pub(crate) fn check_log_reward_min(min: Option<f64>) -> Result<(), KeyError> {
    match min {
        Some(min) if !min.is_finite() => {
            Err(KeyError::new("log_reward_min", "must be a finite number")
                .help("the policy-gradient paper's code clips at -12; leave the key out for none"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_have_the_derivatives_that_they_say() {
        for penalty in [Penalty::Squared, Penalty::Huber] {
            for residual in [-2.5, -0.7, 0.0, 0.3, 1.8f64] {
                let h = 1e-6;
                let (value, derivative) = penalty.at(residual);
                let numeric = (penalty.at(residual + h).0 - penalty.at(residual - h).0) / (2.0 * h);
                assert!((derivative - numeric).abs() < 1e-6);
                let device = burn::tensor::Device::flex();
                let tensor = Tensor::<1>::from_data([residual as f32], &device);
                let of_tensor = f64::from(penalty.of(tensor).into_scalar::<f32>());
                assert!((value - of_tensor).abs() < 1e-5);
            }
        }
    }
}
