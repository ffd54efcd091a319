//! A batch of trajectories on a device, and the log-probabilities that objectives read.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::backward::{BackwardStrategy, Source};
use crate::network::{Observations, Outputs, upload_ints};
use crate::policy;
use crate::{Environment, NetworkRows, States, Trajectories};

/// Fill value for logits of illegal actions. Not -infinity: a row without legal actions would
/// become NaN, and NaN times zero poisons gradients.
const ILLEGAL: f32 = -1e9;

/// Packed trajectories on a device, without padding.
///
/// `n` network rows, `m` transitions, `b` trajectories. Transition arrays are in trajectory order;
/// network rows in that of [`rows`](Self::rows).
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which states the network rows are.
    pub rows: NetworkRows,
    /// Observations of all `n` network rows.
    pub observations: Observations,
    /// Network row of each transition's start, `[m]`.
    pub source: Tensor<1, Int>,
    /// Network row of each transition's end, `[m]`.
    pub child: Tensor<1, Int>,
    /// Trajectory of each transition, `[m]`.
    pub trajectory: Tensor<1, Int>,
    /// 1 where the child is terminal, `[m]`.
    pub ends: Tensor<1>,
    /// log R per trajectory, `[b]`, unclipped.
    pub log_reward: Tensor<1>,
    /// Transitions before each trajectory, `b + 1` entries, on the host.
    pub offsets: Vec<u32>,
    /// Parents of every child state, for flow matching.
    pub parents: Option<Parents>,
    illegal_forward: Tensor<2, Bool>,
    illegal_backward: Tensor<2, Bool>,
    action: Tensor<2, Int>,
    back_action: Tensor<2, Int>,
    fixed_log_pb: Option<Tensor<1>>,
}

/// All parents of the child state of every transition.
#[derive(Clone, Debug)]
pub struct Parents {
    /// Observations of the parents.
    observations: Observations,
    illegal_forward: Tensor<2, Bool>,
    action: Tensor<2, Int>,
    /// Position of each parent in the padded `[m, n_back_actions]` layout's source.
    slots: Tensor<1, Int>,
    /// True where the padded layout has no parent.
    empty: Tensor<2, Bool>,
    shape: [usize; 2],
}

