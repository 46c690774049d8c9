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


def refuse_leaks(found: Mapping[str, int], when: str, clean: str, cause: str) -> None:
    """Raise a SparsityError about dead weights that are not zero, if there are any.

    Args:
        found: what :func:`leaks` gave.
        when: when they were found.
        clean: when they were zero the last time.
        cause: what has probably moved them, and what to write.
    """
    if found:
        name, count = next(iter(found.items()))
        others = f" and {sum(found.values()) - count} of {len(found) - 1} more parameters" if len(found) > 1 else ""
        raise SparsityError(f"{count} dead weights of {name!r}{others} are not zero {when}; they were {clean}. {cause}")


def likely_cause(optimizers: Iterable[Optimizer], *, stood_still: bool, has_gradient: bool) -> str:
    """What has probably moved dead weights, and what to write.

    Args:
        optimizers: those that the engine is hooked into.
        stood_still: whether no step of theirs was seen in the meantime.
        has_gradient: whether a gradient has reached the parameter, or none has reached any.
    """
    optimizers = [optimizer for optimizer in optimizers if not is_trainers_own(optimizer)]
    names = sorted({type(optimizer).__name__ for optimizer in optimizers})
    if stood_still:
        return (
            f"No step of {', '.join(names)} was seen in the meantime: the weights are moved by an optimizer that is not "
            "among the Trainer's, or by a method other than step(). Return the one that steps from configure_optimizers"
        )
    if not has_gradient:
        return (
            "No gradient has reached it: if it belongs to a moving average or a teacher, give the optimizer only the "
            "parameters that it trains, and the average will be masked as the weights are that it is of"
        )
    unknown = sorted({type(each).__name__ for each in optimizers if not is_elementwise(each)})
    kept = f"{', '.join(unknown)} may keep copies of the weights and write them back; or " if unknown else ""
    return (
        f"{kept}code of yours writes weights outside of optimizer.step() (a moving average, clipping, a copy): let it "
        "write zeros where callback.masks has them, or call callback.engine.zero_dead() after it"
    )
