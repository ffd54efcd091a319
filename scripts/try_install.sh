#!/usr/bin/env bash
# All ways to install gfn from a clone of it, tried from nothing: a wheel, `cargo install` from the folder, and
# from the git repository (its last commit).
#
#     scripts/try_install.sh [WHEELS]      # the wheel is left in the folder WHEELS
#
# With $CARGO_TARGET_DIR (default: target/) nothing that `cargo build --release` compiled is compiled again but
# gfn's own crates, from git. Needs python3 with venv.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tmp=$(mktemp -d)
# The clone has a name of its own, by which Cargo's copies of it are found.
clone=$tmp/gfn-$$
cargo_git=${CARGO_HOME:-$HOME/.cargo}/git
trap 'rm -rf "$tmp" "$cargo_git"/{db,checkouts}/"$(basename "$clone")"-*' EXIT
wheels=$(realpath -m "${1:-$tmp/wheels}")
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
unset PYTHONPATH

# tried GFN: that program, in an empty folder, on a spec of one table; and the network that is part of it.
tried() {
    local gfn=$1
    mkdir "$tmp/empty"
    cd "$tmp/empty"
    "$gfn" --version
    printf '[env]\nkind = "hypergrid"\n' > spec.toml
    "$gfn" train spec.toml -s train.trajectories=1600 -s eval.every=50
    test -f results/spec/s0/DONE
    printf '[env]\nkind = "molecule"\nmax_atoms = 2\n[reward]\nkind = "gap"\n' > gap.toml
    "$gfn" exact gap.toml
    cd "$root"
    rm -r "$tmp/empty"
}

echo "-- wheel"
python3 -m venv "$tmp/build"
"$tmp/build/bin/pip" install --quiet 'maturin>=1.9,<2'
python3 scripts/third_party.py > THIRD-PARTY-LICENSES.txt
"$tmp/build/bin/maturin" build --release --locked --out "$wheels"
wheel=$(ls -t "$wheels"/gfn_cli-*.whl | head -n 1)
for file in LICENSE-MIT LICENSE-APACHE THIRD-PARTY-LICENSES.txt; do
    python3 -m zipfile --list "$wheel" | grep "licenses/$file"
done
python3 -m venv "$tmp/fresh"
"$tmp/fresh/bin/pip" install --quiet --no-index "$wheel"
tried "$tmp/fresh/bin/gfn"
"$tmp/fresh/bin/pip" uninstall --quiet --yes gfn-cli
test ! -e "$tmp/fresh/bin/gfn"

echo "-- cargo install from a folder"
cargo install --quiet --path crates/gfn-cli --locked --root "$tmp/from_folder"
tried "$tmp/from_folder/bin/gfn"

echo "-- cargo install from git"
git clone --quiet "$root" "$clone"
touch "$tmp/before_git"
cargo install --quiet --git "file://$clone" --locked --root "$tmp/from_git" gfn-cli
tried "$tmp/from_git/bin/gfn"
# Each commit would leave another gfn in the build folder.
find "$CARGO_TARGET_DIR"/release/{deps,build,.fingerprint} -maxdepth 1 -name '*gfn*' \
    -newer "$tmp/before_git" -exec rm -r {} +
# Installing from git took target/release/gfn away.
cargo build --quiet --release --locked

ls -l "$wheel"
