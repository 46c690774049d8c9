"""Localisation: if it is known which pixels decide the class, does the map point at them?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError, check_seed
from lightning_sparse.measure.explanations.maps import Maps, magnitudes, quotient, ranks

Masks = Tensor | npt.NDArray[np.bool_]


def rank_accuracy(maps: Maps, masks: Masks, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Compute the relevance rank accuracy (Arras et al. 2022, arXiv 2003.07258).

    It is the share of the map's K highest pixels that are among the K true ones.

    Args:
        maps: (n, H, W), absolute values are taken.
        masks: (n, H, W), booleans: the true pixels of each image.
        seed: of the order of equal values.

    Returns:
        (n,), in [0, 1]; NaN for a map of zeros or a mask without a pixel.

    Raises:
        SparsityError: if the shapes differ or the masks are not booleans.

    Example:
        >>> maps = np.array([[[4.0, 3.0], [2.0, 1.0]]])
        >>> rank_accuracy(maps, np.array([[[True, False], [True, False]]]))
        array([0.5])
    """
    seed = check_seed(seed)
    values, true = _both(maps, masks)
    order = ranks(torch.from_numpy(values), seed).numpy()
    wanted = true.sum(axis=1)
    hits = (true & (order < wanted[:, None])).sum(axis=1)
    return quotient(hits, wanted, (wanted > 0) & values.any(axis=1))


def mass_accuracy(maps: Maps, masks: Masks) -> npt.NDArray[np.float64]:
    """Compute the relevance mass accuracy (Arras et al. 2022, arXiv 2003.07258): the share of the map on true pixels.

    Args:
        maps: (n, H, W), absolute values are taken.
        masks: (n, H, W), booleans: the true pixels of each image.

    Returns:
        (n,), in [0, 1]; NaN for a map of zeros or a mask without a pixel.

    Raises:
        SparsityError: if the shapes differ or the masks are not booleans.

    Example:
        >>> maps = np.array([[[4.0, 3.0], [2.0, 1.0]]])
        >>> mass_accuracy(maps, np.array([[[True, False], [True, False]]]))
        array([0.6])
    """
    values, true = _both(maps, masks)
    mass = values.sum(axis=1)
    return quotient((values * true).sum(axis=1), mass, (mass > 0) & true.any(axis=1))


def chance(masks: Masks) -> npt.NDArray[np.float64]:
    """Compute what a random map scores in both measures: the share of true pixels, (n,); NaN for a mask without a pixel.

    Example:
        >>> chance(np.array([[[True, False], [False, False]]]))
        array([0.25])
    """
    share: npt.NDArray[np.float64] = magnitudes("masks", masks).mean(axis=1)
    share[share == 0] = np.nan
    return share


def check_masks(name: str, masks: Masks, shape: tuple[int, ...]) -> None:
    """Refuse masks that are not booleans, or not one for each map.

    Example:
        >>> check_masks("masks", np.ones((1, 2, 2)), (1, 2, 2))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: masks are float64, not booleans: write masks > 0
    """
    if not isinstance(masks, Tensor | np.ndarray):
        raise SparsityError(
            f"{name} are a {type(masks).__name__}, not booleans {tuple(shape)}: give a tensor or an array"
        )
    if masks.dtype not in (np.bool_, torch.bool):
        raise SparsityError(f"{name} are {masks.dtype}, not booleans: write {name} > 0")
    if tuple(masks.shape) != tuple(shape):
        raise SparsityError(
            f"{name} have shape {tuple(masks.shape)}, not {tuple(shape)}: give one mask of pixels per image"
        )


def _both(maps: Maps, masks: Masks) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    values = magnitudes("maps", maps)
    check_masks("masks", masks, np.shape(maps) if not isinstance(maps, Tensor) else tuple(maps.shape))
    return values, magnitudes("masks", masks) > 0
