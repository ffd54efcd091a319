//! Detailed balance (Bengio et al. 2023, arXiv:2111.09266).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::registry::Kind;
use crate::scored::Scored;

/// Mean over all transitions of (log F(s) + log P_F(s'|s) − log F(s') − log P_B(s|s'))², with
/// F = R at terminal states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetailedBalance {
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Lower clip of log R in the loss; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_reward_min: Option<f64>,
}

impl Kind<ObjectiveAxis> for DetailedBalance {
    const NAME: &'static str = "db";
    const ALIASES: &'static [&'static str] = &["detailed_balance"];
    const SUMMARY: &'static str = "detailed balance on every transition";
    const PAPER: Option<&'static str> = Some("arXiv:2111.09266");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        check_log_reward_min(self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Objective for DetailedBalance {
    fn loss(&self, scored: &Scored<'_>) -> Tensor<1> {
        let forward = scored.log_flow_source() + scored.log_pf();
        let backward = scored.log_flow_child(self.log_reward_min) + scored.log_pb();
        self.penalty.of(forward - backward).mean()
    }

    fn log_z(&self) -> LogZ {
        LogZ::InitialFlow
    }
}
