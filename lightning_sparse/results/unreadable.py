"""Files of a sweep that cannot be read: named in a report, and put aside by the launch that makes them again.

Whoever reads a sweep skips what cannot be read. Here it is found, so that it can be named.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_sparse.results import launches, records
from lightning_sparse.results.arrays import kind_of, problem
from lightning_sparse.results.jobs import ASIDE, Job

MEASURE, TRAIN, COMPRESS = "measure it again", "train again", "compress it again"

_THEN = {
    MEASURE: "what it lacks is measured again",
    TRAIN: "the training starts again",
    COMPRESS: "the trained network is compressed again",
}


@dataclass(frozen=True)
class Unreadable:
    """A file, or some lines of it.

    Attributes:
        path: of the file.
        why: it cannot be read.
        to: what a launch does about it.
        lines: their numbers, from 1; none if it is the whole file.
    """

    path: Path
    why: str
    to: str
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(map(str, self.lines[:9])) + (" ..." if len(self.lines) > 9 else "")
        where = f"line{'s' * (len(self.lines) > 1)} {numbers} of {self.path.name}" if self.lines else self.path.name
        return f"{where} in {self.path.parent.name} cannot be read ({self.why})"


def of_sweep(folder: Path, jobs: Sequence[Job]) -> list[str]:
    """Name what cannot be read of a sweep's jobs and of its log, in sentences."""
    said = [f"{found} and is left out: launch again to {found.to}." for job in jobs for found in of_job(job)]
    said += [
        f"{job.rows.name} in {job.run} lacks {', '.join(lacks)}: launch again."
        for job in jobs
        if (lacks := _lacks(job))
    ]
    lines = tuple(launches.unreadable_lines(folder))
    if lines:
        said.append(
            f"{Unreadable(launches.log_file(folder), 'no event', '', lines)}: the launches are counted without it."
        )
    return said


def _lacks(job: Job) -> list[str]:
    """Keys of measurements that a done job has no row of, as if the end of its file were lost; without any, it is a hole."""
    lines = records.lines_of(job.rows, job.run)
    had = {line.record.key if line.record else line.closes for line in lines if not line.problem}
    whole = had and job.status == "done" and not any(line.problem for line in lines)
    return [key for key in job.keys if key not in had] if whole else []


def of_job(job: Job) -> list[Unreadable]:
    """Find what cannot be read in the folder of a job."""
    found = []
    lines = records.lines_of(job.rows, job.run)
    bad = [line for line in lines if line.problem and not line.torn]
    # What a kill cuts is measured again by the next launch, whose rows follow.
    bad += [line for line in lines[-1:] if line.torn and job.status == "done"]
    if bad:
        found.append(Unreadable(job.rows, bad[0].problem, MEASURE, tuple(line.number for line in bad if line.number)))
    for key in job.keys or sorted(records.closed(job.rows)):
        path = job.folder / f"{key}.npz"
        if path.exists() and (why := problem(path, kind_of(key))):
            found.append(Unreadable(path, why, MEASURE))
    for path in (job.checkpoint, job.half_done, *([] if job.checkpoint.exists() else [job.ended])):
        if path.exists() and (why := _no_checkpoint(path)):
            found.append(Unreadable(path, why, TRAIN))
    if job.content.exists() and (why := _no_content(job.content)):
        found.append(Unreadable(job.content, why, COMPRESS))
    return found


def _no_content(path: Path) -> str:
    """Why a file cannot be a compressed network, by its first bytes and its checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    whole = content[:4] == b"LSC1" and content[4:8] == struct.pack("<I", zlib.crc32(content[8:]))
    return "" if whole else "no compressed network, or a damaged one"


def _no_checkpoint(path: Path) -> str:
    """Why a file cannot be a checkpoint, by its outline alone, because it may be large."""
    try:
        with zipfile.ZipFile(path) as file:
            return "" if any(name.endswith("data.pkl") for name in file.namelist()) else "no checkpoint"
    except OSError as error:
        return error.strerror or str(error)
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "no checkpoint, or truncated"


def make_room(job: Job) -> None:
    """Put aside what cannot be read in a job's folder, and say so, so that this launch makes it again.

    Of the rows stay those of measurements that are whole. The caller has the job's lock.
    """
    json = job.folder / "job.json"
    if json.exists() and job.stored() is None:
        say(Unreadable(json, "not this job's", ""), put_aside(json), "it is written anew")
    for found in of_job(job):
        then = _THEN[found.to]
        say(found, put_aside(found.path), then)
    _keep_what_is_measured(job)


def say(found: Unreadable, aside: Path, then: str) -> None:
    """Print what was put aside."""
    print(f"{found}: kept as {aside.name}, {then}", file=sys.stderr, flush=True)


def put_aside(path: Path) -> Path:
    """Rename a file, or a folder in its place, so that another can be written; nothing is deleted."""
    aside, count = path.with_name(path.name + ASIDE), 1
    while aside.exists():
        aside, count = path.with_name(f"{path.name}{ASIDE}-{count}"), count + 1
    os.replace(path, aside)
    return aside


def _keep_what_is_measured(job: Job) -> None:
    """Write the rows again that were put aside, or of which some are to be measured again because their arrays were."""
    aside = sorted(job.folder.glob(f"{job.rows.name}{ASIDE}*"), key=lambda path: path.stat().st_mtime_ns)
    rows = aside[-1] if aside and not job.rows.exists() else job.rows
    lines, closed = records.lines_of(rows, job.run), records.closed(rows, job.run)
    lost = {key for key in closed if job.lost(f"{key}.npz")}
    if rows == job.rows and not lost:
        return
    kept = [line.text for line in lines if (line.record.key if line.record else line.closes) in closed - lost]
    if rows == job.rows:
        put_aside(rows)
    part = job.rows.with_name(f"{job.rows.name}.part")
    part.write_bytes(b"".join(line + b"\n" for line in kept))
    os.replace(part, job.rows)
