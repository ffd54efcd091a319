//! The plan of an iteration: what objective and backward strategy contribute, and what follows from
//! it: the heads of the model, the parameters of each update.

use std::cell::RefCell;

use super::batch::{Batch, PbOf, Transitions};
use super::engine::Values;
use super::expr::Tape;
use super::head::{Head, TRUNK};
use super::update::{Data, Kept, Update};
use super::view::{BatchView, PbSource, Read, Record, Zeros};
use crate::backward::{BackwardStrategy, Order};
use crate::objective::Objective;
use crate::policy::UniformPolicy;
use crate::rng::{Purpose, Streams};
use crate::sampler::{Draw, Exploration, Sampler};
use crate::{Environment, KeyError, Trajectories};

/// An update with what its loss reads.
pub struct Planned {
    /// The update.
    pub update: Update,
    /// What its loss reads.
    pub reads: Vec<Read>,
    /// The groups of parameters that it steps.
    pub groups: Vec<&'static str>,
    /// Whether it reads rewards of states along trajectories.
    pub along: bool,
    /// Whether it reads P_F's numbers otherwise than as probabilities.
    pub raw: bool,
}

/// All updates of an iteration, in their order.
pub struct Plan {
    /// The updates.
    pub updates: Vec<Planned>,
    /// Which of them is the objective's: its loss and gradient are reported as those of training. None
    /// is where there are no updates.
    pub main: usize,
    /// The heads that a model must have; P_F is the first.
    pub heads: Vec<Head>,
    /// Where the log P_B that losses read comes from.
    pub pb: PbSource,
}

impl Plan {
    /// What an objective and a strategy do in an iteration.
    ///
    /// # Errors
    /// When P_B would never be trained, or trained in vain.
    pub fn new(
        env: &dyn Environment,
        objective: &dyn Objective,
        backward: &dyn BackwardStrategy,
    ) -> Result<Self, KeyError> {
        let pb = backward.source();
        if objective.chains().is_some() {
            return Self::without_policy(backward);
        }
        let mut updates = objective.updates();
        for update in &mut updates {
            update.rates.push((Head::BACKWARD, backward.rate()));
        }
        let mut main = updates.len() - 1;
        let own = backward.updates();
        match backward.order() {
            Order::BackwardFirst => {
                main += own.len();
                updates.splice(0..0, own);
            }
            Order::ForwardFirst => updates.extend(own),
        }
        let network = pb != PbSource::Fixed;
        let of = pb_of(backward);
        let example = example(env);
        let planned: Vec<_> = updates
            .into_iter()
            .map(|update| {
                let (reads, along, raw) = reads_of(env, &of, pb, &update, &example);
                let mut groups: Vec<&str> = Vec::new();
                for read in reads.iter().filter(|read| read.tracked) {
                    let shares = !read.head.is_parameter() && !update.heads_only;
                    let of_network = shares.then_some(TRUNK);
                    for group in of_network.into_iter().chain([read.head.name]) {
                        if !groups.contains(&group) {
                            groups.push(group);
                        }
                    }
                }
                Planned { update, reads, groups, along, raw }
            })
            .collect();

        let trained = |head: Head| planned.iter().any(|p| p.groups.contains(&head.name));
        if network && !trained(Head::BACKWARD) {
            return Err(KeyError::new(
                "kind",
                "this strategy trains P_B through the objective, but P_B does not appear in this \
                 objective, so it would never be trained",
            )
            .help(
                "use uniform or maxent, or tlm or pessimistic, which train P_B by a loss of its \
                 own",
            ));
        }
        let mut heads = vec![Head::FORWARD];
        heads.extend(network.then_some(Head::BACKWARD));
        for read in planned.iter().flat_map(|planned| &planned.reads) {
            if !heads.contains(&read.head) {
                heads.push(read.head);
            }
        }
        heads.sort_by_key(|head| head.is_parameter());
        Ok(Self { updates: planned, main, heads, pb })
    }

    /// That of a baseline without a policy. Which P_B stands beside it makes no difference, so one
    /// that would have to be trained is most likely a mistake.
    fn without_policy(backward: &dyn BackwardStrategy) -> Result<Self, KeyError> {
        let pb = backward.source();
        if pb != PbSource::Fixed || !backward.updates().is_empty() {
            let message = "this strategy trains P_B, but the objective trains no policy";
            return Err(KeyError::new("kind", message).help("use uniform; it is not used"));
        }
        Ok(Self { updates: Vec::new(), main: 0, heads: vec![Head::FORWARD], pb })
    }

    /// The heads that the first update reads of the current values on this iteration's
    /// trajectories: what a rollout may keep for it. Nothing but P_F if it is on other data.
    pub fn of_first(&self) -> Vec<Head> {
        let mut heads = vec![Head::FORWARD];
        if let Some(first) = self.updates.first().filter(|first| first.update.data == Data::Current)
        {
            for read in &first.reads {
                let here = read.values == Values::Current && read.end.is_some();
                if here && !heads.contains(&read.head) {
                    heads.push(read.head);
                }
            }
        }
        heads
    }

