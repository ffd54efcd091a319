//! From raw values to log R: the normalisations of the papers, one line each.

use gfn_core::KeyError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a raw value y(x) becomes log R(x): in this order, and only the steps that are given,
/// y ← (y - zero) / (one - zero); y ← sigmoid(s y); y ← min(max(y, floor), ceiling); R = (scale y)^exponent; R ← r_max R / R(largest);
/// R ← max(R, reward_floor); R ← R^beta.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Transform {
    /// The raw value that counts as 0, where values are rescaled first; it goes with `one`. Of values
    /// of which less is better it is the larger one: `zero` = q + w and `one` = q make y into
    /// 1 - (y - q)/w.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero: Option<f64>,
    /// The raw value that counts as 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one: Option<f64>,
    /// The slope s of a logistic function, 1/(1 + exp(-s y)), applied next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigmoid: Option<f64>,
    /// Values below this are raised to it, before the power. Needed if values can be 0 or less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Values above this are lowered to it, before the power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<f64>,
    /// Factor before the power.
    pub scale: f64,
    /// Power to which values are raised.
    pub exponent: f64,
    /// Rewards are scaled so that the largest is this; none keeps them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r_max: Option<f64>,
    /// The raw value whose reward becomes `r_max`. Default: that of the best object of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<f64>,
    /// Rewards below this are raised to it, after the power and the scaling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward_floor: Option<f64>,
    /// Inverse temperature: the power to which the finished reward is raised.
    pub beta: f64,
}

impl Default for Transform {
    fn default() -> Self {
        Self {
            zero: None,
            one: None,
            sigmoid: None,
            floor: None,
            ceiling: None,
            scale: 1.0,
            exponent: 1.0,
            r_max: None,
            largest: None,
            reward_floor: None,
            beta: 1.0,
        }
    }
}

impl Transform {
    /// Whether this changes nothing; such a table is left out of resolved specs.
    pub fn is_identity(&self) -> bool {
        *self == Self::default()
    }

    /// Whether smaller raw values have larger rewards.
    pub fn less_is_better(&self) -> bool {
        self.zero.zip(self.one).is_some_and(|(zero, one)| one < zero)
    }

    /// The best of raw values: the one with the largest reward.
    pub fn best(&self, values: impl IntoIterator<Item = f64>) -> Option<f64> {
        let values = values.into_iter();
        if self.less_is_better() { values.reduce(f64::min) } else { values.reduce(f64::max) }
    }

    /// The transform with its constants worked out. `largest` is the raw value with the largest
    /// reward, where it is known.
    ///
    /// # Errors
    /// When a number is out of range, or `r_max` is given without a largest value.
    pub fn prepare(&self, largest: Option<f64>) -> Result<LogReward, KeyError> {
        let positive = [
            ("sigmoid", self.sigmoid),
            ("floor", self.floor),
            ("ceiling", self.ceiling),
            ("scale", Some(self.scale)),
            ("exponent", Some(self.exponent)),
            ("r_max", self.r_max),
            ("reward_floor", self.reward_floor),
            ("beta", Some(self.beta)),
        ];
        for (key, value) in positive {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                let message = format!("transform.{key} must be above 0, not {value}");
                return Err(KeyError::new("transform", message));
            }
        }
        let wrong = match (self.zero, self.one) {
            (None, None) => None,
            (Some(zero), Some(one)) if (one - zero).is_finite() && (one - zero).abs() > 0.0 => None,
            (Some(zero), Some(one)) => {
                Some(format!("must be two different numbers, not {zero} and {one}"))
            }
            _ => Some("go together: one of them is missing".to_owned()),
        };
        if let Some(wrong) = wrong {
            let message = format!("transform.zero and transform.one {wrong}");
            return Err(KeyError::new("transform", message)
                .help("zero is the raw value that counts as 0, one that which counts as 1"));
        }
        if let (Some(floor), Some(ceiling)) = (self.floor, self.ceiling)
            && floor > ceiling
        {
            let message = format!("transform.floor {floor} is above transform.ceiling {ceiling}");
            return Err(KeyError::new("transform", message));
        }
        let mut log_reward = LogReward { transform: self.clone(), log_scale: 0.0 };
        if let Some(r_max) = self.r_max {
            let Some(largest) = self.largest.or(largest) else {
                let message = "transform.r_max needs transform.largest, the largest raw value";
                return Err(KeyError::new("transform", message)
                    .help("only tables know their largest value by themselves"));
            };
            let Some(log_largest) = log_reward.unscaled(largest) else {
                let message = format!("the largest value {largest} has no positive reward");
                return Err(KeyError::new("transform", message)
                    .help("set a positive floor, for example reward.transform.floor = 1e-3"));
            };
            log_reward.log_scale = r_max.ln() - log_largest;
        }
        Ok(log_reward)
    }
}

/// A prepared [`Transform`].
#[derive(Clone, Debug)]
pub struct LogReward {
    transform: Transform,
    log_scale: f64,
}

