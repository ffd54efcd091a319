//! Penalties of residuals: one family for every objective that balances flows.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::KeyError;
use crate::learn::expr::Var;

/// The penalty of a residual Δ = model − target, both as logarithms of flows, such as
/// Δ = log Z + Σ log P_F − log R − Σ log P_B.
///
/// With t = −Δ every penalty is convex with its minimum at t = 0, so all have the same fixed point.
/// They differ in what they forgive: the gradient of the expectation over the model's own
/// trajectories is that of a divergence between the model p and the target q (Hu et al. 2025,
/// arXiv:2410.02596).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Penalty {
    /// t²: twice KL(p‖q).
    #[default]
    Squared,
    /// t²/2 where |t| is below the knee k, else k |t| − k²/2.
    Huber(f64),
    /// (e^(at) − at − 1)/a²: KL(q‖p) at a = 1, which seeks to cover the target; χ²(p, q)/2 at
    /// a = −1, which seeks its modes; four times the squared Hellinger distance at a = 1/2; and
    /// KL(p‖q) as a goes to 0.
    Linex(f64),
    /// e^t + e^(−t) − 2, the sum of `linex` at 1 and at −1.
    Cosh,
}

/// Where the exponentials of a penalty go on as straight lines: a few residuals of a fresh policy
/// would otherwise be all that a batch is about.
const MAX_EXPONENT: f64 = 10.0;

/// e^x with its derivative, as a line from [`MAX_EXPONENT`] on.
fn bounded_exp(x: f64) -> (f64, f64) {
    let slope = x.min(MAX_EXPONENT).exp();
    (slope * (1.0 + (x - MAX_EXPONENT).max(0.0)), slope)
}

impl Penalty {
    /// The penalty of one residual Δ = model − target, and its derivative by Δ.
    pub fn at(self, residual: f64) -> (f64, f64) {
        let t = -residual;
        let (value, by_t) = match self {
            Penalty::Squared => (t * t, 2.0 * t),
            Penalty::Huber(knee) => {
                let clipped = t.clamp(-knee, knee);
                (clipped * (t - clipped * 0.5), clipped)
            }
            Penalty::Linex(a) => {
                let (exp, slope) = bounded_exp(a * t);
                ((exp - a * t - 1.0) / (a * a), (slope - 1.0) / a)
            }
            Penalty::Cosh => {
                let (up, down) = (bounded_exp(t), bounded_exp(-t));
                (up.0 + down.0 - 2.0, up.1 - down.1)
            }
        };
        (value, -by_t)
    }

