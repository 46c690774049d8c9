"""Parameter sharing: many connections, few values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.optim import Optimizer

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.levels import k_means
from lightning_sparse.compress.shared_weights import SharedWeights
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.compress.training import Training
from lightning_sparse.errors import SparsityError, check_choice, check_count


@dataclass(frozen=True)
class Share(Step):
    """Let weights share the values of a codebook, found by k-means and then trained (Han et al. 2016, arXiv 1510.00149).

    In fine-tuning all weights that share a value take the mean of their gradients, where the paper sums them: see
    :class:`~lightning_sparse.compress.shared_weights.SharedWeights`.

    Args:
        bits: of a living weight at a fixed width, from 1 to 8: 2^bits values. None is found by ``bits=`` of
            :func:`~lightning_sparse.compress.compress`, which counts values instead, from 2 to 256.
        codebook_of: each ``"layer"``, or the whole ``"network"``.
        entries: their number, in place of ``bits``.
        assignment: ``"kmeans"``, or ``"hash"``: at random, with a random sign (Chen et al. 2015, arXiv 1504.04788), so that a
            seed says which weight has which value, and ``entries`` is what a layer has left. A control: what is shared
            without looking has to be trained anew.

    Example:
        >>> str(Share(bits=3))
        "Share(bits=3, codebook_of='layer', entries=None, assignment='kmeans')"
    """

    bits: int | None = None
    codebook_of: str = "layer"
    entries: int | None = None
    assignment: str = "kmeans"

    place: ClassVar[int] = 3
    knob: ClassVar[str] = "entries"

    def __post_init__(self) -> None:
        check_choice("codebook_of", self.codebook_of, ("layer", "network"))
        check_choice("assignment", self.assignment, ("kmeans", "hash"))
        if self.bits is not None:
            check_count("bits", self.bits, 1, most=8, write=4)
        if self.entries is not None:
            check_count("entries", self.entries, 2, most=256, write=16)
        if self.bits is not None and self.entries is not None:
            raise SparsityError(f"bits={self.bits} and entries={self.entries} both say how many: leave one out")

    @property
    def free(self) -> bool:
        """Whether the number of values is to be found."""
        return self.bits is None and self.entries is None

    def check(self) -> None:
        """Raise a SparsityError if what finds the values is not installed."""
        if self.assignment == "kmeans":
            for count in (2, 256) if self.free else (self._count,):
                k_means(count)

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """From 2 values to 256, those that k-means finds exactly first."""
        return [*range(2, 33), *range(36, 257, 4)]

    def apply(self, draft: Draft) -> None:
        """Round each weight to the nearest value of its codebook."""
        self._finish(draft, self._begun(draft))

    def train(self, draft: Draft, training: Training) -> None:
        """Train the codebooks."""
        weights = self._begun(draft)

        def hold(optimizer: Optimizer, steps: int) -> SharedWeights:
            weights.install([optimizer])
            return weights

        training.run(draft, what="Share", hold=hold)
        self._finish(draft, weights)

    @property
    def _count(self) -> int:
        count = self.entries if self.bits is None else 2**self.bits
        assert count is not None
        return count

    def _begun(self, draft: Draft) -> SharedWeights:
        weights = SharedWeights(draft.weights(), self._count, codebook_of=self.codebook_of, assignment=self.assignment)
        weights.begin()
        return weights

    def _finish(self, draft: Draft, weights: SharedWeights) -> None:
        weights.settle()
        hashes = self.assignment == "hash"
        draft.levels = {n: weights.entries_of(n) if hashes else weights.levels_of(n) for n in draft.weights()}
        draft.seeds = dict.fromkeys(draft.levels, 0) if hashes else {}
