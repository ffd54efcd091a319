//! Distinct modes found in training, in the reward's own definition.

use std::collections::BTreeSet;

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricEntry, MetricError, Observed,
};

pub(super) const ENTRY: MetricEntry = MetricEntry {
    name: "modes",
    summary: "distinct modes found so far by training samples",
    build: |context: &MetricContext| {
        context
            .without_settings(ModesFound { context: context.clone(), found: Some(BTreeSet::new()) })
    },
};

struct ModesFound {
    context: MetricContext,
    /// None if the checkpoint is of a run that did not look for them.
    found: Option<BTreeSet<u64>>,
}

impl Metric for ModesFound {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

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

    fn needs_policy(&self) -> bool {
        false
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        let (Some(modes), Some(found)) = (self.context.reward.modes(), &mut self.found) else {
            return;
        };
        for (row, &log_reward) in batch.terminals.rows().zip(batch.log_reward) {
            found.extend(modes.modes_of(row, log_reward));
        }
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let found = self.context.reward.modes().and(self.found.as_ref());
        Ok(vec![found.map(|found| found.len() as f64)])
    }

    fn save(&self) -> Option<Vec<u8>> {
        let found = self.found.as_ref()?;
        Some(postcard::to_stdvec(found).expect("a set serialises"))
    }

    fn load(&mut self, gathered: Option<&[u8]>) -> Result<(), postcard::Error> {
        self.found = gathered.map(postcard::from_bytes).transpose()?;
        Ok(())
    }
}
