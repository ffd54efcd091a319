//! Evidence bounds on log Z.

use rand::RngExt;

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
    estimate_log_probs,
};
use crate::rng::Purpose;
use crate::{KeyError, States};

pub(super) struct ElboEubo {
    /// Samples of the target itself with their log R, drawn when they are first needed; none where the
    /// reward has none.
    of_target: Option<Option<(States, Vec<f64>)>>,
}

impl MetricKind for ElboEubo {
    const NAME: &'static str = "elbo_eubo";
    const SUMMARY: &'static str = "lower and upper evidence bounds on log Z";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self { of_target: None })
    }
}

impl ElboEubo {
    /// The mean of log R(x) + log P_B(tau|x) - log P_F(tau) over samples x of the target itself, with its
    /// standard error; none where the reward has no such samples.
    fn eubo(&mut self, eval: &EvalContext<'_>) -> Result<(Option<f64>, Option<f64>), MetricError> {
        if self.of_target.is_none() {
            let seed = eval.streams.get(Purpose::ExactSample, 0).random();
            let drawn = match eval.fixed.reward.exact_samples(eval.fixed.samples, seed) {
                Some(samples) => {
                    let mut log_reward = vec![0.0; samples.len()];
                    eval.fixed.reward.log_reward(&samples, &mut log_reward)?;
                    Some((samples, log_reward))
                }
                None => None,
            };
            self.of_target = Some(drawn);
        }
        let Some(Some((samples, log_reward))) = &self.of_target else {
            return Ok((None, None));
        };
        // From a single trajectory, the estimate of log P_T is log P_F - log P_B without symmetries.
        let estimates = estimate_log_probs(eval, samples, 1);
        let terms: Vec<f64> =
            log_reward.iter().zip(&estimates).map(|(r, estimate)| r - estimate.log_prob).collect();
        Ok(mean_and_error(&terms))
    }
}

impl Metric for ElboEubo {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new(
                "elbo",
                "nats",
                Better::Higher,
                "E over trajectories of P_F of log R(x) + log P_B(tau|x) - log P_F(tau): exact on \
                 enumerable environments, else the mean over eval.samples fresh trajectories; R as \
                 losses take it, corrected where symmetries of objects make several actions one",
            )
            .headline(1),
            Column::new(
                "elbo_error",
                "nats",
                Better::Neither,
                "standard error of that mean; empty where elbo is exact, and for a single trajectory",
            ),
            Column::new(
                "eubo",
                "nats",
                Better::Lower,
                "the same expectation over x ~ P*, tau ~ P_B(.|x): exact on enumerable \
                 environments; else the mean over eval.samples exact samples of the target, the same \
                 at every evaluation, where the reward can draw them; else empty",
            ),
            Column::new(
                "eubo_error",
                "nats",
                Better::Neither,
                "standard error of that mean; empty where eubo is exact or empty",
            ),
        ]
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        if let Some(exact) = &eval.fixed.exact {
            let (log_pf, log_pb) = (eval.log_pf(exact), eval.log_pb(exact));
            let (elbo, eubo) = exact.graph.bounds(&exact.target, log_pf, log_pb);
            return Ok(vec![Some(elbo), None, Some(eubo), None]);
        }
        let samples = eval.samples()?;
        let (log_pf, log_pb) = eval.log_probs_of(samples);
        let env = &*eval.fixed.env;
        let log_reward = |i| samples.log_reward[i] + env.log_symmetry(samples.terminal(i));
        let terms: Vec<f64> =
            (0..samples.len()).map(|i| log_reward(i) + log_pb[i] - log_pf[i]).collect();
        let (mean, error) = mean_and_error(&terms);
        let (eubo, eubo_error) = self.eubo(eval)?;
        Ok(vec![mean, error, eubo, eubo_error])
    }
}

/// The mean, and its standard error; none without enough terms.
pub(super) fn mean_and_error(terms: &[f64]) -> (Option<f64>, Option<f64>) {
    let n = terms.len() as f64;
    let mean = terms.iter().sum::<f64>() / n;
    let squares = terms.iter().map(|term| (term - mean) * (term - mean)).sum::<f64>();
    let error = (squares / (n - 1.0) / n).sqrt();
    ((n > 0.0).then_some(mean), (n > 1.0).then_some(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_means_of_hand_numbers() {
        // Squares 9 + 1 + 1 + 9, variance 20 / 3 of the terms, 20 / 12 of their mean.
        let (mean, error) = mean_and_error(&[1.0, 3.0, 5.0, 7.0]);
        assert_eq!(mean, Some(4.0));
        assert!((error.unwrap() - (20.0f64 / 12.0).sqrt()).abs() < 1e-14);
        assert_eq!(mean_and_error(&[2.0]), (Some(2.0), None));
        assert_eq!(mean_and_error(&[]), (None, None));
    }
}
