"""Scores of the whole network, from batches and a loss: they need no training step, so they can prune before the first.

Such a score is a function of one :class:`Network` that returns a tensor for each of its parameters; the lowest die, as with
any drop score. Mark your own with :func:`of_network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_sparse.anatomy.first_tensor import first_tensor
from lightning_sparse.anatomy.hessian_product import hessian_product
from lightning_sparse.anatomy.isolation import as_it_was
from lightning_sparse.anatomy.reentrant_checkpoints import WRITE, has_reentrant_checkpoint
from lightning_sparse.engine import returned
from lightning_sparse.engine.distributed import average, is_set_up
from lightning_sparse.engine.scores.of_layer import marked
from lightning_sparse.errors import SparsityError

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Network:
    """What a score of the whole network may look at.

    Attributes:
        model: the model, its dead weights zero.
        parameters: the sparsifiable parameters, by name.
        batches: batches of training data, on the model's device.
        loss: ``loss(model, batch)``, a scalar tensor.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    batches: Sequence[Any]
    loss: Loss

    def gradient(self) -> dict[str, Tensor]:
        """Gradient of the mean loss over the batches, and over the ranks; zero for what the loss does not use."""
        weights = self._weights()

        def gradient(batch: Any) -> dict[str, Tensor]:
            loss = self.loss(self.model, batch)
            if has_reentrant_checkpoint(loss):
                return self._by_backward(loss, weights)
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            return dict(zip(weights, found, strict=True))

        return self._mean(gradient)

    def hessian_product(self, vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The Hessian of the mean loss times a vector, both over ``parameters`` alone; one double backward a batch."""
        weights = self._weights()

        def product(batch: Any) -> dict[str, Tensor]:
            found = hessian_product(self.loss(self.model, batch), list(weights.values()), [vector[n] for n in weights])
            return {} if found is None else dict(zip(weights, found, strict=True))  # None: the loss is linear

        return self._mean(product)

    def _weights(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}

    def _by_backward(self, loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradient where weights get theirs in ``.grad`` alone, which is put back afterwards."""
        before = [(parameter, parameter.grad) for parameter in self.model.parameters()]
        if is_set_up() or any(getattr(parameter, "_post_accumulate_grad_hooks", None) for parameter, _ in before):
            raise SparsityError(
                "the loss comes through a reentrant checkpoint, whose gradients only backward() gives, and that would also "
                f"start the hooks of the parameters (DDP's, or an optimizer's that steps in the backward pass): {WRITE}"
            )
        try:
            for parameter, _ in before:
                parameter.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            return {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in weights.items()}
        finally:
            for parameter, gradient in before:
                parameter.grad = gradient

    def _mean(self, of_batch: Callable[[Any], dict[str, Tensor]]) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(parameter).detach() for name, parameter in self.parameters.items()}
        for batch in self.batches:
            for name, part in of_batch(batch).items():
                total[name] += part.detach() / len(self.batches)
        average(total)
        return total


NetworkScore = Callable[[Network], dict[str, Tensor]]
S = TypeVar("S", bound=NetworkScore)


def of_network(score: S) -> S:
    """Mark a score that takes a :class:`Network` and returns a tensor for each of its parameters."""
    return marked(score, "of_network")


def is_of_network(score: object) -> bool:
    """Whether a score was marked by :func:`of_network`."""
    return bool(getattr(score, "of_network", False))


@contextmanager
def looking_at(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], batches: Sequence[Any], loss: Loss
) -> Iterator[Network]:
    """Yield the network for scores to look at, and leave no trace on it.

    Compiled modules run uncompiled, and attention runs its plain kernel: compiled and fused kernels have no second
    derivative.
    """

    def checked(model: Any, batch: Any) -> Tensor:
        with returned.calling("a loss, with the module and a batch", loss):
            found = loss(model, batch)
        return returned.loss(loss, found)

    with as_it_was(model), torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
        yield Network(model, parameters, batches, checked)


