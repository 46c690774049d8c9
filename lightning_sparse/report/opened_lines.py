"""What a line of the table opens to: its jobs, their folders, and what they were configured with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.tables.configs import common, differing, overrides, traceback_of

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep


def job_details(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Tell of every started job what the page shows.

    Returns:
        By folder, the fields of its ``job.json`` with ``overrides`` (the command line), ``settings`` (those that are not the
        same in all jobs) and ``traceback``.
    """
    settings = differing(sweep.folder, sweep.started)
    return {
        job["folder"]: {
            **{str(name): value for name, value in job.items()},
            "overrides": overrides(sweep.folder / job["folder"]),
            "settings": settings.get(job["folder"], {}),
            "traceback": traceback_of(sweep.folder / job["folder"]) if job["status"] == "failed" else "",
        }
        for job in sweep.started.to_dict("records")
    }


def opened(line: dict[str, Any], told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Choose the jobs of one line of the table.

    Returns:
        ``jobs``, each with ``own``, the settings in which it differs from the others of the line; and ``settings``, those
        that they share and other jobs of the sweep have otherwise.
    """
    names = ("data", "model", "method", "sparsity_asked")
    jobs = [job for job in told.values() if all(job[name] == line[name] for name in names)]
    shared = common([job["settings"] for job in jobs])
    own = [{name: value for name, value in job["settings"].items() if name not in shared} for job in jobs]
    return {
        "jobs": [job | {"own": of_job} for job, of_job in zip(jobs, own, strict=True)],
        "settings": shared,
    }
