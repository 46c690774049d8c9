"""Robust accuracy in the course of adversarial training, best and last, of each method and level.

lightning-sparse -cn cifar10_robust ...
python benchmarks/robust_overfitting.py outputs/cifar10_robust [overfitting]

It reads what RobustnessMonitor(training=True) has written into the curves of each job, and prints a table. Given a name, the
table goes between `<!-- NAME -->` and `<!-- /NAME -->` of docs/cifar10.md, and a figure to docs/images/NAME.svg.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from by_seed import ROOT, Found, cell, table, write

from lightning_sparse.drawing.style import PALETTE, panels, style
from lightning_sparse.results.jobs import read_jobs

TRAIN = "robust/monitor/train/"
EVERY = 5  # epochs from look to look, as in sweeps/cifar10_robust.yaml
ROWS = [
    ("best, validation", "best"),
    ("last, validation", "last"),
    ("fall from best to last", "fall"),
    ("last, training images", "train"),
    ("gap of the last", "gap"),
]


Curves = dict[str, list[float]]  # of validation and training images, in %, by the epochs finished


def curves(job: Path) -> Curves:
    """The looks at one training; one that was stopped went on in another folder, from its last checkpoint."""
    looks: dict[int, dict[str, str]] = {}
    for part in sorted(job.glob("curves*/metrics.csv"), key=lambda path: (len(path.parent.name), path)):
        with part.open() as file:
            for row in csv.DictReader(file):
                train = next(name for name in row if name.startswith(TRAIN))
                if row[train]:
                    looks[int(row["step"])] = row
    names = {"validation": train.replace(TRAIN, "robust/monitor/"), "train": train}
    return {split: [100 * float(look[name]) for _, look in sorted(looks.items())] for split, name in names.items()}


def summary(seen: Curves) -> Found:
    """The best and the last of them."""
    held_out, train = seen["validation"], seen["train"][-1]
    best, last = max(held_out), held_out[-1]
    return {"best": best, "last": last, "fall": best - last, "train": train, "gap": train - last}


def figure(found: dict[tuple[float, str], dict[int, Curves]], path: Path) -> None:
    """The mean curves over seeds, with every seed's faintly behind them."""
    with style():
        drawing, axes = panels(2)
        for axis, split in zip(axes, ("validation", "train"), strict=True):
            for place, ((level, method), seeds) in enumerate(sorted(found.items())):
                colour = "black" if not level else PALETTE[place - 1]
                looks = [seen[split] for seen in seeds.values()]
                epochs = [EVERY * look for look in range(1, 1 + len(looks[0]))]
                for one in looks:
                    axis.plot(epochs, one, color=colour, alpha=0.2, linewidth=0.7)
                mean = [fmean(values) for values in zip(*looks, strict=True)]
                axis.plot(epochs, mean, color=colour, label=f"{method} {level:g}" if level else method)
            axis.set(
                xlabel="epoch", title={"train": "training"}.get(split, split) + " images", ylabel="robust accuracy, %"
            )
        axes[0].legend()
        drawing.savefig(path, metadata={"Date": None})


def main(folder: Path, mark: str = "") -> None:
    """Print the table, or fill that between these marks and draw the figure."""
    found: dict[tuple[float, str], dict[int, Curves]] = defaultdict(dict)
    for job in read_jobs(folder)[0]:
        if job.status == "done":
            found[job.sparsity_asked, job.method][job.seed] = curves(folder / job.run)
    dense = {seed: summary(seen) for seed, seen in sorted(found[0.0, "dense"].items())}
    sparse = {
        of: {seed: summary(seen) for seed, seen in sorted(seeds.items())}
        for of, seeds in sorted(found.items())
        if of[0]
    }
    columns = [
        [seen | {f"dense {key}": value for key, value in dense[seed].items()} for seed, seen in seeds.items()]
        for seeds in sparse.values()
    ]
    rows = [[name, *(cell(column, key) for column in (list(dense.values()), *columns))] for name, key in ROWS]
    rows += [
        [f"{name}, more than dense", "", *(cell(column, key, f"dense {key}") for column in columns)]
        for name, key in ROWS
        if key != "train"
    ]
    text = table(["%", "dense", *(f"{method} {level:g}" for level, method in sparse)], rows)
    if not mark:
        print(text)
        return
    write("cifar10.md", mark, text)
    figure(found, ROOT / "docs" / "images" / f"{mark}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
