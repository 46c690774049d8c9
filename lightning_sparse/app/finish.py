"""The end of a sweep: models are compared, the report is written, W&B gets a summary run."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lightning_sparse.app.comparing.compare_jobs import update_comparisons
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import OUT_OF_REACH, job_files, read_jobs

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep


def rebuild(folder: Path) -> Sweep:
    """Compare a sweep's jobs, write its report, and return the sweep as the report shows it.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    from lightning_sparse.report import write
    from lightning_sparse.tables.collect import collect

    job_files(folder)  # refuses before anything is written
    with FileLock(folder / ".lock"):  # another launch may end at the same moment
        for torn in (folder / "figures").glob("*.part"):  # left by a kill
            torn.unlink(missing_ok=True)
        read = read_jobs(folder)
        if all(job.status == "unreadable" for job in read[0]):  # a folder of something else, perhaps
            raise SparsityError(
                f"no job.json in {str(folder)!r} can be read: launch its sweep again, or give another folder"
            )
        update_comparisons(folder, read[0])
        sweep = collect(folder, read)
        for said in sweep.unreadable:
            print(said, file=sys.stderr)
        write(sweep)
    return sweep


def finish(folder: Path, logger: dict[str, Any]) -> None:
    """Rebuild a sweep's report, log its summary run if ``logger`` has ``kind: wandb``, and print how its jobs stand."""
    if not any(folder.glob("*/job.json")):
        return
    sweep = rebuild(folder)
    if logger.get("kind") == "wandb":
        from lightning_sparse.tracking import summary_run

        about = {name: logger.get(name) for name in ("entity", "notes")}
        tags = [str(tag) for tag in logger.get("tags") or []]
        summary_run(sweep, project=logger["project"], mode=logger["mode"], tags=tags, **about)
    counts = Counter(job.status for job in sweep.members)
    said = [f"{counts['done']} jobs done"]
    said += [f"{counts['failed']} FAILED: see the report"] if counts["failed"] else []
    said += [f"{counts[OUT_OF_REACH]} out of reach of their technique: see the report"] if counts[OUT_OF_REACH] else []
    said += [f"{counts['running']} still running or cut off: launch again"] if counts["running"] else []
    print(", ".join(said))
    if sweep.superseded:
        print(
            f"left out: {len(sweep.superseded)} older jobs of the same method, level and seed, trained with other "
            "settings; to have all in one report, name the variants: label=..."
        )
    print(f"report: {(folder / 'report.html').resolve()}", flush=True)
