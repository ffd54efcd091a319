//! The network: messages along bonds, twelve times the same ones, and a readout that attends to atoms
//! three times (NNConv with GRU and Set2Set, as Gilmer et al. 2017, arXiv:1704.01212).
//!
//! h = LeakyReLU(L₀ x); twelve times m = LeakyReLU(mean over neighbours j of A(bond)ᵀ hⱼ + L h + b) and
//! h = GRU(m, h); then three times q = LSTM([q, r]), r = Σ softmax(h·q) h; the score is L₃ [q, r].
//!
//! There are four kinds of bonds, so that A(bond) is one of five matrices (the fifth is that of a lone
//! atom to itself). Neighbours along bonds of one kind are summed before the product. Atoms of several
//! molecules make up the rows of a product; what a row gives does not depend on the others.

use std::ops::Range;

use gfn_core::vector::{exp, vectorised};
use rayon::prelude::*;
use safetensors::Dtype;

use super::super::tensors::{tensor, tensors};
use super::features::{BondKind, Input, WIDTH};
use super::product::{Matrix, Onto};

/// Numbers of the state of an atom.
const DIM: usize = 64;
/// Hidden units between the kind of a bond and its matrix.
const HIDDEN: usize = 128;
const STEPS: usize = 12;
const READOUTS: usize = 3;
/// Kinds of bonds, and that of a lone atom to itself.
const KINDS: usize = BondKind::ALL.len() + 1;
/// Atoms that are computed together: their states stay in the cache.
const TOGETHER: usize = 96;
/// Fewer are no better spread over threads.
const FEWEST: usize = 24;

/// Names and shapes of the tensors of a file, all F32, linear layers as rows of outputs.
pub const TENSORS: [(&str, &[usize]); 18] = [
    ("conv.bias", &[DIM]),
    ("conv.lin.weight", &[DIM, DIM]),
    ("conv.nn.0.bias", &[HIDDEN]),
    ("conv.nn.0.weight", &[HIDDEN, KINDS - 1]),
    ("conv.nn.2.bias", &[DIM * DIM]),
    ("conv.nn.2.weight", &[DIM * DIM, HIDDEN]),
    ("gru.bias_hh", &[3 * DIM]),
    ("gru.bias_ih", &[3 * DIM]),
    ("gru.weight_hh", &[3 * DIM, DIM]),
    ("gru.weight_ih", &[3 * DIM, DIM]),
    ("lin0.bias", &[DIM]),
    ("lin0.weight", &[DIM, WIDTH]),
    ("lin3.bias", &[1]),
    ("lin3.weight", &[1, 2 * DIM]),
    ("set2set.lstm.bias_hh", &[4 * DIM]),
    ("set2set.lstm.bias_ih", &[4 * DIM]),
    ("set2set.lstm.weight_hh", &[4 * DIM, DIM]),
    ("set2set.lstm.weight_ih", &[4 * DIM, 2 * DIM]),
];

/// The network with its weights.
pub struct Network {
    /// A row for each number of an atom.
    first: Vec<[f32; DIM]>,
    first_bias: [f32; DIM],
    /// By kind, the last one without a bond.
    along: [Matrix; KINDS],
    own: Matrix,
    own_bias: Vec<f32>,
    gru_message: Matrix,
    gru_message_bias: Vec<f32>,
    gru_state: Matrix,
    gru_state_bias: Vec<f32>,
    lstm: Matrix,
    lstm_bias: Vec<f32>,
    last: Vec<f32>,
    last_bias: f32,
}

