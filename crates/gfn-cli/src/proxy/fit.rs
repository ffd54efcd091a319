//! Minibatch training of the network of a surrogate reward.

use gfn_core::learn::engine::{Engine, Readout, Rows, Upstream, Values, observe_into};
use gfn_core::learn::expr::Tape;
use gfn_core::learn::head::TRUNK;
use gfn_core::rng::{Purpose, Streams, shuffle};
use gfn_core::{Environment, States};
use rand::RngExt;

use super::network::{VALUE, outputs};
use super::settings::{Keep, ProxySettings};

/// Objects with their values in standard deviations from the mean.
pub struct Sample {
    /// Terminal rows.
    pub objects: States,
    /// The value of each.
    pub targets: Vec<f64>,
}

/// What an epoch came to.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Epochs so far.
    pub epoch: usize,
    /// The mean loss over its steps.
    pub loss: f64,
    /// Mean absolute error on held-out objects, in standard deviations, if there are any.
    pub mae: Option<f64>,
}

/// A trained network.
pub struct Fit {
    /// The values of its parameters that are kept.
    pub weights: Vec<Vec<f32>>,
    /// After how many epochs they were what they are.
    pub epoch: usize,
    /// Whether training was asked to stop before its end.
    pub interrupted: bool,
}

/// A loss or gradient that is not finite, in words.
pub type Diverged = String;

/// The copy that averages the weights.
const AVERAGE: &str = "average";

/// Trains `engine` on `train`. After each epoch `watch` is told, and says whether to go on; it is asked
/// after each step, too.
///
/// # Errors
/// When a loss or its gradient is not finite.
pub fn fit(
    engine: &mut dyn Engine,
    env: &dyn Environment,
    (train, held_out): (&Sample, &Sample),
    settings: &ProxySettings,
    seed: u64,
    mut stop: impl FnMut() -> bool,
    mut watch: impl FnMut(Done),
) -> Result<Fit, Diverged> {
    let n = train.targets.len();
    // Observed once: that can take longer than the network.
    let mut ids = Vec::new();
    observe_into(env, &train.objects, &mut ids);
    let (cells, streams) = (env.space().n_cells(), Streams::new(seed));
    let per_epoch = n.div_ceil(settings.batch);
    let rates = settings.rates((per_epoch * settings.epochs) as u64);
    let averages = settings.ema > 0.0;
    if averages {
        engine.copy(AVERAGE);
    }
    let used = if averages { Values::Copy(AVERAGE) } else { Values::Current };
    let mut order: Vec<usize> = (0..n).collect();
    let mut best: Option<(f64, Fit)> = None;
    let (mut step, mut interrupted) = (0u64, false);
    let mut finished = 0;
    for epoch in 0..settings.epochs {
        shuffle(&mut order, &mut streams.get(Purpose::Shuffle, epoch as u64));
        let mut sum = 0.0;
        for places in order.chunks(settings.batch) {
            if stop() {
                interrupted = true;
                break;
            }
            let mut objects = States::with_capacity(train.objects.width(), places.len());
            let mut observed = Vec::with_capacity(places.len() * cells);
            for &place in places {
                objects.push(train.objects.row(place));
                observed.extend_from_slice(&ids[place * cells..][..cells]);
            }
            let targets = places.iter().map(|&place| train.targets[place]).collect();
            let rows = Rows::observed(objects, observed);
            let drops = engine.drops();
            let dropout = drops.then(|| streams.get(Purpose::Dropout, step).random());
            let (loss, norm) = differentiate(engine, env, &rows, targets, settings, dropout);
            for (what, value) in [("the loss", loss), ("the norm of its gradient", norm)] {
                if !value.is_finite() {
                    return Err(format!("{what} is {value} at step {step}"));
                }
            }
            let scale = settings.clip_norm.map_or(1.0, |limit| (limit / norm).min(1.0));
            let rate = rates.at(step);
            engine.step("proxy", &[(TRUNK, rate), (VALUE.name, rate)], scale);
            if averages {
                // As many steps as there have been, at first.
                let factor = settings.ema.min((step + 1) as f64 / (step + 10) as f64);
                engine.move_copy(AVERAGE, 1.0 - factor);
            }
            sum += loss * places.len() as f64;
            step += 1;
        }
        if interrupted {
            break;
        }
        finished = epoch + 1;
        let mae = (!held_out.targets.is_empty()).then(|| {
            let predicted = outputs(engine, used, env, &held_out.objects);
            let errors = predicted.iter().zip(&held_out.targets).map(|(p, t)| (p - t).abs());
            errors.sum::<f64>() / held_out.targets.len() as f64
        });
        watch(Done { epoch: finished, loss: sum / n as f64, mae });
        if let Some(mae) = mae.filter(|_| settings.keep == Keep::Best)
            && best.as_ref().is_none_or(|(least, _)| mae < *least)
        {
            best = Some((mae, kept(engine, averages, finished)));
        }
    }
    let fit = best.map_or_else(|| kept(engine, averages, finished), |(_, fit)| fit);
    Ok(Fit { interrupted, ..fit })
}

/// The weights as they are now.
fn kept(engine: &dyn Engine, averages: bool, epoch: usize) -> Fit {
    let current = || (0..engine.params().len()).map(|i| engine.value(i)).collect();
    let weights = if averages { engine.copied(AVERAGE) } else { current() };
    Fit { weights, epoch, interrupted: false }
}

/// The loss of a batch and the norm of its gradient, which stays with the engine.
fn differentiate(
    engine: &mut dyn Engine,
    env: &dyn Environment,
    rows: &Rows,
    targets: Vec<f64>,
    settings: &ProxySettings,
    dropout: Option<u64>,
) -> (f64, f64) {
    let pass = engine.evaluate(env, rows, &[VALUE], Values::Current, dropout);
    let tape = Tape::new();
    let output = tape.leaf(engine.read(pass, VALUE, &Readout::Scalar));
    let loss = (output - tape.constant(targets)).map(|error| settings.loss.at(error)).mean();
    let derivatives = tape.derivatives(loss).of(output).unwrap_or_default().to_vec();
    let upstream = Upstream { pass, head: VALUE, readout: Readout::Scalar, derivatives };
    let norm = engine.gradients(vec![upstream], &[], &[TRUNK, VALUE.name]);
    (loss.number(), norm)
}
