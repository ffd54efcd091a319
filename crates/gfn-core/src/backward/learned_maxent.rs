//! The maximum-entropy backward policy where paths cannot be counted: learned with their number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BACKWARD, BackwardAxis, BackwardContext, BackwardStrategy, Order, PbSource, Rate, Update,
    check_rates, check_target_tau, frozen, target_copy,
};
use crate::KeyError;
use crate::learn::expr::Var;
use crate::learn::head::Head;
use crate::learn::view::{BatchView, Loss};
use crate::objective::Penalty;
use crate::registry::Kind;

/// P_B and log n of states minimise the penalty of log n(s') + log P_B(s|s') − log n(s) over the
/// transitions just sampled, with log n(s0) = 0: at 0 everywhere, n counts paths and
/// P_B(s|s') = n(s)/n(s'), as with `maxent` (Mohammadpour et al. 2024; the loss is that of the TLM
/// paper's code for molecules). The objective reads a slowly moving copy of P_B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LearnedMaxEnt {
    /// Learning rate of P_B's optimiser; default: `train.lr` and its schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Factor on that rate per iteration.
    pub lr_decay: f64,
    /// Step κ of the target copy that the objective reads; 1 means no target copy.
    pub target_tau: f64,
    /// Penalty of the residual.
    pub penalty: Penalty,
    /// Which of the two updates comes first.
    pub order: Order,
}

impl Default for LearnedMaxEnt {
    fn default() -> Self {
        Self {
            lr: None,
            lr_decay: 1.0,
            target_tau: 0.25,
            penalty: Penalty::Huber(1.0),
            order: Order::BackwardFirst,
        }
    }
}

impl Kind<BackwardAxis> for LearnedMaxEnt {
    const NAME: &'static str = "learned_maxent";
    const SUMMARY: &'static str = "maximum entropy, learned together with the number of paths";
    const PAPER: Option<&'static str> = Some("arXiv:2312.14331");

    fn build(&self, _: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        check_rates(self.lr, self.lr_decay)?;
        check_target_tau(self.target_tau)?;
        self.penalty.check()?;
        Ok(Box::new(self.clone()))
    }
}

/// log of the number of paths to a state.
const LOG_PATHS: Head = Head::scalar("log_paths");

struct PathCounts(Penalty);

impl Loss for PathCounts {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        // One path leads to s0.
        let mut later = vec![true; batch.batch.len()];
        let (_, starts) = batch.offsets().split_last().expect("one more than trajectories");
        starts.iter().for_each(|&t| later[t as usize] = false);
        let zero = batch.constant(vec![0.0]);
        let from = batch.from(LOG_PATHS).or_where_not(later, zero);
        let residual = batch.to(LOG_PATHS) + batch.trained_log_pb() - from;
        // An object with a single parent has as many paths as that: nothing to learn from.
        let known = |row: &Option<u32>| f64::from(u8::from(row.is_some()));
        let known = batch.constant(batch.batch.to_rows.iter().map(known).collect());
        (self.0.of(residual) * known).mean()
    }
}

impl BackwardStrategy for LearnedMaxEnt {
    fn source(&self) -> PbSource {
        frozen(self.target_tau)
    }

    fn updates(&self) -> Vec<Update> {
        let update = Update::new(BACKWARD, PathCounts(self.penalty)).rate(self.rate());
        vec![update.keeping(target_copy(self.target_tau))]
    }

    fn order(&self) -> Order {
        self.order
    }

    fn rate(&self) -> Rate {
        Rate { start: self.lr, decay: self.lr_decay }
    }
}
