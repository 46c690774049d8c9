"""Dead weights that are not zero: counting them, and saying why that may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse.engine.hooks import is_elementwise, is_trainers_own
from lightning_sparse.errors import SparsityError


@torch.no_grad()
def leaks(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the dead weights that are not zero, by the name of their parameter; those that have none are left out.

    Example:
        >>> leaks({"w": torch.tensor([1.0, 2.0, 0.0])}, {"w": torch.tensor([True, False, False])})
        {'w': 1}
    """
    counts = {
        name: int(parameters[name].detach().masked_fill(mask.to(parameters[name].device), 0.0).count_nonzero())
        for name, mask in masks.items()
        if name in parameters
    }
    return {name: count for name, count in counts.items() if count}


def refuse_leaks(
    found: Mapping[str, int], step: int, clean: int, optimizers: Iterable[Optimizer], *, no_gradient: bool
) -> None:
    """Raise a SparsityError about dead weights that are not zero: which, since when, why probably, and what to write.

    Args:
        found: what :func:`leaks` gave.
        step: how many optimizer steps have been seen.
        clean: how many had been seen when the dead were verified to be zero the last time.
        optimizers: those that the engine is hooked into.
        no_gradient: whether others have a gradient, and the first of these parameters has none.
    """
    name, count = next(iter(found.items()))
    others = f" and {sum(found.values()) - count} of {len(found) - 1} more parameters" if len(found) > 1 else ""
    last = f"none was when step {clean} was verified" if clean else "none was when training began"
    steppers = [each for each in optimizers if not is_trainers_own(each)]
    cause = _not_seen(steppers) if step == clean else _NO_GRADIENT if no_gradient else _written(steppers)
    raise SparsityError(f"{count} dead weights of {name!r}{others} are not zero after step {step}; {last}. {cause}")


_NO_GRADIENT = (
    "No gradient has reached it: if it belongs to a moving average or a teacher, give the optimizer only the parameters that "
    "it trains, and the average is masked like the weights that it averages"
)


def _not_seen(optimizers: Iterable[Optimizer]) -> str:
    names = sorted({type(each).__name__ for each in optimizers})
    return (
        f"No step of {', '.join(names)} was seen in the meantime, so another optimizer moves the weights, or code of yours: "
        "return the optimizer that steps from configure_optimizers, or call callback.engine.zero_dead() after your code"
    )


def _written(optimizers: Iterable[Optimizer]) -> str:
    unknown = sorted({type(each).__name__ for each in optimizers if not is_elementwise(each)})
    kept = f"{', '.join(unknown)} may keep a copy of the weights and write it back; or " if unknown else ""
    return (
        f"Probably {kept}code of yours writes weights outside of optimizer.step() (a moving average, clipping, a copy): "
        "call callback.engine.zero_dead() after it"
    )
