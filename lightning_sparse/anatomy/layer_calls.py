"""Record the calls of a model's layers during a pass of training: what their weights cost, and what fed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_hook

from lightning_sparse.anatomy.factors import is_tensor_train
from lightning_sparse.anatomy.first_tensor import first_tensor
from lightning_sparse.anatomy.layers import is_layer, outputs_and_inputs

# These use the weights of the layers inside them without calling those.
_WHOLE = (nn.RNNBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class LayerCall:
    """One use of one weight on one batch.

    Attributes:
        name: the weight's name in the model.
        flops: of the forward pass of the whole batch, two a multiply-add.
        trains: whether a backward pass goes through the output.
        learns: whether that gives a gradient for the weight.
        fed_by: the autograd nodes of the layer's input: none for data and under ``no_grad``, one otherwise; if the input was
            given by keyword, those of everything that the layer reads, its weight among them.
        result: the autograd node of the output; None under ``no_grad``, and if the layer is not a Linear or Conv.
    """

    name: str
    flops: int
    trains: bool
    learns: bool
    fed_by: tuple[Node, ...]
    result: Node | None


class CallRecorder:
    """Record every call of a model's Linear, Conv, recurrent, attention and tensor-train layers, until it is closed.

    A hook reads shapes and autograd nodes, and computes and draws nothing. It is torch's global hook, so that copies made of
    the model meanwhile carry none. It cannot see weights that a module uses without calling such a layer (``F.linear`` on a
    parameter of its own), nor what runs inside a graph of ``torch.compile``.

    Attributes:
        calls: all so far, in order.
        paused: set it to True to record nothing for a while, as when checkpointed activations are computed again.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
        >>> with CallRecorder(net) as recorder:  # 2 * 36 weights * 36 positions, and 2 * 1440 weights, for two images
        ...     loss = net(torch.rand(2, 1, 8, 8)).sum()
        >>> [(call.name, call.flops) for call in recorder.calls]
        [('0.weight', 5184), ('2.weight', 5760)]
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[LayerCall] = []
        self.paused = False
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._paths = {
            m: path for path, m in model.named_modules() if is_layer(m) or isinstance(m, _WHOLE) or is_tensor_train(m)
        }
        self._handle = register_module_forward_hook(self._record)  # with_kwargs leaves something behind

    def __enter__(self) -> CallRecorder:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop recording."""
        self._handle.remove()

    def _record(self, module: Any, args: Any, output: Any) -> None:
        if self.paused or torch.compiler.is_compiling() or module not in self._paths:
            return
        result, given = first_tensor(output), first_tensor(args)
        if result is None:
            return
        own = [node for node, _ in result.grad_fn.next_functions] if result.grad_fn is not None else []
        fed_by = tuple(node for node in (own if given is None else [given.grad_fn]) if node is not None)
        node = result.grad_fn if is_layer(module) else None
        for leaf, flops in _flops(module, given, result):
            weight = module._parameters.get(leaf) if "." not in leaf else module.get_parameter(leaf)
            learns = result.requires_grad and (weight is None or weight.requires_grad)
            name = self._names.get(id(weight), f"{self._paths[module]}.{leaf}".lstrip("."))
            self.calls.append(LayerCall(name, flops, result.requires_grad, learns, fed_by, node))


def is_compiled(model: nn.Module) -> bool:
    """Return whether some part of a model is compiled by ``torch.compile``: what runs there cannot be seen.

    Example:
        >>> is_compiled(nn.Sequential(torch.compile(nn.Linear(2, 2)))), is_compiled(nn.Linear(2, 2))
        (True, False)
    """
    if getattr(model, "_compiler_ctx", None) is not None:  # Lightning's mark on a module compiled as a whole
        return True
    parts = list(model.modules())
    kinds = {kind for part in parts for kind in type(part).__mro__}
    functions = [
        value for owner in (*parts, *kinds) for value in vars(owner).values() if isinstance(value, FunctionType)
    ]
    compiled = any(hasattr(function, "_torchdynamo_orig_callable") for function in functions)
    return compiled or any("_orig_mod" in part._modules for part in parts)


def _sizes(module: Any) -> Iterator[tuple[str, int]]:
    """The weights of a layer and their sizes, from its attributes, because ``.weight`` may be a computation."""
    if is_layer(module):
        outputs, inputs = outputs_and_inputs(module)
        conv = isinstance(module, _ConvNd)
        yield "weight", outputs * inputs * prod(module.kernel_size) // module.groups if conv else outputs * inputs
    else:
        yield from ((leaf, weight.numel()) for leaf, weight in module.named_parameters() if weight.dim() == 2)


def _flops(module: Any, given: Tensor | None, result: Tensor) -> Iterator[tuple[str, int]]:
    """The weights that a call uses, and what each costs."""
    positions = _positions(module, given, result)
    if is_tensor_train(module):
        yield from _train_flops(module, positions)
    else:
        yield from ((leaf, 2 * size * positions) for leaf, size in _sizes(module))


def _train_flops(module: Any, positions: int) -> Iterator[tuple[str, int]]:
    """What each factor of a tensor train costs, from left to right, as tltorch multiplies them without opt_einsum.

    Either they are multiplied to the weight, once a call, and the input with that, which is dense whatever the factors are;
    or the input with one factor after the other.
    """
    outputs, inputs = module.weight.tensorized_shape
    whole = module.implementation == "reconstructed"
    for at, factor in enumerate(module.weight.factors):
        before = prod(outputs[:at]) * (prod(inputs[:at]) if whole else positions * prod(inputs[at + 1 :]))
        yield f"weight.factors.{module.weight.factors.keys[at]}", 2 * factor.numel() * before * (at > 0 or not whole)
    if whole:
        yield "weight", 2 * prod(outputs) * prod(inputs) * positions


def _positions(module: Any, given: Tensor | None, result: Tensor) -> int:
    """How often a batch uses each weight: once an example in a plain Linear layer, once a pixel of the map in a Conv."""
    if not isinstance(module, _ConvNd):
        return result.numel() // max(1, result.shape[-1])
    if module.transposed and given is not None:
        return given.numel() // module.in_channels
    return result.numel() // module.out_channels // (prod(module.stride) if module.transposed else 1)