impl LogReward {
    /// log of (scale y)^exponent; none if that is not positive.
    fn unscaled(&self, y: f64) -> Option<f64> {
        let t = &self.transform;
        let y = t.zero.zip(t.one).map_or(y, |(zero, one)| (y - zero) / (one - zero));
        let y = t.sigmoid.map_or(y, |slope| 1.0 / (1.0 + (-slope * y).exp()));
        let y = t.floor.map_or(y, |floor| y.max(floor));
        let y = t.ceiling.map_or(y, |ceiling| y.min(ceiling)) * t.scale;
        (y > 0.0).then(|| t.exponent * y.ln())
    }

    /// See [`Transform::less_is_better`].
    pub fn less_is_better(&self) -> bool {
        self.transform.less_is_better()
    }

    /// log R of a raw value, in nats; none if R would not be positive.
    pub fn of(&self, y: f64) -> Option<f64> {
        let t = &self.transform;
        let log_reward = self.unscaled(y).map(|log_reward| log_reward + self.log_scale);
        let log_floor = t.reward_floor.map(f64::ln);
        let floored = match (log_reward, log_floor) {
            (Some(log_reward), Some(log_floor)) => Some(log_reward.max(log_floor)),
            (log_reward, log_floor) => log_reward.or(log_floor),
        };
        floored.map(|log_reward| t.beta * log_reward)
    }

    /// The error for a value without a positive reward.
    pub fn refusal(&self, what: &str, y: f64) -> KeyError {
        let message = format!("{what} has the value {y}, whose reward would not be positive");
        KeyError::new("transform", message)
            .help("set a positive floor, for example reward.transform.floor = 1e-3")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_in_its_place() {
        let transform = Transform {
            zero: Some(1.0),
            one: Some(3.0),
            sigmoid: Some(3.0),
            floor: Some(0.2),
            ceiling: Some(0.75),
            scale: 0.5,
            exponent: 3.0,
            r_max: Some(10.0),
            largest: Some(2.0),
            reward_floor: Some(1e-2),
            beta: 1.5,
        };
        let log_reward = transform.prepare(None).unwrap();
        let by_hand = |y: f64| {
            let squashed = |y: f64| {
                let y: f64 = 1.0 / (1.0 + f64::exp(-1.5 * (y - 1.0)));
                y.clamp(0.2, 0.75) * 0.5
            };
            let reward: f64 = 10.0 * (squashed(y) / squashed(2.0)).powi(3);
            reward.max(1e-2).powf(1.5).ln()
        };
        for y in [-5.0, -0.4, 0.0, 0.3, 1.5, 2.0] {
            assert!((log_reward.of(y).unwrap() - by_hand(y)).abs() < 1e-12, "{y}");
        }
    }

    /// The reward of gaps of molecules in arXiv:2302.01687: clip(1 - (y - q)/w, lo, hi)^beta.
    #[test]
    fn less_can_be_better() {
        let (q, w) = (0.1760, 0.5975);
        let transform = Transform {
            zero: Some(q + w),
            one: Some(q),
            floor: Some(1e-4),
            ceiling: Some(2.0),
            beta: 32.0,
            ..Default::default()
        };
        let log_reward = transform.prepare(None).unwrap();
        for gap in [-1.0, 0.02, q, 0.25, 0.6, q + w, 1.0] {
            let expected = 32.0 * f64::clamp(1.0 - (gap - q) / w, 1e-4, 2.0).ln();
            assert!((log_reward.of(gap).unwrap() - expected).abs() < 1e-9, "{gap}");
        }
        assert!(transform.less_is_better() && log_reward.less_is_better());
        assert_eq!(transform.best([0.3, 0.1, 0.2]), Some(0.1));
        assert_eq!(Transform::default().best([0.3, 0.1, 0.2]), Some(0.3));
        for (zero, one) in [(Some(1.0), None), (Some(1.0), Some(1.0)), (None, Some(f64::NAN))] {
            let wrong = Transform { zero, one, ..Default::default() };
            assert!(wrong.prepare(None).unwrap_err().message.contains("transform.zero"));
        }
        let crossed = Transform { floor: Some(2.0), ceiling: Some(1.0), ..Default::default() };
        assert!(crossed.prepare(None).unwrap_err().message.contains("above transform.ceiling"));
    }

    #[test]
    fn values_without_reward_are_refused_or_floored() {
        let plain = Transform::default().prepare(None).unwrap();
        assert_eq!(plain.of(0.0), None);
        assert_eq!(plain.of(-1.0), None);
        assert!((plain.of(3.0).unwrap() - 3f64.ln()).abs() < 1e-15);
        let floored = Transform { reward_floor: Some(1e-3), ..Default::default() };
        assert!((floored.prepare(None).unwrap().of(-1.0).unwrap() - 1e-3f64.ln()).abs() < 1e-15);
        let unknown = Transform { r_max: Some(1.0), ..Default::default() };
        assert!(unknown.prepare(None).unwrap_err().message.contains("largest"));
        let wrong = Transform { exponent: f64::NAN, ..Default::default() };
        assert!(wrong.prepare(None).unwrap_err().message.contains("transform.exponent"));
    }
}
