#!/usr/bin/env python3
"""Times gfn beside gfnx (JAX) and torchgfn (PyTorch), in alternation, and prints a table.

    scripts/compare/compare.py [--rounds 3] [--cores 2] [--tasks grid] [--peers gfnx torchgfn]

Makes a virtualenv per peer in target/compare on the first run (gfnx 0.0.1 with JAX for the CPU,
500 MB; torchgfn 2.4.1 with PyTorch, 200 MB where its CPU wheels can be had, else several GB) and
builds gfn. All sides train the same network on the same task without evaluation, on the same cores;
P_B is learned, but uniform in tfbind8 (where there is no other), bitseq, dag and grid_dqn. The sequence
tasks have trajectory balance and gfnx only, with random rewards instead of downloaded ones. The task dag
has the modified detailed balance of Bayesian networks and gfnx only, with random local scores for gfn
where gfnx computes BGe; gfnx's own script has a graph network instead of the MLP of the other two.

The task grid_dqn has soft DQN and Munchausen DQN with the settings of arXiv:2310.12934 and gfnx only: the
last 100,000 transitions, of which 256 are drawn for the one update of an iteration, uniformly on both
sides, as gfnx offers no priorities. Its own script for soft DQN has no replay: grid_dqn_current is what
that does, dueling and on the transitions of the iteration, beside gfn with these settings.

Leave the machine alone meanwhile.

Columns: iterations per second, median (min-max) over rounds, after compilation; gfn's are taken
from a fresh policy and again once trained, as its cost follows the length of trajectories; seconds
from the command to the end of the first iteration; peak memory.
"""

