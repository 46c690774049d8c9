"""The copies of a model that other callbacks keep: running averages (SWA, EMA), which have to be as sparse as the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn


@torch.no_grad()
def mask_copies(masks: Mapping[str, Tensor], trainer: Trainer, module: LightningModule) -> None:
    """Zero the dead connections in every copy of ``module`` that a callback of the Trainer holds.

    A copy is an attribute of a callback that is a module, or a dictionary of tensors, with the masks' names (after a
    wrapper's ``module.``) and shapes. The average of what a connection was while it lived is not what it is now: nothing.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for value in vars(callback).values():
            named = {} if value is module else dict(_tensors(value))
            if all(name in named and named[name].shape == mask.shape for name, mask in masks.items()):
                for name, mask in masks.items():
                    named[name].masked_fill_(~mask.to(named[name].device), 0.0)


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    entries = (
        value.named_parameters() if isinstance(value, nn.Module) else value.items() if isinstance(value, dict) else ()
    )
    for name, tensor in entries:
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point():
            yield name.removeprefix("module."), tensor
