"""Model: a classifier around a network, an optimizer and a scheduler that the configs choose."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy


class DigitsLitModule(LightningModule):
    """Trains any network that maps images to logits."""

    def __init__(self, net: nn.Module, optimizer: Callable[..., Any], scheduler: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.val_acc = MulticlassAccuracy(10, average="micro")
        self.test_acc = MulticlassAccuracy(10, average="micro")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Cross-entropy."""
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss and accuracy."""
        x, y = batch
        logits = self(x)
        self.val_acc(logits, y)
        self.log("val/loss", cross_entropy(logits, y))
        self.log("val/acc", self.val_acc)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Accuracy."""
        x, y = batch
        self.test_acc(self(x), y)
        self.log("test/acc", self.test_acc)

    def configure_optimizers(self) -> dict[str, Any]:
        """Give the optimizer the parameters, and the scheduler the optimizer."""
        optimizer = self.make_optimizer(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}
