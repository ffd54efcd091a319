//! The actions that a batch of transitions took, among those that were legal: their
//! log-probabilities and the gradients of these, in Burn and by hand.

use std::sync::OnceLock;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::kernels::{exp, vectorised};
use crate::network::upload_ints;

/// Fill value for logits of illegal actions. Not -infinity: a row without legal actions would
/// become NaN, and NaN times zero poisons gradients.
pub(crate) const ILLEGAL: f32 = -1e9;

/// One choice per entry: the network row that it was made at, the action taken, and which actions
/// were not legal.
#[derive(Debug)]
pub struct Choices {
    rows: Vec<i32>,
    taken: Vec<i32>,
    illegal: Vec<bool>,
    n_actions: usize,
    device: Device,
    uploaded: OnceLock<Uploaded>,
}

#[derive(Debug)]
struct Uploaded {
    rows: Tensor<1, Int>,
    taken: Tensor<2, Int>,
    illegal: Tensor<2, Bool>,
}

impl Choices {
    /// No choices yet among `n_actions`, with room for `m`.
    pub fn with_capacity(n_actions: usize, m: usize, device: &Device) -> Self {
        Self {
            rows: Vec::with_capacity(m),
            taken: Vec::with_capacity(m),
            illegal: Vec::with_capacity(m * n_actions),
            n_actions,
            device: device.clone(),
            uploaded: OnceLock::new(),
        }
    }

    /// Adds the choice of `taken` among the `legal` actions at a network row.
    pub fn push(&mut self, row: usize, legal: &[bool], taken: usize) {
        self.rows.push(row as i32);
        self.taken.push(taken as i32);
        self.illegal.extend(legal.iter().map(|&legal| !legal));
    }

    /// Number of choices.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no choices.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Network row of every choice.
    pub fn rows(&self) -> &[i32] {
        &self.rows
    }

    fn uploaded(&self) -> &Uploaded {
        self.uploaded.get_or_init(|| {
            let shape = [self.len(), self.n_actions];
            let illegal = TensorData::new(self.illegal.clone(), shape);
            Uploaded {
                rows: upload_ints(self.rows.clone(), &self.device),
                taken: upload_ints(self.taken.clone(), &self.device).reshape([self.len(), 1]),
                illegal: Tensor::from_data(illegal, &self.device),
            }
        })
    }

    /// log-probability of every choice, `[m]`, from the logits of all network rows,
    /// `[n, n_actions]`.
    pub fn log_probs(&self, logits: Tensor<2>) -> Tensor<1> {
        let Uploaded { rows, taken, illegal } = self.uploaded();
        let logits = logits.select(0, rows.clone()).mask_fill(illegal.clone(), ILLEGAL);
        log_softmax(logits, 1).gather(1, taken.clone()).reshape([self.len()])
    }

    /// The same on the host, from rows of `width` outputs, of which the logits start at `column`.
    pub fn log_probs_on_host(&self, output: &[f32], width: usize, column: usize) -> Vec<f32> {
        let mut weights = vec![0.0; self.n_actions];
        let choices = self.rows.iter().zip(&self.taken).zip(self.illegal.chunks(self.n_actions));
        choices
            .map(|((&row, &taken), illegal)| {
                let logits = &output[row as usize * width + column..][..self.n_actions];
                let (max, sum) = exponentials(logits, illegal, &mut weights);
                logits[taken as usize] - max - sum.ln()
            })
            .collect()
    }

    /// Adds to `gradient`, that of the outputs, what follows from `upstream`, that of the
    /// log-probabilities: upstream · (1[a taken] − P(a)) for the logit of each legal action a.
    pub fn add_gradient(
        &self,
        output: &[f32],
        width: usize,
        column: usize,
        upstream: &[f32],
        gradient: &mut [f32],
    ) {
        let choices = self.rows.iter().zip(&self.taken).zip(self.illegal.chunks(self.n_actions));
        let mut weights = vec![0.0; self.n_actions];
        for (((&row, &taken), illegal), &upstream) in choices.zip(upstream) {
            if illegal.iter().filter(|&&illegal| !illegal).count() == 1 {
                continue; // no choice, no gradient
            }
            let start = row as usize * width + column;
            let (_, sum) = exponentials(&output[start..][..self.n_actions], illegal, &mut weights);
            let gradient = &mut gradient[start..][..self.n_actions];
            add_scaled(gradient, &weights, -upstream / sum);
            gradient[taken as usize] += upstream;
        }
    }
}

/// From how many actions on rows are worth vector instructions: below, the call costs more.
const WIDE: usize = 32;

/// Writes e^(x − max) of every legal logit x to `weights`, 0 where illegal; the largest legal logit
/// and the sum of the weights.
fn exponentials(logits: &[f32], illegal: &[bool], weights: &mut [f32]) -> (f32, f32) {
    const LANES: usize = 16;
    if logits.len() < WIDE {
        let legal = logits.iter().zip(illegal).filter(|(_, illegal)| !**illegal);
        let max = legal.fold(f32::NEG_INFINITY, |max, (&x, _)| max.max(x));
        let mut sum = 0.0;
        for ((weight, &x), &illegal) in weights.iter_mut().zip(logits).zip(illegal) {
            *weight = if illegal { 0.0 } else { exp(x - max) };
            sum += *weight;
        }
        return (max, sum);
    }
    vectorised(
        #[inline(always)]
        || {
            for ((weight, &logit), &illegal) in weights.iter_mut().zip(logits).zip(illegal) {
                *weight = if illegal { f32::NEG_INFINITY } else { logit };
            }
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in weights.chunks(LANES) {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane = if x > *lane { x } else { *lane };
                }
            }
            let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
            let mut lanes = [0.0; LANES];
            for (chunk, illegal) in weights.chunks_mut(LANES).zip(illegal.chunks(LANES)) {
                for ((weight, &illegal), lane) in chunk.iter_mut().zip(illegal).zip(&mut lanes) {
                    *weight = if illegal { 0.0 } else { exp(*weight - max) };
                    *lane += *weight;
                }
            }
            (max, lanes.iter().sum())
        },
    )
}

/// `gradient += factor · weights`.
fn add_scaled(gradient: &mut [f32], weights: &[f32], factor: f32) {
    if weights.len() < WIDE {
        for (gradient, &weight) in gradient.iter_mut().zip(weights) {
            *gradient += factor * weight;
        }
        return;
    }
    vectorised(
        #[inline(always)]
        || {
            for (gradient, &weight) in gradient.iter_mut().zip(weights) {
                *gradient += factor * weight;
            }
        },
    )
}
