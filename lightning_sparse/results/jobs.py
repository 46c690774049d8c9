"""A job: what lies in its folder, and what of it is done."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from dataclasses import asdict, dataclass, field, fields, replace
from math import isnan
from operator import attrgetter
from pathlib import Path
from typing import Any

from lightning_sparse import __version__
from lightning_sparse.errors import SparsityError
from lightning_sparse.results import records
from lightning_sparse.results.files import write_whole
from lightning_sparse.results.records import Record

NAMING = 2
"""Raised whenever the same training gets another name: a folder of other names cannot be gone on with."""


@dataclass(frozen=True)
class Job:
    """One training and its measurements.

    Its folder holds ``job.json`` (this, and how it stands), ``model.ckpt``, ``records.jsonl``, and for each measurement
    ``<key>.npz``, the numbers of single images.

    Attributes:
        run: its name, which is also its folder's name.
        method: the choice in the ``sparsity`` group.
        data: the choice in the ``data`` group.
        model: the choice in the ``model`` group.
        seed: the training seed.
        sparsity_asked: sparsity asked for; 0 for dense.
        status: ``"running"``, ``"done"`` or ``"failed"``; of one that cannot be read, or never came to be, what that is.
        error: in one line, why it failed.
        seconds: how long it took.
        objective: validation accuracy of the trained model, for sweepers that search; never the test accuracy.
        keys: of the measurements last asked for; older rows stay in ``records.jsonl`` and out of the report.
        training: hash of what trains it but for the seeds: jobs that a mean is taken over have the same.
        asked_at: when a launch last asked for it, in seconds since 1970.
        version: of this library.
        naming: :data:`NAMING` as it was when the job was named.
    """

    run: str
    method: str
    data: str
    model: str
    seed: int
    sparsity_asked: float
    status: str = "running"
    error: str = ""
    seconds: float = 0.0
    objective: float | None = None
    keys: tuple[str, ...] = ()
    training: str = ""
    asked_at: float = 0.0
    version: str = __version__
    naming: int = 1
    folder: Path = field(default=Path(), compare=False)

    @property
    def checkpoint(self) -> Path:
        """The trained model, an ordinary Lightning checkpoint."""
        return self.folder / "model.ckpt"

    @property
    def half_done(self) -> Path:
        """The whole training as it stood at the end of an epoch; gone when the model is trained."""
        return self.folder / "training.ckpt"

    @property
    def ended(self) -> Path:
        """The trained model, before it is known what it is worth."""
        return self.folder / "ended.ckpt"

    @property
    def rows(self) -> Path:
        """The records, one JSON object a line."""
        return self.folder / "records.jsonl"

    def stored(self) -> Job | None:
        """The job as its folder tells it, or None if it never started."""
        return read_job(self.folder / "job.json")

    def save(self, **changes: Any) -> Job:
        """Write ``job.json`` with some fields changed, whole or not at all."""
        job = replace(self, **changes)
        plain = {name: value for name, value in asdict(job).items() if name != "folder"}
        write_whole(self.folder / "job.json", json.dumps(plain, indent=1))
        return job

    def fail(self, error: BaseException, reason: str, seconds: float) -> Job:
        """Leave the failure where the report finds it, and its traceback beside it."""
        (self.folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
        return self.save(status="failed", error=reason, seconds=seconds)

    def current_rows(self) -> list[Record]:
        """The rows of the measurements last asked for; all of them if the job does not say which those are."""
        return [record for record in records.read(self.rows) if not self.keys or record.key in self.keys]

    def measured(self) -> set[str]:
        """Keys of the measurements that are on disk to their last row."""
        return records.closed(self.rows)

    def identity(self) -> dict[str, Any]:
        """What every row of this job carries."""
        return {name: getattr(self, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}

    def record(self, rows: list[Record], key: str, sparsity: float) -> None:
        """Sign the rows of one measurement with this job's name and put them on disk at once."""
        signed = [replace(row, key=key, sparsity=sparsity, **self.identity()) for row in rows]
        records.append(self.rows, signed, closes=key)


def read_job(path: Path) -> Job | None:
    """Read a ``job.json``; None if there is none, or none that can be read."""
    try:
        stored = json.loads(path.read_text())
        known = {name: value for name, value in stored.items() if name in {field.name for field in fields(Job)}}
        return Job(**known | {"keys": tuple(known.get("keys", ())), "folder": path.parent})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def job_files(folder: Path) -> list[Path]:
    """Every ``job.json`` of a sweep.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    if not folder.is_dir():
        raise SparsityError(f"folder={str(folder)!r} does not exist: give the folder of a sweep, such as outputs/quick")
    if found := sorted(folder.glob("*/job.json")):
        return found
    raise SparsityError(
        f"folder={str(folder)!r} holds no job (no */job.json): give the folder that holds the jobs' folders"
    )


def read_jobs(folder: Path) -> tuple[list[Job], list[Job]]:
    """Read the jobs of a sweep: those that count, and those that a newer one supersedes, both by their folders' names.

    Two jobs of one method, level, seed, data and model were trained with different settings: the one asked for last
    counts, because means over both would be the means of nothing. One whose ``job.json`` cannot be read counts, so that it
    is seen: its status is ``"unreadable"``.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    newest: dict[Any, Job] = {}
    superseded = []
    by_folder = attrgetter("folder")
    for job in sorted((read_job(path) or _unreadable(path.parent) for path in job_files(folder)), key=_asked_at):
        level = job.training if isnan(job.sparsity_asked) else job.sparsity_asked  # not known: what is trained says it
        what = (job.data, job.model, job.method, level, job.seed) if job.method else job.folder
        if what in newest:
            superseded.append(newest[what])
        newest[what] = job
    return sorted(newest.values(), key=by_folder), sorted(superseded, key=by_folder)


def _unreadable(folder: Path) -> Job:
    torn = "job.json is torn: the job was killed while it was written"
    status = {"status": "unreadable", "error": torn, "seconds": float("nan"), "version": ""}
    return Job(folder.name, "", "", "", 0, 0.0, folder=folder, **status)  # type: ignore[arg-type]


def _asked_at(job: Job) -> float:
    return job.asked_at or (job.folder / "job.json").stat().st_mtime  # a copy of the folder has other times


def key_of(what: Any) -> str:
    """Eight hexadecimal digits that stand for plain data.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def since(start: float) -> float:
    """Seconds since ``start``, a ``time.monotonic()``, to a hundredth."""
    return round(time.monotonic() - start, 2)
