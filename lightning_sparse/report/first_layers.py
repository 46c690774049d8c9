"""The most connected units of the first layer, as filters, from the dense network to the sparsest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_sparse.drawing.style import caption
from lightning_sparse.results.arrays import load
from lightning_sparse.tables.method_names import dense_of, is_dense, level_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_sparse.tables.collect import Sweep


def first_layers(sweep: Sweep, method: str) -> Figure | None:
    """Draw the first layers of a method's networks and of its dense one, first seed; None if none was saved.

    A line for each network, a picture for each of up to 16 units: those with most connections, as ``measure_biases`` saves
    them. Of images with several channels the weights are added up.
    """
    dense = dense_of(method, sweep.jobs)
    jobs = [job for job in sweep.members if job.method in (dense, method)]
    seed = min((job.seed for job in jobs), default=0)
    jobs = sorted((job for job in jobs if job.seed == seed), key=lambda job: (job.method != dense, job.sparsity_asked))
    saved = [(job, arrays["first_layer"]) for job in jobs if "first_layer" in (arrays := load(job, "biases") or {})]
    if not any(job.method == method for job, _ in saved):
        return None
    from matplotlib.figure import Figure

    columns = max(len(filters) for _, filters in saved)
    figure = Figure(figsize=(0.5 * columns + 1.0, 0.54 * len(saved) + 0.8), layout="constrained")
    grid = figure.subplots(len(saved), columns, squeeze=False)
    figure.suptitle(f"{method}: the most connected units of the first layer", fontsize=9.5)
    for line, (job, filters) in zip(grid, saved, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, filtered in zip(line, filters.sum(1), strict=False):
            largest = float(np.abs(filtered).max()) or 1.0
            axes.imshow(filtered, cmap="RdBu", vmin=-largest, vmax=largest, interpolation="nearest")
        says = "dense" if is_dense(job.method) else level_words(job.sparsity_asked, job.compressed)
        line[0].set_title(says, fontsize=7, loc="left")
    caption(
        figure,
        f"{sweep.name}, seed {seed}. Each square is what one unit reads of the image: blue weights are positive, red ones "
        "negative, white ones dead or near zero; each has its own scale.",
    )
    return figure
