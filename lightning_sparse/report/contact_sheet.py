"""Saliency maps of the same images side by side: the input, the dense network, then sparser and sparser networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_sparse.drawing.style import caption
from lightning_sparse.report.gallery import WRONG, show
from lightning_sparse.results.arrays import Arrays, attributions, load
from lightning_sparse.tables.method_names import bits_text, dense_of, is_dense

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_sparse.results.jobs import Job
    from lightning_sparse.tables.collect import Sweep

ROWS = 5


def saved_attributions(sweep: Sweep) -> list[str]:
    """Names of the attributions whose maps the sweep's jobs saved, in reverse alphabetical order."""
    saved = next((maps for job in sweep.started if (maps := load(job, "saliency"))), {})
    return sorted(attributions(saved), reverse=True)


def same_maps(sweep: Sweep, method: str, attribution: str) -> tuple[int, list[tuple[Job, Arrays]]] | None:
    """The first seed, and for its dense job and those of a method, by sparsity, the arrays of the same images.

    A job without this map, or with maps of other images, has none. None if no job of the method has any.
    """
    dense = dense_of(method, sweep.jobs)
    seed = min((job.seed for job in sweep.started if job.method in (dense, method)), default=0)
    jobs = [job for job in sweep.members if job.seed == seed and job.method in (dense, method)]
    jobs.sort(key=lambda job: (job.method != dense, job.sparsity_asked))
    columns = [(job, load(job, "saliency") or {}) for job in jobs]
    saved = [maps for _, maps in columns if attribution in maps]
    if not saved:
        return None
    # Maps of other images, from other settings, are left out.
    images = saved[0]["images"]
    columns = [
        (job, maps if "images" in maps and np.array_equal(maps["images"], images) else {}) for job, maps in columns
    ]
    if not any(job.method == method and attribution in maps for job, maps in columns):
        return None
    return seed, columns


def contact_sheet(sweep: Sweep, method: str, attribution: str) -> Figure | None:
    """Draw the maps of one method other than dense, first seed; None if no job of that seed saved maps.

    Rows are the first images, of different classes, that the first network that saved maps (dense, if it did) classifies
    correctly. All maps of a row share one colour scale. The sweep has one data set and one model.
    """
    found = same_maps(sweep, method, attribution)
    if found is None:
        return None
    seed, columns = found
    saved = [maps for _, maps in columns if attribution in maps]
    images, rows = saved[0]["images"], chosen(saved[0])
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.98 * (len(columns) + 1), 1.12 * len(rows) + 0.9), layout="constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.suptitle(f"{method}: {attribution.replace('_', ' ')}", fontsize=9.5)
    for i, image in enumerate(rows):
        top = max(float(maps[attribution][image].max()) for maps in saved) or 1.0
        scale = {"cmap": "viridis", "vmin": 0, "vmax": top}
        show(grid[i, 0], images[image])
        grid[i, 0].set_xlabel(f"class {saved[0]['labels'][image]}", fontsize=7)
        for axes, (job, maps) in zip(grid[i, 1:], columns, strict=True):
            if attribution not in maps:
                show(axes, None)
                axes.text(0.5, 0.5, job.status, ha="center", va="center", transform=axes.transAxes, color=WRONG)
                continue
            show(axes, maps[attribution][image], **scale)
            right = maps["prediction"][image] == maps["labels"][image]
            says = f"{'' if right else '✗ '}{maps['prediction'][image]}, {100 * maps['confidence'][image]:.0f} %"
            axes.set_xlabel(says, fontsize=7, color="black" if right else WRONG)
    headings = ["dense" if is_dense(job.method) else _heading(job) for job, _ in columns]
    for axes, heading in zip(grid[0], ["input", *headings], strict=True):
        axes.set_title(heading, fontsize=8)
    caption(
        figure,
        f"{sweep.name}, seed {seed}. Brighter pixels matter more to the score of the true class; the maps of one row "
        "share one colour scale, from 0. Under each map: predicted class and its probability, ✗ and red where it is "
        "wrong.",
    )
    return figure


def _heading(job: Job) -> str:
    return f"bits\n{bits_text(job.sparsity_asked)}" if job.compressed else f"sparsity\n{job.sparsity_asked:g}"


def chosen(maps: Arrays) -> list[int]:
    """The first image of each class that the network gets right, then the first of each other class, up to five."""
    right = [i for i, label in enumerate(maps["labels"]) if maps["prediction"][i] == label]
    firsts: dict[int, int] = {}
    for i in [*right, *range(len(maps["labels"]))]:
        firsts.setdefault(int(maps["labels"][i]), i)
    return sorted(list(firsts.values())[:ROWS])
