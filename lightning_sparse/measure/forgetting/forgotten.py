"""What pruning forgets: images that most sparse networks put into a different class than most dense ones do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need
from lightning_sparse.measure.arrays import check_array
from lightning_sparse.measure.rows import mean_row, share_row
from lightning_sparse.results.records import Measured, Record
from lightning_sparse.statistics.paired import holm, welch

ENOUGH = 5  # models a side; Hooker et al. train 30

Classes = npt.NDArray[np.int64]
Numbers = Tensor | npt.NDArray[Any]


def measure_forgotten(sparse_predictions: Numbers, dense_predictions: Numbers, labels: Numbers) -> Measured:
    """Find the images that pruning forgets, from the predictions of several sparse and several dense models.

    Hooker, Courville, Clark, Dauphin & Frome 2019, "What do compressed deep neural networks forget?" (arXiv 1911.05248),
    call an image pruning-identified if the class that most sparse models give it is not the one that most dense models
    give it. An image with a tie for most is left out, and counted.

    Two groups of dense models disagree too: ``measure_forgotten(dense[:5], dense[5:], labels)`` says on how many images.

    Args:
        sparse_predictions: (K1, n), integers: the class that each of K1 models of one sparsity gives to each image.
        dense_predictions: (K2, n), of dense models, for the same images.
        labels: (n,), integers in [0, classes).

    Returns:
        Records: ``forgotten_share``, in [0, 1], of the images without a tie, with its Wilson interval;
        ``forgotten_dense_accuracy`` and ``forgotten_dense_accuracy_elsewhere``, of single dense models, on forgotten
        images and on the others; ``forgotten_agreement``, the share of images that a sparse and a dense model put into the
        same class, mean over all pairs of them; ``forgotten_recall_shift`` for each class (condition ``"class 3"``), mean
        recall of the sparse models minus that of the dense ones, with Welch's interval over models.
        Arrays: ``forgotten``, (n,) bool; ``sparse_mode`` and ``dense_mode``, (n,), the class that most models give, -1 for
        a tie.

    Raises:
        SparsityError: if the shapes do not fit, or predictions or labels are not classes.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> dense = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 0]])
        >>> sparse = np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]])
        >>> found = measure_forgotten(sparse, dense, labels)
        >>> found.arrays["forgotten"], found.records[0].value
        (array([False,  True, False, False]), 0.25)
    """
    truth = _classes("labels", labels, 1)
    sparse = _classes("sparse_predictions", sparse_predictions, 2)
    dense = _classes("dense_predictions", dense_predictions, 2)
    for name, values in (("sparse_predictions", sparse), ("dense_predictions", dense)):
        if values.shape[1] != len(truth):
            raise SparsityError(
                f"{name} are of {values.shape[1]} images, and labels of {len(truth)}: give the same images"
            )
    count = int(max(sparse.max(), dense.max(), truth.max())) + 1
    sparse_votes, dense_votes = _votes(sparse, count), _votes(dense, count)
    sparse_mode, dense_mode = _mode(sparse_votes), _mode(dense_votes)
    tied = (sparse_mode < 0) | (dense_mode < 0)
    changed = ~tied & (sparse_mode != dense_mode)
    right = dense == truth
    agreement = (sparse_votes * dense_votes).sum(axis=1) / (len(sparse) * len(dense))
    how = f"{len(sparse)} sparse and {len(dense)} dense models{_warning(len(sparse), len(dense))}"
    tie = f"{tied.sum()} tied, left out"
    what = f"images whose modal class over the sparse models is not that over the dense ones; {tie}"
    hits, n = int(changed.sum()), int((~tied).sum())
    records = [
        share_row("forgotten_share", hits, n, detail=f"{what}; {how}"),
        _share("forgotten_dense_accuracy", right[:, changed], f"single dense models on forgotten images; {how}"),
        _share("forgotten_dense_accuracy_elsewhere", right[:, ~tied & ~changed], f"on images not forgotten; {how}"),
        _share(
            "forgotten_agreement",
            (sparse == dense) if len(sparse) == len(dense) == 1 else agreement[np.newaxis],
            f"same class from a sparse and a dense model, all pairs{_among_dense(dense_votes, len(dense))}; {how}",
        ),
    ]
    arrays = {"forgotten": changed, "sparse_mode": sparse_mode, "dense_mode": dense_mode}
    return Measured(records + _recall_shifts(sparse == truth, right, truth, how), arrays)


def vog_overlap(vog: Numbers, forgotten: Numbers) -> Record:
    """Ask whether the images that pruning forgets are those with a high variance of gradients.

    Args:
        vog: (n,), scores of the same images from a network that was not among those compared, or from one of the dense ones;
            raw, or normalised by class. NaN is left out, and counted.
        forgotten: (n,), bool, from :func:`measure_forgotten`.

    Returns:
        ``vog_forgotten_overlap``: of the tenth of images (rounded up) with the highest scores, the share that is forgotten,
        in [0, 1], with its Wilson interval. Of equal scores the earlier image is in the tenth. The detail has the share over
        all images, expected if the two are unrelated, and the one-sided p-value of Fisher's exact (hypergeometric) test.

    Raises:
        SparsityError: if the two are not of the same images.

    Example:
        >>> overlap = vog_overlap(np.arange(20.0), np.arange(20) >= 18)
        >>> overlap.value, overlap.detail.rpartition("; ")[2]
        (1.0, 'p = 0.00526 (Fisher, one-sided)')
    """
    scores, flags = check_array("vog", vog, "(n,)").astype(np.float64), check_array("forgotten", forgotten, "(n,)")
    if scores.shape != flags.shape or flags.dtype != np.bool_:
        raise SparsityError(
            f"forgotten has shape {flags.shape} of {flags.dtype} and vog {scores.shape}: give (n,) booleans and (n,) scores "
            "of the same images"
        )
    defined = ~np.isnan(scores)
    scores, flags = scores[defined], flags[defined]
    left_out = f", {(~defined).sum()} without a score left out" if (~defined).any() else ""
    if not len(scores):
        return Record("vog_forgotten_overlap", math.nan, 0, detail=f"no image has a score{left_out}")
    top = np.argsort(-scores, kind="stable")[: math.ceil(len(scores) / 10)]
    hits, total, k = int(flags[top].sum()), int(flags.sum()), len(top)
    p = float(need("scipy.stats").hypergeom.sf(hits - 1, len(scores), total, k))
    detail = (
        f"share forgotten of the {k} images of highest VOG; of all {len(scores)} images {total / len(scores):.4g} "
        f"({total}){left_out}; p = {p:.3g} (Fisher, one-sided)"
    )
    return share_row("vog_forgotten_overlap", hits, k, detail=detail)


def _votes(predictions: Classes, classes: int) -> Classes:
    """How many models give each image each class: (n, classes)."""
    votes = np.zeros((predictions.shape[1], classes), dtype=np.int64)
    for row in predictions:
        votes[np.arange(len(row)), row] += 1
    return votes


def _mode(votes: Classes) -> Classes:
    most = votes.max(axis=1, keepdims=True)
    return np.where((votes == most).sum(axis=1) == 1, votes.argmax(axis=1), -1)


def _share(metric: str, right: npt.NDArray[Any], detail: str) -> Record:
    """The mean over models and images, with an interval over images: Wilson's for one model, normal for several."""
    n = right.shape[1]
    if not n:
        return Record(metric, math.nan, 0, detail=f"undefined, there is no such image; {detail}")
    if right.dtype == np.bool_ and len(right) == 1:
        return share_row(metric, int(right.sum()), n, detail=detail)
    return mean_row(metric, right.mean(axis=0), detail=detail)


