"""Operator factorisation: a layer as a product of smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.factorisation.kinds import KINDS
from lightning_sparse.compress.factorised import factorise_layers
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_share


@dataclass(frozen=True)
class Factorise(Step):
    """Replace layers by products of smaller ones, decomposed from their trained weights.

    Args:
        rank: of every layer, at least 1. None takes ``share``, or is found by ``bits=``.
        kind: ``"svd"``, ``"tucker"``, ``"cp"`` or ``"tensor_train"``.
        share: of the weights that is left, in (0, 1), at one rank for all layers, or a layer's full one where that is less.

    Example:
        >>> str(Factorise(rank=8))
        "Factorise(rank=8, kind='svd', share=None)"
    """

    rank: int | None = None
    kind: str = "svd"
    share: float | None = None

    place: ClassVar[int] = 1
    knob: ClassVar[str] = "share"

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if self.rank is not None:
            check_count("rank", self.rank, 1, write=8)
        if self.share is not None and not check_share("share", self.share, one_allowed=False):
            raise SparsityError("share=0 leaves no weight: write share=0.1")
        if self.rank is not None and self.share is not None:
            raise SparsityError(f"rank={self.rank} and share={self.share} both say how much is left: leave one out")

    @property
    def free(self) -> bool:
        """Whether the share is to be found."""
        return self.rank is None and self.share is None

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """Shares of the weights."""
        return (1e-4, 0.999)

    def apply(self, draft: Draft) -> None:
        """Decompose."""
        factors, left_alone = factorise_layers(draft.model, self.share, self.kind, rank=self.rank)
        draft.structure = [*draft.structure, *factors]
        draft.left_alone |= left_alone
