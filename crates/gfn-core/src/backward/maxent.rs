//! The maximum-entropy backward policy (Mohammadpour et al. 2024, arXiv:2312.14331).

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackwardAxis, BackwardContext, BackwardStrategy, Source};
use crate::metric::Exact;
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
        let mut start = vec![0; context.env.layout().width];
        context.env.reset(&mut start);
        if context.env.log_paths(&start).is_some() {
            return Ok(Box::new(ClosedForm));
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
        Ok(Box::new(Counted { exact, log_paths }))
    }
}

struct ClosedForm;

impl BackwardStrategy for ClosedForm {
    fn source(&self) -> Source {
        Source::Fixed
    }

    fn fixed_logits(
        &self,
        env: &dyn Environment,
        child: &[i32],
        legal: &[bool],
        logits: &mut [f32],
    ) {
        let log_paths = |row: &[i32]| env.log_paths(row).unwrap_or(0.0);
        by_parent(env, child, legal, logits, log_paths);
    }
}

struct Counted {
    exact: Arc<Exact>,
    log_paths: Vec<f64>,
}

impl BackwardStrategy for Counted {
    fn source(&self) -> Source {
        Source::Fixed
    }

    fn fixed_logits(
        &self,
        env: &dyn Environment,
        child: &[i32],
        legal: &[bool],
        logits: &mut [f32],
    ) {
        by_parent(env, child, legal, logits, |row| {
            self.exact.graph.find(row).map_or(0.0, |i| self.log_paths[i])
        });
    }
}

/// Writes log n(parent) − log n(child) for every legal backward action.
///
/// The difference keeps values small: path counts themselves overflow single precision.
fn by_parent(
    env: &dyn Environment,
    child: &[i32],
    legal: &[bool],
    logits: &mut [f32],
    log_paths: impl Fn(&[i32]) -> f64,
) {
    let log_child = log_paths(child);
    let mut parent = child.to_vec();
    for (back_action, (logit, &legal)) in logits.iter_mut().zip(legal).enumerate() {
        *logit = 0.0;
        if legal {
            parent.copy_from_slice(child);
            env.unstep(&mut parent, back_action);
            *logit = (log_paths(&parent) - log_child) as f32;
        }
    }
}
