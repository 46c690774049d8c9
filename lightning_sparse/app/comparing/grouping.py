"""Which jobs belong together, and rows signed with the job that they are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from math import nan
from typing import Any

import numpy as np

from lightning_sparse.results import records
from lightning_sparse.results.arrays import Arrays
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record


def groups(jobs: Iterable[Job], *names: str) -> list[list[Job]]:
    """Group jobs by these fields."""
    found: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        found[tuple(getattr(job, name) for name in names)].append(job)
    return list(found.values())


def equal_images(one: Arrays, other: Arrays) -> bool:
    """Whether two measurements are of the same images."""
    return np.array_equal(one["images"], other["images"])


def equal_labels(one: Arrays, other: Arrays) -> bool:
    """Whether two measurements may be of the same images, as far as their labels tell."""
    return np.array_equal(one["labels"], other["labels"])


def signed(job: Job, rows: list[Record]) -> list[Record]:
    """Sign rows with the name and the sparsity of the job that they are about."""
    sparsity = next((row.sparsity for row in reversed(records.read(job.rows, job.run))), nan)
    return [replace(row, sparsity=sparsity, **job.identity()) for row in rows]