impl Batch {
    /// Uploads trajectories with their rewards; `rows` says which of their states the network
    /// evaluates.
    ///
    /// A strategy with a fixed P_B has its log-probabilities computed here, on the host.
    pub fn new(
        env: &dyn Environment,
        strategy: &dyn BackwardStrategy,
        trajectories: &Trajectories,
        rows: NetworkRows,
        with_parents: bool,
        device: &Device,
    ) -> Self {
        let layout = env.layout();
        let (b, m) = (trajectories.len(), trajectories.n_transitions());
        let (na, nb) = (layout.n_actions, layout.n_back_actions);
        let (mut source, mut child) = (Vec::with_capacity(m), Vec::with_capacity(m));
        let mut trajectory = Vec::with_capacity(m);
        let mut ends = vec![0.0f32; m];
        let mut legal = vec![false; na.max(nb)];
        let mut illegal_forward = Vec::with_capacity(m * na);
        let mut illegal_backward = Vec::with_capacity(m * nb);
        let fixed = strategy.source() == Source::Fixed;
        let mut fixed_log_pb = Vec::new();
        let (mut logits, mut log_probs) = (vec![0.0f32; nb], vec![0.0f64; nb]);
        for i in 0..b {
            let first = trajectories.rows(i).start;
            for (t, transition) in trajectories.transitions(i).enumerate() {
                source.push(rows.of_state[first + t] as i32);
                child.push(rows.of_state[first + t + 1] as i32);
                trajectory.push(i as i32);
                env.legal(trajectories.states.row(first + t), &mut legal[..na]);
                illegal_forward.extend(legal[..na].iter().map(|&legal| !legal));
                let end = trajectories.states.row(first + t + 1);
                env.legal_back(end, &mut legal[..nb]);
                illegal_backward.extend(legal[..nb].iter().map(|&legal| !legal));
                if fixed {
                    strategy.fixed_logits(env, end, &legal[..nb], &mut logits);
                    policy::log_softmax(&logits, &legal[..nb], &mut log_probs);
                    let back_action = trajectories.back_actions[transition] as usize;
                    fixed_log_pb.push(log_probs[back_action] as f32);
                }
            }
            ends[trajectories.offsets[i + 1] as usize - 1] = 1.0;
        }
        let mut evaluated = States::with_capacity(layout.width, rows.states.len());
        for &state in &rows.states {
            evaluated.push(trajectories.states.row(state as usize));
        }
        let floats = |values: Vec<f32>| {
            let n = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [n]), device)
        };
        let column = |values: &[u32]| {
            upload_ints(values.iter().map(|&a| a as i32).collect(), device).reshape([m, 1])
        };
        let bools = |values: Vec<bool>, columns: usize| {
            Tensor::<2, Bool>::from_data(TensorData::new(values, [m, columns]), device)
        };
        Self {
            observations: Observations::new(env, &evaluated),
            rows,
            source: upload_ints(source, device),
            child: upload_ints(child, device),
            trajectory: upload_ints(trajectory, device),
            ends: floats(ends),
            log_reward: floats(trajectories.log_reward.iter().map(|&r| r as f32).collect()),
            offsets: trajectories.offsets.clone(),
            parents: with_parents.then(|| Parents::new(env, trajectories, device)),
            illegal_forward: bools(illegal_forward, na),
            illegal_backward: bools(illegal_backward, nb),
            action: column(&trajectories.actions),
            back_action: column(&trajectories.back_actions),
            fixed_log_pb: fixed.then(|| floats(fixed_log_pb)),
        }
    }

    /// Number of trajectories.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no trajectories.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// log P_F of every transition, `[m]`.
    pub fn log_pf(&self, outputs: &Outputs) -> Tensor<1> {
        let logits = outputs.forward.clone().select(0, self.source.clone());
        masked_log_prob(logits, &self.illegal_forward, &self.action)
    }

    /// log P_B of every transition, `[m]`, from a network's logits at the *child* state.
    pub fn log_pb(&self, outputs: &Outputs) -> Tensor<1> {
        let logits = outputs.backward.clone().select(0, self.child.clone());
        masked_log_prob(logits, &self.illegal_backward, &self.back_action)
    }

    /// log P_B of every transition, `[m]`, for a strategy with a fixed P_B.
    pub fn fixed_log_pb(&self) -> Option<Tensor<1>> {
        self.fixed_log_pb.clone()
    }

    /// log R of every trajectory, `[b]`, raised to `min` if given.
    pub fn clipped_log_reward(&self, min: Option<f64>) -> Tensor<1> {
        match min {
            Some(min) => self.log_reward.clone().clamp_min(min),
            None => self.log_reward.clone(),
        }
    }

    /// Sums a value per transition over each trajectory: `[m]` to `[b]`.
    pub fn sum_by_trajectory(&self, values: Tensor<1>) -> Tensor<1> {
        let zeros = Tensor::zeros([self.len()], &values.device());
        let add = burn::tensor::IndexingUpdateOp::Add;
        zeros.select_assign(0, self.trajectory.clone(), values, add)
    }
}

impl Parents {
    fn new(env: &dyn Environment, trajectories: &Trajectories, device: &Device) -> Self {
        let layout = env.layout();
        let (na, nb) = (layout.n_actions, layout.n_back_actions);
        let m = trajectories.n_transitions();
        let mut states = States::new(layout.width);
        let (mut actions, mut illegal) = (Vec::new(), Vec::new());
        let (mut slots, mut empty) = (Vec::with_capacity(m * nb), Vec::with_capacity(m * nb));
        let (mut legal, mut legal_back) = (vec![false; na], vec![false; nb]);
        let mut row = vec![0; layout.width];
        for i in 0..trajectories.len() {
            for child in trajectories.rows(i).skip(1) {
                let child = trajectories.states.row(child);
                env.legal_back(child, &mut legal_back);
                for (back_action, &legal_back) in legal_back.iter().enumerate() {
                    empty.push(!legal_back);
                    if !legal_back {
                        slots.push(0);
                        continue;
                    }
                    row.copy_from_slice(child);
                    actions.push(env.unstep(&mut row, back_action) as i32);
                    env.legal(&row, &mut legal);
                    illegal.extend(legal.iter().map(|&legal| !legal));
                    slots.push(states.len() as i32);
                    states.push(&row);
                }
            }
        }
        let n = states.len();
        Self {
            observations: Observations::new(env, &states),
            illegal_forward: Tensor::from_data(TensorData::new(illegal, [n, na]), device),
            action: upload_ints(actions, device).reshape([n, 1]),
            slots: upload_ints(slots, device),
            empty: Tensor::from_data(TensorData::new(empty, [m, nb]), device),
            shape: [m, nb],
        }
    }

