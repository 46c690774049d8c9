"""Time calls in turns: every one once a round, in shuffled order, for a given time."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lightning_sparse.errors import SparsityError

SLOT = 3e-4  # seconds of calls in one timing: thousands of ticks of the clock, and over before most interruptions
WARM_UP = 0.05  # seconds
LEAST, MOST = 5, 2000  # rounds


def check_seconds(seconds: object) -> None:
    """Raise a SparsityError unless it is a time, in seconds, that timing may take.

    Example:
        >>> check_seconds(0)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: seconds=0 is not a number above 0 and up to 3600: write seconds=2
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise SparsityError(f"seconds={seconds!r} is not a number above 0 and up to 3600: write seconds=2")


def race(
    calls: Mapping[str, Callable[[], object]], seconds: float, device: torch.device, *, cpu_time: bool = False
) -> dict[str, list[float]]:
    """Return the seconds that each call took, round by round.

    In every round each is called for a third of a millisecond, or once if that takes longer. What takes less is called once
    more before, which brings its weights back into the cache that the others have filled.

    Args:
        calls: what to time, by name; each is called about ten times before anything counts, once more if it is slow.
        seconds: how long to go on, in wall time; at least five rounds are made, and 2000 at most.
        device: where the work is done; a CUDA device is waited for.
        cpu_time: with one thread on a CPU take CPU time, which other processes disturb less: right for choosing between
            forms. Otherwise it is wall time, as whoever waits for an answer sees it.

    Example:
        >>> calls = {"sum": lambda: sum(range(1000)), "again": lambda: sum(range(1000))}
        >>> times = race(calls, 0.01, torch.device("cpu"))
        >>> sorted(times), 5 <= len(times["sum"]) <= 2000
        (['again', 'sum'], True)
    """
    on_cuda = device.type == "cuda"
    clock = time.process_time if cpu_time and not on_cuda and torch.get_num_threads() == 1 else time.perf_counter

    def now() -> float:
        if on_cuda:
            torch.cuda.synchronize(device)
        return clock()

    def taken(call: Callable[[], object], repeat: int) -> float:
        start = now()
        for _ in range(repeat):
            call()
        return (now() - start) / repeat

    def once(call: Callable[[], object]) -> float:
        """About how long a call takes; these calls are the warm-up too, and the first may compile."""
        call()
        found: list[float] = []
        while len(found) < 10 and sum(found) < WARM_UP:
            found.append(taken(call, 1))
        return max(statistics.median(found), 1e-7)

    repeats = {name: max(1, math.ceil(SLOT / once(call))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    with _without_collections():
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < LEAST or (time.perf_counter() < end and rounds < MOST):
            rounds += 1
            shuffle(order)
            for name in order:
                if repeats[name] > 1:
                    calls[name]()
                times[name].append(taken(calls[name], repeats[name]))
    return times


@contextmanager
def _without_collections() -> Iterator[None]:
    """As timeit does: a collection of garbage in one network's turn is not its own."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def speedup(times: Mapping[str, list[float]], of: str, over: str) -> float:
    """How many times as fast ``of`` is as ``over``: the median of the ratios within a round.

    Example:
        >>> speedup({"csr": [1.0, 2.0, 1.0], "dense": [2.0, 4.0, 9.0]}, "csr", "dense")
        2.0
    """
    return statistics.median(b / max(a, 1e-9) for a, b in zip(times[of], times[over], strict=True))
