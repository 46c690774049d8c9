"""Time calls side by side: every one once a round, in shuffled order, for a given time."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from lightning_sparse.errors import SparsityError

_SHORTEST = 2e-4  # seconds: what takes less is called several times between two looks at the clock
_FEWEST = 7  # rounds, however long they take


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
    calls: Mapping[str, Callable[[], object]], seconds: float, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Return the seconds that each call took, round by round.

    With one thread on a CPU they are CPU time, which other processes disturb less; otherwise they are wall time.

    Args:
        calls: what to time, by name; each is called twice before anything counts.
        seconds: how long to go on, in wall time; at least seven rounds are made.
        device: where the work is done, None for the CPU; a CUDA device is waited for.

    Example:
        >>> times = race({"sum": lambda: sum(range(1000)), "again": lambda: sum(range(1000))}, 0.01)
        >>> sorted(times), len(times["sum"]) >= 7
        (['again', 'sum'], True)
    """
    on_cuda = device is not None and device.type == "cuda"
    clock = time.perf_counter if on_cuda or torch.get_num_threads() > 1 else time.process_time

    def took(call: Callable[[], object], repeat: int) -> float:
        if on_cuda:
            torch.cuda.synchronize(device)
        start = clock()
        for _ in range(repeat):
            call()
        if on_cuda:
            torch.cuda.synchronize(device)
        return (clock() - start) / repeat

    once = [min(took(call, 1), took(call, 1)) for call in calls.values()]
    repeat = max(1, round(_SHORTEST / max(min(once), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    end = time.perf_counter() + seconds
    while len(times[order[0]]) < _FEWEST or time.perf_counter() < end:
        shuffle(order)
        for name in order:
            times[name].append(took(calls[name], repeat))
    return times


def speedup(times: Mapping[str, list[float]], of: str, over: str) -> float:
    """How many times as fast ``of`` is as ``over``: the median of the ratios within a round.

    Example:
        >>> speedup({"csr": [1.0, 2.0, 1.0], "dense": [2.0, 4.0, 9.0]}, "csr", "dense")
        2.0
    """
    return statistics.median(b / max(a, 1e-9) for a, b in zip(times[of], times[over], strict=True))
