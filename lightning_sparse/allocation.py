"""How the living connections are shared between the layers.

An allocation is a function ``(scores, masks, living) -> counts``: from each layer's scores (drop scores where the
network is to shrink, grow scores where it is to grow), its present boolean mask and the number of connections that
shall live in all, it says how many shall live in each. The counts add up to ``living`` exactly, and every layer keeps
at least one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.schedules import Curve
from lightning_sparse.selection import extremes, is_empty, lowest, marked

Allocation = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], int], dict[str, int]]


def uniform(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """The same density in every layer, to within one connection.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(100, dtype=torch.bool), "b": torch.ones(50, dtype=torch.bool)}
        >>> uniform({}, masks, 15)
        {'a': 10, 'b': 5}
    """
    return apportion(living, {name: float(mask.numel()) for name, mask in masks.items()}, masks)


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
    return apportion(living, {name: float(sum(mask.shape)) for name, mask in masks.items()}, masks)


def global_(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """One ranking for the whole network: the lowest scores anywhere die, or the highest anywhere are born.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(3, dtype=torch.bool)}
        >>> global_({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([4.0, 5.0, 6.0])}, masks, 4)
        {'a': 1, 'b': 3}
    """
    present = {name: marked(mask) for name, mask in masks.items()}
    after = globally(scores, masks, present, living - sum(present.values()))
    return {name: marked(mask) for name, mask in after.items()}


def globally(
    scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], present: Mapping[str, int], change: int
) -> dict[str, Tensor]:
    """The masks after ``change`` connections were born, or died if it is negative, where one ranking decides.

    A layer that would be emptied keeps its best connection, and another layer gives one more.
    """
    full = [name for name, mask in masks.items() if present[name] == mask.numel()]
    among = [~mask if change > 0 else None if name in full else mask for name, mask in masks.items()]
    marks = extremes([scores[name] for name in masks], abs(change), among, from_above=change > 0)
    after = {name: mark.logical_xor_(masks[name]) for name, mark in zip(masks, marks, strict=True)}
    emptied = [name for name, mask in after.items() if change < 0 and is_empty(mask)]
    if emptied:
        best = {name: masks[name] ^ lowest(scores[name], present[name] - 1, among=masks[name]) for name in emptied}
        others = {name: mask for name, mask in masks.items() if name not in emptied}
        after = best | globally(scores, others, present, change + sum(present[name] - 1 for name in emptied))
    return {name: after[name] for name in masks}


ALLOCATIONS: dict[str, Allocation] = {"global": global_, "uniform": uniform, "erk": erk}


def apportion(living: int, weights: Mapping[str, float], masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Share ``living`` connections in proportion to ``weights``, but between 1 and a layer's size, exactly.

    What a full layer cannot take goes to the others in proportion; fractions are settled by the largest remainder, ties
    in the order of the layers.

    Args:
        living: how many connections there are to share; at least one a layer.
        weights: positive weight of each layer.
        masks: boolean mask of each layer, for its size.

    Example:
        >>> import torch
        >>> masks = {"a": torch.ones(4, dtype=torch.bool), "b": torch.ones(100, dtype=torch.bool)}
        >>> apportion(14, {"a": 1.0, "b": 1.0}, masks)
        {'a': 4, 'b': 10}
    """
    sizes = {name: mask.numel() for name, mask in masks.items()}

    def quotas(scale: float) -> dict[str, float]:
        return {name: min(max(scale * weights[name], 1.0), size) for name, size in sizes.items()}

    low, high = 0.0, max(size / weights[name] for name, size in sizes.items())
    for _ in range(100):  # the sum of the quotas grows with the scale: halve until it is `living` to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if sum(quotas(middle).values()) < living else (low, middle)
    shares = quotas(low)
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: living - sum(counts.values())]:
        counts[name] += 1
    return counts


def check_room(parameters: Mapping[str, Tensor], sparsity: Curve) -> None:
    """Raise a SparsityError if a sparsity on the way would leave fewer connections than layers."""
    total, layers = sum(weight.numel() for weight in parameters.values()), len(parameters)
    top = max([sparsity.start, *(segment.value for segment in sparsity.segments)])
    living = total - round(top * total)
    if living < layers:
        raise SparsityError(
            f"sparsity {top} of {total} connections leaves {living} for {layers} layers, and no layer is emptied: ask for "
            f"at most {1 - layers / total:.6g}, or exclude layers"
        )
