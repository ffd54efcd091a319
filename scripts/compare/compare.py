#!/usr/bin/env python3
"""Times gfn beside gfnx (JAX) and torchgfn (PyTorch), in alternation, and prints a table.

    scripts/compare/compare.py [--rounds 3] [--cores 2] [--tasks grid] [--peers gfnx torchgfn]

Makes a virtualenv per peer in target/compare on the first run (gfnx 0.0.1 with JAX for the CPU,
500 MB; torchgfn 2.4.1 with PyTorch, 200 MB where its CPU wheels can be had, else several GB) and
builds gfn. All sides train the same network on the same task with a learned P_B and no evaluation,
on the same cores. Leave the machine alone meanwhile.

Columns: iterations per second, median (min-max) over rounds, after compilation; gfn's are taken
from a fresh policy and again once trained, as its cost follows the length of trajectories; seconds
from the command to the end of the first iteration; peak memory.
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
HERE = ROOT / "scripts" / "compare"
VENVS = ROOT / "target" / "compare"
PACKAGES = {
    "gfnx": ["gfnx==0.0.1"],
    "torchgfn": ["torchgfn==2.4.1", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
}

# Name: dimensions, side, batch; iterations of gfn until it counts as trained, of gfnx, of torchgfn.
TASKS = {
    "grid": (4, 20, 16, 4000, 300, 60),
    "grid256": (4, 20, 256, 800, 40, 12),
    "grid8": (8, 10, 16, 4000, 300, 60),
}


def run(command, cores):
    """Runs a command on some cores; its stdout, seconds and peak memory in MB."""
    start = time.perf_counter()
    pin = lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT, preexec_fn=pin
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"failed: {' '.join(map(str, command))}")
        out.seek(0)
        return out.read(), time.perf_counter() - start, usage.ru_maxrss / 1024


def peer(name, style, objective, task, cores):
    dim, side, batch, _, jax, torch = task
    iterations = jax if name == "gfnx" else torch
    command = [VENVS / name / "bin" / "python", HERE / f"{name}_hypergrid.py", objective]
    settings = {"dim": dim, "side": side, "batch": batch, "iterations": iterations}
    if style:
        settings["style"] = style
    for key, value in settings.items():
        command += [f"--{key}", str(value)]
    out, _, memory = run(command, cores)
    result = json.loads(out.strip().splitlines()[-1])
    return {"rate": result["rate"], "first": result["first_s"], "memory": memory}


def ours(objective, task, cores):
    dim, side, batch, iterations, _, _ = task
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "env.dim": dim,
            "env.side": side,
            "train.trajectories": iterations * batch,
            "train.batch": batch,
            "train.log_every": max(iterations // 20, 1),
            "eval.metrics": [],
            "checkpoint.every": 10**9,
        }
        command = [ROOT / "target" / "release" / "gfn", "train", "-q", "--out", folder]
        command += [ROOT / "configs" / f"hypergrid_{objective}_naive.toml"]
        for key, value in settings.items():
            command += ["-s", f"{key}={value}"]
        out, total, memory = run(command, cores)
        with open(pathlib.Path(out.strip()) / "train.csv") as file:
            rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    rate = lambda a, b: (b[0] - a[0]) / (b[1] - a[1])
    return {
        "rate": rate(rows[0], rows[2]),
        "trained": rate(rows[-6], rows[-1]),
        "first": total - rows[-1][1],
        "memory": memory,
    }


def spread(values, digits=0):
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--peers", nargs="*", choices=list(PACKAGES), default=list(PACKAGES))
    parser.add_argument("--objectives", nargs="+", default=["tb", "db", "subtb"])
    args = parser.parse_args()
    for name in args.peers:
        if not (VENVS / name / "bin" / "python").exists():
            subprocess.check_call([sys.executable, "-m", "venv", VENVS / name])
            pip = [VENVS / name / "bin" / "pip", "install", "-q"]
            subprocess.check_call(pip + PACKAGES[name])
    subprocess.check_call(["cargo", "build", "--release"], cwd=ROOT)

    sides = [("gfnx", "lean"), ("gfnx", "published"), ("torchgfn", None)]
    sides = [side for side in sides if side[0] in args.peers]
    print("| task | objective | side | it/s | first it. [s] | memory [MB] | gfn fresh × | trained × |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.tasks:
        for objective in args.objectives:
            rounds = []
            for _ in range(args.rounds):
                results = {"gfn": ours(objective, TASKS[name], args.cores)}
                for side in sides:
                    results[side] = peer(*side, objective, TASKS[name], args.cores)
                rounds.append(results)
            column = lambda side, key: [results[side][key] for results in rounds]
            middle = lambda side, key: statistics.median(column(side, key))
            rates = f"{spread(column('gfn', 'rate'))}, trained {spread(column('gfn', 'trained'))}"
            costs = f"{middle('gfn', 'first'):.2f} | {middle('gfn', 'memory'):.0f}"
            print(f"| {name} | {objective} | gfn | {rates} | {costs} | | |")
            for side in sides:
                ratio = lambda key: spread(
                    [results["gfn"][key] / results[side]["rate"] for results in rounds], 1
                )
                label = " ".join(filter(None, side))
                costs = f"{middle(side, 'first'):.1f} | {middle(side, 'memory'):.0f}"
                rate = spread(column(side, "rate"))
                ratios = f"{ratio('rate')} | {ratio('trained')}"
                print(f"| {name} | {objective} | {label} | {rate} | {costs} | {ratios} |", flush=True)


main()
