//! Detailed balance (Bengio et al. 2023, arXiv:2111.09266).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis, Penalty, check_log_reward_min};
use crate::KeyError;
use crate::registry::Kind;
use crate::scored::{HostLoss, HostScored, Scored};

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

    fn by_hand(&self, scored: &HostScored<'_>) -> Option<HostLoss> {
        let (log_flow, m) = (scored.log_flow(), scored.log_pf.len());
        let [source, child] = [&scored.batch.forward, &scored.batch.backward].map(|c| c.rows());
        let (mut loss, mut of_ratios) = (0.0, vec![0.0; m]);
        let mut of_flow = vec![0.0; log_flow.len()];
        for (range, log_reward) in scored.trajectories(self.log_reward_min) {
            for t in range.clone() {
                let (from, to) = (source[t] as usize, child[t] as usize);
                let inner = t + 1 < range.end;
                let flow_out = if inner { f64::from(log_flow[to]) } else { log_reward };
                let ratio = f64::from(scored.log_pf[t]) - f64::from(scored.log_pb[t]);
                let (penalty, derivative) =
                    self.penalty.at(f64::from(log_flow[from]) + ratio - flow_out);
                loss += penalty / m as f64;
                let derivative = (derivative / m as f64) as f32;
                of_ratios[t] = derivative;
                of_flow[from] += derivative;
                if inner {
                    of_flow[to] -= derivative;
                }
            }
        }
        let loss = HostLoss::of_ratios(loss, of_ratios);
        Some(HostLoss { log_flow: Some(of_flow), ..loss })
    }

    fn log_z(&self) -> LogZ {
        LogZ::InitialFlow
    }
}
