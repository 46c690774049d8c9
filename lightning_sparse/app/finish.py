"""What happens when a sweep has ended: models are compared, the report is written, W&B gets its summary run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lightning_sparse.app.comparing.compare_jobs import update_comparisons
from lightning_sparse.results.jobs import job_files, read_jobs

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep


def rebuild(folder: Path) -> Sweep:
    """Write what is computed from all jobs of a sweep together, and its report.

    Returns:
        The sweep, as it was read for the report.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    from lightning_sparse.report import write
    from lightning_sparse.tables.collect import collect

    job_files(folder)  # refuses before anything is written
    with FileLock(folder / ".lock"):  # another launch may end at the same moment: what it has done is read after it
        for torn in (folder / "figures").glob("*.part"):  # what a kill at this point has left
            torn.unlink(missing_ok=True)
        read = read_jobs(folder)
        update_comparisons(folder, read[0])
        sweep = collect(folder, read)
        write(sweep)
    return sweep


def finish(folder: Path, logger: dict[str, Any]) -> None:
    """Rebuild what a sweep's jobs come to, and say where it is.

    Args:
        folder: the sweep's folder.
        logger: the choice in the ``logger`` group; ``kind: wandb`` gets a summary run.
    """
    if not any(folder.glob("*/job.json")):
        return
    sweep = rebuild(folder)
    if logger.get("kind") == "wandb":
        from lightning_sparse.tracking import summary_run

        summary_run(sweep, project=logger["project"], mode=logger["mode"])
    counts = Counter(job.status for job in sweep.members)
    said = [f"{counts['done']} jobs done"]
    said += [f"{counts['failed']} FAILED: see the report"] if counts["failed"] else []
    said += [f"{counts['running']} still running or cut off: launch again"] if counts["running"] else []
    print(", ".join(said))
    print(f"report: {(folder / 'report.html').resolve()}", flush=True)
