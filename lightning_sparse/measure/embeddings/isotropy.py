"""Isotropy, whether a table of embeddings uses all directions alike: three measures, which disagree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_sparse.measure.embeddings.tables import moments, parts


def partition(table: Tensor) -> float:
    """``min Z(u) / max Z(u)``, where ``Z(u)`` is the sum of ``exp(u v)`` over the rows v, in (0, 1]; 1 is isotropic.

    Over u, which has a length of 1 and is an eigenvector of V'V or its opposite. Arora et al. 2016 (arXiv 1502.03520), as
    Mu & Viswanath 2018 (arXiv 1702.01417) measure it. It depends on how long the rows are: short ones look isotropic.

    Example:
        >>> round(partition(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
        1.0
    """
    moment = torch.stack([part.T @ part for part in parts(table)]).sum(0)
    axes = torch.linalg.eigh(moment)[1]
    ways = torch.cat([axes, -axes], 1)
    logs = torch.stack([(part @ ways).logsumexp(0) for part in parts(table)]).logsumexp(0)
    return math.exp(float(logs.min() - logs.max()))


def mean_cosine(table: Tensor) -> float:
    """The mean cosine of two different rows, none of zeros, over all pairs; NaN of one row.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])) == 1 / 3
        True
    """
    total = torch.stack([(part / part.norm(dim=1, keepdim=True)).sum(0) for part in parts(table)]).sum(0)
    n = len(table)
    return (float(total @ total) - n) / (n * (n - 1)) if n > 1 else math.nan


def iso_score(table: Tensor) -> float:
    """IsoScore of Rudman et al. 2022 (arXiv 2108.07344), in [0, 1]: 1 if the rows vary alike in all directions, 0 if in one.

    Its seven steps come to ``(k - 1) / (d - 1)``, where ``k = tr(C)^2 / tr(C^2)`` of the covariance C says in how many of the
    d dimensions the rows vary (the participation ratio). It does not change with mean or scale. NaN of equal rows.

    Example:
        >>> round(iso_score(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 4)
        1.0
    """
    covariance = moments(table)[1]
    squared, d = float(covariance.square().sum()), len(covariance)
    return (float(covariance.trace()) ** 2 / squared - 1) / (d - 1) if squared else math.nan
