"""Read a sweep's folder: every job, including the failed ones, and all their records."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sparse.results.jobs import Job, read_jobs
from lightning_sparse.results.records import Record, read
from lightning_sparse.results.verdicts import failed_checks, has_failed, verdict_of
from lightning_sparse.tables.frames import frame_of
from lightning_sparse.tables.levels import with_levels
from lightning_sparse.tables.method_names import is_dense
from lightning_sparse.tables.not_started import NOT_STARTED, never_started

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sweep:
    """What a sweep left behind.

    Attributes:
        name: name of the sweep and of its folder.
        folder: the folder.
        frame: one line per record, the fields of :class:`~lightning_sparse.results.records.Record` and its ``chart``.
        members: the jobs. Those that the last launch never reached have the status ``"not started"`` and no folder.
        superseded: folders of jobs that a newer job of the same method, level and seed replaces.
        launches: what the launches did, as :func:`~lightning_sparse.results.launches.counts` counts it.
        missing: sentences about comparisons that were never made.
        unreadable: sentences about files that cannot be read.
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    members: tuple[Job, ...]
    superseded: tuple[str, ...] = ()
    launches: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @cached_property
    def samples(self) -> str:
        """What the networks were measured on, in words."""
        return " and ".join(sorted({job.samples for job in self.members})) or "images"

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """The jobs as a table, one line each: ``folder`` is its name, or its path if it is not in the sweep's folder."""
        import pandas as pd

        columns = [field.name for field in fields(Job)]
        lines = [{name: getattr(job, name) for name in columns} | {"folder": self._place(job)} for job in self.members]
        return pd.DataFrame(lines, columns=columns)

    def _place(self, job: Job) -> str:
        if job.status == NOT_STARTED:
            return ""
        return job.folder.name if job.folder.parent == self.folder else str(job.folder.resolve())

    @cached_property
    def averages(self) -> pd.DataFrame:
        """:func:`~lightning_sparse.tables.averages.over_seeds` of the records, and which are ``compressed``; once."""
        from lightning_sparse.tables.averages import over_seeds

        found = over_seeds(self.frame)
        return found.assign(compressed=found["method"].isin(self.compressed))

    @cached_property
    def compressed(self) -> frozenset[str]:
        """The methods that compress what was trained: their levels are of bits."""
        return frozenset(job.method for job in self.members if job.compressed)

    @property
    def by_bits(self) -> bool:
        """Whether all levels are of bits; where some are, a level is 1 less the bits, and a warning says so."""
        others = {job.method for job in self.members if job.method and not is_dense(job.method)}
        return bool(others) and others <= self.compressed

    @property
    def started(self) -> list[Job]:
        """The jobs that have a folder."""
        return [job for job in self.members if job.status != NOT_STARTED]

    @property
    def sparse_levels(self) -> list[float]:
        """Sparsities asked for, of every job that is not dense."""
        return [job.sparsity_asked for job in self.members if not is_dense(job.method)]


def collect(folder: str | Path, read_before: tuple[list[Job], list[Job]] | None = None) -> Sweep:
    """Read the jobs and the records of a sweep.

    Args:
        folder: the sweep's folder. Each folder in it with a ``job.json`` is a job; ``records.jsonl`` beside them holds the
            rows that were computed when the sweep ended.
        read_before: what :func:`~lightning_sparse.results.jobs.read_jobs` returned for the folder, if already known.

    Raises:
        SparsityError: if the folder does not exist or holds no job.

    Example:
        >>> collect("no/such/sweep")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: folder='no/such/sweep' does not exist: give the folder of a sweep, such as outputs/quick
    """  # noqa: E501
    from lightning_sparse.results.launches import counts
    from lightning_sparse.results.unreadable import of_sweep

    folder = Path(folder)
    jobs, superseded = read_before or read_jobs(folder)
    rows = [row for job in jobs for row in job.current_rows()]
    runs = {job.run for job in jobs}
    together = [row for row in read(folder / "records.jsonl") if row.run in runs]
    jobs, rows = with_levels(jobs, distrust_by_transfer(rows, together) + together)
    members = (*jobs, *never_started(folder, jobs))
    older = tuple(job.folder.name for job in superseded)
    unreadable = tuple(of_sweep(folder, jobs))
    return Sweep(folder.resolve().name, folder, frame_of(rows), members, older, counts(folder), unreadable=unreadable)


def distrust_by_transfer(rows: list[Record], together: list[Record]) -> list[Record]:
    """Add failed checks of transfer, which are made when the sweep has ended, to the verdicts of the jobs' ``rows``.

    Example:
        >>> row = Record("robust_accuracy", 0.4, 100, attack="worst", eps=0.1, run="a", trust="failed: single step, noise")
        >>> check = Record("trust_transfer", 0.03, 100, eps=0.1, run="a", trust="failed: transfer")
        >>> distrust_by_transfer([row], [check])[0].trust
        'failed: single step, noise, transfer'
    """
    checks = [row for row in together if row.metric == "trust_transfer" and has_failed(row.trust)]
    # A number about the whole curve (its eps is None) depends on every eps.
    failed = {(check.run, check.norm, eps) for check in checks for eps in (check.eps, None)}
    return [
        replace(row, trust=verdict_of([*failed_checks([row.trust]), "transfer"]))
        if row.attack == "worst" and (row.run, row.norm, row.eps) in failed
        else row
        for row in rows
    ]


def by_subject(sweep: Sweep) -> dict[str, Sweep]:
    """Split a sweep by data set and model, because a mean over two data sets means nothing.

    Returns:
        ``{"": sweep}`` for one data set and one model, else one sweep per pair, named ``"data, model"``.
    """
    parts = {}
    for data, model in sorted({(job.data, job.model) for job in sweep.members if job.data and job.model}):
        # A job whose data or model is unknown is shown in every part: twice is better than not at all.
        jobs = tuple(
            job for job in sweep.members if (job.data, job.model) == (data, model) or not (job.data and job.model)
        )
        frame = sweep.frame[(sweep.frame["data"] == data) & (sweep.frame["model"] == model)]
        parts[f"{data}, {model}"] = replace(sweep, frame=frame, members=jobs)
    return parts if len(parts) > 1 else {"": sweep}
