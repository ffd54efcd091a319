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

# Time the parts of training; arguments filter.
bench *ARGS:
    cargo bench -p gfn-cli --bench training -- {{ARGS}}

# Accept changed messages and walks.
bless:
    BLESS=1 cargo test --release -p gfn-envs --test playthroughs
    INSTA_UPDATE=always cargo test --release -p gfn-cli --test messages

# Install `gfn` into ~/.cargo/bin.
install:
    cargo install --path crates/gfn-cli --locked
