"""The state of a network, tensor by tensor: what is kept in 16 bits, what to the bit, and what cannot be written down."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.errors import SparsityError


def numbers_of(model: nn.Module) -> int:
    """How many floating-point numbers a checkpoint of a model holds."""
    return sum(tensor.numel() for tensor in tensors_of(model).values() if tensor.is_floating_point())


def check_state(model: nn.Module) -> None:
    """Raise a SparsityError if a model's state cannot be written down: it lacks something, or holds what is no number."""
    for name, module in model.named_modules():
        if is_layer(module) and "weight" not in module._parameters:
            where = ".".join(filter(None, ("model", name)))
            raise SparsityError(
                f"'{where}.weight' is computed from other parameters: write {_undone(module).format(where)}, after which the "
                "layer computes the same"
            )
    state = model.state_dict(keep_vars=True)
    held = {id(tensor) for tensor in state.values()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in held:
            raise SparsityError(
                f"{name!r} is not in model.state_dict(): a hook of the model leaves it out; give the network inside"
            )
        if isinstance(parameter, UninitializedParameter):
            raise SparsityError(f"{name!r} has no shape yet: call the model once on a batch")
        if parameter.is_meta or not parameter.is_floating_point():
            raise SparsityError(
                f"{name!r} has no floating-point values ({parameter.dtype}, {parameter.device}): load them first"
            )
        if not bool(parameter.isfinite().all()):
            raise SparsityError(
                f"{name!r} holds numbers that are not finite: train the model again, at a lower learning rate"
            )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise SparsityError(
                f"{name!r} in model.state_dict() is no tensor but a {type(value).__name__}: give the network inside"
            )


def _undone(layer: nn.Module) -> str:
    """What makes a plain parameter of a weight that torch computes from others."""
    if is_parametrized(layer, "weight"):
        return "torch.nn.utils.parametrize.remove_parametrizations({}, 'weight')"
    if "weight_g" in layer._parameters:
        return "torch.nn.utils.remove_weight_norm({})"
    if "weight_mask" in layer._buffers:
        return "torch.nn.utils.prune.remove({}, 'weight')"
    if "weight_orig" in layer._parameters:
        return "torch.nn.utils.remove_spectral_norm({})"
    return "{0}.weight = torch.nn.Parameter({0}.weight.detach())"


def checksum(state: Mapping[str, Tensor]) -> int:
    """A checksum of names and shapes."""
    return zlib.crc32("".join(f"{name}{tuple(tensor.shape)}" for name, tensor in state.items()).encode())


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of the state, each once, by its first name."""
    found = {id(tensor): (name, tensor) for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    return dict(reversed(list(found.values())))


def halves_and_exact(state: Mapping[str, Tensor], coded: Mapping[str, object]) -> tuple[list[Tensor], list[Tensor]]:
    """What is kept in float16, and what is kept to the bit: integers, those in floats too, and what float16 cannot hold."""
    rest = [tensor for name, tensor in state.items() if name not in coded]
    exact = [not tensor.is_floating_point() or _needs_all_bits(tensor.detach()) for tensor in rest]
    return [t for t, e in zip(rest, exact, strict=True) if not e], [t for t, e in zip(rest, exact, strict=True) if e]


def _needs_all_bits(tensor: Tensor) -> bool:
    back = tensor.half().to(tensor.dtype)
    if torch.equal(back, tensor):
        return False
    if not bool(back.isfinite().all()) or torch.equal(tensor.round(), tensor):
        return True
    return float((back - tensor).norm()) > 2e-3 * float(tensor.norm())  # too small for float16


def joined(tensors: Sequence[Tensor]) -> np.ndarray:
    """All numbers in a row, float32."""
    parts = [tensor.detach().to("cpu", torch.float32).reshape(-1).numpy() for tensor in tensors]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor, as they lie in memory."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
