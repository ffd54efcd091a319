#!/usr/bin/env python3
"""How the cost of an iteration grows: writes results/scaling.csv and prints it as a table.

    scripts/scaling.py [--cores 2] [--seconds 4]

Detailed balance with a learned P_B on the 4-dimensional hypergrid, varied one setting at a time
around side 20, batch 16, hidden 256. Before timing, 500 iterations at batch 16 (fewer for larger
batches: the same trajectories) lengthen the trajectories. `of_limit` is the rate of multiplications
that the matrix products of an iteration need, relative to the rate of one large product on as many
threads, measured in the same run: 1 would be an iteration that is nothing but matrix products at
full speed. An iteration needs three times (one pass forwards, two backwards) rows x (hidden^2 +
10 hidden), with one row per non-terminal state. Leave the machine alone meanwhile.
"""

import argparse
import csv
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
BASE = {"side": 20, "batch": 16, "hidden": 256}
VARIED = {
    "batch": [16, 64, 256, 1024, 4096],
    "side": [8, 16, 32, 64],
    "hidden": [64, 128, 256, 512, 1024],
}


def run(command, cores, threads):
    pin = lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, preexec_fn=pin, check=True, capture_output=True, text=True
    ).stdout


def limit():
    """Multiplications per second of a large matrix product on one thread."""
    command = ["cargo", "bench", "-p", "gfn-cli", "--bench", "kernels", "--", "limit"]
    out = run(command, 1, 1)
    line = out.split("512")[1].splitlines()[1]
    rate, unit = re.findall(r"([\d.]+) ([GMK]?)item/s", line)[2]
    return float(rate) * {"G": 1e9, "M": 1e6, "K": 1e3, "": 1}[unit]


def measure(setting, cores, threads, seconds):
    """Seconds and transitions per iteration, from trajectories that have grown for a while."""
    batch = setting["batch"]
    warm = max(500 * 16 // batch, 5)
    timed = warm
    while True:
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "objective.kind": "db",
                "backward.kind": "naive",
                "env.side": setting["side"],
                "model.hidden": setting["hidden"],
                "train.batch": batch,
                "train.trajectories": (warm + timed) * batch,
                "train.log_every": warm,
                "eval.metrics": ["log_z"],
                "eval.every": warm,
                "eval.max_states": 1,
                "checkpoint.every": 10**9,
            }
            command = [ROOT / "target" / "release" / "gfn", "train", "-q", "--out", folder]
            command += [ROOT / "configs" / "hypergrid_tb_tlm.toml"]
            for key, value in settings.items():
                command += ["-s", f"{key}={value}"]
            path = pathlib.Path(run(command, cores, threads).strip())
            with open(path / "metrics.csv") as file:
                rows = {int(row["step"]): row for row in csv.DictReader(file)}
        first, last = rows[warm], rows[max(rows)]
        n = max(rows) - warm
        duration = float(last["wall_s"]) - float(first["wall_s"])
        transitions = (int(last["env_steps"]) - int(first["env_steps"])) / n
        if duration > seconds or timed > 50_000:
            return duration / n, transitions
        timed = warm * (int(timed / warm * seconds / max(duration, 0.01) * 1.2) + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    subprocess.check_call(["cargo", "build", "--release"], cwd=ROOT)
    rate = limit()
    print(f"limit: {rate / 1e9:.0f} G multiplications/s per thread\n")
    columns = "varied side batch hidden threads ms transitions us_per_transition of_limit".split()
    rows = []
    for varied, values in VARIED.items():
        for value in values:
            for threads in range(1, args.cores + 1):
                setting = {**BASE, varied: value}
                seconds, transitions = measure(setting, args.cores, threads, args.seconds)
                hidden = setting["hidden"]
                work = 3 * (transitions - setting["batch"]) * (hidden**2 + 10 * hidden)
                row = [varied, setting["side"], setting["batch"], hidden, threads]
                row += [f"{seconds * 1e3:.3f}", f"{transitions:.0f}"]
                row += [f"{seconds / transitions * 1e6:.2f}", f"{work / seconds / rate / threads:.2f}"]
                rows.append(row)
                print("  ".join(map(str, row)), flush=True)
    with open(ROOT / "results" / "scaling.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


main()
