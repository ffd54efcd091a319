//! The arithmetic under a training step, against the machine's limit:
//! `cargo bench -p gfn-cli --bench kernels`. One operation of a matrix product is
//! a multiplication with its addition; twice the printed rate is FLOP/s.

use divan::Bencher;
use divan::counter::ItemsCount;
use gfn_envs::chemistry::Hybridisation;
use gfn_envs::reward::seh_proxy::features::{AtomInput, BondKind, Input};
use gfn_envs::reward::seh_proxy::network::{Network, TENSORS};
use gfn_models::engine::native::{AdamStep, Mat, adam, matmul, sum_rows};
use gfn_models::engine::native::{Finish, Panels};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn main() {
    divan::main();
}

const HIDDEN: usize = 256;

fn filled(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// The machine's rate on one thread: a product large enough to be computed at full speed.
#[divan::bench(args = [256, 512, 1024])]
fn limit(bencher: Bencher<'_, '_>, n: usize) {
    let (a, b, mut out) = (filled(n * n), filled(n * n), vec![0.0; n * n]);
    bencher
        .counter(ItemsCount::new(n * n * n))
        .bench_local(|| matmul(&mut out, false, Mat::new(&a, n, n), Mat::new(&b, n, n)));
}

const ROWS: [usize; 11] = [1, 2, 3, 4, 6, 8, 16, 64, 128, 256, 1024];

/// A hidden layer of the papers' MLP over that many states.
#[divan::bench(args = ROWS)]
fn layer(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, rows, HIDDEN);
}

/// A product with packed weights of `columns` columns.
fn product(bencher: Bencher<'_, '_>, rows: usize, columns: usize) {
    let (x, weight, bias) = (filled(rows * HIDDEN), filled(HIDDEN * columns), filled(columns));
    let mut panels = Panels::default();
    panels.pack(&weight, columns);
    let mut out = vec![0.0; rows * columns];
    bencher.counter(ItemsCount::new(rows * HIDDEN * columns)).bench_local(|| {
        let x = Mat::new(&x, rows, HIDDEN);
        panels.product(&mut out, columns, x, Finish::BiasRelu(&bias));
    });
}

/// Packing the weights of a hidden layer, once per update.
#[divan::bench]
fn pack(bencher: Bencher<'_, '_>) {
    let (weight, mut panels) = (filled(HIDDEN * HIDDEN), Panels::default());
    bencher.counter(ItemsCount::new(HIDDEN * HIDDEN)).bench_local(|| panels.pack(&weight, HIDDEN));
}

/// Packing their transpose, for the gradient of the layer's input.
#[divan::bench]
fn pack_transposed(bencher: Bencher<'_, '_>) {
    let (weight, mut panels) = (filled(HIDDEN * HIDDEN), Panels::default());
    bencher
        .counter(ItemsCount::new(HIDDEN * HIDDEN))
        .bench_local(|| panels.pack_transposed(&weight, HIDDEN));
}

/// The gradient of that layer's weight.
#[divan::bench(args = ROWS)]
fn weight_gradient(bencher: Bencher<'_, '_>, rows: usize) {
    let (x, dy) = (filled(rows * HIDDEN), filled(rows * HIDDEN));
    let mut out = vec![0.0; HIDDEN * HIDDEN];
    bencher.counter(ItemsCount::new(rows * HIDDEN * HIDDEN)).bench_local(|| {
        matmul(&mut out, true, Mat::new(&x, rows, HIDDEN).t(), Mat::new(&dy, rows, HIDDEN));
    });
}

/// The gradient of that layer's input, behind a rectifier.
#[divan::bench(args = ROWS)]
fn input_gradient(bencher: Bencher<'_, '_>, rows: usize) {
    let (dy, weight) = (filled(rows * HIDDEN), filled(HIDDEN * HIDDEN));
    let (mut panels, activation) = (Panels::default(), filled(rows * HIDDEN));
    panels.pack_transposed(&weight, HIDDEN);
    let mut out = vec![0.0; rows * HIDDEN];
    bencher.counter(ItemsCount::new(rows * HIDDEN * HIDDEN)).bench_local(|| {
        let dy = Mat::new(&dy, rows, HIDDEN);
        panels.product(&mut out, HIDDEN, dy, Finish::Gate(&activation));
    });
}

/// The merged output layer: ten columns.
#[divan::bench(args = ROWS)]
fn heads(bencher: Bencher<'_, '_>, rows: usize) {
    product(bencher, rows, 10);
}

/// The sparse first layer: four active tokens of 80.
#[divan::bench(args = ROWS)]
fn first_layer(bencher: Bencher<'_, '_>, rows: usize) {
    let weight = filled(80 * HIDDEN);
    let ids: Vec<i32> = (0..rows * 4).map(|i| (i * 37 % 80) as i32).collect();
    let mut out = vec![0.0; rows * HIDDEN];
    bencher
        .counter(ItemsCount::new(rows * 4 * HIDDEN))
        .bench_local(|| sum_rows(&mut out, &weight, &ids, 4, HIDDEN));
}

/// One Adam step over the parameters of the papers' MLP.
#[divan::bench]
fn adam_step(bencher: Bencher<'_, '_>) {
    let n = 80 * HIDDEN + HIDDEN * HIDDEN + HIDDEN * 10;
    let (mut value, gradient) = (filled(n), filled(n));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let step = AdamStep {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        l2: 0.0,
        correction1: 1.0,
        correction2: 1.0,
        scale: 1.0,
    };
    bencher
        .counter(ItemsCount::new(n))
        .bench_local(|| adam(step, &mut value, &gradient, &mut m, &mut v));
}

/// Molecules of 32 atoms per second by the sEH proxy, on one thread; 0.43 million operations for each atom.
#[divan::bench(args = [1, 4, 256], ignore)]
fn seh_proxy(bencher: Bencher<'_, '_>, molecules: usize) {
    const ATOMS: usize = 32;
    let bytes: Vec<Vec<u8>> = TENSORS
        .iter()
        .map(|(_, shape)| filled(shape.iter().product()))
        .map(|numbers| numbers.iter().flat_map(|x| (0.1 * x).to_le_bytes()).collect())
        .collect();
    let views = TENSORS.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (*name, view.expect("shapes fit"))
    });
    let file = safetensors::serialize(views, None).expect("names are distinct");
    let network = Network::read(&file).expect("all tensors are there");
    let atom = AtomInput {
        element: 6,
        aromatic: false,
        hybridisation: Hybridisation::Sp3,
        hydrogens: 1,
        open: false,
    };
    // A ring of aromatic and single bonds.
    let bond = |atom: usize| {
        let kind = if (atom / 5).is_multiple_of(2) { BondKind::Aromatic } else { BondKind::Single };
        ([atom, (atom + 1) % ATOMS], kind)
    };
    let input = Input { atoms: vec![atom; ATOMS], bonds: (0..ATOMS).map(bond).collect() };
    let inputs = vec![input; molecules];
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let scores = || one.install(|| network.scores(&inputs));
    bencher.counter(ItemsCount::new(molecules)).bench_local(scores);
}
