"""Value quantisation: weights on an even grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.optim import Optimizer

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.quantised_weights import QuantisedWeights
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.compress.training import Training
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_flag


@dataclass(frozen=True)
class Quantise(Step):
    """Round weights to evenly spaced levels, and train them so: gradients pass straight through.

    The grid is that of the least squared error. Fine-tuning steps latent weights by the gradient at the quantised ones.

    Args:
        bits: of a living weight at a fixed width, from 1 to 8: 2^bits levels, one less if symmetric. None is found by
            ``bits=`` of :func:`~lightning_sparse.compress.compress`, which counts levels instead, from 2 to 256.
        per: ``"tensor"``, or ``"row"`` for a grid for each output, whose ends cost 32 bits.
        symmetric: about zero, with a level at zero from 2 bits on, which an entropy coder makes good use of.
        levels: their number, in place of ``bits``.

    Example:
        >>> str(Quantise(bits=3))
        "Quantise(bits=3, per='tensor', symmetric=False, levels=None)"
    """

    bits: int | None = None
    per: str = "tensor"
    symmetric: bool = False
    levels: int | None = None

    place: ClassVar[int] = 3
    knob: ClassVar[str] = "levels"

    def __post_init__(self) -> None:
        check_choice("per", self.per, ("tensor", "row"))
        check_flag("symmetric", self.symmetric)
        if self.bits is not None:
            check_count("bits", self.bits, 1, most=8, write=4)
        if self.levels is not None:
            check_count("levels", self.levels, 2, most=256, write=16)
        if self.bits is not None and self.levels is not None:
            raise SparsityError(f"bits={self.bits} and levels={self.levels} both say how many: leave one out")

    @property
    def free(self) -> bool:
        """Whether the number of levels is to be found."""
        return self.bits is None and self.levels is None

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """From 2 levels to 256."""
        return [2, *range(3, 257, 2)] if self.symmetric else range(2, 257)

    @property
    def count(self) -> int:
        """Levels of a weight."""
        if self.levels is not None:
            return self.levels
        assert self.bits is not None
        return int(2**self.bits) - (1 if self.symmetric and self.bits > 1 else 0)

    def apply(self, draft: Draft) -> None:
        """Round."""
        self._finish(draft, self._begun(draft))

    def train(self, draft: Draft, training: Training) -> None:
        """Train with quantised weights."""
        weights = self._begun(draft)

        def hold(optimizer: Optimizer, steps: int) -> QuantisedWeights:
            weights.install([optimizer])
            return weights

        training.run(draft, what="Quantise", hold=hold)
        self._finish(draft, weights)

    def _begun(self, draft: Draft) -> QuantisedWeights:
        weights = QuantisedWeights(draft.weights(), self.count, per=self.per, symmetric=self.symmetric)
        weights.begin()
        return weights

    def _finish(self, draft: Draft, weights: QuantisedWeights) -> None:
        draft.levels = {name: weights.levels_of(name) for name in draft.weights()}
