"""Levels of sparsity: rounded for a reader, and measured for jobs that state none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from statistics import mean

from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record


def rounded(sparsity: float) -> float:
    """Round an achieved sparsity to three digits of density, because whole connections seldom hit a level exactly.

    Example:
        >>> rounded(0.799992), rounded(0.46), rounded(0.99995), rounded(0.0)
        (0.8, 0.46, 0.99995, 0.0)
    """
    return sparsity if isnan(sparsity) else round(1 - float(f"{1 - sparsity:.3g}"), 12)


def with_levels(jobs: Sequence[Job], rows: Sequence[Record]) -> tuple[list[Job], list[Record]]:
    """Give jobs that do not state a sparsity (NaN), and their rows, the level that they achieved.

    Jobs that differ only in the seed share one level, also those that left no rows.

    Example:
        >>> job = Job("a", "own", "digits", "cnn", 0, float("nan"), training="t")
        >>> jobs, rows = with_levels([job], [Record("gini", 0.5, 9, run="a", sparsity_asked=float("nan"), sparsity=0.89997)])
        >>> jobs[0].sparsity_asked, rows[0].sparsity_asked
        (0.9, 0.9)
    """
    silent = {job.run: (job.data, job.model, job.method, job.training) for job in jobs if isnan(job.sparsity_asked)}
    achieved = defaultdict(list)
    for row in rows:
        if row.run in silent and not isnan(row.sparsity):
            achieved[silent[row.run]].append(row.sparsity)
    level = {run: rounded(mean(achieved[training])) for run, training in silent.items() if achieved[training]}
    return (
        [replace(job, sparsity_asked=level.get(job.run, job.sparsity_asked)) for job in jobs],
        [replace(row, sparsity_asked=level[row.run]) if row.run in level else row for row in rows],
    )
