//! Guides: policies that P_B is drawn to instead of P_F (Niu et al. 2024, arXiv:2408.05885, RL-G).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::learn::batch::End;
use crate::learn::view::BatchView;
use crate::learn::{Substructures, walks};
use crate::{Environment, KeyError};

/// A guide. It shapes P_B alone; what the objective samples at its optimum stays P ∝ R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guide {
    /// P_F that does not stop where the reward is small.
    Stop(StopGuide),
    /// Steps to states that are parts of objects with large rewards.
    Substructures(Substructures),
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
    /// Checks its settings, and that it suits an environment.
    ///
    /// # Errors
    /// With the key `guide`.
    pub(super) fn check(&self, env: &dyn Environment) -> Result<(), KeyError> {
        match self {
            Self::Stop(guide) => guide.check(),
            Self::Substructures(guide) => {
                guide.check()?;
                guide.check_parts(env, &walks(env, 8))
            }
        }
    }

    /// Whether it needs states that can be stopped at anywhere.
    pub(super) fn stops_anywhere(&self) -> bool {
        matches!(self, Self::Stop(_))
    }

    /// What has to be remembered for it.
    pub(super) fn remembers(&self) -> Option<Substructures> {
        match self {
            Self::Stop(_) => None,
            Self::Substructures(guide) => Some(guide.clone()),
        }
    }

    /// log P_G of every transition.
    pub(super) fn log_probs(&self, batch: &BatchView<'_, '_>) -> Vec<f64> {
        match self {
            Self::Stop(guide) => guide.log_probs(batch),
            Self::Substructures(_) => {
                let known = batch.batch.log_guide.clone();
                assert_eq!(known.len(), batch.batch.len(), "the trainer remembers objects");
                known
            }
        }
    }
}

impl StopGuide {
    fn check(&self) -> Result<(), KeyError> {
        let Self { quantile, log_reward, most } = self;
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

    fn log_probs(&self, batch: &BatchView<'_, '_>) -> Vec<f64> {
        let log_pf = batch.log_pf().value();
        let log_stop = batch.log_pf_of_stop().value();
        let log_reward = batch.log_reward_along(End::From, None).value();
        let threshold = self.log_reward.unwrap_or_else(|| quantile(&log_reward, self.quantile));
        let of = |t: usize| {
            let stops = batch.batch.terminal[t];
            if log_reward[t] > threshold || log_stop[t].exp() <= self.most {
                log_pf[t]
            } else if stops {
                self.most.ln()
            } else {
                // The rest of P_F is above 0, as it has just gone on.
                log_pf[t] + (-self.most).ln_1p() - (-log_stop[t].exp()).ln_1p()
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
