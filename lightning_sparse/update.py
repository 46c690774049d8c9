"""One mask update as a function of masks and scores: drop and grow to the counts, then replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lightning_sparse.allocation import Allocation, global_, globally
from lightning_sparse.criteria import Layer, Score
from lightning_sparse.errors import SparsityError
from lightning_sparse.selection import highest, lowest, marked


@dataclass(frozen=True)
class Update:
    """What one mask update did.

    Attributes:
        step: optimizer steps taken before it.
        phase: name of the phase of the sparsity curve.
        asked: sparsity asked for.
        sparsity: sparsity achieved.
        died: connections that lived before and are dead after.
        born: connections that were dead before and live after.
        replaced: of both, how many were turnover (one death and one birth each).
        shortfall: connections that turnover should have replaced and could not, for want of dead or living ones.
        turnover: share of the living that was replaced.
    """

    step: int
    phase: str
    asked: float
    sparsity: float
    died: int
    born: int
    replaced: int
    shortfall: int
    turnover: float


def next_masks(
    before: Mapping[str, Tensor],
    living: int,
    turnover: float,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    allocation: Allocation,
) -> tuple[dict[str, Tensor], int, int]:
    """Return the masks after one update.

    First the density: the allocation says how many connections live in each layer, the lowest drop scores die and the
    highest grow scores are born. Then turnover, in each layer: k = min(round(turnover * living), connections dead before
    the update and still dead); the k with the lowest drop score die among those that lived before, and k of those dead
    before are born by grow score. So nothing is dropped by the update that bore it, or born by the one that dropped it.

    Args:
        before: boolean masks by layer.
        living: connections that shall live in all.
        turnover: share of the living to replace, in [0, 1].
        drop: drop scores by layer, of the masks' shapes.
        grow: grow scores by layer, likewise; neither is read where it is not needed.
        allocation: shares ``living`` between the layers, where that number changes.

    Returns:
        The new masks, how many connections turnover replaced, and how many it could not.

    Example:
        >>> import torch
        >>> before = {"w": torch.tensor([True, True, False, False])}
        >>> drop, grow = {"w": torch.tensor([5.0, 1.0, 0.0, 0.0])}, {"w": torch.tensor([9.0, 9.0, 2.0, 3.0])}
        >>> masks, replaced, shortfall = next_masks(before, 2, 0.5, drop, grow, lambda scores, masks, living: {"w": 2})
        >>> masks["w"].tolist(), replaced, shortfall
        ([True, False, False, True], 1, 0)
    """
    present = {name: marked(mask) for name, mask in before.items()}
    resized = dict(before)
    if living != sum(present.values()):  # where the density stands still, connections stay in the layer they are in
        resized = _resize(before, present, living, drop, grow, allocation)
    replaced = shortfall = 0
    for name, mask in resized.items():
        wanted = round(turnover * marked(mask)) if turnover else 0
        if wanted:
            resized[name], done = _replace(mask, before[name], wanted, drop[name], grow[name])
            replaced, shortfall = replaced + done, shortfall + wanted - done
    return resized, replaced, shortfall


class ScoresOnce(dict[str, Tensor]):
    """Scores by layer, each computed when it is first asked for, so that random ones are drawn once.

    Args:
        score: the score.
        layer: gives the :class:`Layer` of a name.
    """

    def __init__(self, score: Score, layer: Callable[[str], Layer]) -> None:
        super().__init__()
        self._score, self._layer = score, layer

    def __missing__(self, name: str) -> Tensor:
        layer = self._layer(name)
        scores = self._score(layer)
        if scores.shape != layer.weight.shape:
            raise SparsityError(
                f"the score {self._score!r} returned shape {tuple(scores.shape)} for {name!r}: return one number a "
                f"connection, shape {tuple(layer.weight.shape)}"
            )
        self[name] = scores
        return scores


def _resize(
    before: Mapping[str, Tensor],
    present: Mapping[str, int],
    living: int,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    allocation: Allocation,
) -> dict[str, Tensor]:
    change = living - sum(present.values())
    ranking = drop if change < 0 else grow
    scores = {name: ranking[name] for name in before}
    if allocation is global_:  # ranking layer by layer what one ranking has chosen would choose the same again
        return globally(scores, before, present, change)
    counts, after = allocation(scores, before, living), {}
    for name, mask in before.items():
        change = counts[name] - present[name]
        if change < 0:
            after[name] = mask ^ lowest(drop[name], -change, among=mask)
        else:
            after[name] = mask ^ highest(grow[name], change, among=~mask) if change else mask
    return after


def _replace(mask: Tensor, before: Tensor, wanted: int, drop: Tensor, grow: Tensor) -> tuple[Tensor, int]:
    old, vacant = mask & before, ~(mask | before)
    done = min(wanted, marked(old), marked(vacant))
    return (mask ^ lowest(drop, done, among=old)) | highest(grow, done, among=vacant), done
