//! Sub-trajectory balance, SubTB(λ) (Madan et al. 2023, arXiv:2209.12782).

use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::batch::Scored;
use crate::network::upload_ints;
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
    /// All sub-trajectories s_i → s_j of trajectories with `lens` transitions.
    fn pairs(&self, lens: &[usize]) -> Pairs {
        let longest = lens.iter().max().copied().unwrap_or(0);
        let by_length: Vec<f64> = (0..longest)
            .map(|l| match self.weighting {
                Weighting::GeometricWithin | Weighting::Geometric => self.lambda.powi(l as i32),
                Weighting::EqualWithin | Weighting::Equal => 1.0,
            })
            .collect();
        // n transitions have n − l + 1 sub-trajectories of length l.
        let total =
            |n: usize| -> f64 { (1..=n).map(|l| (n - l + 1) as f64 * by_length[l - 1]).sum() };
        let batch_total: f64 = lens.iter().map(|&n| total(n)).sum();
        let n_pairs = lens.iter().map(|n| n * (n + 1) / 2).sum();
        let mut pairs = Pairs {
            start: Vec::with_capacity(n_pairs),
            end: Vec::with_capacity(n_pairs),
            weight: Vec::with_capacity(n_pairs),
        };
        for (i, &n) in lens.iter().enumerate() {
            let norm = match self.weighting {
                Weighting::GeometricWithin | Weighting::EqualWithin => total(n) * lens.len() as f64,
                Weighting::Geometric | Weighting::Equal => batch_total,
            };
            let row = i * (longest + 1);
            for start in 0..n {
                for end in start + 1..=n {
                    // Weights that vanish (λ = 0) would be multiplied for nothing.
                    let weight = by_length[end - start - 1];
                    if weight > 0.0 {
                        pairs.start.push((row + start) as i32);
                        pairs.end.push((row + end) as i32);
                        pairs.weight.push((weight / norm) as f32);
                    }
                }
            }
        }
        pairs
    }
}

/// Sub-trajectories by the positions of their ends in a layout of `[b, longest + 1]` states, with
/// weights that sum to 1. A list, as a padded square is mostly padding.
struct Pairs {
    start: Vec<i32>,
    end: Vec<i32>,
    weight: Vec<f32>,
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
        let slots = upload_ints(slots, &device);
        let padded = |values: Tensor<1>| {
            let values = Tensor::cat(vec![values, Tensor::zeros([1], &device)], 0);
            values.select(0, slots.clone()).reshape([b, width - 1])
        };
        let first = offsets[..b].iter().map(|&offset| offset as i32).collect();
        let initial =
            scored.log_flow_source().select(0, upload_ints(first, &device)).reshape([b, 1]);
        let ratio = padded(scored.log_pf.clone() - scored.log_pb.clone()).cumsum(1);
        let flows = padded(scored.log_flow_child(self.log_reward_min));
        let v = Tensor::cat(vec![initial, flows - ratio], 1);

        let v = v.reshape([b * width]);
        let Pairs { start, end, weight } = self.pairs(&lens);
        let weight = TensorData::new(weight, [start.len()]);
        let residual = v.clone().select(0, upload_ints(start, &device))
            - v.select(0, upload_ints(end, &device));
        (self.penalty.of(residual) * Tensor::<1>::from_data(weight, &device)).sum()
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
                let sum: f64 = subtb.pairs(&[1, 3, 2]).weight.iter().map(|&w| f64::from(w)).sum();
                assert!((sum - 1.0).abs() < 1e-6, "{weighting:?} {lambda}: {sum}");
            }
        }
        // Two transitions: lengths 1, 2, 1 with weights 1, λ, 1 over 2 + λ.
        let subtb = SubTrajectoryBalance { lambda: 0.5, ..Default::default() };
        let pairs = subtb.pairs(&[2]);
        assert_eq!((pairs.start, pairs.end), (vec![0, 0, 1], vec![1, 2, 2]));
        for (weight, expected) in pairs.weight.iter().zip([0.4, 0.2, 0.4]) {
            assert!((weight - expected).abs() < 1e-7);
        }
        // λ = 0 keeps single transitions only; the second trajectory starts at the fourth slot.
        let db = SubTrajectoryBalance { lambda: 0.0, ..Default::default() };
        let pairs = db.pairs(&[2, 1]);
        assert_eq!((pairs.start, pairs.end), (vec![0, 1, 3], vec![1, 2, 4]));
        assert_eq!(pairs.weight, [0.25, 0.25, 0.5]);
    }
}
