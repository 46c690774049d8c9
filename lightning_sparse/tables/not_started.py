"""Jobs that a sweep's last launch was asked for and never started, as it logged them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_sparse.results.jobs import Job
from lightning_sparse.results.launches import not_started

NOT_STARTED = "not started"


def never_started(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """Describe the jobs that the last launch never started, and that are not among ``jobs`` from an earlier launch."""
    existing = {job.run for job in jobs}
    return [
        Job(
            run="",
            method=asked.method,
            data=asked.data,
            model=asked.model,
            seed=asked.seed,
            sparsity_asked=asked.sparsity_asked,
            compressed=asked.compressed,
            status=NOT_STARTED,
            error=f"the last launch did not come to it ({' '.join(asked.overrides)})",
            seconds=float("nan"),
            version="",
        )
        for asked in not_started(folder)
        if asked.run not in existing
    ]
