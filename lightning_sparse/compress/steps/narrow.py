"""Down-sizing: a narrower network, trained from its first weights on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.errors import SparsityError


@dataclass(frozen=True)
class Narrow(Step):
    """Take a narrower network in place of the one given: the control of every other technique.

    It starts from its first weights, and gets all the training of ``fine_tune``; give it as many epochs as the dense network
    and the other techniques had together.

    Args:
        make: ``make(width)`` builds the network, larger for a larger width: ``lambda width: lenet5((1, 28, 28), 10, width)``.
        width: a factor of the hidden sizes, above 0. None is found by ``bits=``.
    """

    make: Callable[[float], nn.Module]
    width: float | None = None

    place: ClassVar[int] = 0
    knob: ClassVar[str] = "width"

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise SparsityError(
                f"make={self.make!r} cannot be called: write make=lambda width: lenet5((1, 28, 28), 10, width)"
            )
        if self.width is not None and (
            isinstance(self.width, bool) or not isinstance(self.width, int | float) or not 0 < self.width < 1e6
        ):
            raise SparsityError(f"width={self.width!r} is not a number above 0: write width=0.5")

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """Widths up to the network's own."""
        return (1e-4, 1.0)

    def apply(self, draft: Draft) -> None:
        """Build it."""
        assert self.width is not None
        made = self.make(self.width)
        if not isinstance(made, nn.Module):
            raise SparsityError(
                f"make({self.width:.4g}) returned {type(made).__name__}: let it build the network, a torch.nn.Module"
            )
        draft.model, draft.width = made, self.width
