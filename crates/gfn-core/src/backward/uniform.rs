//! The uniform backward policy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackwardAxis, BackwardContext, BackwardStrategy, PbSource};
use crate::KeyError;
use crate::registry::Kind;

/// P_B uniform over the legal backward actions of the child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uniform {}

impl Kind<BackwardAxis> for Uniform {
    const NAME: &'static str = "uniform";
    const SUMMARY: &'static str = "uniform over the legal backward actions";

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        Ok(Box::new(self.clone()))
    }
}

impl BackwardStrategy for Uniform {
    fn source(&self) -> PbSource {
        PbSource::Fixed
    }
}
