"""AC/DC: alternating compressed and decompressed training."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_order
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import SparsityError, check_share


class ACDC(SparseTraining):
    """Alternate between a sparse and a dense network, and end sparse.

    Peste et al. 2021, "AC/DC: alternating compressed/decompressed training of deep neural networks" (arXiv 2106.12379).
    The defaults are the shares of their 100 epochs on ImageNet: dense to 10, phases of 5, dense from 75, sparse from 85.

    Args:
        final_sparsity: share of connections that are dead in each sparse phase, in [0, 1).
        warmup: when the first sparse phase begins.
        phase: length of each sparse and each dense phase, as a time of the same kind as the others.
        dense_from: when the last dense phase begins.
        sparse_from: when the last sparse phase begins.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = ACDC(0.9).recipe.resolve(1000)
        >>> [(step, plan.sparsity(step)) for step in (0, 100, 150, 200, 700, 750, 850)]
        [(0, 0.0), (100, 0.9), (150, 0.0), (200, 0.9), (700, 0.9), (750, 0.0), (850, 0.9)]
    """

    reached_by = "sparse_from"

    def __init__(
        self,
        final_sparsity: float,
        *,
        warmup: Time = 0.1,
        phase: Time = 0.05,
        dense_from: Time = 0.75,
        sparse_from: Time = 0.85,
        **others: Any,
    ) -> None:
        check_share("final_sparsity", final_sparsity, one_allowed=False)
        check_order(warmup=warmup, dense_from=dense_from, sparse_from=sparse_from)
        check_time("phase", phase)
        written = f"warmup={warmup}, phase={phase}, dense_from={dense_from}, sparse_from={sparse_from}"
        if len({type(time) for time in (warmup, phase, dense_from, sparse_from)}) > 1:
            raise SparsityError(f"{written} mix steps and shares: write them all as int steps or all as float shares")
        if phase == 0 or (dense_from - warmup) / phase > 1000:
            raise SparsityError(f"{written}: that is more than a thousand phases; write a longer phase")
        curve, begin, sparse = Curve(0.0).then(warmup, name="dense"), warmup, False
        while begin < dense_from:
            begin, sparse = min(round(begin + phase, 9), dense_from), not sparse
            curve = curve.then(begin, final_sparsity if sparse else 0.0, name="sparse" if sparse else "dense")
        curve = curve.then(sparse_from, 0.0, name="dense").then(sparse_from, final_sparsity, name="sparse")
        super().__init__(curve, **others)
