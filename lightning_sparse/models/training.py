"""The optimizer and the schedule of the modules that train networks here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_sparse.callbacks.methods.lottery_ticket import steps_of_one_training
from lightning_sparse.errors import SparsityError, check_choice

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Trained(LightningModule):
    """A module with an optimizer and, if asked for, a cosine schedule that ends with the training.

    Args:
        optimizer: makes the optimizer from the parameters; None is SGD with learning rate 0.1 and momentum 0.9.
        schedule: of the learning rate: ``"cosine"`` (to zero at the end of training) or ``"constant"``.
    """

    def __init__(self, optimizer: OptimizerFactory | None, schedule: str) -> None:
        super().__init__()
        if not (optimizer is None or callable(optimizer)):
            raise SparsityError(
                f"optimizer={optimizer!r} is not a function of parameters: write functools.partial(torch.optim.SGD, lr=0.1)"
            )
        self.schedule = check_choice("schedule", schedule, ("cosine", "constant"))
        self._optimizer = optimizer or partial(torch.optim.SGD, lr=0.1, momentum=0.9)

    def configure_optimizers(self) -> Any:
        """Make them."""
        optimizer = self._optimizer(self.parameters())
        if not hasattr(optimizer, "param_groups"):
            raise SparsityError(
                f"optimizer= returned {optimizer!r}, not an optimizer: write functools.partial(torch.optim.SGD, lr=0.1)"
            )
        if self.schedule == "constant":
            return optimizer
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps_of_one_training(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
