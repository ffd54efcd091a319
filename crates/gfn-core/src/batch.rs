//! A batch of trajectories, ready for losses: observations, choices, rewards.

use std::cell::OnceCell;
use std::sync::Arc;

use burn::tensor::{Bool, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::backward::{BackwardStrategy, Source};
use crate::choices::{Choices, ILLEGAL};
use crate::network::{Observations, upload_ints};
use crate::policy;
use crate::{Environment, NetworkRows, States, Trajectories};

/// Packed trajectories without padding, on the host and, as far as a loss asks for it, on a
/// device.
///
/// `n` network rows, `m` transitions, `b` trajectories. Transition arrays are in trajectory order;
/// network rows in that of [`rows`](Self::rows).
#[derive(Debug)]
pub struct Batch {
    /// Which states the network rows are.
    pub rows: NetworkRows,
    /// Observations of all `n` network rows.
    pub observations: Observations,
    /// The forward action of each transition, chosen at its start.
    pub forward: Arc<Choices>,
    /// The backward action of each transition, chosen at its end.
    pub backward: Arc<Choices>,
    /// log R per trajectory, unclipped.
    pub log_reward: Vec<f64>,
    /// Transitions before each trajectory, `b + 1` entries.
    pub offsets: Vec<u32>,
    /// Parents of every child state, for flow matching.
    pub parents: Option<Parents>,
    fixed_log_pb: Option<Vec<f32>>,
    device: Device,
    source: OnceCell<Tensor<1, Int>>,
    trajectory: OnceCell<Tensor<1, Int>>,
}

/// All parents of the child state of every transition.
#[derive(Debug)]
pub struct Parents {
    /// Observations of the parents.
    pub observations: Observations,
    /// The action that leads from each parent to the child.
    pub choices: Arc<Choices>,
    /// Position of each parent in the padded `[m, n_back_actions]` layout's source.
    slots: Tensor<1, Int>,
    /// True where the padded layout has no parent.
    empty: Tensor<2, Bool>,
    shape: [usize; 2],
}

impl Batch {
    /// Prepares trajectories with their rewards; `rows` says which of their states the network
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
        let mut forward = Choices::with_capacity(na, m, device);
        let mut backward = Choices::with_capacity(nb, m, device);
        let mut legal = vec![false; na.max(nb)];
        let fixed = strategy.source() == Source::Fixed;
        let mut fixed_log_pb = Vec::new();
        let (mut logits, mut log_probs) = (vec![0.0f32; nb], vec![0.0f64; nb]);
        for i in 0..b {
            let first = trajectories.rows(i).start;
            for (t, transition) in trajectories.transitions(i).enumerate() {
                let (start, end) = (first + t, first + t + 1);
                let row = |state: usize| rows.of_state[state] as usize;
                env.legal(trajectories.states.row(start), &mut legal[..na]);
                forward.push(row(start), &legal[..na], trajectories.actions[transition] as usize);
                let child = trajectories.states.row(end);
                let back_action = trajectories.back_actions[transition] as usize;
                env.legal_back(child, &mut legal[..nb]);
                backward.push(row(end), &legal[..nb], back_action);
                if fixed {
                    strategy.fixed_logits(env, child, &legal[..nb], &mut logits);
                    policy::log_softmax(&logits, &legal[..nb], &mut log_probs);
                    fixed_log_pb.push(log_probs[back_action] as f32);
                }
            }
        }
        let mut evaluated = States::with_capacity(layout.width, rows.states.len());
        for &state in &rows.states {
            evaluated.push(trajectories.states.row(state as usize));
        }
        Self {
            observations: Observations::new(env, &evaluated),
            rows,
            forward: Arc::new(forward),
            backward: Arc::new(backward),
            log_reward: trajectories.log_reward.clone(),
            offsets: trajectories.offsets.clone(),
            parents: with_parents.then(|| Parents::new(env, trajectories, device)),
            fixed_log_pb: fixed.then_some(fixed_log_pb),
            device: device.clone(),
            source: OnceCell::new(),
            trajectory: OnceCell::new(),
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

    /// Number of transitions.
    pub fn n_transitions(&self) -> usize {
        self.forward.len()
    }

    /// The device of its tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Numbers as a tensor on the batch's device.
    pub fn upload(&self, values: Vec<f32>) -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &self.device)
    }

    /// Network row of each transition's start, `[m]`.
    pub fn source(&self) -> Tensor<1, Int> {
        self.source.get_or_init(|| upload_ints(self.forward.rows().to_vec(), &self.device)).clone()
    }

    /// Network row of each transition's end, `[m]`; any row where it is terminal and needs none.
    pub fn child(&self) -> Tensor<1, Int> {
        upload_ints(self.backward.rows().to_vec(), &self.device)
    }

    /// log P_B of every transition, `[m]`, for a strategy with a fixed P_B.
    pub fn fixed_log_pb(&self) -> Option<&Vec<f32>> {
        self.fixed_log_pb.as_ref()
    }

    /// log R of every trajectory, raised to `min` if given.
    pub fn clipped_log_reward(&self, min: Option<f64>) -> Vec<f32> {
        let min = min.unwrap_or(f64::NEG_INFINITY);
        self.log_reward.iter().map(|&log_r| log_r.max(min) as f32).collect()
    }

    /// Replaces values per child state, `[m]`, by those of its trajectory where the child is
    /// terminal.
    pub fn with_terminals(&self, values: Tensor<1>, at_terminals: &[f32]) -> Tensor<1> {
        let m = self.n_transitions();
        let (mut ends, mut replaced) = (vec![false; m], vec![0.0; m]);
        for (i, &value) in at_terminals.iter().enumerate() {
            let last = self.offsets[i + 1] as usize - 1;
            (ends[last], replaced[last]) = (true, value);
        }
        let ends = Tensor::<1, Bool>::from_data(TensorData::new(ends, [m]), &self.device);
        values.mask_where(ends, self.upload(replaced))
    }

    /// Sums a value per transition over each trajectory: `[m]` to `[b]`.
    pub fn sum_by_trajectory(&self, values: Tensor<1>) -> Tensor<1> {
        let trajectory = self.trajectory.get_or_init(|| {
            let lens = self.offsets.windows(2).map(|w| (w[1] - w[0]) as usize);
            let of_transition =
                lens.enumerate().flat_map(|(i, n)| std::iter::repeat_n(i as i32, n));
            upload_ints(of_transition.collect(), &self.device)
        });
        let zeros = Tensor::zeros([self.len()], &values.device());
        zeros.select_assign(0, trajectory.clone(), values, IndexingUpdateOp::Add)
    }
}

