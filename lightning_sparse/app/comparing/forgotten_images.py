"""Images that pruning forgets: those that the sparse networks of a level get wrong and the dense ones do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_sparse.app.comparing.grouping import groups, signed
from lightning_sparse.results.arrays import key_of_kind, load
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record


def forgotten_images(jobs: list[Job]) -> list[Record]:
    """What the sparse networks of a method and level get wrong that the dense ones do not, seeds taken together.

    And whether the images with the most variable gradients in the dense training are among them.
    """
    from lightning_sparse.measure.forgetting.forgotten import measure_forgotten, vog_overlap

    rows = []
    for level, dense, (sparse_says, dense_says, labels) in populations(jobs):
        found = measure_forgotten(sparse_says, dense_says, labels)
        rows += signed(level[0], found.records)
        followed = [arrays for job in dense if (arrays := load(job, "vog"))]
        if followed and "places" in followed[0]:
            places = followed[0]["places"]
            same = [arrays["vog_in_class"] for arrays in followed if np.array_equal(arrays["places"], places)]
            overlap = vog_overlap(np.mean(same, axis=0), found.arrays["forgotten"][places])
            rows += signed(level[0], [overlap])
    return rows


def populations(
    jobs: list[Job],
) -> Iterator[tuple[list[Job], list[Job], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]]:
    """Yield the networks of each method and level, the dense ones beside them, and what both say about all test images.

    Yields:
        Jobs of the level; dense jobs; predictions (K1, n) and (K2, n), and labels (n,).
    """
    for subject in groups(jobs, "data", "model"):
        says = {job.run: arrays for job in subject if (arrays := load(job, "clean"))}
        subject = [job for job in subject if job.run in says]
        dense = [job for job in subject if job.method == "dense"]
        if not dense:
            continue
        labels = says[dense[0].run]["labels"]
        for level in groups([job for job in subject if job.method != "dense"], "method", "sparsity_asked"):
            same = [job for job in level if key_of_kind(job, "clean") == key_of_kind(dense[0], "clean")]
            if same:
                predictions = [np.stack([says[job.run]["prediction"] for job in some]) for some in (same, dense)]
                yield same, dense, (predictions[0], predictions[1], labels)
