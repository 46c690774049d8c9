"""Dead weights that are not zero: counting them, and saying why that may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse.engine.hooks import is_elementwise
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError


@torch.no_grad()
def leaks(parameters: Mapping[str, Tensor], masks: Masks) -> dict[str, int]:
    """Count the dead weights that are not zero, by the name of their parameter; those that have none are left out.

    Example:
        >>> leaks({"w": torch.tensor([1.0, 2.0, 0.0])}, Masks({"w": torch.tensor([True, False, False])}))
        {'w': 1}
    """
    suspects = [name for name in masks if name in parameters]
    if all(parameters[name].is_cpu for name in suspects):  # a pass of numpy's is enough where there is no leak
        pairs = {name: masks.pair(name, parameters[name]) for name in suspects}
        suspects = [name for name, (view, words) in pairs.items() if (view & ~words).any()]
    weights = [parameters[name].detach() for name in suspects]
    alive = [w.masked_fill(masks[n].to(w.device), 0.0) for n, w in zip(suspects, weights, strict=True)]
    # stacked, so that the host waits for a device once
    counts = torch.stack([each.count_nonzero().to(weights[0].device) for each in alive]).tolist() if alive else []
    return {name: count for name, count in zip(suspects, counts, strict=True) if count}


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
    optimizers = list(optimizers)
    cause = _not_seen(optimizers) if step == clean else _NO_GRADIENT if no_gradient else _written(optimizers)
    raise SparsityError(f"{count} dead weights of {name!r}{others} are not zero after step {step}; {last}. {cause}")


_NO_GRADIENT = (
    "No gradient has reached it: if it belongs to a moving average or a teacher, give the optimizer only the parameters that "
    "it trains, and the average is masked like the weights that it averages"
)


def _not_seen(optimizers: Iterable[Optimizer]) -> str:
    names = sorted({type(each).__name__ for each in optimizers})
    return (
        f"No step of {', '.join(names)} was seen in the meantime, so another optimizer moves the weights, or code of yours: "
        "return the optimizer that steps from configure_optimizers, or call engine.zero_dead() after your code (a "
        "callback's engine is callback.engine)"
    )


def _written(optimizers: Iterable[Optimizer]) -> str:
    unknown = sorted({type(each).__name__ for each in optimizers if not is_elementwise(each)})
    kept = f"{', '.join(unknown)} may keep a copy of the weights and write it back; or " if unknown else ""
    return (
        f"Probably {kept}code of yours writes weights outside of optimizer.step() (a moving average, clipping, a copy): "
        "call engine.zero_dead() after it (a callback's engine is callback.engine)"
    )
