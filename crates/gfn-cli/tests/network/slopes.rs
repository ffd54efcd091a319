//! Gradients beside finite differences.

use gfn_cli::Experiment;
use gfn_core::rng::{Purpose, Streams};
use rand::RngExt;

/// Whether the gradient that is with the engine is the slope of a loss, along a random direction in each tensor of
/// parameters. `loss` is told the group that moves, and what it does not follow must not move with it; where it knows
/// of none, the group is passed over. Returns how many tensors were compared, or where they differ.
pub fn slopes(
    e: &mut Experiment,
    scale: f64,
    what: &str,
    loss: impl Fn(&mut Experiment, &str) -> Option<f64>,
) -> Result<usize, String> {
    let infos = e.trainer.engine().params().to_vec();
    let gradients: Vec<_> = (0..infos.len()).map(|i| e.trainer.engine().gradient(i)).collect();
    let mut rng = Streams::new(9).get(Purpose::Test, 1);
    let mut compared = 0;
    for (i, (info, gradient)) in infos.iter().zip(gradients).enumerate() {
        let here = e.trainer.engine().value(i);
        let signs: Vec<f32> =
            here.iter().map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
        let mut at = |step: f32| {
            let moved = here.iter().zip(&signs).map(|(x, sign)| x + sign * step).collect();
            e.trainer.engine_mut().set_value(i, moved);
            loss(e, &info.group)
        };
        // In single precision a small step drowns in rounding, and a large one may cross a kink of a
        // ReLU: one of three must agree.
        let numeric: Option<Vec<f64>> = [4e-3f32, 1e-3, 2.5e-4]
            .map(|h| Some((at(h)? - at(-h)?) / (2.0 * f64::from(h))))
            .into_iter()
            .collect();
        e.trainer.engine_mut().set_value(i, here.clone());
        let Some(numeric) = numeric else { continue };
        let gradient = gradient.unwrap_or_else(|| panic!("{what}: {} learns", info.name));
        let product = |(g, sign): (&f32, &f32)| f64::from(*g) * f64::from(*sign);
        let exact: f64 = gradient.iter().zip(&signs).map(product).sum();
        let sum = gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>();
        let limit = 2e-3 * sum + 3e-4 * scale.abs().max(0.1);
        let error = numeric.iter().map(|n| (n - exact).abs()).fold(f64::MAX, f64::min);
        if error > limit || sum < 1e-4 {
            return Err(format!("{what} {}: {numeric:?} {exact}, {sum}", info.name));
        }
        compared += 1;
    }
    Ok(compared)
}