#[inline(always)]
fn leaky(x: f32) -> f32 {
    x.max(0.01 * x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

impl Network {
    /// The network of a safetensors file.
    ///
    /// # Errors
    /// What is wrong with the file, as the end of a sentence.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let file = tensors(bytes)?;
        let read = |wanted: &str| {
            let (name, shape) =
                TENSORS.into_iter().find(|(name, _)| *name == wanted).expect("listed");
            let numbers = tensor(&file, (name, Some(shape)), Dtype::F32, f32::from_le_bytes)?;
            match numbers.iter().all(|number| number.is_finite()) {
                true => Ok(numbers),
                false => Err(format!("has a number in `{name}` that is not finite")),
            }
        };
        // Linear layers are stored as rows of outputs.
        let linear = |name: &str, k: usize, n: usize| -> Result<Matrix, String> {
            let weight = read(name)?;
            Ok(Matrix::new(k, n, |row, column| weight[column * k + row]))
        };
        let weight = read("lin0.weight")?;
        let row = |input: usize| std::array::from_fn(|output| weight[output * WIDTH + input]);
        let first = (0..WIDTH).map(row).collect();
        let first_bias = read("lin0.bias")?.try_into().expect("of that length");

        let (hidden, hidden_bias) = (read("conv.nn.0.weight")?, read("conv.nn.0.bias")?);
        let (weight, bias) = (read("conv.nn.2.weight")?, read("conv.nn.2.bias")?);
        let along = std::array::from_fn(|kind| {
            let column = (kind < BondKind::ALL.len()).then_some(kind);
            let unit = |(h, bias): (usize, &f32)| {
                leaky(bias + column.map_or(0.0, |column| hidden[h * BondKind::ALL.len() + column]))
            };
            let units: Vec<f32> = hidden_bias.iter().enumerate().map(unit).collect();
            Matrix::new(DIM, DIM, |row, column| {
                let place = row * DIM + column;
                let weights = &weight[place * HIDDEN..][..HIDDEN];
                let products =
                    weights.iter().zip(&units).map(|(w, u)| f64::from(*w) * f64::from(*u));
                (f64::from(bias[place]) + products.sum::<f64>()) as f32
            })
        });

        // q is the LSTM's last output, and both go into the next step.
        let (inputs, states) = (read("set2set.lstm.weight_ih")?, read("set2set.lstm.weight_hh")?);
        let lstm = Matrix::new(2 * DIM, 4 * DIM, |row, column| {
            let state = if row < DIM { states[column * DIM + row] } else { 0.0 };
            inputs[column * 2 * DIM + row] + state
        });
        let (input_bias, state_bias) =
            (read("set2set.lstm.bias_ih")?, read("set2set.lstm.bias_hh")?);
        Ok(Self {
            first,
            first_bias,
            along,
            own: linear("conv.lin.weight", DIM, DIM)?,
            own_bias: read("conv.bias")?,
            gru_message: linear("gru.weight_ih", DIM, 3 * DIM)?,
            gru_message_bias: read("gru.bias_ih")?,
            gru_state: linear("gru.weight_hh", DIM, 3 * DIM)?,
            gru_state_bias: read("gru.bias_hh")?,
            lstm,
            lstm_bias: input_bias.iter().zip(&state_bias).map(|(a, b)| a + b).collect(),
            last: read("lin3.weight")?,
            last_bias: read("lin3.bias")?[0],
        })
    }

    /// The score of each molecule, the same in any company. Molecules are shared out among threads.
    ///
    /// # Panics
    /// When a bond joins atoms that are not there.
    pub fn scores(&self, inputs: &[Input]) -> Vec<f64> {
        let n_atoms: usize = inputs.iter().map(|input| input.atoms.len()).sum();
        let together = (n_atoms / rayon::current_num_threads()).clamp(FEWEST, TOGETHER);
        let (mut parts, mut start, mut filled) = (Vec::new(), 0, 0);
        for (i, input) in inputs.iter().enumerate() {
            filled += input.atoms.len();
            if filled >= together || i + 1 == inputs.len() {
                parts.push(start..i + 1);
                (start, filled) = (i + 1, 0);
            }
        }
        let part = |workspace: &mut Workspace, part| self.part(workspace, &inputs[part]);
        parts.into_par_iter().map_init(Workspace::default, part).flatten_iter().collect()
    }

    fn part(&self, workspace: &mut Workspace, inputs: &[Input]) -> Vec<f64> {
        workspace.enter(inputs);
        self.first_states(workspace, inputs);
        for _ in 0..STEPS {
            self.messages(workspace);
            self.update(workspace);
        }
        self.readout(workspace)
    }

    /// Few numbers of an atom are not 0.
    fn first_states(&self, workspace: &mut Workspace, inputs: &[Input]) {
        let atoms = inputs.iter().flat_map(|input| &input.atoms);
        for (state, atom) in workspace.states.as_chunks_mut::<DIM>().0.iter_mut().zip(atoms) {
            *state = self.first_bias;
            for (column, number) in atom.columns() {
                state.iter_mut().zip(&self.first[column]).for_each(|(x, w)| *x += number * w);
            }
            state.iter_mut().for_each(|x| *x = leaky(*x));
        }
    }

    fn messages(&self, workspace: &mut Workspace) {
        let Workspace { states, messages, sums, neighbors, .. } = workspace;
        self.own.product(states, Onto::Bias(&self.own_bias), messages);
        for (matrix, neighbors) in self.along.iter().zip(neighbors) {
            if neighbors.atoms.is_empty() {
                continue;
            }
            sums.resize(neighbors.atoms.len() * DIM, 0.0);
            mean_states(states, neighbors, sums);
            matrix.product(sums, Onto::Rows(&neighbors.atoms), messages);
        }
        vectorised(
            #[inline(always)]
            || messages.iter_mut().for_each(|x| *x = leaky(*x)),
        );
    }

    /// Gates in the order of PyTorch: reset, update, new.
    fn update(&self, workspace: &mut Workspace) {
        let Workspace { states, messages, of_message, of_state, .. } = workspace;
        self.gru_message.product(messages, Onto::Bias(&self.gru_message_bias), of_message);
        self.gru_state.product(states, Onto::Bias(&self.gru_state_bias), of_state);
        vectorised(
            #[inline(always)]
            || {
                let gates = of_message.as_chunks::<{ 3 * DIM }>().0.iter();
                let gates = gates.zip(of_state.as_chunks::<{ 3 * DIM }>().0);
                for (state, (input, own)) in states.as_chunks_mut::<DIM>().0.iter_mut().zip(gates) {
                    for (i, state) in state.iter_mut().enumerate() {
                        let reset = sigmoid(input[i] + own[i]);
                        let update = sigmoid(input[DIM + i] + own[DIM + i]);
                        let new = tanh(input[2 * DIM + i] + reset * own[2 * DIM + i]);
                        *state = new + update * (*state - new);
                    }
                }
            },
        );
    }

    fn readout(&self, workspace: &mut Workspace) -> Vec<f64> {
        let Workspace { states, molecules, asked, cells, gates, weights, .. } = workspace;
        let states = states.as_chunks::<DIM>().0;
        asked.clear();
        asked.resize(molecules.len() * 2 * DIM, 0.0);
        cells.clear();
        cells.resize(molecules.len() * DIM, 0.0);
        gates.resize(molecules.len() * 4 * DIM, 0.0);
        for _ in 0..READOUTS {
            self.lstm.product(asked, Onto::Bias(&self.lstm_bias), gates);
            vectorised(
                #[inline(always)]
                || {
                    let asked = asked.as_chunks_mut::<{ 2 * DIM }>().0.iter_mut();
                    let cells = cells.as_chunks_mut::<DIM>().0.iter_mut();
                    let gates = gates.as_chunks::<{ 4 * DIM }>().0;
                    for (((asked, cell), gates), atoms) in
                        asked.zip(cells).zip(gates).zip(&*molecules)
                    {
                        ask(asked, cell, gates);
                        attend(asked, &states[atoms.clone()], weights);
                    }
                },
            );
        }
        let score = |asked: &[f32; 2 * DIM]| {
            let terms = asked.iter().zip(&self.last).map(|(x, w)| f64::from(*x) * f64::from(*w));
            f64::from(self.last_bias) + terms.sum::<f64>()
        };
        asked.as_chunks::<{ 2 * DIM }>().0.iter().map(score).collect()
    }
}

/// The sum of the states of an atom's neighbours along bonds of one kind, divided by the number of all its
/// neighbours.
fn mean_states(states: &[f32], neighbors: &Neighbors, sums: &mut [f32]) {
    let states = states.as_chunks::<DIM>().0;
    vectorised(
        #[inline(always)]
        || {
            let mut start = 0;
            for ((sum, &end), &share) in
                sums.as_chunks_mut::<DIM>().0.iter_mut().zip(&neighbors.ends).zip(&neighbors.shares)
            {
                *sum = [0.0; DIM];
                for &neighbor in &neighbors.others[start..end] {
                    let state = &states[neighbor as usize];
                    sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += x);
                }
                sum.iter_mut().for_each(|sum| *sum *= share);
                start = end;
            }
        },
    );
}

