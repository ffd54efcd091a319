//! Rewards that are a function of one number of an object, such as a predicted property.

use std::path::Path;
use std::sync::Arc;

use gfn_core::registry::RewardContext;
use gfn_core::{Environment, KeyError, ModeCounter, Modes, Reward, RewardError, States};
use rayon::prelude::*;

use super::modes::{ModeSet, ModeSpec, is_empty};
use super::objects::listed_objects;
use super::transform::{LogReward, Transform};

/// The numbers of objects that rewards are a function of.
pub trait ObjectValues: Send + Sync {
    /// That of each object.
    ///
    /// # Errors
    /// When one cannot be computed.
    fn values(&self, xs: &States) -> Result<Vec<f64>, RewardError>;

    /// What they are called in samples, where people want to read them.
    fn column(&self) -> Option<&str> {
        None
    }

    /// Whether they may be asked for before training starts, for thresholds of modes and metrics over all
    /// objects of a small environment.
    fn are_cheap(&self) -> bool {
        true
    }

    /// Whether all objects of a small environment may be scored for exact metrics.
    fn may_enumerate(&self) -> bool {
        self.are_cheap()
    }

    /// See [`Reward::computed`].
    fn computed(&self) -> Option<u64> {
        None
    }

    /// For each object, how many of its substructures were never seen by what the values were learned
    /// from; none where values are not learned, or that is not known.
    fn unknown(&self, _xs: &States) -> Option<Vec<u32>> {
        None
    }
}

/// The keys that all rewards of this kind have.
#[derive(Clone, Copy)]
pub struct ValueKeys<'a> {
    /// From values to rewards.
    pub transform: &'a Transform,
    /// Which objects are modes.
    pub modes: &'a ModeSpec,
    /// A list of objects to measure correlations on; may be empty.
    pub test_set: &'a Path,
}

/// R(x) from a value of x, by [`Transform`].
pub struct ValueReward<V> {
    env: Arc<dyn Environment>,
    values: V,
    log_reward: LogReward,
    modes: Option<ModeSet>,
    test: Option<States>,
    /// What is added to log R for each unknown substructure, unless that is nothing.
    log_unlike: Option<f64>,
}

impl<V: ObjectValues> ValueReward<V> {
    /// The reward by these values.
    ///
    /// # Errors
    /// When a key does not fit, or values that thresholds of modes need cannot be computed.
    pub fn new(
        context: RewardContext<'_>,
        values: V,
        keys: ValueKeys<'_>,
    ) -> Result<Self, KeyError> {
        let log_reward = keys.transform.prepare(None)?;
        let of_some = |xs: &States| values.values(xs);
        let of_some = values.are_cheap().then_some(&of_some as super::modes::Values<'_>);
        let modes = keys.modes.build(context, &log_reward, of_some)?;
        let test = match is_empty(keys.test_set) {
            true => None,
            false => Some(listed_objects(context, "test_set", keys.test_set)?),
        };
        let env = context.env.clone();
        Ok(Self { env, values, log_reward, modes, test, log_unlike: None })
    }

    /// With rewards multiplied by a factor for each unknown substructure.
    ///
    /// # Errors
    /// When it is no factor from above 0 to 1.
    pub fn with_unlike(self, factor: Option<f64>) -> Result<Self, KeyError> {
        if let Some(factor) = factor.filter(|factor| !(*factor > 0.0 && *factor <= 1.0)) {
            let message = format!("a factor above 0 and up to 1, not {factor}");
            return Err(KeyError::new("unlike", message)
                .help("1 leaves rewards as they are; for none at all choose a very small one"));
        }
        Ok(Self { log_unlike: factor.map(f64::ln).filter(|log| *log < 0.0), ..self })
    }

    /// The values.
    pub fn object_values(&self) -> &V {
        &self.values
    }
}

/// Objects that one thread turns into rewards at once.
const BLOCK: usize = 4096;

impl<V: ObjectValues> Reward for ValueReward<V> {
    fn log_reward(&self, xs: &States, out: &mut [f64]) -> Result<(), RewardError> {
        let values = self.values.values(xs)?;
        let transform = |(block, out): (usize, &mut [f64])| {
            for (i, out) in (block * BLOCK..).zip(out) {
                let log_reward = self.log_reward.of(values[i]).filter(|x| !x.is_nan());
                let failure = || RewardError::value(&self.env.render(xs.row(i)), values[i]);
                *out = log_reward.ok_or_else(failure)?;
            }
            Ok(())
        };
        match xs.len() <= BLOCK {
            true => transform((0, &mut *out))?,
            false => out.par_chunks_mut(BLOCK).enumerate().try_for_each(transform)?,
        }
        if let Some(log_factor) = self.log_unlike
            && let Some(unknown) = self.values.unknown(xs)
        {
            for (unknown, out) in unknown.into_iter().zip(out) {
                *out += log_factor * f64::from(unknown);
            }
        }
        Ok(())
    }

    fn may_enumerate(&self) -> bool {
        self.values.may_enumerate()
    }

    fn computed(&self) -> Option<u64> {
        self.values.computed()
    }

    fn unlike(&self, xs: &States) -> Option<Vec<bool>> {
        let unknown = self.values.unknown(xs)?;
        Some(unknown.into_iter().map(|n| n > 0).collect())
    }

    fn values(&self, xs: &States) -> Result<Option<(String, Vec<f64>)>, RewardError> {
        let named = |column: &str| Ok((column.to_owned(), self.values.values(xs)?));
        self.values.column().map(named).transpose()
    }

    fn test_objects(&self) -> Option<States> {
        self.test.clone()
    }

    fn modes(&self) -> Option<&dyn Modes> {
        self.modes.as_ref().and_then(ModeSet::independent)
    }

    fn mode_counter(&self) -> Option<Box<dyn ModeCounter>> {
        self.modes.as_ref().and_then(ModeSet::counter)
    }
}
