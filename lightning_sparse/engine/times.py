"""Times in a training: an ``int`` is optimizer steps, a ``float`` a share of the training.

Both count from where the engine begins: in a training that is already under way, shares are shares of the steps that remain.
"""

from __future__ import annotations

from numbers import Integral, Real

from lightning_sparse.errors import SparsityError, check_count

Time = int | float
MOST_STEPS = 10**15


def check_time(name: str, value: Time, *, one_step_likely: bool = False) -> Time:
    """Return ``value`` if it can be a time, else raise a SparsityError.

    A time is an ``int`` >= 0 or a ``float`` in [0, 1]. An integer 1 is refused too unless it is ``one_step_likely``: an
    interval of one step makes sense, but a schedule that ends at step 1 is almost always a mistyped 1.0.

    Example:
        >>> check_time("end", 0.75), check_time("end", 5000)
        (0.75, 5000)
        >>> check_time("end", 1)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: end=1 is optimizer step 1: write 1.0 for the whole training, or 2 or more for a step
    """
    if isinstance(value, Real) and not isinstance(value, bool):  # numpy's numbers could not be loaded from a checkpoint
        value = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparsityError(
            f"{name}={value!r} is not a time: write an int for optimizer steps or a float in [0, 1] for a share of "
            "the training"
        )
    if isinstance(value, int):
        if value < 0:
            raise SparsityError(f"{name}={value} is negative: write a step >= 0, or a float in [0, 1] for a share")
        if value == 1 and not one_step_likely:
            raise SparsityError(
                f"{name}=1 is optimizer step 1: write 1.0 for the whole training, or 2 or more for a step"
            )
    elif not 0.0 <= value <= 1.0:
        steps = int(value) if 1.0 < value < 1e9 else 0
        hint = f"write {steps} for that many optimizer steps" if steps else "write a share such as 0.5"
        if steps == 1 and not one_step_likely:
            hint = "write 1.0 for the whole training, or 2 or more for a step"
        raise SparsityError(f"{name}={value!r} is not a share of the training in [0, 1]: {hint}")
    return value


def check_total(name: str, value: int | None) -> int | None:
    """Return ``value`` if it can be the length of a training in optimizer steps (or None, not known), else raise.

    Example:
        >>> check_total("total_steps", 0)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: total_steps=0 is not an integer of at least 1: write the number of optimizer steps
    """
    if value is not None and check_count(name, value, write="the number of optimizer steps") > MOST_STEPS:
        raise SparsityError(f"{name}={value} is longer than any training: write the number of optimizer steps")
    return value


def to_step(value: Time, total_steps: int | None) -> int:
    """Turn a checked time into an optimizer step, the nearest one to a share of ``total_steps``.

    Raises:
        SparsityError: if ``value`` is a share and ``total_steps`` is None, not known.

    Example:
        >>> to_step(0.75, 1000), to_step(300, None), to_step(0.0, None)
        (750, 300, 0)
    """
    if isinstance(value, int) or value == 0.0:
        return int(value)
    if total_steps is None:
        raise SparsityError(
            f"a share of the training ({value!r}) was asked for, but the length of the training is not known here: "
            "write times as int steps, pass total_steps=, or set the Trainer's max_steps"
        )
    return round(value * total_steps)
