"""The optimizer and the schedule of the modules that train networks here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_sparse.callbacks.methods.lottery_ticket import steps_of_one_training
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import SparsityError, check_choice

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class WarmUp:
    """A factor of the learning rate: it rises to 1 in equal steps, and then stays, or falls to 0 along a cosine.

    An object and no function, so that its numbers are in a checkpoint and a resumed run has those it began with.

    Example:
        >>> factor = WarmUp(2, 6, "cosine")
        >>> [round(factor(step), 2) for step in range(7)]
        [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """

    def __init__(self, steps: int, of: int, schedule: str) -> None:
        self.steps, self.of, self.schedule = steps, of, schedule

    def __call__(self, step: int) -> float:
        """The factor after so many steps."""
        if step < self.steps:
            return (step + 1) / self.steps
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, (step - self.steps) / max(1, self.of - self.steps))
        return 0.5 * (1.0 + math.cos(math.pi * done))


class Trained(LightningModule):
    """A module with an optimizer and, if asked for, a cosine schedule that ends with the training.

    Args:
        optimizer: makes the optimizer from the parameters; None is SGD with learning rate 0.1 and momentum 0.9.
        schedule: of the learning rate: ``"cosine"`` (to zero at the end of training) or ``"constant"``.
        warmup: how long the learning rate rises to what the optimizer says, step by step: a float in [0, 1) is a share of the
            training, an int is steps, fewer than the training has.
    """

    def __init__(self, optimizer: OptimizerFactory | None, schedule: str, warmup: Time) -> None:
        super().__init__()
        if not (optimizer is None or callable(optimizer)):
            raise SparsityError(
                f"optimizer={optimizer!r} is not a function of parameters: write functools.partial(torch.optim.SGD, lr=0.1)"
            )
        self.schedule = check_choice("schedule", schedule, ("cosine", "constant"))
        self.warmup = check_time("warmup", warmup, one_step_likely=True)
        if warmup == 1.0 and isinstance(warmup, float):
            raise SparsityError("warmup=1.0 leaves nothing of the training after it: write a share such as 0.05")
        self._optimizer = optimizer or partial(torch.optim.SGD, lr=0.1, momentum=0.9)

    def configure_optimizers(self) -> Any:
        """Make them."""
        optimizer = self._optimizer(self.parameters())
        if not hasattr(optimizer, "param_groups"):
            raise SparsityError(
                f"optimizer= returned {optimizer!r}, not an optimizer: write functools.partial(torch.optim.SGD, lr=0.1)"
            )
        if self.schedule == "constant" and not self.warmup:
            return optimizer
        steps = steps_of_one_training(self.trainer)
        rates: torch.optim.lr_scheduler.LRScheduler
        if self.warmup:
            risen = self.warmup if isinstance(self.warmup, int) else max(1, round(self.warmup * steps))
            if isinstance(self.warmup, int) and risen >= steps:
                raise SparsityError(
                    f"warmup={risen} is not fewer than the training's {steps} steps: write fewer, or a share such as 0.05"
                )
            rates = torch.optim.lr_scheduler.LambdaLR(optimizer, WarmUp(risen, steps, self.schedule))
        else:
            rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}
