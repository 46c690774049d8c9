"""Which layer feeds which, as far as the autograd graph of a forward pass makes it certain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.layer_calls import LayerCall
from lightning_sparse.anatomy.layers import is_layer, outputs_and_inputs

# Operations that keep units apart: output unit i depends on input unit i alone. Sums are left out, because they may add
# data, which the graph does not show; LayerNorm, because it mixes units; and transposition, because a later reshape would
# then put other units side by side.
_UNITWISE = {
    *("Relu", "LeakyRelu", "Elu", "Celu", "Gelu", "Silu", "Mish", "Softplus", "Hardtanh", "Hardswish", "Hardsigmoid"),
    *("Sigmoid", "Tanh", "LogSigmoid", "Threshold", "Clamp", "Abs", "Pow", "Exp", "Neg", "Mul", "Div"),
    *("NativeDropout", "FusedDropout", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"),
    *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "Mean"),
    *("AdaptiveMaxPool2D", "ConstantPadNd", "UpsampleNearest2D"),
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy"),
}
_LOSS = ""


@dataclass(frozen=True)
class LayerOrder:
    """What is certain about the order of layers.

    Attributes:
        chains: weights of layers, each of which feeds only the next, through operations that keep units apart (activations,
            BatchNorm, dropout, pooling, flattening). A layer whose output is added to another's, or read twice, ends a chain.
        outputs: weights of the layers whose output goes into the loss and into no other layer.
    """

    chains: tuple[tuple[str, ...], ...] = ()
    outputs: tuple[str, ...] = ()


def layer_order(model: nn.Module, calls: Sequence[LayerCall], losses: Sequence[Tensor]) -> LayerOrder:
    """Read from the graphs behind one or more losses which layers feed which.

    Args:
        model: the model.
        calls: its layers' calls, from :class:`~lightning_sparse.anatomy.layer_calls.CallRecorder`.
        losses: all losses of these calls, before or after their backward pass. Without any nothing is certain.

    Example:
        >>> import torch
        >>> from lightning_sparse.anatomy.layer_calls import CallRecorder
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 20), nn.Tanh(), nn.Linear(20, 10))
        >>> with CallRecorder(net) as recorder:
        ...     loss = net(torch.rand(2, 1, 8, 8)).sum()
        >>> layer_order(net, recorder.calls, [loss])
        LayerOrder(chains=(('0.weight', '3.weight', '5.weight'),), outputs=('5.weight',))
    """
    made: dict[Node | None, str] = {call.result: call.name for call in calls if call.result is not None}
    ways = [(call.name, *_sources(call.fed_by, made)) for call in calls]
    ways += [(_LOSS, _sources([loss.grad_fn], made)[0], False) for loss in losses]
    readers: dict[str, set[str]] = defaultdict(set)
    sources: dict[str, set[str]] = defaultdict(set)
    mixed = set() if losses else set(made.values())
    for reader, found, unitwise in ways:
        sources[reader] |= found
        mixed |= (
            set() if unitwise and found else {reader}
        )  # a reader that finds no layer reads data, in this call at least
        for source in found:
            readers[source].add(reader)
    following = {}
    for reader, (source, *others) in ((name, found) for name, found in sources.items() if found):
        if not others and reader not in mixed and readers[source] == {reader} and _fits(model, source, reader):
            following[source] = reader
    return LayerOrder(_chains(following), tuple(name for name, theirs in readers.items() if theirs == {_LOSS}))


def _sources(start: Sequence[Node | None], made: Mapping[Node | None, str]) -> tuple[set[str], bool]:
    """The nearest layers on all paths back from some nodes, and whether it is one path, on which units stay apart."""
    found: set[str] = set()
    unitwise, seen, todo = True, set[Node](), [*start]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in made:
            found.add(made[node])
            continue
        before = [earlier for earlier, _ in node.next_functions if earlier and "AccumulateGrad" not in earlier.name()]
        unitwise = unitwise and len(before) == 1 and node.name().rstrip("0123456789")[: -len("Backward")] in _UNITWISE
        todo.extend(before)
    return found, unitwise


def _fits(model: nn.Module, source: str, reader: str) -> bool:
    """Whether each unit of one layer is one input of the next, or one run of inputs after a map has been flattened."""
    first, second = (model.get_submodule(name.rpartition(".")[0]) for name in (source, reader))
    if not (is_layer(first) and is_layer(second)):
        return False  # a tied weight, under the name that it has elsewhere
    (out, _), (_, into) = outputs_and_inputs(first), outputs_and_inputs(second)
    flattened = isinstance(first, _ConvNd) and not isinstance(second, _ConvNd)
    return into == out or (flattened and into % out == 0)


def _chains(following: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    chains = []
    for name in following:
        if name not in following.values():
            chain = [name]
            while chain[-1] in following:
                chain.append(following[chain[-1]])
            chains.append(tuple(chain))
    return tuple(chains)