/// A step of the LSTM, whose output is the first half of `asked`; gates in the order of PyTorch: input,
/// forget, cell, output.
#[inline(always)]
fn ask(asked: &mut [f32; 2 * DIM], cell: &mut [f32; DIM], gates: &[f32; 4 * DIM]) {
    for i in 0..DIM {
        let (input, forget) = (sigmoid(gates[i]), sigmoid(gates[DIM + i]));
        cell[i] = forget * cell[i] + input * tanh(gates[2 * DIM + i]);
        asked[i] = sigmoid(gates[3 * DIM + i]) * tanh(cell[i]);
    }
}

/// Makes the second half of `asked` the mean of the states, weighted by the softmax of their products with
/// the first half.
#[inline(always)]
fn attend(asked: &mut [f32; 2 * DIM], states: &[[f32; DIM]], weights: &mut Vec<f32>) {
    const LANES: usize = 16;
    let (question, answer) = asked.split_at_mut(DIM);
    weights.clear();
    for state in states {
        // As many sums side by side as the widest registers have lanes, on every machine.
        let mut sums = [0.0_f32; LANES];
        for (x, q) in state.as_chunks::<LANES>().0.iter().zip(question.as_chunks::<LANES>().0) {
            for (sum, (x, q)) in sums.iter_mut().zip(x.iter().zip(q)) {
                *sum += x * q;
            }
        }
        weights.push(sums.iter().sum());
    }
    let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.iter_mut().for_each(|weight| *weight = exp(*weight - most));
    let total: f32 = weights.iter().sum();
    answer.fill(0.0);
    for (state, weight) in states.iter().zip(&*weights) {
        let weight = weight / total;
        answer.iter_mut().zip(state).for_each(|(sum, x)| *sum += weight * x);
    }
}

