"""How far back the state of a recurrent network remembers: the gradient of its last state in earlier ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.first_tensor import tensors_in
from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.measure.classifier import PixelClassifier

PROBES = 4
State = list[Tensor]


def memory(classifier: PixelClassifier, images: Tensor, generator: torch.Generator) -> Tensor | None:
    """Norm of d last state / d state k steps before, k = 0, 1, ..., over that at 0, which is 1; None if nothing recurs.

    The root mean square over images of the Frobenius norm, estimated from products of the Jacobian with random vectors, four
    for each image. A state is what a ``torch.nn.GRU``, ``LSTM`` or ``RNN`` carries from step to step, in all of its layers;
    or what a cell, or a layer that is called again and again, is given.

    Args:
        classifier: inside ``untouched``, with compiled modules run eagerly.
        images: (n, channels, height, width), on the classifier's device.
        generator: of the random vectors, on the CPU.
    """
    # cuDNN's recurrent layers have no gradient in eval mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for states in _histories(classifier, images.clone().requires_grad_(True)):
            squares = torch.zeros(len(states), dtype=torch.float64)
            for _ in range(PROBES):
                probes = [torch.randn(part.shape, generator=generator).to(part) for part in states[-1]]
                earlier = [part for state in states[:-1] for part in state]
                reached: Any = torch.autograd.grad(states[-1], earlier, probes, retain_graph=True, allow_unused=True)
                per_state = [reached[i : i + len(probes)] for i in range(0, len(earlier), len(probes))] + [probes]
                squares += torch.tensor([_square(parts) for parts in per_state], dtype=torch.float64)
            if squares[-2] > 0:  # a layer that is called for each patch gives nothing to its next call
                return (squares / squares[-1]).sqrt().flip(0)
    return None


def memory_length(reach: Tensor) -> float:
    """The first number of steps after which ``reach`` (steps,) is below 1/e; infinite if it never is.

    Example:
        >>> memory_length(torch.tensor([1.0, 0.6, 0.36, 0.2])), memory_length(torch.ones(3))
        (2.0, inf)
    """
    below = (reach < math.exp(-1)).nonzero()
    return float(below[0]) if len(below) else math.inf


def _square(parts: Any) -> float:
    return sum(float(part.double().square().sum()) for part in parts if part is not None)


def _histories(classifier: PixelClassifier, images: Tensor) -> list[list[State]]:
    """The states of each module that may recur, oldest first, with the graph between them; those of most steps first."""
    given: dict[nn.Module, list[State]] = {}
    whole: dict[nn.RNNBase, Tensor] = {}

    def keep(module: nn.Module, arguments: Any) -> None:
        if isinstance(module, nn.RNNBase):
            if arguments and isinstance(arguments[0], Tensor) and arguments[0].dim() == 3 and not module.bidirectional:
                whole[module] = arguments[0]
            return
        state = tensors_in(arguments[1:] if isinstance(module, nn.RNNCellBase) else arguments[:1])
        if state and all(part.requires_grad for part in state):  # the first state is given, and depends on nothing
            given.setdefault(module, []).append(state)

    kinds = (nn.RNNBase, nn.RNNCellBase)
    modules = [module for module in classifier.model.modules() if is_layer(module) or isinstance(module, kinds)]
    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    found = [*given.values(), *(_replayed(module, steps) for module, steps in whole.items())]
    alike = [states for states in found if len({tuple(part.shape for part in state) for state in states}) == 1]
    return sorted((states for states in alike if len(states) > 2), key=len, reverse=True)


def _replayed(module: nn.RNNBase, steps: Tensor) -> list[State]:
    """The states of torch's recurrent layer after each step, run step by step, because at once it shows only outputs."""
    states: list[State] = []
    carried = None
    for step in torch.split(steps, 1, dim=1 if module.batch_first else 0):
        _, carried = module(step, carried)
        states.append(tensors_in(carried))
    return states
