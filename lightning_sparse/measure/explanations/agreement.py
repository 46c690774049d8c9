"""Agreement: do two models give the same reasons for the same images?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lightning_sparse.errors import SparsityError, check_seed
from lightning_sparse.extras import need
from lightning_sparse.measure.explanations.maps import (
    Maps,
    attribution_row,
    check_keep,
    magnitudes,
    places,
    quotient,
    ranks,
    varied,
)
from lightning_sparse.results.records import Record

_TOP = 0.1  # of the pixels


def rank_agreement(maps_a: Maps, maps_b: Maps) -> npt.NDArray[np.float64]:
    """Compute Spearman's rank correlation of the absolute values of two models' maps of the same images.

    Args:
        maps_a: (n, H, W); NaN is no pixel.
        maps_b: (n, H, W), of the same images in the same order.

    Returns:
        (n,), in [-1, 1], 1 where both put the pixels in the same order; NaN where one map is constant.

    Raises:
        SparsityError: if the shapes differ, or scipy is missing.

    Example:
        >>> a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        >>> rank_agreement(a, 10 * a**3), rank_agreement(a, 1 / a)
        (array([1.]), array([-1.]))
    """
    rankdata = need("scipy.stats").rankdata
    ranks_a, ranks_b = (_centred(rankdata(values, axis=1, nan_policy="omit")) for values in _both(maps_a, maps_b))
    spread = np.sqrt((ranks_a**2).sum(axis=1) * (ranks_b**2).sum(axis=1))
    return quotient((ranks_a * ranks_b).sum(axis=1), spread, spread > 0)


def top_agreement(maps_a: Maps, maps_b: Maps, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Compute how much two models' most important tenths of the pixels overlap: intersection over union.

    Args:
        maps_a: (n, H, W); NaN is no pixel.
        maps_b: (n, H, W), of the same images in the same order.
        seed: of the order of equal values, drawn separately for each map: pixels that neither model distinguishes agree
            only by chance.

    Returns:
        (n,), in [0, 1]; 1 if both choose the same pixels, NaN where one map is constant. With k of d pixels chosen, random
        orders come to about k / (2 d - k), which is 0.05; of a text of few words one is chosen, and they come to 1 / d.

    Raises:
        SparsityError: if the shapes differ.

    Example:
        >>> a = np.zeros((1, 4, 5))
        >>> a[0, 0, :3] = 3, 2, 1
        >>> b = np.roll(a, 1)  # two of twenty pixels count, and one is the same
        >>> round(float(top_agreement(a, b)[0]), 3)
        0.333
    """
    seed = check_seed(seed)
    a, b = _both(maps_a, maps_b)
    most = np.rint(_TOP * places(a).sum(axis=1, keepdims=True)).clip(1)
    chosen_a = ranks(torch.from_numpy(a), seed).numpy() < most
    chosen_b = ranks(torch.from_numpy(b), seed + 1).numpy() < most
    return quotient((chosen_a & chosen_b).sum(axis=1), (chosen_a | chosen_b).sum(axis=1), varied(a) & varied(b))


def agreement_records(
    maps_a: Maps, maps_b: Maps, attribution: str, *, keep: npt.NDArray[np.bool_] | None = None, seed: int = 0
) -> list[Record]:
    """Record how far a model's maps agree with those of the dense model.

    The ceiling is the same comparison between two dense models of different seeds: a sparse model that agrees with its dense
    parent as much as these do with each other has changed no more than a new seed changes a model.

    Args:
        maps_a: (n, H, W), the model's.
        maps_b: (n, H, W), the dense model's, of the same images.
        attribution: the method that made both, for the record.
        keep: (n,), which images to use, from :func:`~lightning_sparse.measure.same_images`; None uses all.
        seed: see :func:`top_agreement`.

    Returns:
        ``dense_agreement`` and ``dense_agreement_top10``: means of :func:`rank_agreement` and :func:`top_agreement` over
        images where they are defined.

    Raises:
        SparsityError: if the shapes differ, or scipy is missing.

    Example:
        >>> a = np.arange(20.0).reshape(1, 4, 5)
        >>> [(row.metric, row.value) for row in agreement_records(a, a, "gradient")]
        [('dense_agreement', 1.0), ('dense_agreement_top10', 1.0)]
    """
    _both(maps_a, maps_b)
    if not isinstance(attribution, str) or not attribution:
        raise SparsityError(f"attribution={attribution!r} is not a name: write attribution='gradient'")
    check_keep(keep, len(maps_a))
    found = {
        "dense_agreement": (rank_agreement(maps_a, maps_b), "Spearman of absolute maps, per image"),
        "dense_agreement_top10": (
            top_agreement(maps_a, maps_b, seed=seed),
            "intersection over union of the highest tenth of the pixels (of a text's words, at least one), per image; random "
            f"orders of many give 0.05; seed {seed}",
        ),
    }
    rows = []
    for metric, (values, detail) in found.items():
        chosen = values if keep is None else values[keep]
        if keep is not None:
            detail += f"; {len(chosen)} of {len(values)} images"
        rows.append(attribution_row(metric, chosen, attribution, detail))
    return rows


def _both(maps_a: Maps, maps_b: Maps) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b = magnitudes("maps_a", maps_a), magnitudes("maps_b", maps_b)
    if tuple(np.shape(maps_a)) != tuple(np.shape(maps_b)):
        raise SparsityError(f"maps_a {np.shape(maps_a)} and maps_b {np.shape(maps_b)} differ: give the same images")
    there = places(a) & places(b)
    return np.where(there, a, np.nan), np.where(there, b, np.nan)


def _centred(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks less their mean over the places that exist, 0 elsewhere."""
    there = places(ranks)
    ranks = np.where(there, ranks, 0.0)
    mean = ranks.sum(axis=1, keepdims=True) / there.sum(axis=1, keepdims=True).clip(1)
    return np.where(there, ranks - mean, 0.0)