@of_network
def snip(network: Network) -> dict[str, Tensor]:
    """``|w dL/dw|``: connection sensitivity, Lee et al. 2019, SNIP (arXiv 1810.02340). One forward and backward a batch.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
        >>> look = Network(net, dict(net.named_parameters()), [torch.tensor([[1.0, 2.0]])], lambda net, x: net(x).sum())
        >>> snip(look)["weight"].tolist()
        [[3.0, 2.0]]
    """
    gradient = network.gradient()
    return {name: (weight.detach() * gradient[name]).abs() for name, weight in network.parameters.items()}


@of_network
def grasp(network: Network) -> dict[str, Tensor]:
    """``w (H g)``: gradient flow, Wang et al. 2020, GraSP (arXiv 2002.07376).

    Their score is the negative, -w (H g), the change of the squared gradient norm if the weight is removed, of which the
    highest die; here the lowest die. One forward and backward, and one double backward a batch. (Their code also divides the
    logits by 200, which your own loss can do.)

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = net.weight.data.fill_(3.0)
        >>> look = Network(net, dict(net.named_parameters()), [torch.ones(1, 1)], lambda net, x: net(x).square().sum())
        >>> grasp(look)["weight"].item()  # w = 3, g = 2w = 6, H = 2
        36.0
    """
    product = network.hessian_product(network.gradient())
    return {name: weight.detach() * product[name] for name, weight in network.parameters.items()}


@of_network
def synflow(network: Network) -> dict[str, Tensor]:
    """``|w dR/dw|``, with R the output for an input of ones under absolute weights: Tanaka et al. 2020 (arXiv 2006.05467).

    It needs no data: only the shape of a batch is used. Many rounds (``rounds=100``) keep layers from collapsing. Modules are
    in eval mode, numbers are double (R is a sum over all paths), and what adds to a layer's output (biases, running means)
    is zero, because it feeds connections that no path reaches. One forward and backward.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
        >>> _ = net[0].weight.data.fill_(-2.0), net[1].weight.data.copy_(torch.tensor([[3.0], [-1.0]]))
        >>> look = Network(net, dict(net.named_parameters()), [torch.zeros(8, 1)], lambda net, batch: net(batch).sum())
        >>> {name: score.flatten().tolist() for name, score in synflow(look).items()}
        {'0.weight': [8.0], '1.weight': [6.0, 2.0]}
    """
    check_forward(network.model)
    network.model.eval()
    wide = torch.float32 if next(iter(network.parameters.values())).device.type == "mps" else torch.float64
    state = {
        name: tensor.detach().to(wide).abs() if tensor.is_floating_point() else tensor.detach()
        for name, tensor in (*network.model.named_parameters(), *network.model.named_buffers())
    }
    state |= {
        name: torch.zeros_like(tensor) for name, tensor in state.items() if name.endswith(("bias", "running_mean"))
    }
    weights = {name: state[name].requires_grad_() for name in network.parameters}
    example = _tensor_in(network.batches[0])[:1]
    # With a gradient, so that a reentrant checkpoint of the first layer shows in the graph too; a clone may be written to.
    ones = torch.ones_like(example, dtype=wide).requires_grad_().clone() if example.is_floating_point() else example
    flow = _tensor_in(functional_call(network.model, state, (ones,))).sum()
    if has_reentrant_checkpoint(flow):
        raise SparsityError(f"synflow cannot look into a reentrant checkpoint: {WRITE}")
    slopes = torch.autograd.grad(flow, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if slope is None else (weight * slope).detach()
        for (name, weight), slope in zip(weights.items(), slopes, strict=True)
    }


def check_forward(model: nn.Module) -> None:
    """Raise a SparsityError if SynFlow has nothing to call, because a model leaves ``forward`` undefined."""
    home = getattr(model.forward, "__module__", None)
    if home in ("torch.nn.modules.module", "lightning.pytorch.core.module", "pytorch_lightning.core.module"):
        raise SparsityError(
            f"synflow calls the model with an input of ones, and {type(model).__name__} has no forward: define "
            "forward(self, x) that returns the output, or choose another criterion (SNIP and GraSP read training_step)"
        )


def _tensor_in(values: Any) -> Tensor:
    found = first_tensor(values)
    if found is None:
        raise SparsityError(
            f"synflow found no tensor in a {type(values).__name__}: it feeds a batch's first tensor to model.forward and "
            "sums the first tensor that comes out; give it such a model, or another criterion"
        )
    return found
