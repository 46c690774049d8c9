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
    return _log2_choose(total, living) + math.log2(total + 1)


def code_bits(symbols: npt.NDArray[np.integer], kinds: int) -> float:
    """Count the bits of symbols coded at their empirical entropy, and of how often each of ``kinds`` occurs among them.

    Of k symbols of K kinds there are C(k + K - 1, K - 1) such histograms; with 0 kinds the histogram is taken as known.

    Example:
        >>> round(code_bits(np.array([0, 0, 1, 3]), kinds=4), 3)  # 4 symbols of 1.5 bits, and one of C(7, 3) = 35 histograms
        11.129
    """
    if len(symbols) == 0:
        return 0.0
    _, counts = np.unique(symbols, return_counts=True)
    entropy = float((counts * np.log2(len(symbols) / counts)).sum())
    return entropy + (_log2_choose(len(symbols) + kinds - 1, kinds - 1) if kinds > 1 else 0.0)


def _log2_choose(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
