#!/usr/bin/env python3
"""The licences of all crates that are compiled into `gfn`, with their texts, for whoever passes on binaries.

    python3 scripts/third_party.py [--target TRIPLE] > THIRD-PARTY-LICENSES.txt

Crates are those of the default features on this machine, by `cargo tree`, which gets all arguments; texts are the files that crates
are published with, equal ones once. Crates published without any are listed with their repository.
"""

import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo(*args):
    return subprocess.run(["cargo", *args], check=True, capture_output=True, text=True).stdout


def main():
    options = ["--package", "gfn-cli", "--edges", "normal", "--prefix", "none", "--locked"]
    tree = cargo("tree", *options, *sys.argv[1:])
    lines = (line.split() for line in tree.splitlines() if "(proc-macro)" not in line)
    linked = {(line[0], line[1].removeprefix("v")) for line in lines if line}
    packages = json.loads(cargo("metadata", "--format-version", "1", "--locked"))["packages"]
    crates, texts, missing = [], {}, []
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        if package["source"] is None or (package["name"], package["version"]) not in linked:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        files = {path for path in folder.iterdir() if path.is_file() and FILES.match(path.name)}
        if package["license_file"]:
            files.add(folder / package["license_file"])
        numbers = []
        for path in sorted(files):
            text = path.read_text(errors="replace").strip()
            # Equal but for line breaks is equal.
            _, _, names = texts.setdefault(" ".join(text.split()), (len(texts) + 1, text, []))
            names.append(package["name"])
            numbers.append(texts[" ".join(text.split())][0])
        if not numbers:
            missing.append(package["name"])
        license = package["license"] or "see its text"
        where = ", ".join(map(str, sorted(set(numbers)))) or f"none in the package; {package['repository'] or 'no repository'}"
        crates.append(f"{package['name']} {package['version']}: {license} [{where}]")
    print(f"gfn contains the Rust standard library (MIT OR Apache-2.0) and {len(crates)} crates.")
    print("Their sources: https://crates.io/crates/NAME/VERSION. In brackets: the numbers of the texts below.\n")
    print("\n".join(crates))
    for number, text, names in texts.values():
        print(f"\n{'=' * 80}\n[{number}] {', '.join(sorted(set(names)))}\n\n{text}")
    print(f"{len(crates)} crates, {len(texts)} texts, none in {', '.join(missing) or '-'}", file=sys.stderr)


if __name__ == "__main__":
    main()
