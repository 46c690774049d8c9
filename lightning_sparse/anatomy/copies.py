"""Copies of a network."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from torch import nn

from lightning_sparse.errors import SparsityError, in_short


def copied(model: nn.Module) -> nn.Module:
    """A copy of a network, without the Trainer and the Fabric that a LightningModule holds.

    Raises:
        SparsityError: if it cannot be copied; it names what in it cannot.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> copied(net).weight is net.weight
        False
    """
    links = {id(vars(model)[name]): None for name in ("_trainer", "_fabric") if vars(model).get(name) is not None}
    try:
        found: nn.Module = copy.deepcopy(model, links)
        return found
    except Exception as error:
        where = type(model).__name__
        for name, module in model.named_modules():
            for attribute, value in vars(module).items():
                if attribute not in ("_modules", "_trainer", "_fabric") and not _copies(value):
                    where = ".".join(filter(None, (name, attribute)))
        raise SparsityError(
            f"{where!r} of model={type(model).__name__} cannot be copied ({type(error).__name__}: {in_short(error)}): set "
            "it to None, or give the network alone, such as module.net; where torch.nn.utils.prune has pruned write "
            "torch.nn.utils.prune.remove(layer, 'weight')"
        ) from error


def _copies(value: Any) -> bool:
    with suppress(Exception):
        copy.deepcopy(value)
        return True
    return False
