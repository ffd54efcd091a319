#!/usr/bin/env python3
"""Whether TensorBoard reads of runs what their tables say: `pip install tensorboard` first.

    python3 scripts/check_tensorboard.py RUN...

RUN was trained with -s log.tensorboard=true. Every number of metrics.csv and train.csv must be there as
a scalar of the same step (events have 32 bits), once, and no others.
"""

import csv
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# What tables say besides numbers that are measured.
SPENT = {"name", "env", "objective", "backward", "model", "device", "seed", "step", "trajectories"}
SPENT |= {"reward_calls", "env_steps", "grad_steps", "wall_s", "train_s", "seconds"}


def of_table(path, prefix):
    with open(path) as file:
        for row in csv.DictReader(file):
            for column, cell in row.items():
                if column not in SPENT and cell:
                    yield f"{prefix}/{column}", int(row["step"]), float(cell)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for run in map(pathlib.Path, sys.argv[1:]):
        expected = {}
        for table, prefix in [("metrics.csv", "eval"), ("train.csv", "train")]:
            for tag, step, value in of_table(run / table, prefix):
                expected.setdefault(tag, {})[step] = value
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        tags = set(events.Tags()["scalars"])
        assert tags == set(expected), f"{run}: {sorted(tags ^ set(expected))}"
        for tag, values in expected.items():
            scalars = events.Scalars(tag)
            steps = [scalar.step for scalar in scalars]
            assert steps == sorted(values), f"{run}: {tag}: {steps}"
            for scalar in scalars:
                close = math.isclose(scalar.value, values[scalar.step], rel_tol=1e-6, abs_tol=1e-30)
                assert close, f"{run}: {tag} at {scalar.step}: {scalar.value}"
        n = sum(map(len, expected.values()))
        print(f"{run}: {len(tags)} tags, {n} scalars as in the tables")


if __name__ == "__main__":
    main()
