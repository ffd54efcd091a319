#!/usr/bin/env python3
"""Imports runs into Weights & Biases or MLflow, without network: `pip install wandb` or `pip install mlflow`.

    python3 scripts/import_runs.py wandb  RUN... --project NAME     # offline; later: wandb sync wandb/offline-run-*
    python3 scripts/import_runs.py mlflow RUN... --project NAME     # into ./mlflow.db, or MLFLOW_TRACKING_URI

RUN is a run directory, or a folder with some below it. Settings are the keys of spec.toml, dotted; metrics are
the columns of metrics.csv (eval/...) and train.csv (train/...) by iteration. A run that is imported again is
another run there.
"""

import argparse
import csv
import json
import os
import pathlib
import tomllib

WHO = {"name", "env", "objective", "backward", "model", "device", "seed", "step"}


def flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def rows(run):
    """Iterations in ascending order, each with its numbers."""
    numbers = {}
    for table, prefix in [("train.csv", "train/"), ("metrics.csv", "eval/")]:
        if (run / table).exists():
            with open(run / table) as file:
                for row in csv.DictReader(file):
                    cells = {c: v for c, v in row.items() if c not in WHO and v}
                    of_step = numbers.setdefault(int(row["step"]), {})
                    of_step.update((prefix + c, float(v)) for c, v in cells.items())
    return sorted(numbers.items())


def to_wandb(run, spec, project):
    import wandb

    config = dict(flat(spec))
    tags = [spec["env"]["kind"], spec["objective"]["kind"], spec["backward"]["kind"]]
    name = f"{spec['name']}/s{spec['seed']}"
    with wandb.init(project=project, name=name, config=config, tags=tags, mode="offline") as target:
        for step, numbers in rows(run):
            target.log(numbers, step=step)


def to_mlflow(run, spec, project):
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=f"{spec['name']}/s{spec['seed']}"):
        mlflow.log_params({key: json.dumps(value) for key, value in flat(spec)})
        for step, numbers in rows(run):
            mlflow.log_metrics(numbers, step=step)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("where", choices=["wandb", "mlflow"])
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--project", default="gfn")
    args = parser.parse_args()
    found = [spec.parent for folder in args.runs for spec in sorted(folder.rglob("spec.toml"))]
    if not found:
        parser.exit(2, f"no run (spec.toml) in {', '.join(map(str, args.runs))}\n")
    for run in found:
        spec = tomllib.loads((run / "spec.toml").read_text())
        {"wandb": to_wandb, "mlflow": to_mlflow}[args.where](run, spec, args.project)
        print(run)


if __name__ == "__main__":
    main()
