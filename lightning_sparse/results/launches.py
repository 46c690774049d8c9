"""What the launches of a sweep did: one line per event, written by the process it happened in.

``launches.jsonl`` in the sweep's folder is a log for people and for the progress line. No number in the report comes from
it, and losing it costs nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning_sparse.results.fields import wrong_kind

LAUNCH = "LIGHTNING_SPARSE_LAUNCH"
"""Environment variable with the launch's id, because workers of any launcher inherit the environment."""

HOW = ("trained", "resumed", "measured", "skipped")
"""What a launch did for a job: all of it, the rest of its training, only measurements, or nothing."""


def log_file(folder: Path) -> Path:
    """The log of a sweep."""
    return folder / "launches.jsonl"


@dataclass(frozen=True)
class Asked:
    """What is known of a job before it starts: how its :class:`~lightning_sparse.results.jobs.Job` is told from others."""

    run: str
    method: str
    data: str
    model: str
    seed: int
    sparsity_asked: float
    compressed: bool
    overrides: tuple[str, ...]


def launch(folder: Path, asked: Sequence[Asked] | None) -> str:
    """Log that a launch begins, and put its id into the environment; ``asked`` says which jobs, if that is known ahead."""
    os.environ[LAUNCH] = uuid4().hex[:8]
    jobs = None if asked is None else [asdict(job) for job in asked]
    _append(folder, {"event": "launched", "how": "", "jobs": None if jobs is None else len(jobs), "asked": jobs})
    return os.environ[LAUNCH]


def tell(folder: Path, event: str, number: int, run: str, *, how: str = "", says: str = "") -> None:
    """Log what became of a job.

    Args:
        folder: the sweep's folder.
        event: ``"started"``, ``"waiting"`` (another process has the job), ``"done"`` or ``"failed"``.
        number: the job's place in its launch, from 0.
        run: the job's name.
        how: one of :data:`HOW`.
        says: its numbers, or its error, in one line.
    """
    _append(folder, {"event": event, "number": number, "run": run, "how": how, "says": says})


def read_log(folder: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the events of all launches from byte ``start`` on, without torn lines, and where the last whole line ends."""
    try:
        with log_file(folder).open("rb") as file:
            file.seek(start)
            whole = b"".join(line for line in file if line.endswith(b"\n"))
    except OSError:
        return [], start
    return [event for event in map(_event, whole.splitlines()) if event], start + len(whole)


def unreadable_lines(folder: Path) -> list[int]:
    """Numbers of the lines, from 1, that are no event, except those that a kill may have cut."""
    try:
        lines = log_file(folder).read_bytes().split(b"\n")
    except OSError:
        return []
    torn = [line.startswith(b'{"launch') and not line.rstrip().endswith(b"}") for line in lines]
    return [at for at, line in enumerate(lines, 1) if line.strip() and not torn[at - 1] and not _event(line)]


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if there is none, or if it lacks what an event must have."""
    try:
        said = json.loads(line)
        begins = said["event"] == "launched"
        event = {"launch": "", "at": 0.0, "how": "", "run": "", "says": ""} | said
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    kinds: dict[str, Any] = {"event": str, "launch": str, "at": float | int, "how": str, "run": str, "says": str}
    kinds |= {"asked": list | None} if begins else {"number": int}
    right = all(name in event and isinstance(event[name], kind) for name, kind in kinds.items())
    asked = (event["asked"] or []) if right and begins else []
    return event if right and not any(wrong_kind(job, Asked) for job in asked) else None


def counts(folder: Path) -> dict[str, int]:
    """Count what all launches did together.

    Returns:
        ``launches``; how many jobs were ``trained``, ``resumed``, only ``measured``, and ``skipped`` because they were done;
        how many ``failed``, and how many were ``failed_before`` and not tried again; and ``cut``, how many started and have
        not ended.
    """
    events, _ = read_log(folder)
    done = Counter(event["how"] for event in events if event["event"] == "done")
    failed = Counter("before" if event["how"] == "skipped" else "now" for event in events if event["event"] == "failed")
    began = Counter(event["event"] for event in events)
    cut = began["started"] - (done.total() - done["skipped"]) - failed["now"]
    counted = {"launches": began["launched"]} | {how: done[how] for how in HOW}
    return counted | {"failed": failed["now"], "failed_before": failed["before"], "cut": cut}


def launches_in_words(counts: dict[str, int]) -> str:
    """Say what :func:`counts` counted; empty if no launch was logged.

    Example:
        >>> launches_in_words({"launches": 2, "trained": 63, "resumed": 3, "measured": 0, "skipped": 80, "failed": 0})
        '2 launches: 63 jobs trained, 3 resumed, 80 skipped.'
    """
    launches = counts.get("launches", 0)
    if not launches:
        return ""
    wordings = {
        "measured": "only measured",
        "failed_before": "failed before and not tried again",
        "cut": "cut short or still running",
    }
    names = [*HOW, "failed", "failed_before", "cut"]
    did = [f"{counts[name]} {wordings.get(name, name)}" for name in names if counts.get(name, 0) > 0]
    if did:
        first, _, rest = did[0].partition(" ")
        did[0] = f"{first} {'job' if first == '1' else 'jobs'} {rest}"
    return f"{launches} {'launch' if launches == 1 else 'launches'}: {', '.join(did) or 'nothing done yet'}."


def not_started(folder: Path) -> list[Asked]:
    """The jobs that neither the last launch nor an earlier one of the same command ever reached, as they were asked for."""
    events, _ = read_log(folder)
    last = next((event for event in reversed(events) if event["event"] == "launched"), None)
    if last is None or not last["asked"]:
        return []
    began = [event for event in events if event["event"] == "launched"]
    same = {event["launch"] for event in began if _runs(event) == _runs(last)}
    came = {event["number"] for event in events if event["launch"] in same and event["event"] != "launched"}
    missing = [job for number, job in enumerate(last["asked"]) if number not in came]
    return [Asked(**{each.name: job[each.name] for each in fields(Asked)}) for job in missing]


def _runs(launched: dict[str, Any]) -> list[str]:
    return [job["run"] for job in launched["asked"] or ()]


def _append(folder: Path, event: dict[str, Any]) -> None:
    line = json.dumps({"launch": os.environ.get(LAUNCH, ""), "at": round(time.time(), 3)} | event) + "\n"
    # One write, so that processes that write at the same time do not mix their lines. A full disk costs only the log.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with log_file(folder).open("ab+", buffering=0) as file:
            if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read() != b"\n":
                line = "\n" + line  # the last line was torn
            file.write(line.encode())
