"""Optimal brain surgery: when connections die, those that live on make up for them, layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from lightning_sparse.anatomy.layer_inputs import as_matrix, as_weight
from lightning_sparse.anatomy.parameters import inputs_first
from lightning_sparse.engine.distributed import take_from_first
from lightning_sparse.engine.granularity import WEIGHTS, Granularity, Groups
from lightning_sparse.engine.scores.calibration import input_sums, look_at_passes
from lightning_sparse.engine.scores.of_network import Network
from lightning_sparse.engine.selection import count_true, lowest
from lightning_sparse.errors import SparsityError

_BLOCK = 128  # columns whose errors reach those behind the block at once, and of which a share dies
_DAMPING = 0.01  # of the mean diagonal


@torch.no_grad()
def reconstruct(
    network: Network,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    choose: Granularity | None,
    moved: Callable[[str, Tensor], None],
) -> dict[str, Tensor]:
    """Let connections die and change the others so that each layer still gives what it gave, as far as it can.

    Frantar & Alistarh 2023, SparseGPT (arXiv 2301.00774). Layers are done in the order of the forward pass, and each is shown
    what the layers before it, already pruned, give now. Of its inputs X only H = X^T X is kept, of one layer at a time, or of
    those that multiply the same tensor (queries, keys and values). The pass is run again for each, up to that layer.

    Args:
        network: the model, its batches and its loss, of which only the forward pass is run; its weights are changed in place.
        before: which connections lived.
        after: how many live now, in each layer; and which, if ``choose`` is None.
        choose: the granularity, if the connections that die are to be chosen here.
        moved: called with a weight's name and what was added to it.

    Returns:
        The masks of all weights, with as many connections in each as ``after`` has.

    Raises:
        SparsityError: if a weight has no inputs that could be seen, or these are not finite.
    """
    turned, masks = inputs_first(network.parameters), dict(after)
    what = "reconstruct='obs'"
    passes = look_at_passes(network, what)
    for group in passes.order:
        dying = [name for name in group if count_true(after[name]) < count_true(before[name])]
        sums = input_sums(network, lambda inputs: inputs.mT @ inputs, what, dying, passes.uses) if dying else {}
        for name in dying:
            weight, is_turned = network.parameters[name].detach(), name in turned
            hessians = {(first, last): part for (whose, first, last), part in sums.items() if whose == name}
            matrix, alive, kept = (as_matrix(each, is_turned) for each in (weight, before[name], after[name]))
            dies = count_true(before[name]) - count_true(after[name])
            found, mask = _in_parts(matrix, hessians, alive, kept, dies, choose)
            new = take_from_first(as_weight(found, weight.shape, is_turned).to(weight.dtype))
            masks[name] = take_from_first(as_weight(mask, weight.shape, is_turned).contiguous())
            if not new.isfinite().all():
                raise SparsityError(
                    f"{what} gave weights of {name!r} that are not finite: look whether the training has diverged,"
                    " or leave out reconstruct="
                )
            moved(name, new - weight)
            weight.copy_(new)
    return masks


def _in_parts(
    weight: Tensor,
    hessians: Mapping[tuple[int, int], Tensor],
    alive: Tensor,
    kept: Tensor,
    dies: int,
    choose: Granularity | None,
) -> tuple[Tensor, Tensor]:
    """Rows that have the same inputs are done together; of each part dies its share of ``dies``, exact in the sum."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    mask = (kept if choose is None else alive).clone()
    bounds = sorted({bound for part in hessians for bound in part})
    parts = [slice(*ends) for ends in pairwise(bounds)]
    shares = _shares(dies, [count_true(_mortal(mask[rows], choose or WEIGHTS)) for rows in parts])
    for rows, share in zip(parts, shares, strict=True):
        theirs = [h for (first, last), h in hessians.items() if first <= rows.start and rows.stop <= last]
        hessian = torch.stack(theirs).sum(0) if len(theirs) > 1 else theirs[0]
        given = (weight[rows], hessian, mask[rows])
        weight[rows], mask[rows] = surgery(*given) if choose is None else surgery(*given, share, choose)
    return weight, mask


