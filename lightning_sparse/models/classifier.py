"""The Lightning module that trains a network on images or texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import SparsityError, check_flag, check_share
from lightning_sparse.models.training import OptimizerFactory, Trained


class Classifier(Trained):
    """Train a network on images in [0, 1] with cross-entropy; normalisation is its first layer. Or on texts, without any.

    Args:
        net: maps normalised images (n, channels, height, width), or tokens (n, length), to logits (n, classes).
        mean: mean of each channel in units of [0, 1]; None, with ``std``, gives the net what comes in as it is.
        std: standard deviation of each channel, likewise.
        optimizer: makes the optimizer from the parameters; None is SGD with learning rate 0.1 and momentum 0.9.
        schedule: of the learning rate: ``"cosine"`` (to zero at the end of training) or ``"constant"``.
        warmup: how long the learning rate rises to what the optimizer says: a float in [0, 1) is a share of the training, an
            int is steps, fewer than the training has.
        label_smoothing: share of each training label, in [0, 1), that is given to all classes alike (Szegedy et al. 2016,
            arXiv 1512.00567). Validation, attacks and measurements have whole labels.
        channels_last: whether images and weights of convolutions lie in memory with their channels last, which a GPU may
            like in half precision (``precision=bf16-mixed``); nothing else is different.
        compiled: whether the net runs as ``torch.compile`` makes it during a fit; afterwards it is as it was, and the names
            of its parameters are the same throughout. FLOPs and dead units are then not seen in training.

    Example:
        >>> from lightning_sparse.models import lenet_300_100
        >>> model = Classifier(lenet_300_100((1, 8, 8), 10), mean=[0.3], std=[0.4])
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        optimizer: OptimizerFactory | None = None,
        schedule: str = "cosine",
        warmup: Time = 0.0,
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizer, schedule, warmup)
        check_module(net, "net")
        self.label_smoothing = check_share("label_smoothing", label_smoothing, one_allowed=False)
        self.channels_last = check_flag("channels_last", channels_last)
        self.compiled = check_flag("compiled", compiled)
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net
        if (mean is None) != (std is None):
            raise SparsityError(
                f"mean={mean!r}, std={std!r}: write both, such as mean=[0.5], std=[0.25], or None for both"
            )
        shift, scale = (None, None) if mean is None else (_numbers("mean", mean), _numbers("std", std, above=0.0))
        for name, values in (("mean", shift), ("std", scale)):
            self.register_buffer(name, None if values is None else torch.tensor(values).view(-1, 1, 1))
        if shift and scale and len(shift) != len(scale):
            raise SparsityError(
                f"mean has {len(shift)} channels and std has {len(scale)}: write a number for each channel in both"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [0, 1], shape (n, channels, height, width), or tokens (n, length), to logits (n, classes)."""
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        if self.channels_last and images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(images)
        return logits

    def on_fit_start(self) -> None:
        """Compile, if asked for, at the first batch."""
        if self.compiled:
            self.net.compile()

    def on_fit_end(self) -> None:
        """Be a plain module again, for whatever looks into it."""
        if self.compiled:  # what a user has compiled stays so
            self.net._compiled_call_impl = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute and log the cross-entropy of one batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels, label_smoothing=self.label_smoothing)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy of one batch."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels), prog_bar=True)


def _numbers(name: str, values: Any, above: float = -math.inf) -> list[float]:
    """The values of the channels as a list, or a SparsityError."""
    many = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    listed = list(values) if many and getattr(values, "ndim", 1) == 1 else []
    if not listed or not all(_is_number(value) and above < float(value) < math.inf for value in listed):
        what = "numbers above 0" if above == 0.0 else "numbers"
        raise SparsityError(f"{name}={values!r} is not a list of {what}, one for each channel: write {name}=[0.5]")
    return [float(value) for value in listed]


def _is_number(value: Any) -> bool:
    return isinstance(value, SupportsFloat) and not isinstance(value, bool | str) and getattr(value, "ndim", 0) == 0
