"""Drop and grow scores: which connections die first, and which missing ones are born first.

A score is a function of one :class:`Layer` that returns a tensor of the weight's shape. The living connections with the
lowest drop scores die; the missing ones with the highest grow scores are born. You can write your own::

    @needs_gradient
    def taylor(layer: Layer) -> Tensor:
        return (layer.weight * layer.gradient).abs()

    GradualPruning(0.9, criterion=taylor)

A score with a memory is an object with ``observe(layer)``, called after every optimizer step, and ``state_dict()`` /
``load_state_dict(state)``, so that a resumed run remembers too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError


@dataclass(frozen=True)
class Layer:
    """What a score may look at.

    Attributes:
        name: the parameter's name in the model.
        weight: the parameter; zero where the connection is dead.
        dense_gradient: gradient of the loss for every connection, dead ones too; None if it was not read.
        generator: the run's own CPU generator; draw random numbers from this one only.
    """

    name: str
    weight: Tensor
    dense_gradient: Tensor | None
    generator: torch.Generator

    @property
    def gradient(self) -> Tensor:
        """The dense gradient; a SparsityError if there is none."""
        if self.dense_gradient is None:
            raise SparsityError(
                f"{self.name!r} has no gradient at a mask update whose score needs one: exclude it "
                f"(exclude=[{self.name!r}]) or choose a score that reads no gradient"
            )
        return self.dense_gradient


if TYPE_CHECKING:
    Score = Callable[[Layer], Tensor]
else:  # LightningCLI would take the true type for something that makes Tensors, and refuse a user's own score
    Score = Callable[[Layer], Any]
S = TypeVar("S", bound=Score)
M = TypeVar("M")  # also a score of the whole network


def needs_gradient(score: S) -> S:
    """Mark a score that reads ``layer.gradient``, so that the engine keeps it for the update.

    Raises:
        SparsityError: if it is no function, or one that takes no mark, such as a bound method.
    """
    return marked(score, "needs_gradient")


def marked(score: M, mark: str) -> M:
    """Set a mark on a score, or raise a SparsityError."""
    if callable(score):
        with suppress(AttributeError, TypeError):
            setattr(score, mark, True)
            return score
    raise SparsityError(
        f"score={score!r} takes no mark: write @{mark} above a def of your own that takes the score's argument"
    )


def needs_gradient_of(score: object) -> bool:
    """Whether a score was marked by :func:`needs_gradient`."""
    return bool(getattr(score, "needs_gradient", False))


def magnitude(layer: Layer) -> Tensor:
    """``|w|``. Han et al. 2015, "Learning both weights and connections" (arXiv 1506.02626). One pass over the weights.

    Example:
        >>> magnitude(Layer("w", torch.tensor([-2.0, 1.0]), None, torch.Generator())).tolist()
        [2.0, 1.0]
    """
    return layer.weight.abs()


def random(layer: Layer) -> Tensor:
    """Uniform noise, drawn from the run's own generator on the CPU, so that every rank draws the same.

    As a grow score: Mocanu et al. 2018, SET (Nature Communications 9, 2383).

    Example:
        >>> random(Layer("w", torch.zeros(2, 3), None, torch.Generator())).shape
        torch.Size([2, 3])
    """
    return torch.rand(layer.weight.shape, generator=layer.generator).to(layer.weight.device)


@needs_gradient
def gradient(layer: Layer) -> Tensor:
    """``|dL/dw|`` of the last accumulated batch. As a grow score: Evci et al. 2020, RigL (arXiv 1911.11134).

    Example:
        >>> gradient(Layer("w", torch.zeros(2), torch.tensor([-3.0, 1.0]), torch.Generator())).tolist()
        [3.0, 1.0]
    """
    return layer.gradient.abs()


@needs_gradient
def taylor(layer: Layer) -> Tensor:
    """``|w dL/dw|`` of the last accumulated batch: the first-order change of the loss if the connection dies.

    Mozer & Smolensky 1989, "Skeletonization" (NeurIPS 1); Molchanov et al. 2017 (arXiv 1611.06440). One pass, and no extra
    backward; :func:`~lightning_sparse.engine.scores.of_network.snip` is the same before training, on separate batches.

    Example:
        >>> taylor(Layer("w", torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 1.0]), torch.Generator())).tolist()
        [6.0, 1.0]
    """
    return (layer.weight * layer.gradient).abs()
