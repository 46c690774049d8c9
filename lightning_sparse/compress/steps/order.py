"""Which steps go together, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lightning_sparse.compress.steps.deep_compression import DeepCompression
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.errors import SparsityError, as_list, check_share

_ORDER = ("Narrow", "Factorise", "Prune", "Quantise or Share", "Code")


def check_steps(steps: Sequence[Any], bits: float | None) -> list[Step]:
    """The steps one by one, if they make sense together, else a SparsityError.

    Example:
        >>> from lightning_sparse.compress.steps.code import Code
        >>> from lightning_sparse.compress.steps.prune import Prune
        >>> check_steps([Code(), Prune(0.9)], None)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: steps=[Code, Prune] are out of order, because a step needs what is before it: write them as Narrow, Factorise, Prune, Quantise or Share, Code
    """  # noqa: E501
    given = [steps] if isinstance(steps, Step | DeepCompression) else as_list(steps)
    if not given or not all(isinstance(step, Step | DeepCompression) for step in given):
        raise SparsityError(
            f"steps={steps!r:.100} is not a list of steps: write steps=[Prune(0.9), Share(bits=3), Code()]"
        )
    found = [part for step in given for part in (step.steps if isinstance(step, DeepCompression) else (step,))]
    names = ", ".join(type(step).__name__ for step in found)
    for step, after in pairwise(found):
        if step.place == after.place:
            raise SparsityError(
                f"steps=[{names}] hold both {type(step).__name__} and {type(after).__name__}, of which the second would undo "
                "the first: leave one out"
            )
        if step.place > after.place:
            raise SparsityError(
                f"steps=[{names}] are out of order, because a step needs what is before it: write them as {', '.join(_ORDER)}"
            )
    free = [step for step in found if step.free]
    if bits is None and free:
        raise SparsityError(f"{free[0]} leaves {free[0].knob} open: write {free[0].knob}=..., or bits=0.05 to find it")
    if bits is not None:
        if not check_share("bits", bits, one_allowed=False):
            raise SparsityError("bits=0 is no size: write bits=0.05, a share of the dense network in float32")
        if len(free) != 1:
            which = " and ".join(type(step).__name__ for step in free)
            said = f"{which} leave one open each" if free else "no step leaves one open"
            raise SparsityError(
                f"bits={bits} finds the argument of one step, and {said}: write one step without its "
                "argument, such as [Prune(), Share(bits=3), Code()]"
            )
    return found
