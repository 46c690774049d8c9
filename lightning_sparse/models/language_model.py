"""The Lightning module that trains a network to foretell the next token of texts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.anatomy.tokens import PAD
from lightning_sparse.engine.times import Time
from lightning_sparse.measure.language import next_tokens
from lightning_sparse.models.training import OptimizerFactory, Trained


class LanguageModel(Trained):
    """Train a network on texts with the cross-entropy of each token given those before it.

    Args:
        net: maps tokens (n, length), 0 being padding, to logits (n, length, tokens): those at a place are of the token after
            it. Also a model of transformers, whose output has ``logits``.
        optimizer: makes the optimizer from the parameters; None is SGD with learning rate 0.1 and momentum 0.9.
        schedule: of the learning rate: ``"cosine"`` (to zero at the end of training) or ``"constant"``.
        warmup: how long the learning rate rises to what the optimizer says: a float in [0, 1) is a share of the training, an
            int is steps, fewer than the training has.

    Example:
        >>> import torch
        >>> from lightning_sparse.models import tiny_gpt
        >>> model = LanguageModel(tiny_gpt(258, length=8))
        >>> model(torch.tensor([[99, 34, 118, 0]])).shape
        torch.Size([1, 4, 258])
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: OptimizerFactory | None = None,
        schedule: str = "cosine",
        warmup: Time = 0.0,
    ) -> None:
        super().__init__(optimizer, schedule, warmup)
        check_module(net, "net")
        self.net = net

    def forward(self, tokens: Tensor) -> Any:
        """Map tokens (n, length) to logits (n, length, tokens)."""
        return self.net(tokens)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute and log the cross-entropy of one batch, in nats a token."""
        logits, targets = next_tokens(self, batch[0])
        loss = _loss(logits, targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss, and the share of tokens whose likeliest is right."""
        logits, targets = next_tokens(self, batch[0])
        there = targets != PAD
        size = int(there.sum())
        loss = _loss(logits, targets)
        right = (logits.argmax(dim=2) == targets)[there]
        self.log("val_loss", loss, batch_size=size)
        self.log("val_accuracy", right.float().mean(), batch_size=size, prog_bar=True)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    # Flat, because on a GPU torch has no deterministic form of the loss of several places at once.
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
