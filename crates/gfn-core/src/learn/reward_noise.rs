//! Noise on the rewards that losses see: how objectives bear rewards that are measured or learned. Metrics
//! and samples see the true ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::normal::normal;
use crate::rng::{Purpose, Streams, mix};
use crate::{KeyError, States};

/// What a number of the noise belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// An object: the same whenever it comes again. The target is another one then, R(x) exp(sigma eps(x)).
    Object,
    /// A call for a reward: fresh every time. Objects kept for replay keep theirs.
    #[default]
    Call,
}

/// Losses see log R + sigma eps, with eps standard normal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewardNoise {
    /// Standard deviation, in nats; 0 for none.
    pub sigma: f64,
    /// Whether eps belongs to objects (of a run: its seed counts) or to calls.
    pub per: Per,
}

impl Default for RewardNoise {
    fn default() -> Self {
        Self { sigma: 0.5, per: Per::Call }
    }
}

/// A call for the reward of an object, the others of a batch being the next ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The streams that noise per call comes from.
    pub streams: Streams,
    /// The iteration.
    pub step: u64,
    /// Its number, among all that share the streams and the iteration.
    pub number: u64,
}

impl RewardNoise {
    /// Checks the numbers.
    ///
    /// # Errors
    /// With the key `reward_noise`.
    pub fn check(&self) -> Result<(), KeyError> {
        if self.sigma >= 0.0 && self.sigma.is_finite() {
            return Ok(());
        }
        let message = format!("`sigma` must be at least 0, not {}", self.sigma);
        Err(KeyError::new("reward_noise", message)
            .help("it is a standard deviation of log R in nats; 0 for none"))
    }

    /// Adds noise to log R of objects: per object from `streams`, per call from those of the calls, and
    /// none where there are no calls.
    pub(super) fn add(
        &self,
        streams: Streams,
        first: Option<Call>,
        objects: &States,
        log_reward: &mut [f64],
    ) {
        if self.sigma == 0.0 {
            return;
        }
        let of_row = |hash: u64, &cell: &i32| mix(hash ^ u64::from(cell as u32));
        for ((log_reward, row), i) in log_reward.iter_mut().zip(objects.rows()).zip(0..) {
            let mut rng = match (self.per, first) {
                (Per::Object, _) => streams.get(Purpose::RewardNoise, row.iter().fold(0, of_row)),
                (Per::Call, Some(Call { streams, step, number })) => {
                    streams.at(Purpose::RewardNoise, step, number + i)
                }
                (Per::Call, None) => return,
            };
            *log_reward += self.sigma * normal(&mut rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(n: i32) -> States {
        let mut objects = States::new(2);
        (0..n).for_each(|i| objects.push(&[i % 100, i / 100]));
        objects
    }

    fn noise(per: Per, streams: Streams, call: Option<Call>, objects: &States) -> Vec<f64> {
        let mut log_reward = vec![1.0; objects.len()];
        RewardNoise { sigma: 0.5, per }.add(streams, call, objects, &mut log_reward);
        log_reward
    }

    fn call(seed: u64, step: u64, number: u64) -> Option<Call> {
        Some(Call { streams: Streams::new(seed), step, number })
    }

    /// Mean, variance, and no correlation of one object or call with the next.
    #[test]
    fn noise_has_its_law() {
        let objects = objects(40_000);
        for per in [Per::Object, Per::Call] {
            let values = noise(per, Streams::new(3), call(3, 7, 1000), &objects);
            let n = values.len() as f64;
            let eps: Vec<f64> = values.iter().map(|value| (value - 1.0) / 0.5).collect();
            let mean = eps.iter().sum::<f64>() / n;
            let variance = eps.iter().map(|e| e * e).sum::<f64>() / n;
            let next = eps.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / n;
            // Standard errors 1, sqrt 2 and 1 over sqrt n.
            for (got, expected, error) in
                [(mean, 0.0, 1.0), (variance, 1.0, 2f64.sqrt()), (next, 0.0, 1.0)]
            {
                let z = (got - expected) / (error / n.sqrt());
                assert!(z.abs() < 4.0, "{per:?}: {mean} {variance} {next}");
            }
        }
    }

    #[test]
    fn objects_keep_their_noise_and_calls_do_not() {
        let (all, streams) = (objects(50), Streams::new(3));
        let mut twice = States::new(2);
        [7, 3, 7].into_iter().for_each(|i| twice.push(all.row(i)));
        let known = noise(Per::Object, streams, call(0, 0, 0), &all);
        let again = noise(Per::Object, streams, call(9, 5, 77), &twice);
        assert_eq!(again, [known[7], known[3], known[7]]);
        assert_ne!(known, noise(Per::Object, Streams::new(4), None, &all));

        let fresh = noise(Per::Call, streams, call(1, 5, 10), &twice);
        assert_ne!(fresh[0], fresh[2]);
        assert_eq!(fresh, noise(Per::Call, Streams::new(4), call(1, 5, 10), &twice));
        // A batch in two parts is the same batch; other iterations are others.
        let rest = noise(Per::Call, streams, call(1, 5, 12), &twice);
        assert_eq!(fresh[2], rest[0]);
        assert_ne!(fresh, noise(Per::Call, streams, call(1, 6, 10), &twice));
        assert_eq!(noise(Per::Call, streams, None, &twice), [1.0; 3]);
    }

    #[test]
    fn standard_deviations_are_checked() {
        for (sigma, legal) in
            [(0.0, true), (2.0, true), (-1.0, false), (f64::NAN, false), (f64::INFINITY, false)]
        {
            let noise = RewardNoise { sigma, per: Per::Call };
            assert_eq!(noise.check().is_ok(), legal, "{sigma}");
        }
    }
}
