"""What the engine knows of each optimizer that it hangs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer


@dataclass
class Hold:
    """One optimizer.

    Attributes:
        mine: the sparse parameters that it trains, by name.
        keep: zeroes their dead connections.
        size: how many parameters it trains in all.
        stepped: None for most. A step that calls that of its parent class runs the hooks of both: whether the first has run.
    """

    mine: dict[str, nn.Parameter]
    keep: Callable[[], None]
    size: int
    stepped: bool | None = None


def count_of(optimizer: Optimizer) -> int:
    """How many parameters an optimizer trains."""
    return sum([len(group["params"]) for group in optimizer.param_groups])


def unwrap(optimizer: Any) -> Optimizer:
    """The torch optimizer inside Lightning's or Fabric's wrapper, on whose hooks `step` calls."""
    while not {"LightningOptimizer", "_FabricOptimizer"}.isdisjoint(kind.__name__ for kind in type(optimizer).__mro__):
        optimizer = optimizer.optimizer
    return cast(Optimizer, optimizer)
