"""All comparisons of a sweep's jobs. Each takes the jobs that are done and gives rows, signed with the job they are about."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_sparse import __version__
from lightning_sparse.app.comparing.forgotten_images import forgotten_images, write_forgotten_images
from lightning_sparse.app.comparing.paired_with_dense import dense_agreement, differences
from lightning_sparse.app.comparing.same_images import same_images
from lightning_sparse.app.comparing.steered import steered
from lightning_sparse.results import records
from lightning_sparse.results.arrays import problem
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Record
from lightning_sparse.results.unreadable import put_aside


def update_comparisons(folder: Path, jobs: list[Job]) -> None:
    """Write the comparisons of the jobs that are done, and the images that the report shows, into the sweep's folder.

    All of them are written anew if any file that they are made from has changed.
    """
    path, key = folder / "records.jsonl", _made_from(jobs)
    images = (folder / "forgotten").glob("*.npz")
    unreadable = path.is_dir() or any(line.problem for line in records.lines_of(path))
    if key in records.closed(path) and not unreadable and not any(problem(file, "forgotten") for file in images):
        return
    if path.is_dir():
        put_aside(path)
    failed: list[str] = []
    records.write(path, compare_jobs(jobs, failed))
    with _reporting_failure("gallery", failed):
        write_forgotten_images(folder, jobs)
    if not failed:
        records.append(path, [], closes=key)


def _made_from(jobs: list[Job]) -> str:
    """A key that changes with every file that the comparisons read."""
    files = {
        job.run: [
            (path.name, path.stat().st_mtime_ns, path.stat().st_size)
            for path in (job.checkpoint, job.content, job.rows, *(job.folder / f"{key}.npz" for key in job.keys))
            if path.exists()
        ]
        for job in jobs
        if job.status == "done"
    }
    return f"together-{key_of([__version__, files])}"


def compare_jobs(jobs: list[Job], failed: list[str] | None = None) -> list[Record]:
    """Compare the jobs of a sweep that are done, and append the names of comparisons that raised to ``failed``."""
    from lightning_sparse.app.comparing.transferred_attacks import transferred_attacks

    done = [job for job in jobs if job.status == "done"]
    rows: list[Record] = []
    for comparison in (same_images, dense_agreement, differences, forgotten_images, steered):
        with _reporting_failure(comparison.__name__.replace("_", " "), failed):
            rows += comparison(done)
    with _reporting_failure("transferred attacks", failed):
        rows += transferred_attacks(done, failed)
    return rows


@contextmanager
def _reporting_failure(name: str, failed: list[str] | None) -> Iterator[None]:
    """Print what could not be made and go on, because the jobs' own numbers must be reported all the same."""
    try:
        yield
    except Exception as error:
        print(f"{name}: not made, {type(error).__name__}: {error}", file=sys.stderr)
        if failed is not None:
            failed.append(name)
