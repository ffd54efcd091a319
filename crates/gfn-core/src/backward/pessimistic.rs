//! The pessimistic backward policy (Jang et al. 2024, arXiv:2410.16012).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BACKWARD, BackwardAxis, BackwardContext, BackwardStrategy, Likelihood, Order, PbSource, Rate,
    Update, check_rates, check_target_tau, frozen, target_copy,
};
use crate::KeyError;
use crate::learn::update::Data;
use crate::registry::Kind;

/// P_B maximises the likelihood of trajectories from the last batches, one of which is drawn at
/// every iteration: it puts its mass on what has been observed. The objective reads it without
/// gradients, by default without a target copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pessimistic {
    /// Learning rate of P_B's optimiser; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
    /// Step κ of a target copy for the objective; 1 means no target copy.
    pub target_tau: f64,
    /// How many of the last batches the batch is drawn from.
    pub batches: usize,
    /// Which of the two updates comes first.
    pub order: Order,
}

impl Default for Pessimistic {
    fn default() -> Self {
        Self { lr: None, lr_decay: 1.0, target_tau: 1.0, batches: 20, order: Order::BackwardFirst }
    }
}

impl Kind<BackwardAxis> for Pessimistic {
    const NAME: &'static str = "pessimistic";
    const SUMMARY: &'static str = "learned, by the likelihood of trajectories of the last batches";
    const PAPER: Option<&'static str> = Some("arXiv:2410.16012");

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        check_target_tau(self.target_tau)?;
        if self.batches == 0 {
            return Err(KeyError::new("batches", "at least one batch must be kept")
                .help("the TLM paper's code keeps 20"));
        }
        Ok(Box::new(self.clone()))
    }
}

impl BackwardStrategy for Pessimistic {
    fn source(&self) -> PbSource {
        frozen(self.target_tau)
    }

    fn updates(&self) -> Vec<Update> {
        let update = Update::new(BACKWARD, Likelihood).on(Data::Past { batches: self.batches });
        vec![update.rate(self.rate()).keeping(target_copy(self.target_tau))]
    }

    fn order(&self) -> Order {
        self.order
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }
}
