//! Replayed trajectories beside those of an iteration, for balance objectives: their losses have the same
//! minimum on any trajectories.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_replay;
use crate::KeyError;
use crate::learn::priority::Priority;
use crate::learn::update::{Data, Kept};

/// What is replayed of earlier iterations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// Trajectories as they were sampled.
    #[default]
    Trajectories,
    /// Their objects, with new backward trajectories by P_B.
    Objects,
}

/// Each update is on the trajectories of its iteration and on `batch` replayed ones. `batch` beside
/// `train.batch` is the mixing ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// What is replayed.
    pub of: Replayed,
    /// How many trajectories or objects are kept, the last ones.
    pub capacity: usize,
    /// How many of them are drawn for an update.
    pub batch: usize,
    /// Which of them.
    pub priority: Priority,
}

impl Default for Replay {
    fn default() -> Self {
        let (of, priority) = (Replayed::Trajectories, Priority::Uniform);
        Self { of, capacity: 10_000, batch: 16, priority }
    }
}

impl Replay {
    /// What the update of an objective is on.
    pub fn data(replay: Option<&Self>) -> Data {
        let Some(&Self { of, capacity, batch, priority }) = replay else { return Data::Current };
        let of = match of {
            Replayed::Trajectories => Kept::Trajectories,
            Replayed::Objects => Kept::Objects,
        };
        Data::Replay { of, capacity, batch, priority, with_current: true }
    }

    /// Checks its sizes and priorities.
    ///
    /// # Errors
    /// With the key `replay`.
    pub fn check(replay: Option<&Self>) -> Result<(), KeyError> {
        let Some(replay) = replay else { return Ok(()) };
        let inside = |error: KeyError| KeyError {
            key: Some("replay".to_owned()),
            message: match error.key.as_deref().map(|key| key.trim_start_matches("replay_")) {
                Some(key) => format!("`{key}`: {}", error.message),
                None => error.message,
            },
            ..error
        };
        if replay.capacity == 0 {
            let message = "`capacity`: must be at least 1";
            return Err(KeyError::new("replay", message).help("leave `replay` out for none"));
        }
        check_replay(replay.batch, replay.capacity, 1, replay.priority).map_err(inside)
    }
}
