"""The running averages of a model that other callbacks keep (SWA, EMA) have to be as sparse as the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of

Tensors = dict[str, Tensor]


class WeightAverages:
    """Find the copies of the model that the Trainer's callbacks hold and change while it trains.

    A copy is an attribute of a callback that is a module or a dictionary of tensors with the masks' names (after a wrapper's
    ``module.``) and shapes. A copy that exists when training starts, which is when this object is made, and never changes is
    a teacher: it is left alone.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, masks: Mapping[str, Tensor]) -> None:
        self._trainer, self._module, self._masks = trainer, module, masks
        self._at_start = {place: self._fingerprint(copy) for place, copy in self._copies()}

    def any(self) -> bool:
        """Whether there are averages now."""
        return any(True for _ in self._changed())

    def mask(self) -> bool:
        """Zero the dead connections in every average: the mean of what a connection was is not what it is now, nothing.

        Returns:
            Whether there were averages.
        """
        changed = list(self._changed())
        for copy in changed:
            mask_tensors(copy, self._masks)
        return bool(changed)

    def _changed(self) -> Iterator[Tensors]:
        for place, copy in self._copies():
            if self._at_start.get(place) != self._fingerprint(copy):
                yield copy

    def _fingerprint(self, copy: Tensors) -> float:
        return float(sum(copy[name].detach().double().sum() for name in self._masks))

    def _copies(self) -> Iterator[tuple[tuple[int, str], Tensors]]:
        for callback in callbacks_of(self._trainer, Callback):
            for attribute, value in vars(callback).items():
                named = {} if value is self._module else dict(_tensors(value))
                if all(name in named and named[name].shape == mask.shape for name, mask in self._masks.items()):
                    yield (id(callback), attribute), named


@torch.no_grad()
def mask_tensors(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Zero the dead connections of named tensors, in place, on any device and of any type."""
    for name, mask in masks.items():
        if name in tensors:
            tensors[name].masked_fill_(~mask.to(tensors[name].device), 0.0)


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    named = dict(value.named_parameters()) if isinstance(value, nn.Module) else value
    for name, tensor in named.items() if isinstance(named, dict) else ():
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point():
            yield name.removeprefix("module."), tensor
