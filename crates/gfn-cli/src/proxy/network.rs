//! A network with one number per object, and the engine that computes it.

use gfn_core::learn::TrainSettings;
use gfn_core::learn::engine::{Ask, Engine, Values};
use gfn_core::learn::head::Head;
use gfn_core::rng::{Purpose, Streams};
use gfn_core::{Environment, KeyError, States};
use gfn_models::layers::LayerList;
use gfn_models::network::NetworkContext;

/// The only head.
pub const VALUE: Head = Head::scalar("value");

/// The engine of a network with the head [`VALUE`], which `build` makes; initialised from `seed`.
///
/// # Errors
/// Those of `build`.
pub fn engine(
    env: &dyn Environment,
    build: impl FnOnce(NetworkContext) -> Result<Box<LayerList>, KeyError>,
    settings: &TrainSettings,
    seed: u64,
) -> Result<Box<dyn Engine>, KeyError> {
    let context = NetworkContext::new(env.space(), &[VALUE]);
    let network = build(context.clone())?;
    let device = gfn_models::device::open("flex").expect("the CPU is always there");
    let mut rng = Streams::new(seed).get(Purpose::Init, 0);
    Ok(gfn_models::engine::new(network, context, &[VALUE], settings, &device, &mut rng))
}

/// The number of each object, in standard deviations from the mean.
pub fn outputs(
    engine: &dyn Engine,
    values: Values,
    env: &dyn Environment,
    objects: &States,
) -> Vec<f64> {
    let mut out = vec![0f32; objects.len()];
    engine.logits(Ask { values, head: VALUE, record: None }, env, objects, &mut out);
    out.into_iter().map(f64::from).collect()
}
