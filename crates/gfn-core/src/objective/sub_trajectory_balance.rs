//! Sub-trajectory balance, SubTB(λ) (Madan et al. 2023, arXiv:2209.12782).

use burn::tensor::{Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::batch::Scored;
use crate::registry::Kind;

/// How sub-trajectories are weighted. A sub-trajectory of `l` transitions has weight λ^(l−1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// λ^(l−1), normalised within each trajectory, then the mean over trajectories (the paper).
    #[default]
    GeometricWithin,
    /// λ^(l−1), normalised over all sub-trajectories of the batch.
    Geometric,
    /// All sub-trajectories of a trajectory alike, then the mean over trajectories; ignores λ.
    EqualWithin,
    /// All sub-trajectories of the batch alike; ignores λ.
    Equal,
}

/// Weighted mean over sub-trajectories s_i → s_j of
/// (log F(s_i) + Σ log P_F − log F(s_j) − Σ log P_B)², with F = R at terminal states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SubTrajectoryBalance {
    /// λ in [0, 2]: 0 gives detailed balance, large values weigh whole trajectories.
    pub lambda: f64,
    /// How sub-trajectories are weighted.
    pub weighting: Weighting,
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Default for SubTrajectoryBalance {
    fn default() -> Self {
        Self {
            lambda: 0.9,
            weighting: Weighting::GeometricWithin,
            penalty: Penalty::Squared,
            log_reward_min: None,
        }
    }
}

impl Kind<ObjectiveAxis> for SubTrajectoryBalance {
    const NAME: &'static str = "subtb";
    const ALIASES: &'static [&'static str] = &["sub_trajectory_balance"];
    const SUMMARY: &'static str = "sub-trajectory balance SubTB(lambda), with four weightings";
    const PAPER: Option<&'static str> = Some("arXiv:2209.12782");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if !(0.0..=2.0).contains(&self.lambda) {
            return Err(KeyError::new(
                "lambda",
                format!("must lie in [0, 2], not {}", self.lambda),
            )
            .help("the papers use 0.9, 0.99 or 1.9"));
        }
        check_log_reward_min(self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl SubTrajectoryBalance {
    /// Weights of the pairs (i, j), i < j, of every trajectory, padded to `width` states:
    /// `[b, width, width]`, summing to 1.
    fn weights(&self, lens: &[usize], width: usize) -> Vec<f32> {
        let b = lens.len();
        let by_length: Vec<f64> = (0..width)
            .map(|l| match self.weighting {
                Weighting::GeometricWithin | Weighting::Geometric => self.lambda.powi(l as i32),
                Weighting::EqualWithin | Weighting::Equal => 1.0,
            })
            .collect();
        // n transitions have n − l + 1 sub-trajectories of length l.
        let total =
            |n: usize| -> f64 { (1..=n).map(|l| (n - l + 1) as f64 * by_length[l - 1]).sum() };
        let batch_total: f64 = lens.iter().map(|&n| total(n)).sum();
        let mut weights = vec![0.0f32; b * width * width];
        for (i, &n) in lens.iter().enumerate() {
            let norm = match self.weighting {
                Weighting::GeometricWithin | Weighting::EqualWithin => total(n) * b as f64,
                Weighting::Geometric | Weighting::Equal => batch_total,
            };
            for start in 0..n {
                let row = (i * width + start) * width;
                for end in start + 1..=n {
                    weights[row + end] = (by_length[end - start - 1] / norm) as f32;
                }
            }
        }
        weights
    }
}

impl Objective for SubTrajectoryBalance {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let offsets = &scored.batch.offsets;
        let lens: Vec<usize> = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
        let (b, width) = (lens.len(), lens.iter().max().copied().unwrap_or(0) + 1);
        let device = scored.log_pf.device();

        // With C_t = Σ_{u<t} (log P_F − log P_B) and v_t = log F(s_t) − C_t, the residual of
        // s_i → s_j is v_i − v_j. Column 0 of the padded layout is s0, column t the t-th child.
        let padding = offsets[b] as i32;
        let mut slots = vec![padding; b * (width - 1)];
        for (i, &n) in lens.iter().enumerate() {
            for t in 0..n {
                slots[i * (width - 1) + t] = offsets[i] as i32 + t as i32;
            }
        }
        let slots = Tensor::<1, Int>::from_data(TensorData::new(slots, [b * (width - 1)]), &device);
        let padded = |values: Tensor<1>| {
            let values = Tensor::cat(vec![values, Tensor::zeros([1], &device)], 0);
            values.select(0, slots.clone()).reshape([b, width - 1])
        };
        let first: Vec<i32> = (0..b).map(|i| (offsets[i] as usize + i) as i32).collect();
        let first = Tensor::<1, Int>::from_data(TensorData::new(first, [b]), &device);
        let initial = scored.log_flow.clone().select(0, first).reshape([b, 1]);
        let ratio = padded(scored.log_pf.clone() - scored.log_pb.clone()).cumsum(1);
        let flows = padded(scored.log_flow_child(self.log_reward_min));
        let v = Tensor::cat(vec![initial, flows - ratio], 1);

        let residual = v.clone().unsqueeze_dim::<3>(2) - v.unsqueeze_dim::<3>(1);
        let weights = TensorData::new(self.weights(&lens, width), [b, width, width]);
        let weights = Tensor::<3>::from_data(weights, &device);
        (self.penalty.of(residual) * weights).sum()
    }

    fn log_z(&self) -> LogZ {
        LogZ::InitialFlow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_follow_the_formula() {
        for weighting in [
            Weighting::GeometricWithin,
            Weighting::Geometric,
            Weighting::EqualWithin,
            Weighting::Equal,
        ] {
            for lambda in [0.0, 0.5, 1.0, 1.9] {
                let subtb = SubTrajectoryBalance { lambda, weighting, ..Default::default() };
                let sum: f64 = subtb.weights(&[1, 3, 2], 4).iter().map(|&w| f64::from(w)).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{weighting:?} {lambda}: {sum}");
            }
        }
        // Two transitions: lengths 1, 1, 2 with weights 1, 1, λ over 2 + λ.
        let subtb = SubTrajectoryBalance { lambda: 0.5, ..Default::default() };
        let weights = subtb.weights(&[2], 3);
        assert!((weights[1] - 0.4).abs() < 1e-7);
        assert!((weights[5] - 0.4).abs() < 1e-7);
        assert!((weights[2] - 0.2).abs() < 1e-7);
        // λ = 0 keeps single transitions only.
        let db = SubTrajectoryBalance { lambda: 0.0, ..Default::default() };
        assert_eq!(db.weights(&[2], 3), [0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
    }
}
