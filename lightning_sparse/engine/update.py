"""One mask update as a function of masks and scores: drop and grow to the counts, then replace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from lightning_sparse.anatomy.modules import check_tensors
from lightning_sparse.anatomy.parameters import inputs_first, outputs_first
from lightning_sparse.engine.allocation import (
    ALLOCATIONS,
    TAKES,
    Allocation,
    Counts,
    Tensors,
    apportion,
    check_allocation,
    global_,
    globally,
    shared,
)
from lightning_sparse.engine.choices import find
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import WEIGHTS, Blocks, Granularity, Groups, whole_units
from lightning_sparse.engine.layer_rules import LayerRules
from lightning_sparse.engine.selection import count_true, counts_true, extremes, highest, lowest
from lightning_sparse.engine.tied_channels import TiedChannels
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
        replaced: how many of both were turnover (one death and one birth each).
        shortfall: connections that turnover should have replaced and could not, because too few were dead or alive.
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
    before: Tensors,
    living: int,
    turnover: float,
    drop: Tensors,
    grow: Tensors,
    allocation: Allocation,
    granularity: Granularity = WEIGHTS,
    redistribute: bool = False,
    turned: Collection[str] = (),
) -> tuple[dict[str, Tensor], int, int]:
    """Return the masks after one update, how many connections turnover replaced, and how many it could not.

    First the density, if it changes: the allocation says how many connections live in each layer, those with the lowest
    drop scores die and those with the highest grow scores are born. Then turnover, in each layer: k = min(round(turnover *
    living), connections dead before the update and still dead); of those that lived before, the k with the lowest drop
    scores die, and of those dead before, the k with the highest grow scores are born. So no update drops what it bore, or
    bears what it dropped. Neither kind of score is read unless it is needed.

    In blocks or channels, read "unit" for "connection"; ``living`` is then met as closely as units allow: to half a unit
    under one ranking, and to one unit a layer where layers have counts of their own. Connections are not grown only to make
    up for rounding.

    With ``redistribute``, layers share what turnover frees in proportion to the mean grow score of their living
    connections, instead of keeping their own: Dettmers & Zettlemoyer 2019 (SNFS, arXiv 1907.04840).

    ``turned`` names the weights of shape (inputs, outputs): groups, blocks and channels are those of their transpose.

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
    if turned and granularity != WEIGHTS:

        def turn(tensors: Tensors, name: str) -> Tensor:
            return tensors[name].mT.contiguous() if name in turned else tensors[name]

        masks = {name: turn(before, name) for name in before}
        drops, grows = OnFirstUse(lambda name: turn(drop, name)), OnFirstUse(lambda name: turn(grow, name))
        after, replaced, shortfall = next_masks(
            masks, living, turnover, drops, grows, allocation, granularity, redistribute
        )
        return {name: turn(after, name) for name in after}, replaced, shortfall
    if isinstance(granularity, TiedChannels):
        return _next_tied(before, living, turnover, drop, grow, allocation, granularity)
    if isinstance(granularity, Blocks):
        return _next_blocks(before, living, turnover, drop, grow, allocation, granularity)
    resized = _resize(before, living, drop, grow, allocation, granularity)
    return (_redistribute if redistribute else _replace)(resized, before, turnover, drop, grow)


