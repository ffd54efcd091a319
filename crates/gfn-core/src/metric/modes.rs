//! Distinct modes found in training, in the reward's own definition.

use std::collections::BTreeSet;

use super::{Better, Column, EvalContext, Metric, MetricContext, MetricEntry, Observed};
use crate::RewardError;

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "modes",
    summary: "distinct modes found so far by training samples",
    build: |context: &MetricContext| {
        Box::new(ModesFound { context: context.clone(), found: BTreeSet::new() })
    },
};

struct ModesFound {
    context: MetricContext,
    found: BTreeSet<u64>,
}

impl Metric for ModesFound {
    fn columns(&self) -> Vec<Column> {
        let definition = match self.context.reward.modes() {
            Some(modes) => {
                let of = modes.count().map(|n| format!(" (of {n})")).unwrap_or_default();
                format!(
                    "distinct modes{of} found so far by training samples, exploratory ones \
                     included; a mode is {}",
                    modes.definition()
                )
            }
            None => "empty: this reward defines no modes".to_owned(),
        };
        vec![Column::new("modes", "modes", Better::Higher, definition).headline(3)]
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        let Some(modes) = self.context.reward.modes() else { return };
        for (row, &log_reward) in batch.terminals.rows().zip(batch.log_reward) {
            self.found.extend(modes.modes_of(row, log_reward));
        }
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, RewardError> {
        Ok(vec![self.context.reward.modes().map(|_| self.found.len() as f64)])
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.found).expect("a set serialises")
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        self.found = postcard::from_bytes(bytes)?;
        Ok(())
    }
}
