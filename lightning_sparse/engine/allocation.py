"""How the living connections are shared between the layers.

An allocation is a function ``(scores, masks, living) -> counts``: from each layer's scores (drop scores where the
network is to shrink, grow scores where it is to grow), its present boolean mask and the number of connections that
shall live in all, it says how many shall live in each. The counts add up to ``living`` exactly, and every layer keeps
at least one connection.

An object may do more, as :class:`~lightning_sparse.LayerRules` does, and what it can is asked of it: ``check(parameters,
sparsities, granularity, redistribute)`` refuses before training what cannot be met; ``towards(highest)`` returns the
allocation of a training whose highest sparsity that is; ``in_units(scores, masks, living, units)`` counts where connections
live or die in units of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightning_sparse.engine.selection import count_true, extremes, is_empty, lowest

Allocation = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], int], dict[str, int]]


def uniform(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """The same density in every layer, to within one connection.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(100, dtype=torch.bool), "b": torch.ones(50, dtype=torch.bool)}
        >>> uniform({}, masks, 15)
        {'a': 10, 'b': 5}
    """
    return one_way(apportion(living, by_size(masks), _sizes(masks)), masks)


def erk(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """Erdős–Rényi-Kernel: living connections in proportion to the sum of a layer's dimensions.

    That is a density of (n_in + n_out + kernel sizes) / (n_in * n_out * kernel sizes), times one factor for all; a layer
    that would need more than it has is dense. Mocanu et al. 2018 (SET), Evci et al. 2020 (RigL, arXiv 1911.11134).

    Example:
        >>> import torch
        >>> masks = {"wide": torch.ones(100, 100, dtype=torch.bool), "head": torch.ones(10, 100, dtype=torch.bool)}
        >>> erk({}, masks, 620)
        {'wide': 400, 'head': 220}
    """
    return one_way(apportion(living, by_dimensions(masks), _sizes(masks)), masks)


def global_(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """One ranking for the whole network: the lowest scores anywhere die, or the highest anywhere are born.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)}
        >>> global_({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([4.0, 5.0, 6.0])}, masks, 4)
        {'a': 1, 'b': 3}
    """
    present = {name: count_true(mask) for name, mask in masks.items()}
    after = globally(scores, masks, present, living - sum(present.values()))
    return {name: count_true(mask) for name, mask in after.items()}


def globally(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    present: Mapping[str, int],
    change: int,
    least: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The masks after ``change`` connections were born, or died if it is negative, where one ranking decides.

    A layer that would fall below what it keeps at least (one connection, or what ``least`` says) keeps its best ones, and
    another layer gives more.
    """
    full = [name for name, mask in masks.items() if present[name] == mask.numel()]
    among = [~mask if change > 0 else None if name in full else mask for name, mask in masks.items()]
    marks = extremes([scores[name] for name in masks], abs(change), among, from_above=change > 0)
    after = {name: mark.logical_xor_(masks[name]) for name, mark in zip(masks, marks, strict=True)}
    if change >= 0:
        return after
    kept = {n: 1 if least is None else min(least[n], present[n]) for n, m in after.items() if _is_below(n, m, least)}
    if kept:
        best = {n: masks[n] ^ lowest(scores[n], present[n] - count, among=masks[n]) for n, count in kept.items()}
        others = {name: mask for name, mask in masks.items() if name not in kept}
        given = sum(present[name] - count for name, count in kept.items())
        after = best | (globally(scores, others, present, change + given, least) if others else {})
    return {name: after[name] for name in masks}


def _is_below(name: str, mask: Tensor, least: Mapping[str, int] | None) -> bool:
    return is_empty(mask) if least is None else count_true(mask) < least[name]


ALLOCATIONS: dict[str, Allocation] = {"global": global_, "uniform": uniform, "erk": erk}


def check_allocation(allocation: Allocation, *of_a_training: Any) -> None:
    """Refuse before training what cannot be met, if the allocation has a ``check`` for that."""
    check = getattr(allocation, "check", None)
    if check is not None:
        check(*of_a_training)


