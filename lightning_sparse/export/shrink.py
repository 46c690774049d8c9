"""Remove the units and channels that carry nothing, so that a network is smaller and faster on any machine."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_groups import call, channel_groups
from lightning_sparse.anatomy.isolation import as_it_was, untouched
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, check_flag
from lightning_sparse.export.narrow import kept, narrow
from lightning_sparse.export.removable import Removable, removable
from lightning_sparse.export.text_table import text_table


@dataclass(frozen=True)
class ShrunkLayer:
    """A layer before and after.

    Attributes:
        name: of its weight.
        before: shape of the weight.
        after: the same, of the smaller network.
        flops_before: of one forward pass on the example, two a multiply-add.
        flops_after: the same, of the smaller network.
    """

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    flops_before: int
    flops_after: int


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and what is smaller in it.

    Attributes:
        model: an ordinary module of the same class, trainable.
        layers: its layers with a weight, in the order of its parameters.
        left: by a layer's name, how many of its dead units are still there, and why.
    """

    model: nn.Module
    layers: tuple[ShrunkLayer, ...]
    left: Mapping[str, str]

    def table(self) -> str:
        """The layers as a table in text, and what was left."""
        cells = [("layer", "weight before", "after", "MFLOPs before", "after")]
        rows = [*self.layers, _total(self.layers)]
        cells += [
            (r.name, _shape(r.before), _shape(r.after), _mega(r.flops_before), _mega(r.flops_after)) for r in rows
        ]
        return "\n".join([text_table(cells, "<<<>>"), *(f"left: {name}: {why}" for name, why in self.left.items())])


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
        SparsityError: if torch-pruning cannot follow the model, or the outputs of the smaller network are not those of the
            model, to 1e-5 of the largest one (in half precision 1e-2).

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
    return _shrunk(model, example, fold)


def _shrunk(model: nn.Module, example: Any, fold: bool) -> Shrunk:
    groups = channel_groups(model, example)
    with untouched(model):
        examples = [example, *(random_like(example) for _ in range(2))]
        found = removable(model, groups, examples, fold=fold)
        small = without(model, groups, found.gone, found)
        left: dict[str, str] = {}
        if not same_outputs(model, small, examples):
            found.gone, left = _one_by_one(model, groups, found, examples)
            small = without(model, groups, found.gone, found)
            if not same_outputs(model, small, examples):
                raise SparsityError(
                    f"the outputs of {type(model).__name__} without its dead units are not the same: its outputs are random, "
                    "or its forward pass knows the sizes of its layers; leave it as it is"
                )
    for group, gone, dead, why in zip(groups, found.gone, found.dead, found.why, strict=True):
        stays = dead - int(gone.sum())
        if stays > 0:
            name = (group.having("writes") or group.members)[0].name
            left.setdefault(name, f"{stays} of {group.size} channels are dead and stay: {why or 'one has to'}")
    for here, there in zip(model.modules(), small.modules(), strict=True):
        there.training = here.training
        for name, parameter in there.named_parameters(recurse=False):
            known = here._parameters.get(name)  # a bias that constants were folded into may be new
            parameter.requires_grad_(
                known.requires_grad if known is not None else next(here.parameters()).requires_grad
            )
    return Shrunk(small, tuple(_layers(model, small, example)), left)


def without(model: nn.Module, groups: Sequence[ChannelGroup], gone: Sequence[Tensor], found: Removable) -> nn.Module:
    """A copy of the model without the slots that are gone, their constants folded."""
    small = copy.deepcopy(model)
    keep = kept(zip(groups, gone, strict=True), small)
    keep = {
        name: layer
        for name, layer in keep.items()
        if any(s is not None and not s.all() for s in (layer.inputs, layer.outputs))
    }
    for name, layer in keep.items():
        if layer.inputs is not None and name in found.constants:
            fold_into(small.get_submodule(name), torch.where(layer.inputs, 0.0, found.constants[name]))
    narrow(small, keep)
    return small


def fold_into(layer: Any, constants: Tensor) -> None:
    """Add what these inputs, constant and 0 elsewhere, give in a layer to its bias."""
    if not bool(constants.any()) or getattr(layer, "transposed", False):  # of those only zeros go
        return
    ends = ("_ih_l0", "_ih_l0_reverse")[: 1 + layer.bidirectional] if isinstance(layer, nn.LSTM) else ("",)
    for end in ends:
        _fold(layer, f"weight{end}", f"bias{end}", constants)


