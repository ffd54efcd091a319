//! The maximum-entropy backward policy (Mohammadpour et al. 2024, arXiv:2312.14331).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackwardAxis, BackwardContext, BackwardStrategy, PbSource};
use crate::exact::Exact;
use crate::registry::Kind;
use crate::{Environment, KeyError};

/// P_B(s | s') = n(s) / n(s'), with n(s) the number of paths from s0 to s: every path to an
/// object is equally likely.
///
/// n comes from the environment's closed form, or else from counting paths on the whole graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaxEnt {}

impl Kind<BackwardAxis> for MaxEnt {
    const NAME: &'static str = "maxent";
    const ALIASES: &'static [&'static str] = &["max_entropy"];
    const SUMMARY: &'static str = "maximum entropy: all paths to an object equally likely, exact";
    const PAPER: Option<&'static str> = Some("arXiv:2312.14331");

    fn build(&self, context: BackwardContext) -> Result<Box<dyn BackwardStrategy>, KeyError> {
        let mut start = vec![0; context.env.space().width];
        context.env.reset(&mut start);
        if context.env.log_paths(&start).is_some() {
            return Ok(Box::new(PathCounts { counted: None }));
        }
        let exact = context.exact.ok_or_else(|| {
            KeyError::new(
                "kind",
                "this environment has no closed form for path counts and is too large to count \
                 them",
            )
            .help("raise eval.max_states, or use another backward strategy")
        })?;
        let log_paths = exact.graph.log_paths();
        Ok(Box::new(PathCounts { counted: Some((exact, log_paths)) }))
    }
}

/// log n(s): counted on the whole graph, or else by the environment's closed form.
struct PathCounts {
    counted: Option<(Arc<Exact>, Vec<f64>)>,
}

impl PathCounts {
    fn log_paths(&self, env: &dyn Environment, row: &[i32]) -> f64 {
        let log_paths = match &self.counted {
            Some((exact, log_paths)) => exact.graph.find(row).map(|i| log_paths[i]),
            None => env.log_paths(row),
        };
        log_paths.expect("every state that can be reached has paths")
    }
}

impl BackwardStrategy for PathCounts {
    fn source(&self) -> PbSource {
        PbSource::Fixed
    }

    /// log n(parent) − log n(child): path counts themselves overflow single precision.
    fn fixed_logits(
        &self,
        env: &dyn Environment,
        child: &[i32],
        legal: &[bool],
        logits: &mut [f32],
    ) {
        let log_child = self.log_paths(env, child);
        let mut parent = child.to_vec();
        for (back_action, (logit, &legal)) in logits.iter_mut().zip(legal).enumerate() {
            *logit = 0.0;
            if legal {
                parent.copy_from_slice(child);
                env.unstep(&mut parent, back_action);
                *logit = (self.log_paths(env, &parent) - log_child) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{StateGraph, Target};
    use crate::space::{Block, Space};

    /// Two steps on a line of bits, in any order: paths are counted, there is no closed form.
    struct Bits(Space);

    fn bits() -> Bits {
        let actions = [Block::whole("bit", 3)];
        let space = Space::new(3, 3).named_slots(3, &[2]);
        Bits(space.forward(&actions).backward(&actions))
    }

    impl Environment for Bits {
        fn space(&self) -> &Space {
            &self.0
        }
        fn reset(&self, row: &mut [i32]) {
            row.fill(0);
        }
        fn legal(&self, row: &[i32], mask: &mut [bool]) {
            // The third bit only after the first.
            mask.iter_mut().zip(row).for_each(|(legal, &bit)| *legal = bit == 0);
            mask[2] &= row[0] == 1;
        }
        fn legal_back(&self, row: &[i32], mask: &mut [bool]) {
            mask.iter_mut().zip(row).for_each(|(legal, &bit)| *legal = bit == 1);
            mask[0] &= row[2] == 0;
        }
        fn step(&self, row: &mut [i32], action: usize) -> usize {
            row[action] = 1;
            action
        }
        fn unstep(&self, row: &mut [i32], back_action: usize) -> usize {
            row[back_action] = 0;
            back_action
        }
        fn observe(&self, row: &[i32], cells: &mut [i32]) {
            cells.copy_from_slice(row);
        }
        fn render(&self, row: &[i32]) -> String {
            format!("{row:?}")
        }
    }

    #[test]
    fn counted_paths_make_all_paths_equally_likely() {
        let env: Arc<dyn Environment> = Arc::new(bits());
        let graph = StateGraph::explore(&bits(), 100).unwrap();
        let target = Target { log_reward: vec![], log_z: 0.0, prob: vec![] };
        let exact = Some(Arc::new(Exact { graph, target }));
        let strategy = MaxEnt {}.build(BackwardContext { env, exact }).unwrap();
        // 111 has three paths: 0 1 2, 1 0 2, 0 2 1. Removing bit 1 last leaves one of them.
        let mut logits = [0.0; 3];
        strategy.fixed_logits(&bits(), &[1, 1, 1], &[false, true, true], &mut logits);
        assert!((logits[1] - (1.0f32 / 3.0).ln()).abs() < 1e-6);
        assert!((logits[2] - (2.0f32 / 3.0).ln()).abs() < 1e-6);
    }
}
