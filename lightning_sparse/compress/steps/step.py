"""What the steps of a compression have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.training import Training


class Step:
    """A way to say a network in fewer bits.

    Attributes:
        place: in a list of steps; steps of one place exclude each other.
        knob: the argument that ``bits=`` finds where it is None; empty if there is none.
    """

    place: ClassVar[int]
    knob: ClassVar[str] = ""

    @property
    def free(self) -> bool:
        """Whether the knob is to be found."""
        return bool(self.knob) and getattr(self, self.knob) is None

    def at(self, value: Any) -> Any:
        """The same step with its knob at a value."""
        return replace(self, **{self.knob: value})  # type: ignore[type-var]

    def check(self) -> None:
        """Raise a SparsityError, before any step is taken, if a library is missing."""

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """What the knob may be, from the fewest bits to the most: a range, or a list of values."""
        raise NotImplementedError

    def apply(self, draft: Draft) -> None:
        """Change the network; nothing is trained."""
        raise NotImplementedError

    def train(self, draft: Draft, training: Training) -> None:
        """Change the network, and train it as it then has to stay, as many epochs as it is given."""
        self.apply(draft)
        training.run(draft, what=type(self).__name__)

    def __str__(self) -> str:
        shown = [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        words = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in shown)
        return f"{type(self).__name__}({', '.join(words)})"
