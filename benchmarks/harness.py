"""How everything here is measured.

Every variant runs once per round, in shuffled order. A result is the median, over the rounds, of a ratio of CPU times (one
thread) within a round. A second, identical copy of the reference is timed too: if its ratio to the first is not within 0.97
to 1.03, the machine was too busy for the figures to count.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch

torch.set_num_threads(1)

Times = dict[str, list[float]]


def race(
    variants: Mapping[str, Callable[[], Callable[[], object]]],
    rounds: int,
    repeat: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Seconds of each variant by round.

    Args:
        variants: by name, a function that prepares, untimed, and returns the function to be timed.
        rounds: how often each runs, after one round that is not counted.
        repeat: calls in one timing, for calls that take less than a millisecond.
        clock: returns the time in seconds; CPU time by default.
    """
    times: Times = {name: [] for name in variants}
    order, shuffle = list(variants), random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # so that the collections below look only at what the rounds have made, not at every imported module
    for count in range(rounds + 1):
        shuffle(order)
        gc.collect()
        for name in order:
            run = variants[name]()
            start = clock()
            for _ in range(repeat):
                run()
            if count:
                times[name].append((clock() - start) / repeat)
    gc.unfreeze()
    return times


def ratio(times: Times, of: str, to: str) -> float:
    """Median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))


def milliseconds(times: Times, name: str) -> float:
    """Median time of one variant."""
    return 1e3 * statistics.median(times[name])


class Table:
    """A Markdown table of what was measured, beside what was promised.

    Args:
        title: what it is about.
        noise: ratio of the second copy of the reference to the first, if there was one.
    """

    def __init__(self, title: str, noise: float | None = None) -> None:
        self.noise = noise
        self.lines = [f"### {title}\n"]
        if noise is not None:
            self.lines.append(f"A second copy of the reference: {noise:.3f} of the first.\n")
        self.lines += ["| what | measured | bound | verdict |", "|---|---|---|---|"]

    def add(self, what: str, value: float, bound: float | None = None, unit: str = "", digits: int = 3) -> None:
        """One line; without a bound it is for comparison only."""
        promised, verdict = "", ""
        if bound is not None:
            promised, verdict = f"≤ {bound:g}{unit}", "holds" if value <= bound else "**missed**"
            if self.noise is not None and not 0.97 <= self.noise <= 1.03:
                verdict = "does not count"
        self.lines.append(f"| {what} | {value:.{digits}f}{unit} | {promised} | {verdict} |")

    def show(self) -> None:
        """Print it without waiting for a buffer to fill."""
        print("\n".join(self.lines) + "\n")
        sys.stdout.flush()
