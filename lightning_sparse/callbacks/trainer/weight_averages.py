"""The running averages of a model (SWA, EMA) that callbacks or the module keep have to be as sparse as the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.copies_in_module import CopiesInModule, tensors_of, trained_in

Tensors = dict[str, Tensor]


class WeightAverages:
    """Find the copies of the model that the Trainer's callbacks or the module hold and change while it trains.

    A callback's copy is an attribute that is a module or a dictionary of tensors with the masks' names (after a wrapper's
    ``module.``) and shapes; the module's may be of a part of it (:class:`CopiesInModule`). A copy that exists when training
    starts, which is when this object is made, and never changes is a teacher: it is left alone.
    """

    def __init__(
        self, trainer: Trainer, module: LightningModule, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> None:
        self._trainer, self._module, self._weights, self._masks = trainer, module, weights, masks
        self._in_module = CopiesInModule(module, weights)
        self._at_start = {place: _fingerprint(copy) for place, copy in self._copies()}

    def mask(self) -> None:
        """Zero the dead connections in every average: the mean of what a connection was is not what it is now, nothing."""
        for copy in [*self._changed(self._of_callbacks()), *self._changed(self._of_module())]:
            mask_tensors(copy, self._masks)

    def may_stand_in(self) -> bool:
        """Whether an average may be in the model's place now.

        A callback may put one there at any time, and keep the weights meanwhile. One that the module keeps is there if the
        living weights are equal to it.
        """
        if any(True for _ in self._changed(self._of_callbacks())):
            return True
        return any(self._equals_model(copy) for copy in self._changed(self._of_module()))

    def _changed(self, copies: Iterator[tuple[Any, Tensors]]) -> Iterator[Tensors]:
        for place, copy in copies:
            if self._at_start.get(place) != _fingerprint(copy):
                yield copy

    def _copies(self) -> Iterator[tuple[Any, Tensors]]:
        yield from self._of_callbacks()
        yield from self._of_module()

    def _of_callbacks(self) -> Iterator[tuple[Any, Tensors]]:
        for callback in callbacks_of(self._trainer, Callback):
            for attribute, value in vars(callback).items():
                named = {} if value is self._module else tensors_of(value)
                named = {name.removeprefix("module."): tensor for name, tensor in named.items()}
                if all(name in named and named[name].shape == weight.shape for name, weight in self._weights.items()):
                    yield (id(callback), attribute), {name: named[name] for name in self._weights}

    def _of_module(self) -> Iterator[tuple[Any, Tensors]]:
        for holder, copy in self._in_module.find(trained_in(self._module, self._trainer.optimizers)):
            yield id(holder), copy

    def _equals_model(self, copy: Tensors) -> bool:
        for name, tensor in copy.items():
            weight, living = self._weights[name].detach(), self._masks[name]
            if not torch.equal(tensor.detach().to(weight.device)[living], weight[living]):
                return False
        return True


@torch.no_grad()
def mask_tensors(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Zero the dead connections of named tensors, in place, on any device and of any type."""
    for name, mask in masks.items():
        if name in tensors:
            tensors[name].masked_fill_(~mask.to(tensors[name].device), 0.0)


def _fingerprint(copy: Tensors) -> float:
    return float(sum(tensor.detach().double().sum() for tensor in copy.values()))
