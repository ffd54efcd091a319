//! The actions that a batch of transitions took, among those that were legal: their
//! log-probabilities and the gradients of these, in Burn and by hand.

use std::sync::OnceLock;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::native::{OutputRows, Tape};
use crate::network::upload_ints;
use crate::vector::{softmax_weights, vectorised};

/// Fill value for logits of illegal actions. Not -infinity: a row without legal actions would
/// become NaN, and NaN times zero poisons gradients.
pub(crate) const ILLEGAL: f32 = -1e9;

/// One choice per entry: the network row that it was made at, the action taken, and which actions
/// were legal.
#[derive(Debug)]
pub struct Choices {
    rows: Vec<i32>,
    taken: Vec<i32>,
    legal: Vec<bool>,
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
            legal: Vec::with_capacity(m * n_actions),
            n_actions,
            device: device.clone(),
            uploaded: OnceLock::new(),
        }
    }

    /// Adds the choice of `taken` among the `legal` actions at a network row.
    pub fn push(&mut self, row: usize, legal: &[bool], taken: usize) {
        self.rows.push(row as i32);
        self.taken.push(taken as i32);
        self.legal.extend_from_slice(legal);
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
            let illegal: Vec<bool> = self.legal.iter().map(|&legal| !legal).collect();
            let illegal = TensorData::new(illegal, shape);
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

    /// The same on the host, from rows of outputs, of which the logits start at `column`.
    pub fn log_probs_on_host(&self, outputs: &OutputRows<'_>, column: usize) -> Vec<f32> {
        let mut log_probs = vec![0.0; self.len()];
        let choose = |first: usize, log_probs: &mut [f32]| {
            let mut weights = vec![0.0; self.n_actions];
            for (i, log_prob) in log_probs.iter_mut().enumerate() {
                let (row, taken) = (self.rows[first + i] as usize, self.taken[first + i] as usize);
                let logits = &outputs.row(row)[column..][..self.n_actions];
                let legal = self.legal_at(first + i);
                let (max, sum) = softmax_weights(logits, legal, 1.0, &mut weights);
                *log_prob = logits[taken] - max - sum.ln();
            }
        };
        let per_thread = self.per_thread();
        if log_probs.len() <= per_thread {
            choose(0, &mut log_probs);
        } else {
            let parts = log_probs.par_chunks_mut(per_thread).enumerate();
            parts.for_each(|(part, log_probs)| choose(part * per_thread, log_probs));
        }
        log_probs
    }

    /// The legal actions of a choice.
    fn legal_at(&self, choice: usize) -> &[bool] {
        &self.legal[choice * self.n_actions..][..self.n_actions]
    }

    /// How many choices are worth a thread.
    fn per_thread(&self) -> usize {
        (1 << 16) / self.n_actions.max(1)
    }

    /// Adds to the gradient of the outputs of `tapes`, of `width` columns, what follows from
    /// `upstream`, that of the log-probabilities: upstream · (1[a taken] − P(a)) for the logit of
    /// each legal action a.
    pub fn add_gradient(&self, tapes: &mut [Tape], width: usize, column: usize, upstream: &[f32]) {
        let add = |choice: usize, weights: &mut [f32], output: &[f32], gradient: &mut [f32]| {
            let (legal, upstream) = (self.legal_at(choice), upstream[choice]);
            if legal.iter().filter(|&&legal| legal).count() == 1 {
                return; // no choice, no gradient
            }
            let (_, sum) =
                softmax_weights(&output[column..][..self.n_actions], legal, 1.0, weights);
            let gradient = &mut gradient[column..][..self.n_actions];
            add_scaled(gradient, weights, -upstream / sum);
            gradient[self.taken[choice] as usize] += upstream;
        };
        // By row, so that threads write into different rows; those of one row in order.
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_key(|&choice| self.rows[choice as usize]);
        let by_row = order.chunk_by(|&a, &b| self.rows[a as usize] == self.rows[b as usize]);
        let mut rows = tapes.iter_mut().flat_map(|tape| {
            let outputs = tape.output[..tape.rows * width].chunks_exact(width);
            outputs.zip(tape.output_gradient.chunks_exact_mut(width))
        });
        let mut next = 0;
        let work = by_row.map(|choices| {
            let row = self.rows[choices[0] as usize] as usize;
            let (output, gradient) = rows.nth(row - next).expect("every choice has its row");
            next = row + 1;
            (choices, output, gradient)
        });
        let per_thread = self.per_thread();
        let new_weights = || vec![0.0; self.n_actions];
        if self.len() <= per_thread {
            let mut weights = new_weights();
            work.for_each(|(choices, output, gradient)| {
                for &choice in choices {
                    add(choice as usize, &mut weights, output, gradient);
                }
            });
            return;
        }
        let mut work: Vec<_> = work.collect();
        work.par_iter_mut().with_min_len(per_thread).for_each_init(
            new_weights,
            |weights, (choices, output, gradient)| {
                choices.iter().for_each(|&choice| add(choice as usize, weights, output, gradient));
            },
        );
    }
}

/// From how many numbers on loops are worth a call for wide instructions.
const WIDE: usize = 32;

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