def surgery(
    weight: Tensor, hessian: Tensor, mask: Tensor, dies: int | None = None, units: Granularity = WEIGHTS
) -> tuple[Tensor, Tensor]:
    """Zero connections of one matrix from its first column to its last, and let those to the right of each make up for it.

    Which die is chosen where the surgery begins a block of 128 columns (of N:M, a group), from the weights as they are by
    then: those that would cost least, ``w^2 / [inverse Hessian of the columns to come]_jj``; in each block the same share of
    the connections. Inputs that are always zero lose their weights first, and those that live on are set to zero.

    Args:
        weight: shape (outputs, inputs), single or double precision.
        hessian: X^T X of its inputs, shape (inputs, inputs).
        mask: which live in the end, or before, if ``dies`` is given.
        dies: how many of them die; they are then chosen.
        units: what they are chosen in: single weights, or N:M.

    Returns:
        The weight, its dead zero, and the mask.

    Example:
        Two inputs that are always equal: what the first weight did, the second does too (but for the damping).

        >>> weight, mask = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[False, True]])
        >>> surgery(weight, torch.ones(2, 2), mask)[0].round(decimals=2).tolist()
        [[0.0, 2.99]]
    """
    columns = weight.shape[1]
    upper = _inverse_factor(hessian).to(weight.dtype)
    weight = weight.masked_fill(hessian.diagonal() == 0, 0.0)
    mask = mask.clone()
    step = units.m if isinstance(units, Groups) else _BLOCK
    starts = range(0, columns, step)
    chosen = dies is not None
    mortal = [count_true(_mortal(mask[:, at : at + step], units)) for at in starts] if chosen else []
    shares = dict(zip(starts, _shares(dies or 0, mortal), strict=False))
    width = step * max(1, _BLOCK // step)
    for begin in range(0, columns, width):
        end = min(begin + width, columns)
        errors = torch.empty_like(weight[:, begin:end])
        for at in range(begin, end):
            if at in shares:
                ahead = slice(at, min(at + step, columns))
                cost = (weight[:, ahead] / upper.diagonal()[ahead]).square()
                mask[:, ahead] &= ~lowest(cost, shares[at], _mortal(mask[:, ahead], units, cost))
            error = weight[:, at].masked_fill(mask[:, at], 0.0) / upper[at, at]
            weight[:, at:end] -= torch.outer(error, upper[at, at:end])
            errors[:, at - begin] = error
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return weight.masked_fill(~mask, 0.0), mask


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor U of the damped inverse: row j of it is what column j, when it dies, asks of those behind."""
    damped = hessian.to(torch.float32 if hessian.device.type == "mps" else torch.float64, copy=True)
    diagonal = damped.diagonal()
    silent = diagonal == 0
    damping = _DAMPING * diagonal.sum() / max(1, count_true(~silent))
    diagonal[silent] = 1.0
    diagonal += damping
    upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    return upper


def _mortal(mask: Tensor, units: Granularity, scores: Tensor | None = None) -> Tensor:
    """Which connections may die; how many, no score changes."""
    if not isinstance(units, Groups):
        return mask
    return mask & ~units.protected(mask.float() if scores is None else scores, mask)


def _shares(count: int, sizes: Sequence[int]) -> list[int]:
    """Share a number in proportion to ``sizes``, exactly: the running sum is rounded.

    Example:
        >>> _shares(5, [3, 3, 3])
        [2, 1, 2]
    """
    total, sums = max(1, sum(sizes)), [0, *accumulate(sizes)]
    done = [(2 * count * size + total) // (2 * total) for size in sums]
    return [later - earlier for earlier, later in pairwise(done)]
