//! Losses over all sub-trajectories s_i → s_j of trajectories (Madan et al. 2023, arXiv:2209.12782).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Penalty;
use crate::learn::expr::Var;
use crate::learn::view::BatchView;

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

/// The weighted mean of penalties of sub-trajectories.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubTrajectories {
    pub(crate) lambda: f64,
    pub(crate) weighting: Weighting,
    pub(crate) penalty: Penalty,
}

impl SubTrajectories {
    /// Weight of a sub-trajectory by its length − 1, for every trajectory of `lens` transitions.
    fn weights(&self, lens: &[usize]) -> Vec<Vec<f64>> {
        use Weighting::{Equal, EqualWithin, Geometric, GeometricWithin};
        let longest = lens.iter().max().copied().unwrap_or(0);
        // Relative to the largest weight: powers of a large λ overflow.
        let relative_to = |n: usize| if self.lambda > 1.0 { n as i32 - 1 } else { 0 };
        let by_length = |n: usize| -> Vec<f64> {
            let weight = |l: usize| match self.weighting {
                GeometricWithin => self.lambda.powi(l as i32 - relative_to(n)),
                Geometric => self.lambda.powi(l as i32 - relative_to(longest)),
                EqualWithin | Equal => 1.0,
            };
            (0..n).map(weight).collect()
        };
        let mut weights: Vec<Vec<f64>> = lens.iter().map(|&n| by_length(n)).collect();
        // n transitions have n − l + 1 sub-trajectories of length l.
        let total = |weights: &[f64]| -> f64 {
            let n = weights.len();
            weights.iter().enumerate().map(|(l, weight)| (n - l) as f64 * weight).sum()
        };
        let batch_total: f64 = weights.iter().map(|weights| total(weights)).sum();
        for weights in &mut weights {
            let norm = match self.weighting {
                GeometricWithin | EqualWithin => total(weights) * lens.len() as f64,
                Geometric | Equal => batch_total,
            };
            weights.iter_mut().for_each(|weight| *weight /= norm);
        }
        weights
    }

    /// The weighted mean of penalties of φ(s_i) + Σ ratio − φ(s_j), with ratios of transitions `[m]`, and φ of
    /// their ends `[m]` and of the first states of trajectories `[b]`.
    ///
    /// One operation for all pairs of states: a loss over vectors would need one entry for each.
    pub(crate) fn loss<'t>(
        &self,
        batch: &BatchView<'_, 't>,
        ratio: Var<'t>,
        ends: Var<'t>,
        initial: Var<'t>,
    ) -> Var<'t> {
        let offsets = batch.offsets();
        let (ratios, flows, initials) = (ratio.value(), ends.value(), initial.value());
        let lens: Vec<usize> = offsets.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
        let (mut of_ratio, mut of_flow) = (vec![0.0; ratios.len()], vec![0.0; ratios.len()]);
        let (mut loss, mut of_initial) = (0.0, vec![0.0; initials.len()]);
        let (mut v, mut of_v) = (Vec::new(), Vec::new());
        let mut losses = Vec::with_capacity(lens.len());
        for (i, weights) in self.weights(&lens).iter().enumerate() {
            let range = offsets[i] as usize..offsets[i + 1] as usize;
            // With C_t = Σ_{u<t} ratio_u and v_t = φ(s_t) − C_t, the residual
            // of s_i → s_j is v_i − v_j.
            v.clear();
            v.push(initials[i]);
            let mut sum = 0.0;
            for (ratio, flow) in ratios[range.clone()].iter().zip(&flows[range.clone()]) {
                sum += ratio;
                v.push(flow - sum);
            }
            of_v.clear();
            of_v.resize(v.len(), 0.0);
            let counts = batch.batch.weights.as_ref().map_or(1.0, |weights| weights[i]);
            let mut own = 0.0;
            for start in 0..lens[i] {
                for end in start + 1..v.len() {
                    let (penalty, derivative) = self.penalty.at(v[start] - v[end]);
                    let weight = weights[end - start - 1] * counts;
                    loss += weight * penalty;
                    own += weights[end - start - 1] * penalty;
                    of_v[start] += weight * derivative;
                    of_v[end] -= weight * derivative;
                }
            }
            losses.push(own * lens.len() as f64);
            of_initial[i] = of_v[0];
            // C_t holds every ratio before t.
            let mut after = 0.0;
            for t in (0..lens[i]).rev() {
                after += of_v[t + 1];
                of_ratio[range.start + t] = -after;
                of_flow[range.start + t] = of_v[t + 1];
            }
        }
        batch.note_losses(losses);
        batch.custom(loss, vec![(ratio, of_ratio), (ends, of_flow), (initial, of_initial)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometric_within(lambda: f64) -> SubTrajectories {
        let (weighting, penalty) = (Weighting::GeometricWithin, Penalty::Squared);
        SubTrajectories { lambda, weighting, penalty }
    }

    #[test]
    fn weights_sum_to_one_and_follow_the_formula() {
        for weighting in [
            Weighting::GeometricWithin,
            Weighting::Geometric,
            Weighting::EqualWithin,
            Weighting::Equal,
        ] {
            for lambda in [0.0, 0.5, 1.0, 1.9] {
                let subtb = SubTrajectories { lambda, weighting, penalty: Penalty::Squared };
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
        let subtb = geometric_within(0.5);
        let weights = subtb.weights(&[2]);
        assert!((weights[0][0] - 0.4).abs() < 1e-12);
        assert!((weights[0][1] - 0.2).abs() < 1e-12);
        // Powers of λ up to 1,200 transitions overflow; their ratios do not.
        for weighting in [Weighting::GeometricWithin, Weighting::Geometric] {
            let long = SubTrajectories { weighting, ..geometric_within(1.9) };
            let weights = long.weights(&[1200, 3]);
            assert!(weights.iter().flatten().all(|weight| weight.is_finite()), "{weighting:?}");
            let ratio = weights[0][1199] / weights[0][1198];
            assert!((ratio - 1.9).abs() < 1e-12, "{weighting:?}: {ratio}");
        }
        let long = geometric_within(1.9);
        // Three transitions: weights 1, 1.9, 3.61 for 3, 2 and 1 sub-trajectories, of two
        // trajectories.
        assert!((long.weights(&[1200, 3])[1][2] - 3.61 / (2.0 * 10.41)).abs() < 1e-12);
        // λ = 0 keeps single transitions only.
        let db = geometric_within(0.0);
        assert_eq!(db.weights(&[2, 1]), [vec![0.25, 0.0], vec![0.5]]);
    }
}
