//! Distinct modes found in training, in the reward's own definition.

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, NoSettings,
    Observed,
};
use crate::KeyError;
use crate::reward::{ModeCount, ModeCounter, mode_counter};

pub(super) struct ModesFound {
    /// None if the reward defines no modes.
    counter: Option<Box<dyn ModeCounter>>,
    /// Not if the checkpoint is of a run that did not look for them.
    counting: bool,
}

impl MetricKind for ModesFound {
    const NAME: &'static str = "modes";
    const SUMMARY: &'static str = "distinct modes found so far by training samples";
    type Settings = NoSettings;

    fn build(context: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self { counter: mode_counter(&context.reward), counting: true })
    }
}

impl Metric for ModesFound {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let found = "found so far by training samples, exploratory ones included";
        let mut columns = columns(self.counter.as_deref(), Self::NAME, found);
        // The first sums a run up.
        columns[..1].iter_mut().for_each(|column| column.headline = Some(3));
        columns
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        if let Some(counter) = self.counter.as_mut().filter(|_| self.counting) {
            counter.observe(batch.terminals, batch.log_reward);
        }
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(counter) = &self.counter else { return Ok(vec![None]) };
        let found = |count: ModeCount| self.counting.then_some(count.found as f64);
        Ok(counter.counts().into_iter().map(found).collect())
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.counter.as_ref().filter(|_| self.counting).map(|counter| counter.save())
    }

    fn load(&mut self, gathered: Option<&[u8]>) -> Result<(), String> {
        let Some(counter) = &mut self.counter else { return Ok(()) };
        self.counting = gathered.is_some();
        gathered.map_or(Ok(()), |bytes| counter.restore(bytes))
    }
}

/// A column for each number of a counter.
fn columns(counter: Option<&dyn ModeCounter>, name: &str, found: &str) -> Vec<Column> {
    let column = |suffix: &str, definition: String| {
        let separator = if suffix.is_empty() { "" } else { "_" };
        let name = format!("{name}{separator}{suffix}");
        Column::new(&name, "modes", Better::Higher, definition)
    };
    let of_count = |ModeCount { suffix, definition, of, .. }: ModeCount| {
        let of = of.map(|n| format!(" (of {n})")).unwrap_or_default();
        column(&suffix, format!("distinct modes{of} {found}; a mode is {definition}"))
    };
    match counter {
        Some(counter) => counter.counts().into_iter().map(of_count).collect(),
        None => vec![column("", "empty: this reward defines no modes".to_owned())],
    }
}

/// Modes among fresh samples, counted anew at every evaluation.
pub(super) struct FreshModes {
    context: MetricContext,
}

impl MetricKind for FreshModes {
    const NAME: &'static str = "fresh_modes";
    const SUMMARY: &'static str = "distinct modes among fresh samples";
    type Settings = NoSettings;

    fn build(context: &MetricContext, _: NoSettings) -> Result<Self, KeyError> {
        Ok(Self { context: context.clone() })
    }
}

impl Metric for FreshModes {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let counter = mode_counter(&self.context.reward);
        let found = format!("among {} fresh samples", self.context.samples);
        columns(counter.as_deref(), Self::NAME, &found)
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn evaluate(&mut self, eval: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let Some(mut counter) = mode_counter(&self.context.reward) else { return Ok(vec![None]) };
        let samples = eval.samples()?;
        counter.observe(&samples.terminals(), &samples.log_reward);
        Ok(counter.counts().into_iter().map(|count| Some(count.found as f64)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::environment::testing::Edges;
    use crate::metric::MetricEntry;
    use crate::policy::UniformPolicy;
    use crate::{Reward, RewardError, States, Streams};

    /// An object is a mode if no mode is within a radius, for two radii.
    #[derive(Default)]
    struct Apart([Vec<i32>; 2]);

    impl ModeCounter for Apart {
        fn counts(&self) -> Vec<ModeCount> {
            let of = |(found, (suffix, radius)): (&Vec<i32>, (&str, i32))| ModeCount {
                suffix: suffix.to_owned(),
                definition: format!("more than {radius} from all before"),
                of: None,
                found: found.len() as u64,
            };
            self.0.iter().zip([("", 1), ("far", 4)]).map(of).collect()
        }

        fn observe(&mut self, xs: &States, log_reward: &[f64]) {
            for (row, _) in xs.rows().zip(log_reward).filter(|(_, r)| **r >= 0.0) {
                for (found, radius) in self.0.iter_mut().zip([1, 4]) {
                    if found.iter().all(|other| (row[0] - other).abs() > radius) {
                        found.push(row[0]);
                    }
                }
            }
        }

        fn save(&self) -> Vec<u8> {
            postcard::to_stdvec(&self.0).unwrap()
        }

        fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.0 = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
            Ok(())
        }
    }

    struct Depends;

    impl Reward for Depends {
        fn log_reward(&self, _: &States, out: &mut [f64]) -> Result<(), RewardError> {
            out.fill(0.0);
            Ok(())
        }

        fn mode_counter(&self) -> Option<Box<dyn ModeCounter>> {
            Some(Box::new(Apart::default()))
        }
    }

    fn context() -> MetricContext {
        MetricContext {
            env: Arc::new(Edges::new(2, vec![(0, 1)])),
            reward: Arc::new(Depends),
            exact: None,
            layers: None,
            samples: 1,
            test: None,
            backward_trajectories: 1,
            settings: BTreeMap::new(),
        }
    }

    fn values(metric: &mut dyn Metric, context: &MetricContext) -> Vec<Option<f64>> {
        let eval = EvalContext::new(context, &UniformPolicy, None, Streams::new(0), 0);
        metric.evaluate(&eval).unwrap()
    }

    fn observe(metric: &mut dyn Metric, objects: &[i32]) {
        let mut terminals = States::new(1);
        objects.iter().for_each(|&object| terminals.push(&[object]));
        let log_reward: Vec<f64> = objects.iter().map(|&object| f64::from(object)).collect();
        metric.observe(&Observed { terminals: &terminals, log_reward: &log_reward });
    }

    /// Modes that depend on each other, with a column for each kind, and an interruption that changes
    /// nothing.
    #[test]
    fn counters_with_a_memory() {
        let context = context();
        let build = || (MetricEntry::of::<ModesFound>().build)(&context).unwrap();
        let mut metric = build();
        let columns = metric.columns();
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["modes", "modes_far"]);
        assert_eq!([columns[0].headline, columns[1].headline], [Some(3), None]);
        assert!(columns[1].definition.ends_with("a mode is more than 4 from all before"));
        observe(&mut *metric, &[3, -9, 4, 5]);
        assert_eq!(values(&mut *metric, &context), [Some(2.0), Some(1.0)]);
        let bytes = metric.save().unwrap();
        let mut resumed = build();
        resumed.load(Some(&bytes)).unwrap();
        for metric in [&mut metric, &mut resumed] {
            observe(&mut **metric, &[6, 7, 8, 2]);
            assert_eq!(values(&mut **metric, &context), [Some(3.0), Some(2.0)]);
        }
        assert_eq!(metric.save(), resumed.save());
        // A run that did not look for modes knows of none, now and later.
        let mut blind = build();
        blind.load(None).unwrap();
        observe(&mut *blind, &[3]);
        assert_eq!(values(&mut *blind, &context), [None, None]);
        assert_eq!(blind.save(), None);
        assert!(build().load(Some(&[250])).is_err());
    }
}