    /// Observations of all parents.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// log of the flow into each child: log Σ F(parent) P_F(child | parent), `[m]`.
    pub fn log_inflow(&self, outputs: &Outputs) -> Tensor<1> {
        let log_pf = masked_log_prob(outputs.forward.clone(), &self.illegal_forward, &self.action);
        let log_edge_flow = outputs.log_flow.clone() + log_pf;
        let padded = log_edge_flow
            .select(0, self.slots.clone())
            .reshape(self.shape)
            .mask_fill(self.empty.clone(), ILLEGAL);
        let max = padded.clone().detach().max_dim(1);
        let sum = (padded - max.clone()).exp().sum_dim(1).log();
        (sum + max).reshape([self.shape[0]])
    }
}

/// log-softmax over legal actions, gathered at the taken ones: `[m, k]` to `[m]`.
fn masked_log_prob(
    logits: Tensor<2>,
    illegal: &Tensor<2, Bool>,
    action: &Tensor<2, Int>,
) -> Tensor<1> {
    let [m, _] = logits.dims();
    log_softmax(logits.mask_fill(illegal.clone(), ILLEGAL), 1)
        .gather(1, action.clone())
        .reshape([m])
}

/// A batch with everything an objective may read, under the current parameters.
#[derive(Clone, Debug)]
pub struct Scored<'a> {
    /// The trajectories.
    pub batch: &'a Batch,
    /// log P_F of every transition, `[m]`.
    pub log_pf: Tensor<1>,
    /// log P_B of every transition, `[m]`; tracked only if the strategy trains P_B through the
    /// objective.
    pub log_pb: Tensor<1>,
    /// log F of every network row, `[n]`, as the network says (not R at terminal states).
    pub log_flow: Tensor<1>,
    /// The parameter log Z, `[1]`, for objectives that learn it.
    ///
    /// Absent otherwise: an operation on a tracked tensor that no loss depends on would stay in
    /// Burn's autodiff graph for good, and every later backward pass would walk past it.
    pub log_z: Option<Tensor<1>>,
    /// log of the flow into every child state, `[m]`, where the objective asked for it.
    pub log_inflow: Option<Tensor<1>>,
}

impl Scored<'_> {
    /// log F at the start of every transition, `[m]`.
    pub fn log_flow_source(&self) -> Tensor<1> {
        self.log_flow.clone().select(0, self.batch.source.clone())
    }

    /// log F at the end of every transition, `[m]`; log R where it is terminal.
    pub fn log_flow_child(&self, min_log_reward: Option<f64>) -> Tensor<1> {
        let ends = self.batch.ends.clone();
        let inner = self.log_flow.clone().select(0, self.batch.child.clone());
        let log_reward =
            self.batch.clipped_log_reward(min_log_reward).select(0, self.batch.trajectory.clone());
        inner * (ends.clone().neg() + 1.0) + log_reward * ends
    }

    /// log R + Σ log P_B − Σ log P_F of every trajectory, `[b]`.
    pub fn log_weight(&self, min_log_reward: Option<f64>) -> Tensor<1> {
        let ratio = self.batch.sum_by_trajectory(self.log_pb.clone() - self.log_pf.clone());
        self.batch.clipped_log_reward(min_log_reward) + ratio
    }
}
