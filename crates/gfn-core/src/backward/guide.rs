//! Guides: policies that P_B is drawn to instead of P_F (Niu et al. 2024, arXiv:2408.05885, RL-G).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyError;
use crate::learn::batch::End;
use crate::learn::view::BatchView;

/// A guide. It shapes P_B alone; what the objective samples at its optimum stays P ∝ R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guide {
    /// P_F that does not stop where the reward is small.
    Stop(StopGuide),
}

/// P_G is P_F, but where log R(s) is not above a threshold, P_G(stop|s) is at most `most` and all other actions
/// have the rest in proportion. Only where every state can be stopped at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopGuide {
    /// The threshold is this quantile of log R over the states of the batch that are left.
    pub quantile: f64,
    /// The threshold itself, in nats, instead of a quantile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward: Option<f64>,
    /// The greatest P_G(stop|s) there, above 0 and below 1.
    pub most: f64,
}

impl Default for StopGuide {
    fn default() -> Self {
        Self { quantile: 0.5, log_reward: None, most: 1e-5 }
    }
}

impl Guide {
    /// Checks its settings.
    ///
    /// # Errors
    /// With the key `guide`.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        let Self::Stop(StopGuide { quantile, log_reward, most }) = self;
        let fail = |message: String| Err(KeyError::new("guide", message));
        if !(0.0..=1.0).contains(quantile) {
            return fail(format!("`quantile` must lie in [0, 1], not {quantile}"));
        }
        if log_reward.is_some_and(f64::is_nan) {
            return fail("`log_reward` must be a number".to_owned());
        }
        if !(*most > 0.0 && *most < 1.0) {
            return fail(format!("`most` must lie between 0 and 1, not {most}"));
        }
        Ok(())
    }

    /// Whether it needs states that can be stopped at anywhere.
    pub(super) fn stops_anywhere(&self) -> bool {
        matches!(self, Self::Stop(_))
    }

    /// log P_G of every transition.
    pub(super) fn log_probs(&self, batch: &BatchView<'_, '_>) -> Vec<f64> {
        let Self::Stop(guide) = self;
        let log_pf = batch.log_pf().value();
        let log_stop = batch.log_pf_of_stop().value();
        let log_reward = batch.log_reward_along(End::From, None).value();
        let threshold = guide.log_reward.unwrap_or_else(|| quantile(&log_reward, guide.quantile));
        let of = |t: usize| {
            let stops = batch.batch.terminal[t];
            if log_reward[t] > threshold || log_stop[t].exp() <= guide.most {
                log_pf[t]
            } else if stops {
                guide.most.ln()
            } else {
                // The rest of P_F is above 0, as it has just gone on.
                log_pf[t] + (-guide.most).ln_1p() - (-log_stop[t].exp()).ln_1p()
            }
        };
        (0..log_pf.len()).map(of).collect()
    }
}

/// The smallest number that at least this share of them does not exceed.
fn quantile(xs: &[f64], share: f64) -> f64 {
    let mut sorted = xs.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numbers_of_the_list() {
        let xs = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(
            [0.0, 0.25, 0.5, 0.51, 1.0].map(|q| quantile(&xs, q)),
            [1.0, 1.0, 2.0, 3.0, 4.0]
        );
        assert_eq!(quantile(&[], 0.5), f64::NEG_INFINITY);
    }
}
