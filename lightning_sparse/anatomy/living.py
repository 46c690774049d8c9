"""Which connections of a network live, and which other tensors it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.errors import SparsityError


def living_of(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each sparsifiable weight with the mask of its living connections, by name.

    Args:
        model: any module.
        masks: by parameter name, True where a connection lives; sparsifiable weights without one are dense. None takes the
            zeros of the sparsifiable weights as dead.

    Raises:
        SparsityError: if masks do not fit the model, or a dead connection is not zero.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> _ = net.weight.data.copy_(torch.tensor([[0.0, 3.0]]))
        >>> living_of(net)["weight"][1].tolist()
        [[False, True]]
    """
    if masks is None:
        return {name: (weight.detach(), weight.detach() != 0) for name, weight in sparsifiable(model).items()}
    if not masks:
        raise SparsityError("masks={} is empty: give the mask of each sparse weight, or None to take zeros as dead")
    parameters, found = dict(model.named_parameters()), {}
    for name, weight in _without_mask(model, masks).items():
        found[name] = (weight.detach(), torch.ones_like(weight, dtype=torch.bool))
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape or mask.dtype != torch.bool:
            there = list(parameters[name].shape) if name in parameters else "no such parameter"
            raise SparsityError(
                f"masks[{name!r}] is {mask.dtype} of shape {list(mask.shape)}, and the model has {there}: give a boolean "
                "mask of the shape of each sparse weight, under its name in model.named_parameters()"
            )
        weight, alive = parameters[name].detach(), mask.to(parameters[name].device)
        if bool((weight[~alive] != 0).any()):
            raise SparsityError(
                f"{name!r} is not zero at some dead connection: call masks.apply() on the weights first"
            )
        found[name] = (weight, alive)
    return found


def _without_mask(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sparsifiable weights without a mask; none if a layer left out of the masks cannot be sparse."""
    try:
        return {name: weight for name, weight in sparsifiable(model).items() if name not in masks}
    except SparsityError:
        return {}


def rest_of(model: nn.Module, names: Mapping[str, Any]) -> list[Tensor]:
    """Return all tensors in a checkpoint of the model, each once, except the parameters of these names.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        >>> [len(tensor) if tensor.dim() else "count" for tensor in rest_of(net, {"0.weight": ...})]
        [3, 3, 3, 3, 3, 'count']
    """
    taken = {id(parameter) for name, parameter in model.named_parameters() if name in names}
    everything = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    return [tensor.detach() for key, tensor in everything.items() if key not in taken]