impl Parents {
    fn new(env: &dyn Environment, trajectories: &Trajectories, device: &Device) -> Self {
        let layout = env.layout();
        let (na, nb) = (layout.n_actions, layout.n_back_actions);
        let m = trajectories.n_transitions();
        let mut states = States::new(layout.width);
        let mut choices = Choices::with_capacity(na, m * nb, device);
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
                    let action = env.unstep(&mut row, back_action);
                    env.legal(&row, &mut legal);
                    choices.push(states.len(), &legal, action);
                    slots.push(states.len() as i32);
                    states.push(&row);
                }
            }
        }
        Self {
            observations: Observations::new(env, &states),
            choices: Arc::new(choices),
            slots: upload_ints(slots, device),
            empty: Tensor::from_data(TensorData::new(empty, [m, nb]), device),
            shape: [m, nb],
        }
    }

    /// log of the flow into each child, log Σ F(parent) P_F(child | parent), `[m]`, from log P_F
    /// and log F of all parents.
    pub fn log_inflow(&self, log_pf: Tensor<1>, log_flow: Tensor<1>) -> Tensor<1> {
        let padded = (log_flow + log_pf)
            .select(0, self.slots.clone())
            .reshape(self.shape)
            .mask_fill(self.empty.clone(), ILLEGAL);
        let max = padded.clone().detach().max_dim(1);
        let sum = (padded - max.clone()).exp().sum_dim(1).log();
        (sum + max).reshape([self.shape[0]])
    }
}
