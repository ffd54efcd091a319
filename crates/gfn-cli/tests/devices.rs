//! All devices that are compiled in compute the same thing.

use gfn_cli::spec::Spec;
use gfn_cli::{Experiment, Registry};

fn experiment(device: &str, trajectories: usize) -> Experiment {
    let text = format!(
        "device = '{device}'\n[env]\nkind = 'hypergrid'\ndim = 2\nside = 4\n\
         [model]\nkind = 'mlp'\nhidden = 32\n[objective]\nkind = 'subtb'\n\
         [backward]\nkind = 'tlm'\n[train]\ntrajectories = {trajectories}\nbatch = 32\n\
         lr = 1e-2\nlr_schedule = 'cosine'\nepsilon = 0.1\n[eval]\nmetrics = ['distribution']\n"
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
        (0..5).map(|_| experiment.trainer.step().unwrap().loss.unwrap()).collect::<Vec<f64>>()
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
        let (trajectories, limit) = if device == "wgpu" { (16_000, 0.05) } else { (64_000, 0.01) };
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

/// A machine without a GPU: asking for one that is not there is a usage error that says so.
#[test]
#[cfg(feature = "wgpu")]
fn a_missing_adapter_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spec.toml"), "[env]\nkind = 'hypergrid'\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gfn"))
        .args(["train", "spec.toml", "--device", "wgpu"])
        .env("CUBECL_WGPU_DEFAULT_DEVICE", "DiscreteGpu(99)")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("cannot be opened") && message.contains("help:"), "{message}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
}
