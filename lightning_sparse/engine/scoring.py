"""The scores of one training: what they are shown, and which connections they choose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.engine import returned
from lightning_sparse.engine.allocation import shared
from lightning_sparse.engine.gradients import DenseGradients
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.reconstruction import reconstruct
from lightning_sparse.engine.scores.calibration import look_at_passes
from lightning_sparse.engine.scores.names import DROP, GROW
from lightning_sparse.engine.scores.of_inputs import obs
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
        if recipe.reads_batches and look is None:
            raise SparsityError(
                f"{recipe.reads_batches[0]} is computed from training data: give attach() batches=[...] and loss_fn=..."
            )

    def try_own(self) -> None:
        """Call a user's own functions once, on copies, so that what they return is refused before any time is spent.

        What they raise is left to the training, whose scores they may have been made for.
        """
        weights = {name: parameter.detach() for name, parameter in self._parameters.items()}
        if self._recipe.sparsity.highest == 0.0 or not weights:
            return
        name = min(weights, key=lambda name: weights[name].numel())
        with fork_random_states(0):
            recipe = self._recipe
            used = [self._drop, *([self._birth] * recipe.born_sparse), *([self._grow] * recipe.grows)]
            for score in (score for score in used if not (_is_ours(score) or is_of_network(score))):
                weight = weights[name].clone()
                layer = Layer(name, weight, torch.randn_like(weight), torch.Generator())
                with returned.trying():
                    _of_layer(copy.deepcopy(score), layer, trial=True)
            if not hasattr(self._shares, "in_units"):
                every = {name: weight.abs() for name, weight in weights.items()}
                masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
                total = sum(weight.numel() for weight in weights.values())
                living = total - round(self._recipe.sparsity.highest * total)
                with returned.trying():
                    shared(self._shares, every, masks, living)

    def try_inputs(self) -> None:
        """Refuse weights whose inputs a score or a reconstruction later in the training will need and not find."""
        recipe = self._recipe
        if recipe.reads_inputs and recipe.sparsity.highest > 0.0 and not recipe.born_sparse and self._look is not None:
            with self._look(recipe.score_batches) as network:
                look_at_passes(network, recipe.reads_batches[0])

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

    def reconstruct(
        self,
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
        moved: Callable[[str, Tensor], None],
        *,
        at_birth: bool,
    ) -> dict[str, Tensor]:
        """Do what :func:`.reconstruction.reconstruct` does; ``obs`` as the score lets it choose which connections die."""
        assert self._look is not None  # or __init__ has refused
        choose = self._recipe.units if (self._birth if at_birth else self._drop) is obs else None
        with self._look(self._recipe.score_batches) as network:
            return reconstruct(network, before, after, choose, moved)

    def _scores(self, score: Any) -> OnFirstUse:
        found: dict[str, Tensor] = {}  # by a score of the whole network

        def of_layer(name: str) -> Tensor:
            layer = self._layer(name)
            if is_of_network(score) and not found and self._look is not None:
                with self._look(self._recipe.score_batches) as network:
                    found.update(_of_network(score, network))
            return found[name] if is_of_network(score) else _of_layer(score, layer)

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


def _of_layer(score: Any, layer: Layer, *, trial: bool = False) -> Tensor:
    if _is_ours(score):
        return score(layer)  # type: ignore[no-any-return]
    told = {"layer.weight": layer.weight, "layer.gradient": layer.dense_gradient}
    with returned.unwritten(score, "the score", told), returned.calling("a score", score):
        found = score(layer)
    return returned.scores(score, found, layer.name, layer.weight, nan=trial)


def _of_network(score: Any, network: Network) -> Mapping[str, Tensor]:
    if _is_ours(score):
        return score(network)  # type: ignore[no-any-return]
    with returned.calling("a score of the whole network", score):
        found = score(network)
    return returned.network_scores(score, found, network.parameters)


def _is_ours(score: object) -> bool:
    kinds = [*DROP.values(), *GROW.values()]
    return any(score is kind or type(score) is kind for kind in kinds)


def _own(score: Any) -> Any:
    # A copy, so that a score does not carry its memory of one training into the next.
    return score() if isinstance(score, type) else copy.deepcopy(score)
