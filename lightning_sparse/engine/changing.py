"""Carry out an update: the masks change, in rounds where the recipe says so, and the newborns start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse.engine.masks import Masks
from lightning_sparse.engine.optimizers import copies_of_weights, start_newborns
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.scoring import Scoring
from lightning_sparse.engine.selection import count_true


class Change(NamedTuple):
    """How many connections died, were born and were replaced, and how many were to be replaced and could not."""

    died: int
    born: int
    replaced: int
    shortfall: int


def change_masks(
    masks: Masks,
    parameters: Mapping[str, Tensor],
    recipe: Recipe,
    scoring: Scoring,
    owners: Mapping[str, Sequence[Optimizer]],
    living: int,
    turnover: float,
    *,
    at_birth: bool,
) -> Change:
    """Change the masks so that ``living`` connections live, and start the newborns in their optimizers.

    Where the recipe reconstructs, the weights that live on make up for those that die, and what optimizers keep as copies
    of them moves along.

    Between rounds the dead are zeroed; after the last that is left to the caller.

    Args:
        masks: what changes.
        parameters: the weights, by name.
        recipe: in how many rounds, and whether connections move between layers.
        scoring: says which die and which are born.
        owners: the optimizers of each parameter.
        living: how many connections live afterwards.
        turnover: the share of these that is replaced, in [0, 1].
        at_birth: whether this is before the first step.
    """
    before, present = dict(masks), {name: masks.count(name) for name in masks}
    *rounds, last = _targets(masks.living, living, recipe.rounds)
    after = before
    for target in rounds:
        after, _, _ = scoring.next_masks(after, target, 0.0, at_birth=at_birth)
        masks.set_all(after)
        masks.apply(parameters)  # the next round scores what is left
    after, replaced, shortfall = scoring.next_masks(after, last, turnover, at_birth=at_birth)
    if recipe.reconstruct and last < sum(present.values()):

        def moved(name: str, change: Tensor) -> None:
            for optimizer in owners.get(name, ()):
                for copy in copies_of_weights(optimizer, parameters[name]):
                    copy.add_(change)

        after = scoring.reconstruct(before, after, moved, at_birth=at_birth)
    moves = recipe.redistribute
    died = born = 0 if moves else replaced  # beyond turnover, a layer either loses connections or gains some
    masks.set_all(after)
    for name, mask in after.items():
        change = masks.count(name) - present[name]
        for optimizer in owners.get(name, ()) if replaced or change > 0 else ():
            start_newborns(optimizer, parameters[name], mask & ~before[name], before[name])
        born += count_true(mask & ~before[name]) if moves else max(change, 0)
        died += count_true(before[name] & ~mask) if moves else max(-change, 0)
    return Change(died, born, replaced, shortfall)


def _targets(present: int, asked: int, rounds: int) -> list[int]:
    """How many connections are to live after each round: fewer by the same factor each time."""
    if asked >= present or rounds == 1:
        return [asked]
    return [round(present * (asked / present) ** (done / rounds)) for done in range(1, rounds)] + [asked]
