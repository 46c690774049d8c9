"""Which channels of which layers go together: added up, concatenated, normalised, or read by the next layer."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.attention_heads import head_groups, is_attention
from lightning_sparse.anatomy.channel_group import ChannelGroup, Member, Role
from lightning_sparse.anatomy.channel_width import width
from lightning_sparse.anatomy.first_tensor import tensors_in
from lightning_sparse.anatomy.isolation import as_it_was
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need


def is_depthwise(module: Any) -> bool:
    """Whether it is a convolution with a kernel of its own for each channel."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def call(model: nn.Module, example: Any) -> Any:
    """Run a model on an example: a mapping gives its arguments by name, a tuple or a list in order."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple | list) else model(example)


def channel_groups(model: nn.Module, example: Any, forward: Callable[[Any, Any], Any] = call) -> list[ChannelGroup]:
    """Return the groups of channels that can only be removed together.

    torch-pruning follows one forward pass through its autograd graph: Fang et al. 2023, "DepGraph" (arXiv 2301.12900).
    What it does not know it takes for elementwise, so whoever removes channels has to compare the outputs.

    Args:
        model: any module; it is run once, in eval mode, and left as it was.
        example: an input, a tuple of inputs, or a mapping of them by name; or whatever ``forward`` takes.
        forward: how the model is run on the example: ``forward(model, example)`` gives its outputs, or a loss.

    Raises:
        SparsityError: if the model cannot be followed.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> group, outputs = channel_groups(net, torch.rand(1, 1, 4, 4))
        >>> [(member.name, member.role, len(member.channels)) for member in group.members]
        [('0', 'writes', 4), ('1', 'each', 4), ('4', 'reads', 16)]
        >>> outputs.obstacle
        'nothing in the network reads it: it is an output'
    """
    pruning = need("torch_pruning")
    with as_it_was(model), _hooks_as_they_were(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.eval()
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # it follows gradients, also through frozen layers
        try:
            graph = pruning.DependencyGraph().build_dependency(
                model, example, forward_fn=forward, output_transform=_followed, verbose=False
            )
            found = list(_all_groups(graph))
        except Exception as error:
            raise SparsityError(
                f"torch-pruning could not follow the channels of {type(model).__name__}{_near(model, error)} "
                f"({type(error).__name__}: {error}): give a child of the model that it can follow"
            ) from error
    # torch-pruning takes the product of queries and keys for elementwise.
    heads, attentions = list(head_groups(model)), [f"{n}.qkv" for n, m in model.named_modules() if is_attention(m)]
    order = {id(module): index for index, module in enumerate(model.modules())}
    found.sort(key=lambda pair: order.get(id(pair[0]), 0))  # it goes from the output to the input
    groups = [
        _lost(model, root, items) if isinstance(items, Exception) else _group(model, graph, items)
        for root, items in found
    ]
    others = [group for group in groups if not any(m.name in attentions and m.role != "reads" for m in group.members)]
    return _apart(others) + heads


def _followed(outputs: Any) -> list[Any]:
    """The outputs that depend on a parameter."""
    return [output for output in tensors_in(outputs) if output.grad_fn is not None]


def _all_groups(graph: Any) -> Iterator[tuple[Any, Any]]:
    """Its ``get_all_groups``, with the exception in place of a group that it cannot follow."""
    done: set[int] = set()
    steps = _Countdown()
    for node in graph.module2node.values():
        node.dependencies = _Counted(node.dependencies, steps)
    for root in list(graph.module2node):
        if isinstance(root, _ROOTS) and id(root) not in done:
            pruner = graph.get_pruner_of_module(root)
            steps.left = 50 * len(graph.module2node)  # DenseNet needs 3 a node
            try:
                channels = list(range(pruner.get_out_channels(root)))
                items = graph.get_pruning_group(root, pruner.prune_out_channels, channels)
            except Exception as error:
                if isinstance(root, _WRITES):
                    yield root, error
                continue
            done |= {id(item.dep.target.module) for item in items if graph.is_out_channel_pruning_fn(item.dep.handler)}
            yield root, items


@dataclass
class _Countdown:
    """Steps left to a search."""

    left: int = 0


class _Counted(list[Any]):
    """What hangs on a node, for a search that ends where torch-pruning would go in circles for ever."""

    def __init__(self, dependencies: Any, steps: _Countdown) -> None:
        super().__init__(dependencies)
        self.steps = steps

    def __iter__(self) -> Iterator[Any]:
        self.steps.left -= 1
        if self.steps.left < 0:
            raise RecursionError("it goes in circles")
        return super().__iter__()


def _lost(model: nn.Module, root: Any, error: Exception) -> ChannelGroup:
    name = next(name for name, module in model.named_modules() if module is root)
    every = torch.arange(width(model, name, "outputs"))
    reason = f"torch-pruning cannot follow what {name!r} writes ({type(error).__name__}: {error})"
    return ChannelGroup(len(every), (Member(name, "writes", every, every),), reason)


def _near(model: nn.Module, error: Exception) -> str:
    """The layer whose output torch-pruning was following when it failed, in words."""
    names = {id(module): name for name, module in model.named_modules() if name}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        nodes = [value for value in frame.f_locals.values() if hasattr(value, "grad_fn") and hasattr(value, "inputs")]
        seen: set[int] = set()
        while nodes:
            node = nodes.pop(0)
            if id(node.module) in names:
                return f" behind {names[id(node.module)]!r}"
            if id(node) not in seen:
                nodes += node.inputs
            seen.add(id(node))
    return ""


_ROOTS = (_ConvNd, nn.Linear, nn.Embedding, nn.LSTM)
_WRITES = (_ConvNd, nn.Linear, nn.Embedding)
_READS = (_ConvNd, nn.Linear, nn.LSTM)
_EACH = (_NormBase, nn.PReLU, nn.Parameter)


def _group(model: nn.Module, graph: Any, items: Any) -> ChannelGroup:
    names = {id(module): name for name, module in model.named_modules()}
    names |= {id(parameter): name for name, parameter in model.named_parameters()}
    shared = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    found: dict[tuple[str, Role], list[tuple[int, int]]] = {}
    obstacles: list[str] = []
    for item in items:
        module, out = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
        if id(module) not in names:
            if type(module).__name__ == "_OutputOp":
                obstacles.append("the network gives it out")
            continue  # an operation without weights
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            continue  # one slope for all channels
        name, role = names[id(module)], _role(module, out)
        if role is None:
            obstacles.append(f"{name!r} ({type(module).__name__}) mixes its channels")
            continue
        kept = [] if isinstance(module, nn.Parameter) else list(module.parameters(recurse=False))
        if any(shared[id(p)] > 1 for p in kept):
            obstacles.append(f"{name!r} shares a parameter with another layer")
        if hasattr(module, "parametrizations") or (isinstance(module, _WRITES) and "weight" not in module._parameters):
            obstacles.append(f"the weight of {name!r} is made from other parameters")
        found.setdefault((name, role), []).extend(zip(item.root_idxs, item.idxs, strict=True))
    members = tuple(
        Member(name, role, torch.tensor([s for s, _ in places]), torch.tensor([c for _, c in places]))
        for (name, role), pairs in found.items()
        if (places := sorted(set(pairs)))
    )
    if misfits := [m.name for m in members if int(m.channels.max()) >= _width(model, m)]:
        obstacles.insert(0, f"torch-pruning does not know how {misfits[0]!r} takes its channels")
        members = tuple(member for member in members if member.role == "writes" and member.name not in misfits)
    if not misfits and not any(member.role == "reads" for member in members):
        obstacles.append("nothing in the network reads it: it is an output")
    size = 1 + max((int(member.slots.max()) for member in members), default=-1)
    return ChannelGroup(size, members, "; ".join(dict.fromkeys(obstacles)))


def _width(model: nn.Module, member: Member) -> int:
    return width(model, member.name, "inputs" if member.role == "reads" else "outputs")


def _role(module: Any, out: bool) -> Role | None:
    """None if channels mix in it in a way that forbids to remove one."""
    if isinstance(module, _EACH) or is_depthwise(module):
        return "each"
    if isinstance(module, _WRITES if out else _READS) and not isinstance(module, nn.LSTM if out else ()):
        return "writes" if out else "reads"
    return None


def _apart(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Groups that meet in a layer's channels in a way which one slot cannot express get an obstacle."""
    claims = Counter(
        (member.name, member.role, channel)
        for group in groups
        for member in group.members
        for channel in member.channels.tolist()
    )
    clash = {(name, role) for (name, role, _), count in claims.items() if count > 1}

    def told(group: ChannelGroup) -> ChannelGroup:
        met = next((member.name for member in group.members if (member.name, member.role) in clash), None)
        if met is None or group.obstacle:
            return group
        return ChannelGroup(group.size, group.members, f"channels of {met!r} belong to several groups")

    return [told(group) for group in groups]


@contextmanager
def _hooks_as_they_were(model: nn.Module) -> Iterator[None]:
    """torch-pruning leaves its forward hooks in a model that raises."""
    before = [(module, dict(module._forward_hooks)) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks in before:
            for key in set(module._forward_hooks) - set(hooks):
                del module._forward_hooks[key]
