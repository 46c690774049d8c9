"""What the launches of a sweep did: one line an event, written by whatever process it happened in.

``launches.jsonl`` in the sweep's folder is a log for people and for the progress line. No number of the report comes from
it, and losing it costs nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

LAUNCH = "LIGHTNING_SPARSE_LAUNCH"
"""Environment variable with the launch's id, because workers of any launcher inherit the environment."""

HOW = ("trained", "resumed", "measured", "skipped")
"""What a launch had to do for a job: all of it, the rest of its training, only measurements, or nothing."""


def log_file(folder: Path) -> Path:
    """The log of a sweep."""
    return folder / "launches.jsonl"


def launch(folder: Path, asked: Sequence[Sequence[str]] | None) -> str:
    """Log that a launch begins, and let the jobs' processes know its id.

    Args:
        folder: the sweep's folder.
        asked: the overrides of each job; None if a sweeper decides as it goes.
    """
    os.environ[LAUNCH] = uuid4().hex[:8]
    _append(folder, {"event": "launched", "how": "", "jobs": None if asked is None else len(asked), "asked": asked})
    return os.environ[LAUNCH]


def tell(folder: Path, event: str, number: int, run: str, *, how: str = "", says: str = "") -> None:
    """Log what became of a job.

    Args:
        folder: the sweep's folder.
        event: ``"started"``, ``"waiting"`` (for another process that has it), ``"done"`` or ``"failed"``.
        number: of the job in its launch, from 0.
        run: the job's name.
        how: one of :data:`HOW`.
        says: its numbers, or its error, in a line.
    """
    _append(folder, {"event": event, "number": number, "run": run, "how": how, "says": says})


def read_log(folder: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the events of all launches, in the order of their writing; a torn line is left out.

    Args:
        folder: the sweep's folder.
        start: byte from which to read: where an earlier reading has ended.

    Returns:
        The events, and where the last whole line ends.
    """
    try:
        with log_file(folder).open("rb") as file:
            file.seek(start)
            whole = b"".join(line for line in file if line.endswith(b"\n"))
    except OSError:
        return [], start
    events = []
    for line in whole.decode(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events, start + len(whole)


def counts(folder: Path) -> dict[str, int]:
    """Count what all launches did together.

    Returns:
        ``launches``; how many jobs were ``trained``, ``resumed``, only ``measured``, and ``skipped``, being done before; how
        many ``failed``, and how many were ``failed_before`` and not tried again; and ``cut``, how many were started and never
        ended, for the launch was killed.
    """
    events, _ = read_log(folder)
    done = Counter(event["how"] for event in events if event["event"] == "done")
    failed = Counter("before" if event["how"] == "skipped" else "now" for event in events if event["event"] == "failed")
    began = Counter(event["event"] for event in events)
    cut = began["started"] - (done.total() - done["skipped"]) - failed["now"]
    counted = {"launches": began["launched"]} | {how: done[how] for how in HOW}
    return counted | {"failed": failed["now"], "failed_before": failed["before"], "cut": cut}


def not_started(folder: Path) -> list[list[str]]:
    """The overrides of the jobs that the last launch never came to, nor one before it by the same command."""
    events, _ = read_log(folder)
    last = next((event for event in reversed(events) if event["event"] == "launched"), None)
    if last is None or not last["asked"]:
        return []
    same = {event["launch"] for event in events if event["event"] == "launched" and event["asked"] == last["asked"]}
    came = {event["number"] for event in events if event["launch"] in same and event["event"] != "launched"}
    return [overrides for number, overrides in enumerate(last["asked"]) if number not in came]


def _append(folder: Path, event: dict[str, Any]) -> None:
    line = json.dumps({"launch": os.environ.get(LAUNCH, ""), "at": round(time.time(), 3)} | event) + "\n"
    # One write to the end of the file, so that processes at once do not mix their lines. A full disk costs the log alone.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with log_file(folder).open("ab+", buffering=0) as file:
            if file.tell() and file.seek(-1, os.SEEK_END) is not None and file.read() != b"\n":
                line = "\n" + line  # the last one was torn
            file.write(line.encode())
