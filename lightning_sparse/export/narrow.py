"""Remove inputs and outputs of layers, in place: parameters keep their names and identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.attention_heads import is_attention
from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_width import axis_of, find, width
from lightning_sparse.anatomy.modules import check_module, check_tensors
from lightning_sparse.errors import SparsityError


@dataclass
class Kept:
    """Which inputs and outputs of a layer stay, as boolean tensors; None keeps all."""

    inputs: Tensor | None = None
    outputs: Tensor | None = None

    @property
    def narrower(self) -> bool:
        """Whether anything goes."""
        return any(keep is not None and not bool(keep.all()) for keep in (self.inputs, self.outputs))


def kept(groups: Iterable[tuple[ChannelGroup, Tensor]], model: nn.Module) -> dict[str, Kept]:
    """Return what stays of each layer when slots of groups go.

    Args:
        groups: groups, each with a boolean tensor that is True for a slot that goes.
        model: the model of the groups.
    """
    found: dict[str, Kept] = {}
    for group, gone in groups:
        for member in group.members:
            layer = found.setdefault(member.name, Kept())
            side = "inputs" if member.role == "reads" else "outputs"
            if getattr(layer, side) is None:
                setattr(layer, side, torch.ones(width(model, member.name, side), dtype=torch.bool))
            getattr(layer, side)[member.channels[gone[member.slots]]] = False
    return found


def narrow(model: nn.Module, keep: Mapping[str, Kept]) -> dict[str, Any]:
    """Keep only these inputs and outputs, in place.

    Returns:
        For each parameter and buffer that was narrowed, by name, the function that narrows a tensor of its old shape, as an
        optimizer's state has.
    """
    how: dict[str, Any] = {}
    for name, layer in keep.items():
        module: Any = find(model, name)
        if isinstance(module, nn.Parameter):
            how[name] = _Select(axis_of(module), _indices(layer.outputs))
        elif is_attention(module):
            module.num_heads = len(_indices(layer.outputs))
            module.attn_dim = module.num_heads * module.head_dim
        else:
            how |= {f"{name}.{leaf}".lstrip("."): cut for leaf, cut in _cuts(module, layer).items()}
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    with torch.no_grad():
        for name, cut in how.items():
            tensor = parameters[name] if name in parameters else buffers[name]
            _replace(tensor, cut(tensor.data))
    return how


def _replace(tensor: Tensor, values: Tensor) -> None:
    """Give a parameter or buffer other values of another shape; it stays the same object."""
    if tensor.requires_grad:
        # Autograd remembers the shape as long as somebody keeps a graph, and forgets it when the type changes.
        tensor.data = values.to(torch.float64 if values.dtype != torch.float64 else torch.float32)
    tensor.data = values
    tensor.grad = None


def narrow_to(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the layers of a model as narrow as those of a state dict, in place, so that it can be loaded.

    This is how a network that :func:`~lightning_sparse.export.shrink` or the callback :class:`~lightning_sparse.Shrink`
    made is loaded into the class it came from. Values are not copied.

    Args:
        model: a module of the same architecture, as wide or wider.
        tensors: a state dict; what has no counterpart in the model is ignored.

    Raises:
        SparsityError: if a tensor is larger than the model's, or of another number of dimensions.

    Example:
        >>> net, small = nn.Linear(8, 4), nn.Linear(8, 2)
        >>> narrow_to(net, small.state_dict())
        >>> net
        Linear(in_features=8, out_features=2, bias=True)
    """
    check_module(model)
    check_tensors("tensors", tensors)
    mine = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = {name: (mine[name], value.shape) for name, value in tensors.items() if name in mine}
    for name, (tensor, shape) in found.items():
        if len(shape) != tensor.dim() or any(new > old for new, old in zip(shape, tensor.shape, strict=True)):
            raise SparsityError(
                f"{name!r} has shape {list(tensor.shape)} in the model, and {list(shape)} in tensors=: give a model of the "
                "same architecture, as wide as the dense one"
            )
    for tensor, shape in found.values():
        if tensor.shape != shape:
            _replace(tensor, tensor.data[tuple(map(slice, shape))].contiguous())
    for module in model.modules():
        _say_widths(module)


