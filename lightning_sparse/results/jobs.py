"""A job: what its folder holds, and which parts of it are done."""

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
from lightning_sparse.results.fields import wrong_kind
from lightning_sparse.results.files import write_whole
from lightning_sparse.results.records import Record

ASIDE = ".unreadable"
"""What is appended to the name of a file that cannot be read and is made again."""

OUT_OF_REACH = "out of reach"
"""The status of a job whose technique cannot reach the bits asked for; nothing has failed."""

NAMING = 2
"""Raised whenever the same training gets another name: a folder with other names cannot be continued."""


@dataclass(frozen=True)
class Job:
    """One training and its measurements.

    Its folder holds ``job.json`` (these fields), ``model.ckpt``, ``records.jsonl``, and for each measurement ``<key>.npz``
    with the numbers of single images; of a compressed network also ``model.lsc``.

    Attributes:
        run: its name, which is also its folder's name.
        method: the choice in the ``sparsity`` group, of a compressed network that in the ``compression`` group.
        data: the choice in the ``data`` group.
        model: the choice in the ``model`` group.
        seed: the training seed.
        sparsity_asked: sparsity asked for; 0 for dense. Of a compressed network 1 less its bits as a share of dense float32,
            NaN where no bits are asked for.
        status: ``"running"``, ``"done"``, ``"failed"``, ``"unreadable"``, ``"not started"`` or :data:`OUT_OF_REACH`.
        error: why it failed, in one line.
        seconds: how long it took.
        objective: validation accuracy of the trained model, for sweepers that search; never the test accuracy.
        keys: of the measurements last asked for; the report ignores older rows of ``records.jsonl``.
        training: hash of the training's settings except the seeds; jobs that are averaged have the same.
        asked_at: when a launch last asked for it, in seconds since 1970.
        version: of this library.
        naming: :data:`NAMING` as it was when the job was named.
        compressed: whether the trained network is compressed, and its level is one of bits.
        samples: what the data are, ``"images"`` or ``"texts"``.
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
    compressed: bool = False
    samples: str = "images"
    folder: Path = field(default=Path(), compare=False)

    @property
    def checkpoint(self) -> Path:
        """The trained model, an ordinary Lightning checkpoint."""
        return self.folder / "model.ckpt"

    @property
    def content(self) -> Path:
        """The string of bytes that a compressed network is decoded from."""
        return self.folder / "model.lsc"

    @property
    def account(self) -> Path:
        """What the parts of that string take."""
        return self.folder / "model.lsc.json"

    @property
    def half_done(self) -> Path:
        """The state of the training at the end of an epoch; deleted when the model is trained."""
        return self.folder / "training.ckpt"

    @property
    def ended(self) -> Path:
        """The trained model before its objective is known."""
        return self.folder / "ended.ckpt"

    @property
    def rows(self) -> Path:
        """The records, one JSON object per line."""
        return self.folder / "records.jsonl"

    def stored(self) -> Job | None:
        """The job as its folder has it; None if it never started, or if what is there is unreadable or another job's."""
        stored = read_job(self.folder / "job.json")
        return stored if stored and stored.run == self.run else None

    def save(self, **changes: Any) -> Job:
        """Write ``job.json`` with some fields changed, whole or not at all."""
        job = replace(self, **changes)
        plain = {name: value for name, value in asdict(job).items() if name != "folder"}
        write_whole(self.folder / "job.json", json.dumps(plain, indent=1))
        return job

    def fail(self, error: BaseException, reason: str, seconds: float) -> Job:
        """Save the failure for the report, and its traceback in ``traceback.txt``."""
        (self.folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
        return self.save(status="failed", error=reason, seconds=seconds)

    def current_rows(self) -> list[Record]:
        """The rows of the measurements last asked for; all rows if the job has no ``keys``."""
        return [row for row in records.read(self.rows, self.run) if not self.keys or row.key in self.keys]

    def measured(self) -> set[str]:
        """Keys of the measurements whose every row is on disk, and whose arrays were not put aside as unreadable."""
        closed = records.closed(self.rows, self.run)
        return {key for key in closed if not self.lost(f"{key}.npz")}

    def lost(self, name: str) -> bool:
        """Whether a file was put aside as unreadable, and has not been made again."""
        return not (self.folder / name).exists() and any(self.folder.glob(f"{name}{ASIDE}*"))

    def identity(self) -> dict[str, Any]:
        """What every row of this job carries."""
        return {name: getattr(self, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}

    def record(self, rows: list[Record], key: str, sparsity: float) -> None:
        """Add this job's identity to the rows of one measurement and write them to disk at once."""
        signed = [replace(row, key=key, sparsity=sparsity, **self.identity()) for row in rows]
        records.append(self.rows, signed, closes=key)


def read_job(path: Path) -> Job | None:
    """Read a ``job.json``; None if there is none, or none that can be read."""
    try:
        stored = json.loads(path.read_bytes())
        if wrong_kind(stored, Job, finite=("asked_at",)):
            return None
        known = {name: value for name, value in stored.items() if name in {field.name for field in fields(Job)}}
        return Job(**known | {"keys": tuple(known.get("keys", ())), "folder": path.parent})
    except (OSError, ValueError, RecursionError):
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
    """Read the jobs of a sweep: those that count, and those that a newer one supersedes, each sorted by folder.

    Two jobs of the same method, level, seed, data and model were trained with different settings. Their mean would mean
    nothing, so only the one asked for last counts. A job whose ``job.json`` cannot be read counts, as ``"unreadable"``, so
    that it is seen.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    newest: dict[Any, Job] = {}
    superseded = []
    for job in sorted((read_job(path) or _unreadable(path.parent) for path in job_files(folder)), key=_asked_at):
        level = job.training if isnan(job.sparsity_asked) else job.sparsity_asked  # level unknown: go by the training
        what = (job.data, job.model, job.method, level, job.seed) if job.method else job.folder
        if what in newest:
            superseded.append(newest[what])
        newest[what] = job
    return sorted(newest.values(), key=attrgetter("folder")), sorted(superseded, key=attrgetter("folder"))


def _unreadable(folder: Path) -> Job:
    status = {
        "status": "unreadable",
        "error": "job.json cannot be read: launch again, and it is written anew",
        "seconds": float("nan"),
        "version": "",
    }
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
