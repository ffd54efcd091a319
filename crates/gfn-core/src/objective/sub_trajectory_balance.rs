//! Sub-trajectory balance, SubTB(λ) (Madan et al. 2023, arXiv:2209.12782).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis, Penalty, check_log_reward_min, loss_by_hand};
use crate::KeyError;
use crate::network::upload_ints;
use crate::registry::Kind;
use crate::scored::{HostLoss, HostScored, Scored};

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
    /// Weight of a sub-trajectory by its length − 1, for every trajectory of `lens` transitions.
    fn weights(&self, lens: &[usize]) -> Vec<Vec<f64>> {
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
        let normalised = |&n: &usize| {
            let norm = match self.weighting {
                Weighting::GeometricWithin | Weighting::EqualWithin => total(n) * lens.len() as f64,
                Weighting::Geometric | Weighting::Equal => batch_total,
            };
            by_length[..n].iter().map(|weight| weight / norm).collect()
        };
        lens.iter().map(normalised).collect()
    }

    /// The loss and its derivatives, in this order: by log P_F − log P_B of every transition, by log F
    /// at its end, and by log F where each trajectory starts.
    fn with_derivatives(
        &self,
        offsets: &[u32],
        ratio: &[f32],
        flow: &[f32],
        initial: &[f32],
    ) -> (f64, Vec<f32>) {
        let m = ratio.len();
        let lens: Vec<usize> = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
        let (mut loss, mut gradient) = (0.0, vec![0.0f32; 2 * m + initial.len()]);
        for (i, weights) in self.weights(&lens).iter().enumerate() {
            let range = offsets[i] as usize..offsets[i + 1] as usize;
            // With C_t = Σ_{u<t} (log P_F − log P_B) and v_t = log F(s_t) − C_t, the residual
            // of s_i → s_j is v_i − v_j.
            let mut v = vec![f64::from(initial[i])];
            let mut sum = 0.0;
            for (&ratio, &flow) in ratio[range.clone()].iter().zip(&flow[range.clone()]) {
                sum += f64::from(ratio);
                v.push(f64::from(flow) - sum);
            }
            let mut of_v = vec![0.0; v.len()];
            for start in 0..lens[i] {
                for end in start + 1..v.len() {
                    let (penalty, derivative) = self.penalty.at(v[start] - v[end]);
                    let weight = weights[end - start - 1];
                    loss += weight * penalty;
                    of_v[start] += weight * derivative;
                    of_v[end] -= weight * derivative;
                }
            }
            gradient[2 * m + i] = of_v[0] as f32;
            // C_t holds every ratio before t.
            let mut after = 0.0;
            for t in (0..lens[i]).rev() {
                after += of_v[t + 1];
                gradient[range.start + t] = -after as f32;
                gradient[m + range.start + t] = of_v[t + 1] as f32;
            }
        }
        (loss, gradient)
    }
}

impl Objective for SubTrajectoryBalance {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let offsets = scored.batch.offsets.clone();
        let b = scored.batch.len();
        let first = offsets[..b].iter().map(|&offset| offset as i32).collect();
        let initial = scored.log_flow_source().select(0, upload_ints(first, scored.batch.device()));
        let ratio = scored.log_pf() - scored.log_pb();
        let flow = scored.log_flow_child(self.log_reward_min);
        let m = scored.batch.n_transitions();
        loss_by_hand(Tensor::cat(vec![ratio, flow, initial], 0), |values| {
            let (ratio, rest) = values.split_at(m);
            let (flow, initial) = rest.split_at(m);
            self.with_derivatives(&offsets, ratio, flow, initial)
        })
    }

    fn by_hand(&self, scored: &HostScored<'_>) -> Option<HostLoss> {
        let (batch, log_flow) = (scored.batch, scored.log_flow());
        let m = batch.n_transitions();
        let [source, child] = [&batch.forward, &batch.backward].map(|choices| choices.rows());
        let ratio: Vec<f32> =
            scored.log_pf.iter().zip(&scored.log_pb).map(|(pf, pb)| pf - pb).collect();
        let mut flow: Vec<f32> = child.iter().map(|&row| log_flow[row as usize]).collect();
        let ends = || batch.offsets[1..].iter().map(|&end| end as usize - 1);
        for (end, log_reward) in ends().zip(batch.clipped_log_reward(self.log_reward_min)) {
            flow[end] = log_reward;
        }
        let first = || batch.offsets[..batch.len()].iter().map(|&t| source[t as usize] as usize);
        let initial: Vec<f32> = first().map(|row| log_flow[row]).collect();
        let (loss, mut gradient) = self.with_derivatives(&batch.offsets, &ratio, &flow, &initial);
        let (of_ratio, rest) = gradient.split_at_mut(m);
        let (of_child, of_initial) = rest.split_at_mut(m);
        ends().for_each(|end| of_child[end] = 0.0);
        let mut of_flow = vec![0.0; log_flow.len()];
        for (&row, of_child) in child.iter().zip(of_child) {
            of_flow[row as usize] += *of_child;
        }
        for (row, of_initial) in first().zip(of_initial) {
            of_flow[row] += *of_initial;
        }
        let loss = HostLoss::of_ratios(loss, of_ratio.to_vec());
        Some(HostLoss { log_flow: Some(of_flow), ..loss })
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
                let lens = [1, 3, 2];
                let weights = subtb.weights(&lens);
                let of_length = |(n, weights): (usize, &Vec<f64>)| -> f64 {
                    weights.iter().enumerate().map(|(l, w)| (n - l) as f64 * w).sum()
                };
                let sum: f64 = lens.into_iter().zip(&weights).map(of_length).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{weighting:?} {lambda}: {sum}");
            }
        }
        // Two transitions: two sub-trajectories of weight 1 and one of weight λ, over 2 + λ.
        let subtb = SubTrajectoryBalance { lambda: 0.5, ..Default::default() };
        let weights = subtb.weights(&[2]);
        assert!((weights[0][0] - 0.4).abs() < 1e-12);
        assert!((weights[0][1] - 0.2).abs() < 1e-12);
        // λ = 0 keeps single transitions only.
        let db = SubTrajectoryBalance { lambda: 0.0, ..Default::default() };
        assert_eq!(db.weights(&[2, 1]), [vec![0.25, 0.0], vec![0.5]]);
    }
}
