#!/usr/bin/env python3
"""Times gfn beside gfnx (JAX) and torchgfn (PyTorch), in alternation, and prints a table.

    scripts/compare/compare.py [--rounds 3] [--cores 2] [--tasks grid] [--peers gfnx torchgfn]

Makes a virtualenv per peer in target/compare on the first run (gfnx 0.0.1 with JAX for the CPU,
500 MB; torchgfn 2.4.1 with PyTorch, 200 MB where its CPU wheels can be had, else several GB) and
builds gfn. All sides train the same network on the same task without evaluation, on the same cores;
P_B is learned, but uniform in tfbind8 (where there is no other) and bitseq. The sequence tasks have
trajectory balance and gfnx only, with random rewards instead of downloaded ones. Leave the machine
alone meanwhile.

Columns: iterations per second, median (min-max) over rounds, after compilation; gfn's are taken
from a fresh policy and again once trained, as its cost follows the length of trajectories; seconds
from the command to the end of the first iteration; peak memory.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "scripts" / "compare"
VENVS = ROOT / "target" / "compare"
PACKAGES = {
    # Later versions of equinox refuse the last JAX that gfnx can have.
    "gfnx": ["gfnx==0.0.1", "equinox==0.13.0"],
    "torchgfn": ["torchgfn==2.4.1", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
}


class Task(NamedTuple):
    """Both sides of a comparison; {} stands for the objective."""

    spec: str  # of gfn
    settings: dict  # of gfn, on top of the spec
    peer: list  # script and arguments of a peer
    objectives: list
    sides: list  # peer and style
    batch: int
    iterations: dict  # of gfn (until it counts as trained) and of the peers
    objects: tuple = ()  # of a random table of rewards for gfn: length, symbols, separator


def grid(dim, side, batch, gfn, gfnx, torchgfn):
    return Task(
        spec="hypergrid_{}_naive.toml",
        settings={"env.dim": dim, "env.side": side},
        peer=["hypergrid.py", "{}", "--dim", dim, "--side", side],
        objectives=["tb", "db", "subtb"],
        sides=[("gfnx", "lean"), ("gfnx", "published"), ("torchgfn", "")],
        batch=batch,
        iterations={"gfn": gfn, "gfnx": gfnx, "torchgfn": torchgfn},
    )


def sequences(name, settings, gfn, gfnx, objects=()):
    return Task(
        spec=name + "_{}_uniform.toml",
        settings={"train.epsilon": 0.0, "train.weight_decay": 0.0, **settings},
        peer=["sequences.py", name],
        objectives=["tb"],
        sides=[("gfnx", "lean"), ("gfnx", "published")],
        batch=16,
        iterations={"gfn": gfn, "gfnx": gfnx},
        objects=objects,
    )


MLP = {"model.layers": 2, "model.shared": "true"}
TASKS = {
    "grid": grid(4, 20, 16, 4000, 300, 60),
    "grid256": grid(4, 20, 256, 800, 40, 12),
    "grid8": grid(8, 10, 16, 4000, 300, 60),
    "qm9str": sequences(
        "qm9str", MLP | {"backward.kind": "naive"}, 8000, 2000, (5, range(11), " ")
    ),
    "tfbind8": sequences("tfbind8", MLP | {"env.build": "append"}, 8000, 2000, (8, "ACGT", "")),
    "bitseq": sequences("bitseq", {}, 200, 60),
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
    script, *arguments = task.peer
    command = [VENVS / name / "bin" / "python", HERE / f"{name}_{script}"]
    command += [str(argument).format(objective) for argument in arguments]
    command += ["--batch", str(task.batch), "--iterations", str(task.iterations[name])]
    if style:
        command += ["--style", style]
    out, _, memory = run(command, cores)
    result = json.loads(out.strip().splitlines()[-1])
    return {"rate": result["rate"], "first": result["first_s"], "memory": memory}


def write_table(path, length, symbols, separator):
    """A table of random rewards of all strings."""
    generator = random.Random(0)
    with open(path, "w") as file:
        file.write("object,value\n")
        for string in itertools.product(map(str, symbols), repeat=length):
            file.write(f"{separator.join(string)},{generator.uniform(0.1, 1):.6f}\n")


def ours(objective, task, cores):
    iterations = task.iterations["gfn"]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **task.settings,
            "train.trajectories": iterations * task.batch,
            "train.batch": task.batch,
            "train.log_every": max(iterations // 20, 1),
            "eval.metrics": [],
            "checkpoint.every": 10**9,
        }
        if task.objects:
            path = pathlib.Path(folder) / "rewards.csv"
            write_table(path, *task.objects)
            settings |= {"reward.path": path, "reward.sha256": '""'}
            settings |= {"reward.object_columns": [], "reward.value_column": '""'}
        command = [ROOT / "target" / "release" / "gfn", "train", "-q", "--out", folder]
        command += [ROOT / "configs" / task.spec.format(objective)]
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
    objectives = ["tb", "db", "subtb"]
    parser.add_argument("--objectives", nargs="+", choices=objectives, default=objectives)
    args = parser.parse_args()
    for name in args.peers:
        if not (VENVS / name / "bin" / "python").exists():
            subprocess.check_call([sys.executable, "-m", "venv", VENVS / name])
        # Does nothing where all is there.
        pip = [VENVS / name / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.check_call(pip + ["install", "-q"] + PACKAGES[name])
    subprocess.check_call(["cargo", "build", "--release"], cwd=ROOT)

    print("| task | objective | side | it/s | first it. [s] | memory [MB] | gfn fresh × | trained × |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.tasks:
        task = TASKS[name]
        sides = [side for side in task.sides if side[0] in args.peers]
        for objective in [objective for objective in args.objectives if objective in task.objectives]:
            rounds = []
            for _ in range(args.rounds):
                results = {"gfn": ours(objective, task, args.cores)}
                for side in sides:
                    results[side] = peer(*side, objective, task, args.cores)
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