/// Numbers of the molecules that are computed together, kept from part to part.
#[derive(Default)]
struct Workspace {
    /// Atoms of each molecule.
    molecules: Vec<Range<usize>>,
    /// By kind of bond.
    neighbors: [Neighbors; KINDS],
    states: Vec<f32>,
    messages: Vec<f32>,
    /// What products of the GRU give.
    of_message: Vec<f32>,
    of_state: Vec<f32>,
    sums: Vec<f32>,
    /// [q, r] of each molecule, and what its LSTM keeps.
    asked: Vec<f32>,
    cells: Vec<f32>,
    gates: Vec<f32>,
    weights: Vec<f32>,
}

/// Neighbours along bonds of one kind.
#[derive(Default)]
struct Neighbors {
    /// Atoms that have some.
    atoms: Vec<u32>,
    /// Where those of each atom end in `others`.
    ends: Vec<usize>,
    /// For each atom, 1 over the number of its neighbours along bonds of any kind.
    shares: Vec<f32>,
    others: Vec<u32>,
}

impl Workspace {
    fn enter(&mut self, inputs: &[Input]) {
        self.molecules.clear();
        for Neighbors { atoms, ends, shares, others } in &mut self.neighbors {
            ends.clear();
            shares.clear();
            atoms.clear();
            others.clear();
        }
        let mut n = 0;
        for input in inputs {
            let atoms = n..n + input.atoms.len();
            let end = |atom: usize| {
                assert!(atom < input.atoms.len(), "bonds join atoms of the molecule");
                (n + atom) as u32
            };
            // Each bond leads both ways; of an atom's neighbours the first come first.
            let mut directed: Vec<(u8, u32, u32)> = Vec::with_capacity(2 * input.bonds.len());
            for &([a, b], kind) in &input.bonds {
                directed.push((kind as u8, end(a), end(b)));
                directed.push((kind as u8, end(b), end(a)));
            }
            if directed.is_empty() && !atoms.is_empty() {
                directed.push((KINDS as u8 - 1, n as u32, n as u32));
            }
            directed.sort_unstable();
            let mut degrees = vec![0.0_f32; atoms.len()];
            directed.iter().for_each(|&(_, atom, _)| degrees[atom as usize - n] += 1.0);
            for run in directed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
                let (kind, atom, _) = run[0];
                let neighbors = &mut self.neighbors[usize::from(kind)];
                neighbors.others.extend(run.iter().map(|&(_, _, other)| other));
                neighbors.atoms.push(atom);
                neighbors.ends.push(neighbors.others.len());
                neighbors.shares.push(1.0 / degrees[atom as usize - n]);
            }
            n = atoms.end;
            self.molecules.push(atoms);
        }
        for (numbers, width) in [
            (&mut self.states, DIM),
            (&mut self.messages, DIM),
            (&mut self.of_message, 3 * DIM),
            (&mut self.of_state, 3 * DIM),
        ] {
            numbers.resize(n * width, 0.0);
        }
    }
}

#[cfg(test)]
mod tests;