def by_size(masks: Mapping[str, Tensor]) -> dict[str, float]:
    """What :func:`uniform` shares by."""
    return {name: float(mask.numel()) for name, mask in masks.items()}


def by_dimensions(masks: Mapping[str, Tensor]) -> dict[str, float]:
    """What :func:`erk` shares by."""
    return {name: float(sum(mask.shape)) for name, mask in masks.items()}


def _sizes(masks: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: mask.numel() for name, mask in masks.items()}


def apportion(
    living: int, weights: Mapping[str, float], most: Mapping[str, int], least: Mapping[str, int] | int = 1
) -> dict[str, int]:
    """Share ``living`` connections in proportion to ``weights``, but between ``least`` and ``most`` a layer, exactly.

    What a full layer cannot take goes to the others in proportion; fractions are settled by the largest remainder, ties
    in the order of the layers.

    Args:
        living: how many connections there are to share, between the sums of ``least`` and ``most``.
        weights: of each layer; one of weight zero gets its least.
        most: how many each layer can take.
        least: how many each layer gets in any case, a number for all of them or one for each.

    Example:
        >>> apportion(14, {"a": 1.0, "b": 1.0}, most={"a": 4, "b": 100})
        {'a': 4, 'b': 10}
    """
    floors = {name: float(least if isinstance(least, int) else least[name]) for name in most}

    def quotas(scale: float) -> dict[str, float]:
        return {name: min(max(scale * weights[name], floors[name]), size) for name, size in most.items()}

    low, high = 0.0, max((size / weights[name] for name, size in most.items() if weights[name]), default=0.0)
    for _ in range(100):  # the sum of the quotas grows with the scale: halve until it is `living` to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if sum(quotas(middle).values()) < living else (low, middle)
    shares = quotas(low)
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: living - sum(counts.values())]:
        counts[name] += 1
    return counts


def one_way(counts: dict[str, int], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return counts of the same sum under which no layer grows while the network shrinks, or shrinks while it grows.

    Rounding alone can ask for that, of one connection (the Alabama paradox of largest remainders): pruning would then bear
    it, and before the first step there is not even a gradient to choose it by. The other layers change by less instead, in
    proportion.

    Args:
        counts: how many connections an allocation wants to live in each layer.
        masks: the present masks.

    Example:
        >>> import torch
        >>> masks = {name: torch.arange(20) < living for name, living in {"a": 10, "b": 10, "c": 2}.items()}
        >>> one_way({"a": 8, "b": 9, "c": 3}, masks)
        {'a': 9, 'b': 9, 'c': 2}
    """
    changes = {name: counts[name] - count_true(mask) for name, mask in masks.items()}
    total = sum(changes.values())
    sign = 1 if total > 0 else -1
    along = {name: max(sign * change, 0) for name, change in changes.items()}
    if sum(along.values()) == abs(total):
        return counts
    shared = apportion(abs(total), {name: float(change) for name, change in along.items()}, along, least=0)
    return {name: counts[name] - changes[name] + sign * shared[name] for name in counts}


def layer_table(masks: Mapping[str, Tensor]) -> str:
    """What each layer has, as text: name, shape, connections, how many of them live, and that in percent.

    Before a training, :func:`lightning_sparse.allocate` makes the masks.

    Args:
        masks: boolean tensors by name, such as :class:`~lightning_sparse.Masks`.

    Example:
        >>> import torch
        >>> print(layer_table({"body.weight": torch.arange(200).view(10, 20) < 30, "head.weight": torch.ones(2, 10) > 0}))
        layer        shape    connections  living  density %
        body.weight  10 x 20          200      30      15.00
        head.weight  2 x 10            20      20     100.00
        total                         220      50      22.73
    """
    rows = [(name, " x ".join(map(str, mask.shape)), mask.numel(), count_true(mask)) for name, mask in masks.items()]
    rows.append(("total", "", sum(row[2] for row in rows), sum(row[3] for row in rows)))
    cells = [("layer", "shape", "connections", "living", "density %")]
    cells += [(name, shape, str(size), str(living), f"{100 * living / size:.2f}") for name, shape, size, living in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = "<<>>>"
    lines = ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)) for row in cells]
    return "\n".join(lines)
