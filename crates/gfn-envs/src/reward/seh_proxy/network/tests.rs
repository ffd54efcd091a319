//! The network against its equations in double precision, with weights drawn at random.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;

use super::super::features::AtomInput;
use super::*;
use crate::chemistry::{DrawnMolecule, Hybridisation, Molecule};

type Weights = BTreeMap<&'static str, Vec<f32>>;

fn number(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Of the size that states keep.
fn random_weights() -> Weights {
    let mut seed = 7;
    let of_shape = |(name, shape): (&'static str, &[usize])| {
        let size = 1.5 / (*shape.last().unwrap() as f32).sqrt();
        (name, (0..shape.iter().product()).map(|_| size * number(&mut seed)).collect())
    };
    TENSORS.into_iter().map(of_shape).collect()
}

fn file(weights: &Weights) -> Vec<u8> {
    let bytes = |numbers: &Vec<f32>| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors: Vec<(_, _, Vec<u8>)> =
        TENSORS.iter().map(|&(name, shape)| (name, shape, bytes(&weights[name]))).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Connected graphs of 1, 2, … atoms.
fn random_inputs(n: usize) -> Vec<Input> {
    let mut seed = 3;
    let mut below = |n: usize| ((number(&mut seed) + 1.0) * 0.5 * n as f32) as usize % n;
    let molecule = |size: usize| {
        let orbitals =
            [Hybridisation::Sp, Hybridisation::Sp2, Hybridisation::Sp3, Hybridisation::S];
        let atoms = (0..size).map(|_| AtomInput {
            element: [6, 7, 8, 9, 15, 16, 53][below(7)],
            aromatic: below(2) == 1,
            hybridisation: orbitals[below(4)],
            hydrogens: below(4) as u8,
            open: below(3) == 0,
        });
        let atoms = atoms.collect();
        let mut bonds: Vec<_> =
            (1..size).map(|atom| ([below(atom), atom], BondKind::ALL[below(4)])).collect();
        if size > 4 {
            bonds.retain(|(ends, _)| *ends != [0, size - 1]);
            bonds.push(([size - 1, 0], BondKind::Aromatic));
        }
        Input { atoms, bonds }
    };
    (0..n).map(|i| 1 + i * 7 % 40).map(molecule).collect()
}

/// One molecule at a time, one number after the other.
fn plain_score(weights: &Weights, input: &Input) -> f64 {
    let linear = |weight: &str, bias: &str, n: usize, x: &[f64]| -> Vec<f64> {
        let (weight, bias) = (&weights[weight], &weights[bias]);
        assert_eq!((weight.len(), bias.len()), (n * x.len(), n));
        let sum = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        weight.chunks(x.len()).zip(bias).map(|(row, bias)| sum(row) + f64::from(*bias)).collect()
    };
    let leaky = |x: f64| if x > 0.0 { x } else { 0.01 * x };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut states: Vec<Vec<f64>> = Vec::new();
    for atom in &input.atoms {
        let mut x = [0.0; WIDTH];
        atom.columns().for_each(|(column, value)| x[column] = f64::from(value));
        let state = linear("lin0.weight", "lin0.bias", DIM, &x);
        states.push(state.into_iter().map(leaky).collect());
    }
    let mut edges: Vec<(usize, usize, [f64; 4])> = Vec::new();
    for &([a, b], kind) in &input.bonds {
        let attribute = std::array::from_fn(|column| f64::from(u8::from(column == kind as usize)));
        edges.extend([(a, b, attribute), (b, a, attribute)]);
    }
    if edges.is_empty() {
        edges.push((0, 0, [0.0; 4]));
    }
    let matrices: Vec<Vec<f64>> = edges
        .iter()
        .map(|(_, _, attribute)| {
            let hidden = linear("conv.nn.0.weight", "conv.nn.0.bias", HIDDEN, attribute);
            let hidden: Vec<f64> = hidden.into_iter().map(leaky).collect();
            linear("conv.nn.2.weight", "conv.nn.2.bias", DIM * DIM, &hidden)
        })
        .collect();
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for (atom, state) in states.iter().enumerate() {
            let degree = edges.iter().filter(|(_, to, _)| *to == atom).count() as f64;
            let mut message = linear("conv.lin.weight", "conv.bias", DIM, state);
            for ((from, _, _), matrix) in
                edges.iter().zip(&matrices).filter(|((_, to, _), _)| *to == atom)
            {
                for (o, message) in message.iter_mut().enumerate() {
                    let terms = states[*from].iter().enumerate();
                    *message += terms.map(|(i, x)| x * matrix[i * DIM + o]).sum::<f64>() / degree;
                }
            }
            let message: Vec<f64> = message.into_iter().map(leaky).collect();
            let input = linear("gru.weight_ih", "gru.bias_ih", 3 * DIM, &message);
            let own = linear("gru.weight_hh", "gru.bias_hh", 3 * DIM, state);
            let unit = |i: usize| {
                let [r, z] = [i, DIM + i].map(|gate| sigmoid(input[gate] + own[gate]));
                let new = (input[2 * DIM + i] + r * own[2 * DIM + i]).tanh();
                (1.0 - z) * new + z * state[i]
            };
            next.push((0..DIM).map(unit).collect());
        }
        states = next;
    }
    let (mut asked, mut q, mut cell) = (vec![0.0; 2 * DIM], vec![0.0; DIM], vec![0.0; DIM]);
    for _ in 0..READOUTS {
        let input = linear("set2set.lstm.weight_ih", "set2set.lstm.bias_ih", 4 * DIM, &asked);
        let own = linear("set2set.lstm.weight_hh", "set2set.lstm.bias_hh", 4 * DIM, &q);
        let gate = |gate: usize, i: usize| input[gate * DIM + i] + own[gate * DIM + i];
        for i in 0..DIM {
            cell[i] = sigmoid(gate(1, i)) * cell[i] + sigmoid(gate(0, i)) * gate(2, i).tanh();
            q[i] = sigmoid(gate(3, i)) * f64::tanh(cell[i]);
        }
        let dot = |state: &Vec<f64>| state.iter().zip(&q).map(|(x, q)| x * q).sum::<f64>();
        let powers: Vec<f64> = states.iter().map(|state| dot(state).exp()).collect();
        let total: f64 = powers.iter().sum();
        let mean = |i: usize| {
            states.iter().zip(&powers).map(|(state, power)| state[i] * power).sum::<f64>() / total
        };
        asked = q.iter().copied().chain((0..DIM).map(mean)).collect();
    }
    linear("lin3.weight", "lin3.bias", 1, &asked)[0]
}

#[test]
fn scores_are_those_of_the_equations() {
    let weights = random_weights();
    let network = Network::read(&file(&weights)).unwrap();
    let inputs = random_inputs(12);
    let mut seen = (f64::INFINITY, f64::NEG_INFINITY);
    for (input, score) in inputs.iter().zip(network.scores(&inputs)) {
        let expected = plain_score(&weights, input);
        assert!((score - expected).abs() < 1e-5, "{} atoms: {score} {expected}", input.atoms.len());
        seen = (seen.0.min(score), seen.1.max(score));
    }
    assert!(seen.1 - seen.0 > 0.05, "scores differ: {seen:?}");
    assert!(network.scores(&[]).is_empty());
    assert!(network.scores(&[Input::default()])[0].is_finite());
}

/// To the last bit, in any batch and with any number of threads.
#[test]
fn a_molecule_has_one_score_in_any_company() {
    let network = Network::read(&file(&random_weights())).unwrap();
    let inputs = random_inputs(60);
    let scores = network.scores(&inputs);
    for (input, score) in inputs.iter().zip(&scores) {
        assert_eq!(network.scores(std::slice::from_ref(input))[0].to_bits(), score.to_bits());
    }
    let reversed: Vec<Input> = inputs.iter().rev().cloned().collect();
    for threads in [1, 2, 5, 16] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut again = pool.install(|| network.scores(&reversed));
        again.reverse();
        assert!(again.iter().zip(&scores).all(|(a, b)| a.to_bits() == b.to_bits()), "{threads}");
    }
}