def _say_widths(module: Any) -> None:
    """Set the numbers of inputs and outputs that a layer keeps as attributes, from the shape of its weight."""
    weight = module._parameters.get("weight")
    if isinstance(module, _NormBase):
        known: list[Tensor] = [tensor for tensor in (weight, module.running_mean) if tensor is not None]
        module.num_features = len(known[0]) if known else module.num_features
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.LSTM):
        module.input_size = getattr(module, "weight_ih_l0").shape[1]  # noqa: B009
    elif is_attention(module):
        module.attn_dim = module.proj.weight.shape[1]
        module.num_heads = module.attn_dim // module.head_dim
    elif isinstance(module, nn.Linear) and weight is not None:
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, _ConvNd) and weight is not None:
        first, second = weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels == module.out_channels:
            module.groups = module.in_channels = module.out_channels = first
        elif module.transposed:
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            module.in_channels, module.out_channels = second * module.groups, first


def _indices(keep: Any) -> Tensor:
    found: Tensor = keep.nonzero().flatten()
    return found


@dataclass(frozen=True)
class _Select:
    axis: int
    indices: Tensor

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor.index_select(self.axis, self.indices.to(tensor.device)).contiguous()


@dataclass(frozen=True)
class _SelectInGroups:
    """Of a grouped convolution: rows and columns of each group."""

    rows: Tensor
    columns: Tensor

    def __call__(self, tensor: Tensor) -> Tensor:
        parts = tensor.view(len(self.rows), -1, *tensor.shape[1:])
        kept = [part[rows][:, columns] for part, rows, columns in zip(parts, self.rows, self.columns, strict=True)]
        return torch.cat(kept).contiguous()


@dataclass(frozen=True)
class _Both:
    first: Any
    second: Any

    def __call__(self, tensor: Tensor) -> Tensor:
        cut: Tensor = self.second(self.first(tensor))
        return cut


def _cuts(module: Any, layer: Kept) -> dict[str, Any]:
    """How each tensor of a layer is cut; its attributes are set."""
    if isinstance(module, nn.LSTM):
        assert layer.inputs is not None
        module.input_size = int(layer.inputs.sum())
        return {
            n: _Select(1, _indices(layer.inputs)) for n in module._flat_weights_names if n.startswith("weight_ih_l0")
        }
    vectors = {}
    if layer.outputs is not None:
        indices = _indices(layer.outputs)
        leaves = ("bias", "weight", "running_mean", "running_var")
        if isinstance(module, _NormBase | nn.PReLU):
            vectors = {leaf: _Select(0, indices) for leaf in leaves if getattr(module, leaf, None) is not None}
            setattr(module, "num_features" if isinstance(module, _NormBase) else "num_parameters", len(indices))
            return vectors
        if isinstance(module, nn.Embedding):
            module.embedding_dim = len(indices)
            return {"weight": _Select(1, indices)}
        if module.bias is not None:
            vectors["bias"] = _Select(0, indices)
    if isinstance(module, _ConvNd):
        return vectors | {"weight": _cut_of_conv(module, layer)}
    cuts = []
    for axis, keep, attribute in ((0, layer.outputs, "out_features"), (1, layer.inputs, "in_features")):
        if keep is not None:
            cuts.append(_Select(axis, _indices(keep)))
            setattr(module, attribute, int(keep.sum()))
    return vectors | {"weight": cuts[0] if len(cuts) == 1 else _Both(*cuts)}


def _cut_of_conv(conv: _ConvNd, layer: Kept) -> Any:
    depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.groups > 1
    outputs = torch.ones(conv.out_channels, dtype=torch.bool) if layer.outputs is None else layer.outputs
    inputs = torch.ones(conv.in_channels, dtype=torch.bool) if layer.inputs is None else layer.inputs
    if depthwise:
        conv.in_channels = conv.out_channels = conv.groups = int(outputs.sum())
        return _Select(0, _indices(outputs))
    first, second = (inputs, outputs) if conv.transposed else (outputs, inputs)
    conv.in_channels, conv.out_channels = int(inputs.sum()), int(outputs.sum())
    if conv.groups == 1:
        return _Both(_Select(0, _indices(first)), _Select(1, _indices(second)))
    rows, columns = (torch.stack([_indices(part) for part in kept.view(conv.groups, -1)]) for kept in (first, second))
    return _SelectInGroups(rows, columns)
