"""Train a network whose weights take few evenly spaced values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_sparse.callbacks.trainer.few_values import FewValues
from lightning_sparse.compress.quantised_weights import QuantisedWeights
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_choice, check_count, check_flag


class Quantise(FewValues):
    """Give the weights at most ``2**bits`` evenly spaced values, and train them so (Jacob et al. 2018, arXiv 1712.05877).

    Whatever looks at the model between steps sees quantised weights: forward passes, validation, checkpoints, callbacks.
    The latent weights that an optimizer moves, with the gradients of the quantised ones (straight through), are in this
    callback's state. It goes with any sparsity callback, before or after it in the list: zeros stay zeros, and need no level.
    Activations are not quantised, and nothing runs faster by it; it is the file that gets small.

    Args:
        bits: of a weight, from 1 to 8.
        per: one grid for each ``"tensor"``, or for each ``"row"``, which is an output.
        symmetric: grids symmetric about zero, with a level at zero: ``2**bits - 1`` levels, or 2 without zero for one bit.
        begin: when, as an ``int`` in optimizer steps or a ``float`` as a share of the training; 1.0 rounds when it has ended.
        include: shell-style patterns of parameter names; None takes the trained weights of Linear and Conv layers, and of
            transformers' Conv1D.
        exclude: patterns of names to leave as they are.

    Attributes:
        weights: what holds the latent weights, with ``levels_of(name)``; None before training.
        distinct_values: how many values the living weights of each parameter take, counted when training has ended; None
            before. By row, in the row that has most.

    Raises:
        SparsityError: on arguments out of range here; when training starts, on LBFGS, and on what does not fit the model.

    Example:
        >>> from lightning_sparse import GradualPruning, Quantise
        >>> callbacks = [GradualPruning(0.9), Quantise(bits=3, begin=0.75)]
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        per: str = "tensor",
        symmetric: bool = False,
        begin: Time = 0.0,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__(begin, include, exclude)
        self.bits = check_count("bits", bits, most=8)
        self.per, self.symmetric = check_choice("per", per, ("tensor", "row")), check_flag("symmetric", symmetric)

    def form(self) -> dict[str, Any]:
        """The arguments that say how few values."""
        return {"bits": self.bits, "per": self.per, "symmetric": self.symmetric}

    def hold(self, parameters: Mapping[str, nn.Parameter]) -> QuantisedWeights:
        """Hold latent weights."""
        levels = 2**self.bits - (1 if self.symmetric and self.bits > 1 else 0)
        return QuantisedWeights(parameters, levels, per=self.per, symmetric=self.symmetric)
