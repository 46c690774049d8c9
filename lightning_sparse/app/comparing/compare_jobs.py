"""What is computed from several jobs together, once a sweep has ended: rows that no job could write alone.

Every comparison takes the jobs that are done and gives rows, each signed with the job that it is about.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_sparse import __version__
from lightning_sparse.app.comparing.forgotten_images import forgotten_images, write_forgotten_images
from lightning_sparse.app.comparing.paired_with_dense import dense_agreement, differences
from lightning_sparse.app.comparing.same_images import same_images
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Record


def update_comparisons(folder: Path, jobs: list[Job]) -> None:
    """Write into a sweep's folder what is computed from its jobs together: rows, and what the report shows of images.

    Whole or not at all, so that nothing doubles and nothing lags. What took seconds to minutes is left as it is where no
    file that it was made from has changed.

    Args:
        folder: the sweep's folder.
        jobs: of the sweep; those that are not done are left out.
    """
    path, key = folder / "records.jsonl", _made_from(jobs)
    if key in records.closed(path):
        return
    failed: list[str] = []
    records.write(path, compare_jobs(jobs, failed))
    with _losing_nothing_else("gallery", failed):
        write_forgotten_images(folder, jobs)
    if not failed:
        records.append(path, [], closes=key)


def _made_from(jobs: list[Job]) -> str:
    """A key that changes when a file changes that comparisons read; a launch that measures nothing changes none."""
    files = {
        job.run: [
            (path.name, path.stat().st_mtime_ns, path.stat().st_size)
            for path in (job.checkpoint, job.rows, *(job.folder / f"{key}.npz" for key in job.keys))
            if path.exists()
        ]
        for job in jobs
        if job.status == "done"
    }
    return f"together-{key_of([__version__, files])}"


def compare_jobs(jobs: list[Job], failed: list[str] | None = None) -> list[Record]:
    """Everything that a sweep's report needs beside the jobs' own rows.

    Args:
        jobs: of one sweep; those that are not done are left out.
        failed: where the names of comparisons go that could not be made.
    """
    from lightning_sparse.app.comparing.transferred_attacks import transferred_attacks

    done = [job for job in jobs if job.status == "done"]
    rows: list[Record] = []
    for comparison in (same_images, dense_agreement, differences, forgotten_images, transferred_attacks):
        with _losing_nothing_else(comparison.__name__.replace("_", " "), failed):
            rows += comparison(done)
    return rows


@contextmanager
def _losing_nothing_else(name: str, failed: list[str] | None) -> Iterator[None]:
    """Say what could not be made and go on: it is of no job, so that no job's numbers may be lost to it."""
    try:
        yield
    except Exception as error:
        print(f"{name}: not made, {type(error).__name__}: {error}", file=sys.stderr)
        if failed is not None:
            failed.append(name)