import argparse
import csv
import itertools
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, NamedTuple, Optional

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "scripts" / "compare"
VENVS = ROOT / "target" / "compare"
PACKAGES = {
    # Later versions of equinox refuse the last JAX that gfnx can have.
    "gfnx": ["gfnx==0.0.1", "equinox==0.13.0", "jraph==0.0.6.dev0"],
    "torchgfn": ["torchgfn==2.4.1", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
}


class Task(NamedTuple):
    """Both sides of a comparison; {} stands for the objective in arguments of peers."""

    spec: str  # of gfn: a file of configs/, or the text itself
    settings: dict  # of gfn, on top of the spec
    peer: list  # script and arguments of a peer
    objectives: list
    sides: list  # peer and style
    batch: int
    iterations: dict  # of gfn (until it counts as trained) and of the peers
    rewards: Optional[Callable] = None  # writes a table of random ones for gfn


def grid(dim, side, batch, gfn, gfnx, torchgfn):
    return Task(
        spec="hypergrid_tb_tlm.toml",
        settings={"backward.kind": "naive", "env.dim": dim, "env.side": side},
        peer=["hypergrid.py", "{}", "--dim", dim, "--side", side],
        objectives=["tb", "db", "subtb"],
        sides=[("gfnx", "lean"), ("gfnx", "published"), ("torchgfn", "")],
        batch=batch,
        iterations={"gfn": gfn, "gfnx": gfnx, "torchgfn": torchgfn},
    )


def sequences(name, spec, settings, gfn, gfnx, rewards=None):
    return Task(
        spec=spec,
        settings={"train.epsilon": 0.0, "train.weight_decay": 0.0, **settings},
        peer=["sequences.py", name],
        objectives=["tb"],
        sides=[("gfnx", "lean"), ("gfnx", "published")],
        batch=16,
        iterations={"gfn": gfn, "gfnx": gfnx},
        rewards=rewards,
    )


def dqn(objectives, style, settings, gfn, gfnx):
    return Task(
        spec="hypergrid_munchausen_dqn_uniform.toml",
        settings={"objective.replay_priority": '"uniform"', **settings},
        peer=["soft_dqn.py"],
        objectives=objectives,
        sides=[("gfnx", style)],
        batch=16,
        iterations={"gfn": gfn, "gfnx": gfnx},
    )


MDB = 'kind = "mdb"\ntarget_every = 1000'
DAG = f"""
[env]
kind = "dag"
nodes = {{nodes}}
[reward]
kind = "table"
path = ""
[model]
kind = "mlp"
hidden = 256
layers = 4
[objective]
{MDB}
penalty = "huber"
[backward]
kind = "uniform"
[train]
lr = 1e-4
"""


def dag(nodes, gfn, gfnx):
    return Task(
        spec=DAG.format(nodes=nodes),
        settings={},
        peer=["dag.py", "--nodes", nodes],
        objectives=["mdb"],
        sides=[("gfnx", "lean"), ("gfnx", "published")],
        batch=128,
        iterations={"gfn": gfn, "gfnx": gfnx},
        rewards=lambda path: write_graphs(path, nodes),
    )


DQN = {"soft_dqn": 0.0, "munchausen_dqn": 0.15}
CURRENT = {
    "objective.replay_capacity": 0,
    "objective.dueling": "true",
    "objective.leaf_coefficient": 5.0,
}
MLP = {"model.layers": 2, "model.shared": "true"}
TASKS = {
    "grid": grid(4, 20, 16, 4000, 300, 60),
    "grid256": grid(4, 20, 256, 800, 40, 12),
    "grid8": grid(8, 10, 16, 4000, 300, 60),
    "qm9str": sequences(
        "qm9str",
        "qm9str_tb_uniform.toml",
        MLP | {"backward.kind": "naive"},
        8000,
        2000,
        lambda path: write_strings(path, 5, range(11), " "),
    ),
    "tfbind8": sequences(
        "tfbind8",
        "tfbind8_tb_uniform.toml",
        MLP | {"env.build": "append"},
        8000,
        2000,
        lambda path: write_strings(path, 8, "ACGT", ""),
    ),
    "bitseq": sequences("bitseq", "bitseq_tb_tlm.toml", {"backward.kind": "uniform"}, 200, 60),
    "dag": dag(5, 2000, 20),
    "grid_dqn": dqn(list(DQN), "lean", {}, 4000, 300),
    "grid_dqn_current": dqn(["soft_dqn"], "published", CURRENT, 4000, 300),
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
    if objective in DQN:
        command += ["--alpha", str(DQN[objective])]
    command += ["--batch", str(task.batch), "--iterations", str(task.iterations[name])]
    if style:
        command += ["--style", style]
    out, _, memory = run(command, cores)
    result = json.loads(out.strip().splitlines()[-1])
    return {"rate": result["rate"], "first": result["first_s"], "memory": memory}


def write_table(path, rows):
    with open(path, "w") as file:
        file.write("object,value\n")
        file.writelines(f"{text},{value:.6g}\n" for text, value in rows)


def write_strings(path, length, symbols, separator):
    """A table of random rewards of all strings."""
    generator = random.Random(0)
    strings = itertools.product(map(str, symbols), repeat=length)
    write_table(path, ((separator.join(s), generator.uniform(0.1, 1)) for s in strings))


def write_graphs(path, nodes):
    """A table of rewards of all acyclic graphs: products of a random score for each node and set of
    parents, to which every edge adds 2 nats, so that most of the mass lies on graphs of many edges, as it
    does with data."""
    generator = random.Random(0)
    score = lambda parents: 2 * parents.bit_count() + generator.uniform(-3, 3)
    scores = [[score(parents) for parents in range(1 << nodes)] for _ in range(nodes)]
    # Sets of parents and of ancestors as bits; graphs of one more edge at every turn.
    known = front = {(0,) * nodes: (0,) * nodes}
    while front:
        longer = {}
        for parents, above in front.items():
            for i, j in itertools.permutations(range(nodes), 2):
                if parents[j] >> i & 1 or above[i] >> j & 1:
                    continue
                new = above[i] | 1 << i
                below = lambda k: k == j or above[k] >> j & 1
                key = parents[:j] + (parents[j] | 1 << i,) + parents[j + 1 :]
                longer[key] = tuple(a | new if below(k) else a for k, a in enumerate(above))
        front = longer
        known = known | longer
    edges = lambda graph: [(i, j) for j, p in enumerate(graph) for i in range(nodes) if p >> i & 1]
    name = lambda node: chr(ord("A") + node)
    text = lambda graph: " ".join(f"{name(i)}->{name(j)}" for i, j in edges(graph)) or "-"
    value = lambda graph: math.exp(sum(s[parents] for s, parents in zip(scores, graph)))
    write_table(path, ((text(graph), value(graph)) for graph in known))


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
        if task.rewards:
            path = pathlib.Path(folder) / "rewards.csv"
            task.rewards(path)
            settings |= {"reward.path": path, "reward.sha256": '""'}
            settings |= {"reward.object_columns": [], "reward.value_column": '""'}
        if "\n" in task.spec:
            spec = pathlib.Path(folder) / "spec.toml"
            spec.write_text(task.spec)
        else:
            spec = ROOT / "configs" / task.spec
            alpha = DQN.get(objective)
            settings |= {"objective.kind": objective} if alpha is None else {"objective.alpha": alpha}
        command = [ROOT / "target" / "release" / "gfn", "train", "-q", "--out", folder, spec]
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
    objectives = ["tb", "db", "subtb", "mdb", *DQN]
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
