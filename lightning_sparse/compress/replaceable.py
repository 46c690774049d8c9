"""Which layers may be replaced by others, and why the rest has to stay as it is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.anatomy.parameters import names_of

_REPLACED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # exactly: a subclass may do anything with its weight


def layers_of(model: nn.Module) -> dict[str, Any]:
    """The layers that the weights of a model are counted in, by name, each once, in the order of its modules.

    Example:
        >>> list(layers_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 10))))
        ['0', '2']
    """
    return {name: module for name, module in model.named_modules() if is_layer(module)}


def reasons_to_stay(model: nn.Module, names: Collection[str]) -> dict[str, str]:
    """Why layers have to stay as they are, by name; those that may be replaced are missing.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 3))
        >>> reasons_to_stay(net, ["0", "1"])
        {'0': 'its channels are in 8 groups'}
    """
    owners: dict[str, list[str]] = {}
    for name, own in names_of(model).items():
        owners.setdefault(own, []).append(name)
    shared = {name for together in owners.values() if len(together) > 1 for name in together}
    layers, found = layers_of(model), {}
    seldom = {id(child) for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer) for child in m.children()}
    for name in names:
        reason = _reason(layers[name])
        if not name:
            reason = reason or "it is the whole model: write nn.Sequential(layer)"
        elif id(layers[name]) in seldom:
            reason = (
                reason or "its weight is read by nn.TransformerEncoderLayer, which calls the layer only in training"
            )
        elif f"{name}.weight" in shared and _has_other_owner(model, layers[name]):
            reason = reason or "its weight is tied to that of another module"
        if reason:
            found[name] = reason
    return found


def _reason(layer: Any) -> str:
    if type(layer) not in _REPLACED:
        return f"{type(layer).__name__} is none of Linear, Conv1d, Conv2d and Conv3d"
    if type(layer._parameters.get("weight")) is not nn.Parameter:
        return "its weight is computed from others, or no plain parameter"
    if not layer.weight.is_floating_point():
        return f"its weight holds {layer.weight.dtype}"
    if getattr(layer, "groups", 1) != 1:
        return f"its channels are in {layer.groups} groups"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or "forward" in vars(layer):
        return "it has hooks, or a forward of its own"
    return ""


def _has_other_owner(model: nn.Module, layer: nn.Module) -> bool:
    return any(layer.weight is p for m in model.modules() if m is not layer for p in m._parameters.values())
