//! `gfn check`: resolve a spec, build everything, print it, write nothing.

use gfn_core::learn::head::Head;

use super::{load_spec, print};
use crate::args::SpecArgs;
use crate::error::{Failure, say};
use crate::{Experiment, Registry};

pub fn run(registry: &Registry, args: &SpecArgs) -> Result<(), Failure> {
    let spec = load_spec(registry, args)?;
    let experiment = Experiment::build(registry, &spec)?;
    let states = match &experiment.exact {
        Some(exact) => format!(
            "{} states, {} edges, {} objects; log Z = {:.6}",
            exact.graph.states().len(),
            exact.graph.n_edges(),
            exact.graph.terminals().len(),
            exact.target.log_z
        ),
        None => match experiment.reward.log_partition() {
            Some(log_z) => format!("too many states to enumerate; log Z = {log_z:.6}"),
            None => "too many states to enumerate; log Z unknown".to_owned(),
        },
    };
    say(&format!(
        "{}: {} iterations of {} trajectories; {} parameters; {states}",
        args.spec.display(),
        spec.train.n_steps(),
        spec.train.batch,
        experiment.n_params()
    ));
    let plan = &experiment.trainer.parts().plan;
    let (main, head) = (plan.updates.get(plan.main), Head::BACKWARD);
    let unread = main.is_some_and(|main| !main.reads.iter().any(|read| read.head == head));
    if plan.network_pb() && unread {
        say(&format!(
            "note: P_B does not appear in the objective {}; it is trained for evaluation only",
            spec.objective.name()
        ));
    }
    print(&toml::to_string(&spec.resolved()).expect("a spec is TOML"))
}
