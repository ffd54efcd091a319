//! Metropolis–Hastings as a baseline: Markov chains in the same environment, for the same reward, under
//! the same metrics and budget, without a policy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LogZ, Objective, ObjectiveAxis};
use crate::KeyError;
use crate::learn::update::Update;
use crate::learn::{ChainSettings, Moves};
use crate::registry::Kind;

/// `train.batch` Markov chains side by side, whose objects come to be distributed as R / Z. No network
/// is trained: there is no loss, and metrics of a policy are empty.
///
/// The chains start where trajectories of uniform actions end. An iteration makes `thin` proposals for
/// each of them and shows metrics where they are then. `trajectories` counts these objects,
/// `reward_calls` the rewards of all objects proposed that differ from where the chain is,
/// `env_steps` the actions walked to propose them.
/// Metrics of fresh samples get the last `eval.samples` objects after burn-in (fewer early on), which
/// are correlated, as those of `eval.window` are. Of the table train, `trajectories`, `batch` and
/// `log_every` have a meaning; the backward strategy must be one without training, and is not used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetropolisHastings {
    /// How an object near the last one is proposed.
    pub proposal: ProposalKind,
    /// Of `back_and_forth`: the most actions back, and the most forward; default: as many as the
    /// longest trajectory has, with which every object can be reached from every other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_back: Option<usize>,
    /// Iterations at the start whose objects no metric sees.
    pub burn_in: u64,
    /// Proposals per chain and iteration.
    pub thin: u64,
}

/// How an object near another is proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProposalKind {
    /// Some actions back, 1 to `steps_back` with equal probability, then forward to an object again,
    /// all drawn uniformly among the legal ones. In any environment.
    #[default]
    BackAndForth,
    /// The moves that the field uses, where the environment has some: for `dag` to add, remove or
    /// reverse an edge (structure MCMC). Each counts as one step.
    Local,
}

impl Default for MetropolisHastings {
    fn default() -> Self {
        Self { proposal: ProposalKind::default(), steps_back: None, burn_in: 0, thin: 1 }
    }
}

impl Kind<ObjectiveAxis> for MetropolisHastings {
    const NAME: &'static str = "mh";
    const ALIASES: &'static [&'static str] = &["metropolis_hastings", "mcmc"];
    const SUMMARY: &'static str = "Metropolis-Hastings chains, the baseline that trains nothing";
    const PAPER: Option<&'static str> = Some("doi:10.1093/biomet/57.1.97");

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if self.steps_back == Some(0) {
            return Err(KeyError::new("steps_back", "must be at least 1")
                .help("leave the key out for the length of the longest trajectory"));
        }
        if self.proposal == ProposalKind::Local && self.steps_back.is_some() {
            return Err(KeyError::new("steps_back", "local moves do not go back")
                .help("leave the key out, or set proposal = \"back_and_forth\""));
        }
        const MOST: u64 = 1 << 20;
        if !(1..=MOST).contains(&self.thin) {
            let message = format!("must lie in [1, {MOST}], not {}", self.thin);
            return Err(KeyError::new("thin", message));
        }
        Ok(Box::new(self.clone()))
    }
}

impl Objective for MetropolisHastings {
    fn updates(&self) -> Vec<Update> {
        Vec::new()
    }

    fn log_z(&self) -> LogZ {
        LogZ::None
    }

    fn chains(&self) -> Option<ChainSettings> {
        let moves = match self.proposal {
            ProposalKind::BackAndForth => Moves::BackAndForth(self.steps_back),
            ProposalKind::Local => Moves::Local,
        };
        Some(ChainSettings { moves, burn_in: self.burn_in, thin: self.thin })
    }
}
