"""How the living connections are shared between the layers.

An allocation is a function ``(scores, masks, living) -> counts``. From each layer's scores (drop scores if the network
shrinks, grow scores if it grows), its present boolean mask and the number of connections that are to live in all, it says
how many live in each. The counts add up to ``living`` exactly, and every layer keeps at least one connection.

An allocation may also be an object with any of these methods, as :class:`~lightning_sparse.LayerRules` is:
``check(parameters, sparsities, granularity, redistribute)`` refuses before training what cannot be met;
``towards(highest)`` returns the allocation for a training with that highest sparsity; and
``in_units(scores, masks, living, units)`` counts where several connections live or die as one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from numbers import Integral
from typing import Any

from torch import Tensor

from lightning_sparse.anatomy.modules import check_tensors
from lightning_sparse.engine.returned import calling, counts, unwritten
from lightning_sparse.engine.selection import count_true, counts_true, extremes, lowest
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.results.text_table import text_table

Tensors = Mapping[str, Tensor]  # one for each layer
Counts = Mapping[str, int]
Allocation = Callable[[Tensors, Tensors, int], dict[str, int]]


def uniform(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """The same density in every layer, to within one connection.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(100, dtype=torch.bool), "b": torch.ones(50, dtype=torch.bool)}
        >>> uniform({}, masks, 15)
        {'a': 10, 'b': 5}
    """
    return one_way(apportion(living, by_size(masks), by_size(masks)), masks)


def erk(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """Erdős–Rényi-Kernel: living connections in proportion to the sum of a layer's dimensions.

    The density is (n_in + n_out + kernel sizes) / (n_in * n_out * kernel sizes), times one factor for all layers; a layer
    that would need more than it has is dense. Mocanu et al. 2018 (SET), Evci et al. 2020 (RigL, arXiv 1911.11134).

    Example:
        >>> import torch
        >>> masks = {"wide": torch.ones(100, 100, dtype=torch.bool), "head": torch.ones(10, 100, dtype=torch.bool)}
        >>> erk({}, masks, 620)
        {'wide': 400, 'head': 220}
    """
    return one_way(apportion(living, by_dimensions(masks), by_size(masks)), masks)


def global_(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """One ranking for the whole network: the lowest scores anywhere die, or the highest anywhere are born.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)}
        >>> global_({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([4.0, 5.0, 6.0])}, masks, 4)
        {'a': 1, 'b': 3}
    """
    present = counts_true(masks)
    after = globally(scores, masks, present, living - sum(present.values()))
    return counts_true(after)


def globally(
    scores: Tensors, masks: Tensors, present: Counts, change: int, least: Counts | None = None
) -> dict[str, Tensor]:
    """The masks after ``change`` connections were born (or died, if it is negative), chosen by one ranking.

    A layer that would fall below its minimum (one connection, or what ``least`` says) keeps its best ones, and another
    layer gives more.
    """
    full = [name for name, mask in masks.items() if present[name] == mask.numel()]
    among = [~mask if change > 0 else None if name in full else mask for name, mask in masks.items()]
    marks = extremes([scores[name] for name in masks], abs(change), among, from_above=change > 0)
    after = {name: mark.logical_xor_(masks[name]) for name, mark in zip(masks, marks, strict=True)}
    if change >= 0:
        return after
    minimum = dict.fromkeys(masks, 1) if least is None else least
    kept = {n: min(minimum[n], present[n]) for n, left in counts_true(after).items() if left < minimum[n]}
    if kept:
        best = {n: masks[n] ^ lowest(scores[n], present[n] - count, among=masks[n]) for n, count in kept.items()}
        others = {name: mask for name, mask in masks.items() if name not in kept}
        given = sum(present[name] - count for name, count in kept.items())
        after = best | (globally(scores, others, present, change + given, least) if others else {})
    return {name: after[name] for name in masks}


TAKES = ("scores", "masks", "living")  # what an allocation is called with
ALLOCATIONS: dict[str, Allocation] = {"global": global_, "uniform": uniform, "erk": erk}


def shared(allocation: Allocation, scores: Tensors, masks: Tensors, living: int) -> dict[str, int]:
    """Ask an allocation for its counts; those of a user's own function are checked, and it gets copies of both mappings."""
    if any(allocation is named for named in ALLOCATIONS.values()):
        return allocation(scores, masks, living)
    told = {f"{what}[{name!r}]": part[name] for what, part in (("scores", scores), ("masks", masks)) for name in masks}
    with unwritten(allocation, "the allocation", told), calling("an allocation", allocation):
        found = allocation({name: scores[name] for name in masks}, dict(masks), living)
    return counts(allocation, found, masks, living)


