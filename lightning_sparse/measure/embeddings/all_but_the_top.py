"""All-but-the-top: word vectors without their mean and without the directions in which they vary most."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.embeddings.tables import ROWS, check_table, moments, parts


def all_but_the_top(vectors: Tensor, directions: int | None = None, fit: int | Tensor | None = None) -> Tensor:
    """Subtract the mean of all vectors, then their projections on the few directions in which they vary most.

    Mu & Viswanath 2018, "All-but-the-Top" (arXiv 1702.01417): what all words share, most of it how frequent they are, says
    nothing about what they mean. The projections are those *of the centred vectors*, so that nothing is left along a removed
    direction; code that is often copied projects the vectors as they came, and leaves the same constant on all of them.

    Which rows the mean and the directions are fitted on decides much: hundreds of thousands of rare words outvote the
    frequent ones. Zeros do not stay zeros, so remove the top before anything is pruned.

    Args:
        vectors: (rows, dimensions), finite floats, at least two of both; of words, the most frequent first.
        directions: how many, in [0, dimensions); 0 removes the mean alone. None is a hundredth of the dimensions, at least 1.
        fit: the rows that mean and directions are fitted on, more than directions: how many of the first, or a tensor of row
            numbers or of one bool a row. None takes all.

    Returns:
        A new tensor of the same shape, type and device, without a gradient. It is computed in double precision, a part at a
        time.

    Raises:
        SparsityError: if an argument is not what it should be.

    Example:
        >>> vectors = torch.tensor([[9.0, 1.0], [1.0, 2.0], [5.0, 0.0]])
        >>> all_but_the_top(vectors, 0).tolist()
        [[4.0, 0.0], [-4.0, 1.0], [0.0, -1.0]]
        >>> bool((all_but_the_top(vectors, 1).norm(dim=1) < 1.2).all())  # what is left is along the second axis, nearly
        True
    """
    table = check_table("vectors", vectors)
    size = table.shape[1]
    count = max(1, round(size / 100)) if directions is None else check_count("directions", directions, 0, most=size - 1)
    fitted = table if fit is None else table[_rows(fit, len(table))]
    if len(fitted) <= count:
        raise SparsityError(
            f"fit leaves {len(fitted)} rows, in which there are no {count} directions around a mean: fit on more than {count}"
        )
    mean, covariance = moments(fitted)
    top = torch.linalg.eigh(covariance)[1][:, size - count :]
    found = torch.empty_like(table)
    for part, place in zip(parts(table), torch.split(found, ROWS), strict=True):
        centred = part - mean
        place.copy_(centred - centred @ top @ top.T)
    return found


def _rows(fit: int | Tensor, rows: int) -> slice | Tensor:
    if not isinstance(fit, Tensor):
        return slice(check_count("fit", fit, most=rows))
    if fit.dtype == torch.bool and fit.shape == (rows,):
        return fit
    whole = not (fit.is_floating_point() or fit.is_complex() or fit.dtype == torch.bool)
    if not whole or fit.dim() != 1 or not bool(((fit >= 0) & (fit < rows)).all()):
        raise SparsityError(
            f"fit={fit.dtype} of shape {tuple(fit.shape)} does not name rows of {rows}: give row numbers in [0, {rows}), one "
            "bool a row, or how many of the first"
        )
    return fit.long()
