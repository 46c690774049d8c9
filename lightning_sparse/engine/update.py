"""One mask update as a function of masks and scores: drop and grow to the counts, then replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from lightning_sparse.engine.allocation import (
    ALLOCATIONS,
    Allocation,
    apportion,
    check_allocation,
    global_,
    globally,
)
from lightning_sparse.engine.choices import find
from lightning_sparse.engine.granularity import WEIGHTS, Blocks, Granularity, Groups, parse_granularity, whole_units
from lightning_sparse.engine.layer_rules import LayerRules
from lightning_sparse.engine.selection import count_true, extremes, highest, lowest
from lightning_sparse.errors import SparsityError, check_share


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
    granularity: Granularity = WEIGHTS,
    redistribute: bool = False,
) -> tuple[dict[str, Tensor], int, int]:
    """Return the masks after one update.

    First the density: the allocation says how many connections live in each layer, the lowest drop scores die and the
    highest grow scores are born. Then turnover, in each layer: k = min(round(turnover * living), connections dead before
    the update and still dead); the k with the lowest drop score die among those that lived before, and k of those dead
    before are born by grow score. So nothing is dropped by the update that bore it, or born by the one that dropped it.

    In blocks or channels, unit stands for connection in all of this, and ``living`` is met as nearly as units allow: to half
    a unit under one ranking, and to one unit a layer where layers have counts of their own. What rounding has left undone
    is not grown for.

    Args:
        before: boolean masks by layer.
        living: connections that shall live in all.
        turnover: share of the living to replace, in [0, 1].
        drop: drop scores by layer, of the masks' shapes.
        grow: grow scores by layer, likewise; neither is read where it is not needed.
        allocation: shares ``living`` between the layers, where that number changes.
        granularity: what lives or dies as one.
        redistribute: give what turnover frees to the layers in proportion to the mean grow score of their living
            connections, not back to the layer that it came from. Dettmers & Zettlemoyer 2019 (SNFS, arXiv 1907.04840).

    Returns:
        The new masks, how many connections turnover replaced, and how many it could not.

    Example:
        >>> before = {"w": torch.tensor([True, True, False, False])}
        >>> drop, grow = {"w": torch.tensor([5.0, 1.0, 0.0, 0.0])}, {"w": torch.tensor([9.0, 9.0, 2.0, 3.0])}
        >>> masks, replaced, shortfall = next_masks(before, 2, 0.5, drop, grow, lambda scores, masks, living: {"w": 2})
        >>> masks["w"].tolist(), replaced, shortfall
        ([True, False, False, True], 1, 0)
    """
    if living == sum(mask.numel() for mask in before.values()):  # nothing to choose
        unmet = sum(round(turnover * mask.numel()) for mask in before.values())
        return {name: torch.ones_like(mask) for name, mask in before.items()}, 0, unmet
    if isinstance(granularity, Blocks):
        return _next_blocks(before, living, turnover, drop, grow, allocation, granularity)
    present = {name: count_true(mask) for name, mask in before.items()}
    resized = dict(before)
    if living != sum(present.values()):  # where the density stands still, connections stay in the layer they are in
        resized = _resize(before, present, living, drop, grow, allocation, granularity)
    replace = _redistribute if redistribute else _replace
    return replace(resized, before, turnover, drop, grow)


def allocate(
    parameters: Mapping[str, Tensor],
    sparsity: float,
    allocation: str | Allocation = "global",
    granularity: str | Granularity = "weights",
) -> dict[str, Tensor]:
    """Return the masks that one-shot pruning by magnitude would make now: a look at an allocation before any training.

    Args:
        parameters: what is to be made sparse, by name, as :func:`~lightning_sparse.sparsifiable` finds it.
        sparsity: share of dead connections, in [0, 1).
        allocation: a name, an object such as :class:`~lightning_sparse.LayerRules`, or your own function.
        granularity: a name such as ``"weights"`` or ``"2:4"``, or an object.

    Raises:
        SparsityError: if a choice does not exist or cannot be met.

    Example:
        >>> from lightning_sparse.engine.allocation import layer_table
        >>> weights = {"body.weight": torch.ones(300, 784), "head.weight": torch.ones(10, 300)}
        >>> print(layer_table(allocate(weights, 0.99, "erk")))
        layer        shape      connections  living  density %
        body.weight  300 x 784       235200    1852       0.79
        head.weight  10 x 300          3000     530      17.67
        total                        238200    2382       1.00
    """
    check_share("sparsity", sparsity, one_allowed=False)
    units, share = parse_granularity(granularity), find("allocation", allocation, ALLOCATIONS)
    units.check(parameters, [sparsity], allocation=allocation)
    check_allocation(share, parameters, [sparsity], units)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in parameters.items()}
    total = sum(mask.numel() for mask in masks.values())
    scores = {name: weight.detach().abs() for name, weight in parameters.items()}
    return next_masks(masks, total - round(sparsity * total), 0.0, scores, scores, share, units)[0]


class OnFirstUse(dict[str, Tensor]):
    """Tensors by layer, each made when first asked for: what is not needed costs nothing, and noise is drawn once.

    Args:
        make: gives the tensor of a name.
    """

    def __init__(self, make: Callable[[str], Tensor]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Tensor:
        self[name] = self._make(name)
        return self[name]


def _resize(
    before: Mapping[str, Tensor],
    present: Mapping[str, int],
    living: int,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    allocation: Allocation,
    granularity: Granularity,
) -> dict[str, Tensor]:
    change = living - sum(present.values())
    ranking = drop if change < 0 else grow
    scores = {name: ranking[name] for name in before}
    mortal: Mapping[str, Tensor] = before
    if isinstance(granularity, Groups) and change < 0:
        mortal = {name: mask & ~granularity.protected(scores[name], mask) for name, mask in before.items()}
        if allocation is global_:  # no layer can be emptied
            marks = extremes(list(scores.values()), -change, list(mortal.values()), from_above=False)
            return {name: before[name] ^ mark for name, mark in zip(before, marks, strict=True)}
    if allocation is global_:  # ranking layer by layer what one ranking has chosen would choose the same again
        return globally(scores, before, present, change)
    return _to_counts(before, present, allocation(scores, before, living), drop, grow, mortal)


def _to_counts(
    before: Mapping[str, Tensor],
    present: Mapping[str, int],
    counts: Mapping[str, int],
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    mortal: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    after = {}
    for name, mask in before.items():
        change = counts[name] - present[name]
        if change < 0:
            after[name] = mask ^ lowest(drop[name], -change, among=mortal[name])
        else:
            after[name] = mask ^ highest(grow[name], change, among=~mask) if change else mask
    return after


def _replace(
    resized: dict[str, Tensor],
    before: Mapping[str, Tensor],
    turnover: float,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    sizes: Mapping[str, int] | None = None,
) -> tuple[dict[str, Tensor], int, int]:
    """Turnover within each layer; ``sizes`` says how many connections an entry of its mask stands for."""
    replaced = shortfall = 0
    for name, mask in resized.items():
        wanted = round(turnover * count_true(mask)) if turnover else 0
        if wanted:
            old, vacant = mask & before[name], ~(mask | before[name])
            done, size = min(wanted, count_true(old), count_true(vacant)), sizes[name] if sizes else 1
            resized[name] = (mask ^ lowest(drop[name], done, among=old)) | highest(grow[name], done, among=vacant)
            replaced, shortfall = replaced + done * size, shortfall + (wanted - done) * size
    return resized, replaced, shortfall


def _redistribute(
    resized: dict[str, Tensor],
    before: Mapping[str, Tensor],
    turnover: float,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], int, int]:
    """Turnover between layers: each gives round(turnover * living), as a full one can too, and one of it stays."""
    if not turnover:
        return resized, 0, 0
    old = {name: mask & before[name] for name, mask in resized.items()}
    vacant = {name: ~(mask | before[name]) for name, mask in resized.items()}
    living = {name: count_true(mask) for name, mask in resized.items()}
    wanted = {name: round(turnover * count) for name, count in living.items()}
    room = {name: count_true(mask) for name, mask in vacant.items()}
    freed = {name: min(count, count_true(old[name]), living[name] - 1) for name, count in wanted.items()}
    total = min(sum(freed.values()), sum(room.values()))
    if not total:
        return resized, 0, sum(wanted.values())
    freed = apportion(total, {name: float(count) for name, count in freed.items()}, freed, least=0)
    kept = {n: m ^ lowest(drop[n], freed[n], among=old[n]) if freed[n] else m for n, m in resized.items()}
    pull = {name: _mean(name, grow[name][mask]) for name, mask in resized.items()}  # of those that lived, as theirs
    pulling = {name: count for name, count in room.items() if pull[name] > 0.0}
    others = {name: count for name, count in room.items() if name not in pulling}
    drawn = min(total, sum(pulling.values()))
    births = apportion(drawn, pull, pulling, least=0)  # what a layer has no room for goes to the others
    births |= apportion(total - drawn, {name: float(count) for name, count in others.items()}, others, least=0)
    after = {n: m | highest(grow[n], births[n], among=vacant[n]) if births[n] else m for n, m in kept.items()}
    return after, total, sum(wanted.values()) - total


def _mean(name: str, scores: Tensor) -> float:
    mean = float(scores.float().mean())
    if not isfinite(mean):
        raise SparsityError(
            f"the mean grow score of the living connections of {name!r} is {mean}, so connections cannot be shared between "
            "the layers: the training has probably diverged"
        )
    return mean


def _next_blocks(
    before: Mapping[str, Tensor],
    living: int,
    turnover: float,
    drop: Mapping[str, Tensor],
    grow: Mapping[str, Tensor],
    allocation: Allocation,
    granularity: Blocks,
) -> tuple[dict[str, Tensor], int, int]:
    """The same update, of masks and scores with one entry a block."""
    sizes = {name: granularity.size(mask.shape) for name, mask in before.items()}
    blocks = {name: granularity.alive(mask) for name, mask in before.items()}
    present = {name: count_true(mask) for name, mask in blocks.items()}
    drops, grows = OnFirstUse(lambda n: granularity.means(drop[n])), OnFirstUse(lambda n: granularity.means(grow[n]))

    def spread(of_blocks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return OnFirstUse(lambda name: granularity.spread(of_blocks[name], before[name].shape))

    change, resized = living - sum(present[name] * size for name, size in sizes.items()), dict(blocks)
    rounding = max(sizes.values()) / 2 if allocation is global_ else sum(sizes.values())  # what it can have left undone
    if change < 0 or change > rounding:
        scores, masks = spread(drops if change < 0 else grows), {name: spread(blocks)[name] for name in blocks}
        # One with a name is the rules without a rule, which can count in units.
        rules = next((LayerRules(name) for name, named in ALLOCATIONS.items() if named is allocation), allocation)
        in_units = getattr(rules, "in_units", None)
        if in_units is not None:
            counts = in_units(scores, masks, living, sizes)
        else:
            counts = rules({name: scores[name] for name in masks}, masks, living)
        whole = {name: whole_units(count, sizes[name]) for name, count in counts.items()}
        resized = _to_counts(blocks, present, whole, drops, grows, blocks)
    after, replaced, shortfall = _replace(resized, blocks, turnover, drops, grows, sizes)
    return {name: spread(after)[name] for name in after}, replaced, shortfall
