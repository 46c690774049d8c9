"""Read a sweep's folder: every record of every job, and every job, the failed ones included."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.errors import SparsityError
from lightning_sparse.results.jobs import job_files
from lightning_sparse.results.records import Record, read
from lightning_sparse.tables.frames import frame_of
from lightning_sparse.tables.not_started import NOT_STARTED, never_started

if TYPE_CHECKING:
    import pandas as pd

JOB_DEFAULTS: dict[str, Any] = {
    "run": "",
    "method": "",
    "data": "",
    "model": "",
    "seed": 0,
    "sparsity_asked": 0.0,
    "version": "",
    "training": "",
    "status": "unreadable",
    "error": "",
    "seconds": float("nan"),
    "keys": [],
    "folder": "",
}


@dataclass(frozen=True)
class Sweep:
    """What a sweep left behind.

    Attributes:
        name: name of the sweep, which is its folder's name.
        folder: where it lies.
        frame: one line per record, the fields of :class:`~lightning_sparse.results.records.Record` and its ``chart``.
        jobs: one line per job: the fields of its ``job.json``, and ``folder``, its folder's name. Jobs that the last launch
            never came to have a line of status ``"not started"`` and no folder.
        superseded: folders of jobs that a newer job of the same method, level and seed stands for.
        launches: what the launches did, as :func:`~lightning_sparse.results.launches.counts` counts it.
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    jobs: pd.DataFrame
    superseded: tuple[str, ...] = ()
    launches: dict[str, int] = field(default_factory=dict)

    @cached_property
    def averages(self) -> pd.DataFrame:
        """:func:`~lightning_sparse.tables.averages.over_seeds` of the records, computed once for table and figures."""
        from lightning_sparse.tables.averages import over_seeds

        return over_seeds(self.frame)

    @cached_property
    def started(self) -> pd.DataFrame:
        """The jobs that have a folder."""
        return self.jobs[self.jobs["status"] != NOT_STARTED]


def collect(folder: str | Path) -> Sweep:
    """Read the jobs and the records of a sweep.

    Args:
        folder: the sweep's folder. Each of its folders that holds a ``job.json`` is a job; ``records.jsonl`` beside
            them holds the rows that were computed when the sweep ended.

    Raises:
        SparsityError: if the folder does not exist or holds no job.

    Example:
        >>> collect("no/such/sweep")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: folder='no/such/sweep' does not exist: give the folder of a sweep, such as outputs/quick
    """  # noqa: E501
    import pandas as pd

    from lightning_sparse.results.launches import counts

    folder = Path(folder)
    current, superseded = jobs_below(folder)
    jobs = [_read_job(file) for file in current]
    records = []
    for job in jobs:
        rows = read(folder / job["folder"] / "records.jsonl")
        # Of measurements that were asked for with other settings before, the rows stay on disk and out of the means.
        records += [row for row in rows if not job["keys"] or row.key in job["keys"]]
    runs = {job["run"] for job in jobs}
    together = [row for row in read(folder / "records.jsonl") if row.run in runs]
    records = distrust_by_transfer(records, together) + together
    older = tuple(file.parent.name for file in superseded)
    jobs += [JOB_DEFAULTS | job for job in never_started(folder, jobs)]
    return Sweep(folder.resolve().name, folder, frame_of(records), pd.DataFrame(jobs), older, counts(folder))


def jobs_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the jobs of a sweep as :func:`~lightning_sparse.results.jobs.job_files` does.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    if not folder.is_dir():
        raise SparsityError(f"folder={str(folder)!r} does not exist: give the folder of a sweep, such as outputs/quick")
    current, superseded = job_files(folder)
    if not current:
        raise SparsityError(
            f"folder={str(folder)!r} holds no job (no */job.json): give the folder that holds the jobs' folders"
        )
    return current, superseded


def distrust_by_transfer(rows: list[Record], together: list[Record]) -> list[Record]:
    """Add a failed check of transfer, which is made when the sweep has ended, to the verdicts that it is about.

    Example:
        >>> row = Record("robust_accuracy", 0.4, 100, attack="worst", eps=0.1, run="a", trust="failed: noise")
        >>> check = Record("trust_transfer", 0.03, 100, eps=0.1, run="a", trust="failed: transfer")
        >>> distrust_by_transfer([row], [check])[0].trust
        'failed: noise, transfer'
    """
    failed = {
        (row.run, row.norm, row.eps) for row in together if row.metric == "trust_transfer" and "failed" in row.trust
    }

    def judged(row: Record) -> Record:
        # A number about the whole curve is decided by every eps.
        about = {(run, norm) for run, norm, _ in failed} if row.eps is None else failed
        which = (row.run, row.norm) if row.eps is None else (row.run, row.norm, row.eps)
        if row.attack != "worst" or which not in about:
            return row
        before = f"{row.trust}, " if row.trust.startswith("failed") else "failed: "
        return replace(row, trust=before + "transfer")

    return [judged(row) for row in rows]


def by_subject(sweep: Sweep) -> dict[str, Sweep]:
    """Split a sweep by data set and model, because a mean over two data sets is the mean of nothing.

    Returns:
        ``{"": sweep}`` for a sweep over one data set and one model, else one sweep per pair, named ``"data, model"``.
    """
    unknown = (sweep.jobs["data"] == "") | (sweep.jobs["model"] == "")
    pairs = sweep.jobs.loc[~unknown, ["data", "model"]].drop_duplicates().sort_values(["data", "model"])
    parts = {}
    for data, model in pairs.itertuples(index=False):
        # A job that cannot say what it was is shown in every part: twice is better than not at all.
        jobs = sweep.jobs[((sweep.jobs["data"] == data) & (sweep.jobs["model"] == model)) | unknown]
        frame = sweep.frame[(sweep.frame["data"] == data) & (sweep.frame["model"] == model)]
        parts[f"{data}, {model}"] = replace(sweep, frame=frame, jobs=jobs)
    return parts if len(parts) > 1 else {"": sweep}


def _read_job(file: Path) -> dict[str, Any]:
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = {"run": file.parent.name, "error": "job.json is torn: the job was killed while it was written"}
    known = {name: value for name, value in found.items() if name in JOB_DEFAULTS and value is not None}
    return JOB_DEFAULTS | known | {"folder": file.parent.name}