    /// The penalty of every residual.
    pub fn of(self, residuals: Var<'_>) -> Var<'_> {
        residuals.map(|residual| self.at(residual))
    }

    /// The constant c for which the mean penalty of `residuals` + c is smallest.
    pub fn best_shift(self, residuals: &[f64]) -> f64 {
        let mean = residuals.iter().sum::<f64>() / residuals.len().max(1) as f64;
        if self == Penalty::Squared || !mean.is_finite() {
            return -mean;
        }
        // The derivative by c grows with c, and has its root where residuals reach from one side
        // of 0 to the other.
        let slope = |c: f64| residuals.iter().map(|residual| self.at(residual + c).1).sum::<f64>();
        let (mut low, mut high) =
            residuals.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &residual| {
                (low.min(-residual), high.max(-residual))
            });
        for _ in 0..64 {
            let middle = 0.5 * (low + high);
            if slope(middle) < 0.0 { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }

    /// Checks the number that comes with it.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn check(self) -> Result<(), KeyError> {
        let error = |message: String| Err(KeyError::new("penalty", message));
        match self {
            Penalty::Huber(knee) if !(knee > 0.0 && knee.is_finite()) => {
                error(format!("the knee of huber must be above 0, not {knee}"))
            }
            Penalty::Linex(a) if a == 0.0 || a.is_nan() || a.abs() > 4.0 => error(format!(
                "a of linex must lie in [-4, 4] and not be 0, not {a}"
            ))
            .map_err(|error| error.help("1 covers the target, -1 seeks modes; squared is a = 0")),
            _ => Ok(()),
        }
    }

    /// The penalty of this name, with its number or the default one.
    fn named(name: &str, number: Option<f64>) -> Option<Self> {
        match (name, number) {
            ("squared", None) => Some(Penalty::Squared),
            ("cosh", None) => Some(Penalty::Cosh),
            ("huber", knee) => Some(Penalty::Huber(knee.unwrap_or(1.0))),
            ("linex", a) => Some(Penalty::Linex(a.unwrap_or(1.0))),
            _ => None,
        }
    }
}

/// What a spec may say.
const FORMS: &str =
    "\"squared\", \"huber\", \"linex\", \"cosh\", or { huber = knee }, { linex = a }";

impl Serialize for Penalty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, number) = match *self {
            Penalty::Squared => return serializer.serialize_str("squared"),
            Penalty::Cosh => return serializer.serialize_str("cosh"),
            Penalty::Huber(knee) => ("huber", knee),
            Penalty::Linex(a) => ("linex", a),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &number)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Penalty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Penalty;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(FORMS)
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Penalty, E> {
                Penalty::named(name, None)
                    .ok_or_else(|| E::custom(format!("unknown penalty `{name}`: {FORMS}")))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Penalty, A::Error> {
                let name: Option<String> = map.next_key()?;
                let name = name.ok_or_else(|| A::Error::custom(format!("expected {FORMS}")))?;
                let number = map.next_value()?;
                let more: Option<String> = map.next_key()?;
                Penalty::named(&name, Some(number))
                    .filter(|_| more.is_none())
                    .ok_or_else(|| A::Error::custom(format!("unknown penalty: {FORMS}")))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for Penalty {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Penalty".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "Penalty of a residual model - target.",
            "oneOf": [
                { "enum": ["squared", "huber", "linex", "cosh"] },
                { "type": "object", "properties": { "huber": { "type": "number" } },
                  "required": ["huber"], "additionalProperties": false },
                { "type": "object", "properties": { "linex": { "type": "number" } },
                  "required": ["linex"], "additionalProperties": false },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Penalty; 8] = [
        Penalty::Squared,
        Penalty::Huber(1.0),
        Penalty::Huber(0.5),
        Penalty::Linex(1.0),
        Penalty::Linex(-1.0),
        Penalty::Linex(0.5),
        Penalty::Linex(2.5),
        Penalty::Cosh,
    ];

    #[test]
    fn derivatives_are_those_of_differences_also_beyond_the_bound() {
        for penalty in ALL {
            assert_eq!(penalty.at(0.0), (0.0, 0.0), "{penalty:?}");
            for residual in [-25.0, -2.5, -0.7, 0.3, 1.8, 14.0f64] {
                let h = 1e-5;
                let (value, derivative) = penalty.at(residual);
                let numeric = (penalty.at(residual + h).0 - penalty.at(residual - h).0) / (2.0 * h);
                let scale = 1.0 + derivative.abs();
                assert!((derivative - numeric).abs() < 1e-5 * scale, "{penalty:?} {residual}");
                assert!(value > 0.0 && derivative * residual > 0.0, "{penalty:?} {residual}");
            }
        }
    }

    #[test]
    fn values_follow_the_formulas() {
        // At model - target = -1 the target is e times the model.
        let e = std::f64::consts::E;
        assert!((Penalty::Linex(1.0).at(-1.0).0 - (e - 2.0)).abs() < 1e-14);
        assert!((Penalty::Linex(-1.0).at(-1.0).0 - 1.0 / e).abs() < 1e-14);
        assert!((Penalty::Cosh.at(-1.0).0 - (e + 1.0 / e - 2.0)).abs() < 1e-14);
        assert_eq!(Penalty::Huber(0.5).at(2.0), (0.5 * 2.0 - 0.125, 0.5));
        // Close to 0, a does not matter.
        let small = Penalty::Linex(1e-4).at(0.3).0;
        assert!((small - 0.045).abs() < 1e-5, "{small}");
    }

    #[test]
    fn the_best_shift_is_where_the_mean_penalty_is_smallest() {
        let residuals = [0.3, -1.7, 2.4, 0.1, 5.0];
        let mean = |penalty: Penalty, c: f64| -> f64 {
            residuals.iter().map(|residual| penalty.at(residual + c).0).sum()
        };
        for penalty in ALL {
            let best = penalty.best_shift(&residuals);
            for other in [best - 1e-3, best + 1e-3, best - 1.0, best + 1.0] {
                assert!(mean(penalty, best) < mean(penalty, other), "{penalty:?}");
            }
        }
        assert!((Penalty::Squared.best_shift(&residuals) + 1.22).abs() < 1e-12);
    }

    #[test]
    fn forms_of_a_spec() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Spec {
            penalty: Penalty,
        }
        for (text, penalty) in [
            ("penalty = 'squared'", Penalty::Squared),
            ("penalty = 'huber'", Penalty::Huber(1.0)),
            ("penalty = { huber = 0.5 }", Penalty::Huber(0.5)),
            ("penalty = 'linex'", Penalty::Linex(1.0)),
            ("penalty = { linex = -1 }", Penalty::Linex(-1.0)),
            ("penalty = 'cosh'", Penalty::Cosh),
        ] {
            let spec: Spec = toml::from_str(text).unwrap();
            assert_eq!(spec.penalty, penalty);
            let again = toml::to_string(&spec).unwrap();
            assert_eq!(toml::from_str::<Spec>(&again).unwrap(), spec, "{again}");
        }
        for text in ["'hubert'", "{ cosh = 1 }", "{ huber = 1, linex = 1 }", "{}", "3"] {
            let error = toml::from_str::<Spec>(&format!("penalty = {text}")).unwrap_err();
            assert!(error.message().contains("linex"), "{text}: {}", error.message());
        }
        assert!(Penalty::Linex(0.0).check().is_err() && Penalty::Huber(-1.0).check().is_err());
    }
}
