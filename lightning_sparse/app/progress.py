"""The progress of a launch, read from its log, so that it is the same under every launcher."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.launches import read_log

if TYPE_CHECKING:
    from tqdm import tqdm

LOOK_EVERY = 0.2  # seconds


class Progress:
    """Prints a line for each job that ends, and on a terminal a bar below these lines.

    Args:
        folder: the sweep's folder.
        launch: the launch's id.
        jobs: how many jobs it has; None if unknown.
    """

    def __init__(self, folder: Path, launch: str, jobs: int | None) -> None:
        self._folder, self._launch, self._jobs = folder, launch, jobs
        self._read = 0
        self._running: dict[int, str] = {}
        self._most = 1
        self._ended: Counter[str] = Counter()
        self._worked: list[float] = []
        self._started: dict[int, float] = {}
        self._bar: tqdm[Any] | None = None
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="progress", daemon=True)
        if sys.stdout.isatty():
            from tqdm import tqdm

            form = "{n_fmt}/{total_fmt} jobs |{bar:20}| {elapsed}{postfix}"
            self._bar = tqdm(total=self._jobs, position=0, file=sys.stdout, bar_format=form, dynamic_ncols=True)
        self._thread.start()

    def end(self) -> None:
        """Print what is left to print, and stop."""
        self._stop.set()
        self._thread.join()
        self._look()
        if self._bar is not None:
            self._bar.close()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        events, self._read = read_log(self._folder, self._read)
        for event in events:
            if event["launch"] == self._launch and event["event"] != "launched":
                self._take(event)
        if self._bar is not None:
            self._bar.n = self._ended.total()
            self._bar.set_postfix_str(self.state())

    def _take(self, event: dict[str, Any]) -> None:
        number, run = event["number"], event["run"]
        if event["event"] in ("done", "failed"):
            self._running.pop(number, None)
            self._ended[event["event"]] += 1
            if event["how"] in ("trained", "resumed") and number in self._started:
                self._worked.append(event["at"] - self._started[number])
            of = "" if self._jobs is None else f"/{self._jobs}"
            failed = "FAILED, " if event["event"] == "failed" else ""
            self._print(f"[{self._ended.total()}{of}] {run}: {failed}{event['says']}")
        elif event["event"] == "waiting":
            self._print(f"{run}: {event['says']}")
        else:
            self._running[number], self._started[number] = run, event["at"]
            self._most = max(self._most, len(self._running))

    def state(self) -> str:
        """Say how many jobs are running and failed, and about how long the rest will take."""
        said = [f"{len(self._running)} running"] if self._running else []
        said += [f"{self._ended['failed']} failed"] if self._ended["failed"] else []
        if self._jobs is not None and self._worked and self._ended.total() < self._jobs:
            # From the jobs that had to be trained; those running are taken to be half done.
            left = max(0, self._jobs - self._ended.total() - len(self._running) / 2)
            said.append(f"about {in_words(left * median(self._worked) / self._most)} left")
        return ", ".join(said)

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(" | ".join(part for part in (line, self.state()) if part), flush=True)


def in_words(seconds: float) -> str:
    """A duration for people to read.

    Example:
        >>> in_words(45), in_words(600), in_words(9000)
        ('45 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
