"""What a line of the table opens to: its jobs, their folders, and what they were configured with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.tables.averages import LINE
from lightning_sparse.tables.configs import common, differing, overrides, traceback_of
from lightning_sparse.tables.not_started import NOT_STARTED

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep


def job_details(sweep: Sweep) -> list[dict[Any, Any]]:
    """Tell of every started job what the page shows.

    Returns:
        Its fields with ``overrides`` (the command line), ``settings`` (those that are not the same in all jobs) and
        ``traceback``.
    """
    settings = differing(sweep.started)
    return [
        {
            **line,
            "overrides": overrides(job),
            "settings": settings.get(job.folder, {}),
            "traceback": traceback_of(job) if job.status == "failed" else "",
        }
        for job, line in zip(sweep.members, sweep.jobs.to_dict("records"), strict=True)
        if job.status != NOT_STARTED
    ]


def opened(line: dict[Any, Any], told: list[dict[Any, Any]]) -> dict[str, Any]:
    """Choose the jobs of one line of the table.

    Returns:
        ``jobs``, each with ``own``, the settings in which it differs from the others of the line; and ``settings``, those
        that they share and other jobs of the sweep have otherwise.
    """
    jobs = [job for job in told if all(str(job[name]) == str(line[name]) for name in LINE)]  # NaN is no NaN's equal
    shared = common([job["settings"] for job in jobs])
    own = [{name: value for name, value in job["settings"].items() if name not in shared} for job in jobs]
    return {
        "jobs": [job | {"own": of_job} for job, of_job in zip(jobs, own, strict=True)],
        "settings": shared,
    }
