"""Remove the units and channels that carry nothing, so that a network is smaller and faster on any machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_groups import channel_groups
from lightning_sparse.anatomy.copies import copied
from lightning_sparse.anatomy.first_tensor import tensors_in
from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, check_flag
from lightning_sparse.export.comparing import difference, run
from lightning_sparse.export.example import cloned, random_like
from lightning_sparse.export.folding import fold_into
from lightning_sparse.export.narrow import kept, narrow
from lightning_sparse.export.noise_in_channels import noise_in
from lightning_sparse.export.removable import Removable, removable
from lightning_sparse.export.shrunk import Shrunk, before_and_after


def shrink(model: nn.Module, example: Any, *, fold: bool = True) -> Shrunk:
    """Remove the units, channels and attention heads that carry nothing; the outputs stay as they are.

    Removed is what is constant, whatever the input (its incoming weights are zero), and what nothing reads (its outgoing
    weights are zero), through Linear layers, convolutions (grouped, depthwise and transposed ones too), BatchNorm, sums,
    concatenations, embeddings and timm's attention. Constants, such as a BatchNorm's shift behind a dead channel, are folded
    into the biases of what reads them. Channels that a sum ties together go only together: train with
    ``granularity="tied_channels"`` to make them die so.

    The inputs and outputs of the network keep their number. What is zero but in no dead unit stays: for the speed of single
    zeros see :func:`~lightning_sparse.export.sparsify`.

    Args:
        model: any module, sparse or not. It is run on the example in eval mode, and left as it was.
        example: an input, a tuple of inputs, or a mapping of them by name.
        fold: whether constants other than 0 may be folded. A reader without a bias is given one.

    Returns:
        A :class:`Shrunk`: its ``model`` is a smaller copy, of the same class and trainable, in the same modes.

    Raises:
        SparsityError: if the model does not run on the example, cannot be copied or is compiled, if torch-pruning cannot
            follow it, or if the outputs of the smaller network are not those of the model, to 1e-5 of the largest (in half
            precision 1e-2), on the example and on noise.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> with torch.no_grad():
        ...     _ = net[0].weight[:4].zero_()
        >>> small = shrink(net, torch.rand(1, 8))
        >>> small.model
        Sequential(
          (0): Linear(in_features=8, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
        >>> print(small.table())
        layer     weight before  after  MFLOPs before  after
        0.weight  6 x 8          2 x 8          0.000  0.000
        2.weight  2 x 6          2 x 2          0.000  0.000
        total     60             20             0.000  0.000
    """
    check_module(model)
    check_flag("fold", fold)
    model = _with_values(model)
    with untouched(model):
        examples, outputs = _examples(model, example)
    groups = channel_groups(model, cloned(example))
    with untouched(model), torch.no_grad():
        found = removable(model, groups, map(cloned, examples), fold=fold)
        gap = partial(_gap, model, groups, found, examples, outputs)
        left: dict[str, str] = {}
        small = without(model, groups, found.gone, found)
        if gap(small, found.gone) > 1:
            found.gone, left = _one_by_one(model, groups, found, gap)
            small = without(model, groups, found.gone, found)
            if gap(small, found.gone) > 1:
                raise SparsityError(
                    f"{type(model).__name__} gives other outputs each time, in eval mode too, so that they cannot be "
                    "compared: give the part of it that does not"
                )
    for group, gone, dead, why in zip(groups, found.gone, found.dead, found.why, strict=True):
        stays = dead - int(gone.sum())
        if stays > 0:
            left.setdefault(_name(group), f"{stays} of {group.size} channels are dead and stay: {why}")
    for here, there in zip(model.modules(), small.modules(), strict=True):
        there.training = here.training
        for name, parameter in there._parameters.items():
            if parameter is not None:  # a bias that constants were folded into is new
                like = here._parameters[name] if here._parameters[name] is not None else here._parameters["weight"]
                parameter.requires_grad_(like.requires_grad)  # type: ignore[union-attr]
    return Shrunk(small, tuple(before_and_after(model, small, example)), left)


def _with_values(model: nn.Module) -> nn.Module:
    """The model itself, without ``torch.compile`` around it; refused if it cannot be looked into."""
    inner = getattr(model, "_orig_mod", model)
    kind = type(inner).__name__
    if is_compiled(inner) or any(getattr(module, "_compiled_call_impl", None) for module in inner.modules()):
        raise SparsityError(f"a part of {kind} is compiled: give the model as it was before it was compiled")
    if any(isinstance(module, torch.jit.ScriptModule) for module in inner.modules()):
        raise SparsityError(f"{kind} is scripted, and cannot be changed: give the module that torch.jit was given")
    for name, parameter in inner.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise SparsityError(
                f"{name!r} of {kind} has no values yet: run the model once, or load its weights, on a real device"
            )
    return inner


def _examples(model: nn.Module, example: Any) -> tuple[list[Any], list[list[Tensor]]]:
    """The example, and noise like it if the model takes that; and what the model gives for each."""
    try:
        outputs = tensors_in(run(model, example))
    except Exception as error:
        raise SparsityError(
            f"{type(model).__name__} does not run on example= ({type(error).__name__}: {error}): give an input, a tuple of "
            "inputs, or a mapping of them by name"
        ) from error
    if not outputs:
        raise SparsityError(
            f"{type(model).__name__} gives no tensors that could be compared: give a module whose outputs are a tensor, or "
            "tensors in lists, tuples, mappings and dataclasses"
        )
    if not all(bool(output.isfinite().any()) for output in outputs if output.numel()):
        raise SparsityError(f"the outputs of {type(model).__name__} on example= are not finite: give another example")
    examples, found = [example], [outputs]
    for _ in range(2):
        noise = random_like(example)
        with suppress(Exception):  # it may take whole numbers or pixels in [0, 1] alone
            outputs = tensors_in(run(model, noise))
            if all(bool(output.isfinite().any()) for output in outputs if output.numel()):
                examples.append(noise)
                found.append(outputs)
    return examples, found


def without(model: nn.Module, groups: Sequence[ChannelGroup], gone: Sequence[Tensor], found: Removable) -> nn.Module:
    """A copy of the model without the slots that are gone, their constants folded."""
    small = copied(model).eval()
    keep = {name: layer for name, layer in kept(zip(groups, gone, strict=True), small).items() if layer.narrower}
    for name, layer in keep.items():
        if layer.inputs is not None and name in found.constants:
            fold_into(small.get_submodule(name), torch.where(layer.inputs, 0.0, found.constants[name]))
    narrow(small, keep)
    return small


def _gap(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    found: Removable,
    examples: Sequence[Any],
    outputs: Sequence[list[Tensor]],
    small: nn.Module,
    gone: Sequence[Tensor],
) -> float:
    """How far the outputs are from the model's, in units of what is allowed; what is gone there may write any noise."""
    try:
        given = [tensors_in(run(small, example)) for example in examples]
        with noise_in(model, groups, gone, found.moved):
            disturbed = tensors_in(run(model, examples[0]))
    except Exception:  # a view or a split of a size that is written in the forward pass
        return math.inf
    gaps = [difference(*pair) for pair in zip(outputs, given, strict=True)]
    return max(*gaps, difference(disturbed, given[0]))


def _one_by_one(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    found: Removable,
    gap: Callable[[nn.Module, Sequence[Tensor]], float],
) -> tuple[list[Tensor], dict[str, str]]:
    """Take the groups one after another, and leave those that change the outputs."""
    gone = [torch.zeros_like(slots) for slots in found.gone]
    left: dict[str, str] = {}
    for index, slots in enumerate(found.gone):
        if not slots.any():
            continue
        tried = [*gone[:index], slots, *gone[index + 1 :]]
        if gap(without(model, groups, tried, found), tried) <= 1:
            gone = tried
        else:
            left[_name(groups[index])] = (
                f"{int(slots.sum())} of {groups[index].size} channels look dead, and without them the outputs change or the "
                "forward pass fails"
            )
    return gone, left


def _name(group: ChannelGroup) -> str:
    return (group.having("writes") or group.members)[0].name