#[test]
fn files_are_checked() {
    let mut weights = random_weights();
    let bytes = file(&weights);
    let changed = |from: &str, to: &str| {
        let mut bytes = bytes.clone();
        let place = bytes.windows(from.len()).position(|text| text == from.as_bytes()).unwrap();
        bytes[place..place + from.len()].copy_from_slice(to.as_bytes());
        Network::read(&bytes).err().unwrap()
    };
    assert_eq!(changed("conv.bias", "conv.bios"), "has no tensor `conv.bias`");
    let shape = changed("[64,71]", "[71,64]");
    assert_eq!(shape, "has `lin0.weight` of shape [71, 64], not [64, 71]");
    assert!(Network::read(b"nothing").err().unwrap().contains("safetensors"));
    weights.get_mut("gru.bias_hh").unwrap()[3] = f32::NAN;
    let refusal = Network::read(&file(&weights)).err().unwrap();
    assert!(refusal.contains("`gru.bias_hh`"), "{refusal}");
}

/// The published weights, layer by layer: what PyTorch Geometric computes for CNC=O.
#[test]
#[cfg_attr(not(reference_data), ignore = "needs the reference data")]
fn layers_are_those_of_the_published_network() {
    let read = |name: &str| {
        std::fs::read(std::path::Path::new(env!("GFN_REFERENCE_DATA")).join(name)).unwrap()
    };
    let network = Network::read(&read("seh_proxy_bengio2021.safetensors")).unwrap();
    let layers: serde_json::Value =
        serde_json::from_slice(&read("golden/seh_proxy_activations_CNC=O.json")).unwrap();
    let close = |numbers: &[f32], layer: &str| {
        let layer = layers[layer].as_array().unwrap();
        let expected: Vec<f64> = layer
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|number| number.as_f64().unwrap())
            .collect();
        assert_eq!(numbers.len(), expected.len());
        for (number, expected) in numbers.iter().zip(expected) {
            assert!((f64::from(*number) - expected).abs() < 1e-4, "{number} {expected}");
        }
    };
    let molecule = Molecule::from_smiles("CNC=O").unwrap();
    let inputs = [Input::of(&DrawnMolecule::finished(molecule), false)];
    let mut workspace = Workspace::default();
    workspace.enter(&inputs);
    network.first_states(&mut workspace, &inputs);
    close(&workspace.states, "lin0_act");
    network.messages(&mut workspace);
    close(&workspace.messages, "conv_act_step0");
    network.update(&mut workspace);
    close(&workspace.states, "gru_step0");
    for _ in 1..STEPS {
        network.messages(&mut workspace);
        network.update(&mut workspace);
    }
    close(&workspace.states, "gru_final");
    let scores = network.readout(&mut workspace);
    close(&workspace.asked, "set2set");
    close(&[scores[0] as f32], "out");
}
