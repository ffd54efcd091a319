#!/usr/bin/env python3
"""Times gfn beside gfnx on the 20^4 hypergrid, in alternation, and prints a table.

    scripts/compare/compare.py [--rounds 3] [--iterations 300] [--batch 16]

Makes a virtualenv in target/compare on the first run (gfnx 0.0.1 with JAX for the CPU, about
500 MB from PyPI) and builds gfn. Both sides train the same network on the same task with a
learned P_B and no evaluation: iterations per second after compilation, seconds from the command
to the first iteration, and peak memory. Leave the machine alone meanwhile.
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / "target" / "compare"
GFNX = ROOT / "scripts" / "compare" / "gfnx_hypergrid.py"


def run(command):
    """Runs a command; its stdout, seconds and peak memory in MB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{command[0]} failed")
        out.seek(0)
        return out.read(), time.perf_counter() - start, usage.ru_maxrss / 1024


def peer(objective, args):
    out, _, memory = run(
        [VENV / "bin" / "python", GFNX, objective]
        + ["--iterations", str(args.iterations), "--batch", str(args.batch)]
    )
    result = json.loads(out.strip().splitlines()[-1])
    return result["rate"], result["first_s"], memory


def ours(objective, args):
    with tempfile.TemporaryDirectory() as folder:
        every = max(args.iterations // 10, 1)
        settings = {
            "train.trajectories": args.iterations * args.batch,
            "train.batch": args.batch,
            "train.log_every": every,
            "eval.metrics": [],
            "checkpoint.every": 10**9,
        }
        command = [ROOT / "target" / "release" / "gfn", "train", "-q", "--out", folder]
        command += [ROOT / "configs" / f"hypergrid_{objective}_naive.toml"]
        for key, value in settings.items():
            command += ["-s", f"{key}={value}"]
        out, total, memory = run(command)
        with open(pathlib.Path(out.strip()) / "train.csv") as file:
            rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    steps = [int(row["step"]) for row in rows]
    rate = (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])
    return rate, total - args.iterations / rate, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    if not (VENV / "bin" / "python").exists():
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
        subprocess.check_call([VENV / "bin" / "pip", "install", "-q", "gfnx==0.0.1"])
    subprocess.check_call(["cargo", "build", "--release"], cwd=ROOT)

    print("objective  side  it/s (min-max)         first it. [s]  memory [MB]  ratio (min-max)")
    for objective in ["tb", "db", "subtb"]:
        rounds = [(ours(objective, args), peer(objective, args)) for _ in range(args.rounds)]
        ratios = [a[0] / b[0] for a, b in rounds]
        for side, name in enumerate(["gfn", "gfnx"]):
            rates = [both[side][0] for both in rounds]
            first = statistics.median(both[side][1] for both in rounds)
            memory = statistics.median(both[side][2] for both in rounds)
            rate = f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"
            line = f"{objective:10} {name:5} {rate:22} {first:13.2f} {memory:12.0f}"
            if side == 0:
                line += f"  {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
            print(line, flush=True)


main()