def _among_dense(votes: Classes, models: int) -> str:
    if models < 2:
        return ""
    pairs = (votes * (votes - 1)).sum(axis=1) / (models * (models - 1))
    return f" (dense models among themselves: {pairs.mean():.4f})"


def _recall_shifts(
    sparse: npt.NDArray[np.bool_], dense: npt.NDArray[np.bool_], labels: Classes, how: str
) -> list[Record]:
    classes = np.unique(labels)
    found = [welch(sparse[:, labels == c].mean(axis=1), dense[:, labels == c].mean(axis=1)) for c in classes]
    adjusted = holm([shift.p for shift in found])
    tests = int((~np.isnan(adjusted)).sum())
    overall = f"overall accuracy shifts by {sparse.mean() - dense.mean():+.4f}; {how}"
    records = []
    for c, shift, p in zip(classes, found, adjusted, strict=True):
        verdict = f"{'' if p < 0.05 else 'not '}significant at 0.05, Holm-adjusted p = {p:.3g} of {tests} tests"
        if math.isnan(p):
            verdict = "no test: fewer than two models on a side, or models of a side do not differ"
        records.append(
            Record(
                "forgotten_recall_shift",
                shift.difference,
                int((labels == c).sum()),
                shift.low,
                shift.high,
                condition=f"class {c}",
                detail=f"recall, sparse minus dense models, Welch's interval for this class alone; {verdict}; {overall}",
            )
        )
    return records


def _warning(*models: int) -> str:
    if min(models) == 1:
        return ": with one network on a side this is where two networks disagree, and no claim about sparsity"
    return f": noisy, fewer than {ENOUGH} on a side" if min(models) < ENOUGH else ""


def _classes(name: str, values: Numbers, dimensions: int) -> Classes:
    shape = "(n,)" if dimensions == 1 else "(models, n)"
    array = check_array(name, values, shape)
    if not array.size:
        raise SparsityError(f"{name} have shape {array.shape}, not {shape}: give one class for each image")
    if not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        raise SparsityError(f"{name} are not classes (integers from 0 on): give logits.argmax(dim=-1)")
    return array.astype(np.int64)
