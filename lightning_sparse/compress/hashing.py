"""Weights that are given their values at random, so that a seed says which has which (Chen et al. 2015, arXiv 1504.04788)."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def hashed(name: str, numbers: int, entries: int, seed: int) -> Tensor:
    """For each weight of a layer the number of its value, int64: 0 to K - 1 are the entries, K to 2K - 1 their negatives.

    Example:
        >>> hashed("fc.weight", 6, 2, seed=0).tolist() == hashed("fc.weight", 6, 2, seed=0).tolist()
        True
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.randint(2 * entries, (numbers,), generator=generator)
