//! The papers' L1: a histogram of the last training samples against P*, with the value that a
//! perfect sampler would show.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Better, Column, EvalContext, Metric, MetricContext, MetricError, MetricKind, Observed,
};
use crate::KeyError;
use crate::exact::Exact;
use crate::special::binomial_mean_deviation;

pub(super) struct Empirical {
    /// None if the environment is not enumerated.
    exact: Option<Arc<Exact>>,
    /// Objects that the window holds.
    capacity: usize,
    window: Window,
}

/// How long a run is remembered.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Remembered {
    /// How many of the last training samples the empirical distribution is of.
    window: usize,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { window: 200_000 }
    }
}

/// A ring of the last objects, by their position in the exact graph.
#[derive(Default, Serialize, Deserialize)]
struct Window {
    objects: Vec<u32>,
    next: usize,
}

impl Window {
    fn push(&mut self, object: u32, capacity: usize) {
        if self.objects.len() < capacity {
            self.objects.push(object);
        } else {
            self.objects[self.next] = object;
            self.next = (self.next + 1) % capacity;
        }
    }

    /// Forgets all but the last `capacity` objects.
    fn shrink(&mut self, capacity: usize) {
        if self.objects.len() > capacity {
            self.objects.rotate_left(self.next);
            self.objects.drain(..self.objects.len() - capacity);
            self.next = 0;
        }
    }
}

impl MetricKind for Empirical {
    const NAME: &'static str = "empirical";
    const SUMMARY: &'static str =
        "l1 between the last training samples and the target, with its finite-sample floor";
    type Settings = Remembered;

    fn build(context: &MetricContext, settings: Remembered) -> Result<Self, KeyError> {
        if settings.window == 0 {
            return Err(KeyError::new("window", "`window` must be at least 1"));
        }
        let exact = context.exact.clone();
        Ok(Self { exact, capacity: settings.window, window: Window::default() })
    }
}

impl Metric for Empirical {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        let window = self.capacity;
        let where_empty = "; empty if the environment is not enumerated";
        vec![
            Column::new(
                "l1_empirical",
                "1",
                Better::Lower,
                format!(
                    "sum_x |p(x) - P*(x)| with p the histogram of the last {window} objects \
                     sampled in training (fewer if the run has not sampled, or not remembered, as \
                     many){where_empty}"
                ),
            ),
            Column::new(
                "n_empirical",
                "samples",
                Better::Neither,
                format!("number of samples in that histogram{where_empty}"),
            ),
            Column::new(
                "l1_floor",
                "1",
                Better::Neither,
                format!(
                    "expected l1_empirical of a perfect sampler with n_empirical samples \
                     (exact binomial mean deviation, summed over objects){where_empty}"
                ),
            ),
        ]
    }

    fn needs_policy(&self) -> bool {
        false
    }

    fn observe(&mut self, batch: &Observed<'_>) {
        let Some(exact) = &self.exact else { return };
        for row in batch.terminals.rows() {
            if let Some(object) = exact.graph.find_object(row) {
                self.window.push(object as u32, self.capacity);
            }
        }
    }

    fn evaluate(&mut self, _: &EvalContext<'_>) -> Result<Vec<Option<f64>>, MetricError> {
        let n = self.window.objects.len();
        let Some(exact) = self.exact.as_ref().filter(|_| n > 0) else {
            return Ok(vec![None; 3]);
        };
        let mut counts = vec![0u32; exact.target.prob.len()];
        for &object in &self.window.objects {
            counts[object as usize] += 1;
        }
        let prob = &exact.target.prob;
        let l1 = counts.iter().zip(prob).map(|(&c, &p)| (f64::from(c) / n as f64 - p).abs()).sum();
        let floor = prob.iter().map(|&p| binomial_mean_deviation(n as u64, p)).sum();
        Ok(vec![Some(l1), Some(n as f64), Some(floor)])
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(postcard::to_stdvec(&self.window).expect("a window serialises"))
    }

    fn load(&mut self, gathered: Option<&[u8]>) -> Result<(), String> {
        let window = gathered.map_or(Ok(Window::default()), postcard::from_bytes);
        self.window = window.map_err(|error| error.to_string())?;
        self.window.shrink(self.capacity);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_keeps_the_last() {
        let mut window = Window::default();
        for object in 0..7 {
            window.push(object, 3);
        }
        let mut kept = window.objects.clone();
        kept.sort_unstable();
        assert_eq!(kept, [4, 5, 6]);
        window.shrink(3);
        assert_eq!(window.objects.len(), 3);
        window.shrink(2);
        assert_eq!(window.objects, [5, 6]);
        window.push(7, 2);
        window.push(8, 2);
        window.push(9, 2);
        window.shrink(1);
        assert_eq!(window.objects, [9]);
    }
}
