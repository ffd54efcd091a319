//! `gfn` with one more objective: detailed balance that weighs the ends of trajectories.

use std::process::ExitCode;

use gfn_cli::Registry;
use gfn_core::learn::expr::Var;
use gfn_core::learn::head::Head;
use gfn_core::learn::update::Update;
use gfn_core::learn::view::{BatchView, Loss};
use gfn_core::objective::{LogZ, OBJECTIVE, Objective, ObjectiveAxis, Penalty};
use gfn_core::registry::Kind;
use gfn_core::{Entry, KeyError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Detailed balance in which a transition to a terminal state, where the reward comes in, counts
/// `end_weight` times: the mean over all transitions of w(s') times the penalty of
/// log F(s) + log P_F(s'|s) − log F(s') − log P_B(s|s'), with F = R at terminal states.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EndWeightedDb {
    /// Weight of transitions to terminal states, above 0; that of all others is 1.
    pub end_weight: f64,
    /// Penalty of the residual.
    pub penalty: Penalty,
}

impl Default for EndWeightedDb {
    fn default() -> Self {
        Self { end_weight: 5.0, penalty: Penalty::Squared }
    }
}

impl Kind<ObjectiveAxis> for EndWeightedDb {
    const NAME: &'static str = "end_weighted_db";
    const SUMMARY: &'static str = "detailed balance that weighs the ends of trajectories";

    fn build(&self, (): ()) -> Result<Box<dyn Objective>, KeyError> {
        if !(self.end_weight > 0.0 && self.end_weight.is_finite()) {
            let message = format!("must be above 0, not {}", self.end_weight);
            return Err(KeyError::new("end_weight", message).help("1 is detailed balance"));
        }
        self.penalty.check()?;
        Ok(Box::new(self.clone()))
    }
}

impl Loss for EndWeightedDb {
    fn loss<'t>(&self, batch: &BatchView<'_, 't>) -> Var<'t> {
        let log_reward = batch.log_reward_at_ends(None);
        let forward = batch.from(Head::FLOW) + batch.log_pf();
        let backward = batch.unless_at_end(batch.to(Head::FLOW), log_reward) + batch.log_pb();
        let weight = |&end: &bool| if end { self.end_weight } else { 1.0 };
        let weights = batch.batch.terminal.iter().map(weight).collect();
        (self.penalty.of(forward - backward) * batch.constant(weights)).mean()
    }
}

impl Objective for EndWeightedDb {
    fn updates(&self) -> Vec<Update> {
        vec![Update::new(OBJECTIVE, self.clone())]
    }

    fn log_z(&self) -> LogZ {
        LogZ::Initial(Head::FLOW)
    }
}

/// What `gfn` knows, and this one.
pub fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.objectives.push(Entry::of::<EndWeightedDb>());
    registry
}

fn main() -> ExitCode {
    gfn_cli::run(&registry())
}

#[cfg(test)]
mod tests {
    use gfn_cli::Experiment;
    use gfn_cli::spec::Spec;

    /// With P_B fixed, trained through the objective, and trained beside it.
    #[test]
    fn samples_in_proportion_to_the_reward() {
        let registry = super::registry();
        for backward in ["uniform", "naive", "tlm"] {
            let text = format!(
                "env = {{ kind = 'hypergrid', dim = 2, side = 4 }}\n\
                 model = {{ kind = 'mlp', hidden = 64 }}\n\
                 objective = {{ kind = 'end_weighted_db' }}\n\
                 backward = {{ kind = '{backward}' }}\n\
                 [train]\ntrajectories = 128_000\nbatch = 32\nlr = 3e-3\nlr_schedule = 'cosine'\n\
                 epsilon = 0.1\n[eval]\nmetrics = ['distribution']\n"
            );
            let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]);
            let spec = spec.unwrap_or_else(|failure| panic!("{}", failure.render()));
            let built = Experiment::build(&registry, &spec);
            let mut experiment = built.unwrap_or_else(|failure| panic!("{}", failure.render()));
            let column = experiment.columns.iter().position(|c| c.name == "tv_exact").unwrap();
            let (trainer, mut tv) = (&mut experiment.trainer, 1.0);
            while tv >= 0.01 && trainer.counters().step < trainer.n_steps() {
                for _ in 0..250 {
                    trainer.step().unwrap();
                }
                tv = trainer.evaluate().unwrap()[column].unwrap();
            }
            assert!(tv < 0.01, "{backward}: total variation {tv}");
        }
    }
}
