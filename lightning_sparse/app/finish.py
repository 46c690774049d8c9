"""What happens when a sweep has ended: models are compared, the report is written, W&B gets its summary run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from filelock import FileLock

from lightning_sparse.app.comparing.compare_jobs import update_comparisons
from lightning_sparse.results.jobs import Job, job_files, read_job


def rebuild(folder: Path) -> tuple[Path, list[Job]]:
    """Write what is computed from all jobs of a sweep together, and its report.

    Returns:
        Path of the report, and the jobs, as they were read for it.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    from lightning_sparse.report import write_report
    from lightning_sparse.tables.collect import jobs_below

    if not holds_jobs(folder):
        jobs_below(folder)  # which says so, before anything is written
    with FileLock(folder / ".lock"):  # another launch may end at the same moment: what it has done is read after it
        for torn in (folder / "figures").glob("*.part"):  # what a kill at this point has left
            torn.unlink(missing_ok=True)
        jobs = jobs_in(folder)
        update_comparisons(folder, jobs)
        return write_report(folder), jobs


def finish(folder: Path, logger: dict[str, Any]) -> None:
    """Rebuild what a sweep's jobs come to, and say where it is.

    Args:
        folder: the sweep's folder.
        logger: the choice in the ``logger`` group; ``kind: wandb`` gets a summary run.
    """
    if not holds_jobs(folder):
        return
    page, jobs = rebuild(folder)
    if logger.get("kind") == "wandb":
        from lightning_sparse.tracking import summary_run

        summary_run(folder, project=logger["project"], mode=logger["mode"])
    counts = Counter(job.status for job in jobs)
    said = [f"{counts['done']} jobs done"]
    said += [f"{counts['failed']} FAILED: see the report"] if counts["failed"] else []
    said += [f"{counts['running']} still running or cut off: launch again"] if counts["running"] else []
    print(", ".join(said))
    print(f"report: {page.resolve()}", flush=True)


def holds_jobs(folder: Path) -> bool:
    """Whether a folder is a sweep's, without reading any job."""
    return any(folder.glob("*/job.json"))


def jobs_in(folder: Path) -> list[Job]:
    """Every job of a sweep that can be read, without those that a newer one supersedes."""
    current, _ = job_files(folder)
    return [job for path in current if (job := read_job(path))]
