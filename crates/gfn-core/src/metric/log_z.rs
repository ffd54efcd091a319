//! The learned log Z against the true one.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
};

use crate::KeyError;

pub(super) struct LogZ;

impl MetricKind for LogZ {
    const NAME: &'static str = "log_z";
    const SUMMARY: &'static str = "learned and exact log Z";
    type Settings = NoSettings;

    fn build(_: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self)
    }
}

impl Metric for LogZ {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new(
                "log_z",
                "nats",
                Better::Neither,
                "learned log Z: the parameter (TB) or log F(s0) (DB, SubTB, flow matching); empty \
                 for objectives without one",
            )
            .headline(2),
            Column::new(
                "log_z_exact",
                "nats",
                Better::Neither,
                "log of the sum of R over all objects, in closed form or by enumeration",
            ),
            Column::new("log_z_error", "nats", Better::Lower, "|log_z - log_z_exact|"),
        ]
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let exact = match (eval.fixed.reward.log_partition(), &eval.fixed.exact) {
            (Some(closed), _) => Some(closed),
            (None, Some(exact)) => Some(exact.target.log_z),
            (None, None) => eval.target()?.map(|(_, log_z)| log_z),
        };
        let error = eval.log_z.zip(exact).map(|(learned, exact)| (learned - exact).abs());
        Ok(vec![eval.log_z, exact, error])
    }
}
