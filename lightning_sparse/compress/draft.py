"""A network on its way through the steps of a compression."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.parameters import Targets, default_names, sparsifiable
from lightning_sparse.compress.factors import Factors
from lightning_sparse.compress.levels import Levels


@dataclass
class Draft:
    """What the steps change.

    Attributes:
        model: a copy of the network given.
        alive: which connections of the weights live, once they are pruned.
        levels: the values that weights may take, once they are quantised or shared.
        seeds: of weights whose values were given out by a hash.
        structure: layers that are factorised.
        width: of a narrower network in place of the one given.
        entropy: whether streams are coded as short as can be.
        left_alone: layers that a step passed by, and why.
    """

    model: nn.Module
    alive: dict[str, Tensor] = field(default_factory=dict)
    levels: dict[str, Levels] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    structure: list[Factors] = field(default_factory=list)
    width: float | None = None
    entropy: bool = False
    left_alone: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Draft:
        """Another network to try a step on."""
        return Draft(
            copy.deepcopy(self.model),
            dict(self.alive),
            dict(self.levels),
            dict(self.seeds),
            list(self.structure),
            self.width,
            self.entropy,
            dict(self.left_alone),
        )

    def weights(self) -> Targets:
        """The weights that masks and levels are for; none, if no Linear or Conv layer is trained."""
        names = list(default_names(self.model, ()))
        trained = any(self.model.get_parameter(name).requires_grad for name in names)
        return sparsifiable(self.model) if trained else Targets()

    def masks(self) -> dict[str, Tensor]:
        """Which connections live: of a weight with levels those that are not zero, all of one that is neither so nor pruned.

        A level at zero costs as much as a mask does.
        """
        ones = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights().items()}
        return {**ones, **self.alive, **{name: self.weights()[name] != 0 for name in self.levels}}
