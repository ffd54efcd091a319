//! How much the gradient of the objective varies from batch to batch, at the policy as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind};
use crate::KeyError;

/// Gradients of the objective's main update by the parameters of P_F, those of a shared trunk included,
/// on batches of fresh trajectories.
#[derive(Clone, Debug)]
pub struct GradientSample {
    /// One per batch, all parameters end to end.
    pub gradients: Vec<Vec<f32>>,
    /// Trajectories per batch.
    pub batch: usize,
    /// Mean number of transitions per trajectory.
    pub n_transitions: f64,
}

pub(super) struct Gradient {
    batches: usize,
}

/// What is averaged over.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Batches {
    /// Batches of `train.batch` fresh trajectories, at least 2. Their gradients are held in memory together.
    batches: usize,
}

impl Default for Batches {
    fn default() -> Self {
        Self { batches: 16 }
    }
}

/// More gradients are not held at once.
const MOST: usize = 4096;

impl MetricKind for Gradient {
    const NAME: &'static str = "gradient";
    const SUMMARY: &'static str =
        "norm, variance and agreement of the objective's gradients on fresh batches";
    type Settings = Batches;

    fn build(_: &MetricContext, Batches { batches }: Batches) -> Result<Self, KeyError> {
        if !(2..=MOST).contains(&batches) {
            let message = format!("`batches` must lie in [2, {MOST}], not {batches}");
            return Err(KeyError::new("batches", message));
        }
        Ok(Self { batches })
    }
}

impl Metric for Gradient {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let k = self.batches;
        let of = format!(
            "g_1 … g_{k}: gradients of the objective's main loss by the parameters of P_F (of a \
             shared trunk, too), each on train.batch fresh trajectories without exploration or \
             dropout, with rewards as losses see them (noise included), whose calls are counted \
             nowhere; empty where that loss is not on current trajectories alone, as with replay"
        );
        let column = |name, unit, better, what: &str| {
            Column::new(name, unit, better, format!("{what}; {of}"))
        };
        vec![
            column("gradient_norm", "1", Better::Neither, "norm of the mean of all g_i"),
            column(
                "gradient_variance",
                "1",
                Better::Lower,
                "trace of their sample covariance, times train.batch: the variance per trajectory of \
                 a loss that is a mean over trajectories",
            ),
            column(
                "gradient_variance_step",
                "1",
                Better::Lower,
                "gradient_variance divided by the mean number of transitions of these trajectories",
            ),
            column(
                "gradient_cosine",
                "1",
                Better::Higher,
                "mean over i of the cosine of g_i with the mean of all others",
            ),
        ]
    }

    fn gradient_batches(&self) -> usize {
        self.batches
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(sample) = &eval.gradients else { return Ok(vec![None; 4]) };
        let first = sample.gradients.len().min(self.batches);
        let Some(spread) = Spread::of(&sample.gradients[..first]) else {
            return Ok(vec![None; 4]);
        };
        let variance = spread.variance * sample.batch as f64;
        let per_step = (sample.n_transitions > 0.0).then(|| variance / sample.n_transitions);
        Ok(vec![Some(spread.norm), Some(variance), per_step, spread.cosine])
    }
}

/// What a set of vectors has in common.
struct Spread {
    /// Norm of their mean.
    norm: f64,
    /// Trace of their sample covariance.
    variance: f64,
    /// Mean cosine of each with the mean of the others; none where one of these is 0.
    cosine: Option<f64>,
}

impl Spread {
    /// Of at least two vectors: all of it follows from their inner products.
    fn of(vectors: &[Vec<f32>]) -> Option<Self> {
        let k = vectors.len();
        if k < 2 {
            return None;
        }
        let mut products = vec![0.0; k * k];
        for (i, a) in vectors.iter().enumerate() {
            for (j, b) in vectors[..=i].iter().enumerate() {
                let product: f64 =
                    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                (products[i * k + j], products[j * k + i]) = (product, product);
            }
        }
        // Of each with the sum of all.
        let with_sum: Vec<f64> = products.chunks_exact(k).map(|row| row.iter().sum()).collect();
        let sum_squared: f64 = with_sum.iter().sum();
        let squares: f64 = (0..k).map(|i| products[i * k + i]).sum();
        let n = k as f64;
        let cosine = |i: usize| {
            let square = products[i * k + i];
            let others = sum_squared - 2.0 * with_sum[i] + square;
            let cosine = (with_sum[i] - square) / (square * others).sqrt();
            // What is broken shows; what is 0 has no direction.
            (cosine.is_finite() || sum_squared.is_nan()).then_some(cosine)
        };
        // Rounding may leave what is 0 a hair below; NaN stays NaN.
        let above_zero = |x: f64| if x < 0.0 { 0.0 } else { x };
        Some(Self {
            norm: above_zero(sum_squared).sqrt() / n,
            variance: above_zero((squares - sum_squared / n) / (n - 1.0)),
            cosine: (0..k).map(cosine).sum::<Option<f64>>().map(|sum| sum / n),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_by_hand() {
        // Mean (1, 1); deviations (1, 0), (0, -1) and (-1, 1).
        let spread = Spread::of(&[vec![2.0, 1.0], vec![1.0, 0.0], vec![0.0, 2.0]]).unwrap();
        assert!((spread.norm - 2f64.sqrt()).abs() < 1e-12);
        assert!((spread.variance - 2.0).abs() < 1e-12);
        // With (1, 2), (2, 3) and (3, 1).
        let cosines = [4.0 / 5.0, 2.0 / 13f64.sqrt(), 2.0 / (2.0 * 10f64.sqrt())];
        assert!((spread.cosine.unwrap() - cosines.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        let equal = Spread::of(&[vec![3.0, 4.0], vec![3.0, 4.0]]).unwrap();
        assert!(equal.variance < 1e-12 && (equal.norm - 5.0).abs() < 1e-12);
        assert!((equal.cosine.unwrap() - 1.0).abs() < 1e-12);
        let opposite = Spread::of(&[vec![1.0], vec![-1.0]]).unwrap();
        assert_eq!((opposite.norm, opposite.cosine), (0.0, Some(-1.0)));
        assert_eq!(opposite.variance, 2.0);
    }

    #[test]
    fn vectors_without_a_direction_have_no_cosine() {
        assert_eq!(Spread::of(&[vec![0.0], vec![1.0]]).unwrap().cosine, None);
        assert!(Spread::of(&[vec![1.0]]).is_none());
        let broken = Spread::of(&[vec![f32::NAN], vec![1.0]]).unwrap();
        assert!(broken.norm.is_nan() && broken.variance.is_nan());
        assert!(broken.cosine.is_some_and(f64::is_nan));
    }
}
