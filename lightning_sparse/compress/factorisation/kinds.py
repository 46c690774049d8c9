"""The kinds of factorisation by name, and which of them a layer can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from lightning_sparse.compress.factorisation import cp, svd, tensor_train, tucker


class Factorisation(Protocol):
    """What each kind can say of a layer; ``modes`` is how a tensor train splits it."""

    def ranks(self, layer: Any, of_full: Callable[[int], int]) -> tuple[int, ...]:
        """Its ranks, given what to make of the full one."""
        ...

    def numbers(self, layer: Any, ranks: Sequence[int], modes: Sequence[Sequence[int]]) -> int:
        """How many numbers the factors hold."""
        ...

    def build(self, layer: Any, ranks: Sequence[int], modes: Sequence[Sequence[int]]) -> nn.Module:
        """The layers that the factors are weights of, without values."""
        ...

    def decompose(self, weight: Tensor, ranks: Sequence[int], modes: Sequence[Sequence[int]]) -> list[Tensor]:
        """The factors near to a weight, in the order of those layers."""
        ...


FACTORISATIONS: dict[str, Factorisation] = {"svd": svd, "tucker": tucker, "cp": cp, "tensor_train": tensor_train}

KINDS = tuple(FACTORISATIONS)
"""Kinds of factorisation. Only 2-D convolutions with a kernel have Tucker and CP forms of their own: of any other layer, both
are the singular value decomposition. A tensor train is made of Linear layers alone."""


def form_of(layer: Any, kind: str) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """The kind that a layer has, and how a tensor train splits it; no kind if it cannot have one.

    Example:
        >>> form_of(nn.Conv2d(3, 64, 3), "cp"), form_of(nn.Linear(64, 10), "cp"), form_of(nn.Linear(64, 10), "tensor_train")
        (('cp', ()), ('svd', ()), ('tensor_train', ((2, 5), (8, 8))))
    """
    if kind == "tensor_train":
        modes = tensor_train.modes(layer) if isinstance(layer, nn.Linear) else ()
        return (kind if modes else ""), modes
    return ("svd" if layer.weight.dim() != 4 or layer.weight[0, 0].numel() == 1 else kind), ()


def why_no_train(layer: Any) -> str:
    """Why a layer cannot be a tensor train."""
    if not isinstance(layer, nn.Linear):
        return f"a tensor train is made of Linear layers, and it is a {type(layer).__name__}"
    prime = next(n for n in (layer.out_features, layer.in_features) if not tensor_train.split(n, 2))
    return f"a tensor train splits outputs and inputs into factors, and {prime} has none"
