"""Checks and curves that several methods share."""

from __future__ import annotations

from itertools import pairwise

from lightning_sparse.engine.schedules import MOST_STAIRS, Curve
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import SparsityError, check_count, check_share


def check_sparsities(lowest: str, **sparsities: float) -> None:
    """Raise unless all are in [0, 1) and none is below the one named ``lowest``."""
    for name, sparsity in sparsities.items():
        check_share(name, sparsity, one_allowed=False)
    low = sparsities[lowest]
    for name, sparsity in sparsities.items():
        if low > sparsity:
            raise SparsityError(f"{lowest}={low} is above {name}={sparsity}: write {lowest}={sparsity} or less")


def check_order(**times: Time) -> None:
    """Raise unless all are times, in this order; a step and a share cannot be compared before the length is known."""
    for name, time in times.items():
        check_time(name, time)
    for (earlier, early), (later, late) in pairwise(times.items()):
        if type(early) is type(late) and early > late:
            raise SparsityError(f"{earlier}={early} is after {later}={late}: write times in order")


def check_trainings(trainings: int) -> None:
    """Raise unless it can be the number of trainings in one fit."""
    if check_count("trainings", trainings, 2, write="2 or more, a dense one and a sparse one") > MOST_STAIRS:
        raise SparsityError(f"trainings={trainings} is more than {MOST_STAIRS}: write {MOST_STAIRS} or less")


def falling_turnover(turnover: float, turnover_until: Time, name: str = "turnover") -> Curve:
    """Return the turnover that starts at ``turnover`` and falls by a cosine to zero at ``turnover_until``."""
    check_time("turnover_until", turnover_until)
    return Curve(check_share("turnover", turnover)).then(turnover_until, 0.0, "cosine", name=name)
