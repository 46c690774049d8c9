"""Train a network whose weights share the entries of a codebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_sparse.callbacks.trainer.few_values import FewValues
from lightning_sparse.compress.levels import k_means
from lightning_sparse.compress.shared_weights import SharedWeights
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_choice, check_count


class Share(FewValues):
    """Tie each weight to one of ``2**bits`` values, and train these (Deep Compression: Han et al. 2016, arXiv 1510.00149).

    The values are found by k-means in the weights when it begins, so there should be something to find by then. From there on
    weights that share a value get the mean of their gradients, and move as one. It goes with any sparsity callback, before or
    after it in the list: zeros stay zeros, and need no value. When training has ended the values are rounded to float16.

    Args:
        bits: of a weight, from 1 to 8.
        codebook_of: values for each ``"layer"``, or for the ``"network"``.
        begin: when, as an ``int`` in optimizer steps or a ``float`` as a share of the training; 1.0 rounds when it has ended.
        include: shell-style patterns of parameter names; None takes the trained weights of Linear and Conv layers, and of
            transformers' Conv1D.
        exclude: patterns of names to leave as they are.

    Attributes:
        weights: what holds the values, with ``levels_of(name)`` and ``numbers_of(name)``; None before training.
        distinct_values: how many values the living weights of each parameter take, counted when training has ended; None
            before.

    Raises:
        SparsityError: on arguments out of range here; when training starts, on optimizers that do not move each weight by its
            own gradient alone, and on what does not fit the model.

    Example:
        >>> from lightning_sparse import GradualPruning, Share
        >>> callbacks = [GradualPruning(0.9, end=0.5), Share(bits=4)]
    """

    def __init__(
        self,
        bits: int = 4,
        *,
        codebook_of: str = "layer",
        begin: Time = 0.5,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__(begin, include, exclude)
        self.bits = check_count("bits", bits, most=8)
        self.codebook_of = check_choice("codebook_of", codebook_of, ("layer", "network"))

    def form(self) -> dict[str, Any]:
        """The arguments that say how few values."""
        return {"bits": self.bits, "codebook_of": self.codebook_of}

    def hold(self, parameters: Mapping[str, nn.Parameter]) -> SharedWeights:
        """Hold codebooks."""
        k_means(2**self.bits)  # now, and not in the middle of a training
        return SharedWeights(parameters, 2**self.bits, codebook_of=self.codebook_of)