def _fold(layer: Any, leaf: str, name: str, constants: Tensor) -> None:
    weight: Any = getattr(layer, leaf)
    with torch.no_grad():
        matrix: Tensor = weight.double()
        constants = constants.to(weight.device).double()
        if isinstance(layer, _ConvNd):
            grouped = matrix.flatten(2).sum(2).view(layer.groups, -1, matrix.shape[1])
            added = torch.einsum("goi,gi->go", grouped, constants.view(layer.groups, -1)).flatten()
        else:
            added = matrix @ constants
        if getattr(layer, name) is None:
            layer.register_parameter(name, nn.Parameter(torch.zeros_like(weight[:, 0].flatten(1)[:, 0])))
        bias = getattr(layer, name)
        bias.copy_(bias.double() + added)


def same_outputs(model: nn.Module, small: nn.Module, examples: Sequence[Any]) -> bool:
    """Whether two networks give the same tensors, to 1e-5 of the largest value (1e-2 in half precision)."""
    for example in examples:
        with torch.no_grad():
            try:
                wanted, given = tensors_in(call(model, example)), tensors_in(call(small, example))
            except RuntimeError:  # a view or a split of a size that is written in the forward pass
                return False
        for one, other in zip(wanted, given, strict=True):
            if one.shape != other.shape:
                return False
            rough = one.dtype in (torch.float16, torch.bfloat16)
            scale = one.double().abs().max() if one.numel() else torch.tensor(0.0)
            if not bool(((one.double() - other.double()).abs() <= (1e-2 if rough else 1e-5) * scale).all()):
                return False
    return True


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and mappings."""
    if isinstance(values, Tensor):
        return [values]
    parts = values.values() if isinstance(values, Mapping) else values if isinstance(values, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def random_like(example: Any) -> Any:
    """Noise of the mean and spread of the example; of whole numbers, another order of them."""
    if isinstance(example, Tensor):
        if not example.is_floating_point():
            return example.flatten()[torch.randperm(example.numel(), device=example.device)].view_as(example)
        spread = example.std() if example.numel() > 1 else example.new_ones(())
        return example.mean() + (spread + 1e-3) * torch.randn_like(example)
    if isinstance(example, Mapping):
        return {name: random_like(part) for name, part in example.items()}
    return type(example)(random_like(part) for part in example) if isinstance(example, tuple | list) else example


def _one_by_one(
    model: nn.Module, groups: Sequence[ChannelGroup], found: Removable, examples: Sequence[Any]
) -> tuple[list[Tensor], dict[str, str]]:
    """Take the groups one after another, and leave those that change the outputs."""
    gone = [torch.zeros_like(slots) for slots in found.gone]
    left: dict[str, str] = {}
    for index, slots in enumerate(found.gone):
        if not slots.any():
            continue
        tried = [*gone[:index], slots, *gone[index + 1 :]]
        if same_outputs(model, without(model, groups, tried, found), examples):
            gone = tried
        else:
            name = (groups[index].having("writes") or groups[index].members)[0].name
            left[name] = (
                f"{int(slots.sum())} of {groups[index].size} channels look dead, and without them the outputs change"
            )
    return gone, left


def _layers(model: nn.Module, small: nn.Module, example: Any) -> Iterator[ShrunkLayer]:
    flops = []
    for net in (model, small):
        with as_it_was(net), CallRecorder(net) as recorder:
            net.eval()
            call(net, example)
        counted: Counter[str] = Counter()
        for made in recorder.calls:
            counted[made.name] += made.flops
        flops.append(counted)
    after = dict(small.named_parameters())
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            yield ShrunkLayer(name, tuple(weight.shape), tuple(after[name].shape), flops[0][name], flops[1][name])


def _total(layers: Sequence[ShrunkLayer]) -> ShrunkLayer:
    before, after = (sum(prod(getattr(layer, side)) for layer in layers) for side in ("before", "after"))
    return ShrunkLayer(
        "total", (before,), (after,), sum(r.flops_before for r in layers), sum(r.flops_after for r in layers)
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _mega(flops: int) -> str:
    return f"{flops / 1e6:.3f}"
