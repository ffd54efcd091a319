//! What a spec says of the world: the environment, its reward, and the whole graph where it is small.

use std::path::PathBuf;
use std::sync::Arc;

use gfn_core::exact::Exact;
use gfn_core::graph::ExploreError;
use gfn_core::registry::{EnvContext, RewardContext};
use gfn_core::{Environment, Reward, StateGraph, States};
use gfn_envs::reward::objects::{listed_objects, listed_objects_inside};

use crate::data;
use crate::error::{BUG, DATA, Failure};
use crate::files::FileReader;
use crate::spec::Spec;

/// The parts that are there before anything is learned.
pub struct World {
    /// The environment.
    pub env: Arc<dyn Environment>,
    /// Its reward.
    pub reward: Arc<dyn Reward>,
    /// The enumerated graph, if it is small enough.
    pub exact: Option<Arc<Exact>>,
    /// The objects of `eval.test_set`, if it names a file.
    pub test_set: Option<States>,
    /// Absolute paths and SHA-256 of the data files that were read.
    pub data: Vec<(PathBuf, String)>,
}

impl World {
    /// Builds environment and reward, and enumerates what `eval.max_states` allows.
    ///
    /// # Errors
    /// With the key that does not fit, or the data that is missing.
    pub fn build(spec: &Spec) -> Result<Self, Failure> {
        let world = Self::unexplored(spec)?;
        let exact = enumerate(&*world.env, &*world.reward, spec.eval.max_states)?.map(Arc::new);
        Ok(Self { exact, ..world })
    }

    /// Builds environment and reward alone, and asks for the reward of nothing.
    ///
    /// # Errors
    /// With the key that does not fit, or the data that is missing.
    pub fn unexplored(spec: &Spec) -> Result<Self, Failure> {
        let at = |table: &'static str| move |error| spec.key_failure(table, &error);
        let files = FileReader::new(data::data_dir());
        let context = EnvContext { files: &files };
        let env: Arc<dyn Environment> = spec.env.build(context).map_err(at("env"))?.into();
        let context = RewardContext { env: &env, files: &files };
        let reward: Arc<dyn Reward> = spec.reward.build(context).map_err(at("reward"))?.into();
        let path = &spec.eval.test_set;
        let read = if spec.eval.skip_outside { listed_objects_inside } else { listed_objects };
        let listed = || read(context, "test_set", path).map_err(at("eval"));
        let test_set = (!path.as_os_str().is_empty()).then(listed).transpose()?;
        Ok(Self { env, reward, exact: None, test_set, data: files.into_read() })
    }
}

/// Enumerates the environment with its target, unless it has more than `limit` states.
fn enumerate(
    env: &dyn Environment,
    reward: &dyn Reward,
    limit: usize,
) -> Result<Option<Exact>, Failure> {
    if !reward.may_enumerate() {
        return Ok(None);
    }
    // Do not walk millions of states only to find out.
    if env.has_more_states_than(limit as u64) {
        return Ok(None);
    }
    let graph = match StateGraph::explore(env, limit) {
        Ok(graph) => graph,
        Err(ExploreError::TooLarge { .. }) => return Ok(None),
        Err(ExploreError::Broken(law)) => return Err(Failure::usage(law.to_string())),
    };
    let target = graph.target(reward).map_err(|error| Failure::new(DATA, error.to_string()))?;
    if !target.log_z.is_finite() {
        return Err(Failure::new(BUG, format!("log Z is {} by enumeration", target.log_z)));
    }
    Ok(Some(Exact { graph, target }))
}
