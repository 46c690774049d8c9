"""What a layer was made into, as a decoder is told."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from lightning_sparse.compress.factorisation.kinds import FACTORISATIONS, KINDS
from lightning_sparse.compress.replaceable import layers_of
from lightning_sparse.errors import SparsityError

if TYPE_CHECKING:
    from lightning_sparse.compress.byte_string import Reader

_RANKS = {"svd": 1, "tucker": 2, "cp": 1}  # how many a layer has; a tensor train has one less than factors


class Factors(NamedTuple):
    """What a layer was made into: all that a decoder needs beyond the dense architecture and the values.

    Attributes:
        name: of the layer in the model.
        place: of the layer among those of :func:`~lightning_sparse.compress.replaceable.layers_of`, from 0.
        kind: one of :data:`KINDS`; ``"svd"`` for a layer that Tucker and CP have no other form for.
        ranks: each at least 1: one, or for Tucker outputs and inputs of the core, for a tensor train from left to right.
        modes: of a tensor train: how outputs and inputs are split.
    """

    name: str
    place: int
    kind: str
    ranks: tuple[int, ...]
    modes: tuple[tuple[int, ...], ...] = ()

    def to_numbers(self) -> list[int]:
        """Whole numbers from 0 that :meth:`from_numbers` reads.

        Example:
            >>> Factors("0", 0, "tensor_train", (4,), ((2, 5), (4, 4))).to_numbers()
            [0, 3, 2, 2, 5, 4, 4, 4]
        """
        split = [len(self.modes[0]), *self.modes[0], *self.modes[1]] if self.modes else []
        return [self.place, KINDS.index(self.kind), *split, *self.ranks]

    def numbers(self) -> int:
        """How many numbers that is."""
        return len(self.to_numbers())

    @classmethod
    def from_numbers(cls, reader: Reader, model: nn.Module) -> Factors:
        """Undo :meth:`to_numbers`, given what ``reader.number()`` reads one by one, and the dense model.

        Raises:
            SparsityError: if the model has no such layer.
        """
        layers = list(layers_of(model))
        place, number = reader.number(), reader.number()
        if place >= len(layers) or number >= len(KINDS):
            raise SparsityError(
                f"layer {place} is factorised in kind {number}, and model={type(model).__name__} has {len(layers)} layers: "
                "give the dense architecture that was compressed"
            )
        kind = KINDS[number]
        parts = reader.number() if kind == "tensor_train" else 0
        modes = tuple(tuple(reader.number() for _ in range(parts)) for _ in range(2 * bool(parts)))
        ranks = tuple(reader.number() for _ in range(_RANKS.get(kind, parts - 1)))
        return cls(layers[place], place, kind, ranks, modes)


def fits(layer: Any, factors: Factors) -> bool:
    """Whether factors are some that a layer can have; foreign ones could take any amount of memory."""
    if layer is None or factors.kind not in KINDS or (factors.kind in ("tucker", "cp") and layer.weight.dim() != 4):
        return False
    if min(factors.ranks, default=0) < 1 or len(factors.ranks) != _RANKS.get(factors.kind, len(factors.ranks)):
        return False
    if factors.kind == "tensor_train":
        sides = (layer.out_features, layer.in_features) if isinstance(layer, nn.Linear) else (0, 0)
        split = tuple(prod(side) for side in factors.modes)
        if split != sides or any(len(side) != len(factors.ranks) + 1 for side in factors.modes):
            return False
    return FACTORISATIONS[factors.kind].numbers(layer, factors.ranks, factors.modes) < int(layer.weight.numel())
