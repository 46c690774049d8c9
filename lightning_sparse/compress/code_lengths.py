"""How many bits a mask takes, and how many a list of symbols takes under its best code."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def mask_bits(total: int, living: int) -> float:
    """Count the bits that say how many of ``total`` connections live, and which ones: log2(N + 1) + log2 C(N, k).

    Example:
        >>> round(mask_bits(4, 2), 3)  # log2(6) + log2(5)
        4.907
    """
    ways = math.lgamma(total + 1) - math.lgamma(living + 1) - math.lgamma(total - living + 1)
    return ways / math.log(2) + math.log2(total + 1)


def code_bits(symbols: npt.NDArray[np.integer], codebook: int) -> float:
    """Count the bits of symbols coded at their empirical entropy, and of ``codebook`` entries of 32 bits each.

    Example:
        >>> code_bits(np.array([0, 0, 1, 3]), codebook=4)  # 4 symbols of 1.5 bits, and 128
        134.0
    """
    if len(symbols) == 0:
        return 0.0
    _, counts = np.unique(symbols, return_counts=True)
    return float((counts * np.log2(len(symbols) / counts)).sum()) + 32 * codebook
