# List the recipes.
default:
    @just --list

# Everything that CI runs.
ci:
    .ci/run

# Formatting, lints, documentation.
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# All tests; arguments go to cargo.
test *ARGS:
    cargo test --release --workspace {{ARGS}}

# The opt-in devices against the default one.
test-devices:
    cargo test --release -p gfn-cli --features ndarray,wgpu --test devices

# Sweeps on a real Slurm, started for the purpose: `apt install slurmctld slurmd slurm-client munge` first.
slurm-test:
    cargo build --release
    scripts/slurm_test.sh target/release/gfn

# Time the parts of training; arguments filter.
bench *ARGS:
    cargo bench -p gfn-cli --bench training -- {{ARGS}}

# A figure of a paper: run its sweep, then all.csv, figure.svg and table.md in the sweep's folder. Reduced:
# `just reproduce tlm_hypergrid -s name=tlm_hypergrid_small -s env.side=8 -s train.trajectories=160_000`.
reproduce SWEEP *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    gfn=target/release/gfn
    dir=$($gfn sweep configs/sweeps/{{SWEEP}}.toml {{ARGS}})
    $gfn collect "$dir" -o "$dir/all.csv"
    $gfn plot "$dir" --by backward --facet objective -o "$dir/figure.svg"
    $gfn table "$dir" --by objective,backward --format markdown -o "$dir/table.md"

# Licences, sources and known vulnerabilities of dependencies (`cargo install cargo-deny`; fetches RustSec's list).
audit:
    cargo deny check

# All ways to install gfn, tried; leaves the wheel in target/wheels.
wheel:
    scripts/try_install.sh target/wheels

# A wheel for any Linux on x86-64, linked statically. Once: `rustup target add x86_64-unknown-linux-musl`,
# `apt install musl-tools`, `pip install maturin`.
wheel-static:
    python3 scripts/third_party.py --target x86_64-unknown-linux-musl > THIRD-PARTY-LICENSES.txt
    maturin build --release --locked --target x86_64-unknown-linux-musl --compatibility manylinux2014 musllinux_1_1

# Accept changed messages, walks and generated documents.
bless:
    BLESS=1 cargo test --release -p gfn-envs --test playthroughs
    INSTA_UPDATE=always cargo test --release -p gfn-cli --test messages
    BLESS=1 cargo test --release -p gfn-cli --test docs

# Train on gaps by quantum chemistry (GFN2-xTB), computed by a program: `pip install tblite rdkit` first.
try-gap-worker:
    cargo run --release -- train configs/qm9_subtb_tlm.toml --fresh --name qm9_xtb \
        -s reward.kind=command -s 'reward.command=["python3", "scripts/gap_worker.py"]' \
        -s reward.cache=1_000_000 -s reward.timeout_s=600 \
        -s 'reward.transform={ zero = 21.048, one = 4.789, floor = 1e-4, ceiling = 2.0, beta = 10.0 }' \
        -s 'reward.modes={ similarity = 0.7, thresholds = [4.0] }' \
        -s env.max_atoms=5 -s train.batch=32 -s train.trajectories=3200 -s eval.samples=100 \
        -s 'eval.metrics=["log_z", "elbo_eubo", "modes", "samples"]'

# Install `gfn` into ~/.cargo/bin.
install:
    cargo install --path crates/gfn-cli --locked