def check_allocation(allocation: Allocation, *of_a_training: Any) -> None:
    """Call the allocation's ``check``, if it has one."""
    check = getattr(allocation, "check", None)
    if check is not None:
        check(*of_a_training)


def by_size(masks: Tensors) -> dict[str, int]:
    """The weights of :func:`uniform`."""
    return {name: mask.numel() for name, mask in masks.items()}


def by_dimensions(masks: Tensors) -> dict[str, int]:
    """The weights of :func:`erk`."""
    return {name: sum(mask.shape) for name, mask in masks.items()}


def apportion(
    living: int, weights: Mapping[str, float], most: Mapping[str, int], least: Mapping[str, int] | int = 1
) -> dict[str, int]:
    """Share exactly ``living`` connections in proportion to ``weights``, within ``least`` and ``most`` for each layer.

    What a full layer cannot take goes to the others in proportion. The largest remainders are rounded up; ties go to the
    earlier layer.

    Args:
        living: how many connections to share, between the sums of ``least`` and ``most``.
        weights: of each layer; a layer of weight zero gets its least.
        most: how many each layer can take.
        least: how many each layer gets in any case: one number for all, or one for each.

    Raises:
        SparsityError: if an argument is of another kind, or ``living`` is outside what the layers can take.

    Example:
        >>> apportion(14, {"a": 1.0, "b": 1.0}, most={"a": 4, "b": 100})
        {'a': 4, 'b': 10}
    """
    _check_shares(living, weights, most, least)
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


def _check_shares(living: Any, weights: Any, most: Any, least: Any) -> None:
    living = int(living) if isinstance(living, Integral) and not isinstance(living, bool) else living
    check_count("living", living, 0, write="how many connections are to be shared")
    for name, numbers in (("most", most), ("weights", weights), ("least", least)):
        if name == "least" and isinstance(least, int):
            check_count("least", int(least), 0)
            continue
        if not isinstance(numbers, Mapping) or set(most) - set(numbers):
            write = "{name: mask.numel() for name, mask in masks.items()}"
            raise SparsityError(f"{name}={numbers!r} is not a mapping with a number for each layer: write {write}")
        for layer in most:
            number = numbers[layer]
            if not (hasattr(number, "__float__") and 0 <= float(number) < inf):
                raise SparsityError(f"{name}[{layer!r}]={number!r} is not a number of at least 0: write 1.0")
    fewest = sum(min(least if isinstance(least, int) else least[layer], most[layer]) for layer in most)
    if not fewest <= living <= sum(most.values()):
        raise SparsityError(
            f"living={living} cannot be shared by layers that take from {fewest} to {sum(most.values())} in all: write "
            "living=sum(most.values()) or less, or a smaller least"
        )


def one_way(counts: dict[str, int], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Return counts of the same sum by which no layer grows while the network shrinks, or shrinks while it grows.

    Rounding alone can ask for one such connection (the Alabama paradox of largest remainders). Pruning would then have to
    grow it, and before the first step there is no gradient to choose it by. The other layers change by less instead, in
    proportion.

    Example:
        >>> import torch
        >>> masks = {name: torch.arange(20) < living for name, living in {"a": 10, "b": 10, "c": 2}.items()}
        >>> one_way({"a": 8, "b": 9, "c": 3}, masks)
        {'a': 9, 'b': 9, 'c': 2}
    """
    changes = {name: counts[name] - living for name, living in counts_true(masks).items()}
    total = sum(changes.values())
    sign = 1 if total > 0 else -1
    along = {name: max(sign * change, 0) for name, change in changes.items()}
    if sum(along.values()) == abs(total):
        return counts
    shared = apportion(abs(total), along, along, least=0)
    return {name: counts[name] - changes[name] + sign * shared[name] for name in counts}


def layer_table(masks: Mapping[str, Tensor]) -> str:
    """A table of the layers as text: name, shape, connections, how many of them live, and that in percent.

    To see it before a training, let :func:`lightning_sparse.allocate` make the masks.

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
    check_tensors("masks", masks)
    rows = [(name, " x ".join(map(str, mask.shape)), mask.numel(), count_true(mask)) for name, mask in masks.items()]
    rows.append(("total", "", sum(row[2] for row in rows), sum(row[3] for row in rows)))
    cells = [("layer", "shape", "connections", "living", "density %")]
    cells += [(name, shape, str(size), str(living), f"{100 * living / size:.2f}") for name, shape, size, living in rows]
    return text_table(cells, "<<>>>")
