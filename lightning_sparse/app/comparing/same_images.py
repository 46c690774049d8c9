"""Saliency over the images that all networks of a seed have right."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from lightning_sparse import measure
from lightning_sparse.app.comparing.grouping import groups, signed
from lightning_sparse.results.arrays import Arrays, load
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record

LEFT_OUT = "; networks that are closer to chance than to the best of their group are left out"


def same_images(jobs: list[Job]) -> list[Record]:
    """Average saliency over the images that all networks of a seed classify correctly, for a fair comparison.

    A network that has learned nothing would leave no such image. So a network is left out if its accuracy is nearer to
    chance, the share of the most frequent class, than to that of the best network of the same data, model and seed. If
    even the best is at chance, all are left out.
    """
    rows = []
    for group in groups(jobs, "data", "model", "seed"):
        # Networks are compared with those that were measured on the same images.
        comparable: dict[bytes, list[tuple[Job, Arrays]]] = defaultdict(list)
        for job in group:
            if arrays := load(job, "saliency"):
                comparable[arrays["images"].tobytes()].append((job, arrays))
        for learned in filter(None, map(_learned, comparable.values())):
            keep = measure.same_images([arrays for _, arrays in learned])
            for job, arrays in learned:
                found = measure.records_over(arrays, keep, len(learned))
                found = [replace(row, condition="same images", detail=row.detail + LEFT_OUT) for row in found]
                rows += signed(job, found)
    return rows


def _learned(several: list[tuple[Job, Arrays]]) -> list[tuple[Job, Arrays]]:
    labels = several[0][1]["labels"]
    chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    right = [float(np.mean(arrays["prediction"] == labels)) for _, arrays in several]
    enough = (chance + max(right)) / 2
    return [network for network, share in zip(several, right, strict=True) if share >= enough > chance]
