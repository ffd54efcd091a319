//! All devices that are compiled in compute the same thing.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};

fn experiment(device: &str, trajectories: usize) -> Experiment {
    let text = format!(
        "device = '{device}'\n[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\nkind = 'mlp'\nhidden = 32\n[objective]\nkind = 'subtb'\n\
         [backward]\nkind = 'tlm'\n[train]\ntrajectories = {trajectories}\nbatch = 32\n\
         lr = 3e-3\nlr_schedule = 'cosine'\nepsilon = 0.1\n[eval]\nmetrics = ['distribution']\n"
    );
    let registry = Registry::builtin();
    let spec = Spec::parse(&registry, "spec.toml", text, "test", &[]).unwrap();
    Experiment::build(&registry, &spec).unwrap()
}

fn devices() -> Vec<&'static str> {
    let registry = Registry::builtin();
    registry.devices.iter().filter(|device| device.open.is_some()).map(|d| d.name).collect()
}

#[test]
fn devices_agree_on_the_first_iterations() {
    let losses = |device: &str| {
        let mut experiment = experiment(device, 64_000);
        (0..5).map(|_| experiment.trainer.step().unwrap().loss).collect::<Vec<f64>>()
    };
    let reference = losses("flex");
    for device in devices() {
        for (a, b) in reference.iter().zip(losses(device)) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{device}: {a} against {b}");
        }
    }
}

#[test]
fn devices_reach_the_target() {
    for device in devices() {
        // In software, a GPU makes some iterations per second: fewer of them, and a wider limit.
        let (trajectories, limit) = if device == "wgpu" { (6_400, 0.1) } else { (64_000, 0.01) };
        let mut experiment = experiment(device, trajectories);
        while experiment.trainer.counters().step < experiment.trainer.n_steps() {
            experiment.trainer.step().unwrap();
        }
        let tv = experiment.trainer.evaluate().unwrap()[0].unwrap();
        assert!(tv < limit, "{device}: tv {tv}");
    }
}

#[test]
#[cfg(feature = "ndarray")]
fn ndarray_is_compiled_in() {
    assert!(devices().contains(&"ndarray"));
}

#[test]
#[cfg(feature = "wgpu")]
fn wgpu_is_compiled_in() {
    assert!(devices().contains(&"wgpu"));
}
