"""Robust accuracy in the course of adversarial training, best and last, of each method and level: a table of docs/cifar10.md.

lightning-sparse -cn cifar10_robust ...
python benchmarks/robust_overfitting.py outputs/cifar10_robust [images]

It reads what RobustnessMonitor(training=True) has written into each job's curves/metrics.csv.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from by_seed import Found, cell, table, write

from lightning_sparse.results.jobs import read_jobs

TRAIN = "robust/monitor/train/"
ROWS = [
    ("best, validation", "best"),
    ("last, validation", "last"),
    ("fall from best to last", "fall"),
    ("last, training images", "train"),
    ("gap of the last", "gap"),
]


def looks(path: Path) -> Found:
    """The best and the last look at one training, in %."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    of_training = next(name for name in rows[0] if name.startswith(TRAIN))
    held_out = of_training.replace(TRAIN, "robust/monitor/")
    seen = [100 * float(row[held_out]) for row in rows if row[held_out]]
    train = [100 * float(row[of_training]) for row in rows if row[of_training]][-1]
    best, last = max(seen), seen[-1]
    return {"best": best, "last": last, "fall": best - last, "train": train, "gap": train - last}


def main(folder: Path, mark: str = "") -> None:
    """Print the table, or fill that between these marks."""
    found: dict[tuple[float, str], dict[int, Found]] = defaultdict(dict)
    for job in read_jobs(folder)[0]:
        if job.status == "done":
            found[job.sparsity_asked, job.method][job.seed] = looks(folder / job.run / "curves" / "metrics.csv")
    dense = found.pop((0.0, "dense"))
    head = ["%", "dense"]
    columns = [list(dense.values())]
    for (level, method), seeds in sorted(found.items()):
        head.append(f"{method} {level:g}")
        columns.append([seeds[seed] | {f"dense {k}": v for k, v in dense[seed].items()} for seed in sorted(seeds)])
    rows = [[name, *(cell(column, key) for column in columns)] for name, key in ROWS]
    rows += [
        [f"{name}: more than dense", "", *(cell(column, key, f"dense {key}") for column in columns[1:])]
        for name, key in ROWS
        if key in ("best", "last", "fall", "gap")
    ]
    text = table(head, rows)
    write("cifar10.md", mark, text) if mark else print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
