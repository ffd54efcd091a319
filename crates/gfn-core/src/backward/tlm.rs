//! Trajectory likelihood maximisation (Gritsaev et al. 2024, arXiv:2410.15474).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BACKWARD, BackwardAxis, BackwardContext, BackwardStrategy, Likelihood, Order, PbSource, Rate,
    Update, check_rates, check_target_tau, frozen, target_copy,
};
use crate::KeyError;
use crate::registry::Kind;

/// P_B maximises the likelihood of the trajectories that P_F has just sampled; the objective
/// reads a slowly moving copy of it.
///
/// The loss is the mean over trajectories of −Σ log P_B(s | s'). The authors' code sums over the
/// batch instead, which Adam does not notice. Defaults are those of the paper's hypergrids,
/// except that the rate does not decay unless asked to (`lr_decay = 0.999` there).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tlm {
    /// Learning rate of P_B's optimiser; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
    /// Step κ of the target copy that the objective reads; 1 means no target copy.
    pub target_tau: f64,
    /// Which of the two updates comes first.
    pub order: Order,
}

impl Default for Tlm {
    fn default() -> Self {
        Self { lr: None, lr_decay: 1.0, target_tau: 0.25, order: Order::BackwardFirst }
    }
}

impl Kind<BackwardAxis> for Tlm {
    const NAME: &'static str = "tlm";
    const ALIASES: &'static [&'static str] = &["trajectory_likelihood_maximization"];
    const SUMMARY: &'static str = "learned, by the likelihood of the trajectories just sampled";
    const PAPER: Option<&'static str> = Some("arXiv:2410.15474");

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        check_target_tau(self.target_tau)?;
        Ok(Box::new(self.clone()))
    }
}

impl BackwardStrategy for Tlm {
    fn source(&self) -> PbSource {
        frozen(self.target_tau)
    }

    fn updates(&self) -> Vec<Update> {
        let update = Update::new(BACKWARD, Likelihood);
        vec![update.rate(self.rate()).keeping(target_copy(self.target_tau))]
    }

    fn order(&self) -> Order {
        self.order
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }
}
