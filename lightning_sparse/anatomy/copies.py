"""Copies of a network."""

from __future__ import annotations

import copy

from torch import nn

from lightning_sparse.errors import SparsityError


def copied(model: nn.Module) -> nn.Module:
    """A copy of a network, without the Trainer that a LightningModule holds.

    Raises:
        SparsityError: if it cannot be copied.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> copied(net).weight is net.weight
        False
    """
    trainer = getattr(model, "_trainer", None)
    try:
        return copy.deepcopy(model, {} if trainer is None else {id(trainer): None})
    except Exception as error:
        raise SparsityError(
            f"model={type(model).__name__} cannot be copied ({' '.join(str(error).split())[:300]}): give the network alone, "
            "such as module.net, after torch.nn.utils.prune.remove(layer, 'weight') where that module has pruned"
        ) from error
