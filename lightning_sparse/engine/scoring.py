"""The scores of one training: what they are shown, and which connections they choose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.engine.gradients import DenseGradients
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.scores.of_layer import Layer, needs_gradient_of
from lightning_sparse.engine.scores.of_network import Network, is_of_network
from lightning_sparse.engine.update import OnFirstUse, next_masks
from lightning_sparse.errors import SparsityError

Look = Callable[[int], AbstractContextManager[Network]]


class Scoring:
    """Scores connections by a recipe, and says which live after an update.

    If ``look`` is None, a score of the whole network has nothing to look at, and raises a SparsityError.

    Attributes:
        gradients: the dense gradients that scores read.
        watching: whether a score observes every step.
    """

    def __init__(self, recipe: Recipe, parameters: Mapping[str, nn.Parameter], look: Look | None) -> None:
        self._recipe, self._parameters, self._look = recipe, parameters, look
        self._turned = inputs_first(parameters)
        self._drop, self._grow = _own(recipe.scores["drop"]), _own(recipe.scores["grow"])
        self._birth = self._drop if recipe.birth is None else _own(recipe.scores["birth"])
        self._observers = [score for score in (self._drop, self._grow) if hasattr(score, "observe")]
        towards = getattr(recipe.shares, "towards", None)
        self._shares = towards(recipe.sparsity.highest) if towards else recipe.shares
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self.gradients = DenseGradients(parameters)
        self.watching = bool(self._observers)
        if recipe.network_scores and look is None:
            raise SparsityError(
                f"{recipe.network_scores[0]} is computed from training data: give attach() batches=[...] and loss_fn=..."
            )

    def reads_gradients(self, *, grows: bool) -> bool:
        """Whether an update reads dense gradients; ``grows`` says whether connections are born in it."""
        return needs_gradient_of(self._drop) or (grows and needs_gradient_of(self._grow))

    def observe(self) -> None:
        """Show one optimizer step to the scores that remember; those that read gradients pass over one without any."""
        for score in self._observers:
            if self.gradients or not needs_gradient_of(score):
                for name in self._parameters:
                    score.observe(self._layer(name))

    def next_masks(
        self, before: Mapping[str, Tensor], living: int, turnover: float, *, at_birth: bool
    ) -> tuple[dict[str, Tensor], int, int]:
        """Score, and return what :func:`.update.next_masks` does."""
        drop, grow = self._scores(self._birth if at_birth else self._drop), self._scores(self._grow)
        units, redistribute = self._recipe.units, self._recipe.redistribute
        return next_masks(before, living, turnover, drop, grow, self._shares, units, redistribute, self._turned)

    def _scores(self, score: Any) -> OnFirstUse:
        found: dict[str, Tensor] = {}  # by a score of the whole network

        def of_layer(name: str) -> Tensor:
            layer = self._layer(name)
            if is_of_network(score) and not found and self._look is not None:
                with self._look(self._recipe.score_batches) as network:
                    found.update(score(network))
            scores: Tensor = found[name] if is_of_network(score) else score(layer)
            if scores.shape != layer.weight.shape:
                raise SparsityError(
                    f"the score {score!r} returned shape {tuple(scores.shape)} for {name!r}: return one number a "
                    f"connection, shape {tuple(layer.weight.shape)}"
                )
            return scores

        return OnFirstUse(of_layer)

    def _layer(self, name: str) -> Layer:
        return Layer(name, self._parameters[name].detach(), self.gradients.get(name), self._generator)

    def state_dict(self) -> dict[str, Any]:
        """The random generator, and what the scores remember."""
        return {
            "generator": self._generator.get_state(),
            "scores": [score.state_dict() for score in self._observers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._generator.set_state(state["generator"])
        for score, remembered in zip(self._observers, state["scores"], strict=True):
            score.load_state_dict(remembered)


def _own(score: Any) -> Any:
    # A copy, so that a score does not carry its memory of one training into the next.
    return score() if isinstance(score, type) else copy.deepcopy(score)