    /// Whether some loss reads rewards of states along trajectories.
    pub fn along(&self) -> bool {
        self.updates.iter().any(|planned| planned.along)
    }

    /// Whether some loss reads them along trajectories of P_F, not only along new ways back.
    pub fn along_sampled(&self) -> bool {
        let back = |data: &Data| {
            matches!(
                data,
                Data::Backward | Data::Replay { of: Kept::Objects, with_current: false, .. }
            )
        };
        self.updates.iter().any(|planned| planned.along && !back(&planned.update.data))
    }

    /// Whether some loss reads P_F's numbers otherwise than as probabilities.
    pub fn raw(&self) -> bool {
        self.updates.iter().any(|planned| planned.raw)
    }

    /// Whether some loss reads P_B of a network.
    pub fn network_pb(&self) -> bool {
        self.pb != PbSource::Fixed
    }

    /// Whether some loss is on parts of the trajectories of this iteration, or on them and replayed ones
    /// together.
    pub fn takes_apart(&self) -> bool {
        let apart = |planned: &Planned| {
            let data = &planned.update.data;
            matches!(data, Data::Minibatches { .. } | Data::Replay { with_current: true, .. })
        };
        self.updates.iter().any(apart)
    }

    /// From how many iterations past trajectories are drawn.
    pub fn history(&self) -> usize {
        let batches = |planned: &Planned| match planned.update.data {
            Data::Past { batches } => batches,
            _ => 0,
        };
        self.updates.iter().map(batches).max().unwrap_or(0)
    }
}

/// Refuses environments where some state cannot be finished by an action of its own, or objects are
/// finished otherwise.
///
/// # Errors
/// When it is one.
pub fn check_stops(env: &dyn Environment) -> Result<(), KeyError> {
    let (walks, space) = (walks(env, 32), env.space());
    let mut legal = vec![false; space.n_actions];
    let mut can_stop = |i: usize| {
        walks.rows(i).all(|state| {
            env.legal(walks.states.row(state), &mut legal);
            state + 1 == walks.rows(i).end || space.stop().is_some_and(|stop| legal[stop])
        })
    };
    let stops =
        |i: usize| walks.transitions(i).last().map(|t| walks.actions[t] as usize) == space.stop();
    if (0..walks.len()).all(|i| can_stop(i) && stops(i)) {
        return Ok(());
    }
    Err(KeyError::new(
        "kind",
        "it reads the rewards of states along trajectories, but in this environment not every state can be \
         finished by an action of its own",
    )
    .help(
        "use it where objects can stop anywhere: hypergrid, dag, sequence with min_length = 0",
    ))
}

/// How the log P_B of a strategy comes into batches.
pub(super) fn pb_of(strategy: &dyn BackwardStrategy) -> PbOf<'_> {
    let network = strategy.source() != PbSource::Fixed;
    let fixed = |env: &dyn Environment, child: &[i32], legal: &[bool], logits: &mut [f32]| {
        strategy.fixed_logits(env, child, legal, logits);
    };
    PbOf { fixed: if network { None } else { Some(Box::new(fixed)) }, network }
}

/// Trajectories of the uniform policy.
pub(crate) fn walks(env: &dyn Environment, n: usize) -> Trajectories {
    let draw = Draw { streams: Streams::new(0), purpose: Purpose::Test, step: 0 };
    Sampler::default().forward(env, &UniformPolicy, Exploration::NONE, draw, n)
}

/// Two trajectories of the uniform policy, with rewards of 1, also along them.
fn example(env: &dyn Environment) -> Trajectories {
    let mut trajectories = walks(env, 2);
    trajectories.log_reward = vec![0.0; 2];
    trajectories.log_reward_along = vec![0.0; trajectories.states.len()];
    trajectories
}

/// What the loss of an update reads of a batch.
fn reads_of(
    env: &dyn Environment,
    of: &PbOf<'_>,
    pb: PbSource,
    update: &Update,
    example: &Trajectories,
) -> (Vec<Read>, bool, bool) {
    let mut batch = match update.data {
        Data::Replay { of: Kept::Transitions, .. } => {
            let mut transitions = Transitions::new(env.space().width);
            transitions.extend(example);
            Batch::of_transitions(env, of, &transitions)
        }
        _ => Batch::of_trajectories(env, of, example.clone()),
    };
    if update.guide.is_some() {
        batch.log_guide = vec![0.0; batch.len()];
    }
    let (tape, source, record) = (Tape::new(), RefCell::new(Zeros(env)), Record::default());
    update.loss.loss(&BatchView::new(&batch, &tape, &source, &record, pb));
    (record.reads.into_inner(), record.along.get(), record.raw.get())
}
