//! The naive learned backward policy: trained by the objective itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackwardAxis, BackwardContext, BackwardStrategy, PbSource, Rate, check_rates};
use crate::KeyError;
use crate::registry::Kind;

/// P_B is a head of the network and receives the gradient of the objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Naive {
    /// Learning rate of P_B's own parameters; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
}

impl Default for Naive {
    fn default() -> Self {
        Self { lr: None, lr_decay: 1.0 }
    }
}

impl Kind<BackwardAxis> for Naive {
    const NAME: &'static str = "naive";
    const ALIASES: &'static [&'static str] = &["learned"];
    const SUMMARY: &'static str = "learned, by the gradient of the objective";
    const PAPER: Option<&'static str> = Some("arXiv:2201.13259");

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        Ok(Box::new(self.clone()))
    }
}

impl BackwardStrategy for Naive {
    fn source(&self) -> PbSource {
        PbSource::Trained
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }
}
