"""What the engine knows about an optimizer, and how newborn connections start in its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

# Names of running means of the gradient, and of its square, in torch.optim and in optimizers that follow it.
_FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "grad_avg", "prev")
_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf")


@torch.no_grad()
def start_newborns(optimizer: Optimizer, parameter: Tensor, born: Tensor, living: Tensor) -> None:
    """Give the connections of ``parameter`` in the mask ``born`` a clean state; ``living`` marks those that lived before.

    First moments become zero, because they belong to the dead connection. Second moments are raised to the mean of the
    layer's living ones where they are lower: near zero, they would make the first step many times too large. Rprop's step
    sizes are lowered to the median of the living ones that move, because those of the dead have grown unchecked.
    """
    state = optimizer.state.get(parameter, {})
    for name in _FIRST_MOMENTS:
        if _fits(state.get(name), parameter):
            state[name].masked_fill_(born, 0.0)
    for name in _SECOND_MOMENTS:
        if _fits(state.get(name), parameter) and living.any():
            moment = state[name]
            usual = moment[living].float().mean().to(moment.dtype)
            moment.copy_(torch.where(born, moment.clamp(min=usual), moment))
    if _fits(state.get("step_size"), parameter) and _fits(state.get("prev"), parameter):
        sizes, moving = state["step_size"], living & (state["prev"] != 0)
        if moving.any():
            sizes.copy_(torch.where(born, sizes.clamp(max=sizes[moving].median()), sizes))


def forget_history(optimizer: Optimizer) -> None:
    """Reset an LBFGS optimizer, whose remembered directions cross connections that have died since."""
    if isinstance(optimizer, LBFGS):
        optimizer.state.clear()


def found_inf(optimizer: Optimizer) -> Tensor | None:
    """The tensor by which a GradScaler told a fused optimizer whether to skip its last step (1.0: skipped), or None.

    Fused optimizers read it inside ``step()``, so their post-step hooks run in any case. To read it here is to wait for
    the device.
    """
    found: Tensor | None = vars(optimizer).get("found_inf")
    return found


def gradient_scale(optimizer: Optimizer) -> Tensor | None:
    """The factor that is still on the gradients of a fused optimizer under a GradScaler, or None."""
    return getattr(optimizer, "grad_scale", None)


def _fits(moment: object, parameter: Tensor) -> bool:
    return isinstance(moment, Tensor) and moment.shape == parameter.shape


@dataclass
class Hooked:
    """What the engine knows about an optimizer that it is hooked into.

    Attributes:
        mine: the sparse parameters that it trains, by name.
        zero_dead: zeroes their dead connections.
        size: how many parameters it trains in all.
        stepped: None for most. Where a step calls its parent class's, the hooks run twice: whether the first time is over.
    """

    mine: dict[str, nn.Parameter]
    zero_dead: Callable[[], None]
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
