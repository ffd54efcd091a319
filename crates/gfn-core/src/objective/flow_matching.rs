//! Flow matching (Bengio et al. 2021, arXiv:2106.04399).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty, check_residual};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::update::Update;
use crate::learn::view::{BatchView, Loss};
use crate::registry::Kind;

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
        check_residual(self.penalty, self.log_reward_min)?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for FlowMatching {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let log_reward = batch.log_reward_at_ends(self.log_reward_min);
        let outflow = batch.unless_at_end(batch.to(Head::FLOW), log_reward);
        self.penalty.of(batch.log_inflow() - outflow).mean()
    }
}

impl Objective for FlowMatching {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Initial(Head::FLOW)
    }
}
