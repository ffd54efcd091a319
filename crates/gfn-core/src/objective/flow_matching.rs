//! Flow matching (Bengio et al. 2021, arXiv:2106.04399).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Needs, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::registry::Kind;
use crate::scored::Scored;

/// Mean over all visited states but s0 of (log inflow − log outflow)².
///
/// Edge flows are parametrised as F(s) P_F(s'|s), which is as general as a network that outputs
/// edge flows: the outflow of s is then F(s), or R(x) at terminal states, and the inflow of s'
/// sums F(s) P_F(s'|s) over its parents. No backward policy appears.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlowMatching {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Kind<ObjectiveAxis> for FlowMatching {
    const NAME: &'static str = "fm";
    const ALIASES: &'static [&'static str] = &["flow_matching"];
    const SUMMARY: &'static str = "flow matching: inflow equals outflow at every visited state";
    const PAPER: Option<&'static str> = Some("arXiv:2106.04399");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_log_reward_min(self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Objective for FlowMatching {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let inflow = scored.log_inflow();
        let outflow = scored.log_flow_child(self.log_reward_min);
        self.penalty.of(inflow - outflow).mean()
    }

    fn needs(&self) -> Needs {
        Needs { backward_policy: false, log_flow: true, parents: true, min_batch: 1 }
    }

    fn log_z(&self) -> LogZ {
        LogZ::InitialFlow
    }
}
