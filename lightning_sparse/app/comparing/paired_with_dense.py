"""Each sparse network against the dense one of its seed: maps, and accuracy on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from lightning_sparse import measure
from lightning_sparse.app.comparing.grouping import equal_images, equal_labels, groups, signed
from lightning_sparse.results.arrays import Arrays, key_of_kind, load, survivors
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record
from lightning_sparse.results.verdicts import has_failed


def dense_agreement(jobs: list[Job]) -> list[Record]:
    """Compare each network's maps with those of the dense network of its seed, and dense with dense, as the ceiling."""
    rows = []
    parents = {job.run: arrays for job in jobs if job.method == "dense" and (arrays := load(job, "saliency"))}
    for job, dense in _pairs_with_dense(jobs):
        mine, theirs = load(job, "saliency"), parents.get(dense.run)
        same = key_of_kind(job, "saliency") == key_of_kind(dense, "saliency")
        if mine and theirs and same and equal_images(mine, theirs):
            rows += signed(job, _agreement(mine, theirs))
    for group in groups([job for job in jobs if job.run in parents], "data", "model"):
        for one, other in pairwise([*group, group[0]] if len(group) > 2 else group):
            mine, theirs = parents[one.run], parents[other.run]
            if equal_images(mine, theirs):
                found = _agreement(mine, theirs)
                ceiling = f"two dense networks, seeds {one.seed} and {other.seed}: the ceiling"
                rows += signed(one, [replace(row, detail=f"{row.detail}; {ceiling}") for row in found])
    return rows


def differences(jobs: list[Job]) -> list[Record]:
    """Each network's accuracy less that of the dense one of its seed, clean and under attack, on the same images."""
    from lightning_sparse.statistics.paired import mcnemar

    rows = []
    for job, dense in _pairs_with_dense(jobs):
        rows += signed(job, clean_difference(job, dense, "difference_clean_accuracy", "dense"))
        stood, stood_there = survivors(job), survivors(dense)
        worst = [row for one in (job, dense) for row in one.current_rows() if row.attack == "worst" and row.eps]
        for key, eps in sorted(stood.keys() & stood_there.keys(), key=lambda which: which[1]):
            one, other = stood[key, eps], stood_there[key, eps]
            if len(one) != len(other):
                continue
            row = _difference("difference_robust_accuracy", mcnemar(one, other), len(one))
            about = [row for row in worst if row.key == key and np.isclose(row.eps or 0.0, eps)]
            trust = next((row.trust for row in about if has_failed(row.trust)), "")
            norm = next((row.norm for row in about), "Linf")
            rows += signed(job, [replace(row, norm=norm, eps=eps, trust=trust)])
    return rows


def clean_difference(job: Job, other: Job, metric: str, name: str) -> list[Record]:
    """The clean accuracy of one job less that of another, which has a name; nothing if they saw other images."""
    from lightning_sparse.statistics.paired import mcnemar

    mine, theirs = load(job, "clean"), load(other, "clean")
    same = key_of_kind(job, "clean") == key_of_kind(other, "clean")
    if not (mine and theirs and same and equal_labels(mine, theirs)):
        return []
    right = [arrays["prediction"] == arrays["labels"] for arrays in (mine, theirs)]
    return [_difference(metric, mcnemar(*right), len(right[0]), name)]


def _pairs_with_dense(jobs: list[Job]) -> Iterator[tuple[Job, Job]]:
    parents = {(job.data, job.model, job.seed): job for job in jobs if job.method == "dense"}
    for job in jobs:
        parent = parents.get((job.data, job.model, job.seed))
        if parent is not None and parent is not job:
            yield job, parent


def _agreement(mine: Arrays, theirs: Arrays) -> list[Record]:
    shared = [method for method in measure.ATTRIBUTIONS if method in mine and method in theirs]
    return [row for method in shared for row in measure.agreement_records(mine[method], theirs[method], method)]


def _difference(metric: str, found: tuple[float, float, float, float], n: int, name: str = "dense") -> Record:
    difference, low, high, p = found
    detail = f"less {name} of the same seed, same images, McNemar p = {p:.3g}"
    return Record(metric, difference, n, low, high, detail=detail)