def allocate(
    parameters: Mapping[str, Tensor],
    sparsity: float,
    allocation: str | Allocation = "global",
    granularity: str | Granularity = "weights",
) -> dict[str, Tensor]:
    """Return the masks that one-shot pruning by magnitude would make now, to see an allocation before any training.

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
    check_tensors("parameters", parameters)
    check_share("sparsity", sparsity, one_allowed=False)
    units, share = parse_granularity(granularity), find("allocation", allocation, ALLOCATIONS, TAKES)
    if isinstance(units, TiedChannels) and units.ties is None:
        raise SparsityError(
            "granularity='tied_channels' needs a network, through which a batch is followed: write 'channels' here, or look "
            "at the masks of a callback or of attach() after its first update"
        )
    units.check(parameters, [sparsity], allocation=allocation)
    check_allocation(share, outputs_first(parameters), [sparsity], units)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in parameters.items()}
    total = sum(mask.numel() for mask in masks.values())
    scores = {name: weight.detach().abs() for name, weight in parameters.items()}
    living, turned = total - round(sparsity * total), inputs_first(parameters)
    return next_masks(masks, living, 0.0, scores, scores, share, units, turned=turned)[0]


class OnFirstUse(dict[str, Tensor]):
    """Tensors by layer, each made when first read: what is not needed costs nothing, and noise is drawn only once."""

    def __init__(self, make: Callable[[str], Tensor]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Tensor:
        self[name] = self._make(name)
        return self[name]


def _resize(
    before: Tensors, living: int, drop: Tensors, grow: Tensors, allocation: Allocation, granularity: Granularity
) -> dict[str, Tensor]:
    present = counts_true(before)
    change = living - sum(present.values())
    if not change:  # connections stay in the layers that they are in
        return dict(before)
    ranking = drop if change < 0 else grow
    scores = {name: ranking[name] for name in before}
    mortal = before
    if isinstance(granularity, Groups) and change < 0:
        mortal = {name: mask & ~granularity.protected(scores[name], mask) for name, mask in before.items()}
        if allocation is global_:  # groups let it empty no layer
            marks = extremes(list(scores.values()), -change, list(mortal.values()), from_above=False)
            return {name: before[name] ^ mark for name, mark in zip(before, marks, strict=True)}
    if allocation is global_:  # ranking each layer again would choose the same connections
        return globally(scores, before, present, change)
    return _to_counts(before, present, shared(allocation, scores, before, living), drop, grow, mortal)


def _to_counts(
    before: Tensors, present: Counts, counts: Counts, drop: Tensors, grow: Tensors, mortal: Tensors
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
    before: Tensors,
    turnover: float,
    drop: Tensors,
    grow: Tensors,
    sizes: Counts | None = None,
) -> tuple[dict[str, Tensor], int, int]:
    """Turnover within each layer; ``sizes`` says how many connections an entry of its mask stands for."""
    replaced = shortfall = 0
    for name, living in (counts_true(resized) if turnover else {}).items():
        wanted, mask = round(turnover * living), resized[name]
        if wanted:
            old, vacant = mask & before[name], ~(mask | before[name])
            done, size = min(wanted, count_true(old), count_true(vacant)), sizes[name] if sizes else 1
            resized[name] = (mask ^ lowest(drop[name], done, among=old)) | highest(grow[name], done, among=vacant)
            replaced, shortfall = replaced + done * size, shortfall + (wanted - done) * size
    return resized, replaced, shortfall


def _redistribute(
    resized: dict[str, Tensor], before: Tensors, turnover: float, drop: Tensors, grow: Tensors
) -> tuple[dict[str, Tensor], int, int]:
    """Turnover between layers: each, even a full one, gives round(turnover * living), but keeps at least one."""
    if not turnover:
        return resized, 0, 0
    old = {name: mask & before[name] for name, mask in resized.items()}
    vacant = {name: ~(mask | before[name]) for name, mask in resized.items()}
    living = counts_true(resized)
    wanted = {name: round(turnover * count) for name, count in living.items()}
    room, given = counts_true(vacant), counts_true(old)
    freed = {name: min(count, given[name], living[name] - 1) for name, count in wanted.items()}
    total = min(sum(freed.values()), sum(room.values()))
    if not total:
        return resized, 0, sum(wanted.values())
    freed = apportion(total, freed, freed, least=0)
    kept = {n: m ^ lowest(drop[n], freed[n], among=old[n]) if freed[n] else m for n, m in resized.items()}
    pull = {name: _mean(name, grow[name][mask]) for name, mask in resized.items()}  # of connections that lived before
    pulling = {name: count for name, count in room.items() if pull[name] > 0.0}
    others = {name: count for name, count in room.items() if name not in pulling}
    drawn = min(total, sum(pulling.values()))
    births = apportion(drawn, pull, pulling, least=0)  # what a layer has no room for goes to the others
    births |= apportion(total - drawn, others, others, least=0)
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
    before: Tensors, living: int, turnover: float, drop: Tensors, grow: Tensors, allocation: Allocation, units: Blocks
) -> tuple[dict[str, Tensor], int, int]:
    """The same update, of masks and scores with one entry a block."""
    sizes = {name: units.size(mask.shape) for name, mask in before.items()}
    blocks = {name: units.alive(mask) for name, mask in before.items()}
    drops, grows = OnFirstUse(lambda n: units.means(drop[n])), OnFirstUse(lambda n: units.means(grow[n]))

    def spread(of_blocks: Tensors) -> Tensors:
        return OnFirstUse(lambda name: units.spread(of_blocks[name], before[name].shape))

    after, replaced, shortfall = _next_units(sizes, blocks, drops, grows, living, turnover, allocation, spread)
    return {name: spread(after)[name] for name in after}, replaced, shortfall


def _next_tied(
    before: Tensors,
    living: int,
    turnover: float,
    drop: Tensors,
    grow: Tensors,
    allocation: Allocation,
    ties: TiedChannels,
) -> tuple[dict[str, Tensor], int, int]:
    """The same update, of masks and scores with one entry a tied channel; what belongs to none lives on."""
    sizes, slots = ties.sizes, ties.alive(before)
    drops, grows = OnFirstUse(lambda n: ties.means(n, drop)), OnFirstUse(lambda n: ties.means(n, grow))
    untied = sum(mask.numel() for mask in before.values()) - sum(sizes[n] * len(alive) for n, alive in slots.items())

    def spread(of_slots: Tensors) -> Tensors:
        return OnFirstUse(lambda name: of_slots[name][:, None].expand(-1, sizes[name]))

    after, replaced, shortfall = _next_units(sizes, slots, drops, grows, living - untied, turnover, allocation, spread)
    return ties.spread(after, before), replaced, shortfall


def _next_units(
    sizes: Counts,
    units: dict[str, Tensor],
    drops: Tensors,
    grows: Tensors,
    living: int,
    turnover: float,
    allocation: Allocation,
    spread: Callable[[Tensors], Tensors],
) -> tuple[dict[str, Tensor], int, int]:
    """``sizes`` is how many connections a unit of each layer has, and ``spread`` gives each of them what its unit has."""
    present = counts_true(units)
    change, resized = living - sum(present[name] * size for name, size in sizes.items()), dict(units)
    rounding = (
        max(sizes.values()) / 2 if allocation is global_ else sum(sizes.values())
    )  # the most that it can leave undone
    if change < 0 or change > rounding:
        scores, masks = spread(drops if change < 0 else grows), {name: spread(units)[name] for name in units}
        # An allocation with a name is the same as LayerRules without a rule, which can count in units.
        rules = next((LayerRules(name) for name, named in ALLOCATIONS.items() if named is allocation), allocation)
        in_units = getattr(rules, "in_units", None)
        counts = in_units(scores, masks, living, sizes) if in_units else shared(rules, scores, masks, living)
        whole = {name: whole_units(count, sizes[name]) for name, count in counts.items()}
        resized = _to_counts(units, present, whole, drops, grows, units)
    return _replace(resized, units, turnover, drops, grows, sizes)
